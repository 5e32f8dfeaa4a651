"""
Clients, each a blocking socket and a thread: ``python -m soaking.crowd PORT SEED NAME FIRST
WITNESSES PLACES``.

WITNESSES clients stay to the end, each with a different manner of reading. At each of PLACES,
clients connect and leave, one after another. Every client binds a different address of 127.0.0.0/8,
counted from FIRST.  The address identifies the server's account of the client. Commands:

  - C{come}: start the clients of the places;
  - C{finish}: stop connecting, let connected clients read to the end of the stream at full speed,
    and answer their number;
  - C{reports}: answer the reports since the last such command; after C{finish}, wait until all
    clients have left.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from itertools import count

from suite.commands import commands, say

from soaking import plan
from soaking.tally import Tally
from txmetrics_tcp import StreamError

SILENCE = 120.0
"""The number of seconds without data after which a client gives up at the end."""


class Crowd:
    """
    All clients of this process.

    @ivar over: set when the crowd finishes.
    @ivar reports: the reports of the clients that have left.
    """

    def __init__(self, port: int, first: int) -> None:
        self._port = port
        self._addresses = count(first)
        # Held while a client connects or leaves, so that `finish` knows their number.
        self._deciding = threading.Lock()
        self._present = 0
        self.over = threading.Event()
        self.reports: list[dict[str, object]] = []

    def finish(self) -> int:
        """
        Stop connecting.

        @return: the number of clients that will read to the end of the stream.
        """
        with self._deciding:
            self.over.set()
            return self._present

    def place(self, lives: Iterator[plan.Life]) -> None:
        """Run clients one after another."""
        for life in lives:
            if self.over.wait(life.pause):
                return
            self.live(life)

    def live(self, life: plan.Life) -> None:
        """Run one client."""
        with self._deciding:
            if self.over.is_set():
                return
            self._present += 1
            address = str(IPv4Address("127.0.0.0") + next(self._addresses))
        tally = Tally()
        error = None
        ended = False
        with socket.socket() as connected:
            try:
                connected.bind((address, 0))
                if life.receive_buffer is not None:
                    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, life.receive_buffer)
                connected.settimeout(SILENCE)
                connected.connect(("127.0.0.1", self._port))
                if life.manner == "half-closes":
                    connected.shutdown(socket.SHUT_WR)
                ended = self._read(connected, life, tally)
            except (OSError, StreamError) as raised:
                error = f"{type(raised).__name__}: {raised}"
            self.reports.append(
                {
                    "address": "{}:{}".format(*connected.getsockname()),
                    "manner": life.manner,
                    "witness": life.seconds is None,
                    "ended": ended,
                    "error": error,
                    **tally.report(),
                    # Totals are exact only at the end of the stream.
                    "totals": tally.totals() if ended else {},
                }
            )
            if life.departure == "reset":
                linger = struct.pack("ii", 1, 0)
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            elif life.departure == "shutdown":
                with suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)

    def _read(self, connected: socket.socket, life: plan.Life, tally: Tally) -> bool:
        """
        @return: whether the stream ended.
        """
        end = math.inf if life.seconds is None else time.monotonic() + life.seconds
        rest_at = time.monotonic() + life.rest
        while True:
            # The short timeout lets a client leave on time even if it receives no data.
            read_size, patience = life.read_size, 0.2
            now = time.monotonic()
            if self.over.is_set():
                read_size, patience = 256 * 1024, SILENCE
            elif now >= end and self._may_leave():
                return False
            elif life.manner == "drips":
                self.over.wait(life.rest)
            elif life.manner == "stalls" and now >= rest_at:
                self.over.wait(life.rest)
                rest_at = time.monotonic() + life.rest
            connected.settimeout(patience)
            try:
                data = connected.recv(read_size)
            except TimeoutError:
                if patience == SILENCE:
                    raise
                continue
            if not data:
                return True
            tally.feed(data)

    def _may_leave(self) -> bool:
        with self._deciding:
            if self.over.is_set():
                return False
            self._present -= 1
            return True


def main() -> None:
    name = sys.argv[3]
    port, seed, first, witnesses, places = map(int, sys.argv[1:3] + sys.argv[4:])
    crowd = Crowd(port, first)
    lives = [plan.witness(seed, manner, name) for manner in plan.MANNERS[:witnesses]]
    guests = [plan.lives(seed, name, place) for place in range(places)]
    stay = [threading.Thread(target=crowd.live, args=[life], daemon=True) for life in lives]
    come = [threading.Thread(target=crowd.place, args=[guest], daemon=True) for guest in guests]
    threading.excepthook = fail
    for thread in stay:
        thread.start()
    say({})
    for word, _options in commands():
        if word == "come":
            for thread in come:
                thread.start()
            say({})
        elif word == "finish":
            say({"finishing": crowd.finish()})
        else:
            for thread in stay + come if crowd.over.is_set() else []:
                thread.join()
            taken, crowd.reports = crowd.reports, []
            say({"reports": taken})


def fail(raised: threading.ExceptHookArgs) -> None:
    """Exit when a client's thread fails, so that the course detects it."""
    traceback.print_exception(raised.exc_value)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
