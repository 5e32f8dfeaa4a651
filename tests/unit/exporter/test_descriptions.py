"""
Tests of the descriptions that clients share.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import MetricKind
from txmetrics_tcp._exporter.descriptions import Descriptions


class DescriptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.descriptions = Descriptions()

    def describe(self, **frames: bytes) -> None:
        self.descriptions.update(
            {(MetricKind.COUNTER, name): frame for name, frame in frames.items()}
        )

    def test_none(self) -> None:
        self.assertEqual(self.descriptions.after(0, 10), (b"", 0))
        self.assertEqual(self.descriptions.last, 0)

    def test_after(self) -> None:
        """The descriptions after a number are those that were set later, in order."""
        self.describe(c=b"c1", a=b"a1")
        chunk, number = self.descriptions.after(0, 100)
        self.assertEqual((chunk, number), (b"c1a1", self.descriptions.last))
        self.describe(b=b"b1")
        self.assertEqual(self.descriptions.after(number, 100), (b"b1", self.descriptions.last))
        self.assertEqual(self.descriptions.after(self.descriptions.last, 100)[0], b"")

    def test_replaced(self) -> None:
        """A replaced description is sent only to those who have the earlier one."""
        self.describe(a=b"a1", b=b"b1")
        _, number = self.descriptions.after(0, 100)
        self.describe(a=b"a2")
        self.assertEqual(self.descriptions.after(0, 100)[0], b"b1a2")
        self.assertEqual(self.descriptions.after(number, 100)[0], b"a2")

    def test_room(self) -> None:
        """About as many bytes as asked for are returned, and at least one description."""
        self.describe(a=b"a" * 10, b=b"b" * 10, c=b"c" * 10)
        pieces = []
        number = 0
        while number < self.descriptions.last:
            chunk, number = self.descriptions.after(number, 11)
            pieces.append(len(chunk))
        self.assertEqual(pieces, [20, 10])

    def test_bounded(self) -> None:
        """Repeated descriptions take no memory, and readers of any state miss none."""
        numbers = []
        for n in range(1000):
            self.describe(a=b"%d" % n, b=b"b")
            numbers.append(self.descriptions.last)
        self.assertLessEqual(len(self.descriptions._frames), 4)
        self.assertEqual({self.descriptions.after(n, 100)[0] for n in numbers[:-1]}, {b"999b"})
