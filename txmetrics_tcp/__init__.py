"""
Stream the metrics of a running program, live, to any number of clients.

Record metrics with handles::

    from txmetrics_tcp import counter

    requests = counter("requests_total", route="/")
    requests.increment()

Export them with `TcpBuilder`, or in a Twisted application with `MetricsService` or
`MetricsFactory`.  ``twistd metrics-tcp`` exports the metrics of the host and of its own process.
"""

import os
import sys
from importlib import import_module
from os.path import basename
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txmetrics_tcp._client.protocol import MetricsClientFactory, MetricsClientProtocol
    from txmetrics_tcp._client.service import (
        Connected,
        Connecting,
        ConnectionState,
        Disconnected,
        MetricsClientService,
        Waiting,
    )
    from txmetrics_tcp._client.stream import EventStream
    from txmetrics_tcp._codec.decoder import Decoder, decode
    from txmetrics_tcp._codec.encoder import encode_metric
    from txmetrics_tcp._codec.framing import MAX_FRAME, StreamError
    from txmetrics_tcp._codec.wire import encode_metadata
    from txmetrics_tcp._distribution import Bucket, Distribution
    from txmetrics_tcp._exporter.builder import TcpBuilder
    from txmetrics_tcp._exporter.cardinality import MetricCardinality
    from txmetrics_tcp._exporter.factory import MetricsFactory
    from txmetrics_tcp._exporter.protocol import MetricsProtocol
    from txmetrics_tcp._exporter.recorder import TcpRecorder
    from txmetrics_tcp._exporter.service import MetricsService
    from txmetrics_tcp._exporter.settings import ExporterSettings
    from txmetrics_tcp._exporter.stats import ClientStats, Stats
    from txmetrics_tcp._exporter.thread import ReactorThreadError, ThreadedExporter
    from txmetrics_tcp._instruments.facade import (
        RecorderInstalledError,
        counter,
        current_recorder,
        describe_counter,
        describe_gauge,
        describe_histogram,
        gauge,
        histogram,
        local_recorder,
        set_global_recorder,
    )
    from txmetrics_tcp._instruments.layers import (
        FanoutRecorder,
        FilterRecorder,
        LabelsRecorder,
        PrefixRecorder,
        Route,
        RouterRecorder,
    )
    from txmetrics_tcp._instruments.recorder import (
        Counter,
        Gauge,
        Histogram,
        NoopRecorder,
        Recorder,
    )
    from txmetrics_tcp._instruments.sink import Series, Sink
    from txmetrics_tcp._model import (
        Event,
        Gone,
        HistogramTotal,
        Key,
        Metadata,
        Metric,
        MetricKind,
        Operation,
        Snapshot,
        Status,
        Unit,
        Unknown,
    )
    from txmetrics_tcp._net.endpoint_syntax import EndpointError
    from txmetrics_tcp._net.listening import ListenError
    from txmetrics_tcp._net.tls import ServerTLS, tls_endpoint
    from txmetrics_tcp._net.tls_errors import TLSError
    from txmetrics_tcp._recording.blocks import RecordingError
    from txmetrics_tcp._recording.reader import RecordingReader
    from txmetrics_tcp._recording.writer import RecordingWriter
    from txmetrics_tcp._view.filters import Filter, FilterError, parse_filter
    from txmetrics_tcp._view.series import SeriesView, SourceView
    from txmetrics_tcp._view.windows import Summary

__all__ = [
    "MAX_FRAME",
    "Bucket",
    "ClientStats",
    "Connected",
    "Connecting",
    "ConnectionState",
    "Counter",
    "Decoder",
    "Disconnected",
    "Distribution",
    "EndpointError",
    "Event",
    "EventStream",
    "ExporterSettings",
    "FanoutRecorder",
    "Filter",
    "FilterError",
    "FilterRecorder",
    "Gauge",
    "Gone",
    "Histogram",
    "HistogramTotal",
    "Key",
    "LabelsRecorder",
    "ListenError",
    "Metadata",
    "Metric",
    "MetricCardinality",
    "MetricKind",
    "MetricsClientFactory",
    "MetricsClientProtocol",
    "MetricsClientService",
    "MetricsFactory",
    "MetricsProtocol",
    "MetricsService",
    "NoopRecorder",
    "Operation",
    "PrefixRecorder",
    "ReactorThreadError",
    "Recorder",
    "RecorderInstalledError",
    "RecordingError",
    "RecordingReader",
    "RecordingWriter",
    "Route",
    "RouterRecorder",
    "Series",
    "SeriesView",
    "ServerTLS",
    "Sink",
    "Snapshot",
    "SourceView",
    "Stats",
    "Status",
    "StreamError",
    "Summary",
    "TLSError",
    "TcpBuilder",
    "TcpRecorder",
    "ThreadedExporter",
    "Unit",
    "Unknown",
    "Waiting",
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
    "local_recorder",
    "parse_filter",
    "set_global_recorder",
    "tls_endpoint",
]

