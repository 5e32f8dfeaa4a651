"""
The speed of decoding a stream and applying it to a view.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterable

from suite.bench import Bench
from suite.figures import OURS, REFERENCE, Goal, Row, Section
from suite.peers import PeerError
from suite.streams import mixed
from txmetrics_tcp import Decoder, Event, MetricKind, SourceView

PIECE = 64 * 1024
VIEW = "ours, with a view"
DECODE = "decoding"

TITLE = "Decoding and viewing"

HOW = """\
`Decoder` decodes a stream in memory, in pieces of 64 KiB. With a view, a `SourceView` also ingests
the events, with lognormal samples and a clock that advances a second every 100,000 events, and
summarizes each series at the end. The reference is prost, the decoder of Rust clients, without a
view. Both have decoded the stream once before. In the last rows, a view ingests histograms' samples
that are already decoded, beside the time of decoding one."""


def pieces(data: bytes) -> Iterable[bytes]:
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))


def decode(data: bytes, events: int) -> float:
    """Decode a stream, and return the events per second."""
    start = time.perf_counter()
    decoder = Decoder()
    decoded = 0
    event: Event
    for piece in pieces(data):
        for event in decoder.feed(piece):  # noqa: B007
            decoded += 1
    seconds = time.perf_counter() - start
    if decoded != events:
        raise PeerError(f"the decoder returned {decoded} of {events} events")
    return events / seconds


def view(data: bytes, events: int, series: int) -> float:
    """Decode a stream into a view, and return the events per second."""
    now = [0.0]
    start = time.perf_counter()
    decoder = Decoder()
    seen = SourceView(lambda: now[0])
    for piece in pieces(data):
        seen.ingest(decoder.feed(piece))
        now[0] = seen.events / 100_000
    for one in seen.series.values():
        one.summary()
    seconds = time.perf_counter() - start
    if (seen.events, len(seen.series)) != (events, series):
        raise PeerError(
            f"the view has {seen.events} of {events} events, {len(seen.series)} of {series} series"
        )
    return events / seconds


def ingest(data: bytes) -> float:
    """Ingest decoded events into a view, and return the seconds."""
    now = [0.0]
    decoder = Decoder()
    decoded = [list(decoder.feed(piece)) for piece in pieces(data)]
    seen = SourceView(lambda: now[0])
    start = time.perf_counter()
    for events in decoded:
        seen.ingest(events)
        now[0] = seen.events / 100_000
    for one in seen.series.values():
        one.summary()
    return time.perf_counter() - start


def prost(program: str, path: str, events: int) -> float:
    """Decode a file with prost, and return the events per second."""
    done = subprocess.run([program, path], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    if answer["events"] != events:
        raise PeerError(f"prost decoded {answer['events']} of {events} events")
    return events / float(answer["seconds"])


def run(bench: Bench) -> Section:
    events = 5_000 if bench.quick else 100_000
    rows = []
    for kind in MetricKind:
        for series in (1, 1000):
            data = b"".join(mixed([kind], series, events))
            decode(data, events)
            view(data, events, series)
            speed: dict[str, list[float]] = {OURS: [], VIEW: [], REFERENCE: []}
            with tempfile.NamedTemporaryFile() as file:
                file.write(data)
                file.flush()
                for _ in bench.rounds(5):
                    speed[OURS].append(decode(data, events))
                    speed[VIEW].append(view(data, events, series))
                    if bench.peers.rust:
                        speed[REFERENCE].append(prost(bench.peers.decode, file.name, events))
            what = f"{kind.value}s, {series:,} series"
            rows.append(Row.of(what, "events/s", speed, REFERENCE, Goal(0.25)))
    for series in (1, 1000):
        data = b"".join(mixed([MetricKind.HISTOGRAM], series, events))
        times: dict[str, list[float]] = {OURS: [], DECODE: []}
        for _ in bench.rounds(5):
            times[OURS].append(ingest(data) / events * 1e9)
            times[DECODE].append(1e9 / decode(data, events))
        rows.append(Row.of(f"a sample into a view, {series:,} series", "ns", times, DECODE))
    return Section(TITLE, HOW, rows)
