"""
Tests of a viewer: it has exact totals when it has read all data, and its rates do not jump before.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.reader import exact_totals, view_bits
from txmetrics_tcp import Decoder, ExporterSettings, MetricsFactory, SourceView
from txmetrics_tcp.testing import FakeReactor, PausingTransport


class Viewer:
    """A viewer that reads over several connections, with pauses."""

    def __init__(self, reactor: FakeReactor, limit: int) -> None:
        self.reactor = reactor
        self.limit = limit
        self.view = SourceView(reactor.seconds)

    def connect(self, factory: MetricsFactory) -> None:
        self.max_delay = factory.settings.max_delay
        self.transport = PausingTransport(self.limit)
        protocol = factory.buildProtocol(self.transport.getPeer())
        assert protocol is not None
        self.protocol = protocol
        self.transport.connect(protocol)
        self.decoder = Decoder()
        self.view.connected()

    def read(self, size: int | None = None) -> None:
        self.view.ingest(self.decoder.feed(self.transport.drain(size)))

    def read_all(self) -> None:
        self.reactor.settle()
        self.reactor.advance(self.max_delay)
        while True:
            self.reactor.settle()
            if not (self.transport.written or self.transport.producer_paused):
                return
            self.read()


class ExactTotalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.reactor.advance(1000)
        self.factory = self.make_factory()
        self.viewer = Viewer(self.reactor, limit=1000)

    def make_factory(self) -> MetricsFactory:
        return MetricsFactory(
            self.reactor,
            ExporterSettings(buffer_size=50, own_metrics=False),
            in_reactor_thread=lambda: False,
        )

    def test_losses(self) -> None:
        """If most of 100 events per second are dropped, the rate is still 100."""
        recorder = self.factory.recorder
        counter = recorder.counter("c")
        counter.increment(1_000_000)
        self.viewer.connect(self.factory)
        self.viewer.read_all()
        (series,) = self.viewer.view.series.values()
        self.assertEqual((series.value, series.rate(self.reactor.seconds())), (1_000_000, 0))
        for second in range(30):
            for _ in range(100):
                counter.increment()
            self.reactor.settle()
            self.reactor.advance(1)
            if second % 3 == 2:
                self.viewer.read_all()
        view = self.viewer.view
        missed = view.missed_client + view.missed_incoming
        self.assertGreater(missed, 1000)
        self.assertEqual(view.events - 1 + missed, 3000 + self.protocol_repairs())
        self.assertEqual(series.value, 1_003_000)
        self.assertEqual(series.change, 3000)
        now = self.reactor.seconds()
        history = series.history(now, 30)
        self.assertLess(max(history), 200)
        self.assertLess(abs(series.rate(now) - 100), 30)

    def test_lostSamples(self) -> None:
        """A viewer that lost samples has the exact distribution, and marks the windows."""
        recorder = self.factory.recorder
        lost, kept = recorder.histogram("lost"), recorder.histogram("kept")
        for histogram in (lost, kept):
            histogram.record_many(0.5, 1000)
        self.viewer.connect(self.factory)
        self.viewer.read_all()
        self.reactor.advance(3)
        kept.record(0.5)
        self.viewer.read_all()
        for number in range(3000):
            lost.record(number)
            self.reactor.settle()
        self.viewer.read_all()
        self.assertGreater(self.viewer.view.missed_client, 1000)
        self.assertEqual(view_bits(self.viewer.view), exact_totals(self.factory))
        now = self.reactor.seconds()
        for key, series in self.viewer.view.series.items():
            recent, lifetime = series.summary(60, now), series.summary()
            assert recent is not None
            assert lifetime is not None
            self.assertEqual(recent.partial, key.name == "lost")
            self.assertFalse(lifetime.partial)
            if key.name == "lost":
                self.assertEqual(lifetime.count, 4000)
                self.assertLess(recent.count, 3000)
                self.assertEqual(recent.max, 2999)
            else:
                self.assertEqual((lifetime.count, recent.count), (1001, 1))

    def protocol_repairs(self) -> int:
        """Return the number of received events that were totals."""
        return self.viewer.protocol.stats().repairs

    def test_disconnected(self) -> None:
        """Changes while disconnected do not affect the rate; totals are exact at once."""
        counter = self.factory.recorder.counter("c")
        self.viewer.connect(self.factory)
        counter.increment(5)
        self.viewer.read_all()
        self.viewer.transport.lose()
        counter.increment(1_000_000)
        self.reactor.advance(3)
        self.viewer.connect(self.factory)
        self.viewer.read_all()
        (series,) = self.viewer.view.series.values()
        self.assertEqual((series.value, series.change), (1_000_005, 5))
        self.assertEqual(self.viewer.view.restarts, 0)

    def test_restart(self) -> None:
        """After a restart of the server, the view has the new totals."""
        self.factory.recorder.counter("c").increment(5)
        self.factory.recorder.counter("gone").increment(5)
        self.viewer.connect(self.factory)
        self.viewer.read_all()
        self.viewer.transport.lose()
        self.factory = self.make_factory()
        self.factory.recorder.counter("c").increment(2)
        self.viewer.connect(self.factory)
        self.viewer.read_all()
        self.assertEqual(view_bits(self.viewer.view), exact_totals(self.factory))
        self.assertEqual(self.viewer.view.restarts, 1)

    @given(
        st.lists(
            st.tuples(st.sampled_from(["count", "set", "gauge", "sample"]), st.integers(0, 60))
            | st.tuples(st.just("pass"), st.floats(0, 10))
            | st.tuples(st.sampled_from(["read", "lose", "restart", "clear", "all"]), st.none()),
            max_size=30,
        )
    )
    def test_anything(self, steps: list[tuple[str, float | None]]) -> None:
        """After any sequence of steps, totals are exact when all data has been read."""
        self.setUp()
        self.viewer.connect(self.factory)
        for step, number in steps:
            recorder = self.factory.recorder
            match step, number:
                case "count", int():
                    for _ in range(number):
                        recorder.counter("c").increment(7)
                case "set", int():
                    recorder.counter("absolute").absolute(number)
                case "gauge", int():
                    for _ in range(number):
                        recorder.gauge("g").increment(0.1)
                case "sample", int():
                    for sample in range(number):
                        recorder.histogram("h").record(sample / 7)
                case "pass", float():
                    self.reactor.advance(number)
                case "read", _:
                    self.viewer.read(100)
                case "all", _:
                    self.viewer.read_all()
                case "clear", _:
                    self.viewer.view.clear()
                case "lose" | "restart", _:
                    self.viewer.transport.lose()
                    if step == "restart":
                        self.factory = self.make_factory()
                    self.viewer.connect(self.factory)
            self.reactor.settle()
        self.viewer.read_all()
        shown = view_bits(self.viewer.view)
        expected = exact_totals(self.factory)
        if any(step == "clear" for step, _ in steps):
            # Series that have not changed since are not shown.
            self.assertEqual(shown, {k: v for k, v in expected.items() if k in shown})
        else:
            self.assertEqual(shown, expected)
        view, stats = self.viewer.view, self.viewer.protocol.stats()
        if not any(step in ("lose", "restart", "clear") for step, _ in steps):
            self.assertEqual(
                (view.missed_incoming, view.missed_client),
                (stats.dropped_incoming, stats.dropped_client),
            )
