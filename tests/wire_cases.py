"""
A table of frames and their events, for tests of the encoder and the decoder.

The frames are written by hand from the definition of the format: a frame is a varint with the
number of bytes that follow, then one protobuf ``Event``.  The encoding:

- a field begins with its number times eight, plus 0 for a varint, 1 for eight bytes, or 2 for a
  length and that number of bytes;
- a varint has seven bits in each byte, lowest first; all bytes except the last have 80 added;
- signed numbers in the total of a histogram are 0, -1, 1, -2, … in this order;
- a list of numbers is one field with a length;
- doubles are little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, nan

from txmetrics_tcp import (
    Distribution,
    Event,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    Status,
    Unit,
    Unknown,
)

COUNTER, GAUGE, HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM

SECOND = 1_000_000_000
WHEN = SECOND + 2
"""The timestamp of most events here; as a field: ``12 04 08 01 10 02``."""


@dataclass(frozen=True)
class Case:
    """
    @ivar name: the name of the case.
    @ivar frame: the bytes.
    @ivar event: the event that they encode, or None.
    @ivar ours: whether this library's encoder writes these bytes for the event. If not, another
        encoder may, and the decoder must accept them.
    """

    name: str
    frame: bytes
    event: Event | None
    ours: bool = True


def wire(text: str) -> bytes:
    """Convert lines of hexadecimal digits, with comments."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


def seen(events: Iterable[Event]) -> list[str]:
    """
    Convert events for comparison: NaN equals itself; 1 differs from 1.0, and 0.0 from -0.0.

    Units become text, as they are after decoding.
    """
    return [repr(_plain(event)) + _parts(event) for event in events]


def _plain(event: Event) -> Event:
    if isinstance(event, Metadata) and event.unit is not None:
        return Metadata(event.kind, event.name, str(event.unit), event.description)
    return event


def _parts(event: Event) -> str:
    """Return what the representation of an event does not show."""
    if not isinstance(event, HistogramTotal):
        return ""
    one = event.distribution
    return f" zeros {one.zeros}, positive {one.positive}, negative {one.negative}"


def metric(
    operation: Operation,
    value: int | float,
    labels: dict[str, str] | None = None,
    when: int | None = WHEN,
    name: str = "m",
) -> Metric:
    return Metric(Key.of(operation.kind, name, labels), operation, value, when)


def increment(n: int) -> Metric:
    return metric(Operation.INCREMENT_COUNTER, n)


def at(when: int) -> Metric:
    return metric(Operation.INCREMENT_COUNTER, 1, when=when)


def histogram_total(
    *positive: tuple[int, int],
    negative: tuple[tuple[int, int], ...] = (),
    scale: int = 5,
    sum: float = 0.0,
    min: float = nan,
    max: float = nan,
    zeros: int = 0,
    not_finite: int = 0,
) -> HistogramTotal:
    distribution = Distribution.from_buckets(
        scale, positive, negative, sum=sum, min=min, max=max, zeros=zeros, not_finite=not_finite
    )
    return HistogramTotal(Key(HISTOGRAM, "m"), distribution)


def _total(fields: str) -> bytes:
    """Return the frame of a histogram's total that has the name "m" and other fields."""
    message = wire(f"0a 01 6d {fields}")
    event = wire("da 3e") + _length(message) + message
    return _length(event) + event


