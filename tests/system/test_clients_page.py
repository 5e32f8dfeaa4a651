"""
The scripts on docs/how-to/clients.md, run against a daemon, on its port instead of 5000.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT
from tests.daemon import Daemon

PAGE = (ROOT / "docs" / "how-to" / "clients.md").read_text(encoding="utf-8")
METRIC = r"^\w+( \[.*\])? (SET|INCREMENT)_(COUNTER|GAUGE) [\d.]+\n$"

SCRIPTS = (
    ("task.react(main)", METRIC),
    ("asyncioreactor.install", METRIC),
    ("MetricsClientService(", r"(?s)^connected to IPv4Address.*^Status\(source="),
    ("MetricsClientFactory(", r"(?s)^Status\(source=.*\nafter [1-9]\d* events: .* was aborted"),
    ("Decoder()", r"^Status\(source="),
    (
        "SourceView()",
        r"(?s)^process_cpu_seconds\S* [^\n]*[\d.]+ -?[\d.]+/s$.*\n0 events missed\n\Z",
    ),
)
"""What is in each of them, in their order, and what it prints."""

# What a script calls later, it calls when it has received a certain series, however long that is.
EVENTFUL = """
import sys
from twisted.internet.base import ReactorBase
from txmetrics_tcp import MetricsClientProtocol

call_later, data_received = ReactorBase.callLater, MetricsClientProtocol.dataReceived
received, calls = bytearray(), []

def callLater(self, delay, function, *arguments):
    if sys._getframe(1).f_globals["__name__"] != "__main__":
        return call_later(self, delay, function, *arguments)
    calls.append((function, arguments))

def dataReceived(self, data):
    data_received(self, data)
    received.extend(data)
    # It comes first in its description.
    if received.count(b"process_cpu_seconds") > 1:
        while calls:
            function, arguments = calls.pop()
            call_later(self.transport.reactor, 0, function, *arguments)

ReactorBase.callLater, MetricsClientProtocol.dataReceived = callLater, dataReceived
"""


class ScriptTests(SynchronousTestCase):
    def test_scripts(self) -> None:
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen", "0")
        modules = Path(self.mktemp()).resolve()
        modules.mkdir(parents=True)
        (modules / "sitecustomize.py").write_text(EVENTFUL)
        blocks = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE)
        runs = []
        for number, (block, (mark, _)) in enumerate(zip(blocks, SCRIPTS, strict=True)):
            self.assertIn(mark, block)
            script = modules / f"script{number}.py"
            self.assertIn("5000", block)
            script.write_text(block.replace("5000", str(daemon.port)))
            command = [sys.executable, "-u", str(script)]
            runs.append(Daemon(self, runner=command, modules=modules))
        for run, (mark, pattern) in zip(runs, SCRIPTS, strict=True):
            status, output, errors = run.end()
            self.assertEqual((status, errors), (0, ""), mark + output)
            self.assertRegex(output, f"(?m){pattern}")
