"""
Streams Scrapy's statistics.  In the settings of a project::

    STATS_CLASS = "txmetrics_tcp.bridges.scrapy.StreamingStatsCollector"

Needs Scrapy.  Scrapy installs its reactor after it has imported this module, which therefore
imports none.
"""

from __future__ import annotations

import logging
import re
from datetime import datetime, timedelta, timezone
from numbers import Real
from typing import Any, NamedTuple

from scrapy.statscollectors import MemoryStatsCollector

from txmetrics_tcp._instruments import facade
from txmetrics_tcp._instruments.recorder import Counter, Gauge, Recorder
from txmetrics_tcp._model import U64_MAX, Key, Metadata, MetricKind, Unit

__all__ = ["MAX_STATS", "StreamingStatsCollector"]

_log = logging.getLogger("txmetrics_tcp")

MAX_STATS = 1000
"""The maximum number of statistics of a crawler that are streamed.  One warning is logged."""

_LABELS = (
    *(("status", "status"), ("method", "method"), ("exception", "exception")),
    *(("reason", "reason"), ("log_count", "level"), ("feedexport", "storage")),
    ("live_refs", "class"),
)
"""Words in the name of a group of statistics, and the label of its members."""

_GROUPS = {"spider_exceptions": "spider_exception_type", "live_refs": "live_refs"}
"""The groups whose names do not end in C{_count}, and their names in the stream."""

_TOTALS = ("spider_exceptions/count",)
"""Statistics that look like a member of a group."""

# Scrapy's own method raises and catches an exception for each attribute.
_attribute = object.__getattribute__

_INVALID = re.compile("[^a-zA-Z0-9_]+")


class StreamingStatsCollector(MemoryStatsCollector):
    """
    Scrapy's default collector, which also streams each change of a statistic to the global
    recorder.

    What Scrapy keeps, returns and logs does not change.  No exception is raised because of the
    stream.  `MAX_STATS` limits the number of series.
    """

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        spider = getattr(crawler, "spidercls", None)
        name = getattr(spider, "name", None)
        self._txmetrics = _Stream(
            facade.program_recorder(), name if isinstance(name, str) else "unknown"
        )
        # The first handle may start the exporter, whose thread logs.  Scrapy's log handler, which
        # changes statistics while it holds its lock, must not wait for that.
        self._txmetrics.increment("response_received_count", 0, 0)

    def set_value(self, key: str, value: Any, spider: Any = None) -> None:
        """Set the statistic, and stream the value."""
        super().set_value(key, value)
        _attribute(self, "_txmetrics").set(key, value)

    def set_stats(self, stats: dict[str, Any], spider: Any = None) -> None:
        """Replace all statistics, and stream their values."""
        super().set_stats(stats)
        stream = _attribute(self, "_txmetrics")
        for key, value in stats.items():
            stream.set(key, value)

    def inc_value(self, key: str, count: int = 1, start: int = 0, spider: Any = None) -> None:
        """Increment the statistic, and stream the increment."""
        stats = _attribute(self, "_stats")
        before = stats.get(key, 0)
        super().inc_value(key, count, start)
        _attribute(self, "_txmetrics").increment(key, before, stats[key])

    def max_value(self, key: str, value: Any, spider: Any = None) -> None:
        """Set the statistic if it is lower, and stream the value."""
        super().max_value(key, value)
        _attribute(self, "_txmetrics").set(key, _attribute(self, "_stats")[key])

    def min_value(self, key: str, value: Any, spider: Any = None) -> None:
        """Set the statistic if it is higher, and stream the value."""
        super().min_value(key, value)
        _attribute(self, "_txmetrics").set(key, _attribute(self, "_stats")[key])


