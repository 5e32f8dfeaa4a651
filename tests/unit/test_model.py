"""
Validation of names, labels, units and values, and the error messages.
"""

import array
import datetime
import decimal
import fractions
import struct
from typing import Any

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

    def test_kind(self) -> None:
        """The text of a kind is not a kind: no recorder would know the series."""
        for make in (Key.of, Metadata.of):
            for wrong in ("counter", None, Operation.SET_COUNTER):
                with self.assertRaisesRegex(TypeError, "^kind must be a MetricKind, not "):
                    make(wrong, "a")  # type: ignore[arg-type]

    def test_tooLong(self) -> None:
        """Names and labels that receivers would reject raise an error."""
        Key.of(MetricKind.COUNTER, "n" * MAX_TEXT)
        with self.assertRaisesRegex(
            ValueError, "name and labels must not exceed 65536 bytes of UTF-8; got 65537"
        ):
            Key.of(MetricKind.COUNTER, "n" * (MAX_TEXT - 1), {"a": "b"})

    def test_strSubclass(self) -> None:
        """
        The text of an instance of a subclass of str is its characters, in names and values.  Its
        methods are not called.
        """

        class Text(str):
            def encode(self, *args: object) -> bytes:
                return b"?"

            def __str__(self) -> str:
                return "?"

            def __len__(self) -> int:
                return 0

        class Spelled:
            def __str__(self) -> str:
                return Text("d")

        key = Key.of(MetricKind.COUNTER, Text("a"), {Text("b"): Text("c"), "s": Spelled()})
        self.assertEqual(key, Key(MetricKind.COUNTER, "a", (("b", "c"), ("s", "d"))))
        for text in (key.name, *key.labels[0], *key.labels[1]):
            self.assertIs(type(text), str)
        for bad in (
            lambda: Key.of(MetricKind.COUNTER, Text("\ud800")),
            lambda: Key.of(MetricKind.COUNTER, "a", {"b": Text("\ud800")}),
        ):
            with self.assertRaisesRegex(ValueError, "cannot be encoded as UTF-8"):
                bad()

    def test_proxy(self) -> None:
        """The text of a proxy that pretends to be a str, as Werkzeug's do, is that of its str."""

        class Proxy:
            __class__ = str  # type: ignore[assignment]

            def __str__(self) -> str:
                return "text"

        self.assertEqual(Key.of(MetricKind.COUNTER, "a", {"b": Proxy()}).labels, (("b", "text"),))
        with self.assertRaisesRegex(TypeError, "the name must be a str, not Proxy"):
            Key.of(MetricKind.COUNTER, Proxy())  # type: ignore[arg-type]

    def test_notAMapping(self) -> None:
        for labels in ("help", "", ["route"], [("a", "b")], 5, b"x"):
            with self.assertRaisesRegex(
                TypeError,
                r"gauge 'a': labels must be a mapping from names to values, not .*;"
                r" describe_gauge\(\) takes unit and description",
            ):
                Key.of(MetricKind.GAUGE, "a", labels)  # type: ignore[arg-type]

    def test_valueWithoutText(self) -> None:
        """If the conversion of a label value raises, the error names series, label and cause."""
        for cause, error in ((RuntimeError("no"), ValueError), (TypeError("no"), TypeError)):
            with self.assertRaisesRegex(
                error,
                "gauge 'a': the value of label 'b' must be text, but its conversion raised"
                rf" {type(cause).__name__}\('no'\)",
            ) as caught:
                Key.of(MetricKind.GAUGE, "a", {"b": Raising(cause)})
            self.assertIs(caught.exception.__cause__, cause)

    def test_shortMessages(self) -> None:
        """Messages about long or unprintable texts are short, and complete."""
        long = "x" * 1_000_000
        unprintable = Raising(RuntimeError())
        for name, labels, part in (
            (long, {}, "name and labels must not exceed"),
            ("a", {"b": long}, "name and labels must not exceed"),
            (long, {"": "x"}, "the label name '' must not be empty"),
            ("a", {long + "\ud800": "x"}, "the label name 'x.*x… cannot be encoded"),
            ("a", {long: "\ud800"}, "the value of label 'x.*x… cannot be encoded"),
            (unprintable, {}, "counter <Raising>: the name must be a str"),
            ("a", {unprintable: "x"}, "the label name <Raising> must be a str"),
            ("a", unprintable, "from names to values, not <Raising>"),
        ):
            with self.assertRaisesRegex((TypeError, ValueError), part) as caught:
                Key.of(MetricKind.COUNTER, name, labels)  # type: ignore[arg-type]
            self.assertLess(len(str(caught.exception)), 300)

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
        for unit in ("", 5, [1], "x" * 1_000_000, Raising(RuntimeError())):
            with self.assertRaisesRegex(ValueError, "gauge 'a': unknown unit .*; the") as caught:
                Metadata.of(MetricKind.GAUGE, "a", unit)  # type: ignore[arg-type]
            self.assertLess(len(str(caught.exception)), 500)

    def test_badText(self) -> None:
        with self.assertRaisesRegex(TypeError, "the description must be a str, not NoneType"):
            Metadata.of(MetricKind.GAUGE, "a", None, None)  # type: ignore[arg-type]
        with self.assertRaisesRegex(ValueError, "the description cannot be encoded as UTF-8"):
            Metadata.of(MetricKind.GAUGE, "a", None, "\ud800")
        with self.assertRaisesRegex(ValueError, "the description must not exceed 65536 bytes"):
            Metadata.of(MetricKind.GAUGE, "a", None, "x" * (MAX_TEXT + 1))
        with self.assertRaisesRegex(ValueError, "the name must not be empty"):
            Metadata.of(MetricKind.GAUGE, "")
        with self.assertRaisesRegex(ValueError, "the name must not exceed 65536 bytes") as caught:
            Metadata.of(MetricKind.GAUGE, "x" * 1_000_000)
        self.assertLess(len(str(caught.exception)), 300)


