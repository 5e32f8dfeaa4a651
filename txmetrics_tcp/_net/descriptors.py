"""
File descriptors of the process: closed standard descriptors (``>&-``), and sockets that a forked
child shares with its parent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet

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
    # Some transports have no socket.
    descriptors = [one.fileno() for one in held if hasattr(one, "fileno")]
    # `socket.close` is not safe: some socket objects would close the descriptor twice, and its
    # number may then belong to another file.  `shutdown` would end the parent's connection.
    # Replacing the descriptor leaves the socket open in the parent only.
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in descriptors:
            if descriptor >= 0:
                os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)


def _listens_with(reader: object, factory: object) -> bool:
    listening = getattr(reader, "factory", None)
    while listening is not None and listening is not factory:
        # TLS wraps the factory.
        listening = getattr(listening, "wrappedFactory", None)
    return listening is not None
