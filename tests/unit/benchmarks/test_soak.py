"""
The soak in benchmarks/: each check detects violations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice, repeat
from random import Random

from soaking import plan
from soaking.checks import CERTAIN, Evidence, Sample, fit, judge
from soaking.server import Server, Watched
from soaking.tally import MANY, Tally, stamp
from twisted.trial.unittest import SynchronousTestCase

from tests.reader import FakeClient
from txmetrics_tcp import Key, Metadata, Metric, MetricKind, MetricsService, Operation
from txmetrics_tcp._codec.encoder import encode_metric
from txmetrics_tcp._codec.wire import (
    encode_gone,
    encode_metadata,
    encode_snapshot,
    encode_status,
)
from txmetrics_tcp._model import Gone, Snapshot, Status
from txmetrics_tcp.testing import FakeReactor

MB = 1_000_000


def account(address: str, **more: int) -> dict[str, object]:
    """Return the server's account of a client that received 90 of 100 events."""
    figures = {
        "recorded": 100,
        "dropped_incoming": 6,
        "dropped_client": 4,
        "written": 90,
        "discarded": 0,
        "waiting": 0,
        "repairs": 2,
        "high_water": 10,
        "bytes_written": 5000,
    }
    return {"address": address, **figures, **more}


def report(address: str, **more: object) -> dict[str, object]:
    """Return the report of the same client, which was connected from the beginning to the end."""
    return {
        "address": address,
        "manner": "reads",
        "witness": True,
        "ended": True,
        "error": None,
        "received": 5000,
        "events": 90,
        "gone": 4,
        "unfinished": 0,
        "reported": [[6, 4]],
        "fewer": 0,
        # First, next, missing, out of order.
        "numbers": {"a": [2, 58, 6, 0], "b": [0, 36, 0, 0]},
        "descriptions": {"soak_phase_a": "phase 3"},
        "totals": {"soak_counter [by = a]": 1234, "left": 1},
        **more,
    }


def stats(seconds: float, resident: float, **more: object) -> Sample:
    """Return a sample of the server with two connected clients."""
    figures: dict[str, object] = {
        "resident": resident,
        "descriptors": 13,
        "connections": 2,
        "clients": [account("127.0.1.0:1"), account("127.0.1.1:1")],
        "recorded": 100,
        "released": 4,
        "dropped_incoming": 6,
        "waiting": 0,
        "connected": 3,
        "written": 220,
        "dropped_client": 10,
        "repairs": 6,
        "bytes_written": 15_000,
    }
    return Sample(seconds, {**figures, **more})


def evidence() -> Evidence:
    """Return the evidence of a run without violations."""
    noise = Random(1)
    return Evidence(
        warm_up=20,
        samples=[
            # Memory grows during the warm-up.
            *(stats(t, (30 + min(t, 20)) * MB + noise.gauss(0, MB / 20)) for t in range(80)),
            stats(81, 50 * MB, clients=[], connections=0, descriptors=10),
        ],
        accounts=[
            account("127.0.1.0:1"),
            account("127.0.1.1:1"),
            account("127.0.1.2:1", written=40, dropped_client=2, discarded=52),
        ],
        reports=[
            report("127.0.1.0:1"),
            report(
                "127.0.1.1:1",
                witness=False,
                # A late client, which cannot know its losses before number 25 of this recorder.
                numbers={"a": [25, 60, 8, 0], "b": [0, 36, 0, 0]},
                gone=2,
            ),
            report(
                "127.0.1.2:1", witness=False, ended=False, events=30, reported=[[1, 0]], totals={}
            ),
        ],
        recorded={"a": 60, "b": 36},
        exact_totals={"soak_counter [by = a]": 1234},
        descriptions={"soak_phase_a": "phase 3"},
    )


Tamper = Callable[[Evidence], object]


def reported(index: int, **more: object) -> Tamper:
    """Change the report of a client."""

    def tamper(found: Evidence) -> None:
        found.reports[index] = {**found.reports[index], **more}

    return tamper


def booked(index: int, **more: object) -> Tamper:
    """Change the server's account of a client."""

    def tamper(found: Evidence) -> None:
        found.accounts[index] = {**found.accounts[index], **more}

    return tamper


