"""
`metrics-tcp record`: that a file has what came, and when it ends.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.recordings import STREAM, FullDisk, Unclosed, joined, read, writer_to
from txmetrics_tcp import Decoder, Metric
from txmetrics_tcp._model import Status
from txmetrics_tcp.cli.record import Record

EVENTS = list(Decoder().feed(STREAM))
METRICS = [event for event in EVENTS if isinstance(event, Metric)]


class RecordTests(SynchronousTestCase):
    """What it makes of events and of the bytes behind them."""

    def setUp(self) -> None:
        self.file = Unclosed()
        self.stopped: list[int] = []
        self.errors: list[OSError] = []

    def record(self, file: Any = None, count: int | None = None) -> Record:
        self.file = file or self.file
        return Record(writer_to(self.file), self.stopped.append, self.errors.append, count)

    def give(self, record: Record, *pieces: bytes) -> None:
        decoder = Decoder()
        for piece in pieces:
            record.received(list(decoder.feed(piece)))
            record.tap(piece)

    def test_all(self) -> None:
        """Byte for byte, however it came."""
        for size in (1, 7, len(STREAM)):
            self.file = Unclosed()
            record = self.record()
            record.begin()
            self.give(record, *[STREAM[at : at + size] for at in range(0, len(STREAM), size)])
            record.close()
            reader, chunks = read(self.file.getvalue())
            self.assertEqual(joined(chunks), STREAM)
            self.assertTrue(chunks[0].begins)
            self.assertFalse(reader.cut_off)
            self.assertEqual(record.metrics, len(METRICS))
        self.assertEqual((self.stopped, self.errors), ([], []))

    def test_count(self) -> None:
        """It ends with the last event that is wanted, wherever the stream was cut."""
        for size in (1, 50, len(STREAM)):
            for count in (1, 2, len(METRICS) - 1, len(METRICS)):
                self.file = Unclosed()
                self.stopped.clear()
                record = self.record(count=count)
                record.begin()
                self.give(record, *[STREAM[at : at + size] for at in range(0, len(STREAM), size)])
                record.close()
                self.assertEqual(self.stopped, [0])
                self.assertEqual(record.metrics if size == len(STREAM) else count, count)
                got = joined(read(self.file.getvalue())[1])
                self.assertTrue(STREAM.startswith(got))
                metrics = [e for e in Decoder().feed(got) if isinstance(e, Metric)]
                self.assertEqual(list(map(repr, metrics)), list(map(repr, METRICS[:count])))

    def test_missed(self) -> None:
        """Losses are those of all connections together; each counts from 0 on."""
        record = self.record()
        record.begin()
        record.received([Status("s", 1, 3, 4), Status("s", 1, 5, 5)])
        record.begin()
        self.assertEqual(record.missed, 10)
        record.received([Status("s", 1, 1, 0)])
        self.assertEqual(record.missed, 11)

    def test_flush(self) -> None:
        """What has come is in the file when it is flushed."""
        record = self.record()
        self.give(record, STREAM)
        size = len(self.file.getvalue())
        record.flush()
        self.assertGreater(len(self.file.getvalue()), size)
        self.assertEqual(joined(read(self.file.getvalue())[1]), STREAM)

    def test_fullDisk(self) -> None:
        """Nothing more is written then, and what was is whole."""
        record = self.record(FullDisk())
        record.begin()
        self.give(record, STREAM)
        record.flush()
        self.file.room = len(self.file.getvalue()) + 10
        for _ in range(3):
            self.give(record, STREAM)
            record.flush()
        self.assertEqual([error.strerror for error in self.errors[:1]], ["No space left on device"])
        record.close()
        reader, chunks = read(self.file.getvalue())
        self.assertEqual(joined(chunks), STREAM)
        self.assertTrue(reader.cut_off)
