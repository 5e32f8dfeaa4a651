"""
The recorder that an exporter offers: what is recorded with it goes to the exporter's clients.
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
    """What a recorder needs of who sends its events."""

    @property
    def addresses(self) -> tuple[IAddress, ...]: ...

    @property
    def silenced(self) -> bool: ...

    def stats(self) -> Stats: ...

    def stop(self) -> Deferred[None]: ...


class TcpRecorder(Recorder):
    """
    Records from any thread, to every client that is connected.

    It comes from `txmetrics_tcp.MetricsFactory`, `txmetrics_tcp.MetricsService` or
    `txmetrics_tcp.TcpBuilder`.  Recording works before the reactor runs and after it has
    stopped; while no client is connected it is a check of the value and of a flag.
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
        """Where it listens; empty while it does not, or when a bare factory is listened with."""
        return self._exporter.addresses

    @property
    def silenced(self) -> bool:
        """
        Whether this process was forked from the one in which it was listening: a child has to
        install a recorder of its own.
        """
        return self._exporter.silenced

    def stats(self) -> Stats:
        """What happened to events so far.  May be called from any thread; see `Stats`."""
        return self._exporter.stats()

    def snapshot(self) -> dict[Key, int | float]:
        """
        The total of every counter and gauge, as it is now: what a client that connects now gets.

        May be called from any thread, and changes nothing.  Empty where totals are not kept.
        """
        return self._incoming.snapshot()

    def stop(self) -> Deferred[None]:
        """
        Stop listening, send what was recorded, and close every connection.

        To be called on the reactor thread.

        @return: fires when all are gone, which takes little more than a second at most.
        """
        return self._exporter.stop()
