"""
Copies and pickles of handles, recorders and values.
"""

import copy
import operator
import pickle
import time
from dataclasses import asdict, dataclass, field

from tests.recorders import GlobalRecorderTestCase, ListRecorder
from txmetrics_tcp import (
    Counter,
    Gauge,
    Histogram,
    Key,
    LabelsRecorder,
    Metadata,
    MetricKind,
    MetricsFactory,
    Operation,
    PrefixRecorder,
    Recorder,
    Unit,
    counter,
    current_recorder,
    gauge,
    histogram,
    local_recorder,
    set_global_recorder,
)
from txmetrics_tcp._instruments import facade
from txmetrics_tcp.testing import FakeReactor, capture


@dataclass
class Job:
    """An object of a program that holds handles."""

    done: Counter = field(default_factory=lambda: counter("jobs_total", queue="a"))


class CopyTests(GlobalRecorderTestCase):
    def handles(self) -> list[Counter | Gauge | Histogram]:
        with local_recorder(ListRecorder()):
            scoped = counter("scoped")
        key = Key(MetricKind.COUNTER, "c")
        return [
            *(counter("c", a="b"), gauge("g"), histogram("h"), scoped),
            *(self.recorder.counter("c"), PrefixRecorder(self.recorder, "x").counter("c")),
            *(current_recorder().register_counter(key), Counter(key, self.recorder.attach(key))),
        ]

    def test_sameHandle(self) -> None:
        """A copy of a handle is the same handle, whichever recorder it belongs to."""
        for handle in self.handles():
            self.assertIs(copy.copy(handle), handle)
            self.assertIs(copy.deepcopy({"in": [handle]})["in"][0], handle)

    def test_copiedBeforeInstallation(self) -> None:
        """A copy made before a recorder is installed records to it."""
        job = Job()
        copies = [copy.copy(job.done), copy.deepcopy(job).done, asdict(job)["done"]]
        set_global_recorder(self.recorder)
        for copied in copies:
            copied.increment()
        self.assertEqual(
            self.recorder.take(), [("jobs_total [queue = a]", Operation.INCREMENT_COUNTER, 1)] * 3
        )

    def test_sameRecorder(self) -> None:
        """A copy of a recorder is the same recorder."""
        exporting = MetricsFactory(FakeReactor()).recorder
        layer = LabelsRecorder(exporting, a="b")
        for recorder in (self.recorder, current_recorder(), exporting, layer):
            self.assertIs(copy.copy(recorder), recorder)
            self.assertIs(copy.deepcopy([recorder])[0], recorder)

    def test_measures(self) -> None:
        """A copy of a timer and of its like, even of one in use, records to the same handle."""
        latency, busy, errors = (
            self.recorder.histogram("h"),
            self.recorder.gauge("g"),
            self.recorder.counter("c"),
        )
        timer = latency.time(clock=lambda: 5.0)
        with timer:
            copies = [copy.copy(timer), copy.deepcopy(timer)]
            for copied in copies:
                with copied:
                    pass
        self.assertEqual(len(self.recorder.take()), 3)
        for duplicate in (copy.copy, copy.deepcopy):
            with duplicate(busy.track_inprogress()):
                pass
            try:
                with duplicate(errors.count_exceptions()):
                    operator.truediv(1, 0)
            except ZeroDivisionError:
                pass
            self.assertEqual([name for name, _, _ in self.recorder.take()], ["g", "g", "c"])


