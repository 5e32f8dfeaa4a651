"""
TLS: valid and invalid files, successful and failed handshakes, and reloading certificates while
clients are connected.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import ssl
import sys
import warnings
from importlib import import_module
from pathlib import Path
from unittest import skipIf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import INegotiated, IReactorUNIX, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger, LogPublisher
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from tests import ROOT
from tests.authority import DAY, Authority, Issued, no_tls
from tests.loopback import LoopbackTestCase, SocketClient, reactor
from txmetrics_tcp import EndpointError, TcpBuilder
from txmetrics_tcp._client import service as service_module
from txmetrics_tcp._client.protocol import MetricsClientFactory, MetricsClientProtocol
from txmetrics_tcp._client.service import (
    Connecting,
    ConnectionState,
    Disconnected,
    MetricsClientService,
)
from txmetrics_tcp._client.tee import TappedEndpoint
from txmetrics_tcp._model import Event
from txmetrics_tcp._net import connection, endpoints, log_throttle
from txmetrics_tcp._net.endpoints import client_endpoint, server_endpoint
from txmetrics_tcp._net.tls import ServerTLS, explain, is_tls
from txmetrics_tcp._net.tls_errors import TLSError
from txmetrics_tcp.cli.arguments import add_source_arguments
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from
from txmetrics_tcp.cli.output import CommandError
from txmetrics_tcp.cli.sources import Source


def parsed(*arguments: str) -> argparse.Namespace:
    """Parse the options of a command."""
    parser = argparse.ArgumentParser()
    add_source_arguments(parser)
    return parser.parse_args(arguments)


def endpoint_from(options: argparse.Namespace) -> IStreamClientEndpoint:
    """Create the first endpoint of a command."""
    endpoint = [*options.endpoints, "5000"][0]
    return client_endpoint_from(options, reactor, Source(endpoint, endpoint))


@skipIf(no_tls, no_tls)
class FileTests(SynchronousTestCase):
    """Errors name the file and the problem in one line."""

    def setUp(self) -> None:
        self.authority = Authority(self)
        self.good = self.authority.issue()

    def error(self, key: str, cert: str, client_ca: str | None = None) -> str:
        error = self.assertRaises(TLSError, ServerTLS, key, cert, client_ca)
        text = str(error)
        self.assertNotIn("\n", text)
        return text

    def nonsense(self) -> str:
        path = self.mktemp()
        Path(path).write_text("-----BEGIN NONSENSE-----\n")
        return path

    def test_good(self) -> None:
        self.assertFalse(ServerTLS(self.good.key, self.good.cert).wants_certificate)
        tls = ServerTLS(self.good.key, Path(self.good.cert), self.authority.file)
        self.assertTrue(tls.wants_certificate)

    def test_missing(self) -> None:
        gone = os.path.abspath(self.mktemp())
        reason = f"cannot read {gone}: No such file or directory"
        self.assertEqual(self.error(gone, self.good.cert), reason)
        self.assertEqual(self.error(self.good.key, gone), reason)
        self.assertEqual(self.error(self.good.key, self.good.cert, gone), reason)

    def test_nonsense(self) -> None:
        bad = self.nonsense()
        self.assertIn("no private key in", self.error(bad, self.good.cert))
        self.assertIn("no certificate in", self.error(self.good.key, bad))
        self.assertIn("no certificate in", self.error(self.good.key, self.good.cert, bad))
        # Key and certificate swapped.
        self.assertIn("no private key in", self.error(self.good.cert, self.good.key))

    def test_mismatch(self) -> None:
        other = self.authority.issue()
        text = self.error(other.key, self.good.cert)
        self.assertIn("does not match the first certificate in", text)

    def test_encrypted(self) -> None:
        """Encrypted keys are not supported, since a daemon cannot ask for a password."""
        encrypted = self.authority.issue(password=b"secret")
        self.assertIn("is encrypted", self.error(encrypted.key, encrypted.cert))

    def test_keyTypes(self) -> None:
        """All key types that TLS supports can be used."""
        from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519

        for key in (
            ed25519.Ed25519PrivateKey.generate(),
            rsa.generate_private_key(65537, 2048),
        ):
            own = self.authority.issue(own_key=key)
            ServerTLS(own.key, own.cert)
        other = self.authority.issue(own_key=x25519.X25519PrivateKey.generate())
        self.assertIn("of a type that TLS cannot use", self.error(other.key, other.cert))

    def test_curves(self) -> None:
        """A key with a curve that TLS does not support is rejected when it is loaded."""
        from cryptography.hazmat.primitives.asymmetric import ec

        for good in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
            own = self.authority.issue(own_key=ec.generate_private_key(good))
            ServerTLS(own.key, own.cert)
        own = self.authority.issue(own_key=ec.generate_private_key(ec.SECP256K1()))
        reason = f"handshake with the private key in {own.key} failed: TLS does not support"
        self.assertIn(f"{reason} the curve secp256k1", self.error(own.key, own.cert))
        options = parsed("--tls-cert", own.cert, "--tls-key", own.key)
        error = self.assertRaises(CommandError, endpoint_from, options)
        self.assertIn(reason, str(error))

    def test_rsaPss(self) -> None:
        """For RSA-PSS keys, OpenSSL's message would be "no certificate assigned"."""
        data = ROOT / "tests" / "data"
        text = self.error(str(data / "rsa-pss.key"), str(data / "rsa-pss.pem"))
        self.assertIn("is restricted to RSA-PSS", text)

    def test_longChain(self) -> None:
        """A chain of more than 32 KiB is rejected, since its handshake would never end."""
        chain = Path(self.good.cert)
        chain.write_text(chain.read_text() + 100 * Path(self.authority.file).read_text())
        self.assertIn("larger than 30000 bytes", self.error(self.good.key, self.good.cert))

    def test_pipe(self) -> None:
        """A pipe is rejected, since reading it would block."""
        pipe = self.mktemp()
        os.mkfifo(pipe)
        reason = f"cannot read {os.path.abspath(pipe)}: not a regular file"
        self.assertEqual(self.error(pipe, self.good.cert), reason)
        self.assertEqual(self.error(self.good.key, pipe), reason)

    def test_rejectedByOpenSSL(self) -> None:
        """OpenSSL's errors are reported in one line."""
        from OpenSSL import SSL

        def refuse(context: object, certificate: object) -> None:
            raise SSL.Error([("SSL routines", "", "ee key too small")])

        self.patch(SSL.Context, "use_certificate", refuse)
        self.assertIn("ee key too small", self.error(self.good.key, self.good.cert))
        options = parsed("--tls-cert", self.good.cert, "--tls-key", self.good.key)
        error = self.assertRaises(CommandError, endpoint_from, options)
        self.assertIn("ee key too small", str(error))

    def test_expired(self) -> None:
        old = self.authority.issue(ends=-DAY / 24)
        self.assertIn("expired on", self.error(old.key, old.cert))

    def test_notYetValid(self) -> None:
        early = self.authority.issue(begins=DAY / 24, ends=2 * DAY)
        self.assertIn("is not valid before", self.error(early.key, early.cert))

    def test_builder(self) -> None:
        """C{TcpBuilder.tls} raises immediately, not when the service starts."""
        builder = TcpBuilder(reactor).listen_address(0)
        self.assertRaises(TLSError, builder.tls, self.good.cert, self.good.cert)
        self.assertIs(builder.tls(self.good.key, self.good.cert), builder)

    def test_endpointWithTLS(self) -> None:
        """C{TcpBuilder.tls} cannot be combined with an endpoint that already includes TLS."""
        text = f"ssl:0:certKey={self.good.cert}:privateKey={self.good.key}"
        builder = TcpBuilder(reactor).listen_address(text)
        with self.assertRaisesRegex(EndpointError, "already includes TLS"):
            builder.tls(self.good.key, self.good.cert)
        builder.service()
        builder = TcpBuilder(reactor).tls(self.good.key, self.good.cert)
        with self.assertRaisesRegex(EndpointError, "already includes TLS"):
            builder.listen_address(text)
        builder.service()


