"""
The receive buffer of a socket of datagrams, and its losses.
"""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress

RECEIVE_BUFFER = 4 * 1024 * 1024
"""The size of the receive buffer to ask for, in bytes."""

# From Linux' asm-generic/socket.h and sock_diag.h: an array of unsigned ints.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")
_DROPS = 8


def request_receive_buffer(opened: socket.socket) -> int:
    """
    Ask for a receive buffer of `RECEIVE_BUFFER` bytes, unless it is larger already.

    @return: its size now.
    """
    size = _receive_buffer(opened)
    if size < RECEIVE_BUFFER:
        # Linux limits the size; other systems refuse one that is too large.
        with suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        size = _receive_buffer(opened)
    return size


def _receive_buffer(opened: socket.socket) -> int:
    size = opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    # Linux doubles the size for its own bookkeeping.
    return size // 2 if sys.platform == "linux" else size


def dropped_datagrams(opened: socket.socket) -> int:
    """
    Return how many datagrams the kernel has dropped for a socket, modulo 2**32: the column C{drops}
    of ``/proc/net/udp``, without reading the rows of all sockets.  0 if the system does not tell.
    """
    if sys.platform != "linux":
        return 0
    try:
        info = opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(info)[_DROPS])
    except (OSError, struct.error):
        return 0
