"""
How the kernel finds out that the other end of a connection is gone without a word: its machine
has lost power, or the cable between is pulled.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import ITCPTransport
from twisted.protocols.policies import ProtocolWrapper


class Keepalive(NamedTuple):
    """
    When an idle connection counts as dead.

    @ivar idle: after how many seconds of silence the other end is probed.
    @ivar interval: how many seconds it has to answer before it is probed again.
    @ivar probes: after how many probes without an answer the connection is given up.
    """

    idle: int
    interval: int
    probes: int


KEEPALIVE = Keepalive(60, 10, 5)
"""
What connections get: within two minutes it is known that the other end is gone.  The kernel's own
would be more than two hours.
"""

_MAX_INT = 2**31 - 1

_OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")


def is_over_tcp(transport: object) -> bool:
    """Whether a transport is a TCP connection, be it with TLS over it."""
    # Not by the interface alone: that of a UNIX socket claims it too in Twisted 24.10.
    if not ITCPTransport.providedBy(transport):
        return False
    return not isinstance(transport.getHost(), UNIXAddress)


def probe_when_idle(transport: Any, keepalive: Keepalive = KEEPALIVE) -> None:
    """
    Notice that the other end is gone though nothing is sent to it.

    @param transport: a TCP connection; see `is_over_tcp`.  Where the platform cannot be told when
        to probe, its own times hold.
    """
    transport.setTcpKeepAlive(True)
    for name, value in zip(_OPTIONS, keepalive, strict=True):
        _set_option(transport, name, value)


def limit_unacknowledged(transport: Any, seconds: float) -> None:
    """
    Notice that the other end is gone, or takes nothing, once there is something that it does not
    take.  On Linux; elsewhere the kernel's own limit holds, of about a quarter of an hour.

    @param transport: a TCP connection; see `is_over_tcp`.
    @param seconds: how long to wait; more than 24 days count as 24 days, the kernel's maximum.
    """
    milliseconds = round(min(seconds * 1000, _MAX_INT))
    _set_option(transport, "TCP_USER_TIMEOUT", max(1, milliseconds))


def _set_option(transport: Any, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    while isinstance(transport, ProtocolWrapper):
        # TLS is a transport over another one.
        transport = transport.transport
    if option is not None and hasattr(transport, "getHandle"):
        transport.getHandle().setsockopt(socket.IPPROTO_TCP, option, value)
