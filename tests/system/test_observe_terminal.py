"""
The viewer as its users have it: the command in a real terminal, with real servers.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import environment, needs
from tests.daemon import LIMIT, Daemon
from tests.programs import Program, until
from tests.rust_peers import start_server


class Terminal:
    """A terminal of tmux's, with a shell command in it."""

    def __init__(self, case: SynchronousTestCase, command: str, width: int = 80, height: int = 24):
        # A server of our own, which no configuration of the user has a say in.
        directory = Path(case.mktemp())
        directory.mkdir(parents=True)
        self._tmux = ["tmux", "-u", "-f", os.devnull, "-L", f"txmetrics-{os.getpid()}-{id(self)}"]
        case.addCleanup(self._run, "kill-server")
        self._run(
            "new-session", "-d", "-x", str(width), "-y", str(height), "-c", str(directory), command
        )

    def press(self, *keys: str) -> None:
        """Press keys, in tmux's words."""
        self._run("send-keys", *keys)

    def screen(self) -> str:
        """What is to be seen."""
        return self._run("capture-pane", "-p")

    def state(self, what: str) -> str:
        """What tmux knows of the terminal."""
        return self._run("display-message", "-p", f"#{{{what}}}").strip()

    def wait_for(self, pattern: str) -> str:
        """Wait until the screen has something like that, and return all of it."""
        screen = ""

        def look() -> bool:
            nonlocal screen
            screen = self.screen()
            return re.search(pattern, screen) is not None

        until(look, lambda: f"{pattern!r}\n{screen}")
        return screen

    def _run(self, *arguments: str) -> str:
        # The module readline puts a size into the environment that is not that of this terminal.
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        done = subprocess.run(
            [*self._tmux, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        return done.stdout


def observe(*arguments: str) -> str:
    """The command, for a shell; afterwards it says how it ended."""
    command = shlex.join([sys.executable, "-m", "txmetrics_tcp", "observe", *arguments])
    path = shlex.quote(environment()["PYTHONPATH"])
    # Without exec, and with a shell that reads: the terminal has to be one again.
    return (
        f"export PYTHONPATH={path}; {command}; echo ended $?; stty -a; read line; echo [$line]; cat"
    )


class TerminalTests(SynchronousTestCase):
    skip = needs("tmux")

    def test_daemon(self) -> None:
        """The daemon's own metrics are seen, filtered, looked at and left, in 80 by 24."""
        daemon = Daemon(self, "-n", "--pidfile=", "metrics-tcp", "--listen", "0")
        terminal = Terminal(self, observe(str(daemon.port)))
        screen = terminal.wait_for(r"● 127\.0\.0\.1:\d+  connected .*no losses")
        self.assertIn("LIVE", screen)
        terminal.wait_for(r" \d\d+ series .*\n(?s:.*) gauge ")
        self.assertEqual(terminal.state("alternate_on"), "1")
        # All in one go, as one who types fast: each of these letters is a key otherwise.
        terminal.press("/", "kind:histo")
        # A screen may be seen when a part of it has been drawn.
        terminal.wait_for(r"(?ms)\A(?!.*gauge).*^.reactor_lag_seconds\s+histo\s")
        terminal.press("Enter", "Enter")
        terminal.wait_for(r"p999 +[\d.]+[mμ]?s")
        self.assertNotIn("written", terminal.screen())
        terminal.press("?")
        terminal.wait_for("Look around")
        terminal.press("Escape")
        terminal.wait_for("p999")
        terminal.press("q")
        terminal.wait_for("ended 0")
        self.check_restored(terminal)

    def check_restored(self, terminal: Terminal) -> None:
        """The terminal is as it was: lines are edited and shown, and the mouse is left alone."""
        screen = terminal.wait_for(r"(?s)ended \d+.* icanon")
        self.assertRegex(screen, r"[^-]echo ")
        self.assertRegex(screen, r"[^-]isig ")
        self.assertEqual(terminal.state("alternate_on"), "0")
        self.assertEqual(terminal.state("mouse_any_flag"), "0")
        self.assertEqual(terminal.state("cursor_flag"), "1")
        terminal.press("abc", "Enter")
        terminal.wait_for(r"\[abc\]")

    def test_signals(self) -> None:
        """However it is ended, the terminal is as it was."""
        refusing = socket.socket()
        self.addCleanup(refusing.close)
        refusing.bind(("127.0.0.1", 0))
        port = refusing.getsockname()[1]
        ends = {"C-c": 0, "TERM": 143, "INT": 130, "HUP": 129}
        terminals = {end: Terminal(self, observe(str(port), "unix:/nowhere/m")) for end in ends}
        for end, terminal in terminals.items():
            terminal.wait_for(rf"127\.0\.0\.1:{port}  disconnected, ")
            terminal.wait_for(r"unix:/nowhere/m  disconnected, ")
            if end == "C-c":
                terminal.press(end)
            else:
                children = Path(f"/proc/{terminal.state('pane_pid')}/task").glob("*/children")
                (child,) = " ".join(path.read_text() for path in children).split()
                os.kill(int(child), getattr(signal, f"SIG{end}"))
        for end, terminal in terminals.items():
            terminal.wait_for(f"ended {ends[end]}")
            self.check_restored(terminal)

    def test_reconnects(self) -> None:
        """
        Two servers, one of them of this library, in another run after a while, and one of another
        kind: what happens to the connections is seen, and that it is another run.
        """
        # Not in the directory of the test, whose name may be too long for a socket.
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        address = f"unix:{directory}/s"
        label = re.escape(address)
        script = f"""
            TcpBuilder().listen_address({address!r}).install_in_thread()
            counter("answers_total", route="/").increment({{}})
            say("up", 1)
            signal.pause()
        """
        first = Program(self, script.format(1234567))
        first.said("up")
        other = Program(
            self,
            """
            import socket
            listening = socket.create_server(("127.0.0.1", 0))
            say("port", listening.getsockname()[1])
            while True:
                client, _ = listening.accept()
                client.sendall(b"HTTP/1.0 400 Bad Request\\r\\n\\r\\n")
                client.close()
            """,
        )
        terminal = Terminal(self, observe(address, f"127.0.0.1:{other.port}"), 120, 30)
        terminal.wait_for(rf"answers_total +{label} +route=/ +\w+ +1,234,567")
        terminal.wait_for(
            rf"127\.0\.0\.1:{other.port}  not a metrics stream, .*: it looks like an HTTP server"
        )
        first.process.kill()
        terminal.wait_for(rf"{label}  disconnected, again in \d+s")
        # What was known stays to be seen.
        self.assertIn("1,234,567", terminal.screen())
        Program(self, script.format(42))
        terminal.wait_for(rf"{label}  connected .*↻ restarted")
        terminal.wait_for(rf"answers_total +{label} +route=/ +\w+ +42 ")

    def test_rustServer(self) -> None:
        """The genuine Rust server in the viewer: units, totals, percentiles, text."""
        port, server = start_server(self)
        terminal = Terminal(self, observe(str(port)), 170, 30)
        for pattern in [
            rf"● 127\.0\.0\.1:{port}  connected .*losses unknown",
            r"rust_requests +route=/b system=東京 +counter +[\d,]+ .*/s",
            r"rust_sent +counter +[\d.]+ [KM]iB",
            r"rust_load +gauge +12\.5%",
            r"rust_special +value=nan +gauge +nan",
            r"rust_latency +route=/a +histogram .*[\d.]+m?s +[\d.]+m?s",
        ]:
            terminal.wait_for(pattern)
        terminal.press("/", "rust_load", "Enter", "Enter")
        terminal.wait_for("eine Größe: µs, 東京")
        server.kill()
        terminal.wait_for(rf"127\.0\.0\.1:{port}  disconnected, again in")
