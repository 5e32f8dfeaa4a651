"""
The viewer command in a real terminal, with real servers.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import environment, nats, needs
from tests.daemon import LIMIT, Daemon
from tests.nats import NatsServer
from tests.programs import Program, until
from tests.rust_peers import start_server


class Terminal:
    """A tmux terminal that runs a shell command."""

    _number = itertools.count()

    def __init__(self, case: SynchronousTestCase, command: str, width: int = 80, height: int = 24):
        # Use a separate tmux server that ignores the user's configuration. Its name is never used
        # again, since a server that was killed still accepts sessions for a moment.
        directory = Path(case.mktemp())
        directory.mkdir(parents=True)
        name = f"txmetrics-{os.getpid()}-{next(self._number)}"
        self._tmux = ["tmux", "-u", "-f", os.devnull, "-L", name]
        case.addCleanup(self._run, "kill-server")
        self._run(
            "new-session", "-d", "-x", str(width), "-y", str(height), "-c", str(directory), command
        )

    def press(self, *keys: str) -> None:
        """Press keys, given by their tmux names."""
        self._run("send-keys", *keys)

    def screen(self) -> str:
        """Return the text on the screen."""
        return self._run("capture-pane", "-p")

    def state(self, variable: str) -> str:
        """Return the value of a tmux variable of the terminal."""
        return self._run("display-message", "-p", f"#{{{variable}}}").strip()

    def wait_for(self, pattern: str) -> str:
        """Wait until the screen matches a regular expression, and return its text."""
        screen = ""

        def look() -> bool:
            nonlocal screen
            screen = self.screen()
            return re.search(pattern, screen) is not None

        until(look, lambda: f"{pattern!r}\n{screen}")
        return screen

    def _run(self, *arguments: str) -> str:
        # The readline module sets these variables to the size of another terminal.
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        done = subprocess.run(
            [*self._tmux, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert not done.returncode, f"tmux {arguments}: {done.stderr}"
        return done.stdout


def observe(*arguments: str) -> str:
    """Return a shell command that runs the viewer and then prints its exit status."""
    command = shlex.join([sys.executable, "-m", "txmetrics_tcp", "observe", *arguments])
    path = shlex.quote(environment()["PYTHONPATH"])
    # The shell reads and echoes a line afterwards, to show that the terminal was restored.
    return (
        f"export PYTHONPATH={path}; {command}; echo ended $?; stty -a; read line; echo [$line]; cat"
    )


class TerminalTests(SynchronousTestCase):
    skip = needs("tmux")

    @skipIf(nats.missing, nats.missing)
    def test_broker(self) -> None:
        """Sources of a broker are shown; so are its loss, and what it does not permit."""
        broker = NatsServer(self)
        terminal = Terminal(self, observe(broker.url()))
        terminal.wait_for("no sources yet; waiting for nats://")
        Daemon(
            *(self, "-n", "--pidfile=", "metrics-tcp", "--listen", "0", "--no-host"),
            *("--publish", broker.url(), "--publish-source", "shop"),
        )
        terminal.wait_for(r"● shop  connected .*no losses")
        broker.kill()
        terminal.wait_for(r"● shop  disconnected, retrying: ")
        broker.start()
        terminal.wait_for(r"● shop  connected .*no losses")
        terminal.press("q")
        terminal.wait_for("ended 0")
        closed = NatsServer(self, "--auth", "secret")
        terminal = Terminal(self, observe(closed.url()), width=120)
        screen = terminal.wait_for("ended 2")
        self.assertIn(
            f"cannot follow {closed.url()}: the broker does not accept the credentials", screen
        )

    def test_daemon(self) -> None:
        """At 80 by 24, the daemon's own metrics are listed, filtered and shown in detail."""
        daemon = Daemon(self, "-n", "--pidfile=", "metrics-tcp", "--listen", "0")
        terminal = Terminal(self, observe(str(daemon.port)))
        screen = terminal.wait_for(r"● 127\.0\.0\.1:\d+  connected .*no losses")
        self.assertIn("LIVE", screen)
        terminal.wait_for(r" \d\d+ series .*\n(?s:.*) gauge ")
        self.assertEqual(terminal.state("alternate_on"), "1")
        # Sent at once, like fast typing; outside the field, these letters trigger actions.
        terminal.press("/", "kind:histo")
        # The pattern excludes partly drawn screens.
        terminal.wait_for(r"(?ms)\A(?!.*gauge).*^.reactor_lag_seconds\s+histogram\s")
        terminal.press("Enter", "Enter")
        terminal.wait_for(r"p999 +[\d.]+ [mμ]?s")
        self.assertNotIn("Saved to", terminal.screen())
        terminal.press("?")
        terminal.wait_for("Navigation")
        terminal.press("Escape")
        terminal.wait_for("p999")
        # The first closes the details.
        terminal.press("q")
        terminal.wait_for(" q quit")
        terminal.press("q")
        terminal.wait_for("ended 0")
        self.check_restored(terminal)

    def test_glob(self) -> None:
        """Servers on the sockets of a directory come and go while the viewer runs."""
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        terminal = Terminal(self, observe(f"{directory}/*.sock"))
        terminal.wait_for(r"no sources yet; waiting for /")
        options = ["-n", "--pidfile=", "metrics-tcp", "--no-host"]
        daemon = Daemon(self, *options, "--listen", f"unix:{directory}/a.sock")
        terminal.wait_for(r"● unix:.*a\.sock  connected")
        terminal.wait_for(r" \d+ series ")
        daemon.process.terminate()
        terminal.wait_for(r"no sources yet; waiting for /")
        terminal.press("q")
        terminal.wait_for("ended 0")

    def check_restored(self, terminal: Terminal) -> None:
        """Check that line editing, echo, cursor and mouse of the terminal are restored."""
        screen = terminal.wait_for(r"(?s)ended \d+.* icanon")
        self.assertRegex(screen, r"[^-]echo ")
        self.assertRegex(screen, r"[^-]isig ")
        self.assertEqual(terminal.state("alternate_on"), "0")
        self.assertEqual(terminal.state("mouse_any_flag"), "0")
        self.assertEqual(terminal.state("cursor_flag"), "1")
        terminal.press("abc", "Enter")
        terminal.wait_for(r"\[abc\]")

    def test_signals(self) -> None:
        """The terminal is restored after Ctrl-C and after each signal."""
        refusing = socket.socket()
        self.addCleanup(refusing.close)
        refusing.bind(("127.0.0.1", 0))
        port = refusing.getsockname()[1]
        ends = {"C-c": 0, "TERM": 143, "INT": 130, "HUP": 129}
        terminals = {end: Terminal(self, observe(str(port), "unix:/nowhere/m")) for end in ends}
        for end, terminal in terminals.items():
            terminal.wait_for(rf"127\.0\.0\.1:{port}  disconnected, ")
            terminal.wait_for(r"unix:/nowhere/m  disconnected, ")
            terminal.wait_for(f"start one: twistd -n metrics-tcp --listen 127.0.0.1:{port}")
            if end == "C-c":
                terminal.press(end)
            else:
                children = Path(f"/proc/{terminal.state('pane_pid')}/task").glob("*/children")
                (child,) = " ".join(path.read_text() for path in children).split()
                os.kill(int(child), getattr(signal, f"SIG{end}"))
        for end, terminal in terminals.items():
            terminal.wait_for(f"ended {ends[end]}")
            self.check_restored(terminal)

    def test_terminalBlocked(self) -> None:
        """A signal ends the viewer while its terminal takes no output."""
        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        # More than the terminal's buffer holds.
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 200, 500, 0, 0))
        command = [sys.executable, "-m", "txmetrics_tcp", "observe", "unix:/nowhere/m"]
        with subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment()
        ) as child:
            os.close(slave)
            # Its first output: it handles signals.
            self.assertTrue(select.select([master], [], [], LIMIT)[0])
            child.terminate()
            self.assertEqual(child.wait(LIMIT), 143)

    def test_reconnects(self) -> None:
        """
        The header shows a lost connection, a restart of the server, and an HTTP server that is not
        a metrics server.
        """
        # The path of the test's directory may be too long for a socket.
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
        terminal.wait_for(rf"{label}  disconnected, retry in \d+ s")
        # The series stay visible.
        self.assertIn("1,234,567", terminal.screen())
        Program(self, script.format(42))
        terminal.wait_for(rf"{label}  connected .*↻ restarted")
        terminal.wait_for(rf"answers_total +{label} +route=/ +\w+ +42 ")

    def test_rustServer(self) -> None:
        """Units, totals, percentiles and text of the original Rust server are shown."""
        port, server = start_server(self)
        terminal = Terminal(self, observe(str(port)), 170, 30)
        for pattern in [
            rf"● 127\.0\.0\.1:{port}  connected .*losses unknown",
            r"rust_requests +route=/b system=東京 +counter +[\d,]+ .*/s",
            r"rust_sent +counter +[\d.]+ [KM]iB",
            r"rust_load +gauge +12\.5%",
            r"rust_special +value=nan +gauge +nan",
            r"rust_latency +route=/a +histogram .*[\d.]+ m?s +[\d.]+ m?s",
        ]:
            terminal.wait_for(pattern)
        terminal.press("/", "rust_load", "Enter", "Enter")
        terminal.wait_for("eine Größe: µs, 東京")
        server.kill()
        terminal.wait_for(rf"127\.0\.0\.1:{port}  disconnected, retry in")
