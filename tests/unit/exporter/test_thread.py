"""
Tests of an exporter in a thread: its reactor in a forked process, and what its thread logs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import ReactorThreadError
from txmetrics_tcp._exporter import thread
from txmetrics_tcp._exporter.thread import ReactorThread, hold_log, log_call, own_reactor
from txmetrics_tcp._instruments import forked


class OwnReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.inherited = SimpleNamespace(running=False)
        self.new: object = object()
        self.patch(forked, "inherited_reactor", self.inherited)
        self.patch(thread, "global_reactor", lambda: self.inherited)
        self.patch(thread, "replace_reactor", lambda inherited: self.new)

    def refused(self, given: object = None) -> str:
        return str(self.assertRaises(ReactorThreadError, own_reactor, given))

    def test_notInherited(self) -> None:
        """A reactor that was made in this process is used."""
        other = SimpleNamespace(running=True)
        self.assertIs(own_reactor(other), other)
        self.patch(forked, "inherited_reactor", None)
        self.assertIs(own_reactor(), self.inherited)

    def test_inherited(self) -> None:
        """An inherited reactor is replaced by a new one."""
        self.assertIs(own_reactor(), self.new)

    def test_cannotBeReplaced(self) -> None:
        """An inherited reactor that was passed explicitly or cannot be replaced is rejected."""
        self.assertIn("shares descriptors", self.refused(self.inherited))
        self.new = None
        self.assertIn("shares descriptors", self.refused())

    def test_alreadyRunning(self) -> None:
        self.inherited.running = True
        self.assertIn("the reactor was already running", self.refused())


class HeldLogTests(SynchronousTestCase):
    """What the reactor thread logs while another thread waits for it."""

    def setUp(self) -> None:
        self.patch(thread, "_held_log", None)
        self.logged: list[tuple[str, threading.Thread]] = []

    def log(self, text: str) -> None:
        log_call(lambda: self.logged.append((text, threading.current_thread())))

    def in_reactor_thread(self, function: Callable[[], object]) -> threading.Thread:
        reactor = SimpleNamespace(
            callWhenRunning=lambda ready: ready(),
            run=lambda installSignalHandlers: function(),
        )
        started = ReactorThread(reactor)
        started.start()
        started.join()
        return started

    def test_held(self) -> None:
        """It is logged afterwards, by the thread that waited; other threads are not affected."""
        here = threading.current_thread()
        held = hold_log()
        self.in_reactor_thread(lambda: self.log("a"))
        self.log("b")
        self.assertEqual(self.logged, [("b", here)])
        held.release()
        self.assertEqual(self.logged, [("b", here), ("a", here)])
        later = self.in_reactor_thread(lambda: self.log("c"))
        self.assertEqual(self.logged[2:], [("c", later)])
        held.release()
        self.assertEqual(len(self.logged), 3)

    def test_notHeld(self) -> None:
        there = self.in_reactor_thread(lambda: self.log("a"))
        self.assertEqual(self.logged, [("a", there)])

    def test_forked(self) -> None:
        """A child begins without what a thread of its parent holds."""
        for name in "_threads", "_exporters":
            self.patch(thread, name, [])
        self.patch(thread, "_lock", thread._lock)
        self.patch(thread, "_exit_registered", thread._exit_registered)
        hold_log()
        thread._after_fork_in_child()
        self.in_reactor_thread(lambda: self.log("a"))
        self.assertEqual(len(self.logged), 1)
