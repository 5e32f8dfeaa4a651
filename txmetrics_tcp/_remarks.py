"""
What a command says about its connection, for people.
"""

from __future__ import annotations

from collections.abc import Callable

from txmetrics_tcp._client import Connected, Connecting, ConnectionState, Disconnected, Waiting
from txmetrics_tcp._endpoints import DEFAULT_HOST


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
                self._say(f"{self._lost}; next attempt in {state.seconds:.1f} seconds")
                self._lost = ""


def server_name(endpoint: str) -> str:
    """What a server is called, by what the user wrote for where it is."""
    return f"{DEFAULT_HOST}:{endpoint}" if endpoint.isdigit() else endpoint
