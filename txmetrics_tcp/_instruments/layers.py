"""
Layers: recorders that wrap other recorders.  A layer is a recorder itself, so layers compose:

    FanoutRecorder(
        PrefixRecorder(LabelsRecorder(ops, region="eu"), "shop_"),
        FilterRecorder(debug, allow="db_*"),
    )

Layers are applied when a handle is created.  The handle then records directly to a series of the
innermost recorder, so recording through layers has no extra cost.  The exception is
`FanoutRecorder`, which records to each of its recorders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._instruments.recorder import NoopRecorder, Recorder, checked_recorder
from txmetrics_tcp._instruments.sink import NOWHERE, RelaySink, Series
from txmetrics_tcp._model import (
    Key,
    Metadata,
    MetricKind,
    check_size,
    checked_labels,
    checked_text,
    merge_labels,
)

Pattern = str | re.Pattern[str]
"""
A pattern for names.  A string with the wildcards ``*``, ``?`` and ``[...]`` must match the whole
name, case-sensitively.  A compiled regular expression may match anywhere in the name.
"""


class PrefixRecorder(Recorder):
    """
    Adds a prefix to every metric name.

    Creating a handle raises `ValueError` if the prefixed name with its labels exceeds 64 KiB.

        >>> from txmetrics_tcp import current_recorder
        >>> from txmetrics_tcp.testing import capture
        >>> with capture() as captured:
        ...     shop = PrefixRecorder(current_recorder(), "shop_")
        ...     shop.counter("orders_total").increment()
        >>> captured.total("shop_orders_total")
        1
    """

    def __init__(self, recorder: Recorder, prefix: str) -> None:
        """
        @param recorder: the recorder to record to.
        @param prefix: the text to insert before each name, including a separator if wanted.
        @raise TypeError: the prefix is not a `str`, or the recorder not a `Recorder`.
        @raise ValueError: the prefix is empty, exceeds 64 KiB of UTF-8, or cannot be encoded as
            UTF-8.
        """
        super().__init__()
        self._recorder = checked_recorder(recorder)
        # Validated here: a valid prefix together with a valid name can only be too long.
        self._prefix = checked_text("the prefix", prefix)

    def __repr__(self) -> str:
        return f"PrefixRecorder({self._recorder!r}, {self._prefix!r})"

    def attach(self, key: Key) -> Series:
        return self._recorder.attach(Key.of(key.kind, self._prefix + key.name, dict(key.labels)))

    def describe(self, metadata: Metadata) -> None:
        self._recorder.describe(
            Metadata.of(
                metadata.kind, self._prefix + metadata.name, metadata.unit, metadata.description
            )
        )


class LabelsRecorder(Recorder):
    """
    Adds labels to every series.  A label that the series already has keeps its own value.
    """

    def __init__(
        self,
        recorder: Recorder,
        labels: Mapping[str, object] | None = None,
        /,
        **more: object,
    ) -> None:
        """
        @param recorder: the recorder to record to.
        @param labels: labels as a mapping, for names that are not Python identifiers.
        @param more: labels as keyword arguments; they override the mapping.  See
            `txmetrics_tcp.counter` for their values, and for the errors.
        """
        super().__init__()
        self._recorder = checked_recorder(recorder)
        self._labels = checked_labels(merge_labels(labels, more))
        check_size("the labels", (*self._labels, *self._labels.values()))

    def __repr__(self) -> str:
        return f"LabelsRecorder({self._recorder!r}, {self._labels!r})"

    def attach(self, key: Key) -> Series:
        labels = {**self._labels, **dict(key.labels)}
        return self._recorder.attach(Key.of(key.kind, key.name, labels))

    def describe(self, metadata: Metadata) -> None:
        self._recorder.describe(metadata)


class FilterRecorder(Recorder):
    """
    Records metrics whose names match, and discards the others.

    Handles of discarded metrics only validate values.  A pattern is a string with the wildcards
    C{*}, C{?} and C{[...]}, which must match the whole name, case-sensitively; or a compiled
    regular expression, which may match anywhere in the name.

        >>> from txmetrics_tcp import current_recorder
        >>> from txmetrics_tcp.testing import capture
        >>> with capture() as captured:
        ...     database = FilterRecorder(current_recorder(), allow="db_*", deny="*_internal")
        ...     for name in ("db_reads", "db_internal", "http_requests"):
        ...         database.counter(name).increment()
        >>> [metric.key.name for metric in captured.metrics]
        ['db_reads']
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        allow: Pattern | Iterable[Pattern] | None = None,
        deny: Pattern | Iterable[Pattern] = (),
    ) -> None:
        """
        @param recorder: the recorder to record to.
        @param allow: a pattern, or an iterable of patterns, at least one of which must match; None
            to allow every name.
        @param deny: a pattern, or an iterable of patterns, none of which may match.
        @raise TypeError: a pattern is neither a `str` nor a compiled `str` pattern, or the recorder
            is not a `Recorder`.
        """
        super().__init__()
        self._recorder = checked_recorder(recorder)
        self._allow = None if allow is None else _compiled(allow)
        self._deny = _compiled(deny)

    def __repr__(self) -> str:
        return f"<FilterRecorder over {self._recorder!r}>"

    def attach(self, key: Key) -> Series:
        return self._recorder.attach(key) if self._passes(key.name) else Series(key, NOWHERE)

    def describe(self, metadata: Metadata) -> None:
        if self._passes(metadata.name):
            self._recorder.describe(metadata)

    def _passes(self, name: str) -> bool:
        if self._allow is not None and not any(pattern.search(name) for pattern in self._allow):
            return False
        return not any(pattern.search(name) for pattern in self._deny)


