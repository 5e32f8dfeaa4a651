"""
The exporter as a Twisted service, which listens on endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IStreamServerEndpoint

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.stats import Stats
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
        self._factory.stop_now()
