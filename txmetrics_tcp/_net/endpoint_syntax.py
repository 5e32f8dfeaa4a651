"""
What a user may write where an endpoint is asked for.

=====================  =========================================================
``5000``               that port, on the loopback interface
``192.0.2.1:5000``     that port, on that address; also ``localhost:5000``
``[::1]:5000``         the same for IPv6
``unix:/run/x.sock``   any of Twisted's endpoint strings
=====================  =========================================================

Nothing here needs Twisted, so that the command line can ask it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

DEFAULT_HOST = "127.0.0.1"
"""Where we listen, and connect to, unless told otherwise: what listens there is not on the net."""

DEFAULT_PORT = 5000
"""The port of the reference."""

DEFAULT_ENDPOINT = f"{DEFAULT_HOST}:{DEFAULT_PORT}"

PORT = re.compile(r"[0-9]+")
HOST_PORT = re.compile(r"(?P<host>[^:\[\]/\\=]+|\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]):(?P<port>[0-9]+)")
"""The first two forms, and the third; the groups are C{host}, C{v6} and C{port}."""

_NO_HOST = {"unix", "systemd", "fd", "stdio"}
_PREFIXED = ("tcp:", "unix:", "tls:", "ssl:")


class EndpointError(ValueError):
    """What was given is no endpoint.  The text says what would be one."""


def host_of(text: str | int) -> str | None:
    """The host that an endpoint names: whose certificate is to be expected there, for example."""
    text = str(text).strip()
    if PORT.fullmatch(text):
        return DEFAULT_HOST
    if text.startswith("tcp:"):
        # As Twisted has it: tcp:HOST:PORT, with names before them or not.
        text = text.removeprefix("tcp:").removeprefix("host=")
        text = text.partition(":")[0] + ":0"
    match = HOST_PORT.fullmatch(text)
    return None if match is None or match["host"] in _NO_HOST else match["v6"] or match["host"]


def reads_as_endpoint(text: str) -> bool:
    """Whether somebody who writes this means an endpoint rather than a file of that name."""
    return (
        PORT.fullmatch(text) is not None
        or HOST_PORT.fullmatch(text) is not None
        or text.startswith(_PREFIXED)
    )


def has_own_tls(text: str) -> bool:
    """Whether what listens on an endpoint, or connects to it, has TLS of its own."""
    return text.strip().startswith(("ssl:", "tls:"))


def host_and_port(text: str, is_prefix: Callable[[str], bool]) -> tuple[str, int] | None:
    """
    Take one of the first three forms apart.

    @param is_prefix: whether C{HOST} in C{HOST:PORT} begins an endpoint string instead.
    @return: None for an endpoint string.
    @raise EndpointError: the port is more than a port can be.
    """
    text = text.strip()
    host, port = DEFAULT_HOST, text
    if not PORT.fullmatch(text):
        match = HOST_PORT.fullmatch(text)
        if match is None or (match["v6"] is None and is_prefix(match["host"])):
            return None
        host, port = match["v6"] or match["host"], match["port"]
    # Python refuses to convert thousands of digits.
    if len(port) > 100 or int(port) > 65535:
        raise EndpointError(f"{text!r} is no endpoint: a port is at most 65535")
    return host, int(port)


def check_port(text: str) -> None:
    """
    Find a port that is none, as far as that is possible without knowing Twisted's prefixes.

    @raise EndpointError: the port is more than a port can be.
    """
    host_and_port(text, lambda host: "." not in host and host != "localhost")
