"""
Signals to stop that come twice, the second while the first is handled.
"""

from __future__ import annotations

import signal
from types import FrameType

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp.tap.signals import StopSignals
from txmetrics_tcp.testing import FakeReactor


class StopSignalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.done: list[str] = []
        self.service = StopSignals(self.reactor, lambda: self.done.append("hastened"))
        self.service.running = True

    def stop(self) -> None:
        self.service.stopService()
        self.done.append("stopping")
        self.reactor.drain()

    def test_once(self) -> None:
        """Nobody is in a hurry."""
        self.service._handler(lambda number, frame: None)(signal.SIGTERM, None)
        self.reactor.drain()
        self.stop()
        self.assertEqual(self.done, ["stopping"])

    def test_inTheMiddleOfAnything(self) -> None:
        """The handler does nothing but let the reactor know."""

        def first(number: int, frame: FrameType | None) -> None:
            self.done.append(signal.Signals(number).name)

        self.service._handler(first)(signal.SIGTERM, None)
        self.assertEqual(self.done, [])
        self.reactor.drain()
        self.assertEqual(self.done, ["SIGTERM"])

    def test_inTheMiddleOfTheFirst(self) -> None:
        """
        A signal that interrupts the handling of the first is heeded before anything stops, and so
        again when it does.
        """

        def first(number: int, frame: FrameType | None) -> None:
            handle(signal.SIGINT, None)
            self.reactor.callFromThread(self.stop)

        handle = self.service._handler(first)
        handle(signal.SIGTERM, None)
        self.reactor.settle()
        self.assertEqual(self.done[-2:], ["stopping", "hastened"])
