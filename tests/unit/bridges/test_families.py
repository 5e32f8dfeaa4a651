"""
Families: valid names, units, and names that clash.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Distribution, Key, Metadata, MetricKind, Unit
from txmetrics_tcp._model import Labels, Total
from txmetrics_tcp.bridges._families import (
    SLICE,
    Families,
    Family,
    Own,
    Source,
    exposed_labels,
    label_name,
    label_text,
    metric_name,
)

COUNTER, GAUGE, HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM


def key(kind: MetricKind, name: str, *labels: tuple[str, str]) -> Key:
    return Key(kind, name, labels)


class NameTests(SynchronousTestCase):
    def test_metrics(self) -> None:
        """Invalid characters and a leading digit are replaced."""
        for name, valid in (
            ("http.requests", "http_requests"),
            ("a:b", "a:b"),
            ("2xx", "_2xx"),
            ("é", "_"),
            ("", ""),
        ):
            self.assertEqual(metric_name(name), valid)

    def test_labels(self) -> None:
        """Labels get no name that has a meaning for Prometheus."""
        for name, valid in (
            ("http.method", "http_method"),
            ("a:b", "a_b"),
            ("__name__", "exported__name__"),
            ("le", "exported_le"),
            ("", "_"),
        ):
            self.assertEqual(label_name(name), valid)

    def test_exposedLabels(self) -> None:
        """Labels are sorted and unique; those without a value are left out."""
        labels = (("a.b", "1"), ("a_b", "2"), ("empty", ""), ("source", "mine"))
        self.assertEqual(
            exposed_labels(labels, (("source", "web1"),)),
            (("a_b", "1;2"), ("exported_source", "mine"), ("source", "web1")),
        )

    def test_text(self) -> None:
        """Values of labels are escaped."""
        self.assertEqual(label_text((("a", 'x"\\\n'), ("b", "y"))), r'a="x\"\\\n",b="y"')


class FamiliesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clashes: list[tuple[str, str]] = []
        self.made = Families(lambda metric, family: self.clashes.append((metric, family)))

    def collect(
        self,
        series: dict[Key, Total],
        *descriptions: Metadata,
        labels: Labels = (),
        slices: int | None = None,
    ) -> list[Family]:
        """Return the families of one source."""
        collecting = self.made.collect([Source(labels, series, descriptions)])
        found = 0
        while True:
            try:
                next(collecting)
            except StopIteration as done:
                if slices is not None:
                    self.assertEqual(found, slices)
                return list(done.value)
            found += 1

    def test_types(self) -> None:
        """A counter has no suffix; a gauge that may be a counter is one."""
        families = self.collect(
            {
                key(COUNTER, "a_total"): 1,
                key(COUNTER, "b"): 2,
                key(GAUGE, "c_total"): 1.5,
                key(GAUGE, "d_total"): -1.5,
                key(GAUGE, "e_total"): float("nan"),
                key(HISTOGRAM, "f"): Distribution.of([1.0]),
            }
        )
        self.assertEqual(
            [(one.name, one.type) for one in families],
            [
                ("a", COUNTER),
                ("b", COUNTER),
                ("c", COUNTER),
                ("d_total", GAUGE),
                ("e_total", GAUGE),
                ("f", HISTOGRAM),
            ],
        )

    def test_sameSeries(self) -> None:
        """Totals of series that are the same in Prometheus become one."""
        one, two = Distribution.of([1.0]), Distribution.of([2.0])
        families = self.collect(
            {
                key(COUNTER, "a.b"): 2**64 - 1,
                key(COUNTER, "a_b_total"): 2,
                key(GAUGE, "g", ("x.y", "1")): 1.0,
                key(GAUGE, "g", ("x_y", "1")): 2.0,
                key(HISTOGRAM, "h"): one,
                key(HISTOGRAM, "h", ("empty", "")): two,
            }
        )
        self.assertEqual(
            [one.rows for one in families],
            [{"": 1}, {'x_y="1"': 2.0}, {"": Distribution.merge([one, two])}],
        )

    def test_clashes(self) -> None:
        """Of families that clash, the first one is exposed; each other one is reported once."""
        series: dict[Key, Total] = {
            key(HISTOGRAM, "a"): Distribution.EMPTY,
            key(GAUGE, "a_sum"): 1.0,
            key(COUNTER, "a.bucket", ("x", "1")): 1,
            key(COUNTER, "a.bucket", ("x", "2")): 1,
            key(GAUGE, ""): 1.0,
        }
        for _ in range(2):
            self.assertEqual([one.name for one in self.collect(series)], ["a"])
            self.assertEqual(self.made.left_out, {"name": 1, "clash": 3})
        self.assertEqual(self.clashes, [("a_sum", "a_sum"), ("a.bucket", "a_bucket")])
        (own,) = self.made.own()
        self.assertEqual(own.rows, {'reason="name"': 1, 'reason="clash"': 3})

    def test_own(self) -> None:
        """Metrics cannot have the names of further families of the exposition."""
        rows: dict[Labels, Total] = {(("source", "one"),): 3}
        made = Families(
            lambda metric, family: self.clashes.append((metric, family)),
            [Own("up", COUNTER, "Ups.", lambda: rows), Own("down", GAUGE, "", dict)],
        )
        self.made = made
        series: dict[Key, Total] = {
            key(GAUGE, "up.total"): 1.0,
            key(COUNTER, "up", ("source", "one")): 1,
            key(GAUGE, "down"): 1.0,
            key(GAUGE, "other"): 1.0,
        }
        self.assertEqual([one.name for one in self.collect(series)], ["other"])
        self.assertEqual(made.left_out, {"name": 0, "clash": 3})
        families = made.own()
        self.assertEqual([one.name for one in families], ["up", "txmetrics_exposition_left_out"])
        self.assertEqual(families[0].rows, {'source="one"': 3})

    def test_descriptions(self) -> None:
        """Families have the text and the unit of the description."""
        families = self.collect(
            {
                key(COUNTER, "read_bytes_total"): 1,
                key(HISTOGRAM, "time"): Distribution.EMPTY,
                key(GAUGE, "my_count"): 1.0,
            },
            Metadata(COUNTER, "read_bytes_total", Unit.BYTES, "Bytes."),
            Metadata(HISTOGRAM, "time", Unit.SECONDS, "Time."),
            Metadata(GAUGE, "my_count", Unit.COUNT, ""),
        )
        self.assertEqual(
            [(one.help, one.unit) for one in families],
            [("Bytes.", "bytes"), ("Time.", "seconds"), ("", "count")],
        )

    def test_sources(self) -> None:
        """Series of all sources with the same name are one family, with the sources' labels."""
        collecting = self.made.collect(
            Source((("source", name),), {key(COUNTER, "c", ("source", "x")): value}, ())
            for name, value in (("one", 1), ("two", 2))
        )
        with self.assertRaises(StopIteration) as caught:
            while True:
                next(collecting)
        (family,) = caught.exception.value
        self.assertEqual(
            family.rows,
            {
                'exported_source="x",source="one"': 1,
                'exported_source="x",source="two"': 2,
            },
        )

    def test_slices(self) -> None:
        """The work is done in slices."""
        series: dict[Key, Total] = {
            key(GAUGE, "g", ("n", str(number))): 1.0 for number in range(3 * SLICE)
        }
        self.collect(series, slices=3)
        described = [Metadata(GAUGE, f"d{number}", Unit.COUNT, "") for number in range(4 * SLICE)]
        self.collect(series, *described, slices=4)

    def test_sourceInSlices(self) -> None:
        """While a source works in slices, so does the collection of families."""
        series: dict[Key, Total] = {key(GAUGE, "g"): 1.0}

        def sources() -> Iterator[Source | None]:
            yield None
            yield None
            yield Source((), series, [])

        collecting = self.made.collect(sources())
        slices = 0
        while True:
            try:
                next(collecting)
            except StopIteration as done:
                [family] = done.value
                break
            slices += 1
        self.assertEqual((family.name, family.rows), ("g", {"": 1.0}))
        self.assertGreaterEqual(slices, 3)

    def test_cachesBounded(self) -> None:
        """What is kept of series that are gone is bounded."""
        for begin in range(0, 20 * SLICE, 50):
            self.collect({key(GAUGE, "g", ("n", str(begin + number))): 1.0 for number in range(50)})
        (known,) = self.made._exposed.values()
        self.assertLessEqual(len(known), 2 * SLICE)

    def test_quantilesClash(self) -> None:
        """Quantiles are left out, and reported once, if a metric has their name."""
        self.made = Families(
            lambda metric, family: self.clashes.append((metric, family)), quantiles=[0.5]
        )
        for _ in range(2):
            self.collect(
                {
                    key(GAUGE, "h_quantile"): 1.0,
                    key(HISTOGRAM, "h"): Distribution.of([3.0]),
                }
            )
        self.assertEqual(self.clashes, [("h_quantile", "h_quantile")])
        self.assertEqual(self.made.left_out, {"name": 0, "clash": 1})

    def test_quantiles(self) -> None:
        """Quantiles on request are gauges with the label quantile."""
        self.made = Families(lambda metric, family: None, quantiles=[0.5, 1])
        family = self.collect(
            {
                key(HISTOGRAM, "h", ("a", "b")): Distribution.of([1.0, 2.0, 4.0]),
                key(HISTOGRAM, "i"): Distribution.of([3.0]),
                key(GAUGE, "i_quantile"): 1.0,
            },
            Metadata(HISTOGRAM, "h", Unit.SECONDS, "Time."),
        )[1]
        middle = Distribution.of([1.0, 2.0, 4.0]).quantile(0.5)
        self.assertEqual(
            family[:5],
            (
                "h_quantile",
                GAUGE,
                "Time.",
                "seconds",
                {'a="b",quantile="0.5"': middle, 'a="b",quantile="1.0"': 4.0},
            ),
        )
        self.assertEqual(list(family.rows), list(family.pairs))
        self.assertEqual(self.made.left_out, {"name": 0, "clash": 1})
