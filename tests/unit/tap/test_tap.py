"""
The options of ``twistd metrics-tcp``, and the services made from them, without a daemon process.
"""

from __future__ import annotations

import os
import signal
import sys
from io import StringIO
from pathlib import Path
from unittest import mock, skipIf

from twisted.application.service import IService, MultiService
from twisted.internet import reactor
from twisted.internet.address import IPv6Address
from twisted.logger import LogLevel
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.authority import DAY, Authority, no_tls
from tests.daemon import occupied_port
from tests.listening import ListeningReactor
from tests.logs import log_events, log_lines
from txmetrics_tcp import DOCS, ExporterSettings, MetricsService, ServerTLS, current_recorder, tap
from txmetrics_tcp._collectors.reactor_lag import LagService
from txmetrics_tcp._collectors.service import PollingService
from txmetrics_tcp.bridges._service import PrometheusService
from txmetrics_tcp.bridges._site import MetricsSite
from txmetrics_tcp.bridges._statsd_endpoints import DatagramEndpoint
from txmetrics_tcp.bridges.statsd import StatsDService
from txmetrics_tcp.tap import CannotStart, Options, makeService, signals
from txmetrics_tcp.tap import options as options_module
from txmetrics_tcp.tap.signals import HangUpService, StopSignals
from txmetrics_tcp.testing import FakeReactor
from txmetrics_tcp.web import MetricsWeb
from txmetrics_tcp.web._site import PageService

no_otlp = needs("opentelemetry.proto")


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


class Runner(UsageOptions):
    """The options of a fake twistd with the command metrics-tcp."""

    optFlags = [["nodaemon", "n"], ["syslog", None]]  # noqa: RUF012
    optParameters = [["logfile", "l", None]]  # noqa: RUF012
    subCommands = [["metrics-tcp", None, Options, ""]]  # noqa: RUF012


def run_by_twistd(*arguments: str) -> Options:
    runner = Runner()
    runner.parseOptions(list(arguments))
    options = runner.subOptions
    assert isinstance(options, Options)
    return options


