"""
Run the suite as strictly as can be: in random order, several times in one process, and then look
whether anything is left.

    PYTHONDEVMODE=1 python -W error strict.py [--seed SEED] [--reactor NAME]

Trial itself fails a test that leaves the reactor unclean. What it does not see are threads and
descriptors: those after the last time through must be those after the time before.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import sys
import threading
from collections import Counter
from typing import ClassVar

from twisted.application.reactors import installReactor
from twisted.trial.reporter import VerboseTextReporter
from twisted.trial.runner import DestructiveTestSuite, TestLoader, TestSuite, TrialRunner
from twisted.trial.unittest import SynchronousTestCase

DESCRIPTORS = "/proc/self/fd"


def descriptors() -> Counter[str]:
    """What is open, by kind, and how often."""
    found: Counter[str] = Counter()
    for number in os.listdir(DESCRIPTORS):
        # That of the listing itself is closed by now.
        with contextlib.suppress(FileNotFoundError):
            # A socket or pipe has a number of its own.
            found[os.readlink(f"{DESCRIPTORS}/{number}").split(":[")[0]] += 1
    return found


class LeftTests(SynchronousTestCase):
    """Not found by any loader: `main` puts them where they belong."""

    before: ClassVar[Counter[str] | None] = None

    def test_between(self) -> None:
        """What is open once and for all is open now."""
        gc.collect()
        type(self).before = descriptors()

    def test_afterAll(self) -> None:
        """Nothing is left of the last time."""
        from twisted.internet import reactor

        gc.collect()
        if self.before is not None:
            self.assertEqual(descriptors() - self.before, Counter())
        of_trial = ("MainThread", "PoolThread-twisted.internet.reactor-")
        left = [one for one in threading.enumerate() if not one.name.startswith(of_trial)]
        self.assertEqual(left, [])
        self.assertEqual(reactor.getDelayedCalls(), [])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 10**6))
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--reactor")
    parser.add_argument("--directory", default="_trial_temp")
    parser.add_argument("tests", nargs="*", default=["tests"])
    options = parser.parse_args()
    sys.path.insert(0, os.getcwd())
    # Now, so that what it has open is not taken for what a test left.
    installReactor(options.reactor or "default")
    print(f"in random order; --seed {options.seed} is the same order", flush=True)
    order = random.Random(options.seed)
    loader = TestLoader()
    loader.suiteFactory = DestructiveTestSuite
    loader.sorter = lambda _: order.random()
    suite = TestSuite()
    for time in range(options.times):
        if time:
            suite.addTest(LeftTests("test_between"))
        suite.addTest(loader.loadByNames(options.tests, recurse=True))
    suite.addTest(LeftTests("test_afterAll"))
    runner = TrialRunner(VerboseTextReporter, workingDirectory=options.directory)
    return not runner.run(suite).wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
