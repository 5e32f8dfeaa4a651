"""
How fast a stream is decoded.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time

from suite.bench import Bench
from suite.commands import LABELS, NAME, SEQUENCE
from suite.figures import OURS, REFERENCE, Goal, Row, Section
from suite.peers import PeerError
from txmetrics_tcp import Decoder, Key, Metric, MetricKind, Operation, encode_metric

PIECE = 64 * 1024

TITLE = "Decoding"

HOW = """\
A stream in memory, of the counter that all is measured with, is decoded: by our `Decoder`, in
pieces of 64 KiB, into events, which are then dropped; and by prost, as the clients of the Rust
family do it. There is no view in either."""


def stream(events: int) -> bytes:
    key = Key.of(MetricKind.COUNTER, NAME, LABELS)
    now = time.time_ns()
    return b"".join(
        encode_metric(Metric(key, Operation.INCREMENT_COUNTER, number % SEQUENCE, now + number))
        for number in range(events)
    )


def decode(data: bytes, events: int) -> float:
    """Events per second."""
    start = time.perf_counter()
    decoder = Decoder()
    decoded = 0
    for at in range(0, len(data), PIECE):
        for _event in decoder.feed(data[at : at + PIECE]):
            decoded += 1
    seconds = time.perf_counter() - start
    if decoded != events:
        raise PeerError(f"{decoded} of {events} events were decoded")
    return events / seconds


def prost(bench: Bench, path: str, events: int) -> float:
    """Events per second, of a stream that is in a file."""
    command = [bench.peers.decode, path, "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    if answer["events"] != events:
        raise PeerError(f"prost decoded {answer['events']} of {events} events")
    return events / float(sorted(answer["seconds"])[1])


def run(bench: Bench) -> Section:
    events = 5_000 if bench.quick else 100_000
    data = stream(events)
    speed: dict[str, list[float]] = {}
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for _ in bench.rounds(5):
            speed.setdefault(OURS, []).append(decode(data, events))
            if bench.peers.rust:
                speed.setdefault(REFERENCE, []).append(prost(bench, file.name, events))
    return Section(TITLE, HOW, [Row.of("decoded", "events/s", speed, REFERENCE, Goal(0.25))])
