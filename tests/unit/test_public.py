"""
The public interface: names, commands and options, which must not change unintentionally.

`tests.unit.codec.test_wire` covers the wire format, and `tests.unit.view.test_lines` and
`tests.unit.view.test_report` cover the JSON keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import walk_packages

from twisted.application.service import IServiceMaker
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

import txmetrics_tcp
from tests import needs
from txmetrics_tcp import cli, event_pb2, tap, testing
from txmetrics_tcp._view import report
from txmetrics_tcp.cli import arguments
from txmetrics_tcp.cli.parser import make_parsers
from txmetrics_tcp.web import MetricsWeb

PUBLIC = """
    Bucket ClientStats Connected Connecting ConnectionState Counter Decoder Disconnected
    Distribution EndpointError HistogramTotal
    Event EventStream ExporterSettings FanoutRecorder FilterRecorder Gauge Gone Histogram
    Key LabelsRecorder ListenError MAX_FRAME Metadata Metric MetricCardinality MetricKind
    MetricsClientFactory MetricsClientProtocol MetricsClientService MetricsFactory MetricsProtocol
    MetricsService NoopRecorder Operation
    PrefixRecorder ReactorThreadError Recorder RecorderInstalledError Route RouterRecorder Series
    Sink Snapshot Stats Status StreamError TcpBuilder TcpRecorder ThreadedExporter Unit Unknown
    Waiting counter current_recorder decode describe_counter describe_gauge describe_histogram
    encode_metadata encode_metric gauge histogram local_recorder set_global_recorder
    RecordingError RecordingReader RecordingWriter
    Filter FilterError SeriesView ServerTLS SourceView Summary TLSError parse_filter
    tls_endpoint
""".split()  # noqa: SIM905 - a list would take a line for each

TLS = "--tls --tls-ca --tls-name --tls-cert --tls-key"

COMMANDS = {
    "run": "--listen --interval --prometheus --opentelemetry",
    "tail": f"""
        endpoints --raw --json -v --verbose --exact --filter --count --duration --max-frame
        --since {TLS}
    """,
    "stats": f"endpoints --duration --json --filter --sort --max-frame {TLS}",
    "record": f"file endpoints --compress --append --force --count --duration --max-frame {TLS}",
    "replay": "file --speed --listen --loop",
    "observe": f"endpoints --export-dir --max-frame {TLS}",
    "publish": f"""
        endpoints --to --source --linger --buffer --snapshot --replicas --max-age --max-frame {TLS}
    """,
    "otlp": f"endpoints --to --interval --stale-after --max-frame {TLS}",
    "web": f"""
        endpoints --listen --open --history --since --max-viewers --allow-host --token-file
        --web-tls-key --web-tls-cert --max-frame {TLS}
    """,
    "prometheus": f"endpoints --listen --stale-after --max-frame {TLS}",
}

DAEMON = """
    allow= buffer-size= collect= dead-after= from= gauges= grace= help instance-label= interval=
    listen= max-clients-per-address= max-clients= max-delay= max-source-bytes= max-source-events=
    publish-buffer= publish-linger= publish-max-age= publish-replicas= publish-snapshot=
    publish-source= publish=
    statsd-flush= statsd-max-series= statsd-prefix= statsd=
    max-source-series= merge= no-host no-process otlp-interval= otlp= prometheus= tls-cert=
    tls-client-ca= tls-key= version
    web= web-allow-host= web-history= web-token-file=
