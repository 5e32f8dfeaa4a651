"""
The course of a soak: who is started when, what happens to them, and what is found on the way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from suite.peers import Peer, PeerError, python

from soaking import plan
from soaking.checks import Evidence, Sample
from soaking.processes import Crowd
from soaking.progress import Progress
from soaking.slope import FEWEST

LOOK_INTERVAL = 1.0
"""How often, in seconds, the server is looked at."""

END = 120.0
"""How many seconds the server, and then the clients, may take at the end."""

BLOCK_BITS = 8
"""Addresses are given out in blocks of so many bits: enough for the clients of a short life."""

LARGE = 1 << 10
"""How many of these blocks a crowd gets that is there to the end."""


class Course:
    """
    One run, from the start of the first process to the end of the last.

    @ivar evidence: what was found so far.
    """

    def __init__(self, seed: int, seconds: float, progress: Progress) -> None:
        """
        @param seconds: for how long things are recorded.
        """
        self._seed = seed
        self._seconds = seconds
        self._progress = progress
        self.evidence = Evidence(warm_up=min(max(20.0, seconds / 4), 600.0, seconds / 2))
        self._processes = ExitStack()
        self._crowds: list[Crowd] = []
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
                self._progress.line("interrupted: this is the end")
            finally:
                self._progress.clear()
            self._end()

    def _start(self) -> None:
        self._server: Peer = self._processes.enter_context(
            Peer([*python("soaking.server"), str(self._seed)])
        )
        self._steady = self._crowd("steady", witnesses=len(plan.MANNERS))
        self._stopped = self._crowd("stopped", witnesses=1, places=2)
        self._guests = self._crowd("guests", places=6)
        witnesses = len(plan.MANNERS) + 1
        self._until(lambda stats: len(stats["clients"]) == witnesses, "witnesses are not all there")
        self._server.ask("record")
        self._began = time.monotonic()
        for crowd in self._crowds:
            crowd.next()

    def _go_on(self) -> None:
        """Everything that happens until the end."""
        # Each does a thing, and says after how many seconds it does the next.
        waiting = [(0.0, one) for one in (self._look(), self._stop_and_go_on(), self._kill())]
        while True:
            waiting.sort(key=lambda one: one[0])
            at, happening = waiting.pop(0)
            if at >= self._seconds:
                return
            time.sleep(max(0.0, at - self._now()))
            delay = next(happening)
            waiting.append((self._now() + delay, happening))

    def _look(self) -> Iterator[float]:
        while True:
            stats = self._sample()
            self._progress.update(self._state(stats))
            yield LOOK_INTERVAL

    def _stop_and_go_on(self) -> Iterator[float]:
        for strike in plan.strikes(self._seed, "stop"):
            yield strike.after
            self._stopped.stop()
            yield strike.seconds
            self._stopped.go_on()

    def _kill(self) -> Iterator[float]:
        for number, strike in enumerate(plan.strikes(self._seed, "kill")):
            mortal = self._crowd(f"mortal {number}", places=3)
            mortal.next()
            yield strike.after
            self._crowds.remove(mortal)
            self._keep(mortal)
            mortal.kill()
            self.evidence.killed += 1

    def _end(self) -> None:
        """Everybody reads to the end; then the books are closed."""
        if self._now() >= self.evidence.warm_up:
            # A machine that was busy may have let it look too rarely.
            while len(self.evidence.warm) < FEWEST:
                time.sleep(LOOK_INTERVAL)
                self._sample()
        self._stopped.go_on()
        for crowd in self._crowds:
            crowd.next()
        deadline = time.monotonic() + END
        while any(crowd.finishing is None for crowd in self._crowds):
            for crowd in self._crowds:
                if crowd.finishing is None and (crowd.ended or time.monotonic() > deadline):
                    raise PeerError(f"the clients of {crowd.name} do not end: {crowd.trouble(0)}")
            time.sleep(0.05)
        # Who has gone is dropped within two seconds, who has come is accepted.
        present = sum(crowd.finishing or 0 for crowd in self._crowds)
        self._until(
            lambda stats: len(stats["clients"]) == present, f"clients are connected, not {present}"
        )
        quiet = self._server.ask("quiet")
        self.evidence.recorded = quiet["recorded"]
        self.evidence.truth = quiet["truth"]
        self.evidence.descriptions = quiet["descriptions"]
        self._add_sample(self._server.ask("stop", timeout=END))
        for crowd in self._crowds:
            trouble = crowd.trouble(END)
            if trouble is not None:
                self.evidence.troubles.append(trouble)
            self._keep(crowd)

    def _crowd(self, name: str, witnesses: int = 0, places: int = 0) -> Crowd:
        first = (self._blocks + 1) << BLOCK_BITS
        # Those that go on to the end need more addresses than those that are killed.
        self._blocks += 1 if name.startswith("mortal") else LARGE
        crowd = Crowd(self._server.greeting["port"], self._seed, name, first, witnesses, places)
        self._processes.callback(crowd.kill)
        self._crowds.append(crowd)
        return crowd

    def _keep(self, crowd: Crowd) -> None:
        self.evidence.reports += crowd.reports
        crowd.reports = []

    def _now(self) -> float:
        """How many seconds ago recording began."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _sample(self) -> dict[str, Any]:
        return self._add_sample(self._server.ask("look"))

    def _add_sample(self, stats: dict[str, Any]) -> dict[str, Any]:
        self.evidence.accounts += stats.pop("gone")
        self.evidence.samples.append(Sample(self._now(), stats))
        return stats

    def _until(self, condition: Callable[[dict[str, Any]], bool], otherwise: str) -> None:
        """Look at the server until something holds; for a while."""
        deadline = time.monotonic() + 20
        while not condition(stats := self._sample()):
            if time.monotonic() > deadline:
                self.evidence.troubles.append(f"{len(stats['clients'])} {otherwise}")
                return
            time.sleep(0.1)

    def _state(self, stats: dict[str, Any]) -> str:
        minutes, seconds = divmod(int(self._now()), 60)
        return (
            f"{minutes}:{seconds:02} of {self._seconds / 60:g} min"
            f"  {len(stats['clients'])} of {stats['connected']:,} clients"
            f"  {stats['recorded'] / 1e6:.2f} M recorded"
            f"  {stats['written'] / 1e6:.2f} M written"
            f"  {(stats['dropped_by_clients'] + stats['dropped']) / 1e6:.2f} M dropped"
            f"  {stats['resident'] / 1e6:.1f} MB"
        )
