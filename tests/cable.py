"""
Two network namespaces, joined by a virtual cable that a test can pull. The machine's network is not
changed.

A socket stays in the namespace in which it was made, even if another thread uses it. Therefore both
ends can be in the test process: a thread enters a namespace only to make a socket there.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.trial.unittest import SkipTest, TestCase

from tests import needs
from tests.daemon import LIMIT

SERVER = "198.18.77.1"
CLIENT = "198.18.77.2"

_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


class Cable:
    """A virtual cable, removed when the test ends."""

    def __init__(self, case: TestCase) -> None:
        """
        @raise SkipTest: root privileges, iproute2 or network namespaces are missing.
        """
        if os.geteuid() != 0 or needs("ip"):
            raise SkipTest("needs network namespaces")
        self._server, self._client = (f"txm{os.getpid()}{end}" for end in "ab")
        for name in (self._server, self._client):
            try:
                self._ip("netns", "add", name)
            except subprocess.CalledProcessError:
                raise SkipTest("needs network namespaces") from None
            case.addCleanup(self._ip, "netns", "del", name)
            self._ip("-n", name, "link", "set", "lo", "up")
        one, other = f"cable netns {self._server}".split(), f"cable netns {self._client}".split()
        self._ip("link", "add", *one, "type", "veth", "peer", *other)
        for name, address in ((self._server, SERVER), (self._client, CLIENT)):
            self._ip("-n", name, "addr", "add", f"{address}/30", "dev", "cable")
            self._ip("-n", name, "link", "set", "cable", "up")

    def pull(self) -> None:
        """Stop all traffic, without notifying either end."""
        self._ip("-n", self._client, "link", "set", "cable", "down")

    def plug_in(self) -> None:
        """Let traffic pass again."""
        self._ip("-n", self._client, "link", "set", "cable", "up")

    def listen(self) -> socket.socket:
        """Return a listening socket at the server's end."""
        return self._in(self._server, lambda: socket.create_server((SERVER, 0)))

    def connect(self, address: Any, *, from_client: bool = True) -> socket.socket:
        """Return a connected socket, at the client's end or at the server's."""
        name = self._client if from_client else self._server
        return self._in(name, lambda: socket.create_connection(address, timeout=LIMIT))

    def _ip(self, *arguments: str) -> None:
        subprocess.run(
            ["ip", *arguments], check=True, capture_output=True, text=True, timeout=LIMIT
        )

    def _in(self, name: str, make: Callable[[], _T]) -> _T:
        made: list[_T] = []

        def run() -> None:
            with open(f"/run/netns/{name}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return made[0]
