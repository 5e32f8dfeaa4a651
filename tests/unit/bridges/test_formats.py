"""
The exposition formats: accepted by strict parsers, whatever the names, labels, values and units.
"""

from __future__ import annotations

from unittest import skipIf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from txmetrics_tcp import Distribution, Key, Metadata, MetricKind, Unit
from txmetrics_tcp._model import Total
from txmetrics_tcp.bridges._families import SLICE, Families, Family, Source
from txmetrics_tcp.bridges._formats import OPEN_METRICS, PROTOBUF, TEXT, Format

no_client = needs("prometheus_client")

NAMES = st.sampled_from(
    ["a", "a_total", "a_count", "a_sum", "a_bucket", "a_created", "a.b", "a_b", "9", "_", "é", ":x"]
) | st.text(min_size=1, max_size=5)
LABELS = st.dictionaries(
    st.sampled_from(["le", "quantile", "__name__", "a.b", "a_b", "1"]) | st.text(min_size=1),
    st.sampled_from(["", 'a"b', "\\", "\n", "\r", "x"]) | st.text(),
    max_size=3,
)
COUNTS = st.integers(0, 2**64 - 1)
DISTRIBUTIONS = st.lists(st.floats()).map(Distribution.of)


@st.composite
def totals(draw: st.DrawFn) -> dict[Key, Total]:
    """Return some series with their totals."""
    found: dict[Key, Total] = {}
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(MetricKind))
        key = Key(kind, draw(NAMES), tuple(sorted(draw(LABELS).items())))
        if kind is MetricKind.COUNTER:
            found[key] = draw(COUNTS)
        elif kind is MetricKind.GAUGE:
            found[key] = draw(st.floats())
        else:
            found[key] = draw(DISTRIBUTIONS)
    return found


UNITS = (
    st.none()
    | st.sampled_from([str(unit) for unit in Unit])
    | st.sampled_from(["a", "b", "total", "count", "sum", "bucket", "created"])
    | st.text()
)
DESCRIPTIONS = st.lists(
    st.builds(
        Metadata,
        st.sampled_from(MetricKind),
        NAMES,
        UNITS,
        st.text(),
    )
)


def families(source: Source) -> tuple[list[Family], Families]:
    made = Families(lambda metric, family: None)
    collecting = made.collect([source])
    while True:
        try:
            next(collecting)
        except StopIteration as done:
            return done.value, made


def render(form: Format, found: list[Family], made: Families) -> bytes:
    return b"".join(form.encode([*found, *made.own()], lambda family: (0.1, 1.0, 5.0)))


class FormatTests(SynchronousTestCase):
    @skipIf(no_client, no_client)
    @given(totals(), DESCRIPTIONS)
    def test_openMetrics(self, series: dict[Key, Total], descriptions: list[Metadata]) -> None:
        """The strict parser of prometheus_client accepts every response in OpenMetrics."""
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict

        found, made = families(Source((), series, descriptions))
        parsed = list(strict(render(OPEN_METRICS, found, made).decode()))
        self.assertEqual(len(parsed), len(found) + 1)

    @skipIf(no_client, no_client)
    @given(totals(), DESCRIPTIONS)
    def test_text(self, series: dict[Key, Total], descriptions: list[Metadata]) -> None:
        """The parser of prometheus_client reads the same families from the text format."""
        from prometheus_client.parser import text_string_to_metric_families as lenient

        found, made = families(Source((), series, descriptions))
        parsed = list(lenient(render(TEXT, found, made).decode()))
        self.assertEqual([one.name for one in parsed][:-1], [one.name for one in found])

    def test_units(self) -> None:
        """OpenMetrics has the unit of a name that ends with it; others fail a scrape."""
        series: dict[Key, Total] = {
            Key.of(MetricKind.COUNTER, "read_bytes_total"): 1,
            Key.of(MetricKind.GAUGE, "memory"): 1.0,
        }
        descriptions = [Metadata(key.kind, key.name, Unit.BYTES, "") for key in series]
        found, made = families(Source((), series, descriptions))
        text = render(OPEN_METRICS, found, made)
        self.assertIn(b"# UNIT read_bytes bytes\n", text)
        self.assertEqual(text.count(b"# UNIT"), 1)

    def test_wholeNumbers(self) -> None:
        """A counter has all of its digits."""
        key = Key.of(MetricKind.COUNTER, "c")
        found, made = families(Source((), {key: 2**64 - 1}, []))
        self.assertIn(b"\nc_total 18446744073709551615\n", render(TEXT, found, made))

    def test_percentSigns(self) -> None:
        """The labels of a histogram may have percent signs; those of each line are the same."""
        key = Key.of(MetricKind.HISTOGRAM, "h", {"a": "5 %d %"})
        found, made = families(Source((), {key: Distribution.of([0.5, 2.0])}, []))
        lines = render(TEXT, found, made).decode().splitlines()
        self.assertEqual(
            lines[1:7],
            [
                'h_bucket{a="5 %d %",le="0.1"} 0',
                'h_bucket{a="5 %d %",le="1.0"} 1',
                'h_bucket{a="5 %d %",le="5.0"} 2',
                'h_bucket{a="5 %d %",le="+Inf"} 2',
                'h_sum{a="5 %d %"} 2.5',
                'h_count{a="5 %d %"} 2',
            ],
        )

    def test_smallFamilies(self) -> None:
        """Many small families are in one piece: each piece costs an iteration of the reactor."""
        series: dict[Key, Total] = {
            Key.of(MetricKind.GAUGE, f"g{number}"): 1.0 for number in range(SLICE)
        }
        found, _ = families(Source((), series, []))
        for form in TEXT, OPEN_METRICS, PROTOBUF:
            pieces = [piece for piece in form.encode(found, lambda family: ()) if piece]
            self.assertEqual(len(pieces), 1)

    def test_longLabels(self) -> None:
        """Text with long labels is in small pieces, since each bucket repeats the labels."""
        series: dict[Key, Total] = {
            Key.of(MetricKind.HISTOGRAM, "h", {"a": f"{number}" + "x" * 50_000}): Distribution.EMPTY
            for number in range(20)
        }
        found, _ = families(Source((), series, []))
        self.assertLess(max(map(len, TEXT.encode(found, lambda family: (1.0, 2.0)))), 500_000)

    def test_withoutLabels(self) -> None:
        """The buckets of a histogram without labels have the label C{le} only."""
        found, made = families(
            Source((), {Key.of(MetricKind.HISTOGRAM, "h"): Distribution.EMPTY}, [])
        )
        lines = render(TEXT, found, made).decode().splitlines()
        self.assertEqual(lines[1:3], ['h_bucket{le="0.1"} 0', 'h_bucket{le="1.0"} 0'])
        self.assertEqual(lines[4:7], ['h_bucket{le="+Inf"} 0', "h_sum 0.0", "h_count 0"])
