"""
Stream a running program's metrics, live, to whoever connects.

Record with handles::

    from txmetrics_tcp import counter

    requests = counter("requests_total", route="/")
    requests.increment()

and let them be seen: with `TcpBuilder`, with `MetricsService` or `MetricsFactory` in a Twisted
application, or with ``twistd metrics-tcp``.
"""

from txmetrics_tcp._endpoints import EndpointError
from txmetrics_tcp._facade import (
    RecorderInstalledError,
    counter,
    current_recorder,
    describe_counter,
    describe_gauge,
    describe_histogram,
    gauge,
    histogram,
    set_global_recorder,
)
from txmetrics_tcp._model import Event, Key, Metadata, Metric, MetricKind, Operation, Unit
from txmetrics_tcp._protocol import MetricsProtocol
from txmetrics_tcp._recorder import Counter, Gauge, Histogram, NoopRecorder, Recorder
from txmetrics_tcp._server import MetricsFactory
from txmetrics_tcp._service import ListenError, MetricsService, TcpBuilder
from txmetrics_tcp._sink import Series, Sink
from txmetrics_tcp._stats import ClientStats, Stats
from txmetrics_tcp._tcp_recorder import TcpRecorder
from txmetrics_tcp._wire import (
    MAX_FRAME,
    Decoder,
    StreamError,
    decode,
    encode_metadata,
    encode_metric,
)

__all__ = [
    "MAX_FRAME",
    "ClientStats",
    "Counter",
    "Decoder",
    "EndpointError",
    "Event",
    "Gauge",
    "Histogram",
    "Key",
    "ListenError",
    "Metadata",
    "Metric",
    "MetricKind",
    "MetricsFactory",
    "MetricsProtocol",
    "MetricsService",
    "NoopRecorder",
    "Operation",
    "Recorder",
    "RecorderInstalledError",
    "Series",
    "Sink",
    "Stats",
    "StreamError",
    "TcpBuilder",
    "TcpRecorder",
    "Unit",
    "counter",
    "current_recorder",
    "decode",
    "describe_counter",
    "describe_gauge",
    "describe_histogram",
    "encode_metadata",
    "encode_metric",
    "gauge",
    "histogram",
    "set_global_recorder",
]

__version__ = "0.1.0"
