"""
Rate-limited logging of rejected clients.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.logs import log_lines
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp._net.log_throttle import INTERVAL, RejectionLog


class RejectionLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.logged = log_lines(self, log_throttle)
        self.clock = Clock()
        self.log = RejectionLog(self.clock)

    def taken(self) -> list[str]:
        logged, self.logged[:] = self.logged[:], []
        return logged

    def test_one(self) -> None:
        self.log.report("x:1", "arrived late")
        self.assertEqual(self.taken(), ["Rejected client x:1: arrived late"])
        self.clock.advance(INTERVAL)
        self.assertEqual((self.taken(), self.clock.getDelayedCalls()), ([], []))

    def test_many(self) -> None:
        """
        The first rejection is logged immediately, and further ones as a count after each interval.
        """
        for number in range(1000):
            self.log.report(f"x:{number}", "arrived late")
        self.assertEqual(len(self.taken()), 1)
        self.clock.advance(INTERVAL)
        self.assertEqual(
            self.taken(),
            ["Rejected 999 more clients: arrived late; the last was x:999"],
        )
        self.log.report("x:1000", "arrived late")
        self.assertEqual(self.taken(), [])
        self.clock.advance(INTERVAL)
        self.assertIn("Rejected 1 more client: ", self.taken()[0])
        self.clock.advance(INTERVAL)
        self.assertEqual((self.taken(), self.clock.getDelayedCalls()), ([], []))
        self.log.report("x:1001", "arrived late")
        self.assertIn("Rejected client x:1001: ", self.taken()[0])

    def test_reasons(self) -> None:
        """Each reason gets its own line."""
        self.log.report("x:1", "arrived late", ": by a year")
        self.log.report("x:2", "arrived early")
        self.log.report("x:3", "arrived late", ": by a day")
        self.assertEqual(
            self.taken(),
            [
                "Rejected client x:1: arrived late: by a year",
                "Rejected client x:2: arrived early",
            ],
        )

    def test_close(self) -> None:
        self.log.close()
        for _ in range(3):
            self.log.report("x:1", "arrived late")
        self.log.close()
        self.assertIn("2 more clients", self.taken()[-1])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.log.close()
        self.assertEqual(self.taken(), [])
