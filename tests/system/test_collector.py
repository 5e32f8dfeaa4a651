"""
The collector as a process, with real processes that report to it.  What it streams is compared with
what the processes have counted in shared memory.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from unittest import skipIf

from tests import needs
from tests.authority import Authority
from tests.daemon import Daemon, connect
from tests.programs import Program, ProgramTestCase, Stream, total
from tests.reader import Reader
from tests.rust_peers import start_server
from tests.truth import Truth
from txmetrics_tcp import Key, Metric, MetricKind, Operation, encode_metric

WORKER = """
stopping = False

def stop(number, frame):
    global stopping
    stopping = True

signal.signal(signal.SIGTERM, stop)

def work(slot, limit=2**63, burst=1000, pause=0.001):
    mine = counter("events_total", worker=str(slot))
    seconds = histogram("event_seconds")
    running = gauge("running")
    running.set(1)
    number = 0
    say("working", slot)
    while number < limit and not stopping:
        for _ in range(min(burst, limit - number)):
            number += 1
            count(slot, number)
            mine.increment()
            seconds.record(number % 7 / 10)
        time.sleep(pause)
    say("done", number)

def report(**options):
    builder = TcpBuilder().report_to("unix:" + {path!r}, wait_at_exit=600)
    for name, value in options.items():
        getattr(builder, name)(value)
    return builder.flush_timeout(600).install_in_thread()
