"""
``metrics-tcp replay``: serve a recording to clients.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.exposure import audience
from txmetrics_tcp._net.internals import keep_others_file
from txmetrics_tcp._recording.events import Piece, Recording
from txmetrics_tcp._recording.replay import ReplayFactory
from txmetrics_tcp._view.numbers import show_duration, show_seconds, show_share
from txmetrics_tcp._view.text import counted
from txmetrics_tcp.cli.messages import cannot_listen
from txmetrics_tcp.cli.output import say
from txmetrics_tcp.cli.progress import Progress
from txmetrics_tcp.cli.runner import Running


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._options = options
        self._reactor = reactor
        self._endpoint = server_endpoint(reactor, options.listen)
        self._recording = Recording(options.file)
        self._port: IListeningPort | None = None
        self._progress = Progress(reactor, self._progress_text)
        self._running = Running(reactor, self._finish, self._recording.cancel)
        self._factory = ReplayFactory(
            reactor,
            self._read,
            self._finished,
            speed=options.speed,
            loop=options.loop,
            say=self._progress.say,
        )

    def run(self) -> int:
        with closing(self._recording):
            return self._running.run(self._start)

    def _start(self) -> Any:
        listening = maybeDeferred(self._endpoint.listen, self._factory)
        return listening.addCallbacks(self._listening, self._not_listening)

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        keep_others_file(port, self._endpoint)
        address = port.getHost()
        where = show_address(address)
        say(f"{self._options.file} is served on {where}; waiting for the first client")
        if who := audience(address):
            say(f"{who} can read the recording")
        self._progress.start()

    def _not_listening(self, reason: Failure) -> None:
        say(cannot_listen(self._options.listen, reason))
        self._running.stop(1)

    def _read(self) -> Iterable[Piece]:
        # With --loop, a damaged recording is played once.
        return () if self._recording.report(self._progress.say) else self._recording

    def _finished(self) -> None:
        """Handle the end of the replay."""
        self._progress.stop()
        exit_code = self._recording.report(say)
        say(
            f"replayed {counted(self._factory.stream_state.metrics, 'event')},"
            f" {show_seconds(self._recording.seconds)} of recording"
        )
        self._running.stop(exit_code)

    def _finish(self) -> Deferred[Any] | None:
        self._progress.stop()
        self._factory.stop()
        return None if self._port is None else maybeDeferred(self._port.stopListening)

    def _progress_text(self) -> str:
        factory = self._factory
        recording = self._recording
        text = (
            f"{show_duration(recording.seconds)} ({show_share(recording.progress)}),"
            f" {counted(factory.stream_state.metrics, 'event')}"
        )
        match len(factory.clients):
            case 0:
                return f"{text}, waiting for a client"
            case 1:
                return f"{text}, 1 client"
        slow = [client.address for client in factory.slow_clients]
        delay = f", waiting for {slow[0]}" if slow else ""
        return f"{text}, {len(factory.clients)} clients{delay}"


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
