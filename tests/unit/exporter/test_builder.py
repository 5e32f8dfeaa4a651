"""
Tests of the builder: settings, listening, and installing the global recorder.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tests.listening import LateEndpoint, ListeningReactor
from tests.reader import FakeClient
from tests.recorders import GlobalRecorderTestCase, ListRecorder
from txmetrics_tcp import (
    EndpointError,
    ExporterSettings,
    ListenError,
    RecorderInstalledError,
    TcpBuilder,
    TcpRecorder,
    counter,
    current_recorder,
    describe_counter,
    set_global_recorder,
)
from txmetrics_tcp._exporter import builder as builder_module
from txmetrics_tcp.testing import PausingTransport


class BuilderTestCase(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor = ListeningReactor()
        self.builder = TcpBuilder(self.reactor)

    def late(self) -> LateEndpoint:
        """Make every address an endpoint that listens asynchronously."""
        endpoint = LateEndpoint(self.reactor)
        self.patch(builder_module, "server_endpoint", lambda reactor, text: endpoint)
        return endpoint


class SettingsTests(BuilderTestCase):
    def test_chained(self) -> None:
        builder = self.builder
        self.assertIs(builder.listen_address(1), builder)
        self.assertIs(builder.buffer_size(1), builder)

    def test_defaults(self) -> None:
        """The default port is the reference's, 5000, but on the loopback interface."""
        self.successResultOf(self.builder.build())
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:5000"])

    def test_addresses(self) -> None:
        """The first call replaces the default address; further calls add addresses."""
        self.builder.listen_address(1).listen_address("0.0.0.0:2").listen_address("[::1]:3")
        recorder = self.successResultOf(self.builder.build())
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1", "0.0.0.0:2", "::1:3"])
        self.assertEqual(len(recorder.addresses), 3)

    def test_badAddress(self) -> None:
        """An invalid address raises at the call, and has no effect."""
        self.builder.listen_address(1)
        for bad, reason in (
            ("nonsense", "^nonsense has no port; write nonsense:5000$"),
            (-1, " is not an endpoint"),
            (("", 1), " is not an endpoint"),
            ("tcp:70000", " is not an endpoint: the port must be from 0 to 65535$"),
            ("systemd:domain=INET:index=0", "systemd passed no sockets to this process"),
        ):
            with self.assertRaisesRegex(EndpointError, reason):
                self.builder.listen_address(bad)
        for wrong in (None, True, 1.0, b"1", ["127.0.0.1", 1]):
            with self.assertRaisesRegex(TypeError, "^endpoint must be "):
                self.builder.listen_address(wrong)  # type: ignore[arg-type]
        self.successResultOf(self.builder.build())
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1"])

    def test_pythonAddresses(self) -> None:
        """Tuples of the C{socket} module are addresses, and path objects UNIX sockets."""
        path = Path(self.mktemp())
        self.builder.listen_address(("127.0.0.1", 1)).listen_address(("::1", 2, 0, 0))
        recorder = self.successResultOf(self.builder.listen_address(path).build())
        self.assertEqual(
            recorder.addresses,
            (
                IPv4Address("TCP", "127.0.0.1", 1),
                IPv6Address("TCP", "::1", 2),
                UNIXAddress(os.fsencode(path)),
            ),
        )

    def test_checkedWithoutReactor(self) -> None:
        """
        Addresses are checked without importing the reactor, which would prevent the program from
        installing another one.
        """
        self.patch(builder_module, "global_reactor", lambda: self.fail("used the reactor"))
        TcpBuilder().listen_address("unix:/run/x.sock").listen_address("tcp6:5000")

    def test_badReactor(self) -> None:
        for wrong in ("127.0.0.1:5000", ExporterSettings()):
            with self.assertRaisesRegex(TypeError, "^reactor must be a Twisted reactor, not "):
                TcpBuilder(wrong)

    def test_bufferSize(self) -> None:
        recorder = self.successResultOf(self.builder.buffer_size(3).build())
        self.record(recorder, 100)
        self.assertEqual(recorder.stats().waiting, 3)

    def test_unbounded(self) -> None:
        recorder = self.successResultOf(self.builder.buffer_size(None).build())
        self.record(recorder, 50_000)
        self.assertEqual(recorder.stats().dropped_incoming, 0)

    def test_deadAfter(self) -> None:
        """A client that takes no data for C{dead_after} seconds is aborted."""
        recorder = self.successResultOf(self.builder.dead_after(5.0).build())
        client = self.connect()
        self.record(recorder, 1000)
        self.reactor.settle()
        self.reactor.advance(4.9)
        self.assertFalse(client.aborted)
        self.reactor.advance(0.2)
        self.assertTrue(client.aborted)
        self.assertRaises(ValueError, self.builder.dead_after, 0)

    def test_deadAfterNever(self) -> None:
        recorder = self.successResultOf(self.builder.dead_after(5.0).dead_after(None).build())
        client = self.connect()
        self.record(recorder, 1000)
        self.reactor.settle()
        self.reactor.advance(100_000)
        self.assertFalse(client.aborted)

    def test_flushTimeout(self) -> None:
        """When the exporter stops, a client is aborted after the timeout."""
        recorder = self.successResultOf(self.builder.flush_timeout(7).build())
        client = self.connect()
        self.record(recorder, 1000)
        self.reactor.settle()
        recorder.stop()
        self.reactor.advance(6.9)
        self.assertFalse(client.aborted)
        self.reactor.advance(0.2)
        self.assertTrue(client.aborted)
        with self.assertRaisesRegex(ValueError, "flush_timeout must be at least 0, not -1"):
            self.builder.flush_timeout(-1)

    def test_badBufferSizeChangesNothing(self) -> None:
        self.assertRaises(ValueError, self.builder.buffer_size(3).buffer_size, 0)
        recorder = self.successResultOf(self.builder.build())
        self.record(recorder, 100)
        self.assertEqual(recorder.stats().waiting, 3)

    def connect(self) -> PausingTransport:
        """Return a client that takes almost no data until it drains."""
        [port] = self.reactor.listening
        client = PausingTransport(limit=100)
        client.connect(port.factory.buildProtocol(client.getPeer()))
        return client

    def record(self, recorder: TcpRecorder, events: int) -> None:
        """
        Record events for a client, in another thread: this thread may be the reactor thread, if an
        earlier test has run the real reactor.
        """
        [port] = self.reactor.listening
        FakeClient(port.factory)
        self.reactor.settle()
        counter = recorder.counter("c")

        def record() -> None:
            for _ in range(events):
                counter.increment()

        thread = threading.Thread(target=record)
        thread.start()
        thread.join()

    def test_service(self) -> None:
        """`service` returns a service that does not listen yet."""
        service = self.builder.listen_address(1).service()
        self.assertEqual(self.reactor.ports, [])
        service.privilegedStartService()
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1"])

    def test_usedTwice(self) -> None:
        """Each use of a builder makes another exporter."""
        self.builder.listen_address(0)
        first = self.successResultOf(self.builder.build())
        second = self.successResultOf(self.builder.build())
        self.assertIsNot(first, second)
        self.assertEqual(len(self.reactor.listening), 2)


