"""
How close fan-out comes to its limit.
"""

from __future__ import annotations

import statistics

from suite.bench import Bench
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PeerError, Server, python

CLIENTS = 100
EVENTS = 850
BARE = "a bare loop of send"

HOW = """\
The same 850 events, 58 KB, go to 100 sockets, once through the exporter and once in a bare loop of
`send`, in turns, within one process. They are one sample recorded 850 times, so that encoding and
joining is next to nothing in both. What is compared is the processor time, turned into the speed
that it allows; the ratio is what the exporter reaches of the limit."""


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
            seconds = peer.ask("rounds", rounds=batches)
            for name, samples in ((OURS, seconds["ours"]), (BARE, seconds["bare"])):
                speed[name].append(EVENTS * CLIENTS / statistics.median(samples))
        expected = EVENTS * (2 + batches * len(rounds))
        for reader in (ours, bare):
            if any(client["other"] != expected for client in reader.report()):
                raise PeerError("not all has been delivered")
    row = Row.of("to 100 clients", "events/s", speed, BARE, Goal(0.8))
    return Section("Fan-out against its limit", HOW, [row])
