"""
Prometheus itself scrapes: its queries give correct values, and the dashboard has data.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import skipIf
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.daemon import LIMIT, METRICS_TCP, Daemon
from tests.documents import DOCS
from tests.programs import Program, until
from tests.unit.bridges.test_formats import DESCRIPTIONS, families, render, totals
from txmetrics_tcp import Key, Metadata
from txmetrics_tcp._model import Total
from txmetrics_tcp.bridges._families import Source
from txmetrics_tcp.bridges._formats import TEXT

PAGE = DOCS / "how-to" / "prometheus.md"
DASHBOARD = DOCS / "how-to" / "prometheus" / "dashboard.json"

no_prometheus = needs("prometheus")
no_promtool = needs("promtool")

# Prometheus writes its log to standard error, and `Daemon` reads standard output.
PROMETHEUS = ["sh", "-c", 'exec prometheus "$@" 2>&1', "prometheus"]

SERVING = r"(?:to Prometheus|are served) on \S+:(\d+)\D"
"""The messages of daemon and command that have their port."""

SLOW = [0.001 * 1.01**step for step in range(1000)]
"""The samples of a histogram; they are between 1 ms and 21 s."""

FAST = [0.01 * 1.001**step for step in range(1000)]
"""Samples that are recorded later; they are between 10 and 27 ms."""

LABEL = 'a"b\\c\nd é 😀'
"""The value of a label."""

# Serves its metrics, and records more before it responds to `/step`.
SITE = f"""
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site
from txmetrics_tcp import MetricsFactory, Key, MetricKind
from txmetrics_tcp.bridges.exposition import MetricsResource

recorder = MetricsFactory(reactor).recorder
jobs, exact = recorder.counter("jobs_total"), recorder.counter("exact_total")
recorder.describe_histogram("job_seconds", "seconds", "Time of a job.")
seconds = recorder.histogram("job_seconds")
exact.absolute(2**53 - 1)
jobs.absolute(0)
for sample in {SLOW!r}:
    seconds.record(sample)
recorder.counter("label", value={LABEL!r}, job="mine", __name__="x", le="1").increment()
recorder.gauge("jobs").set(1)  # the family of jobs_total
for name in "9 lives", "é.name", "a-b", "a.b", "a_b", "{{}}", "\\n", "exact_created", "\\U0001f600":
    for number in range(3):
        labels = {{"a.b": number, "a_b": "", "\\n": "x", "9": "\\\\", "instance": "y"}}
        recorder.counter(name, labels).increment()
        recorder.gauge(name, labels).set(float("nan"))
        recorder.histogram(name, labels).record_many(float("-inf"), 3)

class Step(Resource):
    def render_GET(self, request):
        jobs.increment(1000)
        exact.increment()
        for sample in {FAST!r}:
            seconds.record(sample)
        return b""

