"""
Rate-limited logging of rejected clients, lost events, and messages about clients.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.logs import log_lines
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp._net.log_throttle import (
    INTERVAL,
    MAX_MESSAGES,
    LossReport,
    MessageLimit,
    RejectionLog,
)


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


class LossReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.logged = log_lines(self, log_throttle)
        self.clock = Clock()
        self.report = LossReport(self.clock)

    def test_worst(self) -> None:
        """The last line names the client that lost most, and counts each client once."""
        few, most = self.report.client("x:1"), self.report.client("x:2")
        for _ in range(3):
            few.lost(1)
            most.lost(5)
        self.clock.advance(1)
        few.lost(1)
        self.report.close()
        self.assertEqual(
            self.logged,
            [
                "Events are being dropped because client x:1 is too slow",
                "Events were dropped because 2 clients are too slow: 19 events within 1.0 seconds;"
                " client x:2 lost the most (15)",
            ],
        )

    def test_nextSeries(self) -> None:
        """A client that loses events again later is counted from zero."""
        client = self.report.client("x:1")
        for events in (1000, 3):
            client.lost(events)
            self.report.close()
        self.report.client("x:2").lost(4)
        client.lost(2)
        self.report.close()
        self.assertIn("x:1 is too slow: 3 events", self.logged[3])
        self.assertIn("; client x:2 lost the most (4)", self.logged[5])


class MessageLimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.said: list[str] = []
        self.clock = Clock()
        self.limit = MessageLimit(self.clock, self.said.append)

    def test_few(self) -> None:
        """Few messages are passed on, without a timer."""
        messages = [str(number) for number in range(3 * MAX_MESSAGES)]
        for message in messages:
            self.limit.say(message)
            self.clock.advance(INTERVAL / MAX_MESSAGES)
        self.limit.close()
        self.assertEqual((self.said, self.clock.getDelayedCalls()), (messages, []))

    def test_many(self) -> None:
        """Further messages are counted, until an interval has passed."""
        for _ in range(1000):
            self.limit.say("connected")
        self.assertEqual(self.said, ["connected"] * MAX_MESSAGES)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.said[MAX_MESSAGES:], ["980 more messages about clients"])
        self.limit.say("disconnected")
        self.assertEqual(self.said[-1], "disconnected")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        for _ in range(MAX_MESSAGES + 1):
            self.limit.say("connected")
        self.limit.close()
        self.limit.close()
        self.assertEqual(self.said[MAX_MESSAGES:], ["1 more message about clients"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
