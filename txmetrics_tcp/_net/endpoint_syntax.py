"""
The syntax of endpoints.

=====================  =========================================================
``5000``               the port, on the loopback interface
``192.0.2.1:5000``     the port, on the address; also ``localhost:5000``
``[::1]:5000``         the same for IPv6
``unix:/run/x.sock``   any Twisted endpoint string
=====================  =========================================================

In Python, an endpoint may also be a port as an integer, an address of the C{socket} module (a tuple
of host and port; for IPv6 also of flow information and scope), or the path of a UNIX socket as a
path object.

This module does not import Twisted, so that parsing a command line stays fast.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from numbers import Integral
from typing import Any

from txmetrics_tcp._checks import at_least, short_repr

DEFAULT_HOST = "127.0.0.1"
"""
The default host to listen on and to connect to.  Other machines cannot connect to the loopback
interface.
"""

DEFAULT_PORT = 5000
"""The default port of the Rust exporter, which defines the protocol."""

DEFAULT_ENDPOINT = f"{DEFAULT_HOST}:{DEFAULT_PORT}"

PORT = re.compile(r"[0-9]+")
_HOST = r"[^:\[\]/\\=\s\x00-\x1f\x7f]+"
_IPV6 = r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%[^\[\]/\\=\s]+)?"

HOST_PORT = re.compile(rf"(?P<host>{_HOST}|\[(?P<v6>{_IPV6})\]):(?P<port>[0-9]+)")
"""``HOST:PORT`` or ``[IPV6]:PORT``; the groups are C{host}, C{v6} and C{port}."""

_ANY_HOST = re.compile(f"{_HOST}|{_IPV6}")

_HOST_ALONE = re.compile(r"(?P<host>\w[\w.-]{0,252}):?")
_TWISTED_PORT = re.compile(r":(?:port=)?(?P<port>-?[0-9]+)(?=:|$)")

AnyEndpoint = str | int | os.PathLike[str] | tuple[str, int] | tuple[str, int, int, int]
"""An endpoint in Python."""

_NO_HOST = {"unix", "systemd", "fd", "stdio"}
_PREFIXED = ("tcp:", "unix:", "tls:", "ssl:")


_CREDENTIALS = re.compile(r"(nats|https?)://[^\s/]*@")


class EndpointError(ValueError):
    """An endpoint is invalid.  The message names the endpoint and the reason."""


def without_credentials(text: str) -> str:
    """
    Remove the credentials from URLs in a message, which a user may have written by mistake.

        >>> without_credentials("no such file: nats://user:password@broker/METRICS")
        'no such file: nats://…@broker/METRICS'
    """
    return _CREDENTIALS.sub(r"\1://…@", text)


def host_of(text: str | int) -> str | None:
    """
    Return the host in an endpoint, for example to verify the server's certificate; None if the
    endpoint has no host.
    """
    text = str(text).strip()
    if PORT.fullmatch(text):
        return DEFAULT_HOST
    if text.startswith(("tcp:", "ssl:")):
        # Twisted accepts tcp:HOST:PORT and tcp:host=HOST:port=PORT.
        text = text.partition(":")[2].removeprefix("host=")
        text = text.partition(":")[0] + ":0"
    match = HOST_PORT.fullmatch(text)
    return None if match is None or match["host"] in _NO_HOST else match["v6"] or match["host"]


def reads_as_endpoint(text: str) -> bool:
    """Whether an argument is interpreted as an endpoint rather than as the name of a file."""
    return (
        PORT.fullmatch(text) is not None
        or HOST_PORT.fullmatch(text) is not None
        or text.startswith(_PREFIXED)
    )


def has_own_tls(text: str) -> bool:
    """Whether a Twisted endpoint string already includes TLS."""
    return text.strip().startswith(("ssl:", "tls:"))


def plain_endpoint(endpoint: AnyEndpoint) -> str | tuple[str, int]:
    """
    Convert an endpoint to text, or to a host and a port.

    @raise TypeError: the endpoint is of a wrong type.
    @raise EndpointError: a port is out of range, or a tuple is not an address.
    """
    match endpoint:
        case str():
            return endpoint.strip()
        case os.PathLike():
            # Twisted's syntax gives these characters a meaning.
            return "unix:" + re.sub(r"([\\:=])", r"\\\1", os.fsdecode(endpoint))
        case tuple():
            return _from_tuple(endpoint)
        case Integral() if not isinstance(endpoint, bool):
            return DEFAULT_HOST, _port(endpoint, endpoint)
    raise TypeError(
        "endpoint must be a port, a str, a tuple of host and port, or a path object,"
        f" not {short_repr(endpoint)}"
    )


def show_endpoint(endpoint: object) -> str:
    """Return a human-readable form of an endpoint."""
    match endpoint:
        case int():
            return f"{DEFAULT_HOST}:{endpoint}"
        case (str() as host, port, *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case os.PathLike():
            return f"unix:{os.fsdecode(endpoint)}"
    text = str(endpoint).strip()
    return f"{DEFAULT_HOST}:{text}" if PORT.fullmatch(text) else text


def _from_tuple(address: tuple[Any, ...]) -> tuple[str, int]:
    match address:
        case [str() as host, port]:
            scope = 0
        case [str() as host, port, _, scope] if ":" in host:
            pass
        case _:
            raise EndpointError(
                f"{short_repr(address)} is not an endpoint: expected (HOST, PORT), or"
                " (IPV6, PORT, FLOWINFO, SCOPE)"
            )
    if not _ANY_HOST.fullmatch(host):
        # In the socket module, an empty host means all interfaces.
        raise EndpointError(
            f"{short_repr(address)} is not an endpoint: expected a host name, an IP address, or"
            f" 0.0.0.0 or :: for all interfaces, not {short_repr(host)}"
        )
    if at_least(0, f"the scope in {short_repr(address)}", scope) and "%" not in host:
        # getsockname() returns link-local addresses with the name of the interface and its scope.
        host = f"{host}%{scope}"
    return host, _port(port, address)


def _port(port: object, endpoint: object) -> int:
    """
    Check a port.

    @param endpoint: the endpoint that contains it, for error messages.
    """
    if isinstance(port, bool) or not isinstance(port, Integral):
        raise TypeError(f"the port in {short_repr(endpoint)} must be a whole number")
    number = int(port)
    if not 0 <= number <= 65535:
        raise EndpointError(
            f"{short_repr(endpoint)} is not an endpoint: the port must be from 0 to 65535"
        )
    return number


def host_and_port(text: str, is_prefix: Callable[[str], bool]) -> tuple[str, int] | None:
    """
    Parse ``PORT``, ``HOST:PORT`` or ``[IPV6]:PORT``.

    @param is_prefix: returns whether C{HOST} in C{HOST:PORT} is the prefix of an endpoint string.
    @return: None for any other text, which may be a Twisted endpoint string.
    @raise EndpointError: the port is greater than 65535.
    """
    text = text.strip()
    host, port = DEFAULT_HOST, text
    if not PORT.fullmatch(text):
        match = HOST_PORT.fullmatch(text)
        if match is None or (match["v6"] is None and is_prefix(match["host"])):
            return None
        host, port = match["v6"] or match["host"], match["port"]
    return host, _port(_number(port), text)


def _number(digits: str) -> int:
    # `int` raises ValueError for thousands of digits.
    return int(digits.lstrip("0")[:10] or "0")


def check_port(text: str) -> None:
    """
    Check the port of an endpoint without importing Twisted.  Endpoints that may be Twisted endpoint
    strings are not checked.

    @raise EndpointError: the port is greater than 65535.
    """
    host_and_port(text, lambda host: "." not in host and host != "localhost")


def check_twisted_ports(text: str) -> None:
    """
    Check the ports in a Twisted endpoint string, which Twisted does not check.

    @raise EndpointError: a port is out of range.
    """
    for match in _TWISTED_PORT.finditer(text):
        _port(_number(match["port"]), text)


def host_alone(text: str) -> str | None:
    """Return the host if a text is a host name or an IPv4 address without a port, or None."""
    match = _HOST_ALONE.fullmatch(text)
    if match is None or match["host"].isdigit() or match["host"] in _NO_HOST:
        return None
    return match["host"]


def check_has_port(
    text: str,
    is_prefix: Callable[[str], bool] = lambda host: False,
    usual_port: int = DEFAULT_PORT,
) -> None:
    """
    @param is_prefix: returns whether ``HOST`` in ``HOST:`` is the prefix of an endpoint string.
    @param usual_port: the port that the error message suggests.
    @raise EndpointError: the text is a host name or an IP address without a port.
    """
    if (host := host_alone(text)) is not None and not is_prefix(host):
        raise EndpointError(f"{host} has no port; write {host}:{usual_port}")
    if _is_ipv6(text.removesuffix("]:").strip("[]")):
        raise EndpointError(
            f"{text!r} is not an endpoint: write an IPv6 address in brackets, with a port, as in"
            f" [::1]:{usual_port}"
        )


def _is_ipv6(text: str) -> bool:
    from ipaddress import IPv6Address

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
