"""
Validation of names, labels, units and values, and the error messages.
"""

import datetime
import fractions
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Key, Metadata, MetricKind, Operation, Unit
from txmetrics_tcp._model import APPLY, INITIAL_TOTAL, MAX_TEXT, U64_MAX, real_number, whole_number

COUNTER = Key(MetricKind.COUNTER, "requests")
GAUGE = Key(MetricKind.GAUGE, "load")


class KeyTests(SynchronousTestCase):
    def test_labelsAreSorted(self) -> None:
        """The order of labels does not matter."""
        one = Key.of(MetricKind.COUNTER, "a", {"x": "1", "b": "2"})
        other = Key.of(MetricKind.COUNTER, "a", {"b": "2", "x": "1"})
        self.assertEqual(one, other)
        self.assertEqual(one.labels, (("b", "2"), ("x", "1")))
        self.assertEqual(hash(one), hash(other))

    def test_labelValuesBecomeText(self) -> None:
        """Label values of other types are converted to strings."""
        key = Key.of(MetricKind.COUNTER, "a", {"status": 200, "ok": True})
        self.assertEqual(key.labels, (("ok", "True"), ("status", "200")))

    def test_emptyNames(self) -> None:
        with self.assertRaisesRegex(ValueError, "counter '': the name must not be empty"):
            Key.of(MetricKind.COUNTER, "")
        with self.assertRaisesRegex(ValueError, "gauge 'a': the label name '' must not be empty"):
            Key.of(MetricKind.GAUGE, "a", {"": "x"})

    def test_emptyLabelValue(self) -> None:
        self.assertEqual(Key.of(MetricKind.GAUGE, "a", {"b": ""}).labels, (("b", ""),))

    def test_notUtf8(self) -> None:
        for name, labels, part in [
            ("a\ud800", {}, "the name"),
            ("a", {"\udfff": "x"}, "the label name"),
            ("a", {"l": "\ud800"}, "the value of label 'l'"),
        ]:
            with self.assertRaisesRegex(ValueError, f"{part}.* cannot be encoded as UTF-8"):
                Key.of(MetricKind.HISTOGRAM, name, labels)

    def test_notText(self) -> None:
        with self.assertRaisesRegex(TypeError, "the name must be a str, not bytes"):
            Key.of(MetricKind.COUNTER, b"a")  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "the label name 1 must be a str, not int"):
            Key.of(MetricKind.COUNTER, "a", {1: "x"})  # type: ignore[dict-item]

    def test_tooLong(self) -> None:
        """Names and labels that receivers would reject raise an error."""
        Key.of(MetricKind.COUNTER, "n" * MAX_TEXT)
        with self.assertRaisesRegex(ValueError, "name and labels take 65537 bytes"):
            Key.of(MetricKind.COUNTER, "n" * (MAX_TEXT - 1), {"a": "b"})

    def test_strSubclass(self) -> None:
        """Instances of subclasses of str are converted to plain strings."""

        class Text(str):
            def encode(self, *args: object) -> bytes:  # type: ignore[override]
                return b"?"

            def __str__(self) -> str:
                return self

        key = Key.of(MetricKind.COUNTER, Text("a"), {Text("b"): Text("c")})
        for text in (key.name, *key.labels[0]):
            self.assertIs(type(text), str)

    def test_str(self) -> None:
        key = Key.of(MetricKind.COUNTER, "requests", {"route": "/", "method": "GET"})
        self.assertEqual(str(key), "requests [method = GET, route = /]")
        self.assertEqual(str(Key.of(MetricKind.COUNTER, "requests")), "requests")


class MetadataTests(SynchronousTestCase):
    def test_unitsOfTheReference(self) -> None:
        """The seventeen units have the names and symbols of the Rust crate."""
        self.assertEqual(
            {unit.value: unit.label for unit in Unit},
            {
                "count": "",
                "percent": "%",
                "seconds": "s",
                "milliseconds": "ms",
                "microseconds": "μs",
                "nanoseconds": "ns",
                "tebibytes": "TiB",
                "gibibytes": "GiB",
                "mebibytes": "MiB",
                "kibibytes": "KiB",
                "bytes": "B",
                "terabits_per_second": "Tbps",
                "gigabits_per_second": "Gbps",
                "megabits_per_second": "Mbps",
                "kilobits_per_second": "kbps",
                "bits_per_second": "bps",
                "count_per_second": "/s",
            },
        )

    def test_unitByString(self) -> None:
        self.assertIs(Metadata.of(MetricKind.GAUGE, "a", "bytes").unit, Unit.BYTES)
        self.assertIs(Metadata.of(MetricKind.GAUGE, "a", Unit.BYTES).unit, Unit.BYTES)

    def test_unknownUnit(self) -> None:
        with self.assertRaisesRegex(
            ValueError, "gauge 'a': unknown unit 'byte'; the units are count, percent, "
        ):
            Metadata.of(MetricKind.GAUGE, "a", "byte")

    def test_badText(self) -> None:
        with self.assertRaisesRegex(TypeError, "the description must be a str, not NoneType"):
            Metadata.of(MetricKind.GAUGE, "a", None, None)  # type: ignore[arg-type]
        with self.assertRaisesRegex(ValueError, "the description cannot be encoded as UTF-8"):
            Metadata.of(MetricKind.GAUGE, "a", None, "\ud800")
        with self.assertRaisesRegex(ValueError, "the description must not exceed 65536 bytes"):
            Metadata.of(MetricKind.GAUGE, "a", None, "x" * (MAX_TEXT + 1))
        with self.assertRaisesRegex(ValueError, "the name must not be empty"):
            Metadata.of(MetricKind.GAUGE, "")


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Whole(int):
    def __index__(self) -> int:
        return self


