"""
Receiving StatsD: the receiver, the protocols and the service.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionLost
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.listening import FakePort, ListeningReactor
from tests.logs import log_lines
from tests.recorders import GlobalRecorderTestCase, ListRecorder
from txmetrics_tcp import EndpointError, ListenError, Operation, set_global_recorder
from txmetrics_tcp._net import listening, log_throttle
from txmetrics_tcp._net.datagrams import RECEIVE_BUFFER
from txmetrics_tcp._net.unix import MAX_PATH
from txmetrics_tcp.bridges import statsd
from txmetrics_tcp.bridges._statsd_endpoints import DatagramEndpoint, statsd_endpoint
from txmetrics_tcp.bridges._statsd_lines import REASONS
from txmetrics_tcp.bridges.statsd import (
    MAX_LINE,
    StatsDFactory,
    StatsDProtocol,
    StatsDReceiver,
    StatsDService,
)
from txmetrics_tcp.testing import FakeReactor, PausingTransport

INCREMENT = Operation.INCREMENT_COUNTER


class DatagramReactor(ListeningReactor):
    """A reactor that also listens for datagrams."""

    def listenUDP(
        self, port: int, protocol: DatagramProtocol, interface: str = "", maxPacketSize: int = 8192
    ) -> FakePort:
        if f"{interface}:{port}" in self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        return self.listen(IPv4Address("UDP", interface, port), protocol)  # type: ignore[arg-type]

    def listenUNIXDatagram(
        self, address: str, protocol: DatagramProtocol, maxPacketSize: int = 8192, mode: int = 0o666
    ) -> FakePort:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            made.bind(address)
        os.chmod(address, mode)
        return self.listen(UNIXAddress(address), protocol)  # type: ignore[arg-type]


class StatsDTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = DatagramReactor()
        self.recorder = ListRecorder()
        self.logged = log_lines(self, statsd, log_throttle, listening)

    def events(self) -> list[tuple[str, Operation | None, object]]:
        """Return the recorded events, without the receiver's own metrics."""
        return [one for one in self.recorder.take() if not one[0].startswith("txmetrics_")]

    def own(self, receiver: StatsDReceiver) -> dict[str, object]:
        """Return what the receiver publishes of itself, without zeros."""
        self.recorder.entries.clear()
        receiver.publish()
        return {
            name.removeprefix("txmetrics_statsd_"): value
            for name, _, value in self.recorder.take()
            if name.startswith("txmetrics_") and value
        }

    def receiver(self, **options: Any) -> StatsDReceiver:
        return StatsDReceiver(self.reactor, self.recorder, **options)