def seen(**more: object) -> Tamper:
    """Add a sample with another state, before the end."""
    return lambda found: found.samples.insert(-1, stats(80, 50 * MB, **more))


def ended(**more: object) -> Tamper:
    """Change the last sample."""

    def tamper(found: Evidence) -> None:
        last = found.samples[-1]
        found.samples[-1] = Sample(last.at, {**last.stats, **more})

    return tamper


def leaks(found: Evidence) -> None:
    """Let the server's memory grow by 3 MB a minute."""
    for number, sample in enumerate(found.samples):
        resident = sample.stats["resident"] + sample.at * MB / 20
        found.samples[number] = Sample(sample.at, {**sample.stats, "resident": resident})


WRONG: list[tuple[str, str, Tamper]] = [
    ("processes", "died", lambda found: found.troubles.append("a process died")),
    ("frames", "StreamError: no event", reported(0, error="StreamError: no event")),
    ("frames", "within a frame, after 3 bytes", reported(0, unfinished=3)),
    (
        "accounts",
        "100 recorded, but 6 dropped_incoming + 3 dropped_client",
        booked(2, dropped_client=3),
    ),
    (
        "accounts",
        "127.0.9.9:1 after 80 s: 101 recorded",
        seen(clients=[account("127.0.9.9:1", recorded=101)]),
    ),
    (
        "accounts",
        "is 100, but the recorders and released series counted 101",
        lambda found: found.recorded.update(b=37),
    ),
    ("accounts", "written is 221, but", ended(written=221)),
    ("accounts", "repairs is 5, but", ended(repairs=5)),
    ("accounts", "connected is 4", ended(connected=4)),
    ("accounts", "waiting is 1", ended(waiting=1)),
    ("accounts", "disconnected with 1 pending", booked(2, written=39, waiting=1)),
    ("accounts", "events is 89, but written is 90", reported(0, events=89)),
    ("accounts", "events is 41, but written is 40", reported(2, events=41)),
    ("accounts", "received is 5001", reported(0, received=5001)),
    ("accounts", "the server has no account", reported(0, address="127.9.9.9:1")),
    ("accounts", "the same address", lambda found: found.accounts.append(account("127.0.1.0:1"))),
    (
        "gaps",
        "losses of (6, 3) were reported, but (6, 4) counted",
        reported(0, reported=[[6, 3]]),
    ),
    ("gaps", "90 of 90 recorded events were received, but losses of 10", booked(0, recorded=90)),
    (
        "gaps",
        "9 numbers are missing, but losses of 10",
        reported(0, numbers={"a": [2, 58, 5, 0], "b": [0, 36, 0, 0]}),
    ),
    ("gaps", "46 numbers are missing", reported(0, numbers={"a": [2, 58, 6, 0]})),
    ("gaps", "11 numbers are missing, but losses of 10", reported(0, gone=3)),
    (
        "gaps",
        "11 numbers are missing",
        reported(1, numbers={"a": [25, 60, 11, 0], "b": [0, 36, 0, 0]}),
    ),
    ("gaps", "2 events of b arrived twice", reported(2, numbers={"b": [0, 40, 0, 2]})),
    ("gaps", "fewer losses were reported than before", reported(2, fewer=1)),
    ("gaps", "9 losses were reported, but 8 counted", reported(2, reported=[[6, 3]])),
    ("gaps", "never reported", reported(0, reported=[])),
    (
        "totals",
        "soak_counter [by = a] is 1234 instead of 1235",
        lambda found: found.exact_totals.update({"soak_counter [by = a]": 1235}),
    ),
    ("totals", "other is None instead of 1", lambda found: found.exact_totals.update(other=1)),
    (
        "totals",
        "the description of soak_phase_a is 'phase 3' instead of 'phase 4'",
        lambda found: found.descriptions.update(soak_phase_a="phase 4"),
    ),
    ("totals", "no client was connected", lambda found: found.reports.clear()),
    ("totals", "the program has no totals", lambda found: found.exact_totals.clear()),
    ("memory", "memory grew by at least 2.", leaks),
    ("memory", "cannot fit a line", lambda found: setattr(found, "warm_up", 90)),
    ("descriptors", "14 descriptors were open besides those of 2", seen(descriptors=16)),
    ("descriptors", "at the end, 11 descriptors", ended(descriptors=11)),
]