root = Resource()
root.putChild(b"metrics", MetricsResource(recorder))
root.putChild(b"step", Step())
port = reactor.listenTCP(0, Site(root), interface="127.0.0.1").getHost().port
print(f"port={{port}}", flush=True)
reactor.run()
"""


# Without a proxy, whatever the environment has.
_opener = build_opener(ProxyHandler({}))


def fetch(port: int, path: str) -> bytes:
    with _opener.open(f"http://127.0.0.1:{port}/{path}", timeout=LIMIT) as response:
        content: bytes = response.read()
    return content


def promtool(*arguments: str, text: str = "") -> tuple[int, str]:
    """Run a command of promtool, and return its exit status and its output."""
    done = subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, text=True, timeout=LIMIT
    )
    return done.returncode, done.stdout + done.stderr


class Prometheus:
    """A Prometheus server with a temporary store, which scrapes some ports of this machine."""

    def __init__(
        self, case: SynchronousTestCase, ports: dict[str, int], native_histograms: bool
    ) -> None:
        """
        @param ports: the ports to scrape, by the name of the job.
        """
        directory = Path(case.mktemp()).resolve()
        directory.mkdir()
        jobs = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in ports.items()
        ]
        # JSON is YAML.
        configuration = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "scrape_configs": jobs,
        }
        (directory / "prometheus.yml").write_text(json.dumps(configuration))
        self._server = Daemon(
            case,
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            *(["--enable-feature=native-histograms"] if native_histograms else []),
            runner=PROMETHEUS,
        )
        self._jobs = set(ports)

    def wait_until_scraped(self) -> None:
        """Wait until each job was scraped at least once; Prometheus begins after five seconds."""
        self._port = int(self._server.wait_for(r'msg="Listening on".* address=\S+:(\d+)')[1])
        for job in self._jobs:
            self.wait_for(f'up{{job="{job}"}} == 1', bool)

    def wait_for(self, expression: str, holds: Callable[[list[float]], bool]) -> None:
        """Wait until a condition holds for the values of the result of a query."""
        until(lambda: holds(self.values(expression)), lambda: expression)

    def query(self, expression: str, time: float | None = None) -> list[dict[str, Any]]:
        """
        Return the result of a query; empty while Prometheus is starting.

        @param time: the time of evaluation; by default, now.
        """
        parameters = {"query": expression, **({} if time is None else {"time": f"{time:.3f}"})}
        try:
            answer = json.loads(fetch(self._port, f"api/v1/query?{urlencode(parameters)}"))
        except OSError:
            return []
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def values(self, expression: str, time: float | None = None) -> list[float]:
        """Return the values of the result of a query."""
        return [float(series["value"][1]) for series in self.query(expression, time)]


def serving_port(program: Daemon) -> int:
    """Return the port on which a program serves metrics to Prometheus."""
    return int(program.wait_for(SERVING)[1])


def classic_bucket(value: float) -> tuple[float, float]:
    """Return the limits of the bucket of a sample in seconds."""
    limits = [0, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.inf]
    return next((lower, upper) for lower, upper in pairwise(limits) if value <= upper)


def native_bucket(value: float) -> tuple[float, float]:
    """Return the limits of the bucket of a sample, of which each doubling has 32."""
    upper = math.ceil(math.log2(value) * 32)
    return 2 ** ((upper - 1) / 32), 2 ** (upper / 32)


def start(case: SynchronousTestCase, ports: dict[str, int]) -> tuple[Prometheus, Prometheus]:
    """Start a server without native histograms and one with them, and wait for their scrapes."""
    servers = Prometheus(case, ports, False), Prometheus(case, ports, True)
    for server in servers:
        server.wait_until_scraped()
    return servers


@skipIf(no_promtool, no_promtool)
class FormatTests(SynchronousTestCase):
    """What Prometheus' own parser accepts"""

    # A process for each example.
    @settings(max_examples=25, deadline=None)
    @given(totals(), DESCRIPTIONS)
    def test_anything(self, series: dict[Key, Total], descriptions: list[Metadata]) -> None:
        """promtool can parse every response, whatever names, labels, values and units there are."""
        text = render(TEXT, *families(Source((), series, descriptions))).decode()
        status, output = promtool("check", "metrics", text=text)
        # 3 if names break conventions.
        self.assertIn(status, (0, 3), output)