class ReceiverTests(StatsDTestCase):
    def test_publish(self) -> None:
        """Own metrics begin with zero, and only changes are recorded."""
        receiver = self.receiver()
        receiver.publish()
        names = [name for name, _, _ in self.recorder.take()]
        for reason in REASONS:
            self.assertIn(f"txmetrics_statsd_refused_total [reason = {reason}]", names)
        receiver.datagram(b"a:1|c\nb:1|c\nbad")
        receiver.complete_lines(b"a:1|c\n")
        self.assertEqual(
            self.own(receiver),
            {
                "lines_total": 4,
                "datagrams_total": 1,
                "refused_total [reason = format]": 1,
                "series": 2.0,
            },
        )
        receiver.datagram(b"a:1|c")
        self.assertEqual(self.own(receiver), {"lines_total": 1, "datagrams_total": 1})
        receiver.publish()
        self.assertEqual(self.recorder.take(), [])

    def test_described(self) -> None:
        self.receiver()
        self.assertEqual(
            {one.name for one in self.recorder.described}, {one.name for one in statsd.METADATA}
        )

    def test_logged(self) -> None:
        """The first refused line of each reason is logged, then a number."""
        receiver = self.receiver()
        for line in b"bad", b"worse", b"a:x|c":
            receiver.datagram(line)
        self.assertEqual(
            self.logged,
            [
                "Rejected StatsD line b'bad': it is not NAME:VALUE|TYPE",
                "Rejected StatsD line b'a:x|c': its value is not a number, or out of range",
            ],
        )
        self.logged.clear()
        receiver.close()
        self.assertEqual(
            self.logged,
            ["Rejected 1 more StatsD line: it is not NAME:VALUE|TYPE; the last was b'worse'"],
        )
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_reasons(self) -> None:
        """There is a text for each reason that is logged so."""
        self.assertEqual(set(REASONS) - set(statsd._REASON_TEXTS), {"address", "negative"})

    def test_negative(self) -> None:
        """Falling counters are logged once a name, for a limited number of names."""
        receiver = self.receiver()
        for _ in range(2):
            receiver.datagram(b"a:-1|c\nb:-1|c|#x:y")
        self.assertEqual(len(self.logged), 2)
        self.assertIn("b'a:-1|c': a counter cannot fall", self.logged[0])
        for number in range(200):
            receiver.datagram(b"c%d:-1|c" % number)
        self.assertEqual(len(self.logged), 100)

    def test_failed(self) -> None:
        """An error of a recorder is logged, and does not leave the protocol."""
        protocol = StatsDProtocol(self.receiver())
        self.patch(self.recorder, "attach", mock.Mock(side_effect=RuntimeError("no series today")))
        protocol.datagramReceived(b"a:1|c", ("127.0.0.1", 1))
        self.assertEqual(self.logged, ["Rejected StatsD line b'a:1|c': recording failed"])

    def test_arguments(self) -> None:
        self.assertRaises(TypeError, StatsDReceiver, None)
        self.assertRaises(TypeError, StatsDReceiver, self.reactor, "recorder")
        self.assertRaises(ValueError, self.receiver, max_series=0)
        self.assertRaises(ValueError, self.receiver, prefix="\ud800")
        self.assertRaises(ValueError, self.receiver, prefix="x" * 64_000)
        self.assertRaises(TypeError, self.receiver, prefix=1)


class DroppedTests(StatsDTestCase):
    """Datagrams that the kernel drops."""

    def setUp(self) -> None:
        super().setUp()
        self.opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.opened.close)
        self.dropped = 0
        self.patch(statsd, "dropped_datagrams", lambda opened: self.dropped)

    def test_published(self) -> None:
        """Those of each socket since it was opened count; the kernel's counter wraps."""
        receiver = self.receiver()
        self.dropped = 2**32 - 2
        receiver.add_socket(self.opened)
        self.assertEqual(self.own(receiver), {})
        self.dropped = 3
        self.assertEqual(self.own(receiver), {"dropped_datagrams_total": 5})
        self.dropped = 4
        receiver.remove_socket(self.opened)
        self.dropped = 9
        self.assertEqual(self.own(receiver), {"dropped_datagrams_total": 1})
        receiver.remove_socket(self.opened)

    def test_logged(self) -> None:
        receiver = self.receiver()
        receiver.add_socket(self.opened)
        line = "The kernel has dropped {} StatsD datagrams, because the receive buffer was full"
        for self.dropped in 1, 3, 6:
            receiver.publish()
        self.assertEqual(self.logged, [line.format(1)])
        self.reactor.advance(log_throttle.INTERVAL)
        receiver.publish()
        self.assertEqual(self.logged[1:], [line.format(5)])
        self.dropped = 7
        receiver.close()
        self.assertEqual(self.logged[2:], [line.format(1)])

    def test_receiveBuffer(self) -> None:
        """The size is logged if it is smaller than requested."""
        for size, lines in ((RECEIVE_BUFFER, 0), (212_992, 1)):
            protocol = StatsDProtocol(self.receiver())
            protocol.transport = mock.Mock(socket=self.opened)
            protocol.transport.getHost.return_value = IPv4Address("UDP", "127.0.0.1", 8125)
            with mock.patch.object(statsd, "request_receive_buffer", return_value=size):
                protocol.startProtocol()
            protocol.stopProtocol()
            self.assertEqual(len(self.logged), lines)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
            protocol = StatsDProtocol(self.receiver())
            protocol.transport = mock.Mock(socket=opened)
            with mock.patch.object(statsd, "request_receive_buffer", return_value=0):
                protocol.startProtocol()
            protocol.stopProtocol()
        self.assertEqual(len(self.logged), 1)
        self.assertIn("udp:127.0.0.1:8125 has 212992 bytes instead of 4194304", self.logged[0])


