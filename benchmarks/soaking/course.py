"""
The course of a soak: starts, stops and kills processes, and collects the evidence.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from suite.peers import Peer, python

from soaking import plan
from soaking.checks import FEWEST, Evidence, Sample

LOOK_INTERVAL = 1.0
"""The seconds between two samples of the server's state."""

SHOW_INTERVAL = 60.0
"""The seconds between two printed states."""

END = 120.0
"""The maximum number of seconds for the server, and then for each crowd, to finish."""

BLOCK_BITS = 8
"""The size of a block of addresses, in bits: enough for a crowd that is killed."""

LARGE = 1 << 10
"""The number of blocks for a crowd that stays to the end."""


class Course:
    """
    One run, from the start of the first process to the end of the last.

    @ivar evidence: the evidence so far.
    """

    def __init__(self, seed: int, seconds: float) -> None:
        """
        @param seconds: the number of seconds for which events are recorded.
        """
        self._seed = seed
        self._seconds = seconds
        self.evidence = Evidence(warm_up=min(max(20.0, seconds / 4), 600.0, seconds / 2))
        self._processes = ExitStack()
        self._crowds: list[Peer] = []
        self._blocks = 0
        self._began: float | None = None

    def run(self) -> None:
        """
        @raise PeerError: the server failed.
        """
        with self._processes:
            self._start()
            try:
                self._run_until_end()
            except KeyboardInterrupt:
                print("interrupted: ending early", flush=True)
            self._end()

    def _start(self) -> None:
        self._server: Peer = self._processes.enter_context(
            Peer([*python("soaking.server"), str(self._seed)])
        )
        self._crowds.append(self._crowd("steady", witnesses=len(plan.MANNERS)))
        self._stopped = self._crowd("stopped", witnesses=1, places=2)
        self._crowds += [self._stopped, self._crowd("guests", places=6)]
        self._until_connected(len(plan.MANNERS) + 1)
        self._server.ask("record")
        self._began = time.monotonic()
        for crowd in self._crowds:
            crowd.ask("come")

    def _run_until_end(self) -> None:
        # Each generator acts, and yields the number of seconds until its next action.
        pending = [(0.0, one) for one in (self._look(), self._stop_and_continue(), self._kill())]
        while True:
            pending.sort(key=lambda one: one[0])
            at, actor = pending.pop(0)
            if at >= self._seconds:
                return
            time.sleep(max(0.0, at - self._now()))
            delay = next(actor)
            pending.append((self._now() + delay, actor))

    def _look(self) -> Iterator[float]:
        shown = 0.0
        while True:
            stats = self._sample(self._server.ask("look"))
            if self._now() - shown >= SHOW_INTERVAL:
                shown = self._now()
                print(
                    f"{shown / 60:.0f} of {self._seconds / 60:g} min, {len(stats['clients'])} of"
                    f" {stats['connected']:,} clients, {stats['recorded']:,} events recorded,"
                    f" {stats['resident'] / 1e6:.1f} MB",
                    flush=True,
                )
            yield LOOK_INTERVAL

    def _stop_and_continue(self) -> Iterator[float]:
        for after, seconds in plan.strikes(self._seed, "stop"):
            yield after
            self._stopped.signal(signal.SIGSTOP)
            yield seconds
            self._stopped.signal(signal.SIGCONT)

    def _kill(self) -> Iterator[float]:
        for number, (after, _) in enumerate(plan.strikes(self._seed, "kill")):
            with self._crowd(f"mortal {number}", places=3, blocks=1) as mortal:
                mortal.ask("come")
                yield after
                self.evidence.reports += mortal.ask("reports")["reports"]
            self.evidence.killed += 1

    def _end(self) -> None:
        """Stop the server while all clients read to the end of the stream."""
        if self._now() >= self.evidence.warm_up:
            # A busy host may have taken too few samples.
            while len(self.evidence.warm) < FEWEST:
                time.sleep(LOOK_INTERVAL)
                self._sample(self._server.ask("look"))
        self._stopped.signal(signal.SIGCONT)
        finishing = sum(crowd.ask("finish")["finishing"] for crowd in self._crowds)
        # The server needs up to two seconds to detect disconnected clients and accept new ones.
        self._until_connected(finishing)
        quiet = self._server.ask("quiet")
        self.evidence.recorded = quiet["recorded"]
        self.evidence.exact_totals = quiet["exact_totals"]
        self.evidence.descriptions = quiet["descriptions"]
        self._sample(self._server.ask("stop", timeout=END))
        for crowd in self._crowds:
            self.evidence.reports += crowd.ask("reports", timeout=END)["reports"]

    def _crowd(self, name: str, witnesses: int = 0, places: int = 0, blocks: int = LARGE) -> Peer:
        first = (self._blocks + 1) << BLOCK_BITS
        self._blocks += blocks
        arguments = (self._server.greeting["port"], self._seed, name, first, witnesses, places)
        crowd = Peer([*python("soaking.crowd"), *map(str, arguments)])
        self._processes.push(crowd.__exit__)
        return crowd

    def _now(self) -> float:
        """Return the seconds since recording began."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _sample(self, stats: dict[str, Any]) -> dict[str, Any]:
        self.evidence.accounts += stats.pop("gone")
        self.evidence.samples.append(Sample(self._now(), stats))
        return stats

    def _until_connected(self, clients: int) -> None:
        """Sample the server until it has this number of clients, for at most 20 seconds."""
        deadline = time.monotonic() + 20
        while (found := len(self._sample(self._server.ask("look"))["clients"])) != clients:
            if time.monotonic() > deadline:
                self.evidence.troubles.append(f"{found} clients are connected, not {clients}")
                return
            time.sleep(0.1)