"""


class CollectorTestCase(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        # The directory of the test may have too long a path.
        self.directory = Path(mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = str(self.directory / "c.sock")
        self.truth = Truth(self)

    def collector(self, *arguments: str, listen: str = "0") -> Daemon:
        daemon = Daemon(
            self,
            *("-n", "--pidfile=", "metrics-tcp", "--no-host", "--no-process"),
            *(f"--listen={listen}", *arguments),
        )
        daemon.wait_for("Streaming metrics on")
        return daemon

    def collecting(self, *arguments: str) -> Daemon:
        daemon = self.collector(f"--collect=unix:{self.path}", *arguments)
        daemon.wait_for("Collecting metrics on")
        return daemon

    def worker(self, script: str) -> Program:
        return Program(
            self,
            "import sys\n"
            + self.truth.script
            + WORKER.replace("{path!r}", repr(self.path))
            + "\n"
            + script,
        )

    def end(self, worker: Program) -> None:
        """End a worker gracefully."""
        worker.said("working")
        worker.process.send_signal(signal.SIGTERM)
        self.ends(worker, errors=None)

    def sees(self, daemon: Daemon, condition: Callable[[Reader], bool]) -> Reader:
        """Wait until a new viewer has seen something."""
        return Stream(self, daemon.port).read_until(condition)

    def sees_all(self, daemon: Daemon) -> None:
        """Check that viewers see what all processes together have recorded."""
        expected = self.truth.total()
        viewer = Stream(self, daemon.port)
        viewer.read_until(lambda reader: total(reader, "events_total") == expected)
        # All of it is in the totals, which a late viewer receives first.
        late = Stream(self, daemon.port)
        reader = late.read_until(lambda reader: bool(reader.snapshots))
        self.assertEqual(total(reader, "events_total"), expected)
        [distribution] = [
            value for key, value in reader.totals.items() if key.name == "event_seconds"
        ]
        self.assertEqual(distribution.count, expected)


def figure(reader: Reader, name: str, **labels: str) -> float:
    return total(reader, f"txmetrics_{name}", **labels)


class WorkersTests(CollectorTestCase):
    """Processes that report to the collector."""

    def test_endAtOnce(self) -> None:
        """Processes that end at once are counted."""
        daemon = self.collecting()
        workers = [self.worker(f"report(); work({slot}, 100)") for slot in range(4)]
        for worker in workers:
            self.ends(worker)
        self.assertEqual(self.truth.total(), 400)
        self.sees_all(daemon)

    def test_replaced(self) -> None:
        """Sums stay exact over graceful restarts and bursts that the processes drop events in."""
        daemon = self.collecting("--grace=600")
        early = Stream(self, daemon.port)
        slots = iter(range(100))

        def start() -> Program:
            return self.worker(f"report(buffer_size=16); work({next(slots)}, burst=5000)")

        workers = [start() for _ in range(3)]
        for _ in range(3):
            least = total(early.reader, "events_total") + 5000
            early.read_until(lambda reader, least=least: total(reader, "events_total") > least)  # type: ignore[misc]
            self.end(workers.pop(0))
            workers.append(start())
        for worker in workers:
            self.end(worker)
        self.sees_all(daemon)
        reader = self.sees(
            daemon, lambda reader: figure(reader, "collector_source_missed_events_total") > 0
        )
        self.assertGreater(figure(reader, "collector_source_missed_events_total"), 0)
        early.read_until(lambda reader: total(reader, "events_total") == self.truth.total())

    def test_collectorRestarted(self) -> None:
        """After a restart of the collector, sums of the living processes are exact."""
        first = self.collecting()
        workers = [self.worker(f"report(); work({slot})") for slot in range(2)]
        self.sees(first, lambda reader: total(reader, "events_total") > 5000)
        first.process.send_signal(signal.SIGTERM)
        first.end()
        second = self.collecting()
        for slot in range(2):
            self.sees(
                second,
                lambda reader, slot=slot: total(reader, "events_total", worker=str(slot)) > 0,  # type: ignore[misc]
            )
        for worker in workers:
            self.end(worker)
        self.sees_all(second)

    def test_killed(self) -> None:
        """A process that is killed loses at most what it had not sent, and others nothing."""
        daemon = self.collecting("--grace=0")
        others = [self.worker(f"report(); work({slot}, 5000)") for slot in (1, 2)]
        killed = self.worker("report(); work(0)")
        self.sees(
            daemon,
            lambda reader: (
                total(reader, "events_total", worker="0") > 5000
                and figure(reader, "collector_sources") > 0
            ),
        )
        killed.process.kill()
        killed.process.wait()
        for other in others:
            self.ends(other, errors=None)
        reader = self.sees(
            daemon,
            lambda reader: (
                total(reader, "events_total", worker="1") == 5000
                and total(reader, "events_total", worker="2") == 5000
                and bool(reader.snapshots)
                and figure(reader, "collector_sources") == 0
            ),
        )
        received = total(reader, "events_total", worker="0")
        self.assertTrue(5000 < received <= self.truth[0], (received, self.truth[0]))
        # Gauges of the dead have left.
        self.assertNotIn("running", {key.name for key in reader.totals})

    @skipIf(needs("OpenSSL"), "needs OpenSSL")
    def test_certificates(self) -> None:
        """Over TLS, only processes with a certificate can report."""
        authority, others = Authority(self), Authority(self)
        server, client, stranger = authority.issue(), authority.issue(), others.issue()
        daemon = self.collector(
            "--collect=0.0.0.0:0",
            f"--tls-cert={server.cert}",
            f"--tls-key={server.key}",
            f"--tls-client-ca={authority.file}",
        )
        port = daemon.wait_for(r"Collecting metrics on 0\.0\.0\.0:(\d+)")[1]

        def worker(slot: int, options: str, wait: float) -> Program:
            return self.worker(
                f"""
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from txmetrics_tcp import tls_endpoint
plain = clientFromString(reactor, "tcp:127.0.0.1:{port}")
collector = tls_endpoint(plain, "127.0.0.1", ca={authority.file!r}, {options})
TcpBuilder().report_to(collector, wait_at_exit={wait}).install_in_thread()
work({slot}, 100)
"""
            )

        for number, options in enumerate(
            ("", f"certificate={stranger.cert!r}, key={stranger.key!r}"), 1
        ):
            worker(number, options, 0.5).end()
        daemon.wait_for(r"Rejected source 127\.0\.0\.1:\d+: ")
        certified = f"certificate={client.cert!r}, key={client.key!r}"
        self.ends(worker(0, certified, 600))
        # Viewers need a certificate as well.
        context = ssl.create_default_context(cafile=authority.file)
        context.load_cert_chain(client.cert, client.key)
        connected = connect(self, daemon.port)
        viewer = Stream.of(context.wrap_socket(connected, server_hostname="127.0.0.1"))
        self.addCleanup(viewer.close)
        viewer.read_until(lambda reader: total(reader, "events_total") == 100)

    def test_each(self) -> None:
        """With C{both}, there is a series for each living process, and the sum."""
        daemon = self.collecting("--merge=both", "--instance-label=process", "--grace=0")
        workers = [self.worker(f"report(source='w{slot}'); work({slot})") for slot in range(2)]
        viewer = Stream(self, daemon.port)
        viewer.read_until(
            lambda reader: (
                total(reader, "running", process="w0") == 1
                and total(reader, "running", process="w1") == 1
                and figure(reader, "collector_source_connected", process="w0") == 1
            )
        )
        key = Key.of(MetricKind.GAUGE, "running")
        viewer.read_until(lambda reader: reader.totals[key] == 2)
        self.end(workers[0])
        viewer.read_until(lambda reader: reader.totals[key] == 1)
        viewer.read_until(
            lambda reader: not any(dict(key.labels).get("process") == "w0" for key in reader.totals)
        )
        self.end(workers[1])
        self.sees_all_sums(daemon)

    def sees_all_sums(self, daemon: Daemon) -> None:
        expected = self.truth.total()

        def sums(reader: Reader) -> float:
            return sum(
                value
                for key, value in reader.totals.items()
                if key.name == "events_total" and "process" not in dict(key.labels)
            )

        self.sees(daemon, lambda reader: sums(reader) == expected)

    def test_mode(self) -> None:
        """Only the owner can connect to the socket, unless the endpoint says otherwise."""
        self.collecting(f"--collect=unix:{self.path}2:mode=660")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(self.path + "2").st_mode & 0o777, 0o660)

    def test_exposed(self) -> None:
        """Anybody's metrics are not accepted unless it is asked for."""
        refused = Daemon(self, "-n", "--pidfile=", "metrics-tcp", "--collect=0.0.0.0:0")
        status, _, errors = refused.end()
        self.assertEqual(status, 1)
        self.assertRegex(
            errors,
            r"\Ametrics-tcp: collecting on 0\.0\.0\.0:\d+ would accept metrics from any client: "
            r"give --allow, or require client certificates with --tls-client-ca\n\Z",
        )
        allowed = self.collector("--collect=0.0.0.0:0", "--allow=127.0.0.0/8")
        allowed.wait_for("can report metrics on")


