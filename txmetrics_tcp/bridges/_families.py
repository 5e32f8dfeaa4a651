"""
The metric families of Prometheus, made of totals: names, types, and conflicts.  No I/O, no Twisted.

Prometheus rejects a whole scrape because of one bad name or one clash of names, so every name is
valid here, and of families that clash only the first one is exposed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from txmetrics_tcp._codec.framing import varint
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._model import U64_MAX, Key, Labels, Metadata, MetricKind, Total

SLICE = 250
"""The number of series that are processed at once; it takes at most a few milliseconds."""

MAX_REPORTED = 1000
"""The maximum number of clashes that are reported."""

_K = TypeVar("_K")
_T = TypeVar("_T")
_V = TypeVar("_V")

Sliced = Generator[None, None, _T]
"""Work in slices: a generator that yields after each, and returns the result."""

SUFFIXES = {
    MetricKind.COUNTER: ("", "_total", "_created"),
    MetricKind.GAUGE: ("",),
    MetricKind.HISTOGRAM: ("", "_bucket", "_count", "_sum", "_created"),
}
"""What is appended to the name of a family of each type: names that no other family may have."""

OWN = "txmetrics_exposition_left_out"
"""The name of the family that counts the series left out."""

_OWN_HELP = "Series that are not exposed, because they have no name or that of another metric."

RESERVED_LABELS = ("le", "quantile")
"""Labels that have a meaning for Prometheus."""

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")


class Source(NamedTuple):
    """
    Where series come from.

    @ivar labels: labels that each of its series is given.
    @ivar totals: the series and their totals; not changed while they are collected.
    @ivar descriptions: the descriptions of metrics.
    """

    labels: Labels
    totals: Mapping[Key, Total]
    descriptions: Iterable[Metadata]


class Family(NamedTuple):
    """
    A metric family.

    @ivar name: without the suffix C{_total} of a counter.
    @ivar type: its type in Prometheus; a gauge may be exposed as a counter.
    @ivar help: the description; may be empty.
    @ivar unit: the unit; may be empty.
    @ivar rows: the totals by labels, as `label_text` returns them.
    @ivar pairs: the same labels as `label_pairs` returns them.
    """

    name: str
    type: MetricKind
    help: str
    unit: str
    rows: dict[str, Any]
    pairs: dict[str, bytes]


class Own(NamedTuple):
    """
    A family of the exposition itself.  No metric of a source can have its name.

    @ivar rows: returns the totals by labels, which are valid and sorted by name.
    """

    name: str
    type: MetricKind
    help: str
    rows: Callable[[], Mapping[Labels, Total]]


def metric_name(name: str) -> str:
    """Return a valid name of a metric; empty if the name is."""
    return _valid(_NOT_IN_NAMES.sub("_", name))


def label_name(name: str, taken: Iterable[str] = ()) -> str:
    """
    Return a valid name of a label.

    @param taken: names that the label must not have.
    """
    valid = _valid(_NOT_IN_LABELS.sub("_", name)) or "_"
    # Names that begin with two underscores are Prometheus' own.
    if valid.startswith("__"):
        return f"exported{valid}"
    return f"exported_{valid}" if valid in taken or valid in RESERVED_LABELS else valid


def slices(rows: Mapping[_K, _V]) -> Iterator[list[tuple[_K, _V]]]:
    """Return the items of a mapping in lists of `SLICE`."""
    items = iter(rows.items())
    while some := list(islice(items, SLICE)):
        yield some


def _valid(name: str) -> str:
    return f"_{name}" if name[:1].isdigit() else name


def exposed_labels(labels: Labels, own: Labels = ()) -> Labels:
    """
    Return labels with valid names, sorted by name.  Of labels with equal names, the values are
    joined with C{;}.  A label without a value is the same as no label.

    @param own: valid labels to add.
    """
    found: dict[str, str] = dict(own)
    taken = tuple(found)
    for name, value in labels:
        if value:
            valid = label_name(name, taken)
            found[valid] = f"{found[valid]};{value}" if valid in found else value
    return tuple(sorted(found.items()))


_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def label_text(labels: Labels) -> str:
    """Return labels as they are between braces in the text formats."""
    return ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels])


def label_pairs(labels: Labels) -> bytes:
    """Return labels as fields of a C{Metric} in the protobuf format."""
    pieces = []
    for name, value in labels:
        pair = b"".join([_field(0x0A, name.encode()), _field(0x12, value.encode())])
        pieces.append(_field(0x0A, pair))
    return b"".join(pieces)


def _field(tag: int, data: bytes) -> bytes:
    return b"%c%b%b" % (tag, varint(len(data)), data)


class Families:
    """
    Makes families of totals.

    @ivar left_out: the number of series that were left out last time, by reason: C{name} (it has no
        name), C{clash} (another family has the name).
    """

    def __init__(
        self,
        clashed: Callable[[str, str], object],
        own: Sequence[Own] = (),
        quantiles: Sequence[float] = (),
    ) -> None:
        """
        @param clashed: called with the name of a metric and that of its family when it is first
            left out because another family has the name.
        @param own: families in addition to `OWN`.
        @param quantiles: those of each histogram that are exposed, as gauges.
        """
        self.left_out: Counter[str] = Counter(name=0, clash=0)
        self._own = [*own, Own(OWN, MetricKind.GAUGE, _OWN_HELP, self._left_out)]
        self._clashed = clashed
        self._reported: set[str] = set()
        self._quantiles = quantiles
        # By the labels of the source: what `_expose` returns, by key.
        self._exposed: dict[Labels, dict[Key, _Exposed]] = {}

    def collect(self, sources: Iterable[Source | None]) -> Sliced[list[Family]]:
        """
        Return the families of all series, in the order of their first series.

        @param sources: may be a generator that works in slices, and yields None after each.
        """
        left_out = Counter(name=0, clash=0)
        groups: dict[tuple[MetricKind, str], tuple[dict[str, Total], dict[str, bytes]]] = {}
        about: dict[tuple[MetricKind, str], Metadata] = {}
        names: dict[tuple[MetricKind, str], str] = {}
        seen = set()
        for source in sources:
            if source is None:
                yield
                continue
            seen.add(source.labels)
            known = self._exposed.setdefault(source.labels, {})
            if len(known) > 2 * len(source.totals) + SLICE:
                known.clear()
            for number, metadata in enumerate(source.descriptions, 1):
                if not number % (4 * SLICE):
                    yield
                about.setdefault(_family_of(metadata.kind, metadata.name), metadata)
            for items in slices(source.totals):
                for key, total in items:
                    found = known.get(key)
                    if found is None:
                        found = known[key] = _expose(key, source.labels)
                    family, text, wire = found
                    group = groups.get(family)
                    if group is None:
                        group = groups[family] = {}, {}
                        names[family] = key.name
                    rows, pairs = group
                    if text in rows:
                        total = _together(key.kind, rows[text], total)
                    rows[text] = total
                    pairs[text] = wire
                yield
        for labels in self._exposed.keys() - seen:
            del self._exposed[labels]
        taken = {one.name + suffix for one in self._own for suffix in SUFFIXES[one.type]}
        families = []
        for number, ((kind, name), (rows, pairs)) in enumerate(groups.items(), 1):
            if not number % SLICE:
                yield
            if not name:
                left_out["name"] += len(rows)
                continue
            type, base = kind, name
            if kind is MetricKind.GAUGE and name.endswith("_total") and _rises(rows):
                type, base = _family_of(MetricKind.COUNTER, name)
            reserved = {base + suffix for suffix in SUFFIXES[type]}
            if reserved & taken:
                left_out["clash"] += len(rows)
                self._report(names[kind, name], base)
                continue
            taken |= reserved
            described = about.get((kind, name))
            help = "" if described is None else described.description
            unit = "" if described is None else described.unit or ""
            families.append(Family(base, type, help, unit, rows, pairs))
            if self._quantiles and type is MetricKind.HISTOGRAM:
                added = yield from self._quantiles_of(families[-1])
                if added.name in taken:
                    left_out["clash"] += len(added.rows)
                    self._report(added.name, added.name)
                else:
                    taken.add(added.name)
                    families.append(added)
        self.left_out = left_out
        return families

    def own(self) -> list[Family]:
        """Return the families of the exposition itself that have rows."""
        families = []
        for name, type, help, rows_of in self._own:
            rows: dict[str, Any] = {}
            pairs: dict[str, bytes] = {}
            for labels, total in rows_of().items():
                text = label_text(labels)
                pairs[text] = label_pairs(labels)
                rows[text] = total
            if rows:
                families.append(Family(name, type, help, "", rows, pairs))
        return families

    def _report(self, metric: str, family: str) -> None:
        if family not in self._reported and len(self._reported) < MAX_REPORTED:
            self._reported.add(family)
            self._clashed(metric, family)

    def _left_out(self) -> dict[Labels, Total]:
        return {(("reason", reason),): count for reason, count in self.left_out.items()}

    def _quantiles_of(self, histogram: Family) -> Sliced[Family]:
        """Return the family of the quantiles of a histogram."""
        rows: dict[str, Any] = {}
        pairs: dict[str, bytes] = {}
        labels = [(("quantile", str(float(one))),) for one in self._quantiles]
        added = [(label_text(one), label_pairs(one)) for one in labels]
        for items in slices(histogram.rows):
            for text, total in items:
                found = total.quantiles(self._quantiles)
                for (more, wire), value in zip(added, found, strict=True):
                    row = f"{text},{more}" if text else more
                    rows[row] = value
                    pairs[row] = histogram.pairs[text] + wire
            yield
        name, _type, help, unit, *_rows = histogram
        return Family(f"{name}_quantile", MetricKind.GAUGE, help, unit, rows, pairs)


_Exposed = tuple[tuple[MetricKind, str], str, bytes]


def _expose(key: Key, own: Labels) -> _Exposed:
    """Return kind and name of the family of a series, and its labels as text and as pairs."""
    labels = exposed_labels(key.labels, own)
    return _family_of(key.kind, key.name), label_text(labels), label_pairs(labels)


@lru_cache(maxsize=1024)
def _family_of(kind: MetricKind, name: str) -> tuple[MetricKind, str]:
    """Return the kind and the name of a family, without the suffix of a counter."""
    valid = metric_name(name)
    if kind is MetricKind.COUNTER:
        valid = valid.removesuffix("_total") or valid
    return kind, valid


def _together(kind: MetricKind, before: Any, total: Any) -> Any:
    """Return the total of two series that are the same in Prometheus."""
    if kind is MetricKind.COUNTER:
        return (before + total) & U64_MAX
    if kind is MetricKind.HISTOGRAM:
        return Distribution.merge([before, total])
    return total


def _rises(rows: dict[str, Any]) -> bool:
    """Whether the values may be those of a counter."""
    return all(value >= 0 for value in rows.values())