@skipIf(no_prometheus, no_prometheus)
@skipIf(no_promtool, no_promtool)
class QueryTests(SynchronousTestCase):
    """What Prometheus computes from a resource in a site"""

    def test_queries(self) -> None:
        """
        Increases, rates and quantiles are those of what was recorded, whatever other names and
        labels there are.  Counters are exact up to 2**53.
        """
        site = Program(self, SITE, preamble="")
        status, output = promtool("check", "metrics", text=fetch(site.port, "metrics").decode())
        # Names that break conventions are reported with the status 3.
        self.assertEqual(status, 3, output)
        classic, native = start(self, {"site": site.port})
        for server in classic, native:
            server.wait_for("exact_total", lambda values: values == [2**53 - 1])
        fetch(site.port, "step")
        for server in classic, native:
            server.wait_for("exact_total", lambda values: values == [2**53])
            self.check_rates(server)
            self.check_names(server)
        self.check_quantiles(classic, "_bucket", classic_bucket)
        self.check_quantiles(native, "", native_bucket)

    def window(self, server: Prometheus) -> tuple[float, float]:
        """Return the time of the last sample, and the seconds from the first one, inclusive."""
        [series] = server.query("jobs_total[1h]")
        (first, _), *_, (last, _) = series["values"]
        return last, last - first + 0.001

    def check_rates(self, server: Prometheus) -> None:
        end, seconds = self.window(server)
        window = f"[{seconds * 1000:.0f}ms]"
        for expression, truth in (
            (f"increase(jobs_total{window})", 1000),
            (f"rate(jobs_total{window})", 1000 / seconds),
        ):
            [value] = server.values(expression, end)
            self.assertApproximates(value, truth, truth * 0.01)

    def check_names(self, server: Prometheus) -> None:
        """Labels have their values; what was left out is counted."""
        end, _ = self.window(server)
        [series] = server.query("label_total", end)
        labels = series["metric"]
        self.assertEqual(labels["value"], LABEL)
        self.assertEqual(labels["exported_job"], "mine")
        self.assertEqual(labels["exported__name__"], "x")
        self.assertEqual(labels["exported_le"], "1")
        self.assertEqual(len(server.query("a_b_total", end)), 3)
        [left_out] = server.values('txmetrics_exposition_left_out{reason="clash"}', end)
        self.assertGreater(left_out, 0)

    def check_quantiles(
        self, server: Prometheus, suffix: str, bounds: Callable[[float], tuple[float, float]]
    ) -> None:
        """
        Check that quantiles are in the same bucket as those of the samples.

        @param bounds: returns the limits of the bucket of a sample.
        """
        end, seconds = self.window(server)
        all_time = f"job_seconds{suffix}"
        recent = f"rate({all_time}[{seconds * 1000:.0f}ms])"
        for expression, samples in (all_time, sorted(SLOW + FAST)), (recent, FAST):
            for quantile in 0.1, 0.5, 0.9, 0.99:
                [found] = server.values(f"histogram_quantile({quantile}, {expression})", end)
                lower, upper = bounds(samples[math.ceil(quantile * len(samples)) - 1])
                # Prometheus rounds.
                within = lower * (1 - 1e-9) <= found <= upper * (1 + 1e-9)
                self.assertTrue(within, (expression, quantile, lower, found, upper))


@skipIf(no_promtool, no_promtool)
class PageTests(SynchronousTestCase):
    """What docs/how-to/prometheus.md shows"""

    def setUp(self) -> None:
        self.page = PAGE.read_text(encoding="utf-8")

    def test_configurations(self) -> None:
        """promtool accepts every configuration."""
        configurations = re.findall(r"(?ms)^```yaml\n(.*?)^```$", self.page)
        self.assertEqual(len(configurations), 2)
        for configuration in configurations:
            # Prometheus knows this setting since version 3.8.
            known = configuration.replace("  scrape_native_histograms: true\n", "")
            path = Path(self.mktemp())
            path.write_text(known)
            status, output = promtool("check", "config", str(path))
            self.assertEqual(status, 0, output)

    def test_queries(self) -> None:
        """promtool accepts every query."""
        table = self.page.split("\n## Query\n")[1].split("\n## ")[0]
        queries = re.findall(r"`(\w+\(.+?)`", table[table.index("|---") :])
        self.assertEqual(len(queries), 8)
        check_expressions(self, queries)


def check_expressions(case: SynchronousTestCase, expressions: list[str]) -> None:
    """Check that promtool accepts expressions."""
    rules = [
        {"record": f"rule:{number}", "expr": expression}
        for number, expression in enumerate(expressions)
    ]
    path = Path(case.mktemp())
    path.write_text(json.dumps({"groups": [{"name": "rules", "rules": rules}]}))
    status, output = promtool("check", "rules", str(path))
    case.assertEqual(status, 0, output)
    case.assertIn(f"{len(rules)} rules found", output)


