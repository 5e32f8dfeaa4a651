"""
``twistd metrics-tcp --statsd`` as a process, with the clients of StatsD that programs use.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any
from unittest import skipIf

from tests import needs
from tests.daemon import LIMIT, Daemon, DaemonTestCase, occupied_port
from tests.programs import Stream
from tests.reader import Reader
from tests.system.test_consumers import interpreter, program
from txmetrics_tcp import Distribution, Key, MetricKind

UDP = r"Receiving StatsD on udp:127.0.0.1:(\d+)"
TCP = r"Receiving StatsD on 127.0.0.1:(\d+)"
OWN = "txmetrics_"


def counter(name: str, **labels: str) -> Key:
    return Key.of(MetricKind.COUNTER, name, labels)


def gauge(name: str, **labels: str) -> Key:
    return Key.of(MetricKind.GAUGE, name, labels)


def histogram(name: str, **labels: str) -> Key:
    return Key.of(MetricKind.HISTOGRAM, name, labels)


def of(*samples: float) -> Distribution:
    """Return the distribution of some samples."""
    distribution = Distribution.EMPTY
    for sample in samples:
        distribution = distribution.with_repeated(sample, 1)
    return distribution


class StatsDTests(DaemonTestCase):
    def daemon(self, *options: str) -> Daemon:
        common = ("-n", "metrics-tcp", "--no-host", "--no-process", "--listen=0")
        return Daemon(self, *common, "--statsd-flush=0.1", *options)

    def totals(self, stream: Stream, expected: dict[Key, Any]) -> dict[Key, Any]:
        """
        Read until a stream has had an event of each expected series, and the gauges have their
        values. Return the totals of all series that are not the exporter's own.
        """

        def arrived(reader: Reader) -> bool:
            return expected.keys() <= reader.totals.keys() and all(
                reader.totals[key] == value
                for key, value in expected.items()
                if key.kind is MetricKind.GAUGE
            )

        reader = stream.read_until(arrived)
        return {key: value for key, value in reader.totals.items() if not key.name.startswith(OWN)}

    def refused(self, stream: Stream, reason: str, number: int) -> None:
        """Read until the daemon has refused this number of lines for a reason."""
        key = counter("txmetrics_statsd_refused_total", reason=reason)
        stream.read_until(lambda reader: reader.totals.get(key) == number)

    def assert_stops(self, daemon: Daemon) -> None:
        daemon.process.terminate()
        self.assert_stopped(daemon, signal.SIGTERM)

    @skipIf(needs("statsd"), needs("statsd"))
    def test_statsd(self) -> None:
        """PyPI's statsd, over UDP and TCP."""
        from statsd import StatsClient, TCPStatsClient

        daemon = self.daemon("--statsd=0", "--statsd=tcp:127.0.0.1:0", "--statsd-prefix=app.")
        stream = Stream(self, daemon.port)
        ports = int(daemon.wait_for(UDP)[1]), int(daemon.wait_for(TCP)[1])
        for number, (kind, port) in enumerate(
            zip((StatsClient, TCPStatsClient), ports, strict=True), 1
        ):
            client = kind("127.0.0.1", port, prefix=kind.__name__)
            client.incr("requests")
            client.incr("requests", 4)
            client.decr("requests")
            client.gauge("queue", 5)
            client.gauge("queue", -7)
            client.gauge("queue", 2.5, delta=True)
            client.timing("wait", 12.5)
            client.set("users", "alice")
            client.set("users", "bob")
            with client.pipeline() as pipeline:
                pipeline.incr("piped", 2)
                pipeline.incr("done")
            client.close()
            name = f"app.{kind.__name__}"
            expected = {
                counter(f"{name}.requests"): 5,
                gauge(f"{name}.queue"): -4.5,
                histogram(f"{name}.wait"): of(12.5),
                gauge(f"{name}.users"): 0.0,
                counter(f"{name}.piped"): 2,
                counter(f"{name}.done"): 1,
            }
            totals = self.totals(stream, expected)
            self.assertEqual({key: totals[key] for key in expected}, expected)
            self.assertIn(2.0, stream.reader.values(f"{name}.users"))
            self.refused(stream, "negative", number)
        daemon.wait_for("a counter cannot fall")
        self.assert_stops(daemon)

    @skipIf(needs("datadog"), needs("datadog"))
    def test_datadog(self) -> None:
        """PyPI's datadog, over UDP and UNIX datagrams."""
        from datadog.dogstatsd import DogStatsd

        path = os.path.relpath(self.mktemp())
        daemon = self.daemon("--statsd=0", f"--statsd=unixgram:{Path(path).resolve()}")
        port = int(daemon.wait_for(UDP)[1])
        daemon.wait_for("Receiving StatsD on unixgram:/")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        stream = Stream(self, daemon.port)
        for namespace, where in (
            ("udp", {"host": "127.0.0.1", "port": port}),
            ("unix", {"socket_path": path}),
        ):
            client = DogStatsd(
                **where, namespace=namespace, constant_tags=["env:test"], disable_telemetry=True
            )
            client.increment("requests", tags=["bare", "url:http://x", "a:1", "a:2"])
            client.gauge("queue", 5)
            client.histogram("size", 100)
            client.distribution("spread", 0.25)
            client.timing("wait", 3)
            client.set("users", "alice:1")
            client.event("deploy", "text")
            client.service_check("health", 0)
            client.gauge_with_timestamp("late", 4, 1_700_000_000)
            client.increment("done")
            client.flush()
            client.close_socket()
            expected = {
                counter(f"{namespace}.requests", bare="", url="http://x", a="1,2", env="test"): 1,
                gauge(f"{namespace}.queue", env="test"): 5.0,
                histogram(f"{namespace}.size", env="test"): of(100.0),
                histogram(f"{namespace}.spread", env="test"): of(0.25),
                histogram(f"{namespace}.wait", env="test"): of(3.0),
                gauge(f"{namespace}.users", env="test"): 1.0,
                gauge(f"{namespace}.late", env="test"): 4.0,
                counter(f"{namespace}.done", env="test"): 1,
            }
            stream.read_until(lambda reader, key=[*expected][-1]: key in reader.totals)
            stream.read_until(lambda reader, name=f"{namespace}.users": reader.values(name) != [])
            totals = stream.reader.totals
            users = gauge(f"{namespace}.users", env="test")
            self.assertEqual(
                {key: totals[key] for key in expected if key != users},
                {key: value for key, value in expected.items() if key != users},
            )
            self.assertEqual(stream.reader.values(f"{namespace}.users")[0], 1.0)
        self.assertEqual(
            [key for key in stream.reader.totals if "deploy" in key.name or "health" in key.name],
            [],
        )
        self.assert_stops(daemon)
        self.assertFalse(os.path.exists(path))

    def test_hotShots(self) -> None:
        """npm's hot-shots, over UDP and TCP."""
        node, script = interpreter("node"), program("hotshots", "send.js")
        daemon = self.daemon("--statsd=0", "--statsd=tcp:127.0.0.1:0")
        stream = Stream(self, daemon.port)
        ports = {"udp": daemon.wait_for(UDP)[1], "tcp": daemon.wait_for(TCP)[1]}
        for number, (protocol, port) in enumerate(ports.items(), 1):
            subprocess.run([node, script, protocol, port], check=True, timeout=LIMIT)
            done = counter("node.done", env="test")
            stream.read_until(lambda reader, done=done, n=number: reader.totals.get(done) == n)
            self.refused(stream, "negative", number)
        totals = stream.reader.totals
        for key, value in {
            counter("node.requests", env="test"): 2,
            counter("node.requests", env="test", route="/a", bare=""): 8,
            # A value with a sign is added, as StatsD defines.
            gauge("node.queue", env="test"): -2.0,
            gauge("node.delta", env="test"): -5.0,
            histogram("node.wait", env="test"): of(12.5, 12.5),
            histogram("node.size", env="test"): of(100.0, 100.0),
            histogram("node.spread", env="test"): of(0.25, 0.25),
        }.items():
            self.assertEqual(totals[key], value, key)
        stream.read_until(lambda reader: 2.0 in reader.values("node.users"))
        self.assert_stops(daemon)

    def test_bounds(self) -> None:
        """Lines of further series are refused, and long lines end a connection."""
        daemon = self.daemon("--statsd=0", "--statsd=tcp:127.0.0.1:0", "--statsd-max-series=2")
        stream = Stream(self, daemon.port)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        address = ("127.0.0.1", int(daemon.wait_for(UDP)[1]))
        for data in b"", b"\xff\0", b"a:1|c\nb:1|c\nc:1|c", b"x" * 60_000, b"d:1|c":
            sender.sendto(data, address)
        self.refused(stream, "series", 2)
        self.refused(stream, "format", 2)
        long = socket.create_connection(("127.0.0.1", int(daemon.wait_for(TCP)[1])), LIMIT)
        self.addCleanup(long.close)
        long.sendall(b"a:1|c\n" + b"x" * 64 * 1024 + b"x")
        with self.assertRaises(ConnectionResetError):
            long.recv(1)
            long.recv(1)
        self.refused(stream, "size", 1)
        self.assertEqual(stream.reader.totals[counter("a")], 2)
        self.assertEqual(stream.reader.totals[gauge("txmetrics_statsd_series")], 2.0)
        self.assert_stops(daemon)

    def test_stop(self) -> None:
        """When the daemon stops, clients receive the values of sets, and own metrics."""
        daemon = self.daemon("--statsd=0", "--statsd-flush=1h")
        stream = Stream(self, daemon.port)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        sender.sendto(b"u:a|s\nu:b|s\ndone:1|c", ("127.0.0.1", int(daemon.wait_for(UDP)[1])))
        stream.read_until(lambda reader: counter("done") in reader.totals)
        daemon.process.terminate()
        totals = stream.read_all().totals
        self.assertEqual(totals[gauge("u")], 2.0)
        self.assertEqual(totals[counter("txmetrics_statsd_lines_total")], 3)
        self.assert_stopped(daemon, signal.SIGTERM)

    def test_inUse(self) -> None:
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen=0", f"--statsd={port}")
        self.assert_one_line(daemon, "Couldn't listen on", str(port))
        port = occupied_port(self)
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen=0", f"--statsd=tcp:127.0.0.1:{port}")
        self.assert_one_line(daemon, "Couldn't listen on", str(port))
