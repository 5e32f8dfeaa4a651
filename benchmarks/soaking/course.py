"""
The course of a soak: when processes start, what happens to them, and what is found on the way.
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
"""How often, in seconds, the server is asked for its state."""

SHOW_INTERVAL = 60.0
"""How often, in seconds, it is printed."""

END = 120.0
"""How many seconds the server, and then the clients, may take at the end."""

BLOCK_BITS = 8
"""Addresses are given out in blocks of so many bits: enough for the clients of a short life."""

LARGE = 1 << 10
"""How many of these blocks a crowd has that stays to the end."""


class Course:
    """
    One run, from the start of the first process to the end of the last.

    @ivar evidence: what was found so far.
    """

    def __init__(self, seed: int, seconds: float) -> None:
        """
        @param seconds: for how long events are recorded.
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
                self._go_on()
            except KeyboardInterrupt:
                print("interrupted: this is the end", flush=True)
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

    def _go_on(self) -> None:
        """Everything that happens until the end."""
        # Each does a thing, and gives after how many seconds it does the next.
        pending = [(0.0, one) for one in (self._look(), self._stop_and_continue(), self._kill())]
        while True:
            pending.sort(key=lambda one: one[0])
            at, happening = pending.pop(0)
            if at >= self._seconds:
                return
            time.sleep(max(0.0, at - self._now()))
            delay = next(happening)
            pending.append((self._now() + delay, happening))

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
        """All clients read to the end of the stream, and the server is stopped."""
        if self._now() >= self.evidence.warm_up:
            # On a busy host there may be too few samples.
            while len(self.evidence.warm) < FEWEST:
                time.sleep(LOOK_INTERVAL)
                self._sample(self._server.ask("look"))
        self._stopped.signal(signal.SIGCONT)
        finishing = sum(crowd.ask("finish")["finishing"] for crowd in self._crowds)
        # Those that have left are noticed within two seconds, those that have come are accepted.
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
        """How many seconds ago recording began."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _sample(self, stats: dict[str, Any]) -> dict[str, Any]:
        self.evidence.accounts += stats.pop("gone")
        self.evidence.samples.append(Sample(self._now(), stats))
        return stats

    def _until_connected(self, clients: int) -> None:
        """Sample the server until it has so many clients, for a while."""
        deadline = time.monotonic() + 20
        while (found := len(self._sample(self._server.ask("look"))["clients"])) != clients:
            if time.monotonic() > deadline:
                self.evidence.troubles.append(f"{found} clients are connected, not {clients}")
                return
            time.sleep(0.1)
