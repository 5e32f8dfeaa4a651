"""
Limits of what a source may send.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp.relay._limits import OVERLOAD, Meter, SourceLimits


class LimitsTests(SynchronousTestCase):
    def test_invalid(self) -> None:
        for name in ("series", "events", "bytes"):
            self.assertRaises(ValueError, SourceLimits, **{name: -1})
            self.assertRaises(TypeError, SourceLimits, **{name: 1.5})
        self.assertRaises(ValueError, SourceLimits, events=0)
        SourceLimits(series=0, events=None, bytes=None)


class MeterTests(SynchronousTestCase):
    def test_below(self) -> None:
        """A source within the limits never waits."""
        meter = Meter(SourceLimits(events=100, bytes=1000), 0.0)
        for second in range(100):
            self.assertEqual(meter.charge(100, 1000, second), (0.0, ""))

    def test_events(self) -> None:
        """A source waits until the rate of events is that of the limit."""
        meter = Meter(SourceLimits(events=100, bytes=None), 0.0)
        self.assertEqual(meter.charge(100, 10**9, 0.0), (0.0, ""))
        self.assertEqual(meter.charge(50, 10**9, 0.0), (0.5, ""))
        self.assertEqual(meter.charge(50, 10**9, 0.5), (0.5, ""))

    def test_bytes(self) -> None:
        meter = Meter(SourceLimits(events=100, bytes=1000), 0.0)
        self.assertEqual(meter.charge(1, 3000, 0.0), (2.0, ""))

    def test_overload(self) -> None:
        """A source that exceeds a limit for too long is to be disconnected."""
        for which in ("events", "bytes"):
            meter = Meter(SourceLimits(**{"events": 100, "bytes": 100, which: 10}), 0.0)
            now, cut = 0.0, ""
            while not cut:
                self.assertLess(now, 2 * OVERLOAD)
                wait, cut = meter.charge(20, 20, now)
                now += wait
            self.assertEqual(cut, which)
            self.assertGreaterEqual(now, OVERLOAD)

    def test_pause(self) -> None:
        """A source that is calm in between is not disconnected."""
        meter = Meter(SourceLimits(events=10, bytes=None), 0.0)
        for burst in range(10):
            wait, cut = meter.charge(30, 0, burst * OVERLOAD)
            self.assertEqual((wait, cut), (2.0, ""))

    def test_unlimited(self) -> None:
        meter = Meter(SourceLimits(events=None, bytes=None), 0.0)
        self.assertEqual(meter.charge(10**9, 10**12, 0.0), (0.0, ""))
