"""
File descriptors of the process: closed standard descriptors (``>&-``), and sockets that a forked
child shares with its parent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet

from txmetrics_tcp._net.internals import detach_socket

_LAST = 2
"""The highest of the three standard descriptors."""


def occupy_standard_descriptors() -> None:
    """
    Open the null device as standard input, output or error if these are closed.

    Otherwise, files that are opened later would get these numbers, including the reactor's own
    descriptors.  twistd would then close these when it daemonizes.
    """
    # Opening a file takes the lowest free number.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        pass
    os.close(descriptor)


def release_sockets(reactor: Any, factory: object, transports: Iterable[Any]) -> None:
    """
    In a forked child, release the sockets that it shares with its parent, without any effect on the
    peers.

    @param factory: the factory of the ports to release.
    @param transports: the connections to release.
    """
    held = list(transports)
    if IReactorFDSet.providedBy(reactor):
        held += [reader for reader in reactor.getReaders() if _listens_with(reader, factory)]
    for one in held:
        descriptor = detach_socket(one)
        if descriptor is not None:
            # Unlike `shutdown`, this leaves the parent's connection alone.  It needs no other
            # descriptor, of which the process may have none left.
            os.close(descriptor)


def _listens_with(reader: object, factory: object) -> bool:
    listening = getattr(reader, "factory", None)
    while listening is not None and listening is not factory:
        # TLS wraps the factory.
        listening = getattr(listening, "wrappedFactory", None)
    return listening is not None
