"""
Streams the measurements of a program that sets its own OpenTelemetry provider, or none.

C{metrics-tcp run --opentelemetry} uses it.  A program may make meters long before it sets a
provider, or an agent may set one, and the API accepts only the first.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.metrics._internal import _ProxyMeterProvider

from txmetrics_tcp.bridges.opentelemetry import StreamingMeterProvider


def stream_later_provider() -> None:
    """
    Make a `StreamingMeterProvider` the global provider.  What the program sets with
    C{set_meter_provider} becomes its inner provider, also for the instruments that exist already.

    Call this before the program imports C{set_meter_provider}.
    """
    later = _LaterProvider()
    set_first = metrics.set_meter_provider
    set_first(StreamingMeterProvider(inner=later))

    @wraps(set_first)
    def set_meter_provider(meter_provider: MeterProvider) -> None:
        if later.provider is None:
            later.on_set_meter_provider(meter_provider)
        else:
            # The API logs that it refuses another one.
            set_first(meter_provider)

    metrics.set_meter_provider = set_meter_provider


class _LaterProvider(_ProxyMeterProvider):
    """
    Stands in for a provider that is set later, if at all.  The base class, with which the API does
    so, passes instruments that were made before on to the provider that is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.provider: Any = None

    def on_set_meter_provider(self, meter_provider: MeterProvider) -> None:
        self.provider = meter_provider
        super().on_set_meter_provider(meter_provider)

    def get_meter(self, *arguments: Any) -> Meter:
        # The base class passes on no attributes.
        provider: Any = super() if self.provider is None else self.provider
        meter: Meter = provider.get_meter(*arguments)
        return meter

    def force_flush(self, **options: Any) -> Any:
        flush = getattr(self.provider, "force_flush", None)
        return None if flush is None else flush(**options)

    def shutdown(self, **options: Any) -> None:
        shutdown = getattr(self.provider, "shutdown", None)
        if shutdown is not None:
            shutdown(**options)
