"""
Runs a NATS server with JetStream, which is killed when its test ends.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from threading import Event, Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.daemon import LIMIT

PROGRAM = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which(
    "nats-server"
)

"""The path of nats-server, or None."""

missing = needs("nats") or needs("zstandard") or (None if PROGRAM else "needs nats-server")
"""The reason to skip tests with a broker, or None."""

_LISTENING = re.compile(r"Listening for client connections on 127\.0\.0\.1:(\d+)")


class NatsServer:
    """
    A broker on a random port of the loopback interface, with a temporary store.

    @ivar port: the port, which remains when the server is started again.
    @ivar store: the directory of the store.
    """

    def __init__(self, case: SynchronousTestCase, *options: str, config: str = "") -> None:
        """
        @param options: further options of nats-server.
        @param config: the text of a configuration file.
        """
        self.store = Path(case.mktemp())
        self.store.mkdir()
        self._options = options
        if config:
            path = self.store / "nats.conf"
            path.write_text(config)
            self._options += ("--config", str(path))
        self.port = -1
        self._process: Popen[str] | None = None
        case.addCleanup(self.kill)
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        assert PROGRAM is not None
        self._process = Popen(
            [
                *(PROGRAM, "--jetstream", "--addr", "127.0.0.1", "--port", str(self.port)),
                *("--store_dir", str(self.store), *self._options),
            ],
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            text=True,
        )
        ready = Event()
        Thread(target=self._follow, args=(self._process, ready), daemon=True).start()
        if not ready.wait(LIMIT) or self.port < 0:
            raise AssertionError("nats-server did not start")

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def url(self, stream: str = "METRICS") -> str:
        """Return the URL of a stream."""
        return f"nats://127.0.0.1:{self.port}/{stream}"

    def _follow(self, process: Popen[str], ready: Event) -> None:
        assert process.stderr is not None
        with process.stderr as log:
            for line in log:
                if match := _LISTENING.search(line):
                    self.port = int(match[1])
                if "Server is ready" in line:
                    ready.set()
        ready.set()


def change_streams(broker: NatsServer, change: Callable[[Any], Awaitable[Any]]) -> Deferred[None]:
    """Change the streams of a broker, as another program."""

    import nats

    async def connect() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{broker.port}")
        await change(client.jetstream())
        await client.close()

    return deferToThread(lambda: asyncio.run(connect()))
