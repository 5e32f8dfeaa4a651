"""
Tests of the reactor that an exporter in a thread uses in a forked process.
"""

from __future__ import annotations

from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import ReactorThreadError
from txmetrics_tcp._exporter import thread
from txmetrics_tcp._exporter.thread import own_reactor
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
