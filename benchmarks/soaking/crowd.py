"""
Clients, each a blocking socket and a thread: ``python -m soaking.crowd PORT SEED NAME FIRST
WITNESSES PLACES``.

So many WITNESSES stay to the end, each with another manner of reading; at each of PLACES, clients
come and go. Every client has an address of its own (of 127.0.0.0/8, counted from FIRST), by which
its report when it leaves and the server's account are paired. Its commands:

  - C{come}: let clients come and go;
  - C{finish}: clients no longer connect, and those that are connected read to the end of the stream
    as fast as they can; how many that are;
  - C{reports}: those since the last time; after C{finish}, once all have left.
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
"""After how many seconds without a byte a client gives up at the end."""


class Crowd:
    """
    All clients of this process.

    @ivar over: set at the end.
    @ivar reports: what clients reported when they left.
    """

    def __init__(self, port: int, first: int) -> None:
        self._port = port
        self._addresses = count(first)
        # Clients connect and leave under this lock, so that at the end their number is known.
        self._deciding = threading.Lock()
        self._present = 0
        self.over = threading.Event()
        self.reports: list[dict[str, object]] = []

    def finish(self) -> int:
        """
        It is the end.

        @return: how many clients will read to the end of the stream.
        """
        with self._deciding:
            self.over.set()
            return self._present

    def place(self, lives: Iterator[plan.Life]) -> None:
        """Clients one after the other."""
        for life in lives:
            if self.over.wait(life.pause):
                return
            self.live(life)

    def live(self, life: plan.Life) -> None:
        """One client."""
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
                    # Those of one that leaves earlier prove nothing.
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
        @return: whether the stream came to its end.
        """
        end = math.inf if life.seconds is None else time.monotonic() + life.seconds
        turn = time.monotonic() + life.rest
        while True:
            # One that receives nothing for a while still leaves in time.
            read_size, patience = life.read_size, 0.2
            now = time.monotonic()
            if self.over.is_set():
                read_size, patience = 256 * 1024, SILENCE
            elif now >= end and self._may_leave():
                return False
            elif life.manner == "drips":
                self.over.wait(life.rest)
            elif life.manner == "stalls" and now >= turn:
                self.over.wait(life.rest)
                turn = time.monotonic() + life.rest
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
    """A client has failed: the end of this process, so that it is noticed."""
    traceback.print_exception(raised.exc_value)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
