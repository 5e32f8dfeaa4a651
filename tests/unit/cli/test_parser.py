"""
The help and the usage errors of all commands.
"""

from __future__ import annotations

import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import run
from txmetrics_tcp import DOCS, __version__


class ParserTests(SynchronousTestCase):
    def test_version(self) -> None:
        self.assertEqual(run("--version"), (0, f"metrics-tcp {__version__}\n", ""))

    def test_help(self) -> None:
        for arguments, words in [
            ([], ["tail", "stats", "record", "replay", "observe"]),
            (["tail"], ["127.0.0.1:5000", "--json", "--max-frame", "1048576", "Exit codes"]),
            # "-TERM" at the beginning of a filter would be an option.
            (["tail"], ["exclude series with '!TERM'"]),
            (["stats"], ["Exit codes:", "--duration", "kind:counter", "--tls-ca", "!term"]),
            (["record"], ["--append", "Exit codes"]),
            (["replay"], ["--speed", "Exit codes"]),
            (["observe"], ["--export-dir", "Exit codes"]),
        ]:
            code, out, said = run(*arguments, "--help")
            self.assertEqual((code, said), (0, ""))
            for word in words:
                self.assertIn(word, " ".join(out.split()))

    def test_helpWidth(self) -> None:
        """Help fits into 80 columns, and names the published documentation, not files."""
        with mock.patch.dict(os.environ, COLUMNS="80"):
            for command in ("tail", "stats", "record", "replay", "observe"):
                _, out, _ = run(command, "--help")
                self.assertLessEqual(max(map(len, out.splitlines())), 80, command)
                self.assertIn(DOCS, out)
                self.assertNotIn(".md", out)

    def test_noCommand(self) -> None:
        code, _, said = run()
        self.assertEqual(code, 2)
        self.assertIn("COMMAND", said)

    def test_invalid(self) -> None:
        frame = "argument --max-frame: expected a whole number, 1 or more; got "
        endpoint = "is an endpoint (for a file of that name, write ./"
        for arguments, says in [
            ("tail --max-frame=0", f"{frame}'0'"),
            ("tail --max-frame=-1", f"{frame}'-1'"),
            ("tail --max-frame=many", f"{frame}'many'"),
            ("tail --max-frame=1.5", f"{frame}'1.5'"),
            ("tail --filter kind:x", "argument --filter: unknown kind 'x'"),
            ("tail --count x", "argument --count: expected a whole number, 1 or more; got 'x'"),
            (
                "tail --duration 0",
                "--duration: expected a duration greater than 0, such as ",
            ),
            ("tail nowhere", "'nowhere' is not an endpoint"),
            ("tail --raw", "argument --raw: expected one argument"),
            ("tail --raw x 5000", "argument ENDPOINT: not allowed with argument --raw"),
            ("tail 127.0.0.1:5000 --raw -", "--raw: not allowed with argument ENDPOINT"),
            ("tail --raw x --tls", "tail: --raw reads a file: omit the --tls options"),
            ("tail --raw - --tls-name x", "--raw reads a file: omit the --tls options"),
            ("stats --filter=kind:x", "argument --filter: unknown kind 'x'"),
            ("stats --duration=0", "1h or 2d; got '0'"),
            ("stats --sort=x", "argument --sort: invalid choice: 'x'"),
            ("stats --max-frame=0", f"{frame}'0'"),
            ("stats no\x1bsuch", "'no\\x1bsuch' is not an endpoint"),
            ("record x x:y", "'x:y' is not an endpoint"),
            ("record x 5000 --append --force", "not allowed with argument"),
            ("record x 5000 --count 0", "argument --count: expected a whole number"),
            ("record x 5000 --duration -1", "argument --duration: "),
            ("record x 5000 --duration=-1", "2d; got '-1'"),
            (f"record x {__file__}", "a file, not an endpoint"),
            # An endpoint in place of FILE.
            ("record 5611", f"{endpoint}5611"),
            ("record web1:5000", f"{endpoint}web1:5000"),
            ("record [::1]:5000", f"{endpoint}[::1]:5000"),
            ("record unix:/run/x.sock", f"{endpoint}unix:/run/x.sock"),
            ("replay x --listen x:y", "'x:y' is not an endpoint"),
            (
                "replay x --speed 0",
                "a number greater than 0, or \"max\"; got '0'",
            ),
            ("replay x --speed nan", "got 'nan'"),
            ("observe --max-frame=0", f"{frame}'0'"),
            ("observe nonsense:", "metrics-tcp observe: 'nonsense:' is not an endpoint"),
            ("observe 5000 host:port:1", "metrics-tcp observe: 'host:port:1' is not an endpoint"),
            ("observe 5000 \x1b[2J:", "metrics-tcp observe: '\\x1b[2J:' is not an endpoint"),
        ]:
            code, out, said = run(*arguments.split(" "))
            self.assertEqual((code, out), (2, ""), arguments)
            self.assertIn(says, said.replace("\\\\", "\\"))
            self.assertNotIn("\x1b", said)

    def test_closedOutput(self) -> None:
        """With a closed standard output, commands end with an error."""
        for arguments, says in [
            ("tail 5000", "cannot write"),
            ("stats 5000", "cannot write"),
            ("record - 5000", "cannot write"),
        ]:
            code, _, said = run(*arguments.split(), closed=True)
            self.assertEqual((code, said), (1, f"metrics-tcp: {says}: standard output is closed\n"))
