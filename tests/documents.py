"""
Runs the commands and scripts of a document as a reader would.

The language of a block decides how it is run.  ``sh``: commands.  ``console``: a transcript with
commands after the prompt C{$ }.  ``python``: a file if the first line is a comment with its name,
otherwise a script.  Blocks of other languages are not run.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, environment, nats
from tests.daemon import LIMIT, TWISTD
from tests.programs import until

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("[!c]*/*.md"))]
"""The documents for users."""

NOT_RUN = ("systemctl", "podman")
"""Commands that need a service manager or a container engine."""

_BLOCK = re.compile(r"^( *)```(sh|console|python)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|tac))\n")
_PORT = re.compile(r"(?<![\d.\w/-])(web\d\.example:|)((?:50|80)0\d|5080|9464|4222|8125)\b(?![.\d])")
_TMP = re.compile(r"(?<![\w.])/tmp/")
_ENDS = re.compile(r"--(count|duration|help|version)\b|metrics-tcp (stats|tail \S+\.rec)\b")
_SERVED = re.compile(
    rb"connected to|waiting for a client|the page is at|Factory starting|Streaming metrics on"
    rb"|\x1b\[\?1049h"
)

# Every Python process of a page runs this, so that the default endpoints are the page's own.
_DEFAULT_ENDPOINT = """
import txmetrics_tcp._net.endpoint_syntax as syntax
syntax.DEFAULT_ENDPOINT = "127.0.0.1:{port}"
import txmetrics_tcp.cli.arguments as arguments
arguments.DEFAULT_WEB = "127.0.0.1:{web}"
"""

_PIP = r"""
import importlib.metadata, re, sys
extras = importlib.metadata.metadata("txmetrics-tcp").get_all("Provides-Extra")
for argument in sys.argv:
    for wanted in re.findall(r"\[([\w,]+)\]", argument):
        for extra in wanted.split(","):
            assert extra in extras, f"no extra {extra}"
"""

_PYTHON = """
case "$1 $2" in
  "-m venv") mkdir -p "$3" && ln -sfn {bin} "$3/bin" ;;
  *) exec {python} "$@" ;;
esac
"""


class Block(NamedTuple):
    """A block of a document that can be run."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file to write, or None."""
        found = _FILE.match(self.text) if self.language == "python" else None
        return found and found[1]

    @property
    def code(self) -> str:
        """The text to run; of a transcript, the commands."""
        if self.language != "console":
            return self.text
        return "".join(line[2:] for line in self.text.splitlines(True) if line.startswith("$ "))


def blocks(path: Path) -> Iterator[Block]:
    for indent, language, text in _BLOCK.findall(path.read_text(encoding="utf-8")):
        yield Block(language, re.sub(rf"(?m)^{indent}", "", text))


class Run:
    """Commands that run in a terminal of their own."""

    def __init__(self, commands: str, directory: Path, env: dict[str, str]) -> None:
        self.commands = commands
        self.output = b""
        self._terminal, terminal = os.openpty()
        os.set_blocking(self._terminal, False)
        self.process = subprocess.Popen(
            ["bash", "-ec", commands],
            cwd=directory,
            env=env,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)

    @property
    def text(self) -> str:
        """The commands and their output, for messages of failures."""
        return f"{self.commands}{self.output.decode(errors='replace')}"

    def has_ended(self) -> bool:
        """Read all available output, and return whether the shell has ended."""
        ended = self.process.poll() is not None
        try:
            while data := os.read(self._terminal, 65536):
                self.output += data
        except BlockingIOError:
            pass
        except OSError as error:
            # Linux raises this when no process has the terminal open.
            if error.errno != errno.EIO:
                raise
        return ended

    def stop(self) -> None:
        """Terminate the processes of the run, and wait for the end."""
        if not self.has_ended():
            os.killpg(self.process.pid, signal.SIGTERM)
            until(self.has_ended, lambda: f"the end of {self.text}")

    def clean_up(self) -> None:
        with self.process:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        os.close(self._terminal)


