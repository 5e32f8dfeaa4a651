"""
Timeouts that take into account all data that the peer sent in time.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.deadline import Deadline


class DeadlineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.passed = 0

    def pass_(self) -> None:
        self.passed += 1

    def deadline(self, seconds: float) -> Deadline:
        return Deadline(self.clock, seconds, self.pass_)

    def test_passes(self) -> None:
        """The function is called once, when the time is over."""
        self.deadline(5)
        self.clock.advance(4.9)
        self.assertEqual(self.passed, 0)
        self.clock.advance(0.1)
        self.clock.advance(5)
        self.assertEqual(self.passed, 1)

    def test_cancelled(self) -> None:
        """
        A deadline can be cancelled until its function is called, and cancelling it later has no
        effect.
        """
        self.deadline(5).cancel()
        late = self.deadline(5)
        self.clock.callLater(5, late.cancel)
        self.clock.advance(10)
        self.assertEqual((self.passed, self.clock.getDelayedCalls()), (0, []))
        over = self.deadline(5)
        self.clock.advance(5)
        over.cancel()
        over.expire()
        self.assertEqual(self.passed, 1)

    def test_expire(self) -> None:
        self.deadline(1000).expire()
        self.clock.advance(0)
        self.assertEqual(self.passed, 1)
