"""
Delivered events per second at full speed, and their processor time.
"""

from __future__ import annotations

from suite.bench import Bench, Subject, clients_text, left_out
from suite.figures import REFERENCE, Goal, Row, Section
from suite.host import empty_call_ns
from suite.peers import seconds_from

BUFFER = 1_000_000
COUNTS = {1: 600_000, 10: 200_000, 100: 40_000}
QUICK_COUNTS = {1: 60_000, 10: 30_000, 100: 4_000}
SPEED = {1: Goal(1.5), 10: Goal(6), 100: Goal(12)}
CPU = {1: Goal(0.8, False), 10: Goal(0.25, False), 100: Goal(0.1, False)}
IN_ALL = Goal(26, False, "calls")

TITLE = "Delivered at full speed"

HOW = """\
A program records at full speed, with buffers of a million events, so that none is lost: 600,000
events with one client, 200,000 with 10, 40,000 with 100. The time runs from the first record until
the last client has the last event. Events are recorded on a separate thread or, in the second
column, on the reactor thread, a thousand in each iteration. The processor time is the server's, for
a million delivered events; with one client also in empty method calls for an event ("in all"); the
time of a call is measured before each turn."""


def run(bench: Bench) -> Section:
    speeds: list[Row] = []
    costs: list[Row] = []
    for clients in COUNTS:
        count = (QUICK_COUNTS if bench.quick else COUNTS)[clients]

        def deliver(
            subject: Subject, clients: int = clients, count: int = count
        ) -> tuple[float, float, float]:
            call_ns = empty_call_ns()
            with bench.peers.session(subject.ours, clients, BUFFER) as session:
                before = session.server.cpu_seconds()
                start_ns = session.record(count=count, reactor=subject.reactor)["start_ns"]
                seconds = seconds_from(start_ns, session.wait_for_all())
                cpu = session.server.cpu_seconds() - before
                session.losses()
            each = cpu / (count * clients)
            return count * clients / seconds, each * 1e6, each * 1e9 / call_ns

        what = clients_text(clients)
        reader = bench.reader_speed(clients)
        with left_out(what):
            speed, cost, calls = bench.alternate(3, deliver)
            goal, name = SPEED[clients], f"delivered to {what}"
            speeds.append(Row.of(name, "events/s", speed, REFERENCE, goal, reader=reader))
            name = f"processor time, {what}"
            costs.append(Row.of(name, "s per million", cost, REFERENCE, CPU[clients]))
            if clients == 1:
                costs.append(Row.of("an event in all, 1 client", "calls", calls, None, IN_ALL))
    return Section(TITLE, HOW, speeds + costs)
