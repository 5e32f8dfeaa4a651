"""
The processes that take part: servers, ours and the reference, and readers.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from suite.commands import MODES, SEQUENCE

HERE = Path(__file__).resolve().parent.parent

TIMEOUT = 120.0
"""After how many seconds without an answer a process has failed."""

QUIET = 0.4
"""For how many seconds nothing must come until a reader counts as having read all there is."""

PATIENCE = 30.0
"""For how many seconds what our server has not counted as lost may still come."""


class PeerError(Exception):
    """A process has failed, or what it says cannot be true.  Then there is no figure."""


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
            env=_environment(),
        )
        self._received = b""
        self.greeting = self._answer(TIMEOUT)

    def resident_bytes(self) -> int:
        """The memory that it uses now."""
        with open(f"/proc/{self._process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    def ask(self, word: str, timeout: float = TIMEOUT, **options: float) -> dict[str, Any]:
        """
        Give a command, and wait for the answer.

        @raise PeerError: there is none.
        """
        pairs = [f"{name}={number!r}" for name, number in options.items()]
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(" ".join([word, *pairs]).encode() + b"\n")
        except OSError as error:
            raise self._failed(str(error)) from None
        return self._answer(timeout)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Nobody has anything to save, and some would first send what waits.
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._received:
            ready, _, _ = select.select(
                [self._process.stdout], [], [], max(0.0, end - time.monotonic())
            )
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
    """What records, and sends it to its clients."""

    def __init__(self, program: list[str], arguments: list[str], ours: bool = False) -> None:
        """
        @param arguments: with C{PORT} where the port belongs.
        @param ours: whether it has clients' accounts.
        """
        self.ours = ours
        self.port = _free_port()
        arguments = [argument.replace("PORT", str(self.port)) for argument in arguments]
        super().__init__([*program, *arguments])

    def record(
        self,
        *,
        count: int = 0,
        seconds: float = 0.0,
        rate: float = 0.0,
        tick_us: int = 1000,
        threads: int = 1,
        mode: str = "plain",
        reactor: bool = False,
    ) -> dict[str, Any]:
        """
        Have it record; see `suite.recording.Source`.

        @return: C{recorded} events within C{seconds}.
        """
        return self.ask(
            "record",
            count=count,
            seconds=seconds,
            rate=rate,
            tick_us=tick_us,
            threads=threads,
            mode=MODES.index(mode),
            reactor=int(reactor),
        )

    def cpu_seconds(self) -> float:
        """The processor time that it has used."""
        return float(self.ask("stats")["cpu_seconds"])


class Reader(Peer):
    """
    Any number of clients of one server, in one process.

    @ivar tolerant: a corrupt stream is no error; what was read before counts.
    """

    def __init__(self, arguments: list[str], port: int, clients: int, mode: str) -> None:
        self.clients = clients
        self.mode = mode
        self.tolerant = False
        super().__init__([*arguments, f"127.0.0.1:{port}", str(clients), mode])

    def report(self) -> list[dict[str, Any]]:
        """
        What each client has read so far.

        @raise PeerError: one read what is no stream of metrics, or lost its connection.
        """
        clients = self.ask("report")["clients"]
        for number, client in enumerate(clients):
            if client["corrupt"] and not self.tolerant:
                raise PeerError(f"{self.name}: client {number}: {client['corrupt']}")
            if client["closed"]:
                raise PeerError(f"{self.name}: client {number}: the connection has ended")
        return list(clients)

    def read_all(self, events: list[int]) -> list[dict[str, Any]]:
        """Wait until each client has read so many events, or nothing comes any more."""
        before = -1
        last = time.monotonic()
        while True:
            clients = self.report()
            if all(
                client["events"] >= expected
                for client, expected in zip(clients, events, strict=True)
            ):
                return clients
            read = sum(client["events"] for client in clients)
            now = time.monotonic()
            if read != before:
                before, last = read, now
            elif now - last > QUIET:
                return clients
            time.sleep(0.005 if len(clients) < 100 else 0.02)


class Session:
    """
    A server and its clients, with an account of what was recorded, and what became of it.

    @ivar recorded: how many events were recorded.
    @ivar lost: how many of them are known not to have come, of all clients together.
    @ivar corrupt: how many clients can make nothing any more of what they receive.  That may
        happen with the reference alone: it throws the rest of a frame away that a socket took
        only in part, if the socket takes nothing the next time either.
    """

    def __init__(self, server: Server, reader: Reader) -> None:
        self.server = server
        self.reader = reader
        self.recorded = 0
        self.lost = 0
        self.corrupt = 0
        reader.tolerant = not server.ours
        # By client.
        self._lost = [0] * reader.clients

    def record(self, **how: Any) -> dict[str, Any]:
        """See `Server.record`; with values as the reader expects them."""
        answer = self.server.record(mode=self.reader.mode, **how)
        self.recorded += answer["recorded"]
        return answer

    def read_all(self) -> list[dict[str, Any]]:
        """
        Wait until all has been read; see `Reader.read_all`.

        Of ours it is known what all is: a machine that lets its reactor stand still is waited for.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            clients = self.reader.read_all([self.recorded - lost for lost in self._lost])
            if not self.server.ours or self._is_all(clients) or time.monotonic() > deadline:
                return clients

    def _is_all(self, clients: list[dict[str, Any]]) -> bool:
        """Whether our server has counted as lost whatever has not come."""
        # What is known to be lost need not be asked for again.
        if all(
            client["events"] + lost >= self.recorded
            for client, lost in zip(clients, self._lost, strict=True)
        ):
            return True
        accounts = self.server.ask("stats")["clients"]
        return len(accounts) == len(clients) and all(
            client["events"] + account["dropped"] + account["dropped_incoming"] >= self.recorded
            for client, account in zip(clients, accounts, strict=True)
        )

    def close(self) -> int:
        """
        Wait until all has been read, then compare three accounts of what was lost on the way to
        each client: what is missing in number, what is missing in the sequence (where events carry
        their number), and what our server counted.

        @return: how many events were lost since the last time, of all clients together.
        @raise PeerError: the accounts differ, or the order did.
        """
        self.read_all()
        # One more shows what is missing at the end of the sequence.
        self.record(count=1)
        clients = self.read_all()
        counted = self.server.ask("stats")["clients"] if self.server.ours else [None] * len(clients)
        if len(counted) != len(clients):
            raise PeerError(f"{self.server.name}: {len(counted)} clients, not {len(clients)}")
        for number, (client, account) in enumerate(zip(clients, counted, strict=True)):
            lost = self._lost[number] = self.recorded - client["events"]
            gaps = client["gaps"]
            if client["corrupt"]:
                continue
            numbered = self.reader.mode == "numbered"
            if numbered and ((lost - gaps) % SEQUENCE or not 0 <= gaps <= lost):
                raise PeerError(
                    f"{self.server.name}: client {number} is short of {lost} events, and saw gaps"
                    f" of {gaps}"
                )
            if account is None:
                continue
            missing = account["dropped"] + account["dropped_incoming"]
            if lost != missing or account["waiting"] or account["discarded"]:
                raise PeerError(
                    f"{self.server.name}: client {number} has lost {lost} of {self.recorded}"
                    f" events, but the server says {account}"
                )
        self.corrupt = sum(client["corrupt"] is not None for client in clients)
        before, self.lost = self.lost, sum(self._lost)
        return self.lost - before


