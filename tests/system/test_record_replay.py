"""
Records many events of a program with `metrics-tcp record`, and replays them to a viewer.
"""

from __future__ import annotations

import signal
from itertools import takewhile
from operator import eq
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import METRICS_TCP, Daemon
from tests.programs import Program, Stream
from tests.recordings import joined, read
from txmetrics_tcp import Decoder, Key, MetricKind, SourceView

EVENTS = 250_000
"""More than the buffers of all sockets hold."""

PROGRAM = f"""
metrics = (
    TcpBuilder()
    .listen_address(0)
    .buffer_size(None)
    .own_metrics(False)
    .flush_timeout(60)
    .install_in_thread()
)
say("port", metrics.addresses[0].port)
while len(metrics.recorder.stats().clients) < 2:
    time.sleep(0.001)
describe_histogram("h", "seconds", "Samples.")
series = [
    call
    for number in range(10)
    for call in (
        counter("c", number=number).increment,
        gauge("g", number=number).increment,
        histogram("h", number=number).record,
    )
]
for number in range({EVENTS}):
    series[number % 30](number % 1009)
metrics.stop()
"""


class ManyEventsTests(SynchronousTestCase):
    def run_command(self, *arguments: str) -> Daemon:
        return Daemon(self, *arguments, runner=METRICS_TCP)

    def received(self, port: int, server: Daemon) -> bytes:
        stream = Stream(self, port)
        try:
            return b"".join(stream.chunks())
        except ConnectionError as error:
            self.fail(f"{error}: {server.end()}")

    def assert_same(self, one: bytes, other: bytes, message: str) -> None:
        """Compare streams, and show the first different events instead of megabytes."""
        if one != other:
            events, others = list(Decoder().feed(one)), list(Decoder().feed(other))
            same = sum(1 for _ in takewhile(bool, map(eq, events, others)))
            self.fail(f"{message}: {events[same:][:3]}, not {others[same:][:3]} ({same} equal)")

    def test_recordReplay(self) -> None:
        """A viewer of the replay receives the same bytes as a viewer of the program."""
        program = Program(self, PROGRAM)
        port = program.port
        path = str(Path(self.mktemp()).resolve())
        recorder = self.run_command("record", path, str(port), "--compress")
        recorder.wait_for("connected to")
        live = self.received(port, program)
        recorder.wait_for("disconnected from")
        recorder.process.send_signal(signal.SIGINT)
        status, output, _ = recorder.end()
        self.assertEqual(status, 0, output)
        self.assertEqual(program.end()[0], 0)

        reader, chunks = read(Path(path).read_bytes())
        self.assertFalse(reader.cut_off)
        self.assert_same(joined(chunks), live, "the recording differs from the stream")

        replay = self.run_command("replay", path, "--listen", "0", "--speed", "max")
        served = replay.wait_for(r"is served on 127\.0\.0\.1:(\d+)")
        replayed = self.received(int(served[1]), replay)
        status, output, _ = replay.end()
        self.assertEqual(status, 0, output)
        self.assert_same(replayed, live, "the replay differs from the recording")

        view = SourceView(lambda: 0.0)
        view.ingest(Decoder().feed(live))
        self.assertEqual(view.events, EVENTS)
        self.assertEqual((view.missed_incoming, view.missed_client), (0, 0))
        key = Key.of(MetricKind.COUNTER, "c", {"number": 3})
        self.assertEqual(view.series[key].value, sum(n % 1009 for n in range(9, EVENTS, 30)))
        samples = view.series[Key.of(MetricKind.HISTOGRAM, "h", {"number": 0})]
        self.assertEqual(samples.events, len(range(2, EVENTS, 30)))
