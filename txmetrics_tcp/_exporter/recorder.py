"""
The recorder of an exporter.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._instruments.sink import Series
from txmetrics_tcp._model import Key, Metadata


class Exporter(Protocol):
    """The methods of a factory or service that a `TcpRecorder` calls."""

    @property
    def addresses(self) -> tuple[IAddress, ...]: ...

    @property
    def silenced(self) -> bool: ...

    def stats(self) -> Stats: ...

    def stop(self) -> Deferred[None]: ...


class TcpRecorder(Recorder):
    """
    Records from any thread to all connected clients.

    `txmetrics_tcp.MetricsFactory`, `txmetrics_tcp.MetricsService` and `txmetrics_tcp.TcpBuilder`
    make instances.  Recording works before the reactor runs and after it has stopped.  Without
    totals, recording while no clients are connected only checks the value and a flag.
    """

    def __init__(self, incoming: Incoming, exporter: Exporter) -> None:
        super().__init__()
        self._incoming = incoming
        self._exporter = exporter

    def attach(self, key: Key) -> Series:
        return self._incoming.series(key)

    def describe(self, metadata: Metadata) -> None:
        self._incoming.describe(metadata)

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """The addresses it listens on; empty for the recorder of a bare `MetricsFactory`."""
        return self._exporter.addresses

    @property
    def silenced(self) -> bool:
        """
        Whether this process was forked from the one that was listening.  A silenced recorder takes
        no events: a child process has to install its own.
        """
        return self._exporter.silenced

    def stats(self) -> Stats:
        """Return event counts so far.  Thread-safe; see `Stats`."""
        return self._exporter.stats()

    def snapshot(self) -> dict[Key, int | float]:
        """
        Return the current total of every retained counter and gauge: the totals that a client would
        receive if it connected now.

        Thread-safe, and changes nothing.  Empty if totals are not kept.
        """
        return self._incoming.snapshot()

    def stop(self) -> Deferred[None]:
        """
        Stop listening, send pending events, and close all connections.

        Call this on the reactor thread.

        @return: fires when all clients are gone, at most half a second after C{flush_timeout}.
        """
        return self._exporter.stop()
