"""
The help and the usage errors of all commands.
"""

from __future__ import annotations

import os
from itertools import permutations
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import run
from txmetrics_tcp import DOCS, __version__
from txmetrics_tcp.cli.parser import parse_arguments


class ParserTests(SynchronousTestCase):
    def test_version(self) -> None:
        self.assertEqual(run("--version"), (0, f"metrics-tcp {__version__}\n", ""))

    def test_help(self) -> None:
        for arguments, words in [
            ([], ["tail", "stats", "record", "replay", "observe", "prometheus", "run"]),
            (["tail"], ["127.0.0.1:5000", "--json", "--max-frame", "1048576", "Exit codes"]),
            # "-TERM" at the beginning of a filter would be an option.
            (["tail"], ["exclude series with '!TERM'"]),
            (["stats"], ["Exit codes:", "--duration", "kind:counter", "--tls-ca", "!term"]),
            (["record"], ["--append", "Exit codes"]),
            (["replay"], ["--speed", "Exit codes"]),
            (["observe"], ["--export-dir", "Exit codes"]),
            (["prometheus"], ["/metrics/NAME", "127.0.0.1:9464", "default: 60", "Exit codes"]),
            (["run"], ["-- PROGRAM", "127.0.0.1:5000", "--interval", "Exit codes", "127"]),
        ]:
            code, out, said = run(*arguments, "--help")
            self.assertEqual((code, said), (0, ""))
            for word in words:
                self.assertIn(word, " ".join(out.split()))

    def test_helpWidth(self) -> None:
        """Help fits into 80 columns, and names the published documentation, not files."""
        with mock.patch.dict(os.environ, COLUMNS="80"):
            for command in ("tail", "stats", "record", "replay", "observe", "prometheus", "run"):
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
        count = "argument --count: expected a whole number, 1 or more; got "
        for arguments, says in [
            ("tail --max-frame=0", f"{frame}'0'"),
            ("tail --max-frame=-1", f"{frame}'-1'"),
            ("tail --max-frame=many", f"{frame}'many'"),
            ("tail --max-frame=1.5", f"{frame}'1.5'"),
            ("tail --filter kind:x", "argument --filter: unknown kind 'x'"),
            ("tail --count x", f"{count}'x'"),
            ("tail --count -5", f"{count}'-5'"),
            ("tail --tls=x", "argument --tls: ignored explicit argument 'x'"),
            (
                "tail --duration 0",
                "--duration: expected a duration greater than 0, such as ",
            ),
            ("tail --raw", "argument --raw: expected one argument"),
            ("tail --raw x 5000", "argument ENDPOINT: not allowed with argument --raw"),
            ("tail 127.0.0.1:5000 --raw -", "argument ENDPOINT: not allowed with argument --raw"),
            ("tail --raw x --tls", "tail: --raw reads a file: omit the --tls options"),
            ("tail --raw - --tls-name x", "--raw reads a file: omit the --tls options"),
            ("stats --filter=kind:x", "argument --filter: unknown kind 'x'"),
            ("stats --duration=0", "1h or 2d; got '0'"),
            ("stats --sort=x", "argument --sort: invalid choice: 'x'"),
            ("stats --max-frame=0", f"{frame}'0'"),
            ("record x x:y", "'x:y' is not an endpoint"),
            ("record x 5000 --append --force", "not allowed with argument"),
            (
                "record x 5000 --max-frame=16646145",
                "expected a whole number from 1 to 16646144; got '16646145'",
            ),
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
            ("prometheus --stale-after never", "--stale-after: expected a duration"),
            ("prometheus --listen x:y", "'x:y' is not an endpoint"),
            ("prometheus 5000 127.0.0.1:5000", "prometheus: 127.0.0.1:5000 is given twice"),
            (f"prometheus {__file__}", "a file, not an endpoint"),
            ("observe --max-frame=0", f"{frame}'0'"),
            ("observe nonsense:", "metrics-tcp observe: nonsense has no port; write nonsense:5000"),
            ("observe 5000 host:port:1", "metrics-tcp observe: 'host:port:1' is not an endpoint"),
            ("observe 5000 \x1b[2J:", "metrics-tcp observe: '\\x1b[2J:' is not an endpoint"),
        ]:
            code, out, said = run(*arguments.split(" "))
            self.assertEqual((code, out), (2, ""), arguments)
            self.assertIn(says, said.replace("\\\\", "\\"))
            self.assertNotIn("\x1b", said)

    def test_noFile(self) -> None:
        """What is not an endpoint is the name of a file."""
        for arguments, says in [
            ("tail nowhere", "nowhere: no such file; for a server, write nowhere:5000"),
            ("stats no\x1bsuch", "no\\x1bsuch: no such file, and not an endpoint"),
        ]:
            self.assertEqual(run(*arguments.split(" ")), (1, "", f"metrics-tcp: {says}\n"))

    def test_anyOrder(self) -> None:
        """Options stand before, between and after other arguments."""
        for name, *words in [
            ["record", "x", "5000", "--compress", "--count 5"],
            ["tail", "5000", "--json", "--count=5"],
            ["stats", "5000", "--sort rate", "--json"],
            ["replay", "x", "--loop", "--speed max"],
            ["observe", "a", "b", "c", "--tls"],
        ]:
            values = [word for word in words if not word.startswith("-")]
            expected = parse_arguments([name, *" ".join(words).split()])
            file = getattr(expected, "file", None)
            given = [*([file] if file else []), *getattr(expected, "endpoints", [])]
            self.assertEqual(given, values)
            for order in permutations(words):
                if [word for word in order if word in values] == values:
                    moved = [name, *" ".join(order).split()]
                    self.assertEqual(parse_arguments(moved), expected, moved)

    def test_dashes(self) -> None:
        """What follows C{--} is no option; C{-} stands for standard input or output."""
        options = parse_arguments(["record", "--count", "1", "--", "-x.rec", "5000"])
        self.assertEqual((options.file, options.endpoints), ("-x.rec", ["5000"]))
        self.assertEqual(parse_arguments(["record", "-", "--force"]).file, "-")
        self.assertEqual(parse_arguments(["tail", "--raw", "-", "--json"]).raw, "-")
        (exclude,) = parse_arguments(["tail", "--filter=-kind:g", "5000"]).filter
        self.assertEqual(exclude.text, "-kind:g")

    def test_unknown(self) -> None:
        """An error prints the usage of its command, and the nearest option or command."""
        tail, top = "metrics-tcp tail", "metrics-tcp"
        for arguments, program, says in [
            ("tail --jsno", tail, "unrecognized option --jsno; did you mean --json?"),
            ("tail a:1 --jsno=5 b", tail, "unrecognized option --jsno; did you mean --json?"),
            ("tail --no-such", tail, "unrecognized option --no-such"),
            ("tail -x", tail, "unrecognized option -x"),
            ("tail \x1b --\x1b", tail, "unrecognized option --\\x1b"),
            ("replay a b", f"{top} replay", "unexpected argument 'b'"),
            # An abbreviation could become ambiguous.
            ("tail --dur 5", tail, "unrecognized option --dur; did you mean --duration?"),
            ("record x --loop", f"{top} record", "unrecognized option --loop"),
            ("record x --comprss", f"{top} record", "--comprss; did you mean --compress?"),
            ("stats --jsno", f"{top} stats", "--jsno; did you mean --json?"),
            ("replay x --spede 1", f"{top} replay", "--spede; did you mean --speed?"),
            ("observe --export_dir x", f"{top} observe", "--export_dir; did you mean --export-dir"),
            ("tial", top, "unknown command 'tial'; did you mean tail?"),
            ("xyz --json", top, "unknown command 'xyz'; the commands are tail, stats, record"),
            ("--verion", top, "unrecognized option --verion; did you mean --version?"),
            ("--", top, "COMMAND is missing"),
            ("- tail", top, "unknown command '-'; the commands are tail"),
            ("--json tail", top, "option --json must follow the COMMAND"),
        ]:
            code, out, said = run(*arguments.split(" "))
            self.assertEqual((code, out), (2, ""), arguments)
            self.assertTrue(said.startswith(f"usage: {program} [-h]"), said)
            self.assertIn(f"\n{program}: error: ", said)
            self.assertIn(says, said.splitlines()[-1])
            if "did you" not in says:
                self.assertNotIn("did you", said)

    def test_closedOutput(self) -> None:
        """With a closed standard output, commands end with an error."""
        for arguments, says in [
            ("tail 5000", "cannot write"),
            ("stats 5000", "cannot write"),
            ("record - 5000", "cannot write"),
        ]:
            code, _, said = run(*arguments.split(), closed=True)
            self.assertEqual((code, said), (1, f"metrics-tcp: {says}: standard output is closed\n"))
