"""
Twisted endpoints from what a user wrote, which `txmetrics_tcp._net.endpoint_syntax` describes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import (
    IAddress,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins

from txmetrics_tcp._net.endpoint_syntax import (
    EndpointError,
    has_own_tls,
    host_and_port,
)
from txmetrics_tcp._net.tls_errors import TLS_NEEDS
from txmetrics_tcp._net.unix import UnixReactor

BACKLOG = 1024
"""
How many connections the kernel may hold until they are accepted.  With Twisted's 50, a crowd that
comes at once makes all others wait for a second and more.
"""

_E = TypeVar("_E")

_NO_PATH = re.compile(r"unix:((address|path)=)?(:.*)?")


def server_endpoint(reactor: Any, text: str | int) -> IStreamServerEndpoint:
    """
    Where to listen.  A port of 0 means one that is free.

    @raise EndpointError: it cannot be understood.
    """
    return _endpoint(
        reactor, text, _server_at, _server_from_string, IStreamServerEndpointStringParser
    )


def client_endpoint(reactor: Any, text: str | int) -> IStreamClientEndpoint:
    """
    Where to connect to.

    @raise EndpointError: it cannot be understood.
    """
    return _endpoint(
        reactor, text, _client_at, _client_from_string, IStreamClientEndpointStringParserWithReactor
    )


def show_address(address: IAddress | tuple[Any, ...] | str | bytes | None) -> str:
    """
    An address, as people write it.

    @param address: one of Twisted's; or as `socket` has it, which is host, port and perhaps more,
        or the path of a UNIX socket.
    """
    match address:
        case IPv4Address() | IPv6Address():
            return show_address((address.host, address.port))
        case (str() as host, port, *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case UNIXAddress():
            return show_address(address.name or b"")
        case str() | bytes():
            return f"unix:{os.fsdecode(address) or '(unnamed)'}"
    return str(address)


def _endpoint(
    reactor: Any,
    text: str | int,
    at: Callable[[Any, str, int], _E],
    parse: Callable[[Any, str], _E],
    parsers: Any,
) -> _E:
    text = str(text).strip()
    if address := host_and_port(text, lambda host: host in _prefixes(parsers)):
        return at(reactor, *address)
    try:
        if _NO_PATH.fullmatch(text):
            raise ValueError("there is no path")
        return parse(reactor, text)
    except Exception as error:
        if has_own_tls(text) and find_spec("OpenSSL") is None:
            raise EndpointError(f"{text!r} cannot be had: {TLS_NEEDS}") from error
        # Whatever a parser raises (KeyError, TypeError …), what the user wrote was wrong.
        reason = str(error) or type(error).__name__
        raise EndpointError(
            f"{text!r} is no endpoint ({reason}); give PORT, HOST:PORT, [IPV6]:PORT or a Twisted"
            " endpoint string such as unix:/run/metrics.sock"
        ) from error


def _server_at(reactor: Any, host: str, port: int) -> IStreamServerEndpoint:
    if ":" in host:
        return TCP6ServerEndpoint(reactor, port, BACKLOG, interface=host)
    return TCP4ServerEndpoint(reactor, port, BACKLOG, interface=host)


def _server_from_string(reactor: Any, text: str) -> IStreamServerEndpoint:
    if text.startswith("unix:"):
        reactor = UnixReactor(reactor)
    endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    return endpoint


def _client_from_string(reactor: Any, text: str) -> IStreamClientEndpoint:
    if text.startswith("ssl:") and ":hostname=" not in text:
        # Twisted would take any certificate.
        raise ValueError("ssl: checks no server's name; use tls:HOST:PORT, or add hostname=NAME")
    endpoint: IStreamClientEndpoint = clientFromString(reactor, text)
    return endpoint


def _client_at(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    if isIPAddress(host) or isIPv6Address(host):
        # In spite of its name it is for both, as long as nothing has to be looked up.
        return TCP4ClientEndpoint(reactor, host, port)
    # Unlike Twisted's "tcp:" it tries all of a name's addresses, of IPv6 too.
    return HostnameEndpoint(reactor, host, port)


def _prefixes(parsers: Any) -> set[str]:
    # What Twisted knows without a plugin, and what the plugins add: "tcp:5000" is theirs.
    return {"tcp", "ssl", "unix"} | {plugin.prefix for plugin in getPlugins(parsers)}
