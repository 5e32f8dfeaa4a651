"""
Descriptors of a factory's ports.
"""

from __future__ import annotations

from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.descriptors import listens_with


class ListensWithTests(SynchronousTestCase):
    def test_wrapped(self) -> None:
        """A port belongs to a factory also if the port has it wrapped, in TLS, say."""
        factory = SimpleNamespace()
        wrapped = SimpleNamespace(wrappedFactory=SimpleNamespace(wrappedFactory=factory))
        self.assertTrue(listens_with(SimpleNamespace(factory=factory), factory))
        self.assertTrue(listens_with(SimpleNamespace(factory=wrapped), factory))
        self.assertFalse(listens_with(SimpleNamespace(factory=object()), factory))
        self.assertFalse(listens_with(SimpleNamespace(), factory))
