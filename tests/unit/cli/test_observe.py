"""
``metrics-tcp observe``: errors before the viewer starts.
"""

from __future__ import annotations

import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import run
from txmetrics_tcp.cli.observe import server_command


class CommandTests(SynchronousTestCase):
    def assert_fails(self, endpoint: str, message: str) -> None:
        code, out, said = run("observe", endpoint)
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(said, rf"\Ametrics-tcp: {message}\n\Z")

    def test_noTextual(self) -> None:
        """Without the extra, the message shows how to install it."""
        with mock.patch.dict(sys.modules, textual=None):
            self.assert_fails(
                "5000", r"observe requires Textual: pip install 'txmetrics-tcp\[observe\]'"
            )

    def test_serverCommand(self) -> None:
        """The command that starts a server fits the endpoint and the TLS options."""
        start = "twistd -n metrics-tcp"
        for name, tls, command in [
            ("127.0.0.1:5000", False, start),
            ("127.0.0.1:5001", False, f"{start} --listen 127.0.0.1:5001"),
            ("[::1]:5000", False, f"{start} --listen '[::1]:5000'"),
            ("web1.example:5000", False, f"{start} --listen web1.example:5000"),
            ("unix:/run/a b", False, f"{start} --listen 'unix:/run/a b'"),
            ("tcp:localhost:5000", False, ""),
            ("127.0.0.1:5000", True, f"{start} --tls-key KEY --tls-cert CERT"),
        ]:
            self.assertEqual(server_command(name, tls), command)
