"""
Tests of an exporter's settings: defaults, checks, and their use by builder, factory and daemon.
"""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace
from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from tests.listening import ListeningReactor
from txmetrics_tcp import ExporterSettings, MetricsFactory, TcpBuilder
from txmetrics_tcp.tap import Options
from txmetrics_tcp.testing import FakeReactor

NOT_WHOLE = (1.5, "1", True, math.nan)
NO_SECONDS = ("1", True)


class SettingsTests(SynchronousTestCase):
    def test_limits(self) -> None:
        """The minimum is accepted; a value below it is rejected with the name of the setting."""
        for name, least, below in (
            ("buffer_size", 1, 0),
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
            (("idle_after", "repair_interval", "dead_after", "flush_timeout"), NO_SECONDS),
            (("source",), (5, b"shop")),
        ):
            for name in names:
                for value in values:
                    error = self.assertRaises(TypeError, ExporterSettings, **{name: value})
                    self.assertRegex(str(error), f"{name} must be ")

    def test_notFinite(self) -> None:
        for name in ("idle_after", "repair_interval", "dead_after", "flush_timeout"):
            for value in (math.inf, math.nan, 10**400):
                error = self.assertRaises(ValueError, ExporterSettings, **{name: value})
                self.assertRegex(str(error), f"^{name} must be finite")

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
        for name in ("max_series", "repair_interval", "flush_timeout"):
            self.assertRaises(TypeError, ExporterSettings, **{name: None})

    def test_networks(self) -> None:
        """Networks are parsed from text into values that can be compared."""
        settings = ExporterSettings(allow=["192.0.2.0/24"])
        self.assertEqual(settings.allow, (ip_network("192.0.2.0/24"),))
        self.assertEqual(settings, replace(ExporterSettings(), allow=settings.allow))
        self.assertRaises(ValueError, ExporterSettings, allow=["nonsense"])
        with self.assertRaisesRegex(TypeError, "^a network must be a str, not 5"):
            ExporterSettings(allow=[5])  # type: ignore[list-item]

        for value in ("192.0.2.0/24", None, 5):
            with self.assertRaisesRegex(TypeError, "^allow must be a sequence of networks, not "):
                ExporterSettings(allow=value)  # type: ignore[arg-type]

    def test_flags(self) -> None:
        for name in ("totals", "own_metrics"):
            for value in ("no", None, 0):
                error = self.assertRaises(TypeError, ExporterSettings, **{name: value})
                self.assertEqual(str(error), f"{name} must be a bool, not {value!r}")

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