class TotalTests(SynchronousTestCase):
    def test_firstOperation(self) -> None:
        """The total after the first operation; counters are integers that wrap at 2**64."""
        for operation, value, total in [
            (Operation.INCREMENT_COUNTER, 3, "3"),
            (Operation.INCREMENT_COUNTER, U64_MAX + 3, "2"),
            (Operation.SET_COUNTER, 3, "3"),
            (Operation.INCREMENT_GAUGE, 3, "3.0"),
            (Operation.DECREMENT_GAUGE, 3, "-3.0"),
            (Operation.SET_GAUGE, 3.0, "3.0"),
        ]:
            initial = INITIAL_TOTAL[operation.kind]
            self.assertEqual(repr(APPLY[operation](initial, value)), total)
        self.assertNotIn(Operation.RECORD_HISTOGRAM, APPLY)


class WholeNumberTests(SynchronousTestCase):
    @given(st.integers(0, U64_MAX))
    def test_range(self, value: int) -> None:
        self.assertEqual(whole_number(COUNTER, "increment by", value), value)
        self.assertEqual(whole_number(COUNTER, "increment by", Index(value)), value)

    def test_exactInt(self) -> None:
        """Instances of subclasses of int are converted to plain integers."""
        self.assertIs(type(whole_number(COUNTER, "increment by", Whole(3))), int)

    def test_outOfRange(self) -> None:
        for value in (-1, U64_MAX + 1, Index(-5)):
            with self.assertRaisesRegex(
                ValueError,
                "counter 'requests': increment by .*: must be a whole number from 0 to 184467",
            ):
                whole_number(COUNTER, "increment by", value)

    def test_notWhole(self) -> None:
        for value, name in ((1.5, "float"), (2.0, "float"), ("1", "str"), (None, "NoneType")):
            with self.assertRaisesRegex(
                TypeError,
                f"counter 'requests': increment by {value!r}: must be a whole number, not {name}",
            ):
                whole_number(COUNTER, "increment by", value)  # type: ignore[arg-type]

    def test_bool(self) -> None:
        with self.assertRaisesRegex(TypeError, "increment by True: .*, not a bool"):
            whole_number(COUNTER, "increment by", True)


class Float(float):
    pass


class RealNumberTests(SynchronousTestCase):
    @given(st.floats())
    def test_anyFloat(self, value: float) -> None:
        """All floats, including NaN and infinities, are unchanged to the last bit."""
        got = real_number(GAUGE, "set to", value)
        self.assertEqual(struct.pack("<d", got), struct.pack("<d", value))

    def test_convertibleToFloat(self) -> None:
        for value, expected in (
            (3, 3.0),
            (True, 1.0),
            (fractions.Fraction(1, 4), 0.25),
            (Float(1.5), 1.5),
            (datetime.timedelta(milliseconds=1500), 1.5),
        ):
            got = real_number(GAUGE, "set to", value)
            self.assertEqual(got, expected)
            self.assertIs(type(got), float)

    def test_notANumber(self) -> None:
        for value in ("1.5", b"1", bytearray(b"1"), None, 1j, [1.0]):
            with self.assertRaisesRegex(
                TypeError, "gauge 'load': set to .*: must be a number, not"
            ):
                real_number(GAUGE, "set to", value)  # type: ignore[arg-type]

    def test_tooLarge(self) -> None:
        with self.assertRaisesRegex(ValueError, "must be a number that a float can hold"):
            real_number(GAUGE, "set to", 10**400)


class OperationTests(SynchronousTestCase):
    def test_kind(self) -> None:
        """Each operation applies to the kind in its name."""
        for operation in Operation:
            self.assertTrue(operation.name.endswith(operation.kind.name), operation)
