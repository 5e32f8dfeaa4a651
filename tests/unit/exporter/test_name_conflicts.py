"""
Log lines about names of several kinds, and descriptions with several units.
"""

from __future__ import annotations

from typing import Any

from tests.exporting import FactoryTestCase
from tests.logs import log_lines
from tests.recorders import GlobalRecorderTestCase
from txmetrics_tcp import (
    MetricsFactory,
    counter,
    describe_counter,
    describe_gauge,
    set_global_recorder,
)
from txmetrics_tcp._exporter import name_conflicts
from txmetrics_tcp._exporter.name_conflicts import MAX_NAMES
from txmetrics_tcp.testing import FakeReactor

KINDS = "The name 'x' is used for a {} and a {}: use each name for one kind only"
UNITS = "The {} 'x' is described with the unit {}, and before with {}: viewers use the last one"


class NameConflictTests(FactoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.logged = log_lines(self, name_conflicts)
        self.recorder = self.factory().recorder

    def test_kinds(self) -> None:
        """A name of two kinds is logged once, on the reactor thread, without clients."""
        for number in range(3):
            self.recorder.counter("x", number=number).increment()
            self.recorder.gauge("x", number=number)
            self.recorder.histogram("x", number=number)
        self.assertEqual(self.logged, [])
        self.reactor.drain()
        self.assertEqual(self.logged, [KINDS.format("counter", "gauge")])

    def test_describedKinds(self) -> None:
        """The kind of a description counts, too."""
        self.recorder.describe_histogram("x", "seconds")
        self.recorder.gauge("x")
        self.reactor.drain()
        self.assertEqual(self.logged, [KINDS.format("histogram", "gauge")])

    def test_units(self) -> None:
        """A description with another unit is logged once; the first unit is no conflict."""
        self.recorder.describe_gauge("x")
        for _ in range(3):
            for unit in ("bytes", "seconds", None):
                self.recorder.describe_gauge("x", unit, "Text may change.")
        self.reactor.drain()
        self.assertEqual(self.logged, [UNITS.format("gauge", "seconds", "bytes")])

    def test_noUnit(self) -> None:
        self.recorder.describe_gauge("x", "bytes")
        self.recorder.describe_gauge("x")
        self.reactor.drain()
        self.assertEqual(self.logged, [UNITS.format("gauge", "none", "bytes")])

    def test_noConflict(self) -> None:
        """The same kind and unit may be used and described again, with another text."""
        for text in ("one", "two"):
            self.recorder.describe_counter("x", "count", text)
            self.recorder.counter("x", text=text).increment()
        self.assertEqual(self.reactor.waiting, 0)

    def test_bounded(self) -> None:
        """Only a limited number of names is remembered."""
        for number in range(MAX_NAMES + 5):
            self.recorder.describe_counter(f"c{number}", "bytes")
        for number in range(MAX_NAMES + 5):
            self.recorder.describe_counter(f"c{number}", "seconds")
            self.recorder.gauge(f"c{number}")
        self.reactor.drain()
        self.assertEqual(len(self.logged), 2 * MAX_NAMES)

    def test_longName(self) -> None:
        """Names are shortened."""
        self.recorder.counter("x" * 60_000)
        self.recorder.gauge("x" * 60_000)
        self.reactor.drain()
        self.assertLess(len(self.logged[0]), 300)

    def test_noReactor(self) -> None:
        """A caller sees no error if the reactor is gone."""

        def fails(*args: object) -> None:
            raise RuntimeError("Event loop is closed")

        self.patch(FakeReactor, "callFromThread", fails)
        self.recorder.counter("x")
        self.recorder.gauge("x")


class GlobalTests(GlobalRecorderTestCase):
    def test_beforeInstallation(self) -> None:
        """Conflicts before a recorder is installed are logged; the last description counts."""
        logged = log_lines(self, name_conflicts)
        describe_counter("x", "bytes", "first")
        describe_counter("x", "seconds", "second")
        describe_counter("x", "bytes", "third")
        describe_gauge("y")
        kept = [counter("y")]
        reactor: Any = FakeReactor()
        factory = MetricsFactory(reactor)
        set_global_recorder(factory.recorder)
        reactor.drain()
        self.assertEqual(
            logged,
            [
                UNITS.format("counter", "bytes", "seconds"),
                KINDS.format("gauge", "counter").replace("'x'", "'y'"),
            ],
        )
        described = factory.incoming.take_described().values()
        self.assertEqual([b"third" in one for one in described], [True, False])
        del kept
