"""
The endpoints of StatsD: where to listen, as text and as Python values.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IStreamServerEndpoint

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._net.endpoint_syntax import (
    HOST_PORT,
    AnyEndpoint,
    EndpointError,
    check_has_port,
    host_and_port,
    plain_endpoint,
)
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.unix import MAX_PATH

DEFAULT_PORT = 8125

DEFAULT_ENDPOINT = f"127.0.0.1:{DEFAULT_PORT}"
"""The default endpoint: UDP."""

_UNIXGRAM = re.compile(r"unixgram:(?P<path>[^:]+)(:mode=(?P<mode>[0-7]{3,4}))?")
_UNIX_MODE = 0o600


@dataclass(frozen=True)
class DatagramEndpoint:
    """
    Where to receive datagrams.

    @ivar host: the host of UDP; None for a UNIX socket.
    @ivar port: the port of UDP.
    @ivar path: the path of a UNIX socket.
    @ivar mode: the mode of its file.
    """

    host: str | None = None
    port: int = 0
    path: str = ""
    mode: int = _UNIX_MODE


AnyStatsDEndpoint = AnyEndpoint | DatagramEndpoint | IStreamServerEndpoint


def statsd_endpoint(
    reactor: Any, endpoint: AnyStatsDEndpoint
) -> DatagramEndpoint | IStreamServerEndpoint:
    """
    Return where to listen; see `txmetrics_tcp.bridges.statsd.StatsDService`.

    @raise EndpointError: the endpoint is not valid.
    @raise TypeError: the endpoint is of a wrong type.
    """
    if isinstance(endpoint, DatagramEndpoint) or IStreamServerEndpoint.providedBy(endpoint):
        return endpoint
    if isinstance(endpoint, os.PathLike):
        return _unix_endpoint(os.fsdecode(endpoint))
    address = plain_endpoint(endpoint)
    if isinstance(address, str):
        if address.startswith("unixgram:"):
            match = _UNIXGRAM.fullmatch(address)
            if match is None:
                raise EndpointError(
                    f"{short_repr(address)} is not an endpoint: expected unixgram:PATH or"
                    " unixgram:PATH:mode=660"
                )
            return _unix_endpoint(match["path"], int(match["mode"] or "600", 8))
        scheme, _, rest = address.partition(":")
        if scheme == "tcp" and HOST_PORT.fullmatch(rest):
            return server_endpoint(reactor, rest, DEFAULT_PORT)
        text = rest if scheme == "udp" else address
        found = host_and_port(text, lambda host: "." not in host and host != "localhost")
        if found is None:
            check_has_port(text, usual_port=DEFAULT_PORT)
            if scheme == "udp":
                raise EndpointError(
                    f"{short_repr(address)} is not an endpoint: expected udp:PORT, udp:HOST:PORT or"
                    " udp:[IPV6]:PORT"
                )
            return server_endpoint(reactor, text, DEFAULT_PORT)
        address = found
    host, port = address
    return DatagramEndpoint(host, port)


def _unix_endpoint(path: str, mode: int = _UNIX_MODE) -> DatagramEndpoint:
    if not path or len(os.fsencode(path)) > MAX_PATH:
        raise EndpointError(
            f"{short_repr(path)} is not an endpoint: the path is empty, or longer than"
            f" {MAX_PATH} bytes"
        )
    return DatagramEndpoint(path=path, mode=mode)
