"""
Determine which clients can connect to a listening address.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress

from txmetrics_tcp._net.admission import ip_of


def audience(address: IAddress, networks: Sequence[object] = (), certified: bool = False) -> str:
    """
    Describe the clients that can connect to an address, except clients on the loopback interface
    and the owner of a socket file.

    @param networks: the allowed networks; empty for any.
    @param certified: whether clients need a certificate.
    @return: the subject of "… can read the metrics", such as "Any user in group adm"; empty if no
        such clients can connect.
    """
    certificate = "a certificate from the client CA" if certified else ""
    if isinstance(address, UNIXAddress):
        return _of_file(address.name, certificate)
    host = ip_of(address)
    if host is None:
        return _with("Any client", certificate)
    if host.is_loopback:
        return ""
    clients = "Any client"
    if networks:
        clients += " in " + ", ".join(map(str, networks))
    where = "this machine" if host.is_unspecified else str(host)
    return _with(clients, f"network access to {where}", certificate)


def _of_file(path: bytes | None, certificate: str) -> str:
    if not path or path.startswith(b"\0"):
        # An abstract socket of Linux is not a file and has no mode.
        return _with("Any user of this machine", certificate)
    try:
        found = os.stat(path)
    except OSError:
        return ""
    # Connecting requires write permission.
    if not found.st_mode & (stat.S_IWOTH | stat.S_IWGRP) or not may_enter(
        path, stat.S_IXOTH | stat.S_IXGRP
    ):
        return ""
    if not found.st_mode & stat.S_IWOTH:
        return _with(f"Any user in group {_group(found.st_gid)}", certificate)
    if may_enter(path, stat.S_IXOTH):
        return _with("Any user of this machine", certificate)
    return _with("Any user", "access to its directory", certificate)


def may_enter(path: bytes, bits: int) -> bool:
    """Whether all directories above a file have at least one of these mode bits."""
    above = Path(os.fsdecode(path)).absolute().parents
    try:
        return all(directory.stat().st_mode & bits for directory in above)
    except OSError:
        # If unknown, a superfluous warning is better than a missing one.
        return True


def _with(clients: str, *conditions: str) -> str:
    needed = " and ".join(filter(None, conditions))
    return f"{clients} with {needed}" if needed else clients


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