class Peers:
    """How to start what takes part."""

    def __init__(self, directory: Path | None) -> None:
        """
        @param directory: where the Rust programs are; None without them, and then the
            reader is in Python, and there is no reference.
        """
        self.rust = directory is not None
        self._reader = python("suite.reader")
        if directory is not None:
            self._reference = [str(directory / "serve")]
            self._reader = [str(directory / "read")]
            self.decode = str(directory / "decode")

    def server(self, ours: bool, buffer_size: int, own_metrics: bool = True) -> Server:
        """Ours, or the reference."""
        if not ours:
            return Server(self._reference, ["127.0.0.1:PORT", str(buffer_size)])
        arguments = ["PORT", str(buffer_size), str(int(own_metrics))]
        return Server(python("suite.server"), arguments, ours=True)

    def reader(self, port: int, clients: int, mode: str = "plain") -> Reader:
        return Reader(self._reader, port, clients, mode)

    @contextmanager
    def session(
        self,
        ours: bool,
        clients: int,
        buffer_size: int,
        mode: str = "plain",
        own_metrics: bool = True,
    ) -> Iterator[Session]:
        """
        A server and its clients, all connected.

        @param own_metrics: whether our server publishes some of its own; an account in which
            losses are compared needs that it does not.
        """
        with (
            self.server(ours, buffer_size, own_metrics) as server,
            self.attach(server, clients, mode) as session,
        ):
            yield session

    @contextmanager
    def attach(self, server: Server, clients: int, mode: str = "plain") -> Iterator[Session]:
        """Clients for a server that has none yet."""
        with self.reader(server.port, clients, mode) as reader:
            end = time.monotonic() + TIMEOUT
            while server.ours and len(server.ask("stats")["clients"]) < clients:
                if time.monotonic() > end:
                    raise PeerError(f"{server.name}: not all clients could connect")
                time.sleep(0.01)
            # The reference does not say whom it has accepted.
            time.sleep(0.2)
            yield Session(server, reader)


def python(module: str) -> list[str]:
    """How to run a module of this package as a process."""
    return [sys.executable, "-m", module]


def build(directory: Path) -> Peers:
    """
    Build the Rust programs if that can be done.

    @param directory: where they are put.
    """
    if shutil.which("cargo") is None:
        print("cargo is missing: no figures of the reference, and a slow reader", file=sys.stderr)
        return Peers(None)
    print("building the Rust programs", file=sys.stderr, flush=True)
    done = subprocess.run(
        ["bash", str(HERE / "rust" / "build.sh"), str(directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={"PYTHON": sys.executable, **os.environ},
    )
    if done.returncode == 3:
        print(f"{done.stderr.strip()}: no figures of the reference", file=sys.stderr)
        return Peers(None)
    if done.returncode:
        raise PeerError(f"the Rust programs cannot be built\n{done.stdout}{done.stderr}")
    return Peers(directory)


def _environment() -> dict[str, str]:
    """What is measured is the tree that this file is in, unless PYTHONPATH says otherwise."""
    path = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(HERE.parent)])}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
