"""
``metrics-tcp replay``: serve a recording, for any viewer to watch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from txmetrics_tcp._net.endpoints import server_endpoint, show_address
from txmetrics_tcp._net.exposure import audience
from txmetrics_tcp._recording.blocks import RecordingError
from txmetrics_tcp._recording.reader import Chunk, RecordingReader
from txmetrics_tcp._recording.replay import ReplayFactory
from txmetrics_tcp._view.numbers import show_duration
from txmetrics_tcp.cli.output import say
from txmetrics_tcp.cli.progress import Progress
from txmetrics_tcp.cli.runner import Running


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        """
        @raise EndpointError: the endpoint cannot be understood.
        """
        self._options = options
        self._reactor = reactor
        self._endpoint = server_endpoint(reactor, options.listen)
        self._file: BinaryIO
        self._reader: RecordingReader
        self._size = 0
        self._said = False
        self._first = True
        self._port: IListeningPort | None = None
        self._progress = Progress(reactor, self._how_far)
        self._running = Running(reactor, self._finish)
        self._factory = ReplayFactory(
            reactor,
            self._read,
            self._finished,
            speed=options.speed,
            loop=options.loop,
            say=self._progress.say,
        )

    def run(self) -> int:
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(open(self._options.file, "rb"))
                self._size = os.fstat(self._file.fileno()).st_size
                self._reader = RecordingReader.begun(self._file)
            except RecordingError as error:
                say(f"cannot replay {self._options.file}: {error}")
                return 1
            except OSError as error:
                say(f"cannot replay {self._options.file}: {error.strerror or error}")
                return 1
            return self._running.run(self._start)

    def _start(self) -> Any:
        listening = maybeDeferred(self._endpoint.listen, self._factory)
        return listening.addCallbacks(self._listening, self._not_listening)

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        address = port.getHost()
        say(f"{self._options.file} is served on {show_address(address)} when somebody connects")
        if who := audience(address):
            say(f"{who} can read it")
        self._progress.start()

    def _not_listening(self, reason: Failure) -> None:
        reason.trap(CannotListenError, OSError)
        error = reason.value
        why = error.socketError if isinstance(error, CannotListenError) else error
        say(f"cannot listen on {self._options.listen}: {why}")
        self._running.stop(1)

    def _read(self) -> Iterator[Chunk]:
        # The first time it has been begun already, to see what it is.
        first, self._first = self._first, False
        if not first:
            self._say_what_is_wrong()
            self._file.seek(0)
            self._reader = RecordingReader(self._file)
        return iter(self._reader)

    def _finished(self) -> None:
        """All is sent."""
        self._progress.stop()
        self._say_what_is_wrong()
        say(
            f"replayed {self._factory.standing.metrics:,} events,"
            f" {show_duration(self._reader.seconds)} of recording"
        )
        self._running.stop(1 if self._factory.damage or self._reader.damage else 0)

    def _say_what_is_wrong(self) -> None:
        reader = self._reader
        wrong = self._factory.damage or reader.damage
        if not wrong and reader.cut_off:
            where = f"within its last {reader.truncated} bytes, " if reader.truncated else ""
            wrong = f"it was cut off, {where}and is replayed up to its last whole event"
        if wrong and not self._said:
            self._said = True
            self._progress.say(f"{self._options.file}: {wrong}")

    def _finish(self) -> Deferred[Any] | None:
        self._progress.stop()
        self._factory.stop()
        return None if self._port is None else maybeDeferred(self._port.stopListening)

    def _how_far(self) -> str:
        factory = self._factory
        percent = self._reader.position * 100 // max(self._size, 1)
        far = (
            f"{show_duration(self._reader.seconds)} ({percent} %),"
            f" {factory.standing.metrics:,} events"
        )
        match len(factory.clients):
            case 0:
                return f"{far}, waiting for a client"
            case 1:
                return f"{far}, 1 client"
        slow = [client.address for client in factory.waits_for]
        behind = f", waiting for {slow[0]}" if slow else ""
        return f"{far}, {len(factory.clients)} clients{behind}"


def run(options: argparse.Namespace, reactor: Any) -> int:
    """
    @return: the exit code.
    @raise EndpointError: the endpoint cannot be understood.
    """
    return _Command(options, reactor).run()
