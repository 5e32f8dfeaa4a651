"""
The scripts on docs/clients.md, as they stand there, run against a daemon.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests import ROOT
from tests.daemon import Daemon
from tests.system.quick.test_examples import ExampleTestCase

PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
METRIC = r"^\w+( \[.*\])? (SET|INCREMENT)_(COUNTER|GAUGE) [\d.]+\n$"
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE)


class ScriptTests(ExampleTestCase):
    def run_until(self, pattern: str, number: int, mark: str) -> None:
        """
        Run one of the scripts that look for a moment; and again if they saw nothing in it, as on a
        busy machine, but not for ever.
        """
        for _ in range(5):
            output = self.run_script(number, mark)
            if re.search(pattern, output):
                break
        self.assertRegex(output, pattern)

    def run_script(self, number: int, mark: str) -> str:
        """
        Run one of the scripts.

        @param mark: something that is in it, lest it is another one.
        @return: what it prints.
        """
        block = BLOCKS[number]
        self.assertIn(mark, block)
        script = Path(self.mktemp()).with_suffix(".py")
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(block)
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen", "0")
        run = Daemon(
            self, str(script.resolve()), f"127.0.0.1:{daemon.port}", runner=[sys.executable, "-u"]
        )
        status, output, errors = run.end()
        self.assertEqual((status, errors), (0, ""), output)
        return output

    def test_all(self) -> None:
        """No script on the page is without a test."""
        self.assertEqual(len(BLOCKS), 6)

    def test_twisted(self) -> None:
        self.assertRegex(self.run_script(0, "task.react(main)"), METRIC)

    def test_asyncio(self) -> None:
        self.assertRegex(self.run_script(1, "asyncioreactor.install"), METRIC)

    def test_service(self) -> None:
        output = self.run_script(2, "MetricsClientService(")
        self.assertRegex(output, r"^connected to IPv4Address")
        self.assertRegex(output, r"(?m)^Status\(source=")

    def test_factory(self) -> None:
        pattern = r"(?s)^Status\(source=.*\nafter [1-9]\d* events: Connection was aborted"
        self.run_until(pattern, 3, "MetricsClientFactory(")

    def test_decoder(self) -> None:
        self.assertRegex(self.run_script(4, "Decoder()"), r"^Status\(source=")

    def test_view(self) -> None:
        pattern = r"(?ms)^process_cpu_seconds\S* [^\n]*[\d.]+ -?[\d.]+/s$.*\n0 events missed\n\Z"
        self.run_until(pattern, 5, "SourceView()")