class _Statistic(NamedTuple):
    """
    A statistic in the stream.

    @ivar name: the metric, without the end C{_total} of a counter.
    @ivar labels: the labels, except the spider.
    @ivar group: the key, or of a member of a group, the group's.
    """

    name: str
    labels: dict[str, str]
    group: str

    @classmethod
    def of(cls, key: str) -> _Statistic:
        parts = key.split("/")
        member = ""
        for index, part in enumerate(parts[:-1]):
            if part.endswith("_count") or (part in _GROUPS and key not in _TOTALS):
                member = "/".join(parts[index + 1 :])
                parts = parts[: index + 1]
                break
        group = "/".join(parts)
        labels = {}
        if member:
            label = next((label for word, label in _LABELS if word in group), "value")
            labels[label] = member
            parts[-1] = _GROUPS.get(parts[-1], parts[-1])
        name = _INVALID.sub("_", "_".join(parts))
        return cls(f"scrapy_{name.removesuffix('_count')}", labels, group)


class _Stream:
    """
    Records statistics.  Never raises.
    """

    def __init__(self, recorder: Recorder, spider: str) -> None:
        self._recorder = recorder
        self._spider = spider
        self._handles: dict[str, Counter | Gauge] = {}
        self._described: set[tuple[MetricKind, str]] = set()
        self._is_full = False

    def increment(self, key: str, before: Any, total: Any) -> None:
        """
        Record an increment.

        @param before: the number before it.
        @param total: the number after it.
        """
        try:
            handle = self._handles.get(key)
            count = total - before
            if handle is None:
                is_counter = type(count) is int and count >= 0
                handle = self._find(key, MetricKind.COUNTER if is_counter else MetricKind.GAUGE)
            if type(handle) is Counter and type(count) is int and count >= 0:
                handle.increment(count)
            elif handle is not None:
                _set(handle, total)
        except Exception:
            # Logging it may change a statistic.
            pass

    def set(self, key: str, value: Any) -> None:
        """Record a value, if it can be one of a gauge."""
        try:
            if key == "finish_reason" and isinstance(value, str):
                self._gauge("scrapy_finish_reason", key, {"reason": value}).set(1)
                return
            if isinstance(value, datetime):
                # Scrapy's times without a time zone are UTC.
                zone = value.tzinfo or timezone.utc
                value = value.replace(tzinfo=zone).timestamp()
            elif isinstance(value, timedelta):
                value = value.total_seconds()
            if not isinstance(value, Real):
                return
            handle = self._handles.get(key) or self._find(key, MetricKind.GAUGE)
            if handle is not None:
                _set(handle, value)
        except Exception:
            pass

    def _find(self, key: str, kind: MetricKind) -> Counter | Gauge | None:
        """Return a new handle, or None if there are too many."""
        if len(self._handles) >= MAX_STATS:
            if not self._is_full:
                self._is_full = True
                _log.warning(
                    "Scrapy has more than %d statistics; further ones are not streamed", MAX_STATS
                )
            return None
        name, labels, group = _Statistic.of(key)
        handle: Counter | Gauge
        if kind is MetricKind.COUNTER:
            name = f"{name}_total"
            handle = self._recorder.register_counter(self._key(kind, name, labels))
            self._describe(kind, name, group)
        else:
            handle = self._gauge(name, group, labels)
        self._handles[key] = handle
        return handle

    def _gauge(self, name: str, group: str, labels: dict[str, str]) -> Gauge:
        if group in ("start_time", "finish_time"):
            name = f"{name}_seconds"
        self._describe(MetricKind.GAUGE, name, group)
        return self._recorder.register_gauge(self._key(MetricKind.GAUGE, name, labels))

    def _key(self, kind: MetricKind, name: str, labels: dict[str, str]) -> Key:
        return Key.of(kind, name, {"spider": self._spider, **labels})

    def _describe(self, kind: MetricKind, name: str, group: str) -> None:
        if (kind, name) in self._described:
            return
        self._described.add((kind, name))
        unit = Unit.COUNT
        if "bytes" in name or group in ("memusage/startup", "memusage/max"):
            unit = Unit.BYTES
        elif name.endswith("_seconds"):
            unit = Unit.SECONDS
        text = f"Scrapy's statistic {group}."
        self._recorder.describe(Metadata.of(kind, name, unit, text))


def _set(handle: Counter | Gauge, value: Any) -> None:
    if isinstance(handle, Gauge):
        handle.set(value)
    elif 0 <= value <= U64_MAX:
        handle.absolute(int(value))