class ProtocolTests(StatsDTestCase):
    def test_allow(self) -> None:
        """Datagrams from other networks are counted, not recorded; UNIX sockets have none."""
        receiver = self.receiver()
        protocol = StatsDProtocol(receiver, ["192.0.2.0/24", "::1"])
        for address in (
            *(("192.0.2.7", 1), ("::1", 1), ("192.0.2.7", 2)),
            *(("198.51.100.1", 1), ("::2", 1), ("198.51.100.1", 1)),
            *(None, "", b"/run/x.sock"),
        ):
            protocol.datagramReceived(b"a:1|c", address)
        self.assertEqual(len(self.events()), 6)
        self.assertEqual(self.own(receiver)["refused_total [reason = address]"], 3)
        self.assertEqual(len(self.logged), 1)
        self.assertIn("Rejected StatsD client 198.51.100.1: address not allowed", self.logged[0])

    def test_manyHosts(self) -> None:
        protocol = StatsDProtocol(self.receiver(), ["192.0.2.0/24"])
        for number in range(5000):
            host = f"10.0.{number // 256}.{number % 256}"
            protocol.datagramReceived(b"a:1|c", (host, 1))
        self.assertLessEqual(len(protocol._hosts), 1000)

    def test_badNetwork(self) -> None:
        self.assertRaises(ValueError, StatsDProtocol, self.receiver(), ["here"])
        self.assertRaises(ValueError, StatsDFactory, self.reactor, self.receiver(), ["here"])