@dataclass(frozen=True, slots=True)
class Route:
    """
    One route of a `RouterRecorder`.

    @ivar recorder: the recorder that matching metrics go to.
    @ivar prefix: the prefix of matching names; by default, all names match.
    @ivar kind: the kind of matching metrics; None for all kinds.
    @raise TypeError: C{recorder} is not a `Recorder`.
    """

    recorder: Recorder
    prefix: str = ""
    kind: MetricKind | None = None

    def __post_init__(self) -> None:
        checked_recorder(self.recorder)

    def fits(self, kind: MetricKind, name: str) -> bool:
        """Return whether metrics with this kind and name match."""
        return name.startswith(self.prefix) and self.kind in (None, kind)


class RouterRecorder(Recorder):
    """
    Sends each metric to one of several recorders, by name and kind::

        RouterRecorder(
            Route(database, prefix="db_"),
            Route(NoopRecorder(), kind=MetricKind.HISTOGRAM),
            Route(everything_else),
        )
    """

    def __init__(self, *routes: Route) -> None:
        """
        @param routes: the routes, of which the first match is used.  Metrics without a match are
            discarded.
        """
        super().__init__()
        self._routes = routes
        self._discard = NoopRecorder()

    def __repr__(self) -> str:
        return f"RouterRecorder({', '.join(map(repr, self._routes))})"

    def attach(self, key: Key) -> Series:
        return self._choose(key.kind, key.name).attach(key)

    def describe(self, metadata: Metadata) -> None:
        self._choose(metadata.kind, metadata.name).describe(metadata)

    def _choose(self, kind: MetricKind, name: str) -> Recorder:
        for route in self._routes:
            if route.fits(kind, name):
                return route.recorder
        return self._discard


class FanoutRecorder(Recorder):
    """
    Sends every event and description to several recorders.  All of them receive an event with the
    same timestamp.

    The recorders are independent: drops of one exporter do not affect the others.  If a recorder
    raises an exception while recording, the other recorders still receive the event, and then the
    first exception is raised.
    """

    def __init__(self, *recorders: Recorder) -> None:
        """
        @param recorders: the recorders to record to; if there are none, everything is discarded.
        @raise TypeError: an argument is not a `Recorder`.
        """
        super().__init__()
        self._recorders = tuple(map(checked_recorder, recorders))

    def __repr__(self) -> str:
        return f"FanoutRecorder({', '.join(map(repr, self._recorders))})"

    def attach(self, key: Key) -> Series:
        targets: list[Series] = []
        for recorder in self._recorders:
            series = recorder.attach(key)
            if type(series) is _FanoutSeries:
                # Flatten nested fan-outs, so that events pass through one relay only.
                targets += series.targets
            elif series.sink is not NOWHERE:
                targets.append(series)
        if not targets:
            return Series(key, NOWHERE)
        if len(targets) == 1:
            return targets[0]
        return _FanoutSeries(key, tuple(targets))

    def describe(self, metadata: Metadata) -> None:
        for recorder in self._recorders:
            recorder.describe(metadata)


class _FanoutSeries(Series):
    """
    A series that relays events to several others.

    @ivar targets: the other series.
    """

    __slots__ = ("targets",)

    def __init__(self, key: Key, targets: tuple[Series, ...]) -> None:
        super().__init__(key, RelaySink(targets))
        self.targets = targets


def _compiled(patterns: Pattern | Iterable[Pattern]) -> list[re.Pattern[str]]:
    if isinstance(patterns, str | re.Pattern) or not isinstance(patterns, Iterable):
        patterns = (patterns,)
    compiled = []
    for pattern in patterns:
        if isinstance(pattern, str):
            pattern = re.compile(translate(pattern))
        elif not (isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str)):
            raise TypeError(
                f"a pattern must be a str or a compiled str pattern, not {short_repr(pattern)}"
            )
        compiled.append(pattern)
    return compiled
