"""
Metrics of a publisher, in its own stream.
"""

from __future__ import annotations

from typing import Protocol

from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit

METADATA = (
    Metadata(
        MetricKind.COUNTER,
        "txmetrics_publisher_given_up_events_total",
        Unit.COUNT,
        "Events that were not published, because the buffer was full.",
    ),
    Metadata(
        MetricKind.GAUGE,
        "txmetrics_publisher_pending_bytes",
        Unit.BYTES,
        "Size of the messages that the broker does not have yet.",
    ),
)


class Published(Protocol):
    """The figures of `txmetrics_tcp.relay.nats.NatsPublisherService`."""

    @property
    def given_up(self) -> int: ...

    @property
    def pending_bytes(self) -> int: ...


class PublisherCollector:
    """Records the figures of a publisher when it is called."""

    def __init__(self, recorder: Recorder, publisher: Published) -> None:
        for metadata in METADATA:
            recorder.describe(metadata)
        given_up, pending = METADATA
        self._given_up = recorder.counter(given_up.name)
        self._pending = recorder.gauge(pending.name)
        self._publisher = publisher

    def __call__(self) -> None:
        self._given_up.absolute(self._publisher.given_up)
        self._pending.set(self._publisher.pending_bytes)
