"""
Descriptors of a factory's ports, and standard descriptors.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.descriptors import (
    _listens_with,
    occupy_standard_descriptors,
    release_sockets,
)


class ListensWithTests(SynchronousTestCase):
    def test_wrapped(self) -> None:
        """A port belongs to a factory even if another factory, such as TLS, wraps it."""
        factory = SimpleNamespace()
        wrapped = SimpleNamespace(wrappedFactory=SimpleNamespace(wrappedFactory=factory))
        self.assertTrue(_listens_with(SimpleNamespace(factory=factory), factory))
        self.assertTrue(_listens_with(SimpleNamespace(factory=wrapped), factory))
        self.assertFalse(_listens_with(SimpleNamespace(factory=object()), factory))
        self.assertFalse(_listens_with(SimpleNamespace(), factory))


class ReleaseTests(SynchronousTestCase):
    def test_release(self) -> None:
        """
        Sockets are closed without any effect on the peer, even if the process has no free
        descriptors.  A later close has no effect, because the number may have been reused.
        """
        sockets = [socket.socketpair() for _ in range(2)]
        parents = [ours.dup() for ours, _ in sockets]
        for one in [*parents, *(theirs for _, theirs in sockets)]:
            self.addCleanup(one.close)
        transports = [SimpleNamespace(socket=ours) for ours, _ in sockets]
        numbers = [ours.fileno() for ours, _ in sockets]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            release_sockets(None, None, [*transports, SimpleNamespace(), transports[0]])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in numbers:
            self.assertRaises(OSError, os.fstat, number)
        for (ours, theirs), parent in zip(sockets, parents, strict=True):
            self.assertEqual(ours.fileno(), -1)
            parent.sendall(b"x")
            self.assertEqual(theirs.recv(2), b"x")


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
