"""
The descriptors of a process: those that it was started without (``>&-``), and those of sockets that
a forked child shares with its parent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet

_LAST = 2
"""The number of the last of the three standard descriptors."""


def occupy_standard_descriptors() -> None:
    """
    Open something at the numbers of standard input, output and error where they are closed: what
    is opened next would get them.

    That would be the reactor's own descriptors, for example, which twistd then takes for standard
    output and closes when it goes into the background.
    """
    # What is opened gets the lowest number that is free.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        pass
    os.close(descriptor)


def release_sockets(reactor: Any, factory: object, transports: Iterable[Any]) -> None:
    """
    Release, in a forked child, the sockets that it shares with its parent, without a sign to the
    peers: those of connections, and of ports that listen with a factory.
    """
    held = list(transports)
    if IReactorFDSet.providedBy(reactor):
        held += [reader for reader in reactor.getReaders() if _listens_with(reader, factory)]
    # Not all that a factory is used with is a socket.
    descriptors = [one.fileno() for one in held if hasattr(one, "fileno")]
    # Not `socket.close` (some socket objects would close the number again, which may be another
    # file's by then), and not `shutdown` (which would end the parent's connection): the
    # descriptor becomes another file, and the socket stays the parent's alone.
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
        # TLS wraps the factory that it is for.
        listening = getattr(listening, "wrappedFactory", None)
    return listening is not None
