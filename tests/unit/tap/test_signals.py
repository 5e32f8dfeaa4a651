"""
Repeated SIGTERM and SIGINT, including a second signal while the first is handled.
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
        self.service = StopSignals(self.reactor, lambda: self.done.append("stopped now"))
        self.service.running = True

    def stop(self) -> None:
        self.service.stopService()
        self.done.append("stopping")
        self.reactor.drain()

    def test_once(self) -> None:
        """One signal does not stop the daemon immediately."""
        self.service._handler(lambda number, frame: None)(signal.SIGTERM, None)
        self.reactor.drain()
        self.stop()
        self.assertEqual(self.done, ["stopping"])

    def test_handledByReactor(self) -> None:
        """The signal handler only schedules a call on the reactor thread."""

        def first(number: int, frame: FrameType | None) -> None:
            self.done.append(signal.Signals(number).name)

        self.service._handler(first)(signal.SIGTERM, None)
        self.assertEqual(self.done, [])
        self.reactor.drain()
        self.assertEqual(self.done, ["SIGTERM"])

    def test_secondInterruptsFirst(self) -> None:
        """
        A second signal that interrupts the handling of the first stops the daemon immediately, even
        though it is handled before the services begin to stop.
        """

        def first(number: int, frame: FrameType | None) -> None:
            handle(signal.SIGINT, None)
            self.reactor.callFromThread(self.stop)

        handle = self.service._handler(first)
        handle(signal.SIGTERM, None)
        self.reactor.settle()
        self.assertEqual(self.done[-2:], ["stopping", "stopped now"])