class FactoryTests(StatsDTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.receiver_ = self.receiver()
        self.factory = StatsDFactory(self.reactor, self.receiver_, ["127.0.0.0/8"])

    def connect(self, host: str = "127.0.0.1") -> PausingTransport:
        transport = PausingTransport(peer=IPv4Address("TCP", host, 1))
        transport.connect(self.factory.buildProtocol(transport.getPeer()))
        return transport

    def test_lines(self) -> None:
        """Lines may arrive in any pieces."""
        data = b"a:1|c\nb:22|g\r\n\nc:3|ms|#x:y\n"
        for size in range(1, len(data) + 1):
            transport = self.connect()
            for start in range(0, len(data), size):
                transport.receive(data[start : start + size])
            self.assertEqual([one[2] for one in self.events()], [1, 22.0, 3.0], size)

    def test_lastLine(self) -> None:
        """A line without an end counts if the client has closed the connection in order."""
        for reason, events in ((ConnectionDone(), 1), (ConnectionLost(), 0)):
            transport = self.connect()
            transport.receive(b"a:1|c")
            self.assertEqual(self.events(), [])
            transport.lose(Failure(reason))
            self.assertEqual(len(self.events()), events)

    def test_longLine(self) -> None:
        """A client is disconnected when a line becomes too long."""
        for end in b"", b"\na:1|c\n":
            transport = self.connect()
            transport.receive(b"a:1|c\n" + b"x" * MAX_LINE)
            self.assertFalse(transport.aborted)
            self.assertEqual(len(self.events()), 1)
            transport.receive(b"x" + end)
            self.assertTrue(transport.aborted)
            self.assertEqual(self.events(), [])
        self.assertEqual(self.own(self.receiver_)["refused_total [reason = size]"], 2)

    def test_readSize(self) -> None:
        """One connection among many does not take long in a reactor iteration."""
        transport = PausingTransport(peer=IPv4Address("TCP", "127.0.0.1", 1))
        transport.bufferSize = 2**16  # type: ignore[attr-defined]
        transport.connect(self.factory.buildProtocol(transport.getPeer()))
        self.assertLess(transport.bufferSize, 2**14)  # type: ignore[attr-defined]

    def test_keepalive(self) -> None:
        """The kernel probes idle connections, so that dead clients do not count for long."""
        probed: list[object] = []
        self.patch(statsd, "is_over_tcp", lambda transport: True)
        self.patch(statsd, "probe_when_idle", probed.append)
        self.assertEqual(probed, [self.connect()])

    def test_rejected(self) -> None:
        self.assertTrue(self.connect("192.0.2.1").aborted)
        self.assertEqual(len(self.logged), 1)
        self.assertIn("Rejected StatsD client 192.0.2.1:1: address not allowed", self.logged[0])

    def test_limit(self) -> None:
        self.patch(statsd, "MAX_CONNECTIONS", 2)
        self.factory = StatsDFactory(self.reactor, self.receiver_)
        first, second, third = (self.connect() for _ in range(3))
        self.assertEqual([one.aborted for one in (first, second, third)], [False, False, True])
        first.lose()
        self.assertFalse(self.connect().aborted)

    def test_stop(self) -> None:
        transport = self.connect()
        stopped = self.factory.stop()
        self.assertTrue(transport.aborted)
        self.assertTrue(self.connect().aborted)
        self.assertNoResult(stopped)
        transport.drain()
        self.successResultOf(stopped)
        self.factory.startFactory()
        self.assertFalse(self.connect().aborted)


class EndpointTests(SynchronousTestCase):
    def parsed(self, endpoint: Any) -> Any:
        return statsd_endpoint(FakeReactor(), endpoint)

    def test_udp(self) -> None:
        for endpoint, host, port in (
            (8125, "127.0.0.1", 8125),
            ("8125", "127.0.0.1", 8125),
            ("udp:8125", "127.0.0.1", 8125),
            ("udp:[::1]:1", "::1", 1),
            ("0.0.0.0:1", "0.0.0.0", 1),
            ("localhost:1", "localhost", 1),
            (("192.0.2.1", 2), "192.0.2.1", 2),
        ):
            self.assertEqual(self.parsed(endpoint), DatagramEndpoint(host, port))

    def test_unix(self) -> None:
        for endpoint, path, mode in (
            ("unixgram:/run/s.sock", "/run/s.sock", 0o600),
            ("unixgram:/run/s.sock:mode=0666", "/run/s.sock", 0o666),
            (Path("/run/a:b"), "/run/a:b", 0o600),
        ):
            self.assertEqual(self.parsed(endpoint), DatagramEndpoint(path=path, mode=mode))

    def test_tcp(self) -> None:
        for endpoint, port, interface in (
            ("tcp:127.0.0.1:8125", 8125, "127.0.0.1"),
            ("tcp:[::1]:1", 1, "::1"),
            ("tcp:8125:interface=127.0.0.1", 8125, "127.0.0.1"),
            ("tcp:8125", 8125, ""),
        ):
            made = self.parsed(endpoint)
            self.assertEqual((made._port, made._interface), (port, interface))
            self.assertIs(self.parsed(made), made)

    def test_rejected(self) -> None:
        for endpoint in (
            *("", "localhost", "::1", "udp:", "udp:70000", "70000", "tcp:127.0.0.1:70000"),
            *("unixgram:", "unixgram:x:mode=9", "unixgram:" + "x" * (MAX_PATH + 1), "no:such:one"),
            *("udp:localhost", "udp:unix:/x", Path("x" * 200)),
        ):
            error = self.assertRaises(EndpointError, self.parsed, endpoint)
            self.assertNotIn("5000", str(error))
        self.assertRaises(TypeError, self.parsed, None)


class ServiceTests(StatsDTestCase):
    def service(self, *endpoints: Any, **options: Any) -> StatsDService:
        return StatsDService(self.reactor, self.recorder, endpoints, **options)

    def test_listens(self) -> None:
        service = self.service("1", "tcp:127.0.0.1:2")
        self.assertEqual(self.reactor.ports, [])
        service.privilegedStartService()
        service.startService()
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1", "127.0.0.1:2"])
        self.assertEqual([address.type for address in service.addresses], ["UDP", "TCP"])
        self.assertEqual(
            self.logged,
            ["Receiving StatsD on udp:127.0.0.1:1", "Receiving StatsD on 127.0.0.1:2"],
        )
        stopped = service.stopService()
        self.reactor.settle()
        self.successResultOf(stopped)
        self.assertEqual((self.reactor.listening, service.addresses), ([], ()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_default(self) -> None:
        StatsDService(self.reactor, self.recorder).startService()
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:8125"])

    def test_timers(self) -> None:
        """Own metrics are published each second, sets are counted in each flush interval."""
        service = self.service("1", flush=2.5)
        service.startService()
        protocol: Any = self.reactor.ports[0].factory
        self.recorder.entries.clear()
        protocol.datagramReceived(b"u:a|s", ("127.0.0.1", 1))
        self.reactor.advance(1)
        self.assertEqual(
            sorted(self.recorder.take())[0], ("txmetrics_statsd_datagrams_total", INCREMENT, 1)
        )
        self.reactor.advance(1)
        self.assertEqual(self.events(), [])
        self.reactor.advance(0.5)
        self.assertEqual(self.events(), [("u", Operation.SET_GAUGE, 1.0)])

    def test_flushedAtStop(self) -> None:
        """What is pending is recorded at once when the service stops."""
        service = self.service("1")
        service.startService()
        protocol: Any = self.reactor.ports[0].factory
        protocol.datagramReceived(b"u:a|s", ("127.0.0.1", 1))
        service.stopService()
        recorded = self.recorder.take()
        self.assertIn(("u", Operation.SET_GAUGE, 1.0), recorded)
        self.assertIn(("txmetrics_statsd_lines_total", INCREMENT, 1), recorded)

    def test_exposed(self) -> None:
        """Other machines can send only if their networks are named."""
        for endpoint in "0.0.0.0:1", "tcp:0.0.0.0:1":
            service = self.service("127.0.0.1:3", endpoint)
            error = self.assertRaises(ListenError, service.startService)
            self.assertIn("0.0.0.0:1 would accept metrics from any client", str(error))
            self.reactor.settle()
            self.assertEqual(self.reactor.listening, [])
        self.logged.clear()
        self.service("0.0.0.0:1", allow=["192.0.2.0/24"]).startService()
        self.assertEqual(
            self.logged[1],
            "Any client in 192.0.2.0/24 with network access to this machine can send metrics on"
            " udp:0.0.0.0:1",
        )

    def test_inUse(self) -> None:
        """If one endpoint fails, none listens."""
        self.reactor.taken.add("127.0.0.1:2")
        service = self.service("tcp:127.0.0.1:3", "1", "2")
        error = self.assertRaises(ListenError, service.privilegedStartService)
        self.assertIn("Couldn't listen on 127.0.0.1:2: ", str(error))
        self.reactor.settle()
        self.assertEqual(self.reactor.listening, [])

    def test_unix(self) -> None:
        """The socket file has its mode; a stale one is replaced, and only the own one removed."""
        path = os.path.relpath(self.mktemp())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
            stale.bind(path)
        service = self.service(f"unixgram:{path}:mode=640")
        service.startService()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)
        service.stopService()
        self.assertFalse(os.path.exists(path))
        self.reactor.settle()
        service.startService()
        other = Path(self.mktemp())
        other.touch()
        other.replace(path)
        service.stopService()
        self.assertTrue(os.path.exists(path))
        self.reactor.settle()
        self.assertRaises(ListenError, self.service(f"unixgram:{path}").startService)

    def test_forked(self) -> None:
        """A forked child does not remove the socket file of its parent."""
        path = os.path.relpath(self.mktemp())
        service = self.service(f"unixgram:{path}")
        service.startService()
        with mock.patch.object(os, "getpid", return_value=1):
            service.stopService()
        self.assertTrue(os.path.exists(path))

    def test_arguments(self) -> None:
        for error, options in (
            (TypeError, {"endpoints": "8125"}),
            (TypeError, {"endpoints": 8125}),
            (EndpointError, {"endpoints": ["nowhere"]}),
            (ValueError, {"flush": 0}),
            (ValueError, {"max_series": 0}),
            (ValueError, {"allow": ["here"]}),
        ):
            self.assertRaises(error, StatsDService, self.reactor, self.recorder, **options)


class GlobalTests(GlobalRecorderTestCase):
    def test_recorder(self) -> None:
        """Without a recorder, the program's is used, also if it is installed later."""
        receiver = StatsDReceiver(FakeReactor())
        set_global_recorder(self.recorder)
        receiver.datagram(b"a:1|c")
        self.assertEqual(self.recorder.take(), [("a", INCREMENT, 1)])
