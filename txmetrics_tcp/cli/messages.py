"""
What a command says about its connection, for people.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from txmetrics_tcp._client.service import (
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

SILENCE = 2.0
"""After how many seconds of a connection without a single event that is said."""


class ConnectionRemarks:
    """Says how the connection to a server is: once for each attempt, and for each end of one."""

    def __init__(self, endpoint: str, say: Callable[[str], object]) -> None:
        """
        @param endpoint: where the server is, as the user wrote it.
        @param say: takes a remark of one line.
        """
        self.server = server_name(endpoint)
        self._say = say
        self._begun = False
        self._lost = ""

    def state_changed(self, state: ConnectionState) -> None:
        """The connection is in another state."""
        match state:
            case Connecting():
                if not self._begun:
                    self._begun = True
                    self._say(f"connecting to {self.server}")
            case Connected():
                self._lost = "disconnected from"
                self._say(f"connected to {self.server}")
            case Disconnected():
                self._lost = f"{self._lost or 'cannot connect to'} {self.server}: {state}"
            case Waiting():
                self._say(f"{self._lost}; next attempt in {show_seconds(state.seconds)}")
                self._lost = ""


class SilenceRemark:
    """
    Says, once, that nothing has come over a connection for a while.

    A server that wants TLS waits as we do, if we do not speak it.
    """

    def __init__(self, clock: IReactorTime, say: Callable[[str], object], tls: bool) -> None:
        """
        @param say: takes a remark of one line.
        @param tls: whether we speak it.
        """
        self._clock = clock
        self._say = say
        self._tls = tls
        self._said = False
        self._waiting: Deadline | None = None

    def connected(self) -> None:
        """There is a connection, over which nothing has come."""
        if not self._said:
            self.over()
            self._waiting = Deadline(self._clock, SILENCE, self._remark)

    def over(self) -> None:
        """Something has come, or nothing will."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _remark(self) -> None:
        self._waiting = None
        self._said = True
        hint = "" if self._tls else "; does the server want TLS (--tls-ca)?"
        self._say(f"nothing has come yet{hint}")


def server_name(endpoint: str) -> str:
    """What a server is called, by what the user wrote for where it is."""
    return show_address((DEFAULT_HOST, endpoint)) if endpoint.isdigit() else endpoint
