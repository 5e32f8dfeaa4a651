"""
The current recorder, and handles that come before it.
"""

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

import txmetrics_tcp
from tests.test_recorder import ListRecorder
from txmetrics_tcp import (
    Metadata,
    MetricKind,
    Operation,
    RecorderInstalledError,
    _facade,
    counter,
    current_recorder,
    describe_counter,
    describe_gauge,
    describe_histogram,
    gauge,
    histogram,
    set_global_recorder,
)


class FacadeTests(SynchronousTestCase):
    def setUp(self) -> None:
        # A program has one global recorder for its whole life; a test has its own.
        for name, value in (("_global", None), ("_unbound", _facade._Unbound())):
            self.patch(_facade, name, value)
        self.recorder = ListRecorder()

    def test_handlesFromBefore(self) -> None:
        """A handle made at import time begins to work when a recorder is installed."""
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

    def test_checkedBeforeInstalled(self) -> None:
        with self.assertRaisesRegex(ValueError, "counter 'early': increment by -1"):
            counter("early").increment(-1)

    def test_descriptionsFromBefore(self) -> None:
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

    def test_handlesFromAfter(self) -> None:
        set_global_recorder(self.recorder)
        counter("late").increment()
        gauge("late").set(1)
        histogram("late").record(1)
        self.assertEqual(len(self.recorder.take()), 3)
        self.assertIs(current_recorder(), self.recorder)

    def test_onlyOnce(self) -> None:
        """A second recorder is an error that says what is installed; the first stays."""
        set_global_recorder(self.recorder)
        with self.assertRaisesRegex(RecorderInstalledError, "ListRecorder object"):
            set_global_recorder(ListRecorder())
        counter("c").increment()
        self.assertEqual(len(self.recorder.take()), 1)

    def test_takenBack(self) -> None:
        """What could not start leaves everything as it was, for another that can."""
        early = counter("early")
        set_global_recorder(self.recorder)
        _facade.unset_global_recorder(self.recorder)
        early.increment()
        self.assertEqual(self.recorder.take(), [])
        another = ListRecorder()
        set_global_recorder(another)
        early.increment()
        self.assertEqual(len(another.take()), 1)

    def test_takenBackByAnother(self) -> None:
        set_global_recorder(self.recorder)
        _facade.unset_global_recorder(ListRecorder())
        self.assertIs(current_recorder(), self.recorder)

    def test_forgottenHandles(self) -> None:
        """Handles that nobody keeps are not kept for a recorder that may never come."""
        gone = weakref.ref(counter("gone", i="first"))
        for i in range(5000):
            counter("gone", i=i)
        gc.collect()
        self.assertIsNone(gone())


class PublicNamesTests(SynchronousTestCase):
    def test_pinned(self) -> None:
        """The public names change on purpose only."""
        self.assertEqual(
            sorted(txmetrics_tcp.__all__, key=str.lower),
            sorted(PUBLIC, key=str.lower),
        )
        for name in PUBLIC:
            self.assertTrue(hasattr(txmetrics_tcp, name), name)


PUBLIC = """
    MAX_FRAME ClientStats Counter Decoder EndpointError Event Gauge Histogram Key ListenError Metadata
    Metric MetricKind MetricsFactory MetricsProtocol MetricsService NoopRecorder Operation Recorder
    RecorderInstalledError Series Sink Stats StreamError TcpBuilder TcpRecorder Unit counter
    current_recorder decode describe_counter describe_gauge describe_histogram encode_metadata
    encode_metric gauge histogram set_global_recorder
""".split()
