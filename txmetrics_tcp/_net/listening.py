"""
A Twisted service that listens on endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from typing import Protocol as Interface

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    fail,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.exposure import audience
from txmetrics_tcp._net.failures import without_frames
from txmetrics_tcp._net.internals import keep_others_file, limit_accepts, report_rejected
from txmetrics_tcp._net.tls import ServerTLS

_log = Logger(namespace="txmetrics_tcp")


class ListenError(Exception):
    """Listening failed.  The message names the address and the cause."""


class Server(Interface):
    """
    What a `ListeningService` needs of its factory, which is also an C{IProtocolFactory}.
    """

    @property
    def reactor(self) -> Any: ...

    @property
    def silenced(self) -> bool:
        """Whether the ports belong to the parent of this process."""

    def connection_rejected(self, address: str, reason: str) -> None:
        """Log a connection that was closed before it reached C{buildProtocol}."""

    def stop(self) -> Deferred[None]:
        """Close all connections, and reject further ones until a port listens again."""


class ListeningService(Service):
    """
    Listens while it runs, and logs each address and who can read the metrics there.

    If listening fails immediately, `privilegedStartService` raises `ListenError`, or `startService`
    if it is called alone.  A later failure is only logged.

    @cvar announcement: the log line for each address.
    @cvar purpose: completes "no metrics are …", which is logged after a late failure.
    @cvar access: what clients can do, to complete "Any client … can …".
    """

    announcement: str
    purpose: str
    access: str = "read the metrics"

    def __init__(
        self,
        factory: Server,
        endpoints: Sequence[IStreamServerEndpoint],
        tls: ServerTLS | None,
        networks: Sequence[object] | None,
    ) -> None:
        """
        @param factory: the factory that accepts clients.
        @param endpoints: the endpoints to listen on.
        @param tls: wraps the connections of all endpoints in TLS; None for no TLS, or if the
            endpoints provide it.
        @param networks: the networks that the factory accepts clients from; None for any.
        @raise TypeError: C{endpoints} or C{tls} is of the wrong type.
        """
        if isinstance(endpoints, str) or not isinstance(endpoints, Iterable):
            raise TypeError(
                f"endpoints must be a sequence of endpoints, not {short_repr(endpoints)}"
            )
        self._endpoints = list(endpoints)
        for endpoint in self._endpoints:
            if not IStreamServerEndpoint.providedBy(endpoint):
                raise TypeError(f"endpoints must be server endpoints, not {short_repr(endpoint)}")
        if not (tls is None or isinstance(tls, ServerTLS)):
            raise TypeError(f"tls must be a ServerTLS, not {short_repr(tls)}")
        self._server = factory
        self._tls = tls
        self._networks = networks or ()
        self._ports: list[IListeningPort] = []
        self._attempts: list[Deferred[None]] = []
        self._listening = False
        # The number of unfinished calls of `stop`.
        self._stopping = 0

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """
        The addresses that the service listens on; empty while it does not listen, and in a forked
        child, where the ports are the parent's.
        """
        return () if self._server.silenced else tuple(port.getHost() for port in self._ports)

    def listen(self) -> Deferred[None]:
        """
        Listen on all endpoints.

        @return: a Deferred that fires when all endpoints listen.  If any of them fails, the others
            stop listening, and the Deferred fails with `ListenError`.
        """

        def failed(reason: Failure) -> Deferred[None]:
            return self.stop().addCallback(lambda result: reason.raiseException())

        return self.try_listening().addErrback(failed)

    def stop(self) -> Deferred[None]:
        """
        Stop listening, send pending events, and close all connections.

        Call this on the reactor thread.  Further calls wait for the first one.

        @return: a Deferred that fires when all ports are closed and all clients are disconnected.
        """
        self._stopping += 1
        # First the factory, so that it rejects new clients until the ports are closed.
        gone = self._server.stop()
        return gatherResults([self._stop_listening(), gone]).addCallback(self._stopped)

    # IService

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._start()

    def startService(self) -> None:
        if not self._listening:
            self._start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self.stop()

    def _start(self) -> None:
        raising = True

        def failed(reason: Failure) -> Failure | None:
            stopped_meanwhile = bool(self._stopping)
            # Not awaited, because a port is closed only in the next reactor iteration, and the
            # caller needs the error now.
            self.stop()
            if raising:
                return reason
            if not stopped_meanwhile:
                _log.failure(
                    "Could not listen: no metrics are {purpose}",
                    without_frames(reason),
                    purpose=self.purpose,
                )
            return None

        errors: list[Failure] = []
        self.try_listening().addErrback(failed).addErrback(errors.append)
        raising = False
        if errors:
            errors[0].raiseException()

    def try_listening(self) -> Deferred[None]:
        """
        Listen on all endpoints.  Unlike `listen`, this does not stop the service if one fails, and
        with a single endpoint, it may be called again then.

        @return: a Deferred that fires when all endpoints listen, or fails with `ListenError`.
        """
        if self._stopping:
            return fail(ListenError("Couldn't listen: the service has not finished stopping"))
        self._listening = True
        factory: Any = self._server
        if self._tls is not None:
            factory = self._tls.wrap(factory, self._server.reactor)
        self._attempts = [
            maybeDeferred(endpoint.listen, factory).addCallback(self._add_port, endpoint)
            for endpoint in self._endpoints
        ]
        return DeferredList(self._attempts, consumeErrors=True).addCallback(self._log_listening)

    def _add_port(self, port: IListeningPort, endpoint: IStreamServerEndpoint) -> None:
        keep_others_file(port, endpoint)
        limit_accepts(port)
        report_rejected(port, self._server.connection_rejected)
        self._ports.append(port)

    def _log_listening(self, results: list[tuple[bool, Any]]) -> None:
        self._attempts = []
        for success, reason in results:
            if not success:
                raise listen_error(reason.value) from reason.value
        self._check_ports()
        for port in self._ports:
            address = port.getHost()
            shown = show_address(address)
            _log.info(self.announcement, address=shown)
            certified = self._tls is not None and self._tls.wants_certificate
            if who := audience(address, self._networks, certified):
                _log.warn(
                    "{who} can {access} on {address}", who=who, access=self.access, address=shown
                )

    def _check_ports(self) -> None:
        """
        Check the ports that have been opened.  Overridden by subclasses.

        @raise ListenError: the service must not listen on one of them.
        """

    def _stop_listening(self) -> Deferred[None]:
        self._listening = False
        ports, self._ports = self._ports, []
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.cancel()
        if self._server.silenced:
            # The parent's ports: a port of a UNIX socket would remove the parent's file.
            ports = []
        stopped = [maybeDeferred(port.stopListening) for port in ports]
        return DeferredList(stopped, consumeErrors=True).addCallback(lambda results: None)

    def _stopped(self, results: object) -> None:
        self._stopping -= 1


def listen_error(error: BaseException) -> ListenError:
    """Return an error with the address and the cause."""
    return ListenError(_explain(error))


def _explain(error: BaseException) -> str:
    match error:
        case CannotListenError(interface=None, port=bytes() | str() as path):
            return f"Couldn't listen on {show_address(path)}: {error.socketError}"
        case CannotListenError(interface=str() as host, port=port):
            where = show_address((host or "any interface", port))
            return f"Couldn't listen on {where}: {error.socketError}"
        case CancelledError():
            return "Couldn't listen: the service was stopped meanwhile"
    return f"Couldn't listen: {error}"
