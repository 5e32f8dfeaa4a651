"""
The lists of metrics, settings, options and filters in docs/reference/ are complete.
"""

from __future__ import annotations

import re
from dataclasses import fields
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, needs
from tests.recorders import ListRecorder
from txmetrics_tcp import ExporterSettings, MetricsService, TcpBuilder
from txmetrics_tcp._codec.decoder import decode
from txmetrics_tcp._collectors import event_loops, runtime
from txmetrics_tcp._exporter.environment import VARIABLE
from txmetrics_tcp._exporter.self_metrics import OwnMetrics
from txmetrics_tcp._model import Metadata
from txmetrics_tcp._view.filter_syntax import SYNTAX
from txmetrics_tcp.bridges import _otlp_export as otlp
from txmetrics_tcp.bridges import logging as logging_bridge
from txmetrics_tcp.bridges import statsd
from txmetrics_tcp.bridges import twisted as twisted_bridge
from txmetrics_tcp.bridges._otlp_settings import VARIABLES as OTLP
from txmetrics_tcp.bridges.opentelemetry import StreamingMeterProvider
from txmetrics_tcp.cli.parser import make_parsers
from txmetrics_tcp.cli.sources import ENVIRONMENT
from txmetrics_tcp.relay import _publisher_metrics as publisher
from txmetrics_tcp.relay._access import VARIABLES as NATS
from txmetrics_tcp.tap import makeService
from txmetrics_tcp.tap.options import Options


def page(name: str) -> str:
    return (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")


def rows(text: str) -> list[tuple[list[str], list[str]]]:
    """Return, for each row of all tables, the code in the first cell and the text of the others."""
    found = []
    for line in text.splitlines():
        if line.startswith("| `"):
            first, *others = line.strip("| ").split(" | ")
            found.append((re.findall("`(.+?)`", first), others))
    return found


def daemon_options() -> set[str]:
    return {f"--{option.rstrip('=')}" for option in Options().longOpt} - {"--help", "--version"}


class MetricsTests(SynchronousTestCase):
    @skipIf(needs("psutil"), needs("psutil"))
    def test_metrics(self) -> None:
        """
        The page lists exactly the metrics that the daemon, also as a collector and publisher,
        C{metrics-tcp run} and the bridges describe, with kind and unit.
        """
        options = Options()
        options.parseOptions(["--collect", "unix:s"])
        service = makeService(options).getServiceNamed("metrics-tcp")
        assert isinstance(service, MetricsService)
        OwnMetrics(service.recorder, service.stats).publish(1)
        described = set()
        for event in decode(b"".join(service._factory.incoming.take_described().values())):
            assert isinstance(event, Metadata)
            described.add((event.name, event.kind.value, event.unit))
        for metadata in (
            *(*runtime.METADATA, *event_loops.METADATA, *publisher.METADATA),
            *(*twisted_bridge.METADATA, logging_bridge.METADATA, *otlp.METADATA),
        ):
            described.add((metadata.name, metadata.kind.value, metadata.unit))
        for metadata in statsd.METADATA:
            described.add((metadata.name, metadata.kind.value, metadata.unit))
        recorder = ListRecorder()
        StreamingMeterProvider(recorder)
        for metadata in recorder.described:
            described.add((metadata.name, metadata.kind.value, metadata.unit))
        documented = []
        for names, (kind, *_) in rows(page("metrics")):
            kind, _, unit = kind.partition(", ")
            documented += [(name.partition("{")[0], kind, unit or "count") for name in names]
        self.assertEqual(sorted(documented), sorted(described))


class SettingsTests(SynchronousTestCase):
    def test_settings(self) -> None:
        """The page lists all settings in order, with their defaults and the daemon's options."""
        documented = rows(page("settings").partition("## Environment variables")[0])
        settings = [(one.name, f"`{one.default!r}`") for one in fields(ExporterSettings)]
        self.assertEqual([(names[0], cells[0]) for names, cells in documented], settings)
        for (name, *options), _ in documented:
            option = "--" + name.replace("_", "-")
            self.assertEqual(options, [option] if option in daemon_options() else [])
            if name != "max_clients_per_address":
                self.assertTrue(callable(getattr(TcpBuilder, name)))

    def test_variables(self) -> None:
        documented = rows(page("settings").partition("## Environment variables")[2])
        exporter = [f"OTEL_EXPORTER_OTLP_{name}" for name in OTLP]
        others = ["OTEL_METRIC_EXPORT_INTERVAL", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"]
        self.assertEqual(
            [name for names, _ in documented for name in names],
            [VARIABLE, ENVIRONMENT, *NATS, *exporter, *others],
        )


class CommandsTests(SynchronousTestCase):
    def setUp(self) -> None:
        _, *sections = re.split("^## ", page("commands"), flags=re.MULTILINE)
        self.sections = {section.partition("\n")[0]: section for section in sections}

    def assert_documented(self, options: set[str], text: str) -> None:
        self.assertEqual(options - set(re.findall(r"--?\w[\w-]*", text)), set())

    def test_daemon(self) -> None:
        self.assert_documented(daemon_options(), self.sections["twistd metrics-tcp"])

    def test_commands(self) -> None:
        """Each option is in the section of its command, or in the section on connection options."""
        _, commands = make_parsers()
        for name, parser in commands.items():
            options = {
                option
                for action in parser._actions
                for option in action.option_strings
                if option not in ("-h", "--help")
            }
            text = self.sections[name]
            if "CONNECTION OPTIONS" in text:
                text += self.sections["Connection options"]
            self.assert_documented(options, text)

    def test_filters(self) -> None:
        """The page lists the same kinds of terms as the help texts."""
        terms = re.findall("^  ([^ ,]+)", SYNTAX, re.MULTILINE)
        documented = {term for names, _ in rows(self.sections["Filters"]) for term in names}
        self.assertEqual(documented, {*terms, "!term"})
