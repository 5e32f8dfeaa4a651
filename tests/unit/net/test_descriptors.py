"""
Descriptors of a factory's ports, and those that every process has.
"""

from __future__ import annotations

import gc
import os
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.descriptors import _listens_with, occupy_standard_descriptors


class ListensWithTests(SynchronousTestCase):
    def test_wrapped(self) -> None:
        """A port belongs to a factory also if the port has it wrapped, in TLS, say."""
        factory = SimpleNamespace()
        wrapped = SimpleNamespace(wrappedFactory=SimpleNamespace(wrappedFactory=factory))
        self.assertTrue(_listens_with(SimpleNamespace(factory=factory), factory))
        self.assertTrue(_listens_with(SimpleNamespace(factory=wrapped), factory))
        self.assertFalse(_listens_with(SimpleNamespace(factory=object()), factory))
        self.assertFalse(_listens_with(SimpleNamespace(), factory))


class StandardTests(SynchronousTestCase):
    def test_nothing_is_left_open(self) -> None:
        # Or it may close what others have forgotten in between.
        gc.collect()
        before = os.open(os.devnull, os.O_RDONLY)
        os.close(before)
        occupy_standard_descriptors()
        after = os.open(os.devnull, os.O_RDONLY)
        os.close(after)
        self.assertEqual(after, before)
