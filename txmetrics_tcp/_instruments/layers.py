"""
Recorders over recorders: each is one itself, so that they compose.

    FanoutRecorder(                                  # to two places:
        PrefixRecorder(LabelsRecorder(ops, region="eu"), "shop_"),
        FilterRecorder(debug, allow="db_*"),         # and some of it to another
    )

All that a layer does, it does when a handle is made, since a handle belongs to a series of the
innermost recorder: recording through layers costs nothing more.  But for fan-out, which has to
record several times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate

from txmetrics_tcp._instruments.recorder import NoopRecorder, Recorder
from txmetrics_tcp._instruments.sink import NOWHERE, RelaySink, Series
from txmetrics_tcp._model import Key, Metadata, MetricKind

Pattern = str | re.Pattern[str]
"""
Which names: text with the wildcards ``*``, ``?`` and ``[...]``, which has to fit the whole name,
upper and lower case being different; or a compiled regular expression, which has to be found in it.
"""


class PrefixRecorder(Recorder):
    """Puts the same text before every name."""

    def __init__(self, recorder: Recorder, prefix: str) -> None:
        """
        @param prefix: used as it is; where there is to be a separator, it ends with it.
        @raise TypeError: it is not text.
        @raise ValueError: it is empty, too long, or cannot be encoded as UTF-8.
        """
        super().__init__()
        self._recorder = recorder
        # Any name with it is good if it is good by itself, but for the length.
        self._prefix = Key.of(MetricKind.COUNTER, prefix).name

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
    """Adds the same labels to every series.  One that a series has itself stays as it is."""

    def __init__(
        self,
        recorder: Recorder,
        labels: Mapping[str, object] | None = None,
        /,
        **more: object,
    ) -> None:
        """
        @param labels: the labels as a mapping, for names that are no Python identifiers.
        @param more: labels as keywords; they win over those of the mapping.
        @raise TypeError: the name of a label is not text.
        @raise ValueError: a name is empty, a text cannot be encoded as UTF-8, or all are too
            long together.
        """
        super().__init__()
        self._recorder = recorder
        checked = Key.of(MetricKind.COUNTER, "labels", {**(labels or {}), **more})
        self._labels = dict(checked.labels)

    def __repr__(self) -> str:
        return f"LabelsRecorder({self._recorder!r}, {self._labels!r})"

    def attach(self, key: Key) -> Series:
        labels = {**self._labels, **dict(key.labels)}
        return self._recorder.attach(Key.of(key.kind, key.name, labels))

    def describe(self, metadata: Metadata) -> None:
        self._recorder.describe(metadata)


class FilterRecorder(Recorder):
    """
    Lets some names through, and forgets the others, which cost what a recorder costs that nobody
    listens to.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        allow: Pattern | Iterable[Pattern] | None = None,
        deny: Pattern | Iterable[Pattern] = (),
    ) -> None:
        """
        @param allow: a pattern, or several, one of which a name must fit; None for every name.
        @param deny: a pattern, or several, none of which it may fit.
        @raise TypeError: a pattern is neither text nor a compiled expression for text.
        """
        super().__init__()
        self._recorder = recorder
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
    One way through a `RouterRecorder`.

    @ivar recorder: where it leads.
    @ivar prefix: how names begin that go this way.
    @ivar kind: what goes this way; None for all kinds.
    """

    recorder: Recorder
    prefix: str = ""
    kind: MetricKind | None = None

    def fits(self, kind: MetricKind, name: str) -> bool:
        """Whether metrics of that kind and name go this way."""
        return name.startswith(self.prefix) and self.kind in (None, kind)


class RouterRecorder(Recorder):
    """
    Sends every metric one way, by its name and kind::

        RouterRecorder(
            Route(database, prefix="db_"),
            Route(NoopRecorder(), kind=MetricKind.HISTOGRAM),
            Route(everything_else),
        )
    """

    def __init__(self, *routes: Route) -> None:
        """
        @param routes: the first that fits is taken.  What fits none is forgotten.
        """
        super().__init__()
        self._routes = routes
        self._nowhere = NoopRecorder()

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
        return self._nowhere


class FanoutRecorder(Recorder):
    """
    Sends everything to several recorders, with the same time for all.

    Each of them does with it what it always does: one that nobody listens to ignores it, and
    one that is too slow loses it, without harm to the others.  Where one raises an exception, that
    goes to who records, after the others have been given the event.
    """

    def __init__(self, *recorders: Recorder) -> None:
        super().__init__()
        self._recorders = recorders

    def __repr__(self) -> str:
        return f"FanoutRecorder({', '.join(map(repr, self._recorders))})"

    def attach(self, key: Key) -> Series:
        every: list[Series] = []
        for recorder in self._recorders:
            series = recorder.attach(key)
            if type(series) is _FanoutSeries:
                # Fan-outs over fan-outs are one, so that they cost no more.
                every += series.every
            elif series.sink is not NOWHERE:
                every.append(series)
        if not every:
            return Series(key, NOWHERE)
        if len(every) == 1:
            return every[0]
        return _FanoutSeries(key, tuple(every))

    def describe(self, metadata: Metadata) -> None:
        for recorder in self._recorders:
            recorder.describe(metadata)


class _FanoutSeries(Series):
    """
    A series that is several others.

    @ivar every: those.
    """

    __slots__ = ("every",)

    def __init__(self, key: Key, every: tuple[Series, ...]) -> None:
        super().__init__(key, RelaySink(every))
        self.every = every


def _compiled(patterns: Pattern | Iterable[Pattern]) -> list[re.Pattern[str]]:
    if isinstance(patterns, str | re.Pattern):
        patterns = (patterns,)
    compiled = []
    for pattern in patterns:
        if isinstance(pattern, str):
            pattern = re.compile(translate(pattern))
        elif not (isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str)):
            raise TypeError(f"a pattern must be a str or a compiled one for str, not {pattern!r}")
        compiled.append(pattern)
    return compiled
