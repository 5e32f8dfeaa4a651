"""
The human-readable form of addresses.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress


def show_address(address: IAddress | tuple[Any, ...] | str | bytes | None) -> str:
    """
    Return a human-readable form of an address.

    @param address: a Twisted address, or an address of the C{socket} module: a tuple of host, port
        and possibly more, or the path of a UNIX socket.
    """
    match address:
        case IPv4Address() | IPv6Address():
            return show_address((address.host, address.port))
        case (str() as host, port, *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case UNIXAddress():
            return show_address(address.name or b"")
        case str() | bytes():
            return f"unix:{os.fsdecode(address) or '(unnamed)'}"
    return str(address)
