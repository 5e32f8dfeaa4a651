"""
The formats in which Prometheus reads families: two of text, and protobuf.  No I/O, no Twisted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import chain
from operator import sub
from struct import Struct
from typing import NamedTuple

from txmetrics_tcp._codec.framing import varint
from txmetrics_tcp._codec.wire import pack_signed
from txmetrics_tcp._distribution import Distribution, Side
from txmetrics_tcp._model import U64_MAX, MetricKind
from txmetrics_tcp.bridges._families import SLICE, Family, slices

Chunks = Iterator[bytes]
"""A response in pieces; an empty one only ends a slice of the work."""


LONG = 1000
"""
The length of labels, in characters, after which a slice of text ends.  Each line of a histogram
repeats its labels.
"""

MIN_NATIVE_SCALE = -4
"""The lowest scale that Prometheus knows."""

Limits = Callable[[Family], tuple[float, ...]]
"""Returns the limits of the classic buckets of a family."""


class Format(NamedTuple):
    """
    A format.

    @ivar content_type: the value of the header C{Content-Type}.
    @ivar encode: encodes families; takes them, and the limits of the classic buckets of a family.
    """

    content_type: str
    encode: Callable[[list[Family], Limits], Chunks]


def number(value: float) -> str:
    """Return a number as the text formats have it; a whole number has all its digits."""
    if math.isfinite(value):
        return repr(value)
    return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"


def _is_suffix(unit: str, name: str) -> bool:
    """Whether a unit can be exposed: Prometheus wants the name of the family to end with it."""
    return bool(unit) and name.endswith(f"_{unit}")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _text(families: Iterable[Family], limits: Limits, open_metrics: bool) -> Chunks:
    lines: list[str] = []
    # The number of series in the lines.
    pending = 0
    for family in families:
        name, type, help, unit, rows, _pairs = family
        sample = f"{name}_total" if type is MetricKind.COUNTER else name
        title = name if open_metrics else sample
        lines.append(f"# TYPE {title} {type.value}\n")
        if help:
            text = _escaped(help)
            if open_metrics:
                text = text.replace('"', r"\"")
            lines.append(f"# HELP {title} {text}\n")
        if open_metrics and _is_suffix(unit, name):
            lines.append(f"# UNIT {title} {unit}\n")
        bounds = (*limits(family), math.inf)
        begin, ends = (
            f"{name}_bucket{{",
            [f'le="{number(float(bound))}"}} %d\n' for bound in bounds],
        )
        parts = [begin, *[end + begin for end in ends[:-1]], ends[-1]]
        for items in slices(rows):
            pending += len(items)
            if pending > SLICE:
                yield "".join(lines).encode()
                lines, pending = [], len(items)
            if type is MetricKind.HISTOGRAM:
                for labels, total in items:
                    lines += _histogram(name, labels, total, bounds, parts, open_metrics)
                    if len(labels) > LONG:
                        yield "".join(lines).encode()
                        lines = []
            else:
                for labels, total in items:
                    braces = f"{{{labels}}}" if labels else ""
                    lines.append(f"{sample}{braces} {number(total)}\n")
    if open_metrics:
        lines.append("# EOF\n")
    yield "".join(lines).encode()


def _histogram(
    name: str,
    labels: str,
    total: Distribution,
    bounds: tuple[float, ...],
    parts: list[str],
    open_metrics: bool,
) -> list[str]:
    """
    Return the lines of a histogram.

    @param parts: what stands before, between and after the labels of all buckets, with a
        placeholder for each count: one C{%} is faster than an f-string for each line.
    """
    first = f"{labels},".replace("%", "%%") if labels else ""
    braces = f"{{{labels}}}" if labels else ""
    found = total.cumulative(bounds)
    lines = [first.join(parts) % tuple(found)]
    # A sum that can fall is no counter.
    falls = total.min < 0.0
    if not falls:
        lines.append(f"{name}_sum{braces} {number(total.sum)}\n")
    # OpenMetrics has both or neither.
    if not (falls and open_metrics):
        lines.append(f"{name}_count{braces} {found[-1]}\n")
    return lines


def _text_004(families: list[Family], limits: Limits) -> Chunks:
    return _text(families, limits, open_metrics=False)


def _open_metrics(families: list[Family], limits: Limits) -> Chunks:
    return _text(families, limits, open_metrics=True)


_double = Struct("<d").pack
_ZERO = _double(0.0)
_TYPES = {MetricKind.COUNTER: 0, MetricKind.GAUGE: 1, MetricKind.HISTOGRAM: 4}


def _message(tag: int, data: bytes) -> bytes:
    return b"%c%b%b" % (tag << 3 | 2, _varint(len(data)), data)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


_varint = lru_cache(maxsize=1024)(varint)


@lru_cache(maxsize=4096)
def _bucket_head(count: int) -> bytes:
    """Return a classic bucket up to its limit, of eight bytes."""
    number = varint(count)
    return b"\x1a%c\x08%b\x11" % (len(number) + 10, number)


def _protobuf(families: list[Family], limits: Limits) -> Chunks:
    # Small families, and the number of series since the last slice has ended.
    ready: list[bytes] = []
    pending = 0
    for family in families:
        name, type, help, unit, rows, pairs = family
        sample = f"{name}_total" if type is MetricKind.COUNTER else name
        pieces = [_message(1, sample.encode())]
        if help:
            pieces.append(_message(2, help.encode()))
        pieces.append(b"\x18%c" % _TYPES[type])
        bounds = limits(family)
        tails = list(map(_double, bounds))
        bounds = (*bounds, math.inf)
        chunks = []
        for items in slices(rows):
            pending += len(items)
            if pending > SLICE:
                yield b"".join(ready)
                ready, pending = [], len(items)
            if type is MetricKind.HISTOGRAM:
                for labels, total in items:
                    value = _message(7, _native(total, bounds, tails))
                    pieces.append(_message(4, pairs[labels] + value))
            else:
                # Counter is field 3, gauge field 2; the value is their field 1.
                head = b"\x1a\x09\x09" if type is MetricKind.COUNTER else b"\x12\x09\x09"
                for labels, total in items:
                    pieces.append(_message(4, pairs[labels] + head + _double(total)))
            chunks.append(b"".join(pieces))
            pieces = []
        if _is_suffix(unit, name):
            chunks[-1] += _message(5, unit.encode())
        ready.append(varint(sum(map(len, chunks))))
        if len(chunks) == 1:
            ready += chunks
        else:
            yield b"".join(ready)
            yield from chunks
            ready, pending = [], 0
    yield b"".join(ready)


def _native(total: Distribution, bounds: tuple[float, ...], tails: list[bytes]) -> bytes:
    """
    Encode a C{Histogram} with exponential and, if there are limits, classic buckets.

    @param bounds: the limits, and infinity.
    @param tails: the limits, encoded.
    """
    counts = total.cumulative(bounds)
    # The differences of counts are fields of 64 bits with a sign.  A greater count, which only a
    # peer can have made up, would make the whole response invalid; so would a lower scale.
    native = counts[-1] < 2**63 and total.scale >= MIN_NATIVE_SCALE
    if not native:
        counts = [min(count, U64_MAX) for count in counts]
    *below, count = counts
    pieces = [
        b"\x08%b\x11%b" % (_varint(count), _double(total.sum)),
        *chain.from_iterable(zip(map(_bucket_head, below), tails, strict=True)),
    ]
    if native:
        # The scale, the width of the bucket of zeros, and its count.
        scale, zeros = _varint(_zigzag(total.scale)), _varint(total.zeros)
        pieces.append(b"\x28%b\x31%b\x38%b" % (scale, _ZERO, zeros))
        positive, negative = total.sides()
        if negative.indices:
            pieces += _spans(negative, 9)
        if positive.indices:
            pieces += _spans(positive, 12)
        if not count:
            # Without a span, the histogram would have only classic buckets.
            pieces.append(b"\x62\x04\x08\x00\x10\x00")
    return b"".join(pieces)


def _spans(side: Side, span: int) -> list[bytes]:
    """
    Encode the buckets of a side: runs of neighbors, and the differences of their counts.

    @param span: the field number of a span; that of the differences is the next one.
    """
    indices, counts = side.indices.tolist(), side.counts.tolist()
    if indices[-1] - indices[0] < len(indices):
        runs, deltas = [(indices[0], len(indices))], list(map(sub, counts, [0, *counts]))
    else:
        runs, deltas = _runs(indices, counts)
    pieces = []
    # Prometheus' index is that of the upper limit.
    end = -1
    for first, length in runs:
        pieces.append(_span(span, first - end, length))
        end = first + length
    pieces.append(b"%c%b" % (span + 1 << 3 | 2, pack_signed(deltas)))
    return pieces


@lru_cache(maxsize=1024)
def _span(number: int, offset: int, length: int) -> bytes:
    return _message(number, b"\x08%b\x10%b" % (varint(_zigzag(offset)), varint(length)))


def _runs(indices: list[int], counts: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """
    Return the first index and the length of each run, and the differences of the counts.  One or
    two empty buckets do not end a run, since a further span would take more bytes.
    """
    runs: list[tuple[int, int]] = []
    deltas: list[int] = []
    add = deltas.append
    before = 0
    first = after = indices[0]
    for index, count in zip(indices, counts, strict=True):
        if index != after:
            if index - after > 2:
                runs.append((first, after - first))
                first = index
            else:
                add(-before)
                if index - after == 2:
                    add(0)
                before = 0
        add(count - before)
        before = count
        after = index + 1
    return [*runs, (first, after - first)], deltas


TEXT = Format("text/plain; version=0.0.4; charset=utf-8", _text_004)
OPEN_METRICS = Format("application/openmetrics-text; version=1.0.0; charset=utf-8", _open_metrics)
PROTOBUF = Format(
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
    _protobuf,
)
