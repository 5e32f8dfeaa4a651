"""
The exporter as a Twisted service, which listens on endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from txmetrics_tcp._checks import seconds_from, short_repr
from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.reporting import WAIT_AT_EXIT, CollectorConnection
from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._net.endpoint_syntax import AnyEndpoint, show_endpoint
from txmetrics_tcp._net.endpoints import as_endpoint
from txmetrics_tcp._net.listening import ListeningService
from txmetrics_tcp._net.tls import ServerTLS


class MetricsService(ListeningService):
    """
    Streams metrics while it runs.

    Add it to an application like any other service.  If listening fails immediately,
    `privilegedStartService` raises `ListenError`, or `startService` if it is called alone.  A later
    failure is only logged.

    @ivar recorder: records from any thread, including before the service starts.
    """

    announcement = "Streaming metrics on {address}"
    purpose = "streamed"

    def __init__(
        self,
        factory: MetricsFactory,
        endpoints: Sequence[IStreamServerEndpoint],
        tls: ServerTLS | None = None,
    ) -> None:
        """
        @param endpoints: the endpoints to listen on.
        @param tls: wraps the connections of all endpoints in TLS; None for no TLS, or if the
            endpoints provide it.
        @raise TypeError: an argument is of the wrong type.
        """
        if not isinstance(factory, MetricsFactory):
            raise TypeError(f"factory must be a MetricsFactory, not {short_repr(factory)}")
        super().__init__(factory, endpoints, tls, factory.settings.allow)
        self._factory = factory
        self.recorder: TcpRecorder = TcpRecorder(factory.incoming, self)
        self.name = "metrics-tcp"
        self._collectors: list[CollectorConnection] = []

    @property
    def silenced(self) -> bool:
        """See `MetricsFactory.silenced`."""
        return self._factory.silenced

    def stats(self) -> Stats:
        """Return current statistics.  Thread-safe; see `Stats`."""
        return self._factory.stats()

    def publish_own_metrics(self) -> None:
        """See `TcpRecorder.publish_own_metrics`."""
        self._factory.publish_own_metrics()

    def report_to(
        self,
        endpoint: IStreamClientEndpoint | AnyEndpoint,
        wait_at_exit: float = WAIT_AT_EXIT,
    ) -> None:
        """
        Add a collector, before the service starts; see `TcpBuilder.report_to`.

        @raise EndpointError: the endpoint is not valid.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: C{wait_at_exit} is negative, 1,000,000,000 seconds or more, or NaN.
        """
        self._collectors.append(
            CollectorConnection(
                self._factory,
                as_endpoint(self._factory.reactor, endpoint),
                show_endpoint(endpoint),
                seconds_from(0, "wait_at_exit", wait_at_exit),
            )
        )

    def stop(self) -> Deferred[None]:
        """
        Stop listening, send pending events, and close all connections.  Before that, wait for
        connections to collectors; see `report_to`.

        Call this on the reactor thread.  Further calls wait for the first one.

        @return: a Deferred that fires when all ports are closed and all clients are disconnected.
        """
        stop = super().stop

        def stop_all(result: object) -> Deferred[None]:
            self._stopping -= 1
            for one in self._collectors:
                one.finish()
            return stop()

        # Until then, the service does not listen again.
        self._stopping += 1
        waiting = [one.connected() for one in self._collectors]
        return DeferredList(waiting).addCallback(stop_all)

    def reload_tls(self) -> None:
        """
        Reload the key and the certificates for new connections.  Existing connections continue.
        Does nothing if the service was made without C{tls}.

        @raise TLSError: a file cannot be used; the previous key and certificates remain in use.
        """
        if self._tls is not None:
            self._tls.reload()

    def stop_now(self) -> None:
        """If `stop` is waiting, disconnect all clients now.  Call this on the reactor thread."""
        for one in self._collectors:
            one.give_up()
        self._factory.stop_now()

    def try_listening(self) -> Deferred[None]:
        return super().try_listening().addCallback(self._report)

    def _report(self, result: None) -> None:
        for one in self._collectors:
            if not one.running:
                one.startService()