class Reader:
    """
    Runs the blocks of one page in a new directory, with free ports instead of those on the page.

    A command that runs until it is interrupted keeps running in the background.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self._case = case
        # The paths of UNIX sockets must be short.
        root = Path(mkdtemp(prefix="docs")).resolve()
        case.addCleanup(shutil.rmtree, root)
        self._bin, self._tmp, modules = root / "bin", root / "tmp", root / "modules"
        self.directory = root / "work"
        for directory in (self._bin, self._tmp, modules, self.directory):
            directory.mkdir()
        self._ports: dict[str, int] = {}
        self._runs: list[Run] = []
        default = _DEFAULT_ENDPOINT.format(port=self._port("5000"), web=self._port("5080"))
        (modules / "sitecustomize.py").write_text(default)
        path = os.pathsep.join([str(self._bin), os.environ["PATH"]])
        self._environment = {
            **environment(modules),
            "PATH": path,
            "TERM": "xterm-256color",
            "COLUMNS": "120",
            "LINES": "40",
        }
        self._make_commands()

    def start_daemon(self) -> None:
        """Start the daemon on the default endpoint, for a page that does not start a server."""
        self._start("twistd -n metrics-tcp")

    def do(self, block: Block) -> None:
        """Run a block, or write it to its file."""
        text = self._substitute(block.code)
        if block.file is not None:
            (self.directory / block.file).write_text(text)
        elif block.language == "python":
            script = self.directory / f"block{len(self._runs)}.py"
            script.write_text(text)
            self._start(f"python {script}", ends=True)
        else:
            self._start(text)

    def finish(self) -> None:
        """Stop all commands that still run, in reverse order, and check that none has failed."""
        for run in reversed(self._runs):
            run.stop()
        for run in self._runs:
            self._case.assertNotIn("Traceback", run.text)
            self._case.assertIn(run.process.returncode, (0, 143, -signal.SIGTERM), run.text)

    def _start(self, commands: str, ends: bool = False) -> None:
        """Run commands until they end, or until the last one listens or is connected."""
        last = commands.strip().splitlines()[-1]
        ends = ends or bool(_ENDS.search(last))
        listening = self._listening()
        run = Run(commands, self.directory, self._environment)
        self._case.addCleanup(run.clean_up)
        self._runs.append(run)

        def is_done() -> bool:
            if run.has_ended():
                return True
            return not ends and bool(_SERVED.search(run.output) or self._listening() - listening)

        until(is_done, lambda: run.text)
        self._case.assertIn(run.process.returncode, (None, 0), run.text)

    def _substitute(self, text: str) -> str:
        def port(found: re.Match[str]) -> str:
            return ("127.0.0.1:" if found[1] else "") + str(self._port(found[2]))

        return _PORT.sub(port, _TMP.sub(f"{self._tmp}/", text))

    def _port(self, written: str) -> int:
        """Return the free port that replaces a port of the page."""
        if written not in self._ports:
            # A bound socket that does not listen reserves the port: the system assigns it to no
            # other program, and a server that sets SO_REUSEADDR can still listen on it.
            holder = socket.socket()
            self._case.addCleanup(holder.close)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            self._ports[written] = holder.getsockname()[1]
        return self._ports[written]

    def _listening(self) -> set[int]:
        """Return the ports of the page on which a server listens."""
        found = set()
        for port in self._ports.values():
            with socket.socket() as probe:
                probe.settimeout(LIMIT)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    found.add(port)
        return found

    def _make_commands(self) -> None:
        python = _PYTHON.format(bin=self._bin, python=sys.executable)
        programs = {
            "pip": [sys.executable, "-c", _PIP],
            "metrics-tcp": [sys.executable, "-m", "txmetrics_tcp"],
            "twistd": TWISTD,
        }
        if nats.PROGRAM is not None:
            programs["nats-server"] = [nats.PROGRAM]
        commands = {
            **dict.fromkeys(("python", "python3"), python),
            **{name: f'exec {shlex.join(words)} "$@"\n' for name, words in programs.items()},
            **dict.fromkeys((*NOT_RUN, "activate"), ""),
        }
        for name, script in commands.items():
            command = self._bin / name
            command.write_text(f"#!/bin/sh\n{script}")
            command.chmod(0o755)
