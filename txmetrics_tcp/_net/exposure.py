"""
Who can connect to where something listens.
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
    Who can connect there beside the programs of this machine's loopback interface, or the owner
    of the socket file.

    @param networks: where clients may come from, if that is not everywhere.
    @param certified: whether they have to show a certificate.
    @return: the subject of a sentence; empty if it is nobody.
    """
    certificate = "has a certificate that is asked for" if certified else ""
    if isinstance(address, UNIXAddress):
        return _of_file(address.name, certificate)
    host = ip_of(address)
    if host is None:
        return _those("Whoever can connect", certificate)
    if host.is_loopback:
        return ""
    everybody = "Everybody"
    if networks:
        everybody += " in " + ", ".join(map(str, networks))
    where = "this machine" if host.is_unspecified else f"{host} of this machine"
    return _those(everybody, f"can reach {where}", certificate)


def _of_file(path: bytes | None, certificate: str) -> str:
    if not path or path.startswith(b"\0"):
        # One of Linux' that are no files, and so have no mode.
        return _those("Every user of this machine", certificate)
    try:
        found = os.stat(path)
    except OSError:
        return ""
    # To connect is to write.
    if not found.st_mode & (stat.S_IWOTH | stat.S_IWGRP) or not may_enter(
        path, stat.S_IXOTH | stat.S_IXGRP
    ):
        return ""
    if not found.st_mode & stat.S_IWOTH:
        return _those(f"Every user of group {_group(found.st_gid)}", certificate)
    if may_enter(path, stat.S_IXOTH):
        return _those("Every user of this machine", certificate)
    return _those("Every user", "may enter its directory", certificate)


def may_enter(path: bytes, bits: int) -> bool:
    """Whether all directories above a file have one of these bits, which let somebody in."""
    above = Path(os.fsdecode(path)).absolute().parents
    try:
        return all(directory.stat().st_mode & bits for directory in above)
    except OSError:
        # Rather a warning too many.
        return True


def _those(who: str, *conditions: str) -> str:
    held = " and ".join(filter(None, conditions))
    return f"{who} who {held}" if held else who


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