class WithoutExtraTests(SynchronousTestCase):
    """If a required package is not installed, the error message shows how to install it."""

    ADVICE = "pip install 'txmetrics-tcp[tls]'"

    def hide(self, module: str) -> None:
        # Import the module first, so that the cleanup can restore it.
        with contextlib.suppress(ImportError):  # trial uses the name `suppress` itself
            import_module("txmetrics_tcp._net.certificates")
        for name in ("txmetrics_tcp._net.certificates", module):
            if name in sys.modules:
                self.addCleanup(sys.modules.__setitem__, name, sys.modules.pop(name))
            else:
                self.addCleanup(sys.modules.pop, name, None)
        sys.modules[module] = None  # type: ignore[assignment]
        from txmetrics_tcp import _net

        self.addCleanup(setattr, _net, "certificates", getattr(_net, "certificates", None))
        vars(_net).pop("certificates", None)

    def test_server(self) -> None:
        for module in ("OpenSSL", "service_identity"):
            self.hide(module)
            error = self.assertRaises(TLSError, ServerTLS, "key", "cert")
            self.assertIn(self.ADVICE, str(error))
            self.doCleanups()

    def test_endpointStrings(self) -> None:
        """The same message appears for Twisted endpoint strings that include TLS."""
        self.hide("OpenSSL")
        # Twisted's behavior depends on the modules that it has already imported.
        self.patch(endpoints, "serverFromString", self.failing)
        self.patch(endpoints, "clientFromString", self.failing)
        for make, text in ((server_endpoint, "ssl:0"), (client_endpoint, "tls:localhost:1")):
            error = self.assertRaises(EndpointError, make, reactor, text)
            self.assertIn(self.ADVICE, str(error))

    def failing(self, *arguments: object) -> None:
        raise NotImplementedError

    def test_client(self) -> None:
        self.hide("service_identity")
        options = parsed("5000", "--tls")
        error = self.assertRaises(CommandError, endpoint_from, options)
        self.assertIn(self.ADVICE, str(error))