def _length(message: bytes) -> bytes:
    length = len(message)
    return bytes([length] if length < 128 else [length % 128 + 128, length // 128])


LARGEST = 1.7976931348623157e308

INVALID_TOTAL = Unknown("an invalid total of a histogram")

CASES = [
    # Operations
    Case(
        "increment a counter",
        wire("""
            0d                        # a frame of 13 bytes
            12 0b                     # metric, 11 bytes
              0a 01 6d                # name: "m"
              12 04 08 01 10 02       # timestamp: 1 second, 2 nanoseconds
              20 01                   # increment_counter: 1
        """),
        increment(1),
    ),
    Case(
        "set a counter",
        wire("""
            0e
            12 0c
              0a 01 6d
              12 04 08 01 10 02
              28 ac 02                # set_counter: 300
        """),
        metric(Operation.SET_COUNTER, 300),
    ),
    Case(
        "increment a gauge",
        wire("""
            14
            12 12
              0a 01 6d
              12 04 08 01 10 02
              31 00 00 00 00 00 00 f8 3f  # increment_gauge: 1.5
        """),
        metric(Operation.INCREMENT_GAUGE, 1.5),
    ),
    Case(
        "decrement a gauge",
        wire("""
            14
            12 12
              0a 01 6d
              12 04 08 01 10 02
              39 00 00 00 00 00 00 04 c0  # decrement_gauge: -2.5
        """),
        metric(Operation.DECREMENT_GAUGE, -2.5),
    ),
    Case(
        "set a gauge",
        wire("""
            14
            12 12
              0a 01 6d
              12 04 08 01 10 02
              41 00 00 00 00 00 00 59 40  # set_gauge: 100.0
        """),
        metric(Operation.SET_GAUGE, 100.0),
    ),
    Case(
        "record in a histogram",
        wire("""
            14
            12 12
              0a 01 6d
              12 04 08 01 10 02
              49 fc a9 f1 d2 4d 62 50 3f  # record_histogram: 0.001
        """),
        metric(Operation.RECORD_HISTOGRAM, 0.001),
    ),
    # Values
    Case(
        "a counter incremented by 0: the value of a oneof is written even if it is 0",
        wire("0d 12 0b 0a 01 6d 12 04 08 01 10 02  20 00"),
        increment(0),
    ),
    Case(
        "a counter set to 0",
        wire("0d 12 0b 0a 01 6d 12 04 08 01 10 02  28 00"),
        metric(Operation.SET_COUNTER, 0),
    ),
    Case(
        "the largest varint of one byte",
        wire("0d 12 0b 0a 01 6d 12 04 08 01 10 02  20 7f"),
        increment(127),
    ),
    Case(
        "the smallest varint of two bytes",
        wire("0e 12 0c 0a 01 6d 12 04 08 01 10 02  20 80 01"),
        increment(128),
    ),
    Case(
        "the largest varint of two bytes",
        wire("0e 12 0c 0a 01 6d 12 04 08 01 10 02  20 ff 7f"),
        increment(16383),
    ),
    Case(
        "the smallest varint of three bytes",
        wire("0f 12 0d 0a 01 6d 12 04 08 01 10 02  20 80 80 01"),
        increment(16384),
    ),
    Case(
        "the smallest increment that does not fit into a signed number",
        wire("16 12 14 0a 01 6d 12 04 08 01 10 02  20 80 80 80 80 80 80 80 80 80 01"),
        increment(2**63),
    ),
    Case(
        "the largest increment of a counter",
        wire("16 12 14 0a 01 6d 12 04 08 01 10 02  20 ff ff ff ff ff ff ff ff ff 01"),
        increment(2**64 - 1),
    ),
    Case(
        "the largest total of a counter",
        wire("16 12 14 0a 01 6d 12 04 08 01 10 02  28 ff ff ff ff ff ff ff ff ff 01"),
        metric(Operation.SET_COUNTER, 2**64 - 1),
    ),
    Case(
        "zero",
        wire("14 12 12 0a 01 6d 12 04 08 01 10 02  41 00 00 00 00 00 00 00 00"),
        metric(Operation.SET_GAUGE, 0.0),
    ),
    Case(
        "negative zero",
        wire("14 12 12 0a 01 6d 12 04 08 01 10 02  41 00 00 00 00 00 00 00 80"),
        metric(Operation.SET_GAUGE, -0.0),
    ),
    Case(
        "the largest double",
        wire("14 12 12 0a 01 6d 12 04 08 01 10 02  49 ff ff ff ff ff ff ef 7f"),
        metric(Operation.RECORD_HISTOGRAM, LARGEST),
    ),
    Case(
        "the smallest double above zero",
        wire("14 12 12 0a 01 6d 12 04 08 01 10 02  49 01 00 00 00 00 00 00 00"),
        metric(Operation.RECORD_HISTOGRAM, 5e-324),
    ),
    Case(
        "infinity",
        wire("14 12 12 0a 01 6d 12 04 08 01 10 02  31 00 00 00 00 00 00 f0 7f"),
        metric(Operation.INCREMENT_GAUGE, inf),
    ),
    Case(
        "negative infinity",
        wire("14 12 12 0a 01 6d 12 04 08 01 10 02  39 00 00 00 00 00 00 f0 ff"),
        metric(Operation.DECREMENT_GAUGE, -inf),
    ),
    Case(
        "not a number",
        wire("14 12 12 0a 01 6d 12 04 08 01 10 02  49 00 00 00 00 00 00 f8 7f"),
        metric(Operation.RECORD_HISTOGRAM, nan),
    ),
    # Labels
    Case(
        "a label",
        wire("""
            15
            12 13
              0a 01 6d
              12 04 08 01 10 02
              1a 06                   # labels, an entry of 6 bytes
                0a 01 6b              # key: "k"
                12 01 76              # value: "v"
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, {"k": "v"}),
    ),
    Case(
        "a label of a counter that is set",
        wire("16 12 14 0a 01 6d 12 04 08 01 10 02  1a 06 0a 01 6b 12 01 76  28 ac 02"),
        metric(Operation.SET_COUNTER, 300, {"k": "v"}),
    ),
    Case(
        "a label of a gauge that is incremented",
        wire("""
            1c 12 1a 0a 01 6d 12 04 08 01 10 02  1a 06 0a 01 6b 12 01 76
            31 00 00 00 00 00 00 f8 3f
        """),
        metric(Operation.INCREMENT_GAUGE, 1.5, {"k": "v"}),
    ),
    Case(
        "a label of a gauge that is decremented",
        wire("""
            1c 12 1a 0a 01 6d 12 04 08 01 10 02  1a 06 0a 01 6b 12 01 76
            39 00 00 00 00 00 00 04 c0
        """),
        metric(Operation.DECREMENT_GAUGE, -2.5, {"k": "v"}),
    ),
    Case(
        "a label of a gauge that is set",
        wire("""
            1c 12 1a 0a 01 6d 12 04 08 01 10 02  1a 06 0a 01 6b 12 01 76
            41 00 00 00 00 00 00 59 40
        """),
        metric(Operation.SET_GAUGE, 100.0, {"k": "v"}),
    ),
    Case(
        "a label of a histogram",
        wire("""
            1c 12 1a 0a 01 6d 12 04 08 01 10 02  1a 06 0a 01 6b 12 01 76
            49 fc a9 f1 d2 4d 62 50 3f
        """),
        metric(Operation.RECORD_HISTOGRAM, 0.001, {"k": "v"}),
    ),
    Case(
        "labels are sorted by name",
        wire("""
            26
            12 24
              0a 01 6d
              12 04 08 01 10 02
              1a 06 0a 01 61 12 01 33 # "a": "3"
              1a 07 0a 02 62 61 12 01 31  # "ba": "1"
              1a 06 0a 01 63 12 01 32 # "c": "2"
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, {"c": "2", "ba": "1", "a": "3"}),
    ),
    Case(
        # protobuf's implementations write them in different orders: upb "aa" first, the one in
        # Python "a".
        "labels one of which is a prefix of the other",
        wire("""
            1e
            12 1c
              0a 01 6d
              12 04 08 01 10 02
              1a 07 0a 02 61 61 12 01 31  # "aa": "1"
              1a 06 0a 01 61 12 01 33 # "a": "3"
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, {"a": "3", "aa": "1"}),
        ours=False,
    ),
    Case(
        "labels are sorted as their bytes, not as UTF-16",
        wire("""
            22
            12 20
              0a 01 6d
              12 04 08 01 10 02
              1a 08 0a 03 ef bd 9e 12 01 31     # U+FF5E
              1a 09 0a 04 f0 9f 98 80 12 01 32  # U+1F600
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, {"\U0001f600": "2", "\uff5e": "1"}),
    ),
    Case(
        "an empty label value",
        wire("""
            14
            12 12
              0a 01 6d
              12 04 08 01 10 02
              1a 05 0a 01 6b 12 00    # "k": ""
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, {"k": ""}),
    ),
    Case(
        "an empty label value, omitted, as Rust programs do",
        wire("""
            12
            12 10
              0a 01 6d
              12 04 08 01 10 02
              1a 03 0a 01 6b          # "k", without a value
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, {"k": ""}),
        ours=False,
    ),
    Case(
        "labels that are not sorted",
        wire("""
            1d
            12 1b
              0a 01 6d
              12 04 08 01 10 02
              1a 06 0a 01 62 12 01 32 # "b": "2"
              1a 06 0a 01 61 12 01 31 # "a": "1"
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, {"a": "1", "b": "2"}),
        ours=False,
    ),
    Case(
        "a label that occurs twice: the last one counts",
        wire("""
            1d
            12 1b
              0a 01 6d
              12 04 08 01 10 02
              1a 06 0a 01 6b 12 01 31 # "k": "1"
              1a 06 0a 01 6b 12 01 32 # "k": "2"
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, {"k": "2"}),
        ours=False,
    ),
    # Text
    Case(
        "unicode in name and labels",
        wire("""
            23
            12 21
              0a 07 67 72 c3 b6 c3 9f 65        # name: "größe"
              12 04 08 01 10 02
              1a 0e
                0a 04 7a 6f 6e 65               # key: "zone"
                12 06 e6 9d b1 e4 ba ac         # value: "東京"
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, {"zone": "東京"}, name="größe"),
    ),
    Case(
        "control characters are text like any other",
        wire("""
            11
            12 0f
              0a 05 1b 5b 32 4a 00    # name: ESC [ 2 J NUL
              12 04 08 01 10 02
              20 01
        """),
        metric(Operation.INCREMENT_COUNTER, 1, name="\x1b[2J\0"),
    ),
    Case(
        "the longest frame whose length is one byte",
        wire("7f 12 7d 0a 73" + "78" * 115 + "12 04 08 01 10 02  20 01"),
        metric(Operation.INCREMENT_COUNTER, 1, name="x" * 115),
    ),
    Case(
        "a frame whose length is two bytes, with a metric whose length is one byte",
        wire("81 01 12 7f 0a 75" + "78" * 117 + "12 04 08 01 10 02  20 01"),
        metric(Operation.INCREMENT_COUNTER, 1, name="x" * 117),
    ),
    Case(
        "two bytes for every length",
        wire("d6 01 12 d3 01 0a c8 01" + "78" * 200 + "12 04 08 01 10 02  20 01"),
        metric(Operation.INCREMENT_COUNTER, 1, name="x" * 200),
    ),
    # Time
    Case(
        "the epoch: an empty timestamp",
        wire("09 12 07 0a 01 6d  12 00  20 01"),
        at(0),
    ),
    Case(
        "no seconds",
        wire("0b 12 09 0a 01 6d  12 02 10 05  20 01"),
        at(5),
    ),
    Case(
        "no nanoseconds",
        wire("0b 12 09 0a 01 6d  12 02 08 01  20 01"),
        at(SECOND),
    ),
    Case(
        "nanoseconds of one byte",
        wire("0d 12 0b 0a 01 6d  12 04 08 01 10 7f  20 01"),
        at(SECOND + 127),
    ),
    Case(
        "nanoseconds of two bytes, the smallest",
        wire("0e 12 0c 0a 01 6d  12 05 08 01 10 80 01  20 01"),
        at(SECOND + 128),
    ),
    Case(
        "nanoseconds of two bytes, the largest",
        wire("0e 12 0c 0a 01 6d  12 05 08 01 10 ff 7f  20 01"),
        at(SECOND + 16383),
    ),
    Case(
        "nanoseconds of three bytes, the smallest",
        wire("0f 12 0d 0a 01 6d  12 06 08 01 10 80 80 01  20 01"),
        at(SECOND + 16384),
    ),
    Case(
        "nanoseconds of three bytes, the largest",
        wire("0f 12 0d 0a 01 6d  12 06 08 01 10 ff ff 7f  20 01"),
        at(SECOND + 2**21 - 1),
    ),
    Case(
        "nanoseconds of four bytes, the smallest",
        wire("10 12 0e 0a 01 6d  12 07 08 01 10 80 80 80 01  20 01"),
        at(SECOND + 2**21),
    ),
    Case(
        "nanoseconds of four bytes, the largest",
        wire("10 12 0e 0a 01 6d  12 07 08 01 10 ff ff ff 7f  20 01"),
        at(SECOND + 2**28 - 1),
    ),
    Case(
        "nanoseconds of five bytes, the smallest",
        wire("11 12 0f 0a 01 6d  12 08 08 01 10 80 80 80 80 01  20 01"),
        at(SECOND + 2**28),
    ),
    Case(
        "nanoseconds of five bytes, the largest",
        wire("11 12 0f 0a 01 6d  12 08 08 01 10 ff 93 eb dc 03  20 01"),
        at(SECOND + 999_999_999),
    ),
    Case(
        "today",
        wire("15 12 13 0a 01 6d  12 0c 08 88 a5 8c d8 06 10 c5 d2 ac f8 02  20 01"),
        at(1_795_363_464 * SECOND + 789_260_613),
    ),
    Case(
        "the last nanosecond of protobuf's Timestamp, in the year 9999",
        wire("16 12 14 0a 01 6d  12 0d 08 ff 82 d1 ff af 07 10 ff 93 eb dc 03  20 01"),
        at(253_402_300_799 * SECOND + 999_999_999),
    ),
    Case(
        "no timestamp",
        wire("07 12 05 0a 01 6d  20 01"),
        at(None),
    ),
    Case(
        "a second before the epoch",
        wire("14 12 12 0a 01 6d  12 0b 08 ff ff ff ff ff ff ff ff ff 01  20 01"),
        at(-SECOND),
        ours=False,
    ),
    # Metadata
    Case(
        "a counter without unit and description: its kind is 0, which is omitted",
        wire("""
            05
            0a 03                     # metadata, 3 bytes
              0a 01 6d                # name: "m"
        """),
        Metadata(COUNTER, "m"),
    ),
    Case(
        "a unit",
        wire("""
            0e
            0a 0c
              0a 01 6d
              10 01                   # metric_type: GAUGE
              1a 05 62 79 74 65 73    # unit_value: "bytes"
        """),
        Metadata(GAUGE, "m", Unit.BYTES),
    ),
    Case(
        "a description",
        wire("""
            0c
            0a 0a
              0a 01 6d
              10 02                   # metric_type: HISTOGRAM
              22 03 68 6f 77          # description_value: "how"
        """),
        Metadata(HISTOGRAM, "m", None, "how"),
    ),
    Case(
        "unit and description, in unicode",
        wire("""
            1e
            0a 1c
              0a 01 6d
              10 02
              1a 07 73 65 63 6f 6e 64 73                # unit_value: "seconds"
              22 0c 47 72 c3 b6 c3 9f 65 3a 20 c2 b5 73 # description_value: "Größe: µs"
        """),
        Metadata(HISTOGRAM, "m", Unit.SECONDS, "Größe: µs"),
    ),
    Case(
        "an unknown unit",
        wire("0e 0a 0c 0a 01 6d  1a 07 70 61 72 73 65 63 73"),
        Metadata(COUNTER, "m", "parsecs"),
    ),
    Case(
        "an empty unit",
        wire("07 0a 05 0a 01 6d  1a 00"),
        Metadata(COUNTER, "m", ""),
    ),
    Case(
        "an empty description",
        wire("07 0a 05 0a 01 6d  22 00"),
        Metadata(COUNTER, "m"),
        ours=False,
    ),
    Case(
        "a kind of 0, written out",
        wire("07 0a 05 0a 01 6d  10 00"),
        Metadata(COUNTER, "m"),
        ours=False,
    ),
    # Status
    Case(
        "the first status of a stream: counts of 0 are omitted",
        wire("""
            11
            c2 3e 0e                  # status, 14 bytes
              0a 04 08 01 10 02       # started: 1 second, 2 nanoseconds
              12 04 64 65 6d 6f       # source: "demo"
              28 03                   # protocol_version: 3
        """),
        Status("demo", WHEN),
    ),
    Case(
        "events were lost",
        wire("""
            1f
            c2 3e 1c
              0a 04 08 01 10 02
              12 04 64 65 6d 6f
              18 ac 02                # dropped_incoming: 300
              20 ff ff ff ff ff ff ff ff ff 01  # dropped_client: 2**64 - 1
              28 03
        """),
        Status("demo", WHEN, 300, 2**64 - 1),
    ),
    Case(
        "a server without a name, started at the epoch",
        wire("07 c2 3e 04 0a 00 28 03"),
        Status("", 0),
    ),
    Case(
        "an empty status",
        wire("03 c2 3e 00"),
        Status("", None, protocol_version=0),
    ),
    Case(
        "a status of a later version",
        wire("09 c2 3e 06 0a 00 28 04 30 07"),
        Status("", 0, protocol_version=4),
        ours=False,
    ),
    # Snapshots
    Case("the beginning of a snapshot", wire("05 ca 3e 02 08 01"), Snapshot.BEGIN),
    Case(
        "the beginning of a complete snapshot",
        wire("07 ca 3e 04 08 01 10 01"),
        Snapshot.BEGIN_COMPLETE,
    ),
    Case("the end of a snapshot", wire("05 ca 3e 02 08 02"), Snapshot.END),
    Case("a complete end", wire("07 ca 3e 04 08 02 10 01"), Snapshot.END, ours=False),
    Case("a snapshot without a boundary", wire("03 ca 3e 00"), None, ours=False),
    Case("a future boundary of a snapshot", wire("05 ca 3e 02 08 03"), None, ours=False),
    # Gone series
    Case(
        "a counter is gone: the kind of 0 is omitted",
        wire("""
            0c
            d2 3e 09                  # gone, 9 bytes
              12 01 6d                # name: "m"
              22 04 08 01 10 02       # timestamp: 1 second, 2 nanoseconds
        """),
        Gone(Key(COUNTER, "m"), WHEN),
    ),
    Case(
        "a gauge with a label is gone, at an unknown time",
        wire("""
            10
            d2 3e 0d
              08 01                   # metric_type: GAUGE
              12 01 6d
              1a 06                   # one label, 6 bytes
                0a 01 61              # its name: "a"
                12 01 62              # its value: "b"
        """),
        Gone(Key(GAUGE, "m", (("a", "b"),))),
    ),
    Case(
        "a histogram is gone",
        wire("08 d2 3e 05 08 02 12 01 6d"),
        Gone(Key(HISTOGRAM, "m")),
    ),
    # Totals of histograms
    Case(
        "the total of the samples -1.0, 0.0, 1.0, 2.0, 2.0 and infinity",
        wire("""
            3f
            da 3e 3c                  # histogram_total, 60 bytes
              0a 01 6d                # name: "m"
              12 04 08 01 10 02       # timestamp: 1 second, 2 nanoseconds
              20 0a                   # scale: 5
              29 00 00 00 00 00 00 10 40  # sum: 4.0
              31 00 00 00 00 00 00 f0 bf  # min: -1.0
              39 00 00 00 00 00 00 00 40  # max: 2.0
              40 01                   # zeros: 1
              48 01                   # not_finite: 1
              52 08                   # positive, 8 bytes
                0a 02 01 3e           # indices: -1, 31
                12 02 01 02           # counts: 1, 2
              5a 06                   # negative, 6 bytes
                0a 01 01              # indices: -1
                12 01 01              # counts: 1
        """),
        HistogramTotal(Key(HISTOGRAM, "m"), Distribution.of([-1.0, 0.0, 1.0, 2.0, 2.0, inf]), WHEN),
    ),
    Case(
        "the total of a histogram with a label, without samples, at an unknown time",
        wire("10 da 3e 0d 0a 01 6d  1a 06 0a 01 61 12 01 62  20 0a"),
        HistogramTotal(Key(HISTOGRAM, "m", (("a", "b"),)), Distribution.EMPTY),
    ),
    Case(
        "a total of samples that are not finite",
        wire("0b da 3e 08 0a 01 6d 20 0a  48 ac 02"),
        histogram_total(not_finite=300),
    ),
    Case(
        "a total of zeros: the minimum and the maximum are 0, which is omitted",
        wire("0a da 3e 07 0a 01 6d 20 0a  40 7f"),
        histogram_total(zeros=127, min=0.0, max=0.0),
    ),
    Case(
        "a total of the lowest scale, with its two buckets, and an infinite sum",
        wire("""
            31
            da 3e 2e
              0a 01 6d
              20 13                   # scale: -10
              29 00 00 00 00 00 00 f0 7f  # sum: infinity
              31 01 00 00 00 00 00 00 00  # min: 5e-324
              39 ff ff ff ff ff ff ef 7f  # max: 1.7976931348623157e308
              52 0c
                0a 02 03 00           # indices: -2, 0
                12 06 ff ff ff ff 0f 01
        """),
        histogram_total((-2, 2**32 - 1), (0, 1), scale=-10, sum=inf, min=5e-324, max=LARGEST),
    ),
    Case(
        "an empty total: the scale of 0 is omitted",
        wire("03 da 3e 00"),
        HistogramTotal(Key(HISTOGRAM, ""), histogram_total(scale=0).distribution),
    ),
    Case(
        "the highest and the lowest bucket of the highest scale, whose count is 2**64 - 1",
        _total(
            "20 0a 31 01 00 00 00 00 00 00 00 39 ff ff ff ff ff ff ef 7f"
            "52 15 0a 06 81 99 04 fe ff 03 12 0b 01 ff ff ff ff ff ff ff ff ff 01"
        ),
        histogram_total((-34369, 1), (32767, 2**64 - 1), min=5e-324, max=LARGEST),
    ),
    Case(
        "a total with fields in another order, numbers that are not packed, and unknown fields",
        _total(
            "80 06 01"  # a future field
            "52 0a 10 01 08 01 0a 01 3e 12 01 02"  # a count, an index, indices, counts
            "20 0a"
            "39 00 00 00 00 00 00 00 40"
            "31 00 00 00 00 00 00 f0 3f"
        ),
        histogram_total((-1, 1), (31, 2), min=1.0, max=2.0),
        ours=False,
    ),
    Case(
        "buckets without numbers; without samples, sum, minimum and maximum mean nothing",
        _total(
            "20 0a 29 00 00 00 00 00 00 f8 7f 31 00 00 00 00 00 00 f0 3f 52 00 5a 04 0a 00 12 00"
        ),
        histogram_total(),
        ours=False,
    ),
    # Events of other or future encoders
    Case("the empty frame", wire("00"), None, ours=False),
    Case(
        "a future kind of event: field 15",
        wire("05  7a 03 01 02 03"),
        None,
        ours=False,
    ),
    Case(
        "field 3, the status before version 1",
        wire("0e 1a 0c 0a 04 08 01 10 02 12 04 64 65 6d 6f"),
        None,
        ours=False,
    ),
    Case(
        "a future field beside a metric",
        wire("0f 12 0b 0a 01 6d 12 04 08 01 10 02 20 01  78 01"),
        increment(1),
        ours=False,
    ),
    Case(
        "a future field at the beginning of a metric",
        wire("0f 12 0d  78 01  0a 01 6d 12 04 08 01 10 02 20 01"),
        increment(1),
        ours=False,
    ),
    Case(
        "a future field in metadata",
        wire("08 0a 06 0a 01 6d  2a 01 78"),
        Metadata(COUNTER, "m"),
        ours=False,
    ),
    Case(
        "a future kind of metric",
        wire("07 0a 05 0a 01 6d  10 03"),
        Unknown("a description of an unknown kind of metric"),
        ours=False,
    ),
    Case(
        "a series of a future kind is gone",
        wire("08 d2 3e 05 08 03 12 01 6d"),
        Unknown("a gone series of an unknown kind of metric"),
        ours=False,
    ),
    Case(
        "a metric without an operation",
        wire("0b 12 09 0a 01 6d 12 04 08 01 10 02"),
        Unknown("a metric without a known operation"),
        ours=False,
    ),
    Case(
        "an empty metric",
        wire("02 12 00"),
        Unknown("a metric without a known operation"),
        ours=False,
    ),
    Case(
        "two operations: the last one counts",
        wire("0f 12 0d 0a 01 6d 12 04 08 01 10 02  20 07  28 08"),
        metric(Operation.SET_COUNTER, 8),
        ours=False,
    ),
    Case(
        "metadata and a metric in one event: the last one counts",
        wire("12  0a 03 0a 01 6d  12 0b 0a 01 6d 12 04 08 01 10 02 20 01"),
        increment(1),
        ours=False,
    ),
    Case(
        "fields in another order",
        wire("0d 12 0b  20 01  12 04 10 02 08 01  0a 01 6d"),
        increment(1),
        ours=False,
    ),
    Case(
        "a length with more bytes than necessary",
        wire("8d 80 00 12 0b 0a 01 6d 12 04 08 01 10 02 20 01"),
        increment(1),
        ours=False,
    ),
    Case(
        "a metric without a name",
        wire("0a 12 08 12 04 08 01 10 02 20 01"),
        Metric(Key(COUNTER, ""), Operation.INCREMENT_COUNTER, 1, WHEN),
        ours=False,
    ),
    # Invalid totals of histograms
    *(
        Case(f"an invalid total: {why}", _total(fields), INVALID_TOTAL, ours=False)
        for why, fields in [
            ("a scale above 5", "20 0c 40 01"),
            ("a scale below -10", "20 15 40 01"),
            ("an index without a count", "20 0a 52 03 0a 01 00"),
            ("a count without an index", "20 0a 52 03 12 01 01"),
            ("more counts than indices", "20 0a 5a 07 0a 01 00 12 02 01 01"),
            ("an index twice", "20 0a 52 08 0a 02 02 02 12 02 01 01"),
            ("indices in descending order", "20 0a 5a 08 0a 02 02 00 12 02 01 01"),
            ("a bucket beyond the largest number", "20 0a 52 08 0a 03 80 80 04 12 01 01"),
            ("a bucket below the smallest number", "20 0a 52 08 0a 03 83 99 04 12 01 01"),
            ("the same for negative samples, at scale 0", "5a 07 0a 02 80 10 12 01 01"),
            ("a count of 0", "20 0a 52 06 0a 01 00 12 01 00"),
            (
                "1,025 buckets",
                "20 0a 52 c9 17 0a c2 0f"
                + "".join(f"{n:02x}" for n in range(0, 128, 2))
                + "".join(f"{n & 127 | 128:02x}{n >> 7:02x}" for n in range(128, 2050, 2))
                + "12 81 08"
                + "01" * 1025,
            ),
            ("a minimum above the maximum", "40 01 31 00 00 00 00 00 00 f0 3f"),
            ("NaN as the minimum", "40 01 31 00 00 00 00 00 00 f8 7f"),
            ("NaN as the maximum", "40 01 39 00 00 00 00 00 00 f8 7f"),
            ("an infinite maximum", "40 01 39 00 00 00 00 00 00 f0 7f"),
            ("an infinite minimum", "40 01 31 00 00 00 00 00 00 f0 ff"),
            ("NaN as the sum", "40 01 29 00 00 00 00 00 00 f8 7f"),
        ]
    ),
]
