"""
Descriptors of a factory's ports, and standard descriptors.
"""

from __future__ import annotations

import gc
import os
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.descriptors import _listens_with, occupy_standard_descriptors


class ListensWithTests(SynchronousTestCase):
    def test_wrapped(self) -> None:
        """A port belongs to a factory even if another factory, such as TLS, wraps it."""
        factory = SimpleNamespace()
        wrapped = SimpleNamespace(wrappedFactory=SimpleNamespace(wrappedFactory=factory))
        self.assertTrue(_listens_with(SimpleNamespace(factory=factory), factory))
        self.assertTrue(_listens_with(SimpleNamespace(factory=wrapped), factory))
        self.assertFalse(_listens_with(SimpleNamespace(factory=object()), factory))
        self.assertFalse(_listens_with(SimpleNamespace(), factory))


class StandardTests(SynchronousTestCase):
    def test_leavesNothingOpen(self) -> None:
        # Avoid that garbage collection closes other descriptors during the test.
        gc.collect()
        before = os.open(os.devnull, os.O_RDONLY)
        os.close(before)
        occupy_standard_descriptors()
        after = os.open(os.devnull, os.O_RDONLY)
        os.close(after)
        self.assertEqual(after, before)