class SourcesTests(CollectorTestCase):
    """Servers that the collector connects to."""

    def test_directory(self) -> None:
        """Sockets in a directory come and go; totals of processes that have ended stay."""
        sockets = self.directory / "sockets"
        daemon = self.collector(f"--from={sockets}/", "--grace=0")
        script = "work({slot}, 1000); signal.pause()"
        variables = {"TXMETRICS_TCP_LISTEN": f"{sockets}/"}
        viewer = Stream(self, daemon.port)
        for slot in range(3):
            program = Program(
                self,
                self.truth.script + WORKER.replace("{path!r}", "''") + script.format(slot=slot),
                variables=variables,
            )
            viewer.read_until(
                lambda reader, slot=slot: (  # type: ignore[misc]
                    total(reader, "events_total", worker=str(slot)) == 1000
                    and total(reader, "running") == 1
                    and figure(reader, "collector_sources") == 1
                )
            )
            program.process.send_signal(signal.SIGTERM)
            self.ends(program)
            viewer.read_until(lambda reader: total(reader, "running") == 0)
        self.sees_all(daemon)
        viewer.read_until(lambda reader: figure(reader, "collector_sources") == 0)

    def test_notThere(self) -> None:
        """A server that is not there is logged once, whatever the number of attempts."""
        path = self.directory / "none.sock"
        daemon = self.collector(f"--from=unix:{path}")
        daemon.wait_for(f"No connection to unix:{path}: .*; trying again")
        daemon.process.send_signal(signal.SIGTERM)
        _, output, _ = daemon.end()
        self.assertNotIn("Scheduling retry", output)

    def test_loop(self) -> None:
        """A collector refuses its own stream."""
        path = self.directory / "own.sock"
        daemon = self.collector(f"--from=unix:{path}", listen=f"unix:{path}")
        daemon.wait_for("Rejected source .*: it sends what this collector has recorded")

    def test_longLoop(self) -> None:
        """A collector refuses its own stream when it comes back through another collector."""
        first, second = self.directory / "a.sock", self.directory / "b.sock"
        found = self.directory / "found"
        found.mkdir()
        one = self.collector(f"--from={found}/", listen=f"unix:{first}")
        self.collector(f"--from=unix:{first}", listen=f"unix:{second}")
        # Not before the second one has the stream of the first.
        Stream(self, str(second)).read_until(lambda reader: figure(reader, "collector_info") == 2)
        (found / "b.sock").symlink_to(second)
        one.wait_for("Rejected source .*: it sends what this collector has recorded")

    def test_rust(self) -> None:
        """The Rust exporter is a source: what it sends while it is connected is counted."""
        port, server = start_server(self)
        daemon = self.collector(f"--from=127.0.0.1:{port}", "--merge=both", "--grace=0")
        instance = f"127.0.0.1:{port}"
        self.sees(
            daemon,
            lambda reader: (
                total(reader, "rust_requests", instance=instance) >= 3
                and figure(reader, "collector_source_connected", instance=instance) == 1
            ),
        )
        server.kill()
        reader = self.sees(
            daemon,
            lambda reader: bool(reader.snapshots) and figure(reader, "collector_sources") == 0,
        )
        names = {key.name for key in reader.totals}
        self.assertIn("rust_requests", names)
        self.assertNotIn("rust_load", names)


