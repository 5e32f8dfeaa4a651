"""
C{metrics-tcp run}: its command line, and what it executes.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import run
from txmetrics_tcp import EndpointError
from txmetrics_tcp._run.variables import LISTEN, OPTIONS, PROCESS, SITE, Options, environment_for
from txmetrics_tcp.cli import run as run_module
from txmetrics_tcp.cli.parser import parse_arguments


class RunTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.executed: list[tuple[str, list[str], dict[str, str]]] = []
        for number in signal.SIGPIPE, signal.SIGXFSZ:
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def execute(self, path: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.executed.append((path, arguments, environment))

    def run_command(self, *arguments: str) -> dict[str, str]:
        """Return the environment of the program."""
        options = parse_arguments(["run", *arguments])
        self.assertEqual(run_module.run(options, self.execute), 0)
        return self.executed[-1][2]

    def test_program(self) -> None:
        """The program receives its arguments unchanged, even those that are options here."""
        self.run_command("--listen", "5001", "--", "app", "--listen", "x", "--", "-h")
        path, arguments, _ = self.executed[0]
        self.assertEqual((path, arguments), ("app", ["app", "--listen", "x", "--", "-h"]))

    def test_options(self) -> None:
        with mock.patch.dict(os.environ):
            for given, expected in [
                ([], Options(1.0, False, False)),
                (["--prometheus", "--interval", "500ms"], Options(0.5, True, False)),
                (["--opentelemetry"], Options(1.0, False, True)),
            ]:
                os.environ[OPTIONS] = self.run_command(*given, "--", "app")[OPTIONS]
                self.assertEqual(Options.from_environment(), expected)

    def test_listen(self) -> None:
        for given, listen in [
            ([], "127.0.0.1:5000"),
            (["--listen", "0"], "0"),
            (["--listen", "unix:/tmp/x"], "unix:/tmp/x"),
        ]:
            environment = self.run_command(*given, "--", "app")
            self.assertEqual((environment[LISTEN], environment[PROCESS]), (listen, "first"))

    def test_directory(self) -> None:
        """A directory is absolute, and all processes are watched."""
        os.mkdir(directory := self.mktemp())
        for given in directory, f"{directory}/", f"./{directory}":
            environment = self.run_command("--listen", given, "--", "app")
            self.assertEqual(environment[LISTEN], f"{Path(directory).absolute()}/")
            self.assertNotIn(PROCESS, environment)
        made = self.run_command("--listen", "/missing/", "--", "app")
        self.assertEqual(made[LISTEN], "/missing/")

    def test_wrongListen(self) -> None:
        """Nothing is executed."""
        for listen in "x:y", "70000", "127.0.0.1:70000", "/no/such", "tcp:x", "":
            options = parse_arguments(["run", "--listen", listen, "--", "app"])
            with self.assertRaises(EndpointError, msg=listen):
                run_module.run(options, self.execute)
        self.assertEqual(self.executed, [])

    def test_environment(self) -> None:
        """The variables of the user are kept; an empty PYTHONPATH is none."""
        for path, expected in (None, SITE), ("", SITE), ("a:b", f"{SITE}:a:b"):
            given = {"X": "1"} | ({} if path is None else {"PYTHONPATH": path})
            made = environment_for(Options(), "5000", given)
            self.assertEqual((made["X"], made["PYTHONPATH"]), ("1", expected))

    def test_nested(self) -> None:
        """C{metrics-tcp run -- metrics-tcp run -- app} watches the program for the inner one."""
        outer = environment_for(Options(), "5000", {}) | {PROCESS: "4711"}
        self.assertEqual(environment_for(Options(), "5001", outer)[PROCESS], "first")
        self.assertNotIn(PROCESS, environment_for(Options(), "/tmp/", outer))

    def test_signals(self) -> None:
        """The program does not inherit the signals that Python ignores."""
        self.run_command("--", "app")
        self.assertEqual(signal.getsignal(signal.SIGPIPE), signal.SIG_DFL)

    def test_failures(self) -> None:
        for error, code, why in [
            (FileNotFoundError(errno.ENOENT, "No such file"), 127, "No such file"),
            (NotADirectoryError(errno.ENOTDIR, "Not a directory"), 126, "Not a directory"),
            (PermissionError(errno.EACCES, "Denied"), 126, "Denied"),
            (ValueError("embedded null byte"), 126, "embedded null byte"),
        ]:
            with mock.patch.object(run_module.run, "__defaults__", (mock.Mock(side_effect=error),)):
                ended = run("run", "--", "no\x1bapp")
            self.assertEqual((ended.code, ended.out), (code, ""))
            self.assertEqual(ended.err, f"metrics-tcp run: cannot run no\\x1bapp: {why}\n")

    def test_noInterpreterLine(self) -> None:
        """The shell runs a script that the system cannot execute."""

        def execute(path: str, arguments: list[str], environment: dict[str, str]) -> None:
            self.execute(path, arguments, environment)
            if path != "/bin/sh":
                raise OSError(errno.ENOEXEC, "Exec format error")

        run_module.run(parse_arguments(["run", "--", "./script", "x"]), execute)
        self.assertEqual(self.executed[1][:2], ("/bin/sh", ["/bin/sh", "./script", "x"]))

    def test_usage(self) -> None:
        """A command line without a program: one line."""
        for arguments in ["run"], ["run", "--"], ["run", "app"], ["run", "--prometheus", "app"]:
            ended = run(*arguments)
            self.assertEqual((ended.code, ended.out, ended.err.count("\n")), (2, "", 1))
            self.assertTrue(ended.err.startswith("metrics-tcp run: "), ended.err)

    def test_wrongOption(self) -> None:
        for arguments, says in [
            ("run -x -- app", "unrecognized option -x"),
            ("run app -- app", "unexpected argument 'app'"),
            ("run --interval 0 -- app", "--interval: expected a duration"),
            ("run --listen -- app", "--listen: expected one argument"),
        ]:
            ended = run(*arguments.split())
            self.assertEqual((ended.code, ended.out), (2, ""))
            self.assertIn(says, ended.err)
