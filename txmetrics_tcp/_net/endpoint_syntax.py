"""
The syntax of endpoints.

=====================  =========================================================
``5000``               the port, on the loopback interface
``192.0.2.1:5000``     the port, on the address; also ``localhost:5000``
``[::1]:5000``         the same for IPv6
``unix:/run/x.sock``   any Twisted endpoint string
=====================  =========================================================

This module does not import Twisted, so that parsing a command line stays fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable

DEFAULT_HOST = "127.0.0.1"
"""
The default host to listen on and to connect to.  Other machines cannot connect to the loopback
interface.
"""

DEFAULT_PORT = 5000
"""The default port of the Rust exporter, which defines the protocol."""

DEFAULT_ENDPOINT = f"{DEFAULT_HOST}:{DEFAULT_PORT}"

PORT = re.compile(r"[0-9]+")
HOST_PORT = re.compile(r"(?P<host>[^:\[\]/\\=]+|\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]):(?P<port>[0-9]+)")
"""``HOST:PORT`` or ``[IPV6]:PORT``; the groups are C{host}, C{v6} and C{port}."""

_NO_HOST = {"unix", "systemd", "fd", "stdio"}
_PREFIXED = ("tcp:", "unix:", "tls:", "ssl:")


class EndpointError(ValueError):
    """An endpoint is invalid.  The message names the endpoint and the reason."""


def host_of(text: str | int) -> str | None:
    """
    Return the host in an endpoint, for example to verify the server's certificate; None if the
    endpoint has no host.
    """
    text = str(text).strip()
    if PORT.fullmatch(text):
        return DEFAULT_HOST
    if text.startswith("tcp:"):
        # Twisted accepts tcp:HOST:PORT and tcp:host=HOST:port=PORT.
        text = text.removeprefix("tcp:").removeprefix("host=")
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
    # `int` raises ValueError for thousands of digits.
    if len(port) > 100 or int(port) > 65535:
        raise EndpointError(f"{text!r} is not an endpoint: the maximum port is 65535")
    return host, int(port)


def check_port(text: str) -> None:
    """
    Check the port of an endpoint without importing Twisted.  Endpoints that may be Twisted endpoint
    strings are not checked.

    @raise EndpointError: the port is greater than 65535.
    """
    host_and_port(text, lambda host: "." not in host and host != "localhost")