@skipIf(no_tls, no_tls)
class ExplainTests(SynchronousTestCase):
    def test_errors(self) -> None:
        """The reason is the first error in OpenSSL's queue, which caused the others."""
        from OpenSSL import SSL

        for error, text in (
            (SSL.Error([("SSL routines", "", "certificate verify failed")]), None),
            (SSL.Error([("", "", "certificate verify failed"), ("", "", "something else")]), None),
            (SSL.Error([]), "Error([])"),
            (SSL.Error(), "Error()"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "SysCallError(-1, 'Unexpected EOF')"),
        ):
            self.assertEqual(explain(error), text or "certificate verify failed")

    def test_others(self) -> None:
        for error in (ConnectionError("x"), ValueError(), None):
            self.assertIsNone(explain(error))


class IsTLSTests(SynchronousTestCase):
    def test_wrapper(self) -> None:
        """A wrapper of TLS does not count as TLS, since it does not report the handshake."""
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        self.assertFalse(is_tls(wrapper))
        directlyProvides(wrapper, INegotiated)
        self.assertFalse(is_tls(wrapper))


class TLSTestCase(LoopbackTestCase):
    """
    @ivar logged: the text of each log line about a rejected client.
    """

    def setUp(self) -> None:
        super().setUp()
        # No timeouts on slow machines, except those that a test triggers.
        self.patch(connection, "HANDSHAKE_LIMIT", 1000)
        self.patch(log_throttle, "INTERVAL", 1000)
        self.authority = Authority(self)
        self.logged: list[str] = []
        self._line: Deferred[str] | None = None
        publisher = LogPublisher(self._note)  # type: ignore[arg-type]
        self.patch(log_throttle, "_log", Logger(namespace="test", observer=publisher))

    def _note(self, event: dict[str, object]) -> None:
        self.logged.append(str(event["log_format"]).format(**event))
        waiting, self._line = self._line, None
        if waiting is not None:
            waiting.callback(self.logged[-1])

    def line(self) -> Deferred[str]:
        """Return a Deferred that fires with the next logged line."""
        self._line = Deferred()
        return self._line

    def connected(self) -> socket.socket:
        """Return a new connection without TLS."""
        plain = self.socket(socket.AF_INET)
        plain.connect(("127.0.0.1", self.address.port))  # type: ignore[attr-defined]
        return plain

    def context(self, own: Issued | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.file)
        if own is not None:
            context.load_cert_chain(own.cert, own.key)
        return context

    async def connect_tls(self, own: Issued | None = None) -> SocketClient:
        """Connect a client with TLS, and wait until the exporter serves it."""
        clients = len(self.factory.protocols)
        wrapped = await self.in_thread(
            self.context(own).wrap_socket, self.connected(), server_hostname="127.0.0.1"
        )
        self.addCleanup(wrapped.close)
        await self.factory.connections(clients + 1)
        return SocketClient(wrapped)

    async def assert_streams(self, client: SocketClient, value: int) -> None:
        """Assert that the client receives recorded events."""
        self.factory.recorder.counter("c").increment(value)
        await self.in_thread(client.read, until=lambda: value in client.reader.values("c"))

    async def assert_closed(self, client: socket.socket) -> None:
        """Wait until the server disconnects the client."""

        def read() -> None:
            try:
                while client.recv(1000):
                    pass
            except ConnectionError:
                return

        await self.in_thread(read)