class CheckTests(SynchronousTestCase):
    def violations(self, found: Evidence) -> dict[str, list[str]]:
        return {finding.what: finding.violations for finding in judge(found)}

    def test_noViolations(self) -> None:
        self.assertEqual(
            self.violations(evidence()),
            {
                what: []
                for what in (
                    *("processes", "frames", "accounts", "gaps", "totals", "memory"),
                    "descriptors",
                )
            },
        )

    def test_connectionBeforeItsStream(self) -> None:
        """A client whose stream has not begun has a descriptor and no account."""
        found = evidence()
        seen(descriptors=14, connections=3)(found)
        self.assertEqual(self.violations(found)["descriptors"], [])

    def test_violations(self) -> None:
        """Each check reports the violation in tampered evidence, with a message."""
        for what, text, tamper in WRONG:
            found = evidence()
            tamper(found)
            violations = self.violations(found)[what]
            self.assertTrue(any(text in one for one in violations), (what, text, violations))

    def test_noSamples(self) -> None:
        """If the server did not start, no other violation is reported."""
        found = Evidence(warm_up=20, troubles=["suite.server: exit status 1"])
        self.assertEqual(self.violations(found), {"processes": ["suite.server: exit status 1"]})


class FitTests(SynchronousTestCase):
    def samples(self, rate: float, noise: float, count: int = 600) -> list[tuple[float, float]]:
        random = Random(1)
        return [(float(t), 100 + rate * t + random.gauss(0, noise)) for t in range(count)]

    def test_exact(self) -> None:
        rate, error = fit(self.samples(2.5, 0))
        self.assertAlmostEqual(rate, 2.5)
        self.assertAlmostEqual(error, 0)

    def test_noise(self) -> None:
        """Noise does not count as growth, and does not hide growth."""
        rate, error = fit(self.samples(0, 10))
        self.assertLess(abs(rate), CERTAIN * error)
        rate, error = fit(self.samples(0.1, 10))
        self.assertGreater(rate, CERTAIN * error)
        self.assertLess(abs(rate - 0.1), CERTAIN * error)

    def test_dependentSamples(self) -> None:
        """Runs of equal samples count once, so a few steps do not count as growth."""
        steps = [Random(number // 100).gauss(0, 10) for number in range(600)]
        rate, error = fit(list(enumerate(steps)))
        self.assertLess(rate, CERTAIN * error)

    def test_too_few(self) -> None:
        self.assertRaises(ValueError, fit, self.samples(0, 0, 2))
        fit(self.samples(1, 0, 3))


class TallyTests(SynchronousTestCase):
    def event(
        self,
        number: int,
        operation: Operation = Operation.RECORD_HISTOGRAM,
        name: str = "h",
        reactor: bool = False,
    ) -> bytes:
        key = Key(operation.kind, name, (("by", "a"),))
        return encode_metric(Metric(key, operation, number, stamp(10**18, reactor=reactor)))

    def tally(self, *pieces: bytes) -> Tally:
        tally = Tally()
        for piece in pieces:
            tally.feed(piece)
        return tally

    def numbers(self, pieces: Iterable[bytes]) -> tuple[int, int, int, int]:
        [numbers] = self.tally(*pieces).report()["numbers"].values()
        return tuple(numbers)  # type: ignore[return-value]

    def test_gaps(self) -> None:
        self.assertEqual(self.numbers(map(self.event, (3, 4, 7, 8, 10))), (3, 11, 3, 0))

    def test_disorder(self) -> None:
        """A repeated or late number counts as disorder, not as a gap."""
        self.assertEqual(self.numbers(map(self.event, (0, 1, 1, 2)))[3], 1)
        self.assertEqual(self.numbers(map(self.event, (0, 2, 1)))[3], 1)

    def test_many(self) -> None:
        """Each sample of C{record_many} counts as a number.  Missing samples are counted."""

        def many(number: int) -> bytes:
            return self.event(number, name=MANY)

        self.assertEqual(
            self.numbers([self.event(0), many(1), many(1), many(1), self.event(4)]), (0, 5, 0, 0)
        )
        self.assertEqual(self.numbers([self.event(0), many(1), self.event(4)]), (0, 5, 2, 0))
        self.assertEqual(self.numbers([many(1), self.event(4), many(5)])[1:], (6, 2, 0))

    def test_totals(self) -> None:
        """The timestamp of a set operation distinguishes events from totals."""
        counter = Operation.SET_COUNTER
        tally = self.tally(
            self.event(5, counter, "c"), self.event(1000, counter, "c", reactor=True)
        )
        self.assertEqual(tally.events, 1)
        self.assertEqual(tally.report()["numbers"], {"a": (5, 6, 0, 0)})
        self.assertEqual(tally.totals(), {"c [by = a]": 1000})
        increment = self.tally(self.event(5, Operation.INCREMENT_COUNTER, "c", reactor=True))
        self.assertEqual(increment.events, 1)

    def test_reportedLosses(self) -> None:
        def status(dropped: int) -> bytes:
            return encode_status(Status("s", 0, dropped, 0))

        tally = self.tally(status(0), status(5) + status(7))
        self.assertEqual((tally.fewer, tally.report()["reported"]), (0, [(7, 0)]))
        self.assertEqual(self.tally(status(5), status(4)).fewer, 1)
        self.assertEqual(self.tally(status(0) + status(5) + status(4)).fewer, 1)

    def test_descriptions(self) -> None:
        def described(text: str) -> bytes:
            return encode_metadata(Metadata(MetricKind.COUNTER, "c", None, text))

        tally = self.tally(described("old"), described("new"))
        self.assertEqual(tally.report()["descriptions"], {"c": "new"})

    def test_keepsNoEvents(self) -> None:
        """Events are not kept, since an hour of events would not fit into memory."""
        gone = encode_gone(Gone(Key(MetricKind.GAUGE, "g")))
        snapshot = encode_snapshot(Snapshot.BEGIN) + encode_snapshot(Snapshot.END)
        tally = self.tally(*[self.event(number) + gone + snapshot for number in range(100)])
        reader = tally.reader
        self.assertEqual((reader.all, reader.events, reader.gone, reader.snapshots), ([],) * 4)
        self.assertEqual((tally.events, tally.gone), (200, 100))


class PlanTests(SynchronousTestCase):
    def decisions(self, seed: int) -> list[object]:
        return [
            list(islice(plan.lives(seed, "guests", 1), 50)),
            list(islice(plan.phases(seed, "a"), 50)),
            list(islice(plan.strikes(seed, "kill"), 50)),
            list(islice(plan.send_buffers(seed), 50)),
            [plan.witness(seed, manner) for manner in plan.MANNERS],
        ]

    def test_seed(self) -> None:
        """The same seed gives the same decisions, another seed others."""
        self.assertEqual(self.decisions(1), self.decisions(1))
        for one, other in zip(self.decisions(1), self.decisions(2), strict=True):
            self.assertNotEqual(one, other)

    def test_independentActors(self) -> None:
        first = list(islice(plan.lives(1, "guests", 1), 5))
        self.assertNotEqual(first, list(islice(plan.lives(1, "guests", 2), 5)))

    def test_variety(self) -> None:
        """The plan includes all ways of reading and leaving, and all kinds of phases."""
        lives = list(islice(plan.lives(1, "guests", 1), 100))
        self.assertEqual({life.manner for life in lives}, set(plan.MANNERS))
        self.assertEqual({life.departure for life in lives}, set(plan.DEPARTURES))
        rates = [phase.rate for phase in islice(plan.phases(1, "a"), 100)]
        self.assertIn(None, rates)
        self.assertIn(0, rates)


class ServerTests(SynchronousTestCase):
    def test_connectionBeforeItsStream(self) -> None:
        """A client whose stream has not begun counts as a connection."""
        self.patch(plan, "send_buffers", lambda seed: repeat(None))
        reactor = FakeReactor()
        factory = Watched(reactor, 1)
        server = Server(factory, MetricsService(factory, []), 1)
        seen = []

        def look() -> None:
            stats = server.look_here()
            seen.append((stats["connections"], len(stats["clients"]), len(stats["gone"])))

        client = FakeClient(factory)
        look()
        client.read_all(reactor)
        look()
        client.transport.lose()
        look()
        self.assertEqual(seen, [(1, 0, 0), (1, 1, 0), (0, 0, 1)])
