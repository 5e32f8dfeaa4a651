"""
The cost of a collector for each event, and the latency that it adds.

``python -m suite.collecting MERGE SOCKET`` is the process of the collector, which listens for
sources on the UNIX socket. If MERGE is C{view}, it ingests the events into a view for each source
instead. Its command is C{stats}, which answers its processor time.
"""

from __future__ import annotations

import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory

from suite.bench import Bench, Subject
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PATIENCE, PeerError, Server, python, until
from suite.streams import OPERATIONS
from txmetrics_tcp import Decoder, Key, Metric, MetricKind, Operation, Status
from txmetrics_tcp._codec.encoder import Encoder, SeriesFrame
from txmetrics_tcp._codec.wire import encode_status

SOURCES, SERIES = 40, 30
RATE = 20_000
"""Events per second, of all sources together."""

INTERVAL = 0.02
"""The seconds between two sends of a source: the default of C{max_delay}."""

VIEW = "views"
SUBJECTS = (Subject(f"{OURS}, both", True), Subject(f"{OURS}, sum", True), Subject(VIEW, True))
MERGES = {SUBJECTS[0]: "both", SUBJECTS[1]: "sum", SUBJECTS[2]: "view"}

CPU_GOAL = Goal(9, False, "µs")
LATENCY_GOAL = Goal(2, False, "ms")
MEMORY_GOAL = Goal(80, False, "MB")

TITLE = "Collecting"

HOW = """\
Forty sources with 30 series each, two thirds of them counters, send 20,000 events a second in all
to a process: one after the other, each every 20 ms, as exporters with the default `max_delay` do.
"Views" decodes the streams and ingests the events into a `SourceView` for each source. A collector
merges them, and one viewer reads what it sends: sums, or with "both", the series of each source as
well. The latency is from sending an event to the viewer's recv of its sum. Memory is that of the
whole process, with the interpreter."""


class Sources:
    """
    The connections of all sources, which share one thread.

    @ivar increments: the number of increments of counters that were sent.
    """

    def __init__(self, path: Path) -> None:
        self._encoder = Encoder()
        self._sockets = []
        self._entries = []
        for number in range(SOURCES):
            one = socket.socket(socket.AF_UNIX)
            one.connect(str(path))
            one.sendall(encode_status(Status(f"worker-{number}", number + 1, 0, 0)))
            self._sockets.append(one)
            self._entries.append(cycle(list(entries())))
        self._turns = 0
        self.increments = 0

    def send(self, size: int) -> None:
        """Send the next events of the source whose turn it is."""
        number = self._turns % SOURCES
        self._turns += 1
        now = time.time_ns()
        some = [(*entry, now) for entry in islice(self._entries[number], size)]
        self.increments += sum(entry[1] is Operation.INCREMENT_COUNTER for entry in some)
        self._sockets[number].sendall(b"".join(self._encoder.encode(some)))

    def close(self) -> None:
        for one in self._sockets:
            one.close()


class _Framed:
    def __init__(self, key: Key) -> None:
        self.frame = SeriesFrame(key)


def entries() -> Iterator[tuple[_Framed, Operation, float]]:
    """Yield one event of each series of a source, without its time."""
    kinds = [MetricKind.COUNTER] * 4 + [MetricKind.GAUGE, MetricKind.HISTOGRAM]
    for number, kind in zip(range(SERIES), cycle(kinds)):
        key = Key.of(kind, f"requests_{number}", {"method": "GET", "route": f"/{number:04}"})
        yield _Framed(key), OPERATIONS[kind], 1 if kind is MetricKind.COUNTER else 0.5 + number


