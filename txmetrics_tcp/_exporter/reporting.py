"""
Connections from an exporter to collectors, which other processes connect to as well.

Everything in this module runs on the reactor thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._exporter.protocol import MetricsProtocol
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.connection import Rejected
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.endpoints import ObservedEndpoint
from txmetrics_tcp._net.internals import silent_logger
from txmetrics_tcp._net.tls import check_server, explain
from txmetrics_tcp._net.tls_errors import TLSError

if TYPE_CHECKING:
    from txmetrics_tcp._exporter.factory import MetricsFactory

_log = Logger(namespace="txmetrics_tcp")

WAIT_AT_EXIT = 2.0
"""By default, the number of seconds that the end of a program waits for a connection."""

INITIAL_DELAY = 0.5
MAX_DELAY = 15.0
"""
The base of the delay between attempts, and the largest delay, in seconds.  Each failure increases
the delay by half.  A random time of up to one second is added, so that the processes of a restarted
collector do not all reconnect at the same moment.
"""

EXIT_DELAY = 0.1
"""The delay between attempts while the end of the program waits for a connection, in seconds."""

STABLE = 1.0
"""
The number of seconds after which a connection is a success.  A collector that rejects a process
closes the connection earlier.
"""


class CollectorConnection(ClientService):
    """
    Keeps a connection to a collector, and streams to it as to a client.

    The networks and limits for clients do not apply to it.  While it is not connected, a change of
    that is logged once, not each attempt.
    """

    def __init__(
        self,
        exporter: MetricsFactory,
        endpoint: IStreamClientEndpoint,
        collector: str,
        wait_at_exit: float,
    ) -> None:
        """
        @param collector: the address of the collector, human-readable.
        @param wait_at_exit: the number of seconds that `connected` waits at most.
        """
        # Twisted logs each attempt.
        self._log = silent_logger()
        super().__init__(
            ObservedEndpoint(endpoint, self._attempt_started, self._failed),
            _Outgoing(self),
            retryPolicy=self._delay,
            clock=exporter.reactor,
        )
        self.exporter: MetricsFactory = exporter
        self.collector: str = collector
        self.wait_at_exit: float = wait_at_exit
        self._policy = backoffPolicy(INITIAL_DELAY, MAX_DELAY)
        self._exit_policy = backoffPolicy(EXIT_DELAY, EXIT_DELAY, jitter=lambda: 0.0)
        # Since the last connection that was a success.
        self._failures = 0
        self._logged = False
        # Whether the next attempt has been scheduled.
        self._scheduled = False
        # Whether the collector receives the stream.
        self._streaming = False
        self._stable: Deadline | None = None
        self._finishing = False
        self._exit_limit: Deadline | None = None
        self._waiters: list[Deferred[None]] = []

    def startService(self) -> None:
        self._finishing = False
        self._failures = 0
        self._logged = False
        # As if a port listened, so that the recorder takes events, and a fork is noticed.
        self.exporter.doStart()
        super().startService()

    def connected(self) -> Deferred[None]:
        """
        Connect now, if it is not connected.

        @return: a Deferred that fires once the collector receives the stream, or after
            C{wait_at_exit} seconds.
        """
        if self._streaming or not (self.running and self.wait_at_exit) or self.exporter.silenced:
            return succeed(None)
        connected: Deferred[None] = Deferred()
        self._waiters.append(connected)
        if self._exit_limit is None:
            self._exit_limit = Deadline(self.exporter.reactor, self.wait_at_exit, self._gave_up)
            if self._scheduled:
                # The next attempt may be 15 seconds away.
                super().stopService()
                super().startService()
        return connected

    def give_up(self) -> None:
        """If `connected` is waiting, end that now."""
        if self._exit_limit is not None:
            self._exit_limit.cancel()
            self._end_wait()

    def finish(self) -> None:
        """Stop reconnecting.  `MetricsFactory.stop` closes the connection."""
        if not self.running or self._finishing:
            return
        self._finishing = True
        if not self.exporter.silenced:
            self.exporter.doStop()
            if not self._streaming:
                self.stopService()

    # Called by the connection, as `ServerHooks`.

    def client_arrived(self, client: _CollectorProtocol) -> None:
        self.exporter.client_arrived(client)

    def client_connected(self, client: _CollectorProtocol) -> None:
        self._streaming = True
        self._stable = Deadline(self.exporter.reactor, STABLE, self._succeeded)
        self.exporter.client_connected(client)
        if self._exit_limit is not None:
            # Not now, while the transport makes the connection.
            self._exit_limit.cancel()
            self._exit_limit = Deadline(self.exporter.reactor, 0, self._end_wait)

    def client_disconnected(self, client: _CollectorProtocol) -> None:
        self._streaming = False
        self.exporter.client_disconnected(client)

    def client_left(self, client: _CollectorProtocol) -> None:
        self.exporter.client_left(client)

    def client_rejected(
        self,
        client: _CollectorProtocol,
        reason: str,
        detail: str = "",
        failure: Failure | None = None,
    ) -> None:
        client.problem = reason + detail
        if failure is not None:
            self.exporter.client_rejected(client, reason, detail, failure)

    def lost(self, reason: str) -> None:
        """Called when a connection has ended."""
        stable, self._stable = self._stable, None
        if stable is not None:
            stable.cancel()
        if self._finishing:
            self.stopService()
        else:
            self._log_failure(reason)

    # Private.

    def _attempt_started(self) -> None:
        self._scheduled = False

    def _failed(self, reason: Failure) -> Failure:
        if not self._finishing:
            self._log_failure(_text(reason))
        return reason

    def _delay(self, attempt: int) -> float:
        self._failures += 1
        self._scheduled = True
        policy = self._policy if self._exit_limit is None else self._exit_policy
        return policy(self._failures)

    def _succeeded(self) -> None:
        self._stable = None
        self._failures = 0
        self._logged = False
        _log.info("Reporting metrics to {collector}", collector=self.collector)

    def _log_failure(self, reason: str) -> None:
        if not self._logged:
            self._logged = True
            _log.warn(
                "No connection to the collector {collector}: {reason}; trying again",
                collector=self.collector,
                reason=reason,
            )

    def _gave_up(self) -> None:
        _log.warn(
            "Stopping without a connection to the collector {collector}: it does not receive the"
            " last metrics",
            collector=self.collector,
        )
        self._end_wait()

    def _end_wait(self) -> None:
        self._exit_limit = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)


class _CollectorProtocol(MetricsProtocol):
    """
    The connection to a collector.

    @ivar problem: why it was closed, if this side closed it.
    """

    admitted = False

    def __init__(self, connection: CollectorConnection, address: str) -> None:
        exporter = connection.exporter
        super().__init__(connection, exporter.stream, exporter.reactor, exporter.settings, address)
        self._connection = connection
        self.problem: str | None = None

    def handshakeCompleted(self) -> None:
        try:
            check_server(self.transport)
        except TLSError as error:
            self.problem = f"TLS failed: {error}"
            self.abort()
        else:
            super().handshakeCompleted()

    def readConnectionLost(self) -> None:
        # A collector does not close only its sending side, as some clients do.
        self.problem = "the collector closed the connection"
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        present = self._present
        super().connectionLost(reason)
        if present:
            self._connection.lost(self.problem or _text(reason))


class _Outgoing(Factory):
    """Builds the protocols of a `CollectorConnection`."""

    noisy = False

    def __init__(self, connection: CollectorConnection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> _CollectorProtocol | Rejected:
        if self._connection.exporter.silenced:
            return Rejected()
        protocol = _CollectorProtocol(self._connection, show_address(addr))
        protocol.factory = self
        protocol.peer = addr
        return protocol


def _text(reason: Failure) -> str:
    """Return a reason as human-readable text, without a full stop."""
    tls = explain(reason.value)
    if tls is not None:
        return f"TLS failed: {tls}"
    return reason.getErrorMessage().rstrip(".") or type(reason.value).__name__