@skipIf(no_tls, no_tls)
class ServerTests(TLSTestCase):
    async def listen(self, client_ca: bool = False, **more: object) -> None:
        self.own = self.authority.issue()
        self.tls = ServerTLS(
            self.own.key, self.own.cert, self.authority.file if client_ca else None
        )
        await self.exporter(tls=self.tls, **more)  # type: ignore[arg-type]

    async def test_streams(self) -> None:
        """The server sends its intermediate certificate."""
        await self.listen()
        client = await self.connect_tls()
        await self.assert_streams(client, 5)
        self.assertIn(client.socket.version(), ("TLSv1.2", "TLSv1.3"))  # type: ignore[attr-defined]

    async def test_unix(self) -> None:
        """TLS works on any endpoint."""
        if not IReactorUNIX.providedBy(reactor):
            self.skipTest("this reactor has no UNIX sockets")
        path = os.path.relpath(self.mktemp())
        await self.listen(endpoint=f"unix:{path}")
        plain = self.socket(socket.AF_UNIX)
        plain.connect(path)
        wrapped = await self.in_thread(
            self.context().wrap_socket, plain, server_hostname="localhost"
        )
        self.addCleanup(wrapped.close)
        await self.assert_streams(SocketClient(wrapped), 5)

    async def test_old(self) -> None:
        """TLS 1.1 is rejected."""
        await self.listen()
        context = self.context()
        # Required for clients to offer TLS 1.1.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        line = self.line()
        with self.assertRaises(ssl.SSLError):
            await self.in_thread(context.wrap_socket, self.connected(), server_hostname="127.0.0.1")
        self.assertIn("TLS handshake failed: unsupported protocol", await line)

    async def test_offeredProtocols(self) -> None:
        """
        A client that offers protocols (ALPN), such as curl, is served, and none is selected.
        """
        await self.listen()
        for number, version in ((1, ssl.TLSVersion.TLSv1_2), (2, ssl.TLSVersion.TLSv1_3)):
            context = self.context()
            context.set_alpn_protocols(["h2", "http/1.1"])
            context.maximum_version = version
            wrapped = await self.in_thread(
                context.wrap_socket, self.connected(), server_hostname="127.0.0.1"
            )
            self.addCleanup(wrapped.close)
            self.assertIsNone(wrapped.selected_alpn_protocol())
            await self.factory.connections(number)
            await self.assert_streams(SocketClient(wrapped), 5 * number)
        self.assertEqual(self.logged, [])
        # What curl sends next.
        line = self.line()
        wrapped = await self.in_thread(
            context.wrap_socket, self.connected(), server_hostname="127.0.0.1"
        )
        self.addCleanup(wrapped.close)
        wrapped.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn("sent an HTTP request", await line)

    async def test_offeredToOwnTLS(self) -> None:
        """The same with a Twisted endpoint string that includes TLS."""
        own = self.authority.issue()
        text = f"ssl:0:interface=127.0.0.1:certKey={own.cert}:privateKey={own.key}"
        await self.exporter(endpoint=text)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        wrapped = await self.in_thread(context.wrap_socket, self.connected())
        self.addCleanup(wrapped.close)
        await self.factory.connections(1)
        await self.assert_streams(SocketClient(wrapped), 5)

    async def test_otherName(self) -> None:
        """The TLS alert of a client that expects another name is logged."""
        await self.listen()
        line = self.line()
        with self.assertRaises(ssl.SSLError):
            await self.in_thread(
                self.context().wrap_socket, self.connected(), server_hostname="metrics.example"
            )
        self.assertRegex(await line, "TLS handshake failed: .*alert bad certificate")

    async def test_mutual(self) -> None:
        await self.listen(client_ca=True)
        await self.assert_streams(await self.connect_tls(self.authority.issue()), 5)
        self.assertEqual(self.logged, [])

    async def test_noCertificate(self) -> None:
        """A client without the required certificate receives no data."""
        await self.listen(client_ca=True)
        self.factory.recorder.counter("c").increment()
        line = self.line()
        wrapped = await self.in_thread(
            self.context().wrap_socket, self.connected(), server_hostname="127.0.0.1"
        )
        self.addCleanup(wrapped.close)
        # With TLS 1.3, the client's handshake ends before the server verifies the certificate.
        with self.assertRaises(ssl.SSLError):
            await self.in_thread(wrapped.recv, 1)
        self.assertIn("peer did not return a certificate", await line)
        self.assertEqual(self.factory.stats().connected, 0)

    async def test_wrongCertificate(self) -> None:
        await self.listen(client_ca=True)
        stranger = Authority(self).issue()
        line = self.line()
        wrapped = await self.in_thread(
            self.context(stranger).wrap_socket, self.connected(), server_hostname="127.0.0.1"
        )
        self.addCleanup(wrapped.close)
        with self.assertRaises(ssl.SSLError):
            await self.in_thread(wrapped.recv, 1)
        self.assertIn("TLS handshake failed: certificate verify failed", await line)
        self.assertEqual(self.factory.stats().connected, 0)

    async def test_plainText(self) -> None:
        """Clients without TLS cause one log line per reason, and do not affect other clients."""
        await self.listen()
        client = await self.connect_tls()
        for text, reason in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http request"),
            # The text depends on the version of OpenSSL.
            (b"hello, how are you?\r\n", r"\w"),
        ):
            line = self.line()
            plain = self.connected()
            plain.sendall(text)
            await self.assert_closed(plain)
            self.assertRegex(await line, f"TLS handshake failed: {reason}")
        self.assertEqual(len(self.logged), 2)
        await self.assert_streams(client, 5)

    async def test_halfClosed(self) -> None:
        """
        With TLS, a client that closes its sending side is disconnected, since Twisted's TLS closes
        both directions.
        """
        await self.listen()
        client = await self.connect_tls()
        await self.assert_streams(client, 5)
        client.socket.shutdown(socket.SHUT_WR)
        await self.factory.clients(0)
        await self.assert_streams(await self.connect_tls(), 6)
        self.assertEqual(self.logged, [])

    async def test_slowHandshake(self) -> None:
        """
        A client that sends no handshake counts toward the limit of clients until the handshake
        times out, but not as connected.  Other clients are not affected.
        """
        await self.listen(max_clients=3)
        client = await self.connect_tls()
        silent = [self.connected(), self.connected()]
        rejected = self.connected()
        await self.assert_closed(rejected)
        self.assertEqual(len(self.factory.stats().clients), 1)
        await self.assert_streams(client, 5)
        for present in self.factory._present:
            if present._handshake is not None:
                present._handshake.expire()
        for one in silent:
            await self.assert_closed(one)
        await self.assert_streams(await self.connect_tls(), 6)
        await self.assert_streams(client, 7)
        [full, slow] = self.logged
        self.assertIn("client limit reached (3)", full)
        self.assertIn("TLS handshake timed out", slow)

    async def test_handshakeWhileBusy(self) -> None:
        """
        A handshake that the client has sent in time succeeds, even if the blocked reactor reads it
        after the timeout.
        """
        await self.listen()
        client = self.connected()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
            client.sendall(outgoing.read())
            incoming.write(await self.in_thread(client.recv, 65536))
        # This completes the handshake.  The time ends before the reactor iterates.
        client.sendall(outgoing.read())
        [present] = self.factory._present
        assert present._handshake is not None
        present._handshake.expire()
        await self.factory.clients(1)
        self.assertEqual(self.logged, [])

    async def test_partialHandshake(self) -> None:
        """A client that disconnects during its handshake is not logged."""
        await self.listen()
        begun = self.connected()
        begun.sendall(bytes.fromhex("16030100"))
        begun.close()
        await self.assert_streams(await self.connect_tls(), 5)
        self.assertEqual(self.logged, [])

    async def test_stopInHandshake(self) -> None:
        """When the exporter stops, it disconnects clients in an unfinished handshake."""
        await self.listen()
        silent = self.connected()
        client = await self.connect_tls()
        self.assertEqual(len(self.factory._present), 2)
        client.reset()
        await self.factory.clients(0)
        stopped = self.factory.stop(1000)
        self.assertFalse(stopped.called)
        await stopped
        self.assertEqual(len(self.factory._present), 0)
        await self.assert_closed(silent)

    async def test_stopWithIdleClient(self) -> None:
        """The exporter stops when all data is sent, without waiting for close alerts of clients."""
        await self.listen(flush_timeout=1000)
        client = await self.connect_tls()
        self.factory.recorder.counter("c").increment(5)
        await self.service.stop()
        self.assertEqual(client.socket.fileno() >= 0, True)
        await self.in_thread(client.read)
        self.assertEqual(client.reader.values("c"), [5])

    async def test_reload(self) -> None:
        """After a reload, new connections use the new certificate; open connections continue."""
        await self.listen()
        before = await self.connect_tls()
        new = self.authority.issue()
        shutil.copy(new.key, self.own.key)
        shutil.copy(new.cert, self.own.cert)
        self.service.reload_tls()
        after = await self.connect_tls()
        self.assertNotEqual(self.certificate(before), self.certificate(after))
        Path(self.own.cert).write_text("")
        with self.assertRaisesRegex(TLSError, "no certificate in"):
            self.service.reload_tls()
        later = await self.connect_tls()
        self.assertEqual(self.certificate(later), self.certificate(after))
        for client in (before, after, later):
            await self.assert_streams(client, 5)

    def certificate(self, client: SocketClient) -> bytes:
        found: bytes = client.socket.getpeercert(True)  # type: ignore[attr-defined]
        return found


