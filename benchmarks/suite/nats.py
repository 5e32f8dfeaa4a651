"""
The cost of a publisher, a consumer and a broker for each event, and the time to list many sources.

``python -m suite.nats publish URL PORT`` and ``python -m suite.nats consume URL [N]`` are processes
of a publisher and a consumer. The command C{stats} answers their figures.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory

from suite.bench import Bench, Subject
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PATIENCE, PeerError, Server, python, until
from suite.streams import OPERATIONS
from txmetrics_tcp import Decoder, Key, MetricKind, Snapshot, Status
from txmetrics_tcp._codec.encoder import Encoder, SeriesFrame
from txmetrics_tcp._codec.wire import encode_snapshot, encode_status

SERIES = 600
RATE = 30_000
INTERVAL = 0.02
SOURCES = 10_000

PROGRAM = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which(
    "nats-server"
)

COST_GOAL = Goal(6, False, "µs")
BYTES_GOAL = Goal(10, False, "bytes")
LISTING_GOAL = Goal(3, False, "s")

TITLE = "Many hosts"

HOW = """\
One source with 600 series sends 30,000 events a second to a publisher, which passes them through
nats-server to a consumer with a `SourceView`: in random order, two thirds are increments by 1, one
sixth gauges that are whole numbers, and one sixth durations that are rounded to microseconds; each
has its own time in nanoseconds. No event is given up or missed. The broker's bytes are those of its
files, with snapshots; increments alone take 8.3. Then, a consumer begins while the broker has
snapshots of 10,000 sources with 10 series each: the time until it has received
all, with the garbage collector set as in `observe`."""


class _Framed:
    def __init__(self, key: Key) -> None:
        self.kind = key.kind
        self.frame = SeriesFrame(key)


class Source:
    """
    A server with one client.

    @ivar sent: the number of events that were sent.
    """

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.sent = 0
        self._encoder = Encoder()
        self._chance = random.Random(1)
        kinds = [MetricKind.COUNTER] * 4 + [MetricKind.GAUGE, MetricKind.HISTOGRAM]
        self._series = [
            _Framed(Key.of(kind, f"requests_{number}", {"route": f"/{number:04}"}))
            for number, kind in zip(range(SERIES), cycle(kinds), strict=False)
        ]

    def accept(self) -> None:
        self._listening.settimeout(PATIENCE)
        self._socket, _ = self._listening.accept()
        self._socket.sendall(greeting())

    def run(self, seconds: float) -> int:
        """Send events at the rate for a time, and return their number."""
        size = round(RATE * INTERVAL)
        turns = round(seconds / INTERVAL)
        begun = time.perf_counter()
        for turn in range(turns):
            time.sleep(max(0.0, begun + turn * INTERVAL - time.perf_counter()))
            now = time.time_ns()
            some = []
            for _ in range(size):
                now += self._chance.randrange(2 * 10**9 // RATE)
                one = self._chance.choice(self._series)
                some.append((one, OPERATIONS[one.kind], self._value(one), now))
            self._socket.sendall(b"".join(self._encoder.encode(some)))
        self.sent += turns * size
        return turns * size

    def close(self) -> None:
        self._socket.close()
        self._listening.close()

    def _value(self, one: _Framed) -> float:
        match one.kind:
            case MetricKind.COUNTER:
                return 1
            case MetricKind.GAUGE:
                return float(self._chance.randrange(100))
        return round(self._chance.expovariate(100), 6)


def greeting(counters: int = 0) -> bytes:
    """Return what a server sends first."""
    operation = OPERATIONS[MetricKind.COUNTER]
    series = [_Framed(Key.of(MetricKind.COUNTER, f"c{number}")) for number in range(counters)]
    totals = Encoder().encode([(one, operation, 1, time.time_ns()) for one in series])
    return b"".join(
        [
            encode_status(Status("benchmark", 1, 0, 0)),
            encode_snapshot(Snapshot.BEGIN_COMPLETE),
            *totals,
            encode_snapshot(Snapshot.END),
        ]
    )


@contextmanager
def broker() -> Iterator[tuple[str, Popen[bytes], Path]]:
    """Run a broker; return the URL of a stream, the process and the directory of its files."""
    assert PROGRAM is not None
    with TemporaryDirectory() as store:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [PROGRAM, "--jetstream", "--addr", "127.0.0.1", "--port", str(port)]
        process = Popen([*command, "--store_dir", store], stdin=DEVNULL, stderr=DEVNULL)
        try:

            def listens() -> bool:
                with socket.socket() as one:
                    return one.connect_ex(("127.0.0.1", port)) == 0

            until(listens, PATIENCE, "nats-server does not listen")
            yield f"nats://127.0.0.1:{port}/METRICS", process, Path(store)
        finally:
            process.kill()
            process.wait()


def cpu_seconds(process: Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(bench: Bench) -> tuple[float, float, float, float]:
    """Return the processor time an event of publisher, consumer and broker, and the bytes."""
    source = Source()
    with broker() as (url, process, store):
        command = python("suite.nats")
        publisher = Server(True, [*command, "publish", url, str(source.port)])
        consumer = Server(True, [*command, "consume", url])
        with publisher, consumer:
            source.accept()
            until(lambda: bool(consumer.ask("stats")["sources"]), PATIENCE, "no source")
            figures = []
            for seconds in (0.3, 1.0) if bench.quick else (2.0, 10.0):
                sent = source.run(seconds)
                until(
                    lambda: consumer.ask("stats")["events"] == source.sent,
                    PATIENCE,
                    "events are missing",
                )
                costs = [one.cpu_seconds() for one in (publisher, consumer)]
                figures.append([*costs, cpu_seconds(process)])
            answer = {**publisher.ask("stats"), **consumer.ask("stats")}
            if answer["given_up"] or answer["missed"]:
                raise PeerError(f"events were lost: {answer}")
            files = sum(path.stat().st_size for path in store.rglob("*.blk"))
    source.close()
    one, two, three = ((b - a) / sent * 1e6 for a, b in zip(*figures, strict=True))
    return one, two, three, files / source.sent


def list_sources(bench: Bench) -> float:
    """Return the time, in seconds, in which a consumer receives the snapshots of all sources."""
    number = SOURCES // 100 if bench.quick else SOURCES
    with broker() as (url, _, _):
        asyncio.run(fill(url, number))
        with Server(True, [*python("suite.nats"), "consume", url, str(number)]) as consumer:
            until(lambda: bool(consumer.ask("listed")["seconds"]), PATIENCE, "sources are missing")
            return float(consumer.ask("listed")["seconds"])


async def fill(url: str, number: int) -> None:
    """Publish snapshots of sources."""
    import nats

    from txmetrics_tcp.relay._messages import Publishing

    client = await nats.connect(url.rpartition("/")[0])
    stream = client.jetstream()
    await stream.add_stream(name="METRICS", subjects=["METRICS.>"])
    frames = greeting(10)
    events = list(Decoder().feed(frames))

    async def publish(one: int) -> None:
        publishing = Publishing(f"e{one}", time.time_ns())
        publishing.connected(time.time_ns())
        publishing.add(frames, events, time.time_ns())
        message = publishing.message()
        assert message is not None
        subject = f"METRICS.host{one}.snap"
        await stream.publish(subject, message.payload, headers=message.headers(), timeout=30)

    for begin in range(0, number, 200):
        await asyncio.gather(*map(publish, range(begin, min(begin + 200, number))))
    await client.close()


def run(bench: Bench) -> Section:
    subject = Subject(OURS, True)
    rows = bench.alternate(3, lambda one: measure(bench), [subject])
    (listing,) = bench.alternate(3, lambda one: (list_sources(bench),), [subject])
    names = ["publisher", "consumer", "broker"]
    goals = [COST_GOAL, COST_GOAL, None]
    return Section(
        TITLE,
        HOW,
        [
            *(
                Row.of(f"processor time an event, {name}", "µs", row, None, goal)
                for name, row, goal in zip(names, rows, goals, strict=False)
            ),
            Row.of("size of an event at the broker", "bytes", rows[3], None, BYTES_GOAL),
            Row.of("listing 10,000 sources", "s", listing, None, LISTING_GOAL),
        ],
    )


def main(mode: str, url: str, number: str = "") -> None:
    # These install the reactor.
    from twisted.internet import reactor
    from twisted.internet.protocol import ServerFactory

    from suite.server import serve
    from txmetrics_tcp import SourceView
    from txmetrics_tcp.cli.observe import GARBAGE
    from txmetrics_tcp.relay.nats import NatsPublisherService, NatsSourceService

    service: NatsPublisherService | NatsSourceService
    listed = [0.0]
    if mode == "publish":
        service = publisher = NatsPublisherService(reactor, url, "web", int(number))

        def figures() -> dict[str, object]:
            return {"given_up": publisher.given_up}

    else:
        # As observe does.
        gc.set_threshold(GARBAGE, 20, 50)
        views: dict[str, SourceView] = {}

        def received(source: str, events: list[object]) -> None:
            if source not in views:
                views[source] = SourceView(time.monotonic)
                if len(views) == int(number or 0):
                    listed[0] = time.perf_counter() - begun
            views[source].ingest(events)

        service = NatsSourceService(reactor, url, received)

        def figures() -> dict[str, object]:
            return {
                "sources": len(views),
                "events": sum(view.events for view in list(views.values())),
                "missed": sum(view.missed_client for view in list(views.values())),
            }

    begun = time.perf_counter()
    reactor.callWhenRunning(service.startService)

    def answer(word: str, options: dict[str, float]) -> dict[str, object]:
        # Polled while the consumer lists sources, which figures about all of them would delay.
        if word == "listed":
            return {"seconds": listed[0]}
        return {"cpu_seconds": time.process_time(), **figures()}

    serve(ServerFactory(), answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