__version__ = "0.1.0"

DOCS = "https://txmetrics-tcp.readthedocs.io/en/latest"
"""The address of the documentation, for help texts."""

# Names are imported on first use: importing Twisted and protobuf takes ten times as long as
# importing everything that a library needs for recording.
_MODULE_OF = {
    name: module
    for module, names in {
        "_client.protocol": "MetricsClientFactory MetricsClientProtocol",
        "_client.service": "Connected Connecting ConnectionState Disconnected"
        " MetricsClientService Waiting",
        "_client.stream": "EventStream",
        "_codec.decoder": "decode Decoder",
        "_codec.encoder": "encode_metric",
        "_codec.framing": "MAX_FRAME StreamError",
        "_codec.wire": "encode_metadata",
        "_distribution": "Bucket Distribution",
        "_exporter.builder": "TcpBuilder",
        "_exporter.cardinality": "MetricCardinality",
        "_exporter.factory": "MetricsFactory",
        "_exporter.protocol": "MetricsProtocol",
        "_exporter.recorder": "TcpRecorder",
        "_exporter.service": "MetricsService",
        "_exporter.settings": "ExporterSettings",
        "_exporter.stats": "ClientStats Stats",
        "_exporter.thread": "ReactorThreadError ThreadedExporter",
        "_instruments.facade": "counter current_recorder describe_counter describe_gauge"
        " describe_histogram gauge histogram local_recorder"
        " RecorderInstalledError set_global_recorder",
        "_instruments.layers": "FanoutRecorder FilterRecorder LabelsRecorder PrefixRecorder"
        " Route RouterRecorder",
        "_instruments.recorder": "Counter Gauge Histogram NoopRecorder Recorder",
        "_instruments.sink": "Series Sink",
        "_model": (
            "Event Gone HistogramTotal Key Metadata Metric MetricKind Operation Snapshot Status"
            " Unit Unknown"
        ),
        "_net.endpoint_syntax": "EndpointError",
        "_net.listening": "ListenError",
        "_net.tls": "ServerTLS tls_endpoint",
        "_net.tls_errors": "TLSError",
        "_recording.blocks": "RecordingError",
        "_recording.reader": "RecordingReader",
        "_recording.writer": "RecordingWriter",
        "_view.filters": "Filter FilterError parse_filter",
        "_view.series": "SeriesView SourceView",
        "_view.windows": "Summary",
    }.items()
    for name in names.split()
}

_RECORDING = ("_model", "_instruments.facade", "_instruments.recorder", "_instruments.sink")


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})


def _is_command() -> bool:
    """Whether this process runs ``metrics-tcp`` or ``python -m txmetrics_tcp``."""
    program, module = [*sys.orig_argv, "", "", ""][1:3]
    return basename(program) == "metrics-tcp" or (program, module) == ("-m", "txmetrics_tcp")


# The names for recording are imported immediately: their first use may follow a fork or a chroot,
# or happen at interpreter shutdown, where imports fail.  Commands do not need these names, and
# print --help in half the time without them.
if not _is_command():
    for _name in [name for name, module in _MODULE_OF.items() if module in _RECORDING]:
        __getattr__(_name)
    del _name

    def _start_exporter() -> None:
        """Start the exporter that the environment asks for, before the program's first handle."""
        if os.environ.get("TXMETRICS_TCP_LISTEN", "").strip():
            import_module(f"{__name__}._exporter.environment").start()
        else:
            _facade.call_before_handles(None)

    _facade = import_module(f"{__name__}._instruments.facade")
    _facade.call_before_handles(_start_exporter)