class OptionsTests(SynchronousTestCase):
    def assert_rejected(self, *arguments: str) -> str:
        error = self.assertRaises(UsageError, parsed, *arguments)
        text = str(error)
        self.assertNotIn("\n", text)
        return text

    def test_defaults(self) -> None:
        options = parsed()
        self.assertEqual(options.endpoints, [])
        self.assertEqual(options["buffer-size"], 1024)
        self.assertEqual(options["interval"], 1.0)
        self.assertIsNone(options["dead-after"])
        self.assertEqual(options["max-clients"], 1000)
        self.assertIsNone(options["max-clients-per-address"])
        self.assertEqual((options.settings.allow, options.tls), (None, None))
        self.assertFalse(options["no-process"])
        self.assertFalse(options["no-host"])

    def with_environment(self, **environ: str) -> None:
        """Replace the variables of OpenTelemetry."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        patcher = mock.patch.dict(os.environ, kept | environ, clear=True)
        patcher.start()
        self.addCleanup(patcher.stop)

    @skipIf(no_otlp, no_otlp)
    def test_otlp(self) -> None:
        """The receiver is that of the option or of the environment; so is the interval."""
        self.with_environment(
            OTEL_EXPORTER_OTLP_ENDPOINT="http://a", OTEL_METRIC_EXPORT_INTERVAL="1000"
        )
        self.assertIsNone(parsed().export)
        for arguments, url, interval in (
            (("--otlp=http://b",), "http://b/v1/metrics", 1.0),
            (("--otlp=env", "--otlp-interval=1m"), "http://a/v1/metrics", 60.0),
        ):
            export = parsed(*arguments).export
            assert export is not None
            self.assertEqual((export.url, export.interval), (url, interval))
            self.assertEqual(export.attributes, {"service.name": "metrics-tcp"})

    @skipIf(no_otlp, no_otlp)
    def test_otlpRejected(self) -> None:
        """Errors name the option or the variable, and contain no secrets."""
        self.with_environment(OTEL_EXPORTER_OTLP_HEADERS="hunter2")
        for url, says in (
            ("https://user:hunter2@a", "--otlp: a URL with a user or a password is not accepted"),
            ("https://a?hunter2", "--otlp: a URL with a query is not accepted"),
            ("hunter2", "--otlp: expected a URL such as http://localhost:4318"),
            ("http://a", "--otlp: OTEL_EXPORTER_OTLP_HEADERS: expected NAME=VALUE"),
        ):
            error = self.assert_rejected(f"--otlp={url}")
            self.assertIn(says, error)
            self.assertNotIn("hunter2", error)
        self.with_environment(OTEL_EXPORTER_OTLP_CERTIFICATE="/missing")
        if not no_tls:
            self.assertIn("/missing", self.assert_rejected("--otlp=https://a"))
        self.assert_rejected("--otlp=http://a", "--otlp-interval=0")

    def test_otlpMissing(self) -> None:
        self.patch(options_module, "is_installed", lambda: False)
        self.assertIn("pip install 'txmetrics-tcp[otlp]'", self.assert_rejected("--otlp=http://a"))

    def test_collector(self) -> None:
        """A collector adds no delay unless asked for, and keeps the totals of more series."""
        self.assertEqual(parsed().settings, ExporterSettings())
        for option in "--collect=unix:/run/c.sock", "--from=5001", "--from=/run/app/":
            settings = parsed(option).settings
            self.assertEqual(settings.max_delay, 0)
            self.assertGreater(settings.max_series, ExporterSettings().max_series)
        self.assertEqual(parsed("--from=5001", "--max-delay=30ms").settings.max_delay, 0.03)
        options = parsed("--collect=1", "--collect=unix:x", "--from=2", "--from=a/")
        self.assertEqual(options.collect, ["1", "unix:x"])
        self.assertEqual(options.sources, ["2", os.path.abspath("a") + "/"])

    def test_collectorRejected(self) -> None:
        for arguments, message in (
            (["--collect=nowhere"], "--collect: "),
            (["--from=nowhere"], "--from: "),
            (["--merge=all"], "--merge: expected sum, each or both; got 'all'"),
            (["--gauges=mean"], "--gauges: expected sum, max, min or last; got 'mean'"),
            (["--instance-label=side"], "--instance-label: 'side' is a label"),
            (["--grace=-1"], "--grace: expected a duration"),
            (["--max-source-events=0"], "--max-source-events: expected a whole number"),
        ):
            self.assertTrue(self.assert_rejected(*arguments).startswith(message), message)

    def test_listen(self) -> None:
        options = parsed("--listen", "5001", "--listen", "unix:/run/x.sock", "--listen=[::1]:0")
        self.assertEqual(len(options.endpoints), 3)

    def test_bad_endpoint(self) -> None:
        for text in ("", "70000", "no-such-type:/x", "tcp:nothing", "[::1"):
            self.assertIn(f"--listen: {text!r}", self.assert_rejected("--listen", text))
            self.assertIn(f"--prometheus: {text!r}", self.assert_rejected("--prometheus", text))

    def test_prometheus(self) -> None:
        """A port alone is one of the loopback interface."""
        options = parsed("--prometheus", "9464", "--prometheus=[::1]:0")
        self.assertEqual(options.endpoints, [])
        first, second = options.prometheus_endpoints
        self.assertEqual((first._port, first._interface), (9464, "127.0.0.1"))
        self.assertEqual((second._port, second._interface), (0, "::1"))
        for text, port in ("localhost", "localhost:9464"), ("::1", "[::1]:9464"):
            self.assertIn(port, self.assert_rejected("--prometheus", text))

    def test_statsd(self) -> None:
        """Without a value, the endpoint is UDP on the loopback interface."""
        default = DatagramEndpoint("127.0.0.1", 8125)
        for arguments in (
            ["--statsd"],
            ["--statsd", "--no-host"],
            ["--statsd", "8125"],
            ["--statsd=8125"],
        ):
            self.assertEqual(parsed(*arguments).statsd, [default], arguments)
        options = parsed("--statsd", "--statsd=unixgram:x", "--statsd", "tcp:127.0.0.1:1")
        first, second, third = options.statsd
        self.assertEqual((first, second), (default, DatagramEndpoint(path="x")))
        self.assertEqual(third._port, 1)
        self.assertEqual(parsed().statsd, [])

    def test_statsdSettings(self) -> None:
        """The exporter keeps the totals of all series of StatsD clients."""
        options = parsed("--statsd", "--statsd-max-series=7", "--statsd-flush=500ms")
        self.assertEqual((options["statsd-max-series"], options["statsd-flush"]), (7, 0.5))
        self.assertEqual(options.settings.max_series, ExporterSettings().max_series + 7)
        for arguments, message in (
            (["--statsd=nowhere"], "--statsd: nowhere has no port; write nowhere:8125"),
            (["--statsd=unixgram:"], "--statsd: 'unixgram:'"),
            (["--statsd-max-series=0"], "--statsd-max-series: expected a whole number"),
            (["--statsd-flush=0"], "--statsd-flush: expected a duration"),
            (["--statsd-prefix=\udcff"], "--statsd-prefix: expected text in UTF-8"),
        ):
            self.assertTrue(self.assert_rejected(*arguments).startswith(message), message)

    def test_buffer_size(self) -> None:
        for text, size in (("1", 1), ("65536", 65536), ("none", None), ("None", None)):
            self.assertEqual(parsed("--buffer-size", text)["buffer-size"], size)

    def test_bad_buffer_size(self) -> None:
        for text in ("0", "-1", "1.5", "many", "", "1e3"):
            error = self.assert_rejected("--buffer-size", text)
            self.assertIn("--buffer-size", error)
            self.assertIn(repr(text), error)

    def test_limits(self) -> None:
        for option in ("max-clients", "max-clients-per-address"):
            for text, limit in (("1", 1), ("65536", 65536), ("none", None)):
                self.assertEqual(parsed(f"--{option}", text)[option], limit)
            for text in ("0", "-1", "1.5", "many", ""):
                error = self.assert_rejected(f"--{option}", text)
                self.assertIn(f"--{option}: expected", error)
                self.assertIn(repr(text), error)

    def test_allow(self) -> None:
        options = parsed("--allow", "192.0.2.0/24", "--allow=::1")
        self.assertEqual([str(one) for one in options.settings.allow], ["192.0.2.0/24", "::1/128"])
        self.assertIn("--allow: 'here'", self.assert_rejected("--allow", "here"))

    def test_interval(self) -> None:
        for text, seconds in (("5", 5.0), ("0.25", 0.25), ("5m", 300.0)):
            self.assertEqual(parsed("--interval", text)["interval"], seconds)

    def test_bad_interval(self) -> None:
        for text in ("0", "-1", "nan", "inf", "-inf", "1e3", ""):
            error = self.assert_rejected("--interval", text)
            self.assertIn("--interval", error)
            self.assertIn(repr(text), error)

    def test_argument(self) -> None:
        """The error for a port without an option suggests C{--listen}."""
        self.assertIn("--listen 5000", self.assert_rejected("5000"))

    def test_unknown(self) -> None:
        self.assertIn("--buffersize", self.assert_rejected("--buffersize=1"))

    def assert_exits(self, *arguments: str) -> str:
        """
        Assert that invalid options of a twistd command end the process with a one-line message.
        """
        error = self.assertRaises(SystemExit, run_by_twistd, "metrics-tcp", *arguments)
        # If the code is a string, the interpreter prints it to standard error and exits with 1.
        usage, found, message = error.code.partition("metrics-tcp: ")
        self.assertRegex(usage, r"\A(Usage: .* metrics-tcp \[options\]\n)?\Z")
        self.assertNotIn("\n", message)
        return f"{usage}{found}{message}"

    def test_command_of_twistd(self) -> None:
        for option, value in (
            ("--listen", "no:such:endpoint"),
            ("--listen", "127.0.0.1:65536"),
            ("--prometheus", "no:such:endpoint"),
            ("--prometheus", "127.0.0.1:65536"),
            ("--buffer-size", "0"),
            ("--interval", "soon"),
            ("--interval", "-1"),
            ("--interval", "0"),
            ("--allow", "nowhere"),
            ("--allow", "192.0.2.1/24"),
            ("--max-clients", "0"),
            ("--max-clients-per-address", "few"),
            ("--web", "no:such:endpoint"),
            ("--web-allow-host", "https://metrics.example"),
            ("--web-history", "0"),
        ):
            message = self.assert_exits(f"{option}={value}")
            self.assertIn(f"{option}", message)
            self.assertIn(repr(value), message)

    def test_dependentOptions(self) -> None:
        """An option without the one that it belongs to is a mistake."""
        for owner, options in {
            "--web": (
                "--web-history=60",
                "--web-allow-host=metrics.example",
                "--web-token-file=token",
            ),
            "--otlp": ("--otlp-interval=5",),
            "--statsd": ("--statsd-prefix=app.", "--statsd-flush=2", "--statsd-max-series=9"),
            "--publish": ("--publish-source=web", "--publish-linger=1", "--publish-replicas=3"),
            "--collect or --from": ("--merge=both", "--gauges=max", "--grace=1"),
        }.items():
            for option in options:
                name = option.partition("=")[0]
                self.assertIn(f"{name} requires {owner}", self.assert_exits(option))
        parsed("--statsd", "--statsd-prefix=app.", "--collect=0", "--merge=both")

    def test_tokenFile(self) -> None:
        """A token that cannot be used is a mistake."""
        path = self.mktemp()
        message = self.assert_exits("--web=0", f"--web-token-file={path}")
        self.assertIn(f"--web-token-file: cannot read {path}: No such file", message)
        Path(path).write_text("short")
        message = self.assert_exits("--web=0", f"--web-token-file={path}")
        self.assertIn("at least 16 ASCII characters", message)
        self.assertNotIn("short", message)

    def test_unknown_option(self) -> None:
        """The error for an unknown option comes with the usage and the nearest option."""
        for option, words in (
            ("--lisen", "option --lisen not recognized; did you mean --listen?"),
            ("--buffersize=1", "option --buffersize not recognized; did you mean --buffer-size?"),
            ("--xyz", "option --xyz not recognized"),
            ("--listen", "option --listen requires argument"),
        ):
            message = self.assert_exits(option)
            self.assertTrue(message.startswith("Usage: "), message)
            self.assertTrue(message.endswith(f": {words}"), message)
        self.assertFalse(self.assert_exits("--interval=soon").startswith("Usage: "))

    def test_tls(self) -> None:
        for option in ("--tls-key=x", "--tls-cert=x", "--tls-client-ca=x"):
            self.assertIn("both --tls-key and --tls-cert", self.assert_exits(option))
        for option in ("--listen", "--prometheus", "--web"):
            double = self.assert_exits(f"{option}=ssl:0", "--tls-key=x", "--tls-cert=x")
            self.assertIn(f"{option}: 'ssl:0'", double)

    @skipIf(no_tls, no_tls)
    def test_bad_files(self) -> None:
        authority = Authority(self)
        good = authority.issue()
        old, locked = authority.issue(ends=-DAY / 24), authority.issue(password=b"secret")
        for key, cert, reason in (
            ("nowhere", good.cert, "cannot read "),
            (good.key, old.key, "no certificate in PEM format in "),
            (old.key, old.cert, "expired on"),
            (locked.key, locked.cert, "is encrypted"),
            (old.key, good.cert, "does not match "),
        ):
            message = self.assert_exits(f"--tls-key={key}", f"--tls-cert={cert}")
            self.assertIn(reason, message)
        own = (f"--tls-key={good.key}", f"--tls-cert={good.cert}")
        self.assertIn("cannot read ", self.assert_exits(*own, "--tls-client-ca=nowhere"))

    def test_help(self) -> None:
        """The help shows the default of every option, and the address of the documentation."""
        text = " ".join(str(Options()).split())
        for option, default in (
            ("--listen=", "127.0.0.1:5000"),
            ("--prometheus=", "not served"),
            ("--statsd=", "not received"),
            ("--statsd-max-series=", "10000"),
            ("--statsd-flush=", "10.0"),
            ("--statsd-prefix=", "none"),
            ("--web=", "not served"),
            ("--buffer-size=", "1024"),
            ("--interval=", "1.0"),
            ("--max-clients=", "1000"),
            ("--max-clients-per-address=", "none"),
            ("--allow=", "any network"),
            ("--dead-after=", "never"),
            ("--tls-client-ca=", "clients need no certificate"),
            ("--no-process", "streamed"),
            ("--no-host", "streamed if psutil is installed"),
        ):
            described = text.partition(f"{option} ")[2]
            described = described.partition(" --")[0]
            self.assertIn(f"[default: {default}]", described)
            self.assertEqual(described.count("[default: "), 1)
        self.assertIn(f" {DOCS}/reference/commands.html", text)


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.logged = log_events(self, tap)

    def kinds(self, service: MultiService) -> list[type[object]]:
        return [type(child) for child in service]

    def collected(self, *arguments: str) -> set[str]:
        """Return the names of the readings that the daemon collects."""
        service = makeService(parsed(*arguments))
        (collecting,) = [one for one in service if isinstance(one, PollingService)]
        return set(collecting._collectors)

    def test_order(self) -> None:
        service = makeService(parsed())
        self.assertTrue(IService.providedBy(service))
        # Collectors start after the exporter, and stop before it.
        self.assertEqual(
            self.kinds(service),
            [HangUpService, MetricsService, StopSignals, LagService, PollingService],
        )

    def test_prometheus(self) -> None:
        """The service for Prometheus has the network options and the TLS of the stream."""
        options = parsed("--prometheus=0", "--allow=::1", "--max-clients-per-address=3")
        options.tls = mock.create_autospec(ServerTLS, instance=True)
        service = makeService(options)
        self.assertEqual(
            self.kinds(service)[:4], [HangUpService, MetricsService, PrometheusService, StopSignals]
        )
        prometheus = list(service)[2]
        assert isinstance(prometheus, PrometheusService)
        self.assertIs(prometheus._tls, options.tls)
        self.assertEqual([str(one) for one in prometheus._networks], ["::1/128"])
        site = prometheus._server
        assert isinstance(site, MetricsSite)
        for _ in range(3):
            site._admission.enter(IPv6Address("TCP", "::1", 1))
        reason = site._admission.rejection_reason(IPv6Address("TCP", "::1", 1))
        self.assertEqual(reason, "client limit per address reached (3)")

    def test_statsd(self) -> None:
        """The receiver starts after the exporter, and stops before it."""
        arguments = ("--statsd=0", "--statsd=tcp:0", "--statsd-prefix=p.", "--allow=::1")
        service = makeService(parsed(*arguments))
        self.assertEqual(
            self.kinds(service)[:4], [HangUpService, MetricsService, StatsDService, StopSignals]
        )
        _, metrics, receiver, *_ = service
        assert isinstance(receiver, StatsDService)
        assert isinstance(metrics, MetricsService)
        receiver._receiver.datagram(b"a:1|c")
        self.assertIn("p.a", {key.name for key in metrics.recorder.snapshot()})
        self.assertEqual([str(one) for one in receiver._ports[0]._networks], ["::1/128"])

    def test_web(self) -> None:
        """The page has the network options and the TLS of the stream.  It stops before it."""
        options = parsed("--web=0", "--allow=::1", "--max-clients-per-address=3")
        options.tls = mock.create_autospec(ServerTLS, instance=True)
        service = makeService(options)
        self.assertEqual(
            self.kinds(service)[:5],
            [HangUpService, MetricsService, PageService, MetricsWeb, StopSignals],
        )
        page, web = list(service)[2:4]
        assert isinstance(page, PageService) and isinstance(web, MetricsWeb)
        self.assertIs(page._tls, options.tls)
        self.assertEqual([str(one) for one in page._networks], ["::1/128"])
        self.assertFalse(web._feed.always)

    def test_webHistory(self) -> None:
        """A collector, and a daemon that is asked to, follow their series always."""
        for options in (["--web-history=60"], ["--collect=0"], ["--from=5001"]):
            webs = [
                one for one in makeService(parsed("--web=0", *options)) if type(one) is MetricsWeb
            ]
            self.assertEqual([web._feed.always for web in webs], [True], options)

    def test_make_service_does_not_use_reactor(self) -> None:
        """`makeService` schedules no calls and opens no files, since twistd may fork after it."""
        before = set(reactor.getDelayedCalls()), set(reactor.getReaders())
        makeService(parsed("--listen=0", "--prometheus=0", "--statsd=0", "--web=0"))
        after = set(reactor.getDelayedCalls()), set(reactor.getReaders())
        self.assertEqual(after, before)

    def test_dead_after(self) -> None:
        self.assertEqual(parsed("--dead-after=2.5")["dead-after"], 2.5)
        self.assertIsNone(parsed("--dead-after=never")["dead-after"])
        for text in ("soon", "0", "-1", "nan", "inf", ""):
            error = self.assertRaises(UsageError, parsed, f"--dead-after={text}")
            self.assertIn("--dead-after: expected a duration of 0.1 seconds or more", str(error))

    def test_max_delay(self) -> None:
        for text, seconds in (("0", 0.0), ("50ms", 0.05), ("0.001", 0.001), ("1h", 3600.0)):
            self.assertEqual(parsed(f"--max-delay={text}").settings.max_delay, seconds)
        self.assertEqual(parsed().settings.max_delay, ExporterSettings().max_delay)
        for text in ("soon", "-1", "nan", "inf", "none", ""):
            error = self.assertRaises(UsageError, parsed, f"--max-delay={text}")
            self.assertIn("--max-delay: expected a duration of 0 seconds or more", str(error))

    def test_no_global_recorder(self) -> None:
        before = current_recorder()
        makeService(parsed())
        makeService(parsed())
        self.assertIs(current_recorder(), before)

    def test_without_process(self) -> None:
        service = makeService(parsed("--no-process"))
        self.assertEqual(
            self.kinds(service), [HangUpService, MetricsService, StopSignals, PollingService]
        )

    @skipIf(needs("psutil"), needs("psutil"))
    def test_collected(self) -> None:
        host = {"processors", "load", "memory", "swap", "disks", "file system", "network"}
        self.assertEqual(self.collected(), {"process"} | host)
        self.assertEqual(self.collected("--no-process"), host)
        self.assertEqual(self.collected("--no-host"), {"process"})
        self.assertEqual(self.logged, [])

    def test_without_psutil(self) -> None:
        """Without psutil, only metrics of the machine are missing, and a warning is logged."""
        with mock.patch.dict(sys.modules, psutil=None):
            self.assertEqual(self.collected(), {"process"})
            [event] = self.logged
            self.assertIs(event["log_level"], LogLevel.warn)
            self.assertIn("pip install 'txmetrics-tcp[host]'", event["log_format"])
            # No further warning if metrics of the machine are not wanted.
            self.assertEqual(self.collected("--no-host"), {"process"})
            self.assertEqual(len(self.logged), 1)


class CannotStartTests(SynchronousTestCase):
    """
    If the daemon cannot listen, the process ends, and the error is printed or logged.

    @ivar errors: the text on standard error.
    @ivar logged: the lines in the log.
    """

    def setUp(self) -> None:
        self.port = occupied_port(self)
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        self.errors = StringIO()
        self.patch(sys, "__stderr__", self.errors)
        self.logged = log_lines(self, tap)

    def start(self, options: Options) -> CannotStart:
        service = makeService(options)
        error: CannotStart = self.assertRaises(CannotStart, service.privilegedStartService)
        self.assertFalse(service.running)
        return error

    def start_by_twistd(self, *arguments: str) -> CannotStart:
        command = ("metrics-tcp", f"--listen={self.port}", "--no-host")
        return self.start(run_by_twistd(*arguments, *command))

    def test_error(self) -> None:
        """
        The error is an Exception, so that twistd cleans up, and a SystemExit, so that the
        interpreter prints no traceback.
        """
        error = self.start_by_twistd("--nodaemon")
        self.assertIsInstance(error, Exception)
        self.assertIsInstance(error, SystemExit)
        self.assertEqual(error.code, 1)
        self.assertIn(str(self.port), str(error))

    def assert_reported(self, errors: int, logged: int) -> None:
        self.assertEqual(self.errors.getvalue().count("\n"), errors)
        self.assertEqual(len(self.logged), logged)
        for text in [*self.errors.getvalue().splitlines(), *self.logged]:
            self.assertIn(str(self.port), text)

    def test_foreground(self) -> None:
        """The error is only printed, since the log goes to the same terminal."""
        self.start_by_twistd("--nodaemon")
        self.assert_reported(errors=1, logged=0)

    def test_foreground_with_log_to_standard_output(self) -> None:
        self.start_by_twistd("--nodaemon", "--logfile=-")
        self.assert_reported(errors=1, logged=0)

    def test_foreground_with_log_file(self) -> None:
        self.start_by_twistd("--nodaemon", "--logfile=x")
        self.assert_reported(errors=1, logged=1)

    def test_foreground_with_syslog(self) -> None:
        self.start_by_twistd("--nodaemon", "--syslog")
        self.assert_reported(errors=1, logged=1)

    def test_background(self) -> None:
        """The error is only logged."""
        self.start_by_twistd()
        self.assert_reported(errors=0, logged=1)

    def test_other_runner(self) -> None:
        """Without the command of twistd, for example in a .tac file, the error is only logged."""
        self.start(parsed(f"--listen={self.port}", "--no-host"))
        self.assert_reported(errors=0, logged=1)

    def test_prometheus(self) -> None:
        """A port for Prometheus that is in use is reported as one of the stream."""
        reactor = ListeningReactor()
        reactor.taken.add(f"127.0.0.1:{self.port}")
        for module in (tap, options_module):
            self.patch(module, "global_reactor", lambda: reactor)
        command = ("metrics-tcp", "--listen=1", f"--prometheus={self.port}", "--no-host")
        error = self.start(run_by_twistd("--nodaemon", *command))
        self.assertIn(f"on 127.0.0.1:{self.port}: ", str(error))
        self.assert_reported(errors=1, logged=0)

    def test_start_alone(self) -> None:
        """twist calls startService only."""
        service = makeService(parsed(f"--listen={self.port}", "--no-host"))
        self.assertRaises(CannotStart, service.startService)


class HangUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.reactor = FakeReactor()
        self.logged = log_lines(self, signals)

    def hang_up(self) -> None:
        signal.raise_signal(signal.SIGHUP)
        self.reactor.settle()

    def test_nothing_to_reload(self) -> None:
        """Without certificates, the daemon goes on, and logs why the signal has no effect."""
        service = HangUpService(self.reactor, None)
        service.startService()
        for _ in range(2):
            self.hang_up()
        message = "Received SIGHUP: nothing to reload, since TLS is not configured"
        self.assertEqual((service.running, self.logged), (1, [message] * 2))

    def test_other_handler(self) -> None:
        """
        A SIGHUP that nohup ignores stays ignored, and one that another program handles stays
        handled, unless there are certificates to reload.
        """
        handled: list[int] = []
        reloads: list[bool] = []
        for handler in (signal.SIG_IGN, lambda number, frame: handled.append(number)):
            signal.signal(signal.SIGHUP, handler)
            HangUpService(self.reactor, None).startService()
            self.hang_up()
            HangUpService(self.reactor, lambda: reloads.append(True)).startService()
            self.hang_up()
        self.assertEqual((handled, reloads), ([signal.SIGHUP], [True, True]))

    def test_while_starting(self) -> None:
        """A signal received while the daemon starts is handled after the start."""
        reloads: list[bool] = []
        service = HangUpService(self.reactor, lambda: reloads.append(True))
        service.privilegedStartService()
        signal.raise_signal(signal.SIGHUP)
        service.startService()
        self.assertEqual(reloads, [])
        self.reactor.settle()
        self.assertEqual(reloads, [True])

    def test_stopped(self) -> None:
        """A signal received after the service has stopped is ignored."""
        service = HangUpService(self.reactor, None)
        service.startService()
        service.stopService()
        self.hang_up()
        self.assertEqual(self.logged, [])
