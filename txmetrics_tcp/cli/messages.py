"""
Messages about the connection of a command, human-readable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txmetrics_tcp._client.service import (
    SILENCE,
    Connected,
    Connecting,
    ConnectionState,
    Disconnected,
    Waiting,
)
from txmetrics_tcp._model import Unknown
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_HOST
from txmetrics_tcp._view.numbers import show_seconds


class SilenceMessage:
    """
    Report, once, that a connected server has sent no data for a while.

    A server that requires TLS sends nothing to a client without TLS, since it waits for a
    handshake.
    """

    def __init__(self, clock: IReactorTime, say: Callable[[str], object], tls: bool) -> None:
        """
        @param say: called with messages of one line.
        @param tls: whether the client uses TLS.
        """
        self._clock = clock
        self._say = say
        self._tls = tls
        self._reported = False
        self._waiting: Deadline | None = None

    def state_changed(self, state: ConnectionState) -> None:
        """Handle a new state of the connection."""
        self.end_silence()
        if isinstance(state, Connected) and not self._reported:
            self._waiting = Deadline(self._clock, SILENCE, self._report)

    def end_silence(self) -> None:
        """Cancel the report: data was received, or the connection ended."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _report(self) -> None:
        self._waiting = None
        self._reported = True
        hint = "" if self._tls else "; does the server require TLS (--tls-ca)?"
        self._say(f"no data received yet{hint}")


class ConnectionMessages(SilenceMessage):
    """
    Also report the first attempt to connect, each connection, each failure, and the first unknown
    event.
    """

    def __init__(
        self, endpoint: str, clock: IReactorTime, say: Callable[[str], object], tls: bool
    ) -> None:
        """
        @param endpoint: the endpoint of the server, as the user wrote it.
        """
        super().__init__(clock, say, tls)
        self._server = server_name(endpoint)
        self._begun = False
        self._lost = ""
        self._unknown = False

    def unknown(self, event: Unknown) -> None:
        """Report the first unknown event."""
        if not self._unknown:
            self._unknown = True
            self._say(f"cannot interpret {event.reason}; a newer version may")

    def received(self) -> None:
        """Handle received events."""
        self.end_silence()

    def state_changed(self, state: ConnectionState) -> None:
        super().state_changed(state)
        match state:
            case Connecting():
                if not self._begun:
                    self._begun = True
                    self._say(f"connecting to {self._server}")
            case Connected():
                self._lost = "disconnected from"
                self._say(f"connected to {self._server}")
            case Disconnected():
                self._lost = f"{self._lost or 'cannot connect to'} {self._server}: {state}"
            case Waiting():
                self._say(f"{self._lost}; next attempt in {show_seconds(state.seconds)}")
                self._lost = ""


class SourceMessages(SilenceMessage):
    """
    The messages about one of several servers: each connection, and each new reason for a failed or
    lost one.  Later attempts often fail for the same reason.
    """

    def __init__(
        self, name: str, clock: IReactorTime, say: Callable[[str], object], tls: bool
    ) -> None:
        """
        @param name: the name of the server.
        """
        super().__init__(clock, lambda text: say(f"{name}: {text}"), tls)
        self._name = name
        self._say_whole = say
        self._connected = False
        self._reason = ""
        self._last_message = ""
        self._unknown = False

    def unknown(self, event: Unknown) -> None:
        """Report the first unknown event."""
        if not self._unknown:
            self._unknown = True
            self._say(f"cannot interpret {event.reason}; a newer version may")

    def received(self) -> None:
        """Handle received events.  They end the series of failures."""
        self.end_silence()
        if self._last_message:
            self._last_message = ""
            self._say_whole(f"connected to {self._name}")

    def state_changed(self, state: ConnectionState) -> None:
        super().state_changed(state)
        match state:
            case Connected():
                self._connected = True
                if not self._last_message:
                    self._say_whole(f"connected to {self._name}")
            case Disconnected():
                done = "disconnected from" if self._connected else "cannot connect to"
                self._connected = False
                self._reason = f"{done} {self._name}: {state}"
            case Waiting():
                # Not reported when the command ends.
                if self._reason != self._last_message:
                    self._last_message = self._reason
                    self._say_whole(self._reason)


def received_nothing(names: Sequence[str]) -> str:
    """Return the message that the sources with these names have sent nothing."""
    if not names:
        return "found no sources"
    name = names[0] if len(names) == 1 else f"any of {len(names):,} sources"
    return f"received nothing from {name}"


def server_name(endpoint: str) -> str:
    """Return the name of a server in messages, from its endpoint as the user wrote it."""
    return show_address((DEFAULT_HOST, endpoint)) if endpoint.isdigit() else endpoint


def cannot_listen(endpoint: str, reason: Failure) -> str:
    """Return the message that a command cannot listen."""
    error = reason.value
    why = error.socketError if isinstance(error, CannotListenError) else error
    return f"cannot listen on {endpoint}: {why}"
