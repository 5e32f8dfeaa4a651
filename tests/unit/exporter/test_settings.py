"""
Tests of an exporter's settings: defaults, checks, and their use by builder, factory and daemon.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import FrozenInstanceError, fields, replace
from ipaddress import ip_network
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.listening import ListeningReactor
from txmetrics_tcp import ExporterSettings, MetricsFactory, TcpBuilder
from txmetrics_tcp.tap import Options
from txmetrics_tcp.testing import FakeReactor

with contextlib.suppress(ImportError):  # trial uses the name `suppress` itself
    import numpy

NOT_WHOLE = (1.5, "1", True, math.nan)
SECONDS = ("max_delay", "idle_after", "repair_interval", "dead_after", "flush_timeout")
NO_SECONDS = ("1", True)


class SettingsTests(SynchronousTestCase):
    def test_limits(self) -> None:
        """The minimum is accepted; a value below it is rejected with the name of the setting."""
        for name, least, below in (
            ("buffer_size", 1, 0),
            ("max_delay", 0, -0.1),
            ("max_series", 0, -1),
            ("idle_after", 0, -0.1),
            ("repair_interval", 0.1, 0.09),
            ("dead_after", 0.1, 0.09),
            ("flush_timeout", 0, -1),
            ("max_clients", 1, 0),
            ("max_clients_per_address", 1, 0),
        ):
            self.assertEqual(getattr(ExporterSettings(**{name: least}), name), least)
            error = self.assertRaises(ValueError, ExporterSettings, **{name: below})
            self.assertEqual(str(error), f"{name} must be at least {least}, not {below}")

    def test_types(self) -> None:
        for names, values in (
            (("buffer_size", "max_series", "max_clients", "max_clients_per_address"), NOT_WHOLE),
            (SECONDS, NO_SECONDS),
            (("source",), (5, b"shop")),
        ):
            for name in names:
                for value in values:
                    error = self.assertRaises(TypeError, ExporterSettings, **{name: value})
                    self.assertRegex(str(error), f"{name} must be ")

    def test_notFinite(self) -> None:
        for name in SECONDS:
            for value in (math.inf, math.nan, 10**400, 1e300, 1e9):
                error = self.assertRaises(ValueError, ExporterSettings, **{name: value})
                self.assertRegex(str(error), f"^{name} must be less than 1,000,000,000 seconds")

    def test_longValues(self) -> None:
        """An error message contains a part of a long value, and none of an unprintable one."""

        class Unprintable:
            def __repr__(self) -> str:
                raise RuntimeError

        for one in fields(ExporterSettings):
            for value in ("x" * 10**6, [["x" * 10**6]], Unprintable()):
                with self.assertRaisesRegex((TypeError, ValueError), f"{one.name}") as caught:
                    ExporterSettings(**{one.name: value})
                self.assertLess(len(str(caught.exception)), 500)

    def test_source(self) -> None:
        for bad in ("", "\udcff", "x" * 65537):
            with self.assertRaisesRegex(ValueError, "^source .*; got '"):
                ExporterSettings(source=bad)

    def test_unlimited(self) -> None:
        for name in (
            "buffer_size",
            "idle_after",
            "dead_after",
            "source",
            "max_clients",
            "max_clients_per_address",
        ):
            self.assertIsNone(getattr(ExporterSettings(**{name: None}), name))
        for name in ("max_delay", "max_series", "repair_interval", "flush_timeout"):
            self.assertRaises(TypeError, ExporterSettings, **{name: None})

    def test_networks(self) -> None:
        """Networks are parsed from text into values that can be compared."""
        settings = ExporterSettings(allow=["192.0.2.0/24"])
        self.assertEqual(settings.allow, (ip_network("192.0.2.0/24"),))
        self.assertEqual(settings, replace(ExporterSettings(), allow=settings.allow))
        self.assertRaises(ValueError, ExporterSettings, allow=["nonsense"])
        for wrong in (5, True, None, b"1234", ["192.0.2.0/24"]):
            with self.assertRaisesRegex(TypeError, "^allow: expected 192.0.2.0/24, .*; got "):
                ExporterSettings(allow=[wrong])  # type: ignore[list-item]
            with self.assertRaisesRegex(TypeError, "^allow: expected 192.0.2.0/24, .*; got "):
                TcpBuilder().allow(wrong)  # type: ignore[arg-type]

        # A network is an iterable of its addresses.
        for value in (5, "192.0.2.0/24", ip_network("192.0.2.0/24")):
            with self.assertRaisesRegex(TypeError, "^allow must be a sequence of networks, not "):
                ExporterSettings(allow=value)  # type: ignore[arg-type]

    def test_noNetworks(self) -> None:
        """An empty list, for example from a configuration, does not accept every client."""
        self.assertIsNone(ExporterSettings().allow)
        for empty in ((), [], iter(())):
            with self.assertRaisesRegex(ValueError, "^allow must contain at least one network"):
                ExporterSettings(allow=empty)  # type: ignore[arg-type]
        with self.assertRaisesRegex(ValueError, r"^allow\(\) needs at least one network"):
            TcpBuilder().allow(*[])

    def test_flags(self) -> None:
        for name in ("totals", "own_metrics"):
            for value in ("no", None, 0):
                error = self.assertRaises(TypeError, ExporterSettings, **{name: value})
                self.assertEqual(str(error), f"{name} must be a bool, not {value!r}")

    @skipIf(needs("numpy"), needs("numpy"))
    def test_numpy(self) -> None:
        """Numbers of other libraries become numbers of Python."""
        settings = ExporterSettings(max_clients=numpy.int64(5), dead_after=numpy.float32(1.5))
        self.assertEqual((settings.max_clients, settings.dead_after), (5, 1.5))
        self.assertIs(type(settings.max_clients), int)
        self.assertIs(type(settings.dead_after), float)

    def test_frozen(self) -> None:
        settings = ExporterSettings()
        with self.assertRaises(FrozenInstanceError):
            settings.buffer_size = 5  # type: ignore[misc]


class UsersTests(SynchronousTestCase):
    """Factory, builder and daemon use the same defaults, and the builder can set each setting."""

    def test_defaults(self) -> None:
        reactor = ListeningReactor()
        options = Options()
        options.parseOptions([])
        self.assertEqual(MetricsFactory(FakeReactor()).settings, ExporterSettings())
        self.assertEqual(TcpBuilder(reactor)._settings, ExporterSettings())
        self.assertEqual(options.settings, ExporterSettings())

    def test_others(self) -> None:
        """Factory and builder reject settings that are not an `ExporterSettings`."""
        for given in ({"buffer_size": 5}, ExporterSettings):
            for user in (MetricsFactory, TcpBuilder):
                error = self.assertRaises(TypeError, user, FakeReactor(), given)
                self.assertRegex(str(error), "^settings must be ExporterSettings, not ")

    def test_builder(self) -> None:
        builder = (
            TcpBuilder()
            .buffer_size(2)
            .max_delay(0)
            .totals(False)
            .max_series(3)
            .idle_after(4)
            .repair_interval(6)
            .dead_after(7)
            .flush_timeout(8)
            .own_metrics(False)
            .source("shop")
            .allow("192.0.2.0/24")
            .allow("::1")
            .max_clients(9, per_address=10)
        )
        given = builder._settings
        self.assertEqual(given.allow, (ip_network("192.0.2.0/24"), ip_network("::1")))
        default = ExporterSettings()
        same = [
            one.name
            for one in fields(given)
            if getattr(given, one.name) == getattr(default, one.name)
        ]
        self.assertEqual(same, [])

    def test_builderWithSettings(self) -> None:
        """A builder begins with the settings that it is given, and can change them."""
        builder = TcpBuilder(None, ExporterSettings(buffer_size=5, source="shop")).dead_after(1)
        expected = ExporterSettings(buffer_size=5, source="shop", dead_after=1)
        self.assertEqual(builder._settings, expected)
