"""
Kernel timeouts that detect a dead peer: its machine has lost power, or the network is
disconnected.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import ITCPTransport
from twisted.protocols.policies import ProtocolWrapper


class Keepalive(NamedTuple):
    """
    The times after which an idle connection counts as dead.

    @ivar idle: seconds without received data before the first probe.
    @ivar interval: seconds between probes.
    @ivar probes: number of unanswered probes after which the connection is closed.
    """

    idle: int
    interval: int
    probes: int


KEEPALIVE = Keepalive(60, 10, 5)
"""
The default, which detects a dead peer within two minutes.  The kernel's default is more than two
hours.
"""

_MAX_INT = 2**31 - 1

_OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")


def is_over_tcp(transport: object) -> bool:
    """Whether a transport is a TCP connection, with or without TLS."""
    # In Twisted 24.10, UNIX sockets provide this interface too.
    if not ITCPTransport.providedBy(transport):
        return False
    return not isinstance(transport.getHost(), UNIXAddress)


def probe_when_idle(transport: Any, keepalive: Keepalive = KEEPALIVE) -> None:
    """
    Detect a dead peer while the connection is idle.

    Platforms without socket options for the times use their own times.

    @param transport: a TCP connection; see `is_over_tcp`.
    """
    transport.setTcpKeepAlive(True)
    for name, value in zip(_OPTIONS, keepalive, strict=True):
        _set_option(transport, name, value)


def limit_unacknowledged(transport: Any, seconds: float) -> None:
    """
    Detect a dead or stalled peer while sent data is unacknowledged.

    Platforms other than Linux use their own limit, typically about a quarter of an hour.

    @param transport: a TCP connection; see `is_over_tcp`.
    @param seconds: the time limit; values over 24 days mean 24 days, the kernel's maximum.
    """
    milliseconds = round(min(seconds * 1000, _MAX_INT))
    _set_option(transport, "TCP_USER_TIMEOUT", max(1, milliseconds))


def _set_option(transport: Any, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    while isinstance(transport, ProtocolWrapper):
        # TLS wraps the TCP transport.
        transport = transport.transport
    if option is not None and hasattr(transport, "getHandle"):
        transport.getHandle().setsockopt(socket.IPPROTO_TCP, option, value)
