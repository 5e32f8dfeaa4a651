"""
Make Twisted endpoints from text.  `txmetrics_tcp._net.endpoint_syntax` describes the syntax.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, TypeVar

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._net.endpoint_syntax import (
    DEFAULT_PORT,
    AnyEndpoint,
    EndpointError,
    check_has_port,
    check_twisted_ports,
    has_own_tls,
    host_and_port,
    host_of,
    plain_endpoint,
)
from txmetrics_tcp._net.internals import ResolvedEndpoint
from txmetrics_tcp._net.tls import SSLReactor
from txmetrics_tcp._net.tls_errors import TLS_NEEDS
from txmetrics_tcp._net.unix import MAX_PATH, UnixReactor

BACKLOG = 1024
"""
The kernel's queue length for connections that are not accepted yet.  With Twisted's default of 50,
many simultaneous connections would make other clients wait for a second or more.
"""

_E = TypeVar("_E")

_MAX_REASON = 200

_UNIX = re.compile(r"unix:((address|path)=)?(?P<path>(\\.|[^:\\])*)")

_WITH_PORT = ("tcp:", "tcp6:", "ssl:", "tls:")


def check_reactor(reactor: object) -> None:
    """
    @raise TypeError: the argument is not a reactor: probably, the caller omitted it.
    """
    if not IReactorTime.providedBy(reactor):
        raise TypeError(f"reactor must be a Twisted reactor, not {short_repr(reactor)}")


def server_endpoint(
    reactor: Any, endpoint: AnyEndpoint, usual_port: int = DEFAULT_PORT
) -> IStreamServerEndpoint:
    """
    Make an endpoint to listen on.  Port 0 means any free port.

    @param usual_port: the port that the error message suggests if C{endpoint} has none.
    @raise EndpointError: C{endpoint} is not a valid endpoint.
    @raise TypeError: C{endpoint} is of a wrong type.
    """
    return _endpoint(
        reactor,
        endpoint,
        _server_at,
        _server_from_string,
        IStreamServerEndpointStringParser,
        usual_port,
    )


def check_server_endpoint(endpoint: AnyEndpoint) -> None:
    """
    Check an endpoint to listen on, without a reactor.  Strings for plugins of other projects
    are not checked: their parsers may use the reactor.

    @raise EndpointError: C{endpoint} is not a valid endpoint.
    @raise TypeError: C{endpoint} is of a wrong type.
    """
    text = plain_endpoint(endpoint)
    if isinstance(text, str):
        prefix = text.removeprefix("haproxy:").partition(":")[0]
        for parser in getPlugins(IStreamServerEndpointStringParser):
            if parser.prefix == prefix and not type(parser).__module__.startswith("twisted."):
                return
    server_endpoint(None, endpoint)


def client_endpoint(reactor: Any, endpoint: AnyEndpoint) -> IStreamClientEndpoint:
    """
    Make an endpoint to connect to.

    @raise EndpointError: C{endpoint} is not a valid endpoint.
    @raise TypeError: C{endpoint} is of a wrong type.
    """
    return _endpoint(
        reactor,
        endpoint,
        _client_at,
        _client_from_string,
        IStreamClientEndpointStringParserWithReactor,
    )


def check_client_endpoint(endpoint: AnyEndpoint) -> None:
    """
    Check an endpoint to connect to, without a reactor.

    @raise EndpointError: C{endpoint} is not a valid endpoint.
    @raise TypeError: C{endpoint} is of a wrong type.
    """
    client_endpoint(_NO_REACTOR, endpoint)


_NO_REACTOR = SimpleNamespace(nameResolver=None)
"""Takes the place of a reactor in an endpoint that is not used."""

directlyProvides(_NO_REACTOR, IReactorPluggableNameResolver)


def as_endpoint(
    reactor: object, endpoint: IStreamClientEndpoint | AnyEndpoint
) -> IStreamClientEndpoint:
    """
    Return an endpoint unchanged; make one of a port, a string, a tuple or a path object.

    @raise EndpointError: the endpoint is not valid.
    @raise TypeError: the endpoint is of a wrong type.
    """
    if IStreamClientEndpoint.providedBy(endpoint):
        return endpoint
    return client_endpoint(reactor, endpoint)


@implementer(IStreamClientEndpoint)
class ObservedEndpoint:
    """Wraps an endpoint, and reports each attempt and each failure."""

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        started: Callable[[], None],
        failed: Callable[[Failure], Failure],
    ) -> None:
        self._endpoint = endpoint
        self._started = started
        self._failed = failed

    def __repr__(self) -> str:
        return repr(self._endpoint)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self._started()
        return maybeDeferred(self._endpoint.connect, protocolFactory).addErrback(self._failed)


def _endpoint(
    reactor: Any,
    endpoint: AnyEndpoint,
    at: Callable[[Any, str, int], _E],
    parse: Callable[[Any, str], _E],
    parsers: Any,
    usual_port: int = DEFAULT_PORT,
) -> _E:
    address = plain_endpoint(endpoint)
    if isinstance(address, str):

        def is_prefix(host: str) -> bool:
            # Only called if needed: this looks for plugins.
            return host in _prefixes(parsers)

        found = host_and_port(address, is_prefix)
        if found is None:
            check_has_port(address, is_prefix, usual_port)
            return _parsed(reactor, address, parse)
        address = found
    host, port = address
    if ":" in host and not isIPv6Address(host):
        raise EndpointError(f"{short_repr(endpoint)} is not an endpoint: not an IPv6 address")
    return at(reactor, host, port)


def _parsed(reactor: Any, text: str, parse: Callable[[Any, str], _E]) -> _E:
    plain = text.removeprefix("haproxy:")
    try:
        if match := _UNIX.match(plain):
            path = re.sub(r"\\(.)", r"\1", match["path"])
            if not path:
                raise ValueError("the path is missing")
            if len(os.fsencode(path)) > MAX_PATH:
                raise ValueError(f"the path is longer than {MAX_PATH} bytes")
        elif plain.startswith(_WITH_PORT):
            check_twisted_ports(text)
        return parse(reactor, text)
    except EndpointError:
        raise
    except Exception as error:
        if has_own_tls(text) and find_spec("OpenSSL") is None:
            raise EndpointError(f"cannot use {short_repr(text)}: {TLS_NEEDS}") from error
        if plain.startswith("systemd:") and isinstance(error, LookupError):
            raise EndpointError(f"cannot use {short_repr(text)}: {_systemd_reason()}") from error
        # Twisted's parsers raise several types (KeyError, TypeError …) for invalid text.
        reason = (str(error) or type(error).__name__)[:_MAX_REASON]
        raise EndpointError(
            f"{short_repr(text)} is not an endpoint ({reason}); expected PORT, HOST:PORT,"
            " [IPV6]:PORT or a Twisted endpoint string such as unix:/run/metrics.sock"
        ) from error


def _systemd_reason() -> str:
    """Return why a socket of systemd does not exist."""
    number, process = os.environ.get("LISTEN_FDS"), os.environ.get("LISTEN_PID")
    if number is None:
        # Not set by systemd, or removed by Twisted, which has used it.
        names = os.environ.get("LISTEN_FDNAMES")
        if names:
            return f"systemd passed no such socket to this process, only {names.replace(':', ', ')}"
        reason = "LISTEN_FDS or LISTEN_FDNAMES is not set"
    elif process == str(os.getpid()):
        reason = f"LISTEN_FDS is {short_repr(number)}"
    else:
        reason = f"LISTEN_PID is {short_repr(process)}, and this process is {os.getpid()}"
    return f"systemd passed no sockets to this process ({reason})"


def _server_at(reactor: Any, host: str, port: int) -> IStreamServerEndpoint:
    if ":" in host:
        return TCP6ServerEndpoint(reactor, port, BACKLOG, interface=host)
    return TCP4ServerEndpoint(reactor, port, BACKLOG, interface=host)


def _server_from_string(reactor: Any, text: str) -> IStreamServerEndpoint:
    plain = text.removeprefix("haproxy:")
    if text.startswith("unix:"):
        reactor = UnixReactor(reactor)
    elif plain.startswith("ssl:"):
        reactor = SSLReactor(reactor)
    elif plain.startswith("stdio:"):
        # Twisted makes a connection of it, which is not a port that could be closed.
        raise EndpointError("cannot listen on standard input and output")
    endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    return endpoint


def _client_from_string(reactor: Any, text: str) -> IStreamClientEndpoint:
    if text.startswith("ssl:") and ":hostname=" not in text:
        # Twisted would accept any certificate.
        raise ValueError("ssl: without hostname=NAME verifies no name; use tls:HOST:PORT instead")
    for prefix in ("systemd:", "tcp6:", "haproxy:", "stdio:"):
        if text.startswith(prefix):
            raise EndpointError(f"cannot connect to {short_repr(text)}: {prefix} is for servers")
    host = host_of(text) if text.startswith(("tcp:", "ssl:")) else None
    if host and not isIPv6Address(host):
        _resolvable(host)
    try:
        endpoint: IStreamClientEndpoint = clientFromString(reactor, text)
    except UnicodeError:
        raise EndpointError(
            f"cannot connect to {short_repr(text)}: tls: requires a valid domain name; use --tls,"
            " or tls_endpoint in Python"
        ) from None
    return endpoint


def _client_at(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    if not port:
        raise EndpointError(
            f"cannot connect to port 0 of {host}: only a server can use any free port"
        )
    if isIPAddress(host) or isIPv6Address(host):
        # Works for IPv6 addresses as well, despite its name.
        return TCP4ClientEndpoint(reactor, host, port)
    # Unlike Twisted's "tcp:", this tries all IPv4 and IPv6 addresses of a name.
    return ResolvedEndpoint(reactor, _resolvable(host), port)


def _resolvable(host: str) -> str:
    """
    Return a host name in ASCII.

    @raise EndpointError: the resolver would not accept the name.
    """
    try:
        name = host if host.isascii() else _idna(host)
        # For ASCII, this checks the lengths of the labels.  `socket.getaddrinfo` does the same in a
        # thread, where Twisted ignores the error.
        name.encode("idna")
    except UnicodeError:
        raise EndpointError(
            f"{short_repr(host)} is not a host name: a label is empty, longer than 63 characters,"
            " or has characters that are not allowed"
        ) from None
    return name


def _idna(host: str) -> str:
    """
    @raise UnicodeError: the name has characters that are not allowed in host names.
    """
    try:
        import idna
    except ImportError:
        return host.encode("idna").decode()
    return idna.encode(host, uts46=True).decode()


def _prefixes(parsers: Any) -> set[str]:
    # Twisted's built-in prefixes, and those of its plugins.
    return {"tcp", "ssl", "unix"} | {plugin.prefix for plugin in getPlugins(parsers)}