@skipIf(no_tls, no_tls)
class ClientTests(TLSTestCase):
    """The client side, with the arguments of the commands."""

    async def serve(self, client_ca: str | None = None, hosts: tuple[str, ...] = ()) -> None:
        own = self.authority.issue(hosts or ("127.0.0.1", "localhost"))
        await self.exporter(tls=ServerTLS(own.key, own.cert, client_ca))

    def begin(self, *arguments: str) -> Deferred[Event | str]:
        """Connect, and return the first event or the reason for disconnecting."""
        first: Deferred[Event | str] = Deferred()
        protocols: list[MetricsClientProtocol] = []

        def received(event: Event) -> None:
            protocols[0].close()
            if not first.called:
                first.callback(event)

        def lost(protocol: MetricsClientProtocol, reason: Failure) -> None:
            if not first.called:
                first.callback(str(Disconnected(reason)))

        factory = MetricsClientFactory(received, connected=protocols.append, lost=lost)
        port = self.address.port  # type: ignore[attr-defined]
        options = parsed(f"127.0.0.1:{port}", *arguments)
        endpoint_from(options).connect(factory)
        return first

    async def test_streams(self) -> None:
        await self.serve()
        event = await self.begin("--tls-ca", self.authority.file)
        self.assertNotIsInstance(event, str)
        await self.factory.clients(0)

    async def test_wrongName(self) -> None:
        await self.serve()
        why = await self.begin("--tls-ca", self.authority.file, "--tls-name", "metrics.example")
        self.assertEqual(why, "TLS failed: the server's certificate is for another name")
        await self.service.stop()

    async def test_names(self) -> None:
        """
        A certificate is accepted only if it contains the wanted name.  Twisted accepts some of the
        others since 26.4.
        """
        from cryptography import x509

        other = "the server's certificate is for another name"
        none = "the server's certificate has no valid host name or address in a subjectAltName"
        url = x509.UniformResourceIdentifier("https://metrics.example:5000/")
        for hosts, names, wanted, reason in (
            (["metrics.example"], [], "metrics.example", ""),
            (["metrics.example"], [], "METRICS.example", ""),
            (["*.metrics.example"], [], "a.metrics.example", ""),
            (["*.metrics.example"], [], "metrics.example", other),
            (["*.metrics.example"], [], "a.b.metrics.example", other),
            (["xn--mtrics-bva.example"], [], "M\u00c9trics.example", ""),
            (["127.0.0.1"], [], "127.0.0.1", ""),
            (["::1"], [], "::1", ""),
            (["::1"], [], "127.0.0.1", other),
            (["127.0.0.2"], [], "127.0.0.1", other),
            (["127.0.0.1"], [], "metrics.example", other),
            (["metrics.example"], [], "127.0.0.1", other),
            (["somebody"], [], "127.0.0.1", other),
            # The common name, "somebody", does not count.
            ([], [], "somebody", none),
            ([], [], "metrics.example", none),
            ([], [], "127.0.0.1", none),
            ([], [x509.RFC822Name("a@metrics.example")], "metrics.example", none),
            ([], [url], "metrics.example", none),
            # An address as a DNS name, and wildcards that match too much.
            ([], [x509.DNSName("127.0.0.1")], "127.0.0.1", none),
            (["*"], [], "metrics", none),
            (["*.example"], [], "metrics.example", none),
            (["*.*.example"], [], "a.b.example", none),
            # Invalid names besides a valid one are ignored.
            (["metrics.example", "*.com"], [url], "metrics.example", ""),
            (["other.example", "*.com"], [url], "metrics.example", other),
            (["127.0.0.1"], [x509.DNSName("127.0.0.1")], "127.0.0.1", ""),
            # Names that are normalized before they are compared.
            (["metrics.example"], [], "metrics.example.", ""),
            (["::1"], [], "::1%lo", ""),
            (["my_host"], [], "my_host", ""),
        ):
            own = self.authority.issue(hosts, names=names)
            await self.exporter(tls=ServerTLS(own.key, own.cert))
            got = await self.begin("--tls-ca", self.authority.file, "--tls-name", wanted)
            if reason:
                self.assertIsInstance(got, str, (hosts, names, wanted))
                self.assertIn(f"TLS failed: {reason}", str(got), (hosts, names, wanted))
            else:
                self.assertFalse(isinstance(got, str), (hosts, names, wanted, got))
            await self.service.stop()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_optionsForClientTLS(self) -> None:
        """
        Endpoints made with Twisted's C{optionsForClientTLS} also reject certificates without a name
        or with an invalid name.
        """
        from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
        from twisted.internet.ssl import Certificate, optionsForClientTLS

        trust = Certificate.loadPEM(Path(self.authority.file).read_text())
        for hosts, reason in (
            (["metrics.example"], ""),
            (["other.example"], "the server's certificate is for another name"),
            ([], "the server's certificate has no valid host name"),
            (["*.*.example"], "the server's certificate contains an invalid name"),
        ):
            own = self.authority.issue(hosts)
            await self.exporter(tls=ServerTLS(own.key, own.cert))
            endpoint = wrapClientTLS(
                optionsForClientTLS("metrics.example", trust),
                TCP4ClientEndpoint(reactor, "127.0.0.1", self.address.port),  # type: ignore[attr-defined]
            )
            outcome: Deferred[str] = Deferred()

            def observe(state: ConnectionState, outcome: Deferred[str] = outcome) -> None:
                if isinstance(state, Disconnected) and not outcome.called:
                    outcome.callback(str(state))

            def received(event: Event, outcome: Deferred[str] = outcome) -> None:
                if not outcome.called:
                    outcome.callback("")

            service = MetricsClientService(reactor, endpoint, received, observer=observe)
            service.startService()
            why = await outcome
            await service.stopService()
            self.assertEqual(bool(why), bool(reason), why)
            self.assertIn(reason, why)
            await self.service.stop()
        # Twisted logs errors of its own.
        self.flushLoggedErrors()

    async def test_optionsForClientTLSWithInvalidName(self) -> None:
        """
        A certificate with an invalid name besides the valid name of another server is rejected.
        Twisted would accept it.
        """
        from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
        from twisted.internet.ssl import Certificate, optionsForClientTLS

        own = self.authority.issue(["other.example", "*.com"])
        await self.exporter(tls=ServerTLS(own.key, own.cert))
        trust = Certificate.loadPEM(Path(self.authority.file).read_text())
        endpoint = wrapClientTLS(
            optionsForClientTLS("metrics.example", trust),
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.address.port),  # type: ignore[attr-defined]
        )
        why: Deferred[str] = Deferred()
        events: list[Event] = []
        endpoint.connect(
            MetricsClientFactory(
                events.append, lost=lambda protocol, reason: why.callback(explain(reason.value))
            )
        )
        self.assertIn("the server's certificate contains an invalid name", await why)
        self.assertEqual(events, [])
        self.flushLoggedErrors()
        await self.service.stop()

    async def test_selfSigned(self) -> None:
        """A self-signed certificate is accepted only if it is given as an authority."""
        own = self.authority.issue_self_signed()
        await self.exporter(tls=ServerTLS(own.key, own.cert))
        untrusted = "TLS failed: certificate verify failed"
        self.assertEqual(await self.begin("--tls-ca", self.authority.file), untrusted)
        self.assertEqual(await self.begin("--tls"), untrusted)
        self.assertNotIsInstance(await self.begin("--tls-ca", own.cert), str)
        await self.service.stop()

    async def test_nameOption(self) -> None:
        """C{--tls-name} sets the name that the certificate must contain."""
        await self.serve(hosts=("metrics.example",))
        why = await self.begin("--tls-ca", self.authority.file)
        self.assertEqual(why, "TLS failed: the server's certificate is for another name")
        event = await self.begin("--tls-ca", self.authority.file, "--tls-name", "metrics.example")
        self.assertNotIsInstance(event, str)
        await self.service.stop()

    async def test_wrongAuthority(self) -> None:
        """With C{--tls-ca} and with C{--tls}, a certificate of another authority is rejected."""
        await self.serve()
        other = Authority(self)
        for arguments in (["--tls-ca", other.file], ["--tls"]):
            why = await self.begin(*arguments)
            self.assertEqual(why, "TLS failed: certificate verify failed")
        await self.service.stop()

    async def test_mutual(self) -> None:
        await self.serve(self.authority.file)
        own = self.authority.issue(("a client",))
        trust = ("--tls-ca", self.authority.file)
        event = await self.begin(*trust, "--tls-cert", own.cert, "--tls-key", own.key)
        self.assertNotIsInstance(event, str)
        why = str(await self.begin(*trust))
        self.assertRegex(why, "^TLS failed: .*alert certificate required$")
        await self.service.stop()

    async def test_connectedWhenTrusted(self) -> None:
        """The state becomes Connected after the handshake, with and without a tap."""
        await self.serve()
        port = self.address.port  # type: ignore[attr-defined]
        for tap in (False, True):
            for ca, expected in (
                (Authority(self).file, ["Connecting", "Disconnected"]),
                (self.authority.file, ["Connecting", "Connected"]),
            ):
                endpoint = endpoint_from(parsed(f"127.0.0.1:{port}", "--tls-ca", ca))
                states: list[str] = []
                done: Deferred[None] = Deferred()

                def observe(
                    state: ConnectionState, states: list[str] = states, done: Deferred[None] = done
                ) -> None:
                    states.append(type(state).__name__)
                    if len(states) == 2:
                        done.callback(None)

                service = MetricsClientService(
                    reactor,
                    TappedEndpoint(endpoint, lambda data: None) if tap else endpoint,
                    lambda event: None,
                    observer=observe,
                )
                service.startService()
                await done
                self.assertEqual(states, expected)
                await service.stopService()
        await self.service.stop()

    async def test_certificateRequired(self) -> None:
        """The state does not become Connected if the server requires a client certificate."""
        self.patch(service_module, "ACCEPTANCE", 1000)
        await self.serve(self.authority.file)
        endpoint = f"127.0.0.1:{self.address.port}"  # type: ignore[attr-defined]
        options = parsed(endpoint, "--tls-ca", self.authority.file)
        states: list[ConnectionState] = []
        done: Deferred[None] = Deferred()

        def observe(state: ConnectionState) -> None:
            states.append(state)
            if len(states) == 2:
                done.callback(None)

        service = MetricsClientService(
            reactor, endpoint_from(options), lambda event: None, observer=observe
        )
        service.startService()
        await done
        await service.stopService()
        self.assertEqual([type(state) for state in states], [Connecting, Disconnected])
        self.assertRegex(str(states[1]), "^TLS failed: .*alert certificate required$")
        await self.service.stop()

    async def test_plainServer(self) -> None:
        await self.exporter()
        line = self.line()
        why = await self.begin("--tls-ca", self.authority.file)
        self.assertRegex(str(why), r"^TLS failed: \w")
        self.assertIn("sent a TLS handshake, but TLS is not enabled", await line)
        await self.service.stop()
