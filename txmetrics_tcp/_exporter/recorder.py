"""
The recorder of an exporter.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._exporter.entries import IngestEntry
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

    def publish_own_metrics(self) -> None: ...

    def stop(self) -> Deferred[None]: ...


class TcpRecorder(Recorder):
    """
    Records from any thread to all connected clients.

    `txmetrics_tcp.MetricsFactory`, `txmetrics_tcp.MetricsService` and `txmetrics_tcp.TcpBuilder`
    make instances.  Recording works before the reactor runs and after it has stopped.  If totals
    are not kept, events recorded while no clients are connected are discarded.
    """

    def __init__(self, incoming: Incoming, exporter: Exporter) -> None:
        super().__init__()
        self._incoming = incoming
        self._exporter = exporter
        self._started_ns = incoming.clock()
        self._on_replaced: Callable[[], object] | None = None

    def attach(self, key: Key) -> Series:
        return self._incoming.series(key)

    def describe(self, metadata: Metadata) -> None:
        self._incoming.describe(metadata)

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """
        The addresses that the exporter listens on; empty if it is a bare `MetricsFactory`, or if
        the recorder is `silenced`.
        """
        return self._exporter.addresses

    @property
    def started_ns(self) -> int:
        """When this recorder was made, and its totals began: nanoseconds since the epoch."""
        return self._started_ns

    @property
    def silenced(self) -> bool:
        """
        Whether this process is a fork of the process in which the exporter listened.  A silenced
        recorder takes no events, and logs a warning at the first one: the child process has to
        install its own.
        """
        return self._exporter.silenced

    def stats(self) -> Stats:
        """Return current statistics.  Thread-safe; see `Stats`."""
        return self._exporter.stats()

    def snapshot(self) -> dict[Key, int | float | Distribution]:
        """
        Return the current total of every retained series: the totals that a client would receive if
        it connected now.  The exporter's own metrics are those last published: see
        `publish_own_metrics`.

        Thread-safe, and changes nothing.  Empty if totals are not kept.

        @return: by key, an `int` for a counter, a `float` for a gauge, and a `Distribution` for a
            histogram.
        """
        return self._incoming.snapshot()

    def publish_own_metrics(self) -> None:
        """
        Record the exporter's own metrics now, so that the next `snapshot` has them.  Without this
        call, they are recorded only while clients are connected, once a second; then, this does
        something at most once in between, because clients receive what is recorded.

        Call this on the reactor thread.  Does nothing if the setting C{own_metrics} is off.
        """
        self._exporter.publish_own_metrics()

    def snapshot_steps(self) -> Generator[None, None, dict[Key, int | float | Distribution]]:
        """
        Return what `snapshot` does, in steps of a few milliseconds, so that a reactor thread can do
        something else in between::

            totals = yield from recorder.snapshot_steps()

        @return: a generator that yields after each step, and returns the totals that were current
            at the first one.
        """
        return self._incoming.snapshot_steps()

    def descriptions(self) -> list[Metadata]:
        """
        Return the last description of each metric: its kind, name, unit and text.

        Thread-safe.  It includes metrics without series, and also works if totals are not kept.
        """
        return self._incoming.descriptions()

    def forget(self, key: Key) -> None:
        """
        Release the series of a key: remove it from the totals, and send clients `Gone`.

        Call it when the program has finished with what the labels name, such as a user or a
        connection::

            recorder.forget(jobs.labels(user="bob").key)

        Its handles stay valid: with its next event, the series begins again at zero.  Takes effect
        after all earlier events of the calling thread.  Thread-safe.

        @raise TypeError: the argument is not a `Key`.
        """
        if not isinstance(key, Key):
            raise TypeError(f"forget() takes a Key, not a {type(key).__name__}: see Counter.key")
        self._incoming.forget(key)

    def _use_exporter(self, exporter: Exporter) -> None:
        """In a forked child, use another exporter of the same events."""
        self._exporter = exporter

    def _replaced(self) -> None:
        if self._on_replaced is not None:
            self._on_replaced()

    def ingest(self, entries: Iterable[IngestEntry]) -> None:
        """
        Record events that happened elsewhere, with their own time, in this order::

            series = recorder.attach(Key.of(MetricKind.COUNTER, "jobs_total"))
            recorder.ingest([(series, Operation.INCREMENT_COUNTER, 1, 1_700_000_000_000_000_000)])

        An entry is a tuple of:

         1. the series: a result of `attach`.
         2. the `Operation`, which must be one of the series' kind.
         3. the value: of a counter an `int` from 0 to 2**64-1; of a gauge or a histogram a `float`.
            For `Operation.RECORD_HISTOGRAM` also a `Distribution`, whose samples are added to the
            total.  Clients receive the new total, as one event.
         4. the time: an `int` of nanoseconds since the epoch, from 0 to 2**63-1; 0 for now.

        Otherwise, these events are like those of handles: they are pending, dropped and counted in
        the same way.  Much faster than handles for many events at once.  Thread-safe.

        @raise TypeError: a value or a time is of another type.
        @raise ValueError: a value or a time is out of range; a series is not of this recorder; an
            operation is not of the series' kind; or there is a distribution, and totals are not
            kept.  No entry is recorded then.
        """
        self._incoming.ingest(entries)

    def stop(self) -> Deferred[None]:
        """
        Stop listening, send pending events, and close all connections.  If this is the global
        recorder, another one may be installed.

        Call this on the reactor thread.

        @return: a Deferred that fires when all clients are disconnected, at most half a second
            after C{flush_timeout}.
        """
        # Not uninstalled: at exit, it keeps the reactor alive, and with it asyncio's tasks, which
        # would log that they are pending.
        self.replaceable = True
        return self._exporter.stop()
