"""
Connections to an exporter within the process.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from zope.interface import implementer

from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.protocol import MetricsProtocol


@implementer(IStreamClientEndpoint)
class LocalEndpoint:
    """
    Connects to an exporter of this process, to which the networks and limits for clients do not
    apply.  TLS is not needed.
    """

    def __init__(self, exporter: MetricsFactory) -> None:
        self._exporter = exporter

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if self._exporter.silenced:
            return fail(ConnectionRefusedError())
        reactor: Any = self._exporter.reactor
        server, client = socket.socketpair()
        # The reactor uses duplicates.
        with server, client:
            server.setblocking(False)
            client.setblocking(False)
            reactor.adoptStreamConnection(
                server.fileno(), socket.AF_UNIX, _LocalFactory(self._exporter)
            )
            transport = reactor.adoptStreamConnection(
                client.fileno(), socket.AF_UNIX, protocolFactory
            )
        return succeed(transport.protocol)


class _LocalProtocol(MetricsProtocol):
    admitted = False


class _LocalFactory(Factory):
    noisy = False

    def __init__(self, exporter: MetricsFactory) -> None:
        self._exporter = exporter

    def buildProtocol(self, addr: IAddress | None) -> MetricsProtocol:
        exporter = self._exporter
        protocol = _LocalProtocol(
            exporter, exporter.stream, exporter.reactor, exporter.settings, "this process"
        )
        protocol.factory = self
        protocol.peer = addr
        return protocol
