"""
``metrics-tcp otlp``: its options and environment, and no secrets in messages.
"""

from __future__ import annotations

import os
from typing import Any
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.commands import Ended, run
from txmetrics_tcp.cli import endpoint_options

missing = needs("opentelemetry.proto")


class ErrorTests(SynchronousTestCase):
    def run_with(self, *arguments: str, **environ: str) -> Ended:
        for name, value in environ.items():
            self.patch_environment(name, value)
        return run("otlp", "5000", *arguments)

    def patch_environment(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value
        restore: Any = os.environ.pop if before is None else os.environ.__setitem__
        self.addCleanup(restore, name, before)

    def assert_wrong(self, ended: Ended, says: str) -> None:
        self.assertEqual(ended, (2, "", f"metrics-tcp otlp: {says}\n"))
        self.assertNotIn("hunter2", ended.err)

    @skipIf(missing, missing)
    def test_url(self) -> None:
        """A URL with credentials is not repeated."""
        says = "not accepted; put credentials into OTEL_EXPORTER_OTLP_HEADERS"
        self.assert_wrong(
            self.run_with("--to", "https://user:hunter2@a"),
            f"--to: a URL with a user or a password is {says}",
        )
        self.assert_wrong(
            self.run_with("--to", "https://a?key=hunter2"), f"--to: a URL with a query is {says}"
        )

    @skipIf(missing, missing)
    def test_urlAsSource(self) -> None:
        """Nor is it if it stands for a server, by mistake."""
        for arguments in ("https://user:hunter2@a",), ("--nothing", "http://hunter2@a"):
            ended = self.run_with(*arguments)
            self.assertEqual(ended.code, 2)
            self.assertNotIn("hunter2", ended.err)

    @skipIf(missing, missing)
    def test_environment(self) -> None:
        self.assert_wrong(
            self.run_with(OTEL_EXPORTER_OTLP_HEADERS="hunter2"),
            "OTEL_EXPORTER_OTLP_HEADERS: expected NAME=VALUE, separated by commas",
        )

    @skipIf(missing, missing)
    def test_recording(self) -> None:
        """A recording has no present totals."""
        ended = run("otlp", __file__)
        self.assert_wrong(ended, f"{__file__}: a file, not an endpoint")

    @skipIf(missing, missing)
    def test_certificate(self) -> None:
        ended = self.run_with("--to=https://a", OTEL_EXPORTER_OTLP_CERTIFICATE="/missing")
        self.assertEqual(ended.code, 1)
        self.assertIn("metrics-tcp: cannot use TLS with https://a/v1/metrics: ", ended.err)
        self.assertIn("/missing", ended.err)

    def test_notInstalled(self) -> None:
        self.patch(endpoint_options, "is_installed", lambda: False)
        self.assert_wrong(
            self.run_with(),
            "OTLP requires opentelemetry-proto: pip install 'txmetrics-tcp[otlp]'",
        )
