"""
What a command says about its connection, for people.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from txmetrics_tcp._client.service import (
    SILENCE,
    Connected,
    Connecting,
    ConnectionState,
    Disconnected,
    Waiting,
)
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_HOST
from txmetrics_tcp._net.endpoints import show_address
from txmetrics_tcp._view.numbers import show_seconds


class SilenceMessage:
    """
    Reports, once, that a server has sent nothing for a while.

    A server that requires TLS waits for the handshake of a client that does not use it.
    """

    def __init__(self, clock: IReactorTime, say: Callable[[str], object], tls: bool) -> None:
        """
        @param say: takes a message of one line.
        @param tls: whether the client uses TLS.
        """
        self._clock = clock
        self._say = say
        self._tls = tls
        self._reported = False
        self._waiting: Deadline | None = None

    def state_changed(self, state: ConnectionState) -> None:
        """The connection is in another state."""
        self.end_silence()
        if isinstance(state, Connected) and not self._reported:
            self._waiting = Deadline(self._clock, SILENCE, self._report)

    def end_silence(self) -> None:
        """The server has sent something, or there is no connection."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _report(self) -> None:
        self._waiting = None
        self._reported = True
        hint = "" if self._tls else "; does the server want TLS (--tls-ca)?"
        self._say(f"nothing has come yet{hint}")


class ConnectionMessages(SilenceMessage):
    """Reports also each attempt to connect, once, and the end of each connection."""

    def __init__(
        self, endpoint: str, clock: IReactorTime, say: Callable[[str], object], tls: bool
    ) -> None:
        """
        @param endpoint: where the server is, as the user wrote it.
        """
        super().__init__(clock, say, tls)
        self._server = server_name(endpoint)
        self._begun = False
        self._lost = ""

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


def server_name(endpoint: str) -> str:
    """What a server is called, by what the user wrote for where it is."""
    return show_address((DEFAULT_HOST, endpoint)) if endpoint.isdigit() else endpoint
