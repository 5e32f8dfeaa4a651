"""
Clients, each a blocking socket and a thread: ``python -m soaking.crowd PORT SEED NAME FIRST
WITNESSES PLACES``.

So many WITNESSES are there to the end, each with another manner of reading; at each of PLACES,
clients come and go. Every client has an address of its own (of 127.0.0.0/8, counted from FIRST),
so that its report (a line of JSON when it leaves) and the server's account can be laid side by
side. A line on standard input lets clients come and go; a second one says that the end has come:
no more come, and those that are there read on as fast as they can, to the end of the stream.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from itertools import count

from suite.commands import say

from soaking import plan
from soaking.tally import Tally
from txmetrics_tcp import StreamError

SILENCE = 120.0
"""After how many seconds without a byte a client gives up at the end."""


class Crowd:
    """
    All clients of this process.

    @ivar over: set when the end has come.
    """

    def __init__(self, port: int, first: int) -> None:
        """
        @param first: the first of the clients' addresses, as a number.
        """
        self._port = port
        self._addresses = count(first)
        self._saying = threading.Lock()
        # Whoever comes or goes decides it under this lock, so that nobody does who is counted.
        self._deciding = threading.Lock()
        self._present = 0
        self.over = threading.Event()

    def finish(self) -> int:
        """
        The end has come.

        @return: how many clients will read to the end of the stream.
        """
        with self._deciding:
            self.over.set()
            return self._present

    def place(self, lives: Iterator[plan.Life]) -> None:
        """Where one client comes when the one before has left."""
        for life in lives:
            if self.over.wait(life.pause):
                return
            self.live(life)

    def live(self, life: plan.Life) -> None:
        """One client, from its coming to its going."""
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
            self.say(
                {
                    "address": "{}:{}".format(*connected.getsockname()),
                    "manner": life.manner,
                    "witness": life.seconds is None,
                    "ended": ended,
                    "error": error,
                    **tally.report(),
                    # Those of one that leaves in the middle of the stream say nothing.
                    "totals": tally.totals() if ended else {},
                }
            )
            _leave(connected, life)

    def say(self, report: dict[str, object]) -> None:
        with self._saying:
            say(report)

    def _read(self, connected: socket.socket, life: plan.Life, tally: Tally) -> bool:
        """
        @return: whether the stream came to its end.
        """
        over = self.over
        end = math.inf if life.seconds is None else time.monotonic() + life.seconds
        turn = time.monotonic() + life.rest
        while True:
            # One that hears nothing for a while still leaves when its time has come.
            bite, patience = life.bite, 0.2
            now = time.monotonic()
            if over.is_set():
                bite, patience = 256 * 1024, SILENCE
            elif now >= end and self._may_leave():
                return False
            elif life.manner == "drips":
                over.wait(life.rest)
            elif life.manner == "stalls" and now >= turn:
                over.wait(life.rest)
                turn = time.monotonic() + life.rest
            connected.settimeout(patience)
            try:
                data = connected.recv(bite)
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


def _leave(connected: socket.socket, life: plan.Life) -> None:
    if life.departure == "reset":
        linger = struct.pack("ii", 1, 0)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    elif life.departure == "shutdown":
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)


def main() -> None:
    port, seed, name, first, witnesses, places = sys.argv[1:]
    crowd = Crowd(int(port), int(first))
    stayers = [
        threading.Thread(target=crowd.live, args=[plan.witness(int(seed), manner, name)])
        for manner in plan.MANNERS[: int(witnesses)]
    ]
    comers = [
        threading.Thread(target=crowd.place, args=[plan.lives(int(seed), name, place)])
        for place in range(int(places))
    ]
    for threads in (stayers, comers):
        for thread in threads:
            thread.daemon = True
            thread.start()
        if not sys.stdin.readline():
            # Whoever started this is gone.
            os._exit(1)
    crowd.say({"finishing": crowd.finish()})
    for thread in stayers + comers:
        thread.join()


if __name__ == "__main__":
    main()