class PickleTests(GlobalRecorderTestCase):
    def loaded(self, pickled: bytes) -> object:
        """Load a pickle as in another process, with its own global recorder."""
        self.patch(facade, "_program", facade._Program())
        set_global_recorder(self.recorder)
        return pickle.loads(pickled)

    def test_found(self) -> None:
        """The process that loads a handle finds the series by kind, name and labels."""
        handles = [
            counter("c", {"http.route": "/", "self": "x"}, code=200),
            gauge("g"),
            histogram("h", a="b"),
            counter("c", a="b").labels(c="d"),
            current_recorder().register_gauge(Key(MetricKind.GAUGE, "g", (("a", "b"),))),
        ]
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            loaded = self.loaded(pickle.dumps(handles, protocol))
            for handle, found in zip(handles, loaded, strict=True):  # type: ignore[call-overload]
                self.assertIs(type(found), type(handle))
                self.assertEqual(found.key, handle.key)
            loaded[0].increment(3)  # type: ignore[index]
            self.assertEqual(
                self.recorder.take(),
                [("c [code = 200, http.route = /, self = x]", Operation.INCREMENT_COUNTER, 3)],
            )

    def test_notInstalledYet(self) -> None:
        """A handle loaded before a recorder is installed records to it."""
        job = pickle.loads(pickle.dumps(Job()))
        set_global_recorder(self.recorder)
        job.done.increment()
        self.assertEqual(len(self.recorder.take()), 1)

    def test_sameProcess(self) -> None:
        handle = counter("c", a="b")
        self.assertIs(pickle.loads(pickle.dumps(handle)), handle)

    def test_loadedInScope(self) -> None:
        """A handle belongs to the recorder that is current where it is loaded."""
        pickled = pickle.dumps(counter("c"))
        with local_recorder(self.recorder):
            scoped = pickle.loads(pickled)
        scoped.increment()
        self.assertEqual(len(self.recorder.take()), 1)
        with capture() as captured:
            pickle.loads(pickle.dumps(counter("c"))).increment()
        self.assertEqual(captured.total("c"), 1)

    def test_measures(self) -> None:
        pickled = pickle.dumps(
            [
                histogram("h").time(),
                histogram("h").time(clock=time.monotonic),
                gauge("g").track_inprogress(),
                counter("c").count_exceptions(OSError),
            ]
        )
        loaded = self.loaded(pickled)
        try:
            with loaded[0], loaded[1], loaded[2], loaded[3]:  # type: ignore[index]
                raise OSError
        except OSError:
            pass
        names = [name for name, _, _ in self.recorder.take()]
        self.assertEqual(names, ["g", "c", "g", "h", "h"])

    def test_otherRecorders(self) -> None:
        """
        A handle of another recorder cannot be pickled: its series may have another name, or be
        unknown, where it is loaded.
        """
        set_global_recorder(self.recorder)
        with local_recorder(ListRecorder()):
            scoped = counter("c")
        for handle, owner in (
            (scoped, "ListRecorder"),
            (self.recorder.counter("c"), "ListRecorder"),
            (current_recorder().counter("c"), "ListRecorder"),
            (PrefixRecorder(self.recorder, "x").counter("c"), "PrefixRecorder"),
            (MetricsFactory(FakeReactor()).recorder.counter("c"), "TcpRecorder"),
        ):
            with self.assertRaisesRegex(
                TypeError, rf"cannot pickle <Counter c>: it belongs to .*{owner}.*counter\(\)"
            ):
                pickle.dumps(handle)
        key = Key(MetricKind.COUNTER, "c")
        with self.assertRaisesRegex(TypeError, "cannot pickle <Counter c>: it has no recorder"):
            pickle.dumps(Counter(key, self.recorder.attach(key)))

    def test_recorders(self) -> None:
        recorders: list[Recorder] = [
            *(self.recorder, PrefixRecorder(self.recorder, "x"), current_recorder()),
            MetricsFactory(FakeReactor()).recorder,
        ]
        for recorder in recorders:
            with self.assertRaisesRegex(
                TypeError, r"cannot pickle .*ecorder.*: create a recorder in each process"
            ):
                pickle.dumps(recorder)

    def test_values(self) -> None:
        key = Key.of(MetricKind.COUNTER, "c", {"a": "b"})
        values = [key, Metadata.of(MetricKind.GAUGE, "g", Unit.BYTES, "x"), *Unit, *MetricKind]
        for copied in (
            [copy.copy(value) for value in values],
            copy.deepcopy(values),
            pickle.loads(pickle.dumps(values)),
        ):
            self.assertEqual(copied, values)
            self.assertEqual(hash(copied[0]), hash(key))