"""


NOT_IMPORTED = {"txmetrics_tcp.bridges.scrapy"} if needs("scrapy") else set()
"""Modules that need a package that is not installed."""


def modules() -> Iterator[str]:
    """Yield the names of all modules that can be imported without side effects."""
    for module in walk_packages(txmetrics_tcp.__path__, "txmetrics_tcp."):
        if not module.name.endswith(".__main__") and module.name not in NOT_IMPORTED:
            yield module.name


class NamesTests(SynchronousTestCase):
    """Importable names."""

    def test_package(self) -> None:
        self.assertEqual(sorted(txmetrics_tcp.__all__), sorted(PUBLIC))
        for name in PUBLIC:
            self.assertTrue(hasattr(txmetrics_tcp, name), name)
        self.assertEqual(set(PUBLIC) - set(dir(txmetrics_tcp)), set())

    def test_unknown(self) -> None:
        self.assertFalse(hasattr(txmetrics_tcp, "nothing"))

    def test_star(self) -> None:
        names: dict[str, object] = {}
        exec("from txmetrics_tcp import *", names)
        self.assertEqual(set(PUBLIC) - set(names), set())

    def test_modules(self) -> None:
        self.assertEqual(
            sorted(testing.__all__), ["Captured", "FakeReactor", "PausingTransport", "capture"]
        )
        self.assertTrue(callable(MetricsWeb))
        for name in ("CannotStart", "Daemon", "Options", "makeService"):
            self.assertTrue(hasattr(tap, name), name)
        self.assertTrue(callable(cli.main))

    def test_bridges(self) -> None:
        expected = {
            "asyncio": ["LoopMeasurement", "measure_loop"],
            "logging": ["CountingHandler", "MAX_NAMES"],
            "otlp": ["OtlpService", "OtlpSettings", "OtlpStats"],
            "scrapy": ["MAX_STATS", "StreamingStatsCollector"],
            "statsd": [
                *("FLUSH", "MAX_CONNECTIONS", "MAX_LINE", "MAX_SERIES"),
                *("StatsDFactory", "StatsDProtocol", "StatsDReceiver", "StatsDService"),
            ],
            "twisted": [
                *("CountingObserver", "MAX_NAMES", "ReactorMetrics"),
                *("measure_looping_call", "measure_site"),
            ],
        }
        for name, words in expected.items():
            if f"txmetrics_tcp.bridges.{name}" not in NOT_IMPORTED:
                module = import_module(f"txmetrics_tcp.bridges.{name}")
                self.assertEqual(sorted(module.__all__), words)

    def test_privateModules(self) -> None:
        """All modules can be imported, and modules that are not public start with an underscore."""
        tops = {name.split(".")[1] for name in modules()}
        public = {name for name in tops if not name.startswith("_")}
        self.assertEqual(
            public, {"bridges", "cli", "event_pb2", "observe", "relay", "tap", "testing", "web"}
        )
        for name in modules():
            import_module(name)


class CommandTests(SynchronousTestCase):
    """Commands and their options."""

    def test_script(self) -> None:
        (script,) = entry_points(group="console_scripts", name="metrics-tcp")
        self.assertIs(script.load(), cli.main)

    def test_plugin(self) -> None:
        (plugin,) = [one for one in getPlugins(IServiceMaker) if one.tapname == "metrics-tcp"]
        self.assertEqual(plugin.module, "txmetrics_tcp.tap")

    def test_providers(self) -> None:
        """OpenTelemetry finds its provider by name."""
        (provider,) = entry_points(group="opentelemetry_meter_provider", name="txmetrics")
        self.assertEqual(
            provider.value, "txmetrics_tcp.bridges.opentelemetry:StreamingMeterProvider"
        )

    def test_options(self) -> None:
        _, commands = make_parsers()
        found = {
            name: {word for one in parser._actions for word in one.option_strings or [one.dest]}
            for name, parser in commands.items()
        }
        expected = {name: {"-h", "--help", *words.split()} for name, words in COMMANDS.items()}
        self.assertEqual(found, expected)

    def test_sorts(self) -> None:
        """Reports support every sort key that `stats` offers."""
        self.assertEqual(arguments.SORTS, tuple(report.SORTS))

    def test_daemonOptions(self) -> None:
        self.assertEqual(sorted(tap.Options().longOpt), sorted(DAEMON.split()))


class RegisteredNamesTests(SynchronousTestCase):
    """Names in logs and in protobuf's descriptor pool."""

    def test_log(self) -> None:
        """All loggers of the package have its namespace."""
        found = set()
        for name in modules():
            module = import_module(name)
            found |= {one for one in vars(module).values() if isinstance(one, Logger)}
            for owner in vars(module).values():
                # A logger that is a class attribute would use the name of the class instead.
                if isinstance(owner, type) and owner.__module__ == name:
                    loggers = [one for one in vars(owner).values() if isinstance(one, Logger)]
                    self.assertEqual(loggers, [], owner)
        self.assertEqual({one.namespace for one in found}, {"txmetrics_tcp"})

    def test_descriptor(self) -> None:
        self.assertEqual(event_pb2.DESCRIPTOR.name, "txmetrics_tcp/event.proto")
        self.assertEqual(event_pb2.Event.DESCRIPTOR.full_name, "txmetrics_tcp.Event")
