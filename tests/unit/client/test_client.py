"""
The client protocol and the reconnecting client service.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    getConnectError,
)
from twisted.internet.interfaces import ITCPTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from tests.connecting import FakeEndpoint, NamesReactor
from tests.wire_cases import CASES, increment, seen
from txmetrics_tcp import (
    Event,
    Metadata,
    Metric,
    MetricKind,
    MetricsFactory,
    StreamError,
    encode_metric,
)
from txmetrics_tcp._client import protocol, service
from txmetrics_tcp._client.protocol import MetricsClientFactory, MetricsClientProtocol
from txmetrics_tcp._client.service import (
    ACCEPTANCE,
    MAX_DELAY,
    Connected,
    Connecting,
    ConnectionState,
    Disconnected,
    MetricsClientService,
    Waiting,
)
from txmetrics_tcp._net.endpoints import client_endpoint
from txmetrics_tcp.testing import FakeReactor, PausingTransport

reactor: Any = _reactor

GARBAGE = b"\x05hello"


def frame(n: int) -> bytes:
    return encode_metric(increment(n))


class ProtocolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.received: list[Event] = []
        self.lost: list[Failure] = []
        self.transport = PausingTransport()

    def connect(
        self, received: Callable[[Event], object] | None = None, **options: int
    ) -> MetricsClientProtocol:
        factory = MetricsClientFactory(
            received or self.received.append,
            lost=lambda protocol, reason: self.lost.append(reason),
            **options,
        )
        protocol = factory.buildProtocol(self.transport.getPeer())
        self.transport.connect(protocol)
        return protocol

    def reason(self) -> str:
        (reason,) = self.lost
        return reason.getErrorMessage()

    def test_everyCase(self) -> None:
        """Events of every kind are passed on, even if the stream arrives byte by byte."""
        self.connect()
        for case in CASES:
            for byte in case.frame:
                self.transport.receive(bytes([byte]))
        expected = [case.event for case in CASES if case.event is not None]
        self.assertEqual(seen(self.received), seen(expected))
        self.assertEqual(self.lost, [])

    def test_immediate(self) -> None:
        """An event is passed on and counted when its last byte arrives."""
        protocol = self.connect()
        self.transport.receive(frame(1)[:-1])
        self.assertEqual(self.received, [])
        self.assertEqual(protocol.events, 0)
        self.transport.receive(frame(1)[-1:] + frame(2) + frame(3)[:3])
        self.assertEqual(self.received, [increment(1), increment(2)])
        self.assertEqual(protocol.events, 2)

    def test_batches(self) -> None:
        """`received_many` is called with the events of each read."""
        batches: list[list[Event]] = []
        factory = MetricsClientFactory(received_many=batches.append)
        protocol = factory.buildProtocol(None)
        self.transport.connect(protocol)
        self.transport.receive(frame(1) + frame(2) + frame(3)[:4])
        self.transport.receive(frame(3)[4:-1])
        self.assertEqual(batches, [[increment(1), increment(2)]])
        self.transport.receive(frame(3)[-1:] + b"\0")
        self.transport.receive(b"\0")
        self.assertEqual(batches[1:], [[increment(3)]])
        self.assertEqual(protocol.events, 3)

    def test_batchBeforeError(self) -> None:
        """Events before invalid data are passed on before `lost` is called."""
        calls: list[object] = []
        factory = MetricsClientFactory(
            received_many=calls.append, lost=lambda protocol, reason: calls.append(reason.type)
        )
        self.transport.connect(factory.buildProtocol(None))
        self.transport.receive(frame(1) + frame(2) + GARBAGE + frame(3))
        self.transport.drain()
        self.assertEqual(calls, [[increment(1), increment(2)], StreamError])

    def test_closeBeforeError(self) -> None:
        """After `close`, invalid data received earlier is not reported."""
        protocol = self.connect(lambda event: protocol.close())
        self.transport.receive(frame(1) + GARBAGE)
        self.transport.drain()
        self.assertIn("aborted", self.reason().lower())

    def test_oneCallback(self) -> None:
        """Exactly one of the two callbacks is required."""
        for make in (
            MetricsClientProtocol,
            MetricsClientFactory,
            partial(MetricsClientService, FakeReactor(), 5000),
        ):
            with self.assertRaisesRegex(TypeError, "exactly one of received and received_many"):
                make()
            with self.assertRaisesRegex(TypeError, "exactly one of received and received_many"):
                make(self.received.append, received_many=self.received.extend)

    def test_idleFrames(self) -> None:
        """Empty frames, with which a server tests the connection, are not events."""
        protocol = self.connect()
        self.transport.receive(b"\0\0\0")
        self.assertEqual(protocol.events, 0)
        self.assertEqual(self.lost, [])

    def test_closed(self) -> None:
        """When the connection ends, `lost` receives the transport's reason."""
        self.connect()
        self.transport.receive(frame(1))
        self.transport.lose(ConnectionDone())
        (reason,) = self.lost
        self.assertIsInstance(reason.value, ConnectionDone)

    def test_endsWithinAFrame(self) -> None:
        """A clean close within a frame is reported as a lost connection."""
        self.connect()
        self.transport.receive(frame(1) + frame(2)[:5])
        self.transport.end_of_file()
        (reason,) = self.lost
        self.assertIsInstance(reason.value, ConnectionLost)
        self.assertIn("the stream ends within a frame, after 5 bytes of it", self.reason())

    def test_lostWithinAFrame(self) -> None:
        """If the connection is lost within a frame because of an error, the error is reported."""
        self.connect()
        self.transport.receive(frame(1)[:5])
        self.transport.lose(ConnectionRefusedError())
        (reason,) = self.lost
        self.assertIsInstance(reason.value, ConnectionRefusedError)

    def test_notAStream(self) -> None:
        """Invalid data closes the connection, with a `StreamError` as the reason."""
        self.connect()
        self.transport.receive(frame(1) + GARBAGE + frame(2))
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.lost, [])
        self.transport.drain()
        (reason,) = self.lost
        self.assertIsInstance(reason.value, StreamError)
        self.assertIn(
            "not a metrics stream: a frame of 5 bytes is not a valid event", self.reason()
        )
        self.assertEqual(self.received, [increment(1)])

    def test_dataAfterError(self) -> None:
        """Data delivered after invalid data is ignored."""
        protocol = self.connect()
        self.transport.receive(GARBAGE)
        protocol.dataReceived(frame(1))
        protocol.dataReceived(GARBAGE)
        self.transport.drain()
        self.assertEqual(self.received, [])
        self.assertEqual(len(self.lost), 1)

    def test_maxFrame(self) -> None:
        """A frame above the limit is rejected when its length is received."""
        self.connect(max_frame=12)
        self.transport.receive(frame(1)[:1])
        self.transport.drain()
        self.assertIn("13 bytes exceeds the limit of 12 bytes", self.reason())

    def test_close(self) -> None:
        """
        `close` discards further events, and resets the connection, because after an end of file the
        server would assume that the client still reads.
        """
        received: list[Event] = []

        def enough(event: Event) -> None:
            received.append(event)
            protocol.close()

        protocol = self.connect(enough)
        self.transport.receive(frame(1) + frame(2))
        protocol.dataReceived(frame(3))
        self.assertTrue(self.transport.aborted)
        self.transport.drain()
        self.assertEqual(received, [increment(1)])
        (reason,) = self.lost
        self.assertIsInstance(reason.value, ConnectionAborted)
        protocol.close()
        self.assertEqual(len(self.lost), 1)

    def test_closeWithoutAbort(self) -> None:
        """Transports without `abortConnection` are closed with `loseConnection`."""

        class Plain:
            lost = False

            def loseConnection(self) -> None:
                self.lost = True

        transport = Plain()
        protocol = self.connect()
        protocol.transport = transport  # type: ignore[assignment]
        protocol.dataReceived(frame(1) + GARBAGE)
        self.assertTrue(transport.lost)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIn("not a metrics stream", self.reason())

    def test_closeWithFramesLeft(self) -> None:
        """Frames left after `close` do not count as a truncated stream."""
        protocol = self.connect(lambda event: protocol.close())
        self.transport.receive(frame(1) + frame(2))
        self.transport.lose(ConnectionDone())
        (reason,) = self.lost
        self.assertIsInstance(reason.value, ConnectionDone)

    def test_callbackFails(self) -> None:
        """An exception from the callback propagates to the transport."""
        protocol = self.connect(lambda event: 1 // 0)
        self.assertRaises(ZeroDivisionError, protocol.dataReceived, frame(1))

    def test_keepAlive(self) -> None:
        """The client enables TCP keepalive, since it never writes."""
        kept = []
        self.transport.setTcpKeepAlive = kept.append  # type: ignore[attr-defined]
        directlyProvides(self.transport, ITCPTransport)
        self.connect()
        self.assertEqual(kept, [True])

    def test_connected(self) -> None:
        made: list[MetricsClientProtocol] = []
        factory = MetricsClientFactory(self.received.append, connected=made.append)
        protocol = factory.buildProtocol(None)
        self.assertEqual(made, [])
        self.transport.connect(protocol)
        self.assertEqual(made, [protocol])
        self.assertIs(protocol.factory, factory)

    def test_logged(self) -> None:
        """Without a `lost` callback, invalid data is logged."""
        for data, lines in [(GARBAGE, ["Disconnected from 127.0.0.1:54321:"]), (frame(1), [])]:
            transport = PausingTransport()
            transport.connect(MetricsClientFactory(self.received.append).buildProtocol(None))
            with capturedLogs() as logs:
                transport.receive(data)
                transport.drain()
                transport.lose()
            self.assertEqual([formatEvent(event)[:34] for event in logs], lines)
            self.assertEqual({event["log_level"] for event in logs} - {LogLevel.error}, set())

    def test_quiet(self) -> None:
        """The factory does not log its start and stop."""
        factory = MetricsClientFactory(self.received.append)
        with capturedLogs() as logs:
            factory.doStart()
            factory.doStop()
        self.assertEqual(logs, [])

    def test_exporter(self) -> None:
        """The client receives the events recorded in an exporter."""
        reactor = FakeReactor()
        server = MetricsFactory(reactor)
        peer = PausingTransport()
        self.connect()
        peer.connect(server.buildProtocol(peer.getPeer()))
        server.recorder.describe_counter("requests_total", "count", "how many")
        server.recorder.counter("requests_total", route="/").increment(3)
        reactor.settle()
        self.transport.receive(peer.drain())
        self.assertIn(
            Metadata(MetricKind.COUNTER, "requests_total", "count", "how many"), self.received
        )
        metrics = [event for event in self.received if isinstance(event, Metric)]
        self.assertEqual(
            [(str(event.key), event.value) for event in metrics],
            [("requests_total [route = /]", 3)],
        )


CLOSED_EARLY = (
    "disconnected the server closed the connection before it sent data: it may reject this address,"
    " have too many clients, or require TLS"
)


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.endpoint = FakeEndpoint()
        self.received: list[Event] = []
        self.states: list[ConnectionState] = []
        self.failures: list[int] = []

    def start(
        self, observer: Callable[[ConnectionState], object] | None = None
    ) -> MetricsClientService:
        """Start a service that waits 10 seconds after the first failure, 20 after the second, …"""

        def wait(failures: int) -> float:
            self.failures.append(failures)
            return failures * 10.0

        service = MetricsClientService(
            self.reactor,
            self.endpoint,
            self.received.append,
            observer=observer or self.states.append,
            retry_policy=wait,
        )
        service.startService()
        return service

    def reported(self) -> list[str]:
        """Return the states reported since the last call, as text."""
        reported = []
        for state in self.states:
            match state:
                case Connecting():
                    reported.append("connecting")
                case Connected(address):
                    reported.append(f"connected {address.host}:{address.port}")  # type: ignore[attr-defined]
                case Disconnected():
                    reported.append(f"disconnected {state}")
                case Waiting(seconds):
                    reported.append(f"waiting {seconds}")
        self.states.clear()
        return reported

    def test_connects(self) -> None:
        self.start()
        self.assertEqual(self.reported(), ["connecting"])
        transport = self.endpoint.succeed()
        self.assertEqual(self.reported(), ["connected 127.0.0.1:54321"])
        transport.receive(frame(1))
        self.assertEqual(self.received, [increment(1)])
        self.assertEqual(self.reported(), [])

    def test_reconnects(self) -> None:
        """After a connection ends, the service waits and connects again."""
        self.start()
        transport = self.endpoint.succeed()
        transport.receive(frame(1))
        transport.lose(ConnectionDone())
        self.assertEqual(
            self.reported()[2:], ["disconnected Connection was closed cleanly", "waiting 10.0"]
        )
        self.reactor.advance(9.9)
        self.assertEqual(self.reported(), [])
        self.reactor.advance(0.1)
        self.assertEqual(self.reported(), ["connecting"])
        self.endpoint.succeed().receive(frame(2))
        self.assertEqual(self.received, [increment(1), increment(2)])

    def test_consecutiveFailures(self) -> None:
        """Each failed attempt and each connection without events counts as a failure."""
        self.start()
        self.endpoint.fail(ConnectionRefusedError())
        self.reactor.advance(10)
        self.endpoint.fail(OSError(24, "Too many open files"))
        self.reactor.advance(20)
        self.endpoint.succeed().lose(ConnectionDone())
        self.reactor.advance(30)
        self.endpoint.succeed().lose(ConnectionLost())
        self.assertEqual(self.failures, [1, 2, 3, 4])
        self.assertEqual(
            [line for line in self.reported() if line.startswith("disconnected")],
            [
                "disconnected Connection was refused by other side",
                "disconnected [Errno 24] Too many open files",
                CLOSED_EARLY,
                CLOSED_EARLY,
            ],
        )

    def test_systemError(self) -> None:
        """The message contains the operating system's error text."""
        self.start()
        self.endpoint.fail(getConnectError(OSError(2, "No such file or directory")))
        self.assertRegex(self.reported()[1], "^disconnected .*No such file or directory$")

    def test_failuresReset(self) -> None:
        """A connection that delivered an event resets the number of failures."""
        self.start()
        self.endpoint.fail(ConnectionRefusedError())
        self.reactor.advance(10)
        self.endpoint.fail(ConnectionRefusedError())
        self.reactor.advance(20)
        transport = self.endpoint.succeed()
        transport.receive(frame(1))
        transport.lose()
        self.assertEqual(self.failures, [1, 2, 1])

    def test_idleFramesDoNotReset(self) -> None:
        """Empty frames do not reset the number of failures."""
        self.start()
        self.endpoint.fail(ConnectionRefusedError())
        self.reactor.advance(10)
        transport = self.endpoint.succeed()
        transport.receive(b"\0\0")
        transport.lose()
        self.assertEqual(self.failures, [1, 2])

    def test_anotherKindOfServer(self) -> None:
        """Invalid data is reported, and counts as a failure even after valid events."""
        self.start()
        for attempt in 1, 2:
            transport = self.endpoint.succeed()
            transport.receive(frame(1) + GARBAGE)
            transport.drain()
            _, _, disconnected, waiting = self.reported()
            self.assertIn(
                "disconnected not a metrics stream: a frame of 5 bytes is not a valid event",
                disconnected,
            )
            self.assertEqual(waiting, f"waiting {attempt * 10.0}")
            self.reactor.advance(attempt * 10.0)

    def test_maxFrame(self) -> None:
        service = MetricsClientService(
            self.reactor,
            self.endpoint,
            self.received.append,
            observer=self.states.append,
            max_frame=12,
        )
        service.startService()
        transport = self.endpoint.succeed()
        transport.receive(frame(1))
        transport.drain()
        self.assertIn("the limit of 12 bytes", self.reported()[2])

    def test_endpointRaises(self) -> None:
        """An endpoint that raises counts as a failed attempt."""
        self.endpoint.connect = lambda factory: 1 // 0  # type: ignore[method-assign]
        self.start()
        self.assertEqual(
            self.reported(),
            ["connecting", "disconnected integer division or modulo by zero", "waiting 10.0"],
        )

    def test_errorWithoutText(self) -> None:
        """An error without a text is shown by its class name."""
        self.start()
        self.endpoint.fail(ValueError())
        self.assertEqual(self.reported()[1], "disconnected ValueError")

    def test_stopWhileConnected(self) -> None:
        """The service closes the connection, and does not reconnect."""
        service = self.start()
        transport = self.endpoint.succeed()
        self.reported()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.assertTrue(transport.aborted)
        transport.drain()
        self.successResultOf(stopped)
        self.assertEqual(len(self.reported()), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.failures, [])

    def test_stopWhileConnecting(self) -> None:
        """The service cancels the attempt."""
        service = self.start()
        self.successResultOf(service.stopService())
        self.assertEqual(self.endpoint.cancelled, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stopWhileWaiting(self) -> None:
        """The service cancels the next attempt."""
        service = self.start()
        self.endpoint.fail(ConnectionRefusedError())
        self.successResultOf(service.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.reactor.advance(100)
        self.assertEqual(len(self.endpoint.attempts), 1)

    def test_startAgain(self) -> None:
        service = self.start()
        self.endpoint.fail(ConnectionRefusedError())
        service.stopService()
        service.startService()
        self.endpoint.succeed().receive(frame(1))
        self.assertEqual(self.received, [increment(1)])

    def test_observerFails(self) -> None:
        """Exceptions from the observer are logged, and the service continues."""

        def fail(state: ConnectionState) -> None:
            raise RuntimeError(f"no use for {state}")

        self.start(fail)
        self.endpoint.fail(ConnectionRefusedError())
        self.reactor.advance(10)
        self.endpoint.succeed().receive(frame(1))
        self.assertEqual(self.received, [increment(1)])
        # Connecting, Disconnected, Waiting, Connecting, Connected.
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 5)

    def test_withoutObserver(self) -> None:
        service = MetricsClientService(self.reactor, self.endpoint, self.received.append)
        service.startService()
        self.endpoint.succeed().receive(frame(1))
        self.assertEqual(self.received, [increment(1)])

    def test_defaultPolicy(self) -> None:
        """The delay grows with each failure, up to a limit, and has a random part."""
        delays: list[list[float]] = []
        for _ in range(2):
            endpoint = self.endpoint = FakeEndpoint()
            self.states.clear()
            service = MetricsClientService(
                self.reactor, endpoint, self.received.append, observer=self.states.append
            )
            service.startService()
            for _ in range(20):
                endpoint.fail(ConnectionRefusedError())
                self.reactor.advance(MAX_DELAY + 1)
            delays.append([state.seconds for state in self.states if isinstance(state, Waiting)])
            service.stopService()
        self.assertNotEqual(*delays)
        for waits in delays:
            self.assertEqual(len(waits), 20)
            self.assertTrue(0.5 <= waits[0] < 2, waits)
            self.assertTrue(all(MAX_DELAY <= wait <= MAX_DELAY + 1 for wait in waits[-5:]), waits)
            self.assertLess(waits[2], waits[8])


class AcceptanceTests(SynchronousTestCase):
    """With TLS, the server may reject the client's certificate after the client's handshake."""

    def setUp(self) -> None:
        self.patch(service, "is_tls", lambda transport: True)
        self.patch(protocol, "check_server", lambda transport: None)
        self.reactor = FakeReactor()
        self.endpoint = FakeEndpoint()
        self.seen: list[object] = []
        self.service = MetricsClientService(
            self.reactor,
            self.endpoint,
            self.seen.append,
            observer=lambda state: self.seen.append(type(state)),
        )
        self.service.startService()
        self.transport = self.endpoint.succeed()
        assert self.service._protocol is not None
        self.service._protocol.handshakeCompleted()

    def test_rejected(self) -> None:
        self.assertEqual(self.seen, [Connecting])
        self.transport.lose(ConnectionLost())
        self.assertEqual(self.seen, [Connecting, Disconnected, Waiting])
        self.service.stopService()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """No call is pending after the service has stopped."""
        stopped = self.service.stopService()
        self.transport.lose(ConnectionLost())
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertNotIn(Connected, self.seen)

    def test_data(self) -> None:
        """Data from the server ends the wait, before its events are passed on."""
        self.transport.receive(frame(1) + frame(2)[:1])
        self.transport.receive(frame(2)[1:])
        self.assertEqual(self.seen, [Connecting, Connected, increment(1), increment(2)])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_silence(self) -> None:
        """A server that sends nothing has accepted the client after a while."""
        self.reactor.advance(ACCEPTANCE)
        self.reactor.advance(0)
        self.transport.receive(frame(1))
        self.assertEqual(self.seen, [Connecting, Connected, increment(1)])


class NameTests(SynchronousTestCase):
    """Host names that resolve late, or to several addresses."""

    def test_laterName(self) -> None:
        """A name that does not resolve is looked up again for each attempt."""
        reactor = NamesReactor()
        states: list[ConnectionState] = []
        service = MetricsClientService(
            reactor,
            client_endpoint(reactor, "metrics.example:5000"),
            lambda event: None,
            observer=states.append,
            retry_policy=lambda failures: 1,
        )
        service.startService()
        for _ in range(3):
            reactor.advance(1)
        failed = [state for state in states if isinstance(state, Disconnected)]
        self.assertEqual(len(failed), 4)
        self.assertIn("DNS lookup failed", str(failed[0]))
        self.assertEqual(reactor.connecting, [])

        transport = PausingTransport()
        reactor.nameResolver.addresses.append(transport.getHost())
        reactor.advance(1)
        ((host, port, factory),) = reactor.connecting
        self.assertEqual((host, port), ("127.0.0.1", 5000))
        transport.connect(factory.buildProtocol(transport.getPeer()))
        self.assertEqual(states[-1], Connected(transport.getPeer()))

    def test_stoppedInLookUp(self) -> None:
        """A service that is looking up a name stops at once."""
        reactor = NamesReactor()
        reactor.nameResolver.complete = False
        service = MetricsClientService(reactor, "metrics.example:5000", lambda event: None)
        service.startService()
        self.successResultOf(service.stopService())

    def test_severalAddresses(self) -> None:
        """All IPv4 and IPv6 addresses of a name are tried until one answers."""
        reactor = NamesReactor()
        reactor.nameResolver.addresses = [
            IPv6Address("TCP", "2001:db8::1", 5000),
            IPv4Address("TCP", "192.0.2.1", 5000),
            IPv4Address("TCP", "192.0.2.2", 5000),
        ]
        received: list[Event] = []
        states: list[ConnectionState] = []
        service = MetricsClientService(
            reactor, "metrics.example:5000", received.append, observer=states.append
        )
        service.startService()
        _, _, factory = reactor.connecting[0]
        # The first address refuses the connection, the second does not answer.
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))  # type: ignore[attr-defined]
        reactor.pump([0.3] * 3)
        self.assertEqual(
            [host for host, _, _ in reactor.connecting], ["2001:db8::1", "192.0.2.1", "192.0.2.2"]
        )
        _, _, factory = reactor.connecting[2]
        transport = PausingTransport(peer=IPv4Address("TCP", "192.0.2.2", 5000))
        transport.connect(factory.buildProtocol(transport.getPeer()))
        transport.receive(frame(1))
        self.assertEqual(states, [Connecting(), Connected(transport.getPeer())])
        self.assertEqual(received, [increment(1)])