class HostileTests(CollectorTestCase):
    """Processes that send too much or something else."""

    def connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        self.addCleanup(connected.close)
        connected.settimeout(60)
        connected.connect(self.path)
        return connected

    def test_others(self) -> None:
        """Processes that send too much do not matter to the others."""
        daemon = self.collecting("--max-source-series=10", "--max-source-events=2000")
        flood = self.worker("report(buffer_size=None); work(0)")
        series = self.worker(
            """
report()
for number in range(1000):
    counter("many_total", number=str(number)).increment()
signal.pause()
"""
        )
        self.sees(daemon, lambda reader: total(reader, "events_total", worker="0") > 0)
        other = self.worker("report(); work(1, 100)")
        self.ends(other)
        reader = self.sees(
            daemon,
            lambda reader: (
                total(reader, "events_total", worker="1") == 100
                and figure(reader, "collector_source_missed_events_total", side="collector") > 0
            ),
        )
        self.assertLessEqual(sum(key.name == "many_total" for key in reader.totals), 10)
        daemon.wait_for("Ignored events of source .*: it has more than 10 series")
        for worker in flood, series:
            worker.process.kill()

    def test_bytes(self) -> None:
        """A process that sends too many bytes is read slowly, and disconnected in the end."""
        daemon = self.collecting("--max-source-bytes=20000")
        flood = self.worker(
            """
report(buffer_size=16)
large = gauge("large", text="x" * 1000)
while True:
    large.increment()
    time.sleep(0.001)
"""
        )
        self.sees(
            daemon,
            lambda reader: (
                figure(reader, "collector_source_missed_events_total", side="client") > 0
                or figure(reader, "collector_cut_total", reason="bytes") > 0
            ),
        )
        other = self.worker("report(); work(1, 10)")
        self.ends(other)
        self.sees(daemon, lambda reader: total(reader, "events_total") == 10)
        daemon.wait_for(r"Rejected source .*: too many bytes a second, for 10 seconds")
        self.sees(daemon, lambda reader: figure(reader, "collector_cut_total", reason="bytes") > 0)
        flood.process.kill()

    def test_manyAtOnce(self) -> None:
        """Many connections at once that are no sources are logged in few lines."""
        daemon = self.collecting()
        connections = [self.connect() for _ in range(40)]
        for connected in connections:
            connected.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        self.sees(
            daemon, lambda reader: figure(reader, "collector_cut_total", reason="protocol") == 40
        )
        daemon.process.send_signal(signal.SIGTERM)
        _, output, _ = daemon.end()
        lines = [line for line in output.splitlines() if "Rejected" in line]
        # The first one, and how many more in each interval.
        self.assertLess(len(lines), 5, output)
        self.assertNotIn("Traceback", output)

    def test_otherProtocol(self) -> None:
        """What is not the protocol, or does not say who it is, is cut off and counted."""
        daemon = self.collecting()
        for data in (
            b"GET / HTTP/1.1\r\n\r\n" * 10,
            encode_metric(Metric(KEY, Operation.INCREMENT_COUNTER, 1, None)),
        ):
            connected = self.connect()
            connected.sendall(data)
            self.assertEqual(self.rest(connected), b"")
        self.sees(
            daemon, lambda reader: figure(reader, "collector_cut_total", reason="protocol") == 2
        )

    def rest(self, connected: socket.socket) -> bytes:
        try:
            return connected.recv(1)
        except ConnectionResetError:
            return b""


KEY = Key.of(MetricKind.COUNTER, "n")
