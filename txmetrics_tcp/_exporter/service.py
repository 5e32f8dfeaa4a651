"""
Listening and stopping: the exporter as a Twisted service.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._net.endpoints import show_address
from txmetrics_tcp._net.exposure import audience
from txmetrics_tcp._net.internals import limit_accepts, report_rejected
from txmetrics_tcp._net.tls import ServerTLS

_log = Logger(namespace="txmetrics_tcp")


class ListenError(Exception):
    """It was not possible to listen.  The text says where, and why."""


class MetricsService(Service):
    """
    Streams metrics for as long as it runs.

    Add it to an application's services like any other.  A failure to listen leaves
    `privilegedStartService`, or `startService` where that is called alone, as `ListenError`: a
    program that was to be watched and cannot be should say so, and not only in its log.

    @ivar recorder: records from any thread, also before the service starts.
    """

    def __init__(
        self,
        factory: MetricsFactory,
        endpoints: Sequence[IStreamServerEndpoint],
        tls: ServerTLS | None = None,
    ) -> None:
        """
        @param endpoints: where to listen.
        @param tls: what connections on all endpoints begin with; None for no TLS, or where the
            endpoints have it already.
        """
        self._factory = factory
        self._endpoints = list(endpoints)
        self._tls = tls
        self._ports: list[IListeningPort] = []
        self._attempts: list[Deferred[None]] = []
        self._listening = False
        # How many calls of stop have not come to their end.
        self._stopping = 0
        self.recorder = TcpRecorder(factory.incoming, self)
        self.name = "metrics-tcp"

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """Where it listens; empty while it does not."""
        return tuple(port.getHost() for port in self._ports)

    @property
    def silenced(self) -> bool:
        """See `MetricsFactory.silenced`."""
        return self._factory.silenced

    def stats(self) -> Stats:
        """What happened to events so far.  May be called from any thread; see `Stats`."""
        return self._factory.stats()

    def listen(self) -> Deferred[None]:
        """
        Begin to listen on every endpoint.

        @return: a Deferred that fires when it listens on all, or fails with `ListenError` and
            listens on none.
        """

        def failed(reason: Failure) -> Deferred[None]:
            return self.stop().addCallback(lambda result: reason.raiseException())

        return self._listen().addErrback(failed)

    def stop(self) -> Deferred[None]:
        """
        Stop listening, send what was recorded, and close every connection.

        To be called on the reactor thread; a second call waits for the first.

        @return: fires when all are gone.
        """
        self._stopping += 1
        # Both at once: new clients are refused from now on.
        gone = self._factory.stop()
        return gatherResults([self._stop_listening(), gone]).addCallback(self._stopped)

    def reload_tls(self) -> None:
        """
        Read key and certificates again, for connections to come; those that there are go on.

        @raise TLSError: a file cannot be used; what was read before stays in use.
        """
        if self._tls is not None:
            self._tls.reload()

    def stop_now(self) -> None:
        """Where it is stopping: wait for no client any longer.  On the reactor thread."""
        self._factory.stop_now()

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
            # Not to be waited for: the caller is to know now, and a port is closed in the next
            # turn of the reactor only.
            self.stop()
            if raising:
                return reason
            if not stopped_meanwhile:
                _log.failure("No metrics are streamed", reason)
            return None

        errors: list[Failure] = []
        self._listen().addErrback(failed).addErrback(errors.append)
        raising = False
        if errors:
            errors[0].raiseException()

    def _listen(self) -> Deferred[None]:
        """As `listen`, but after a failure it may still listen somewhere."""
        if self._stopping:
            return fail(ListenError("Couldn't listen: it has not stopped yet"))
        self._listening = True
        factory: IProtocolFactory = self._factory
        if self._tls is not None:
            factory = self._tls.wrap(factory, self._factory.reactor)
        self._attempts = [
            maybeDeferred(endpoint.listen, factory).addCallback(self._listens)
            for endpoint in self._endpoints
        ]
        return DeferredList(self._attempts, consumeErrors=True).addCallback(self._listened)

    def _listens(self, port: IListeningPort) -> None:
        limit_accepts(port)
        report_rejected(port, self._factory.connection_rejected)
        self._ports.append(port)

    def _listened(self, results: list[tuple[bool, Any]]) -> None:
        self._attempts = []
        for success, reason in results:
            if not success:
                raise ListenError(_explain(reason.value)) from reason.value
        for port in self._ports:
            address = port.getHost()
            shown = show_address(address)
            _log.info("Streaming metrics on {address}", address=shown)
            certified = self._tls is not None and self._tls.wants_certificate
            if who := audience(address, self._factory.settings.allow, certified):
                _log.warn("{who} can read the metrics on {address}", who=who, address=shown)

    def _stop_listening(self) -> Deferred[None]:
        self._listening = False
        ports, self._ports = self._ports, []
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.cancel()
        stopped = [maybeDeferred(port.stopListening) for port in ports]
        return DeferredList(stopped, consumeErrors=True).addCallback(lambda results: None)

    def _stopped(self, results: object) -> None:
        self._stopping -= 1


def _explain(error: BaseException) -> str:
    """Where it was not possible to listen, and why."""
    match error:
        case CannotListenError(interface=None, port=bytes() | str() as path):
            return f"Couldn't listen on {show_address(path)}: {error.socketError}"
        case CannotListenError(interface=str() as host, port=port):
            where = show_address((host or "any interface", port))
            return f"Couldn't listen on {where}: {error.socketError}"
        case CancelledError():
            return "Couldn't listen: it was stopped before it could"
    return f"Couldn't listen: {error}"
