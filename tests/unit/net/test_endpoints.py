"""
The syntax of endpoints.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock, skipIf

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from tests.authority import no_tls
from tests.connecting import NamesReactor
from txmetrics_tcp._net import endpoints
from txmetrics_tcp._net.endpoint_syntax import (
    DEFAULT_ENDPOINT,
    AnyEndpoint,
    EndpointError,
    has_own_tls,
    host_of,
)
from txmetrics_tcp._net.endpoints import (
    check_server_endpoint,
    client_endpoint,
    server_endpoint,
)

SYNTAX = "expected PORT, HOST:PORT, [IPV6]:PORT or a Twisted endpoint string such as unix:/run/"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


class ServerEndpointTests(SynchronousTestCase):
    def listened(self, text: AnyEndpoint) -> tuple[str, int]:
        """Listen on an endpoint, and return the interface and port passed to the reactor."""
        reactor = MemoryReactorClock()
        endpoint = server_endpoint(reactor, text)
        self.assertTrue(IStreamServerEndpoint.providedBy(endpoint))
        self.successResultOf(endpoint.listen(Factory.forProtocol(Protocol)))
        [(port, _factory, _backlog, interface)] = reactor.tcpServers
        return interface, port

    def test_port(self) -> None:
        """A port without a host is on the loopback interface."""
        for text in (5000, "5000", " 5000 ", "05000"):
            self.assertEqual(self.listened(text), ("127.0.0.1", 5000))

    def test_anyFreePort(self) -> None:
        self.assertEqual(self.listened(0), ("127.0.0.1", 0))
        self.assertEqual(self.listened("[::1]:0"), ("::1", 0))

    def test_largestPort(self) -> None:
        self.assertEqual(self.listened("host:65535"), ("host", 65535))

    def test_default(self) -> None:
        self.assertEqual(self.listened(DEFAULT_ENDPOINT), ("127.0.0.1", 5000))

    def test_host(self) -> None:
        for text, interface in (
            ("127.0.0.1:5000", "127.0.0.1"),
            ("0.0.0.0:5000", "0.0.0.0"),
            ("localhost:5000", "localhost"),
            ("a-host.example:5000", "a-host.example"),
            ("[::1]:5000", "::1"),
            ("[::]:5000", "::"),
            ("[fe80::1%eth0]:5000", "fe80::1%eth0"),
            # Host names that resemble IPv6 addresses and prefixes of endpoint strings.
            ("fd00:5000", "fd00"),
            ("TCP:5000", "TCP"),
            ("unixhost:5000", "unixhost"),
        ):
            self.assertEqual(self.listened(text), (interface, 5000))

    def test_tuples(self) -> None:
        """An address of the C{socket} module: a tuple of host, port and possibly more."""
        for address, interface in (
            (("127.0.0.1", 5000), "127.0.0.1"),
            (("localhost", 5000), "localhost"),
            # Not a UNIX socket, as in "unix:5000".
            (("unix", 5000), "unix"),
            (("::1", 5000), "::1"),
            (("::", 5000, 0, 0), "::"),
            (("fe80::1", 5000, 0, 3), "fe80::1%3"),
            (("fe80::1%eth0", 5000, 0, 3), "fe80::1%eth0"),
        ):
            self.assertEqual(self.listened(address), (interface, 5000))

    def test_paths(self) -> None:
        """A path object is a UNIX socket, whatever characters it contains."""
        for path in ("/run/x.sock", "relative", "/run/a:b=c\\d:mode=600", "5000"):
            reactor = MemoryReactorClock()
            listening = server_endpoint(reactor, Path(path)).listen(Factory.forProtocol(Protocol))
            self.successResultOf(listening)
            self.assertEqual(reactor.unixServers[0][0], path)
            client_endpoint(reactor, Path(path)).connect(Factory.forProtocol(Protocol))
            self.assertEqual(reactor.unixClients[0][0], path)

    def test_check(self) -> None:
        """
        `check_server_endpoint` needs no reactor.  It does not call the parsers of other projects'
        plugins, which may use the reactor.
        """

        class Onion:
            prefix = "onion"

        self.patch(endpoints, "getPlugins", lambda interface: [Onion(), *getPlugins(interface)])
        for good in (
            "5000",
            "tcp6:0",
            "unix:x",
            "haproxy:tcp:5000",
            "onion:80",
            "haproxy:onion:80",
        ):
            check_server_endpoint(good)
        for bad in ("nonsense", "tcp:x", "haproxy:tcp:x", "onions:a:b"):
            self.assertRaises(EndpointError, check_server_endpoint, bad)

    def test_families(self) -> None:
        for text, family in (("0", TCP4ServerEndpoint), ("[::1]:0", TCP6ServerEndpoint)):
            self.assertIsInstance(server_endpoint(MemoryReactorClock(), text), family)

    def test_twistedStrings(self) -> None:
        """A prefix of Twisted endpoint strings takes precedence over a host of that name."""
        for text, expected in (
            ("tcp:5000", ("", 5000)),
            ("tcp:5000:interface=192.0.2.1", ("192.0.2.1", 5000)),
            ("tcp6:5000", ("::", 5000)),
            ("tcp6:5000:interface=\\:\\:1", ("::1", 5000)),
            ("haproxy:tcp:5000", ("", 5000)),
        ):
            self.assertEqual(self.listened(text), expected)

    def test_unix(self) -> None:
        for text, address, mode in (
            ("unix:/run/x.sock", "/run/x.sock", 0o666),
            ("unix:/run/x.sock:mode=600", "/run/x.sock", 0o600),
            ("unix:relative", "relative", 0o666),
            # The path of a socket, not a host and a port.
            ("unix:5000", "5000", 0o666),
        ):
            reactor = MemoryReactorClock()
            self.successResultOf(
                server_endpoint(reactor, text).listen(Factory.forProtocol(Protocol))
            )
            [(path, _factory, _backlog, permissions, _pid)] = reactor.unixServers
            self.assertEqual((path, permissions), (address, mode))


class ClientEndpointTests(SynchronousTestCase):
    def connected(self, text: AnyEndpoint) -> tuple[str, int]:
        """Connect to an endpoint, and return the host and port passed to the reactor."""
        reactor = MemoryReactorClock()
        endpoint = client_endpoint(reactor, text)
        self.assertTrue(IStreamClientEndpoint.providedBy(endpoint))
        connecting = endpoint.connect(Factory.forProtocol(Protocol))
        [(host, port, _factory, _timeout, _bind)] = reactor.tcpClients
        connecting.addErrback(lambda reason: None)
        connecting.cancel()
        return host, port

    def test_port(self) -> None:
        for text in (5000, "5000", " 5000 "):
            self.assertEqual(self.connected(text), ("127.0.0.1", 5000))

    def test_host(self) -> None:
        for text, host in (
            ("192.0.2.1:5000", "192.0.2.1"),
            ("[2001:db8::1]:5000", "2001:db8::1"),
            ("[fe80::1%eth0]:5000", "fe80::1%eth0"),
        ):
            self.assertEqual(self.connected(text), (host, 5000))

    def test_hostName(self) -> None:
        """A host name is resolved to all of its IPv4 and IPv6 addresses."""
        for text in ("a-host.example:5000", "haproxy:5000", "tcp6:5000"):
            host = text.split(":")[0]
            endpoint = client_endpoint(MemoryReactorClock(), text)
            self.assertEqual(repr(endpoint), f"<HostnameEndpoint {host}:5000>")

    def test_resolvableNames(self) -> None:
        """All names that the resolver knows are accepted, also those that are no domain names."""
        for host, name in (
            ("a_b.example", "a_b.example"),
            ("_a-", "_a-"),
            ("localhost.", "localhost."),
            ("x" * 63, "x" * 63),
            ("B\xfccher.example", "xn--bcher-kva.example"),
        ):
            for endpoint in (f"{host}:5000", (host, 5000)):
                reactor = NamesReactor()
                reactor.nameResolver.addresses = [IPv4Address("TCP", "192.0.2.1", 5000)]
                client_endpoint(reactor, endpoint).connect(Factory.forProtocol(Protocol))
                self.assertEqual(reactor.nameResolver.names, [name])
                self.assertEqual(reactor.connecting[0][:2], ("192.0.2.1", 5000))

    def test_withoutIdna(self) -> None:
        """Without the package idna, which Twisted requires only indirectly, names are encoded."""
        with mock.patch.dict(sys.modules, {"idna": None}):
            endpoint = client_endpoint(NamesReactor(), "B\xfccher.example:5000")
        self.assertEqual(repr(endpoint), "<HostnameEndpoint xn--bcher-kva.example:5000>")

    def test_twistedStrings(self) -> None:
        self.assertEqual(self.connected("tcp:192.0.2.1:5000"), ("192.0.2.1", 5000))
        self.assertEqual(self.connected("tcp:host=192.0.2.1:port=5"), ("192.0.2.1", 5))

    def test_unix(self) -> None:
        reactor = MemoryReactorClock()
        client_endpoint(reactor, "unix:/run/x.sock").connect(Factory.forProtocol(Protocol))
        [(path, _factory, _timeout, _checkPID)] = reactor.unixClients
        self.assertEqual(path, "/run/x.sock")


class BadEndpointTests(SynchronousTestCase):
    def error(self, text: object, *make: Callable[..., object]) -> str:
        """Return the error message, which is the same for servers and clients."""
        [reason] = {
            str(self.assertRaises(EndpointError, one, MemoryReactorClock(), text))
            for one in make or (server_endpoint, client_endpoint)
        }
        if len(str(text)) < 100:
            shown = text.strip() if isinstance(text, str) else text
            self.assertIn(repr(f"unix:{text}" if isinstance(text, Path) else shown), reason)
        self.assertLess(len(reason), 1000)
        self.assertNotIn("\n", reason)
        return reason

    def test_isValueError(self) -> None:
        self.assertTrue(issubclass(EndpointError, ValueError))

    def test_unknown(self) -> None:
        """The error message shows the valid forms."""
        for text in ("", ":5000", "host:-1", "-1", "http://host:80", "host:port", "[]:5000"):
            self.assertIn(SYNTAX, self.error(text))
        # `int` accepts these digits.
        self.assertIn(SYNTAX, self.error("\u0665\u0660\u0660\u0660"))
        for text in ("exa mple:5000", "a\x01b:5000", "[eth0]:5000", "x" * 10**6):
            self.assertIn(SYNTAX, self.error(text))
        for text in ("[:::]:5000", "[1::2::3]:5000"):
            self.assertIn("not an IPv6 address", self.error(text))

    def test_portMissing(self) -> None:
        """The error message shows the address with a port."""
        for host in ("127.0.0.1", "127.1", "localhost", "web1", "a_b.example", "b\xfccher.example"):
            for text in (host, f"{host}:"):
                for make in (server_endpoint, client_endpoint):
                    error = self.assertRaises(EndpointError, make, MemoryReactorClock(), text)
                    self.assertEqual(str(error), f"{host} has no port; write {host}:5000")
        for text in ("::1", "::1:5000", "[::1]", "[::1]:", "[::1:5000", "fe80::1%eth0", "::"):
            self.assertIn("in brackets, with a port, as in [::1]:5000", self.error(text))

    def test_types(self) -> None:
        """A value of another type is rejected, with the types that are accepted."""
        for value in (None, True, 5000.0, b"5000", ["127.0.0.1", 5000], Unprintable()):
            for make in (server_endpoint, client_endpoint):
                with self.assertRaisesRegex(TypeError, "^endpoint must be a port, a str, a tuple"):
                    make(MemoryReactorClock(), value)  # type: ignore[operator]
        for port in ("5000", None, True, 5000.0):
            with self.assertRaisesRegex(TypeError, "^the port in .* must be a whole number$"):
                server_endpoint(None, ("127.0.0.1", port))  # type: ignore[arg-type]

    def test_tuples(self) -> None:
        """In the C{socket} module, an empty host means all interfaces; here, it is an error."""
        for address, reason in (
            ((), "expected (HOST, PORT), or (IPV6, PORT, FLOWINFO, SCOPE)"),
            (("127.0.0.1",), "expected (HOST, PORT), or "),
            ((5000, "127.0.0.1"), "expected (HOST, PORT), or "),
            ((b"::1", 5000), "expected (HOST, PORT), or "),
            (("127.0.0.1", 5000, 0, 0), "expected (HOST, PORT), or "),
            (("", 5000), "expected a host name, an IP address, or 0.0.0.0 or :: for all"),
            (("[::1]", 5000), "expected a host name, an IP address"),
            (("127.0.0.1:5000", 5000), "not an IPv6 address"),
            (("::1", 65536), "the port must be from 0 to 65535"),
            (("::1", -1, 0, 0), "the port must be from 0 to 65535"),
        ):
            self.assertIn(reason, self.error(address))
        with self.assertRaisesRegex(ValueError, r"^the scope in \('::1', 1, 0, -1\) must be at"):
            server_endpoint(None, ("::1", 1, 0, -1))

    def test_connectToAnyPort(self) -> None:
        for endpoint in (0, "0", "[::1]:0", ("127.0.0.1", 0)):
            with self.assertRaisesRegex(EndpointError, "^cannot connect to port 0 of (127|::1)"):
                client_endpoint(MemoryReactorClock(), endpoint)

    def test_systemd(self) -> None:
        """Without a socket from systemd, the error message explains what is missing."""
        process = str(os.getpid())
        for variables, cause in (
            ({}, "no sockets to this process (LISTEN_FDS or LISTEN_FDNAMES is not set)"),
            (
                {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
                f"no sockets to this process (LISTEN_PID is '1', and this process is {process})",
            ),
            (
                {"LISTEN_FDS": "one", "LISTEN_PID": process},
                "no sockets to this process (LISTEN_FDS is 'one')",
            ),
            # Twisted removes the other variables.
            ({"LISTEN_FDNAMES": "a:b"}, "no such socket to this process, only a, b"),
        ):
            for text in (
                "systemd:domain=INET:index=0",
                "systemd:domain=INET:name=x",
                "haproxy:systemd:domain=INET:name=x",
            ):
                with mock.patch.dict(os.environ, variables):
                    reason = self.error(text, server_endpoint)
                self.assertEqual(reason, f"cannot use {text!r}: systemd passed {cause}")

    def test_serversOnly(self) -> None:
        for text in ("systemd:domain=INET:index=0", "tcp6:a:b", "haproxy:tcp:5000", "stdio:"):
            self.assertIn(": is for servers", self.error(text, client_endpoint))

    def test_standardInput(self) -> None:
        """Twisted makes a connection of C{stdio:}, which is not a port that could be closed."""
        for text in ("stdio:", "haproxy:stdio:"):
            error = self.assertRaises(EndpointError, server_endpoint, MemoryReactorClock(), text)
            self.assertEqual(str(error), "cannot listen on standard input and output")

    def test_hostNames(self) -> None:
        """Names that cannot be looked up are rejected."""
        for host in ("a..b", ".", f"{'x' * 64}.example", f"\xfc.{'x' * 64}"):
            ssl = f"ssl:{host}:5000:hostname=a.example"
            for text in (f"{host}:5000", (host, 5000), f"tcp:{host}:5000", ssl):
                error = self.assertRaises(
                    EndpointError, client_endpoint, MemoryReactorClock(), text
                )
                self.assertIn(" is not a host name: a label is empty, longer than", str(error))

    @skipIf(no_tls, no_tls)
    def test_tlsNames(self) -> None:
        """Twisted's "tls:" accepts only valid domain names."""
        for host in ("a_b", "a..b"):
            self.assertIn(
                "tls: requires a valid domain name; use --tls, or tls_endpoint in Python",
                self.error(f"tls:{host}:5000", client_endpoint),
            )

    def test_sslWithoutName(self) -> None:
        """Without a host name, Twisted's "ssl:" would accept any certificate."""
        for text in ("ssl:localhost:5000", "ssl:localhost:5000:caCertsDir=/etc/ssl/certs"):
            reason = self.error(text, client_endpoint)
            self.assertIn("ssl: without hostname=NAME verifies no name; use tls:HOST", reason)

    def test_portOutOfRange(self) -> None:
        reason = " is not an endpoint: the port must be from 0 to 65535"
        for text in (-1, 65536, 10**30, "70000", "host:70000", "[::1]:70000", "9" * 10_000):
            self.assertIn(reason, self.error(text))
        for text in (
            "tcp:70000",
            "tcp:-1",
            f"tcp:{'9' * 10_000}",
            "tcp:port=70000:interface=\\:\\:1",
            "ssl:70000:privateKey=x",
            "haproxy:tcp:70000",
        ):
            self.assertIn(reason, self.error(text, server_endpoint))
        for text in ("tcp:host:70000", "tcp:host=a:port=-1", "tls:host:70000"):
            self.assertIn(reason, self.error(text, client_endpoint))

    def test_badTwistedStrings(self) -> None:
        """All exceptions of Twisted's parsers become an `EndpointError` with their message."""
        for text in ("tcp:x", "tcp:", "tcp:5000:nonsense=1", "ssl:5000:privateKey=/nowhere"):
            self.assertIn(SYNTAX, self.error(text, server_endpoint))
            self.assertIn(SYNTAX, self.error(text, client_endpoint))
        for text, reason in (
            ("tcp:1:nonsense=1", "nonsense"),
            ("tcp:x", "(invalid literal for int() with base 10: 'x')"),
            ("unix:x:mode=abc", "(invalid literal for int() with base 8: 'abc')"),
            ("Foo:x", "'Foo:x' is not an endpoint (Unknown endpoint type: "),
            ("ssl:5000:privateKey=/nowhere", "No such file or directory: '/nowhere'"),
        ):
            self.assertIn(reason, self.error(text, server_endpoint))

    def test_cause(self) -> None:
        error = self.assertRaises(EndpointError, server_endpoint, MemoryReactorClock(), "tcp:x")
        self.assertIsInstance(error.__cause__, ValueError)

    def test_unix(self) -> None:
        """An empty path is rejected.  Linux would bind such a socket to a generated name."""
        for text in ("unix:", "unix::mode=600", "unix:address="):
            self.assertIn("the path is missing", self.error(text, server_endpoint))
        for text in ("unix:", "unix:path="):
            self.assertIn("the path is missing", self.error(text, client_endpoint))
        self.assertIn("the path is missing", self.error("haproxy:unix:", server_endpoint))

    def test_longPath(self) -> None:
        """Twisted's client raises no suitable error for a path that is too long."""
        for text in (f"unix:{'x' * 108}", Path("\xe9" * 54), Path("x" * 10**6)):
            self.assertIn("the path is longer than 107 bytes", self.error(text))
        text = f"haproxy:unix:{'x' * 108}"
        self.assertIn("the path is longer than 107 bytes", self.error(text, server_endpoint))
        for text in (f"unix:{'x' * 107}", f"unix:{'x' * 107}:mode=600", Path(":" * 107)):
            server_endpoint(MemoryReactorClock(), text)


class HostTests(SynchronousTestCase):
    def test_hosts(self) -> None:
        """`host_of` returns the name that the server's certificate must be valid for."""
        cases = {
            "5000": "127.0.0.1",
            "metrics.example:5000": "metrics.example",
            "[2001:db8::1]:5000": "2001:db8::1",
            "tcp:metrics.example:5000": "metrics.example",
            "tcp:host=metrics.example:port=5000": "metrics.example",
            "tcp:port=5000:host=metrics.example": None,
            "unix:/run/x": None,
            "unix:5000": None,
        }
        for text, host in cases.items():
            self.assertEqual(host_of(text), host, text)

    def test_ownTLS(self) -> None:
        for text, own in (("ssl:5000", True), (" tls:a:5", True), ("5000", False), ("a:1", False)):
            self.assertEqual(has_own_tls(text), own, text)