class BuildTests(BuilderTestCase):
    def test_listens(self) -> None:
        """The Deferred fires when the exporter listens; the global recorder does not change."""
        endpoint = self.late()
        before = current_recorder()
        building = self.builder.build()
        self.assertNoResult(building)
        endpoint.succeed()
        recorder = self.successResultOf(building)
        self.assertIsInstance(recorder, TcpRecorder)
        self.assertEqual(len(recorder.addresses), 1)
        self.assertIs(current_recorder(), before)

    def test_fails(self) -> None:
        self.reactor.taken.add("127.0.0.1:2")
        building = self.builder.listen_address(1).listen_address(2).build()
        self.reactor.settle()
        failure = self.failureResultOf(building, ListenError)
        self.assertIn("127.0.0.1:2: [Errno 98] Address already in use", str(failure.value))
        self.assertEqual(self.reactor.listening, [])

    def test_stop(self) -> None:
        recorder = self.successResultOf(self.builder.build())
        stopped = recorder.stop()
        self.reactor.settle()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.listening, [])
        self.assertEqual(recorder.addresses, ())


class InstallTests(BuilderTestCase):
    def test_global(self) -> None:
        early = counter("early")
        describe_counter("early", "count", "x")
        recorder = self.successResultOf(self.builder.install())
        self.assertIs(current_recorder(), recorder)
        [port] = self.reactor.listening
        client = FakeClient(port.factory)
        early.increment()
        counter("late").increment()
        reader = client.read_all(self.reactor)
        self.assertEqual((reader.values("early"), reader.values("late")), ([1], [1]))
        self.assertEqual(reader.metadata[0].name, "early")

    def test_globalBeforeListening(self) -> None:
        """Events recorded before the exporter listens are counted."""
        endpoint = self.late()
        early = counter("early")
        installing = self.builder.install()
        early.increment()
        counter("late").increment(2)
        endpoint.succeed()
        recorder = self.successResultOf(installing)
        self.assertIs(current_recorder(), recorder)
        totals = {key.name: total for key, total in recorder.snapshot().items()}
        self.assertEqual(totals, {"early": 1, "late": 2})

    def test_uninstalled(self) -> None:
        """If listening fails, another recorder may be installed, and existing handles use it."""
        self.reactor.taken.add("127.0.0.1:5000")
        early = counter("early")
        self.failureResultOf(self.builder.install(), ListenError)
        another = ListRecorder()
        set_global_recorder(another)
        early.increment()
        self.assertEqual(len(another.take()), 1)

    def test_stop(self) -> None:
        """After C{stop}, another recorder may be installed, at once."""
        recorder = self.successResultOf(self.builder.install())
        handle = counter("c")
        stopped = recorder.stop()
        second = self.successResultOf(self.builder.listen_address(1).install())
        handle.increment()
        self.assertEqual([*second.snapshot().values()], [1])
        self.reactor.settle()
        self.successResultOf(stopped)
        self.assertIs(current_recorder(), second)
        # Further calls have no effect on the second recorder.
        recorder.stop()
        self.assertIs(current_recorder(), second)

    def test_uninstalledLate(self) -> None:
        endpoint = self.late()
        installing = self.builder.install()
        installed = current_recorder()
        during = counter("during")
        endpoint.fail(RuntimeError("no port for you"))
        failure = self.failureResultOf(installing, ListenError)
        self.assertEqual(str(failure.value), "Couldn't listen: no port for you")
        self.assertIsNot(current_recorder(), installed)
        during.increment()

    def test_tryAgain(self) -> None:
        self.reactor.taken.add("127.0.0.1:5000")
        self.failureResultOf(self.builder.install(), ListenError)
        recorder = self.successResultOf(self.builder.listen_address(1).install())
        self.assertIs(current_recorder(), recorder)

    def test_second(self) -> None:
        """A second recorder is rejected at once; the first one continues."""
        first = self.successResultOf(self.builder.listen_address(1).install())
        error = self.assertRaises(
            RecorderInstalledError, TcpBuilder(self.reactor).listen_address(2).install
        )
        self.assertIn("TcpRecorder", str(error))
        self.assertIs(current_recorder(), first)
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1"])

    def test_secondWhileFirstListens(self) -> None:
        """A second recorder is rejected even if the first one does not listen yet."""
        endpoint = self.late()
        installing = self.builder.install()
        self.assertRaises(RecorderInstalledError, TcpBuilder(self.reactor).install)
        endpoint.succeed()
        self.successResultOf(installing)
