"""
The current recorder, and handles created before it is installed.
"""

import gc
import os
import weakref
from typing import Any

from tests.recorders import GlobalRecorderTestCase, ListRecorder
from txmetrics_tcp import (
    Counter,
    FanoutRecorder,
    Key,
    Metadata,
    MetricKind,
    NoopRecorder,
    Operation,
    PrefixRecorder,
    RecorderInstalledError,
    Series,
    counter,
    current_recorder,
    describe_counter,
    describe_gauge,
    describe_histogram,
    gauge,
    histogram,
    set_global_recorder,
)
from txmetrics_tcp._instruments import facade


class FacadeTests(GlobalRecorderTestCase):
    def test_earlyHandles(self) -> None:
        """A handle created before a recorder is installed records to it afterwards."""
        early = counter("early", a="b"), gauge("early"), histogram("early")
        early[0].increment()
        set_global_recorder(self.recorder)
        self.assertEqual(self.recorder.take(), [])
        early[0].increment(2)
        early[1].set(3)
        early[2].record(4)
        self.assertEqual(
            self.recorder.take(),
            [
                ("early [a = b]", Operation.INCREMENT_COUNTER, 2),
                ("early", Operation.SET_GAUGE, 3.0),
                ("early", Operation.RECORD_HISTOGRAM, 4.0),
            ],
        )

    def test_valuesCheckedWithoutRecorder(self) -> None:
        with self.assertRaisesRegex(ValueError, "counter 'early': increment by -1"):
            counter("early").increment(-1)

    def test_otherLibrariesArguments(self) -> None:
        """The error about the arguments of prometheus_client names the function that describes."""
        for find in (counter, gauge, histogram):
            kind = find.__name__
            mistakes: list[tuple[Any, ...]] = [("help",), ("help", ["label"]), ({}, "help")]
            for given in mistakes:
                with self.assertRaisesRegex(
                    TypeError,
                    rf"{kind} 'x': labels must be a mapping from names to values, not .*'help'.*;"
                    rf" describe_{kind}\(\) takes",
                ):
                    find("x", *given)

    def test_earlyDescriptions(self) -> None:
        describe_counter("c", "bytes", "x")
        describe_gauge("g", "seconds")
        describe_histogram("h")
        set_global_recorder(self.recorder)
        describe_counter("late")
        self.assertEqual(
            self.recorder.described,
            [
                Metadata(MetricKind.COUNTER, "c", "bytes", "x"),
                Metadata(MetricKind.GAUGE, "g", "seconds"),
                Metadata(MetricKind.HISTOGRAM, "h"),
                Metadata(MetricKind.COUNTER, "late"),
            ],
        )

    def test_lateHandles(self) -> None:
        set_global_recorder(self.recorder)
        counter("late").increment()
        gauge("late").set(1)
        histogram("late").record(1)
        self.assertEqual(len(self.recorder.take()), 3)
        self.assertIs(current_recorder(), self.recorder)

    def test_onlyOnce(self) -> None:
        """Installing a second recorder raises an error that names the first, which stays."""
        set_global_recorder(self.recorder)
        with self.assertRaisesRegex(RecorderInstalledError, "ListRecorder object"):
            set_global_recorder(ListRecorder())
        counter("c").increment()
        self.assertEqual(len(self.recorder.take()), 1)

    def test_uninstall(self) -> None:
        """After a recorder is uninstalled, another one can be installed."""
        early = counter("early")
        set_global_recorder(self.recorder)
        facade.unset_global_recorder(self.recorder)
        early.increment()
        self.assertEqual(self.recorder.take(), [])
        another = ListRecorder()
        set_global_recorder(another)
        early.increment()
        self.assertEqual(len(another.take()), 1)

    def test_uninstallAnother(self) -> None:
        set_global_recorder(self.recorder)
        facade.unset_global_recorder(ListRecorder())
        self.assertIs(current_recorder(), self.recorder)

    def test_discardedHandles(self) -> None:
        """Unreferenced handles are garbage-collected even if no recorder is ever installed."""
        gone = weakref.ref(counter("gone", i="first"))
        for i in range(5000):
            counter("gone", i=i)
        gc.collect()
        self.assertIsNone(gone())

    def test_installFails(self) -> None:
        """A recorder that raises for an existing handle is not installed."""
        early = counter("early"), counter("x" * 60_000)
        with self.assertRaisesRegex(ValueError, "must not exceed"):
            set_global_recorder(PrefixRecorder(self.recorder, "y" * 10_000))
        early[0].increment()
        self.assertEqual(self.recorder.take(), [])
        set_global_recorder(self.recorder)
        early[0].increment()
        self.assertEqual(len(self.recorder.take()), 1)

    def test_childInstallsItsOwn(self) -> None:
        """A forked process can install a different recorder from its parent's."""
        set_global_recorder(self.recorder)
        early = counter("early")
        self.patch(os, "getpid", lambda: -1)
        own = ListRecorder()
        set_global_recorder(own)
        early.increment()
        self.assertEqual((len(self.recorder.take()), len(own.take())), (0, 1))
        self.assertRaises(RecorderInstalledError, set_global_recorder, ListRecorder())

    def test_handleCreatedWhileInstalling(self) -> None:
        """
        A handle created during the installation of a recorder, by a finalizer for example, is
        attached to it.
        """
        made: list[Counter] = []

        class Nested(ListRecorder):
            def attach(self, key: Key) -> Series:
                if key.name != "nested":
                    made.append(counter("nested"))
                return super().attach(key)

        early = counter("early")
        recorder = Nested()
        set_global_recorder(recorder)
        early.increment()
        made[0].increment()
        self.assertEqual([name for name, _, _ in recorder.take()], ["early", "nested"])

    def test_installedWhileCreatingHandle(self) -> None:
        """A recorder installed during the creation of a handle receives its events."""
        program = facade._program
        another = ListRecorder()

        class Installing(NoopRecorder):
            def attach(self, key: Key) -> Series:
                series = super().attach(key)
                if program._installed is None:
                    set_global_recorder(another)
                return series

        program._target = program._noop = Installing()
        made = counter("made")
        made.increment()
        self.assertEqual(another.take(), [("made", Operation.INCREMENT_COUNTER, 1)])

    def test_earlyLayers(self) -> None:
        """Layers over the current recorder follow an installed recorder until it is uninstalled."""
        prefixed = PrefixRecorder(current_recorder(), "db_")
        both = FanoutRecorder(prefixed, current_recorder())
        early, twice = prefixed.counter("early"), both.counter("twice")
        prefixed.describe_counter("early")
        early.increment()
        set_global_recorder(self.recorder)
        early.increment(2)
        twice.increment(3)
        self.assertEqual(
            self.recorder.take(),
            [
                ("db_early", Operation.INCREMENT_COUNTER, 2),
                ("db_twice", Operation.INCREMENT_COUNTER, 3),
                ("twice", Operation.INCREMENT_COUNTER, 3),
            ],
        )
        self.assertEqual(self.recorder.described, [Metadata(MetricKind.COUNTER, "db_early")])
        facade.unset_global_recorder(self.recorder)
        early.increment()
        self.assertEqual(self.recorder.take(), [])

    def test_labels(self) -> None:
        """Handles from `labels` follow an installed recorder."""
        early = counter("c", a=1).labels(b=2)
        set_global_recorder(self.recorder)
        early.increment()
        self.assertEqual(
            self.recorder.take(), [("c [a = 1, b = 2]", Operation.INCREMENT_COUNTER, 1)]
        )
        self.assertIs(counter("c", a=1, b=2), early)

    def test_repr(self) -> None:
        self.assertIn("none installed", repr(current_recorder()))

    def test_beforeHandles(self) -> None:
        """A function is called before a handle or a series is made, not when the cache has it."""
        calls: list[int] = []
        facade.call_before_handles(lambda: calls.append(1))
        handle = counter("c")
        self.assertEqual(len(calls), 1)
        counter("c")
        handle.increment()
        describe_counter("c")
        self.assertEqual(len(calls), 1)
        PrefixRecorder(current_recorder(), "p_").gauge("g")
        self.assertEqual(len(calls), 2)
        facade.call_before_handles(None)
        counter("d")
        self.assertEqual(len(calls), 2)

    def test_installedBeforeHandle(self) -> None:
        """A recorder that the function installs receives all events of the handle."""
        facade.call_before_handles(lambda: set_global_recorder(self.recorder))
        self.recorder.replaceable = True
        counter("c").increment(2)
        self.assertEqual(self.recorder.take(), [("c", Operation.INCREMENT_COUNTER, 2)])

    def test_replaced(self) -> None:
        """A recorder learns that another one was installed in its place, and only then."""

        class Replaceable(ListRecorder):
            replaceable = True
            replaced = 0

            def _replaced(self) -> None:
                assert current_recorder() is not self
                self.replaced += 1

        class Failing(ListRecorder):
            def attach(self, key: Key) -> Series:
                raise ValueError

        kept = counter("c")
        first, second = Replaceable(), Replaceable()
        set_global_recorder(first)
        set_global_recorder(first)
        with self.assertRaises(ValueError):
            set_global_recorder(Failing())
        self.assertEqual(first.replaced, 0)
        set_global_recorder(second)
        self.assertEqual((first.replaced, second.replaced), (1, 0))
        facade.unset_global_recorder(second)
        self.assertEqual(second.replaced, 0)
        kept.increment()

    def test_hasGlobalRecorder(self) -> None:
        self.assertFalse(facade.has_global_recorder())
        set_global_recorder(self.recorder)
        self.assertTrue(facade.has_global_recorder())
