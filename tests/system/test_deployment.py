"""
The files in docs/how-to/deployment/ work.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, needs
from tests.daemon import LIMIT, Daemon, Viewer
from txmetrics_tcp import Status

DEPLOYMENT = ROOT / "docs" / "how-to" / "deployment"

PROGRAM = "/opt/txmetrics-tcp/bin/twistd"

# As systemd does: the socket is descriptor 3, and the process id is in the environment.
ACTIVATED = """
import os, sys
os.dup2(int(sys.argv.pop(1)), 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="metrics-tcp.socket")
from twisted.scripts.twistd import run
run()
"""


class Unit(RawConfigParser):
    """A systemd unit. Of a repeated setting, only the last value is kept."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, interpolation=None)
        self.optionxform = str  # type: ignore[assignment, method-assign]
        with (DEPLOYMENT / name).open() as file:
            self.read_file(file)


def arguments_of(command: list[str]) -> list[str]:
    """Return the arguments of twistd in a command."""
    program, *arguments = command
    assert program == PROGRAM, command
    return arguments


class SystemdTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.socket.close)
        self.port = self.socket.getsockname()[1]
        command = shlex.split(Unit("metrics-tcp.service")["Service"]["ExecStart"])
        self.arguments = arguments_of(command)

    def start(self) -> Daemon:
        """Run the service as systemd does, with the listening socket."""
        descriptor = os.dup(self.socket.fileno())
        os.set_inheritable(descriptor, True)
        self.addCleanup(os.close, descriptor)
        runner = [sys.executable, "-c", ACTIVATED, str(descriptor)]
        return Daemon(self, *self.arguments, "--no-host", runner=runner, inherit=[descriptor])

    def test_activated(self) -> None:
        """A client that connects during a restart of the daemon waits and is served."""
        early = iter(Viewer(self, self.port))
        for _ in range(2):
            daemon = self.start()
            self.assertIsInstance(next(early), Status)
            self.assertEqual(daemon.port, self.port)
            daemon.process.terminate()
            status, output, errors = daemon.end()
            # systemd regards this status as a clean exit.
            self.assertEqual((status, errors), (-signal.SIGTERM, ""))
            self.assertNotIn("Traceback", output)
            self.assertEqual(os.listdir(daemon.directory), [])
            early = iter(Viewer(self, self.port))

    def test_loopback(self) -> None:
        """The unit's address can be reached only from this machine."""
        listen = Unit("metrics-tcp.socket")["Socket"]["ListenStream"]
        self.assertEqual(listen, "127.0.0.1:5000")

    @skipIf(needs("systemd-analyze"), needs("systemd-analyze"))
    def test_units(self) -> None:
        """systemd reports no error in the units, and a low exposure level."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for unit in DEPLOYMENT.glob("metrics-tcp.*"):
            text = unit.read_text().replace(PROGRAM, sys.executable)
            (directory / unit.name).write_text(text)
        units = sorted(map(str, directory.iterdir()))
        self.assertEqual(len(units), 2)
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units],
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        self.assertEqual((verified.returncode, verified.stderr), (0, ""))
        judged = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--no-pager", units[0]],
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        level = re.search(r"exposure level for metrics-tcp.service: ([0-9.]+)", judged.stdout)
        assert level is not None, judged
        self.assertLess(float(level[1]), 2)


class ContainerTests(SynchronousTestCase):
    def setUp(self) -> None:
        text = (DEPLOYMENT / "Containerfile").read_text()
        lines = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
        self.steps = [tuple(line.split(" ", 1)) for line in lines if line.strip()]

    def last(self, instruction: str) -> str:
        return [argument for name, argument in self.steps if name == instruction][-1]

    def test_steps(self) -> None:
        """The Containerfile has only common instructions; the container is unprivileged."""
        known = {"FROM", "COPY", "RUN", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
        self.assertEqual({name for name, _ in self.steps} - known, set())
        self.assertNotIn(self.last("USER").split(":")[0], ("root", "0"))

    def test_runs(self) -> None:
        """The container's command runs, here with another port."""
        command = json.loads(self.last("ENTRYPOINT")) + json.loads(self.last("CMD"))
        arguments = [text.replace(":5000", ":0") for text in arguments_of(command)]
        daemon = Daemon(self, *arguments, "--no-host")
        self.assertIsInstance(next(iter(Viewer(self, daemon.port))), Status)
        daemon.wait_for("Any client with network access to this machine can read the metrics on")
        self.assertEqual(self.last("EXPOSE"), "5000")

    def test_installs(self) -> None:
        """The extras that the Containerfile installs exist."""
        [extras] = re.findall(r"/src\[([a-z,]+)\]", self.last("RUN"))
        project = (ROOT / "pyproject.toml").read_text()
        for extra in extras.split(","):
            self.assertRegex(project, rf"(?m)^{extra} = ")
