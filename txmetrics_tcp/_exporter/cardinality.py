"""
The metrics with the most series, for programs that reach the limit of series.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._model import Key, MetricKind

METRICS = 3
"""The number of metrics that are reported."""


@dataclass(frozen=True, slots=True)
class MetricCardinality:
    """
    The number of series of one metric, and the label that contributes most to it.

    @ivar kind: the kind of the metric.
    @ivar name: its name.
    @ivar series: the number of its retained series.
    @ivar label: the label with the most distinct values, or None if the metric has no labels.
    @ivar label_values: the number of distinct values of that label.
    """

    kind: MetricKind
    name: str
    series: int
    label: str | None
    label_values: int

    def __str__(self) -> str:
        text = f"{self.kind.value} {short_repr(self.name)}: {self.series:,} series"
        if self.label is None:
            return text
        return f"{text}, label {short_repr(self.label)}: {self.label_values:,} values"


def highest_cardinality(keys: Collection[Key]) -> tuple[MetricCardinality, ...]:
    """Return the `METRICS` metrics with the most series, in descending order."""
    metrics = Counter((key.kind, key.name) for key in keys)
    found = []
    for (kind, name), series in metrics.most_common(METRICS):
        values: defaultdict[str, set[str]] = defaultdict(set)
        for key in keys:
            if key.kind is kind and key.name == name:
                for label, value in key.labels:
                    values[label].add(value)
        most: str | None = max(values, key=lambda label: len(values[label]), default=None)
        distinct = 0 if most is None else len(values[most])
        found.append(MetricCardinality(kind, name, series, most, distinct))
    return tuple(found)
