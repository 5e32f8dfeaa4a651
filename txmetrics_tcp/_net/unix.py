"""
Listening on UNIX sockets, replacing stale socket files of programs that were killed.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory

IN_USE = "another program is listening on this socket"
"""The reason in the error of a socket that is in use."""

MAX_PATH = 107
"""The largest size of the path of a UNIX socket, in bytes, on Linux."""


class UnixReactor:
    """
    A wrapper of a reactor that removes a stale socket file before listening.

    Twisted detects stale sockets with a lock file that contains a process number.  The number may
    have been reused for another process; in containers, it is often 1, which is also the number of
    this process.  Instead of using a lock file, this class connects to the socket to find out
    whether it is in use.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenUNIX(
        self,
        address: str,
        factory: ServerFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        remove_stale_socket(address)
        port: IListeningPort = self._reactor.listenUNIX(
            address, factory, backlog=backlog, mode=mode
        )
        return port


def remove_stale_socket(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """
    Remove a socket file that no program is listening on.

    @param kind: the kind of socket that the caller will make.
    @raise CannotListenError: the file is not a socket, or a program is listening on it.
    """
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        # If the path is unusable, binding the socket will raise a suitable error.
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise _cannot_listen(path, "a file that is not a socket already exists")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            # Another program may have replaced the file meanwhile.
            if os.path.samestat(found, os.lstat(path)):
                os.unlink(path)
        except FileNotFoundError:
            pass
        except BlockingIOError:
            raise _cannot_listen(path, IN_USE) from None
        except OSError as error:
            reason = f"a socket already exists, but connecting to it failed: {error.strerror}"
            raise _cannot_listen(path, reason) from None
        else:
            raise _cannot_listen(path, IN_USE)


def _cannot_listen(path: str, reason: str) -> CannotListenError:
    return CannotListenError(None, path.encode(), reason)
