"""
Counters of other libraries: seconds, and fractions.
"""

from __future__ import annotations

import math
import sys
import threading
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.recorders import ListRecorder
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp.bridges._counters import FractionalCounter, _after_fork_in_child, is_seconds


class SecondsTests(SynchronousTestCase):
    def test_names(self) -> None:
        for name, expected in (
            ("cpu_seconds_total", True),
            ("cpu_seconds", True),
            ("cpu.seconds", True),
            ("seconds", True),
            ("milliseconds", False),
            ("seconds_left", False),
            ("cpu_seconds_total_2", False),
        ):
            self.assertEqual(is_seconds(name), expected, name)

    def test_units(self) -> None:
        for unit, expected in (
            ("s", True),
            ("seconds", True),
            ("ms", False),
            ("", False),
            (None, False),
        ):
            self.assertEqual(is_seconds("x", unit), expected, unit)


class FractionTests(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.recorder = ListRecorder()
        self.counter = FractionalCounter(self.recorder.counter("x"))

    def added(self) -> list[object]:
        return [value for _series, _operation, value in self.recorder.take()]

    @given(st.lists(st.floats(0, 1e6) | st.integers(0, 1000)))
    def test_total(self, amounts: list[float]) -> None:
        """The total is the exact sum, rounded down."""
        self.setUp()
        for amount in amounts:
            self.counter.increment(amount)
        added = [value for value in self.added() if isinstance(value, int)]
        self.assertEqual(sum(added), math.floor(sum(map(Fraction, amounts))))

    def test_wholeNumbers(self) -> None:
        """A whole number is one event, also if it is a float, or zero."""
        for amount in (1, 2.0, 0, 0.5):
            self.counter.increment(amount)
        self.assertEqual(self.added(), [1, 2, 0])

    def test_wraps(self) -> None:
        """The total wraps at 2**64, as that of the counter."""
        self.counter.increment(0.5)
        for amount in (U64_MAX, 1, U64_MAX + 3):
            self.counter.increment(amount)
        self.assertEqual(self.added(), [U64_MAX, 1, 2])

    def test_small(self) -> None:
        """Amounts of any size are added exactly, also after very small ones."""
        amounts = [2.0**-70, 5e-324, 0.1, 2.0**52 + 0.5, 1 - 2.0**-53, 1e-300]
        for amount in amounts:
            self.counter.increment(amount)
        whole = math.floor(sum(map(Fraction, amounts)))
        self.assertEqual(sum(self.added()), whole)  # type: ignore[arg-type]
        rest = whole + 1 - sum(map(Fraction, amounts))
        self.counter.increment(float(rest))
        self.counter.increment(float(rest - Fraction(float(rest))))
        self.counter.increment(1e-15)
        self.assertEqual(self.added(), [1])

    def test_interrupted(self) -> None:
        """Amounts that interrupt another one, for example in a finalizer, are added, too."""
        inner = [0.5, 0.25]

        class Interrupted:
            def increment(_self, amount: int) -> None:
                while inner:
                    self.counter.increment(inner.pop())
                original.increment(amount)

        original = self.counter.counter
        self.counter.increment(0.5)
        self.counter.counter = Interrupted()  # type: ignore[assignment]
        self.counter.increment(0.75)
        self.assertEqual((inner, self.added()), ([], [1, 1]))

    def test_released(self) -> None:
        """An exception, such as KeyboardInterrupt, leaves the counter usable."""
        original = self.counter.counter

        class Interrupted:
            def increment(_self, amount: int) -> None:
                raise KeyboardInterrupt

        self.counter.increment(0.5)
        self.counter.counter = Interrupted()  # type: ignore[assignment]
        self.assertRaises(KeyboardInterrupt, self.counter.increment, 0.75)
        self.counter.counter = original
        self.counter.increment(0.75)
        self.assertEqual(self.added(), [1])

    def test_acquired(self) -> None:
        """A KeyboardInterrupt right after the lock was acquired releases it."""
        lock = threading.Lock()

        class Interrupted:
            def acquire(self, blocking: bool) -> bool:
                lock.acquire(blocking)
                raise KeyboardInterrupt

            def release(self) -> None:
                lock.release()

        self.counter._lock = Interrupted()  # type: ignore[assignment]
        self.assertRaises(KeyboardInterrupt, self.counter.increment, 0.5)
        self.assertFalse(lock.locked())

    def test_threads(self) -> None:
        """Amounts of several threads are all added."""
        amounts = [0.3, 0.0007, 1.9]

        def run() -> None:
            for _ in range(1000):
                for amount in amounts:
                    self.counter.increment(amount)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        self.addCleanup(sys.setswitchinterval, interval)
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = math.floor(3000 * sum(map(Fraction, amounts)))
        self.assertEqual(sum(self.added()), expected)  # type: ignore[arg-type]

    def test_forked(self) -> None:
        """A lock that a thread held at a fork is free in the child."""
        self.counter._lock.acquire()
        self.counter.increment(0.5)
        _after_fork_in_child()
        self.counter.increment(0.5)
        self.assertEqual(self.added(), [1])
