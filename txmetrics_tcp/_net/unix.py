"""
Listening on UNIX sockets: what a program that was killed has left behind is not in the way.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory

_IN_USE = "A program listens there already"


class UnixReactor:
    """
    To listen on a UNIX socket, in place of a reactor: makes way before it.

    Twisted's own way is a lock file beside the socket, with a process number in it, which may
    be another's by now; in a container, where all are number 1, it is our own.  So none is made:
    the socket itself tells whether anybody listens.
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
        make_way(address)
        port: IListeningPort = self._reactor.listenUNIX(
            address, factory, backlog=backlog, mode=mode
        )
        return port


def make_way(path: str) -> None:
    """
    Remove a socket that nobody listens on, and nothing else.

    @raise CannotListenError: there is something else, or somebody listens.
    """
    try:
        kind = os.lstat(path).st_mode
    except (OSError, ValueError):
        # Nothing is there, or nothing can be: whoever binds will be told why.
        return
    if not stat.S_ISSOCK(kind):
        raise _cannot(path, "There is a file that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except BlockingIOError:
            raise _cannot(path, _IN_USE) from None
        except OSError as error:
            raise _cannot(path, f"There is a socket, and {error.strerror}") from None
        else:
            raise _cannot(path, _IN_USE)


def _cannot(path: str, reason: str) -> CannotListenError:
    return CannotListenError(None, path.encode(), reason)
