"""
Streams that are prepared before a measurement.
"""

from __future__ import annotations

import random
import time

from suite.commands import LABELS, NAME
from txmetrics_tcp import Key, Metric, MetricKind, Operation, encode_metric

OPERATIONS = {
    MetricKind.COUNTER: Operation.INCREMENT_COUNTER,
    MetricKind.GAUGE: Operation.SET_GAUGE,
    MetricKind.HISTOGRAM: Operation.RECORD_HISTOGRAM,
}


def plain(events: int) -> list[bytes]:
    """Return frames of the counter of most measurements, as a server sends them."""
    key = Key.of(MetricKind.COUNTER, NAME, LABELS)
    now = time.time_ns()
    operation = Operation.INCREMENT_COUNTER
    return [encode_metric(Metric(key, operation, 1, now + number)) for number in range(events)]


def mixed(kinds: list[MetricKind], series: int, events: int) -> list[bytes]:
    """Return frames of several series in turn, with kinds in turn and lognormal samples."""
    keys = [
        Key.of(
            kinds[number % len(kinds)],
            f"requests_{number % 100}",
            {"method": "GET", "route": f"/{number:04}"},
        )
        for number in range(series)
    ]
    chance = random.Random(1)
    values = [chance.lognormvariate(0, 1) for _ in range(1000)]
    now = time.time_ns()
    frames = []
    for number in range(events):
        key = keys[number % series]
        value = number % 100 if key.kind is MetricKind.COUNTER else values[number % 1000]
        frames.append(encode_metric(Metric(key, OPERATIONS[key.kind], value, now + number * 1000)))
    return frames
