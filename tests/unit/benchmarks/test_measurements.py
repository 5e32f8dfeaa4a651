"""
The measurements of benchmarks/suite, with fake servers and clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from suite import latency, lossless, own_metrics, peers
from suite.bench import SUBJECTS, Bench
from suite.figures import OURS, REACTOR, REFERENCE
from suite.peers import PeerError
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import ExporterSettings


class FakePeers:
    """
    Starts one fake server, whose clients lose events.

    @ivar recorded: the options of all recordings.
    @ivar server_answers: the accounts of the client, one for each question.
    """

    rust = True

    def __init__(self, lost: Sequence[int] = (), corrupt: Sequence[str] = ()) -> None:
        self.recorded: list[dict[str, float]] = []
        self.server_answers: list[dict[str, Any]] = []
        self._lost = iter(lost)
        self._corrupt = corrupt

    @contextmanager
    def session(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        yield SimpleNamespace(
            record=self.record,
            losses=self._lost.__next__,
            corrupt=self._corrupt,
            wait_for_all=lambda: None,
            reader=SimpleNamespace(ask=lambda word: {"p50": 1000 * len(self.recorded)}),
        )

    @contextmanager
    def server(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        yield SimpleNamespace(
            port=1, record=self.record, ask=lambda word: {"clients": [self.server_answers.pop(0)]}
        )

    @contextmanager
    def reader(self, port: int, clients: int) -> Iterator[None]:
        yield

    def record(self, **how: float) -> dict[str, Any]:
        self.recorded.append(how)
        return {"recorded": 1000, "seconds": 0.5}


def context(fake: Any, quick: bool = False) -> Bench:
    return Bench(fake, quick, 20.0, {})


class BenchTests(SynchronousTestCase):
    def test_subjects(self) -> None:
        """A quick run has fewer subjects; without Rust, there is no reference."""
        fake = FakePeers()
        for quick, rust, names in (
            (False, True, [OURS, REACTOR, REFERENCE]),
            (True, True, [OURS, REFERENCE]),
            (False, False, [OURS, REACTOR]),
        ):
            fake.rust = rust
            (samples,) = context(fake, quick).alternate(2, lambda subject: (1.0,))
            self.assertEqual(list(samples), names)


class PeersTests(SynchronousTestCase):
    def test_max_delay(self) -> None:
        """The process of the server receives the setting; the default is the library's."""
        self.patch(peers, "Server", lambda ours, arguments: arguments)
        for options, argument in (({"max_delay": 0}, "0"), ({}, str(ExporterSettings().max_delay))):
            command: Any = peers.Peers(None).server(True, 1024, **options)
            self.assertEqual(command[-1], argument)


class LosslessTests(SynchronousTestCase):
    def test_lost_share(self) -> None:
        """The lost share is that of the events of all clients; the rate is the achieved one."""
        bench = context(FakePeers([500]))
        self.assertEqual(lossless.attempt(bench, SUBJECTS[0], 10, 4000), (2000, 5))

    def test_second_attempt(self) -> None:
        """A rate is too high if two attempts lose events."""
        for lost, reached in (([0], 2000), ([1, 0], 2000), ([1, 1], None)):
            bench = context(FakePeers(lost))
            self.assertEqual(lossless.without_loss(bench, SUBJECTS[0], 1, 4000), reached)

    def test_corrupt(self) -> None:
        """A corrupt stream is a loss, even if every event was read before."""
        bench = context(FakePeers([0, 0], ["client 0: not an event"]))
        self.assertIsNone(lossless.without_loss(bench, SUBJECTS[2], 1, 4000))


class LatencyTests(SynchronousTestCase):
    def test_quiet_time(self) -> None:
        """Between two events of a subject, at least a second passes, in which the others record."""
        for quick, count in ((False, 3), (True, 2)):
            fake = FakePeers()
            samples = latency.after_quiet(context(fake, quick))
            self.assertEqual(len(samples), count)
            turns = fake.recorded[:count]
            self.assertAlmostEqual(sum(2 * how["tick_us"] / 1e6 for how in turns), 1)
            for how in turns:
                self.assertEqual(how["count"], 1)
                self.assertAlmostEqual(how["rate"] * how["tick_us"] / 1e6, 1)
            # The first turn of each subject is not used.
            self.assertEqual(samples[OURS][0], count + 1)


class OwnMetricsTests(SynchronousTestCase):
    def account(self, written: int, waiting: int = 0, dropped: int = 0) -> dict[str, int]:
        return {
            "written": written,
            "waiting": waiting,
            "dropped_incoming": 0,
            "dropped_client": dropped,
        }

    def test_share(self) -> None:
        """Of 1,250 events that were written or are pending, 1,000 are the program's."""
        fake = FakePeers()
        fake.server_answers = [{}, self.account(100, 20), self.account(1360, 10)]
        self.assertAlmostEqual(own_metrics.share(context(fake)), 20)

    def test_dropped(self) -> None:
        fake = FakePeers()
        fake.server_answers = [{}, self.account(100, dropped=1)]
        self.assertRaises(PeerError, own_metrics.share, context(fake))
