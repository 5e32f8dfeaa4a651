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
BARE = "a bare loop of send"

HOW = """\
The same 62 KB go to 100 sockets, once through the exporter and once in a bare loop of `send`, in
turns, within one process. They are 60 long events, one sample recorded 60 times, so that recording,
encoding and joining is next to nothing. What is compared is the processor time, turned into the
speed that it allows; the ratio is what the exporter reaches of the limit."""


def until_read(reader: Reader, events: int) -> None:
    """Wait until every client has all."""
    end = time.monotonic() + TIMEOUT
    while any(client["other"] != events for client in reader.report()):
        if time.monotonic() > end:
            raise PeerError(f"{reader.name}: not all has been delivered")
        time.sleep(0.01)


def run(bench: Bench) -> Section:
    peer = Server(python("suite.fanout_peer"), ["PORT", str(CLIENTS)])
    speed: dict[str, list[float]] = {OURS: [], BARE: []}
    batches = 5 if bench.quick else 20
    with (
        peer,
        bench.peers.reader(peer.port, CLIENTS, "plain") as ours,
        bench.peers.reader(peer.greeting["bare_port"], CLIENTS, "plain") as bare,
    ):
        peer.ask("accept")
        peer.ask("rounds", rounds=2)
        rounds = bench.rounds(7)
        for _ in rounds:
            answer = peer.ask("rounds", rounds=batches)
            for name, samples in ((OURS, answer["ours"]), (BARE, answer["bare"])):
                speed[name].append(answer["bytes"] * CLIENTS / statistics.median(samples) / 1e6)
        for reader in (ours, bare):
            until_read(reader, answer["events"] * (2 + batches * len(rounds)))
    row = Row.of("to 100 clients", "MB/s", speed, BARE, Goal(0.8))
    return Section("Fan-out against its limit", HOW, [row])
