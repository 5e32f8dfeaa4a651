"""
Accepted and rejected clients: networks, limits, and clients of other protocols.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import pairwise
from pathlib import Path

from twisted.internet import address as internet
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, IReactorUNIX
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback import LoopbackTestCase, reactor
from tests.reader import FakeClient
from txmetrics_tcp import ExporterSettings, MetricsFactory
from txmetrics_tcp._net.admission import Admission, Network, network
from txmetrics_tcp._net.connection import MAX_RECEIVED
from txmetrics_tcp._net.internals import MAX_ACCEPTS
from txmetrics_tcp._net.log_throttle import RejectionLog
from txmetrics_tcp.testing import FakeReactor


def at(host: str) -> IAddress:
    made = internet.IPv6Address if ":" in host else internet.IPv4Address
    address: IAddress = made("TCP", host, 5)
    return address


def admission_of(
    networks: Sequence[Network] | None = None,
    max_clients: int | None = None,
    max_per_address: int | None = None,
) -> Admission:
    return Admission(networks, max_clients, max_per_address)


class NetworkTests(SynchronousTestCase):
    def test_validNetworks(self) -> None:
        for text, same in (
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ):
            self.assertEqual(network("allow", text), ip_network(same), text)

    def test_objects(self) -> None:
        """Networks and addresses of the standard library are accepted."""
        for text in ("192.0.2.7", "::ffff:192.0.2.7"):
            self.assertEqual(network("allow", ip_address(text)), ip_network("192.0.2.7"))
        for text in ("192.0.2.0/24", "2001:db8::/32", "fe80::%eth0/64"):
            self.assertEqual(network("allow", ip_network(text)), ip_network(text))

    def test_invalid(self) -> None:
        """The error message names the setting, and shows the value and the expected form."""
        form = "expected 192.0.2.0/24, 2001:db8::/32 or an address"
        for text, reason in (
            ("", f"'' is not a network; {form}"),
            ("localhost", f"'localhost' is not a network; {form}"),
            ("10.0.0.1/8", "'10.0.0.1/8' is not a network; did you mean 10.0.0.0/8?"),
            # Without the zone, the network would contain more clients.
            ("fe80::1%eth0/64", f"'fe80::1%eth0/64' is not a network; {form}"),
            ("2001:db8::%eth0/32", "'2001:db8::%eth0/32' has a zone, but is not link-local"),
            ("::%eth0/0", "'::%eth0/0' has a zone, but is not link-local"),
            ("fe80::%3/64", "'fe80::%3/64': the zone must be the name of an interface"),
        ):
            error = self.assertRaises(ValueError, network, "allow", text)
            self.assertEqual(str(error), f"allow: {reason}")
        error = self.assertRaises(ValueError, network, "allow", "x" * 10**6)
        self.assertLess(len(str(error)), 500)
        for wrong in (5, True, None, b"1234", ["192.0.2.0/24"]):
            error = self.assertRaises(TypeError, network, "allow", wrong)
            self.assertEqual(str(error), f"allow: {form}; got {wrong!r}")


class AdmissionTests(SynchronousTestCase):
    def test_anyNetwork(self) -> None:
        admission = admission_of()
        for host in ("192.0.2.1", "2001:db8::1", "127.0.0.1"):
            self.assertIsNone(admission.rejection_reason(at(host)))
        self.assertIsNone(admission.rejection_reason(None))

    def test_networks(self) -> None:
        """Clients outside the allowed networks are rejected, even on the loopback interface."""
        admission = admission_of(
            [network("allow", "192.0.2.0/24"), network("allow", "2001:db8::/32")]
        )
        for host in ("192.0.2.255", "2001:db8::1", "2001:db8::1%eth0", "::ffff:192.0.2.1"):
            self.assertIsNone(admission.rejection_reason(at(host)), host)
        for host in ("192.0.3.1", "127.0.0.1", "::1", "2001:db9::1", "::ffff:192.0.3.1"):
            self.assertEqual(admission.rejection_reason(at(host)), "address not allowed", host)

    def test_zone(self) -> None:
        """A network with a zone contains clients of this interface only."""
        admission = admission_of([network("allow", "fe80::%eth0/64")])
        self.assertIsNone(admission.rejection_reason(at("fe80::1%eth0")))
        for host in ("fe80::1%eth1", "fe80::1", "fe80:1::1%eth0", "2001:db8::1"):
            self.assertEqual(admission.rejection_reason(at(host)), "address not allowed", host)
        admission = admission_of([network("allow", "fe80::/64")])
        for host in ("fe80::1%eth0", "fe80::1%eth1", "fe80::1"):
            self.assertIsNone(admission.rejection_reason(at(host)), host)

    def test_missingFamily(self) -> None:
        """
        The reason includes that no network of the client's IP version is allowed: C{::/0} contains
        no IPv4 client of a dual-stack socket.
        """
        for allowed, rejected, hint in (
            ("::/0", "::ffff:192.0.2.1", "no IPv4 network is allowed; 0.0.0.0/0 contains all"),
            ("::/0", "192.0.2.1", "no IPv4 network is allowed; 0.0.0.0/0 contains all"),
            ("0.0.0.0/0", "2001:db8::1", "no IPv6 network is allowed; ::/0 contains all"),
        ):
            admission = admission_of([network("allow", allowed)])
            reason = admission.rejection_reason(at(rejected))
            self.assertEqual(reason, f"address not allowed ({hint})")
            self.assertEqual(admission.rejection_reason(None), "address not allowed")

    def test_unknownAddress(self) -> None:
        """
        With allowed networks, a client of unknown address is rejected; a client of a UNIX socket is
        accepted.
        """
        admission = admission_of([network("allow", "192.0.2.0/24")])
        self.assertIsNotNone(admission.rejection_reason(None))
        self.assertIsNone(admission.rejection_reason(UNIXAddress("/run/x")))

    def test_maxClients(self) -> None:
        admission = admission_of(max_clients=2)
        for address in (at("192.0.2.1"), UNIXAddress("/run/x")):
            self.assertIsNone(admission.rejection_reason(address))
            admission.enter(address)
        for address in (at("192.0.2.2"), UNIXAddress("/run/x"), None):
            self.assertEqual(admission.rejection_reason(address), "client limit reached (2)")
        admission.leave(at("192.0.2.1"))
        self.assertIsNone(admission.rejection_reason(at("192.0.2.2")))

    def test_maxPerAddress(self) -> None:
        """IPv6 clients are limited per /64 network."""
        for one, same, other in (
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
        ):
            admission = admission_of(max_per_address=2)
            admission.enter(at(one))
            self.assertIsNone(admission.rejection_reason(at(same)))
            admission.enter(at(same))
            self.assertEqual(
                admission.rejection_reason(at(one)), "client limit per address reached (2)"
            )
            self.assertIsNone(admission.rejection_reason(at(other)))
            admission.leave(at(one))
            self.assertIsNone(admission.rejection_reason(at(same)))
            admission.leave(at(same))

    def test_linkLocal(self) -> None:
        """Link-local addresses, which share a /64 network, are counted individually."""
        admission = admission_of(max_per_address=1)
        for host in ("fe80::1%eth0", "fe80::2%eth0", "fe80::1%eth1"):
            self.assertIsNone(admission.rejection_reason(at(host)), host)
            admission.enter(at(host))
            self.assertIsNotNone(admission.rejection_reason(at(host)), host)
        admission.leave(at("fe80::2%eth0"))
        self.assertIsNone(admission.rejection_reason(at("fe80::2%eth0")))
        self.assertIsNotNone(admission.rejection_reason(at("fe80::1%eth0")))

    def test_releasesMemory(self) -> None:
        """No memory is kept for the addresses of disconnected clients."""
        admission = admission_of(max_per_address=2)
        for number in range(100):
            admission.enter(at(f"192.0.2.{number}"))
            admission.leave(at(f"192.0.2.{number}"))
        self.assertEqual(len(admission._per_address), 0)

    def test_unixHasNoAddress(self) -> None:
        admission = admission_of(max_per_address=1)
        admission.enter(UNIXAddress("/run/x"))
        self.assertIsNone(admission.rejection_reason(UNIXAddress("/run/x")))

    def test_invalidSettings(self) -> None:
        for limit in (0, -1):
            self.assertRaises(ValueError, ExporterSettings, max_clients=limit)
            self.assertRaises(ValueError, ExporterSettings, max_clients_per_address=limit)
        self.assertRaises(ValueError, ExporterSettings, allow=["nonsense"])


def link_local() -> tuple[str, str] | None:
    """Return a link-local address of this machine and its interface, or None."""
    with contextlib.suppress(OSError):  # trial uses the name `suppress` itself
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            digits, *_, zone = line.split()
            if (host := IPv6Address(int(digits, 16))).is_link_local:
                return str(host), zone
    return None


class OtherProtocolTests(SynchronousTestCase):
    def test_bytewise(self) -> None:
        """A request that arrives byte by byte is recognized, and logged once."""
        logged = []
        self.patch(RejectionLog, "report", lambda log, *arguments: logged.append(arguments))
        client = FakeClient(MetricsFactory(FakeReactor()))
        for byte in b"GET / HTTP/1.1\r\n":
            client.transport.receive(bytes([byte]))
            self.assertEqual(client.transport.aborted, len(logged) > 0)
        self.assertEqual(
            [arguments[:2] for arguments in logged], [("127.0.0.1:54321", "sent an HTTP request")]
        )


class LoopbackTests(LoopbackTestCase):
    """Admission of real connections."""

    def setUp(self) -> None:
        super().setUp()
        self.logged = self.log_rejections()

    def connected(self, source: str = "127.0.0.1") -> socket.socket:
        """Return a connection that the kernel has accepted."""
        made = self.socket(socket.AF_INET)
        made.bind((source, 0))
        made.connect(("127.0.0.1", self.address.port))  # type: ignore[attr-defined]
        return made

    async def received(self, client: socket.socket) -> bytes:
        """Return all data that a client receives until the server disconnects."""

        def read() -> bytes:
            data = b""
            try:
                while more := client.recv(65536):
                    data += more
            except ConnectionError:
                pass
            return data

        found: bytes = await self.in_thread(read)
        return found

    async def test_maxClients(self) -> None:
        """
        A client over the limit is disconnected without receiving data, until another client
        disconnects.
        """
        await self.exporter(max_clients=2)
        first, second = await self.connect(), await self.connect()
        for _ in range(3):
            self.assertEqual(await self.received(self.connected()), b"")
        self.assertEqual(len(self.logged), 1)
        self.assertRegex(
            self.logged[0],
            r"^Rejected client 127\.0\.0\.1:\d+: client limit reached \(2\)",
        )
        first.reset()
        await self.factory.clients(1)
        third = await self.connect()
        for client in (second, third):
            await self.in_thread(client.read_snapshot)
        await self.service.stop()
        self.assertIn("Rejected 2 more clients: ", self.logged[1])

    async def test_maxPerAddress(self) -> None:
        await self.exporter(max_clients_per_address=1)
        await self.connect()
        self.assertEqual(await self.received(self.connected()), b"")
        self.connected("127.0.0.2")
        await self.factory.clients(2)

    async def test_notAllowed(self) -> None:
        await self.exporter(allow=["127.0.0.2/32"])
        self.assertEqual(await self.received(self.connected()), b"")
        self.connected("127.0.0.2")
        await self.factory.clients(1)
        [line] = self.logged
        self.assertIn("address not allowed", line)

    async def test_zone(self) -> None:
        """Twisted reports the zone of a client, the interface that it uses."""
        found = link_local()
        if found is None:
            self.skipTest("needs a link-local address")
        host, zone = found
        for allowed, clients in ((f"fe80::%{zone}/64", 1), (f"fe80::%{zone}x/64", 0)):
            await self.exporter(endpoint="[::]:0", allow=[allowed])
            client = self.socket(socket.AF_INET6)
            port = self.address.port  # type: ignore[attr-defined]
            client.connect((host, port, 0, socket.if_nametoindex(zone)))
            if clients:
                await self.factory.clients(1)
            else:
                self.assertEqual(await self.received(client), b"")
        self.assertRegex(self.logged[0], f"%{zone}\\]:[0-9]+: address not allowed")

    async def test_unix(self) -> None:
        """Networks and limits by address do not apply to clients of a UNIX socket."""
        if not IReactorUNIX.providedBy(reactor):
            self.skipTest("this reactor has no UNIX sockets")
        path = os.path.relpath(self.mktemp())
        await self.exporter(
            endpoint=f"unix:{path}", allow=["192.0.2.0/24"], max_clients_per_address=1
        )
        for number in range(3):
            self.socket(socket.AF_UNIX).connect(path)
            await self.factory.clients(number + 1)
        self.assertEqual(self.logged, [])

    async def test_otherProtocols(self) -> None:
        """
        Clients of known protocols are disconnected when recognized, and other clients when they
        have sent more data than the limit.
        """
        await self.exporter()
        client = await self.connect()
        for sent, reason in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "sent an HTTP request"),
            (bytes.fromhex("16030100c8010000c40303"), "sent a TLS handshake"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "sent an SSH greeting"),
            (
                b"x" * (MAX_RECEIVED + 1),
                "sent unexpected data (more than 64 KiB), beginning with b'xxxx",
            ),
        ):
            stranger = self.connected()
            stranger.sendall(sent)
            await self.received(stranger)
            self.assertIn(reason, self.logged[-1])
        self.assertEqual(len(self.logged), 4)
        await self.factory.clients(1)
        self.factory.recorder.counter("c").increment(5)
        await self.in_thread(client.read, until=lambda: client.reader.values("c"))

    async def test_limitAccepts(self) -> None:
        """Of many simultaneous connections, few are accepted in each reactor iteration."""
        await self.exporter()
        clients = 20 * MAX_ACCEPTS
        for _ in range(clients):
            self.connected()
        present = [0]
        while present[-1] < clients:
            await deferLater(reactor, 0, lambda: None)
            present.append(len(self.factory._present))
        # Some reactors iterate twice before they make a call with a delay of 0.
        most = max(after - before for before, after in pairwise(present))
        self.assertLessEqual(most, 2 * MAX_ACCEPTS)