class Viewer:
    """
    A viewer of the collector.

    @ivar increments: the number of increments of sums that were read.
    @ivar latencies: their latencies, in milliseconds.
    """

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._decoder = Decoder()
        self.increments = 0
        self.latencies: list[float] = []

    def read(self, patience: float) -> None:
        """Read what arrives until the time is over."""
        end = time.perf_counter() + patience
        while select([self.socket], [], [], max(0.0, end - time.perf_counter()))[0]:
            data = self.socket.recv(1 << 18)
            now = time.time_ns()
            latencies = [
                (now - (event.timestamp_ns or now)) / 1e6
                for event in self._decoder.feed(data)
                if type(event) is Metric
                and event.operation is Operation.INCREMENT_COUNTER
                and len(event.key.labels) == 2
            ]
            self.latencies += latencies
            self.increments += len(latencies)
            if not data:
                raise PeerError("the collector has disconnected the viewer")

    def read_all(self, sources: Sources) -> None:
        """
        @raise PeerError: events are missing after a long time.
        """
        end = time.monotonic() + PATIENCE
        while self.increments != sources.increments:
            if time.monotonic() > end:
                raise PeerError(f"{self.increments} of {sources.increments} increments were read")
            self.read(0.01)


def drive(sources: Sources, viewer: Viewer | None, seconds: float) -> int:
    """Send events at the rate for a time, and return their number."""
    size = round(RATE * INTERVAL / SOURCES)
    turns = round(seconds * RATE / size)
    begun = time.perf_counter()
    for turn in range(turns):
        wait = begun + turn * size / RATE - time.perf_counter()
        if viewer is not None:
            viewer.read(wait)
        elif wait > 0:
            time.sleep(wait)
        sources.send(size)
    return turns * size


def measure(bench: Bench, subject: Subject) -> tuple[float, float, float]:
    """Return the processor time an event, the median of the latency, and the memory."""
    seconds = 0.3 if bench.quick else 3.0
    with ExitStack() as stack:
        path = Path(stack.enter_context(TemporaryDirectory())) / "c.sock"
        command = [*python("suite.collecting"), MERGES[subject], str(path)]
        server = stack.enter_context(Server(True, command))
        until(path.exists, PATIENCE, "the collector does not listen")
        viewer = None
        if subject.name != VIEW:
            viewer = Viewer(server.port)
            stack.enter_context(viewer.socket)
        sources = Sources(path)
        stack.callback(sources.close)
        # Warms up: the first events of each series take longer.
        drive(sources, viewer, 0.3 if bench.quick else 1.0)
        if viewer is not None:
            viewer.read_all(sources)
            viewer.latencies.clear()
        before = server.ask("stats")
        sent = drive(sources, viewer, seconds)
        latency = 0.0
        if viewer is not None:
            viewer.read_all(sources)
            latency = statistics.median(viewer.latencies)
        after = server.ask("stats")
        cpu = (after["cpu_seconds"] - before["cpu_seconds"]) / sent * 1e6
        return cpu, latency, server.resident_bytes() / 1e6


def run(bench: Bench) -> Section:
    cpu, latency, memory = bench.alternate(3, lambda one: measure(bench, one), SUBJECTS)
    latency.pop(VIEW)
    return Section(
        TITLE,
        HOW,
        [
            Row.of("processor time an event", "µs", cpu, VIEW, CPU_GOAL),
            Row.of("latency added, median", "ms", latency, None, LATENCY_GOAL),
            Row.of("memory", "MB", memory, None, MEMORY_GOAL),
        ],
    )


def main(merge: str, path: str) -> None:
    # These install the reactor.
    from twisted.internet import reactor
    from twisted.internet.endpoints import UNIXServerEndpoint
    from twisted.internet.protocol import Factory

    from suite.server import serve
    from txmetrics_tcp import ExporterSettings, MetricsClientProtocol, MetricsFactory, SourceView
    from txmetrics_tcp.relay.collector import CollectorService

    factory = MetricsFactory(reactor, ExporterSettings(max_delay=0, buffer_size=65_536))
    if merge == "view":
        # A view reads the clock for each event that has no time only.
        listening = Factory.forProtocol(
            lambda: MetricsClientProtocol(received_many=SourceView(time.monotonic).ingest)
        )
        UNIXServerEndpoint(reactor, path).listen(listening)
    else:
        service = CollectorService(reactor, factory.recorder, collect=[f"unix:{path}"], merge=merge)
        reactor.callWhenRunning(service.startService)

    def answer(word: str, options: dict[str, float]) -> dict[str, object]:
        return {"cpu_seconds": time.process_time()}

    serve(factory, answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