class DashboardTests(SynchronousTestCase):
    """The Grafana dashboard in the documents"""

    def setUp(self) -> None:
        self.dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
        self.panels = [one for one in self.dashboard["panels"] if one["type"] != "row"]
        self.expressions = [
            self.substituted(target["expr"]) for panel in self.panels for target in panel["targets"]
        ]
        self.assertGreater(len(self.expressions), 40)

    def substituted(self, expression: str) -> str:
        """Replace Grafana's variables."""
        for variable, value in (
            ("$__rate_interval", "1m"),
            ("$__range", "1m"),
            ("$job", ".*"),
            ("$instance", ".*"),
        ):
            expression = expression.replace(variable, value)
        self.assertNotIn("$", expression)
        return expression

    def test_structure(self) -> None:
        """Each panel has a place and an id of its own, a title, a description and a unit."""
        cells = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            columns = range(place["x"], place["x"] + place["w"])
            rows = range(place["y"], place["y"] + place["h"])
            covered = {(column, row) for column in columns for row in rows}
            self.assertFalse(covered & cells, panel["title"])
            cells |= covered
            self.assertLessEqual(place["x"] + place["w"], 24)
        self.assertEqual(
            len({panel["id"] for panel in self.dashboard["panels"]}), len(self.dashboard["panels"])
        )
        for panel in self.panels:
            self.assertTrue(panel["title"])
            self.assertTrue(panel["description"].endswith("."), panel["title"])
            self.assertTrue(panel["fieldConfig"]["defaults"]["unit"])
            for target in panel["targets"]:
                self.assertEqual(target["datasource"], panel["datasource"])
                self.assertTrue(target["legendFormat"])
            letters = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(set(letters)), len(letters))

    def test_variables(self) -> None:
        """Every panel reads the chosen data source, job and instance."""
        names = [variable["name"] for variable in self.dashboard["templating"]["list"]]
        self.assertEqual(names, ["datasource", "job", "instance"])
        for panel in self.panels:
            self.assertEqual(panel["datasource"], {"type": "prometheus", "uid": "${datasource}"})
            for target in panel["targets"]:
                for selector in re.findall(r"\{.*?\}", target["expr"]):
                    self.assertIn('job=~"$job"', selector)
                    self.assertIn('instance=~"$instance"', selector)

    @skipIf(no_promtool, no_promtool)
    def test_expressions(self) -> None:
        """promtool accepts every expression."""
        check_expressions(self, self.expressions)

    @skipIf(no_prometheus, no_prometheus)
    @skipIf(no_promtool, no_promtool)
    @skipIf(needs("psutil"), needs("psutil"))
    def test_data(self) -> None:
        """
        Every query has data of the daemon, scraped directly and through the command that reads its
        stream, whether histograms are classic or native.
        """
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen=0", "--interval=0.2", "--prometheus=0")
        # It also is a client: without one, batches have no latency.
        bridge = Daemon(self, "prometheus", str(daemon.port), "--listen=0", runner=METRICS_TCP)
        ports = {"daemon": serving_port(daemon), "bridge": serving_port(bridge)}
        text = fetch(ports["daemon"], "metrics").decode()
        status, output = promtool("check", "metrics", text=text)
        self.assertEqual((status, output), (0, ""))
        queries = self.expressions
        for group in ("host_disk_", "host_network_"):
            # A machine may have no disks, and no network but loopback.
            if not re.search(rf'(?m)^{group}.*device="(?!lo")', text):
                queries = [query for query in queries if group not in query]
        for server in start(self, ports):
            for query in queries:
                # NaN is not equal to itself.
                instances = f"count(count by (instance) (({query}) == ({query})))"
                server.wait_for(instances, lambda values: values == [len(ports)])
