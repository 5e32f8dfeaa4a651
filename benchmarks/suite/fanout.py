"""
How close fan-out comes to its limit.
"""

from __future__ import annotations

import statistics
import time

from suite.bench import Bench
from suite.figures import OURS, Goal, Row, Section
from suite.peers import TIMEOUT, PeerError, Reader, Server, python

CLIENTS = 100
WRITES = "bare transport.write"
SENDS = "a bare loop of send"

TITLE = "Fan-out against its limit"

HOW = """\
The same 4 x 62 KB go to 100 sockets each, through the exporter, through a Twisted factory that does
nothing but write them, and in a bare loop of `send`, in turns, within one process. They are 240
long events, one sample recorded 240 times, so that recording, encoding and joining is next to
nothing. All sockets have the same options. What is compared is the processor time, turned into the
speed that it allows; the ratio is what is reached of the limit."""


def until_read(reader: Reader, events: int) -> None:
    """Wait until every client has all."""
    end = time.monotonic() + TIMEOUT
    while any(client["other"] != events for client in reader.report()):
        if time.monotonic() > end:
            raise PeerError(f"{reader.name}: not all has been delivered")
        time.sleep(0.01)


def run(bench: Bench) -> Section:
    peer = Server(python("suite.fanout_peer"), ["PORT", str(CLIENTS)])
    names = {"ours": OURS, "writes": WRITES, "sends": SENDS}
    speed: dict[str, list[float]] = {column: [] for column in names.values()}
    batches = 5 if bench.quick else 20
    with (
        peer,
        bench.peers.reader(peer.port, CLIENTS, "plain") as ours,
        bench.peers.reader(peer.greeting["writes"], CLIENTS, "plain") as writes,
        bench.peers.reader(peer.greeting["sends"], CLIENTS, "plain") as sends,
    ):
        peer.ask("accept")
        peer.ask("rounds", rounds=2)
        rounds = bench.rounds(7)
        for _ in rounds:
            answer = peer.ask("rounds", rounds=batches)
            for name, column in names.items():
                median = statistics.median(answer[name])
                speed[column].append(answer["bytes"] * CLIENTS / median / 1e6)
        for reader in (ours, writes, sends):
            until_read(reader, answer["events"] * (2 + batches * len(rounds)))
    row = Row.of("to 100 clients", "MB/s", speed, SENDS, Goal(0.8))
    return Section(TITLE, HOW, [row])