class Raising:
    """A value whose methods raise an exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error

    def __float__(self) -> float:
        raise self.error

    def __index__(self) -> int:
        raise self.error

    __repr__ = __str__


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

    def test_conversionRaises(self) -> None:
        """The error names the metric, the rule and the exception, which is its cause."""
        for cause, error in ((KeyError("x"), ValueError), (TypeError("x"), TypeError)):
            with self.assertRaisesRegex(
                error,
                "counter 'requests': increment by <Raising>: must be a whole"
                rf" number, but its conversion raised {type(cause).__name__}\('x'\)",
            ) as caught:
                whole_number(COUNTER, "increment by", Raising(cause))
            self.assertIs(caught.exception.__cause__, cause)

    def test_classRaises(self) -> None:
        """C{__class__}, which a proxy may compute, is not looked at."""

        class Proxy(Index):
            @property
            def __class__(self) -> Any:  # type: ignore[override]
                raise RuntimeError

        self.assertEqual(whole_number(COUNTER, "increment by", Proxy(3)), 3)

    def test_bool(self) -> None:
        with self.assertRaisesRegex(TypeError, "increment by True: .*, not bool"):
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
            (fractions.Fraction(10**5000 + 1, 10**5000), 1.0),
            (decimal.Decimal("1.5"), 1.5),
            (datetime.timedelta(milliseconds=1500), 1.5),
        ):
            got = real_number(GAUGE, "set to", value)
            self.assertEqual(got, expected)
            self.assertIs(type(got), float)

    def test_notANumber(self) -> None:
        texts = ("1.5", b"1", bytearray(b"1"), memoryview(b"1"), array.array("b", b"1"))
        for value in (*texts, None, 1j, [1.0], datetime.date(2000, 1, 1)):
            with self.assertRaisesRegex(
                TypeError, "gauge 'load': set to .*: must be a number, not"
            ):
                real_number(GAUGE, "set to", value)  # type: ignore[arg-type]

    def test_tooLarge(self) -> None:
        for value in (10**400, 10**5000, fractions.Fraction(10**400, 3)):
            with self.assertRaisesRegex(
                ValueError, "gauge 'load': set to .*: must be a number that a float can hold"
            ):
                real_number(GAUGE, "set to", value)

    def test_conversionRaises(self) -> None:
        """The error names the metric, the rule and the exception, which is its cause."""

        class Duration(datetime.timedelta):
            def total_seconds(self) -> float:
                raise ValueError("sensor offline")

        for value, error, cause in (
            (Raising(ValueError("sensor offline")), ValueError, r"ValueError\('sensor offline'\)"),
            (Raising(TypeError("no number")), TypeError, r"TypeError\('no number'\)"),
            (Duration(1), ValueError, r"ValueError\('sensor offline'\)"),
            (decimal.Decimal("sNaN"), ValueError, r"ValueError\('cannot convert signaling NaN"),
        ):
            with self.assertRaisesRegex(
                error,
                "gauge 'load': set to .*: must be a number, but its conversion raised " + cause,
            ) as caught:
                real_number(GAUGE, "set to", value)
            self.assertIsNotNone(caught.exception.__cause__)

    def test_interrupted(self) -> None:
        """Exceptions that end the program propagate unchanged."""

        class Interrupted:
            def __float__(self) -> float:
                raise KeyboardInterrupt

        self.assertRaises(KeyboardInterrupt, real_number, GAUGE, "set to", Interrupted())


class OperationTests(SynchronousTestCase):
    def test_kind(self) -> None:
        """Each operation applies to the kind in its name."""
        for operation in Operation:
            self.assertTrue(operation.name.endswith(operation.kind.name), operation)
