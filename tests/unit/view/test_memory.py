"""
The size of what consumers keep.
"""

from __future__ import annotations

from sys import getsizeof

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Key, Metadata, MetricKind
from txmetrics_tcp._view.memory import Budget, Descriptions, key_size, text_size

TEXTS = [letter * length for letter in "a\x00\xe9\u20ac\U0001f600" for length in (1, 2, 30, 10_000)]


class SizeTests(SynchronousTestCase):
    def test_text(self) -> None:
        """The size of a text is at least the real one, and at most four times that."""
        for text in ["", *TEXTS]:
            self.assertGreaterEqual(text_size(text), getsizeof(text))
            self.assertLess(text_size(text), 4 * getsizeof(text))

    def test_key(self) -> None:
        """The size of a key is at least the real one."""
        for labels in [
            *(((text, text),) for text in TEXTS),
            tuple((f"{number}", f"v{number}") for number in range(10_000)),
        ]:
            key = Key(MetricKind.COUNTER, labels[0][0], labels)
            texts = [key.name, *(text for pair in labels for text in pair)]
            real = sum(map(getsizeof, [key, labels, *labels, *texts]))
            self.assertGreaterEqual(key_size(key), real)
            self.assertLess(key_size(key), 4 * real)


class DescriptionTests(SynchronousTestCase):
    def test_budget(self) -> None:
        """Descriptions that exceed the budget are refused; removed ones make room."""
        descriptions = Descriptions(budget := Budget(10_000))
        small, large, other = (
            Metadata(MetricKind.GAUGE, name, unit, "x" * size)
            for name, unit, size in [("a", None, 10), ("a", "b" * 1_000, 7_000), ("b", None, 7_000)]
        )
        for metadata, kept in [(small, True), (large, True), (other, False), (small, True)]:
            self.assertEqual(descriptions.put(metadata), kept)
            self.assertEqual(list(descriptions.values()), [metadata if kept else large])
        self.assertTrue(descriptions.put(other))
        self.assertFalse(descriptions.put(large))
        names = [(MetricKind.GAUGE, "b"), (MetricKind.GAUGE, "c"), (MetricKind.GAUGE, "a")]
        self.assertEqual([*map(descriptions.remove, names)], [other, None, small])
        self.assertEqual(budget.used, 0)
