"""
Checks of entries that come from elsewhere, instead of from a handle.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn, TypeAlias

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._exporter.totals import MERGE_HISTOGRAM
from txmetrics_tcp._instruments.sink import Entry, Series, Sink
from txmetrics_tcp._model import U64_MAX, MetricKind, Operation

MAX_TIME = 2**63 - 1
"""The latest time of an entry, in nanoseconds since the epoch: in the year 2262."""

IngestEntry: TypeAlias = tuple[Series, Operation, int | float | Distribution, int]
"""An argument of `TcpRecorder.ingest`: series, operation, value, and time."""

_COUNTER = MetricKind.COUNTER
_INCREMENT_COUNTER = Operation.INCREMENT_COUNTER
_SET_COUNTER = Operation.SET_COUNTER
_KINDS = {operation: operation.kind for operation in Operation}


def checked_entries(entries: Iterable[IngestEntry], sink: Sink, keeps_totals: bool) -> list[Entry]:
    """
    Check entries, and return them as a sink's log holds them.

    @param sink: the sink that all series must belong to.
    @param keeps_totals: whether totals are kept, so that distributions can be added to them.
    @raise TypeError: see `TcpRecorder.ingest`.
    @raise ValueError: see `TcpRecorder.ingest`.
    """
    checked: list[Any] = list(entries)
    merges = False
    kind_of = _KINDS.get
    # The conditions avoid comparisons with large numbers, which take twice as long.
    for entry in checked:
        try:
            series, operation, value, time = entry
            foreign = series.sink is not sink
        except (AttributeError, TypeError, ValueError):
            _reject(entry, sink)
        if foreign or type(time) is not int or time >> 63:
            _reject(entry, sink)
        if operation is _INCREMENT_COUNTER or operation is _SET_COUNTER:
            if series.key.kind is not _COUNTER or type(value) is not int or value >> 64:
                _reject(entry, sink)
        elif kind_of(operation) is not series.key.kind:
            _reject(entry, sink)
        elif type(value) is not float:
            if type(value) is not Distribution or operation is not Operation.RECORD_HISTOGRAM:
                _reject(entry, sink)
            merges = True
    if merges:
        if not keeps_totals:
            raise ValueError("without totals, a Distribution cannot be added to the total")
        checked = [
            (one[0], MERGE_HISTOGRAM, *one[2:]) if type(one[2]) is Distribution else one
            for one in checked
        ]
    return checked


def _reject(entry: Any, sink: Sink) -> NoReturn:
    """Raise the error for an entry that is not valid."""
    if not isinstance(entry, tuple) or len(entry) != 4:
        raise TypeError(
            "an entry is a tuple of series, operation, value and time, not " + short_repr(entry)
        )
    series, operation, value, time = entry
    if not isinstance(series, Series) or series.sink is not sink:
        raise ValueError(
            f"{short_repr(series)} is not a series of this recorder: see TcpRecorder.attach"
        )
    name = f"{series.key.kind.value} {short_repr(series.key.name)}"
    if not isinstance(operation, Operation) or operation.kind is not series.key.kind:
        raise ValueError(f"{name}: {short_repr(operation)} is not an operation of this kind")
    if type(time) is not int:
        raise TypeError(f"{name}: the time must be an int, not {type(time).__name__}")
    if not 0 <= time <= MAX_TIME:
        raise ValueError(f"{name}: the time must be from 0 to {MAX_TIME}, not {time}")
    if operation.kind is not MetricKind.COUNTER:
        expected = "a float"
        if operation is Operation.RECORD_HISTOGRAM:
            expected = "a float or a Distribution"
    elif type(value) is int:
        raise ValueError(f"{name}: the value must be from 0 to {U64_MAX}, not {value}")
    else:
        expected = "an int"
    raise TypeError(f"{name}: the value must be {expected}, not {type(value).__name__}")
