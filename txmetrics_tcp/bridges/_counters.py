"""
Counters of other libraries, whose totals are floats, as counters and gauges of this one.

A counter of seconds becomes a gauge, which keeps its fractions.  All other counters become
counters, whose totals are the true ones without their fractions.
"""

from __future__ import annotations

import math
import os
import re
import threading
import weakref
from collections import deque

from txmetrics_tcp._instruments.recorder import Counter
from txmetrics_tcp._model import U64_MAX, Unit

_SECONDS = re.compile(r"(?:^|[._])seconds(?:[._]total)?\Z")


def is_seconds(name: str, unit: str | None = None) -> bool:
    """
    Return whether a counter counts seconds, and must therefore become a gauge of the same name.

    @param name: its name, such as C{"cpu_seconds_total"}.
    @param unit: its unit: C{"s"}, or as the libraries or `Unit` call it.
    """
    return unit in ("s", Unit.SECONDS.value) or _SECONDS.search(name) is not None


_BITS = 96
_SCALE = 2.0**_BITS
_ONE = 2**_BITS
_MASK = _ONE - 1
_LEAST = 2.0 ** (53 - _BITS)
"""All floats from here on are multiples of 2**-_BITS, as they have 53 bits."""


class FractionalCounter:
    """
    Adds fractions to a counter.  The counter's total is the exact sum of all amounts, rounded down.

    May be used from any thread, and in signal handlers and finalizers.

    @ivar counter: may also be used directly, for whole numbers.
    """

    __slots__ = ("__weakref__", "_bits", "_fraction", "_least", "_lock", "_pending", "counter")

    def __init__(self, counter: Counter) -> None:
        self.counter: Counter = counter
        # What is left of the sum, in units of 2**-bits.
        self._fraction = 0
        self._bits = _BITS
        self._least = _LEAST
        self._pending: deque[float] = deque()
        self._renew_lock()
        _all.add(self)

    def increment(self, amount: float) -> None:
        """
        Add to the total, which wraps as that of the counter does.

        @param amount: an `int` or a `float`, finite and not negative.
        """
        if type(amount) is int or amount.is_integer():
            self.counter.increment(int(amount) & U64_MAX)
            return
        lock, held = self._lock, False
        try:
            # Never waits: a finalizer may interrupt the holder of the lock, which then adds this
            # amount, too.
            held = not lock.acquire(False)
            if held:
                self._pending.append(amount)
            elif amount >= self._least:
                # What _add does, in half the time.
                fraction = self._fraction + int(amount * _SCALE)
                if fraction < _ONE:
                    self._fraction = fraction
                else:
                    self._fraction = fraction & _MASK
                    self.counter.increment(fraction >> _BITS)
            else:
                self._add(amount)
        finally:
            # Also after a KeyboardInterrupt between the call of acquire() and the assignment.
            if not held:
                lock.release()
        if self._pending:
            self._add_pending()

    def _add_pending(self) -> None:
        lock, held = self._lock, False
        while self._pending and not held:
            try:
                held = not lock.acquire(False)
                while self._pending and not held:
                    self._add(self._pending.popleft())
            finally:
                if not held:
                    lock.release()

    def _add(self, amount: float) -> None:
        # A float is a whole number of some 2**-bits. fractions.Fraction would take five times as
        # long.
        added, denominator = amount.as_integer_ratio()
        bits = denominator.bit_length() - 1
        if bits > self._bits:
            self._fraction <<= bits - self._bits
            self._bits = bits
            self._least = math.inf
        fraction = self._fraction + (added << self._bits - bits)
        whole = fraction >> self._bits
        self._fraction = fraction - (whole << self._bits)
        if whole:
            self.counter.increment(whole)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


_all: weakref.WeakSet[FractionalCounter] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # The thread that holds a lock may not exist in the child.
    for counter in list(_all):
        counter._renew_lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
