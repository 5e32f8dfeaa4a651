"""
Reactors that measure delays with a steady clock.
"""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.python.runtime import seconds as time_of_day
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.reactor_clock import measure_steadily
from txmetrics_tcp.testing import FakeReactor


class UntouchedReactor(ReactorBase):
    """As real as those that select or poll, but for the descriptors."""

    def installWaker(self) -> None:
        pass


class SteadyTests(SynchronousTestCase):
    def test_reactor(self) -> None:
        """Pending calls keep their due time, and later ones are due on the steady clock."""
        earliest = time.monotonic()
        reactor = UntouchedReactor()
        self.assertIs(reactor.seconds, time_of_day)
        before = reactor.callLater(100, lambda: None)
        measure_steadily(reactor)
        after = reactor.callLater(100, lambda: None)
        self.assertIs(reactor.seconds, time.monotonic)
        for call in (before, after):
            self.assertTrue(call.getTime() - earliest > 99)
            self.assertTrue(call.getTime() - time.monotonic() <= 100)
        measure_steadily(reactor)
        self.assertIs(reactor.seconds, time.monotonic)

    def test_others(self) -> None:
        """One with a clock of its own keeps it."""
        reactor = FakeReactor()
        measure_steadily(reactor)
        self.assertEqual(reactor.seconds(), 0.0)
