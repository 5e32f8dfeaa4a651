"""
Statistics of Scrapy.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from unittest import mock, skipIf

from tests import needs
from tests.recorders import GlobalRecorderTestCase
from txmetrics_tcp import Operation, Unit, set_global_recorder

missing = needs("scrapy")
if not missing:
    from scrapy.settings import Settings
    from scrapy.statscollectors import MemoryStatsCollector

    from txmetrics_tcp.bridges import scrapy as bridge
    from txmetrics_tcp.bridges.scrapy import StreamingStatsCollector, _Statistic


@skipIf(missing, missing)
class StatsCollectorTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        set_global_recorder(self.recorder)
        self.crawler: Any = SimpleNamespace(
            settings=Settings(), spidercls=SimpleNamespace(name="pages"), spider=None
        )
        self.stats: Any = StreamingStatsCollector(self.crawler)
        self.first = self.taken()

    def taken(self) -> list[tuple[str, Operation | None, object]]:
        """Return the events, without the label of the spider."""
        found = []
        for name, operation, value in self.recorder.take():
            self.assertIn("spider = pages", name)
            name = name.replace(", spider = pages", "").replace(" [spider = pages]", "")
            found.append((name.replace("spider = pages, ", ""), operation, value))
        return found

    def test_first(self) -> None:
        """
        A collector makes its first handle, which may start the exporter, when it is made, and not
        in a handler of the log.
        """
        self.assertEqual(
            self.first, [("scrapy_response_received_total", Operation.INCREMENT_COUNTER, 0)]
        )
        self.assertEqual(self.stats.get_stats(), {})

    def test_increment(self) -> None:
        self.stats.inc_value("downloader/response_count")
        self.stats.inc_value("downloader/response_bytes", 500)
        self.stats.inc_value("downloader/response_bytes", count=7)
        self.stats.inc_value("later", 1, start=10)
        self.stats.inc_value("nothing", 0)
        increment = Operation.INCREMENT_COUNTER
        self.assertEqual(
            self.taken(),
            [
                ("scrapy_downloader_response_total", increment, 1),
                ("scrapy_downloader_response_bytes_total", increment, 500),
                ("scrapy_downloader_response_bytes_total", increment, 7),
                ("scrapy_later_total", increment, 11),
                ("scrapy_nothing_total", increment, 0),
            ],
        )

    def test_decrement(self) -> None:
        """The values of statistics that fall, or have fractions, are gauges."""
        self.stats.inc_value("free", -1)
        self.stats.inc_value("free", 5)
        self.stats.inc_value("hours", 0.5)
        self.stats.inc_value("errors", 5)
        self.stats.inc_value("errors", -2)
        self.stats.inc_value("errors", 1.5)
        self.stats.inc_value("errors", -9)
        self.assertEqual(
            self.taken(),
            [
                ("scrapy_free", Operation.SET_GAUGE, -1.0),
                ("scrapy_free", Operation.SET_GAUGE, 4.0),
                ("scrapy_hours", Operation.SET_GAUGE, 0.5),
                ("scrapy_errors_total", Operation.INCREMENT_COUNTER, 5),
                ("scrapy_errors_total", Operation.SET_COUNTER, 3),
                ("scrapy_errors_total", Operation.SET_COUNTER, 4),
            ],
        )

    def test_set(self) -> None:
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
        self.stats.set_value("start_time", moment)
        self.stats.set_value("finish_time", moment.replace(tzinfo=None))
        self.stats.set_value("elapsed_time_seconds", 0.25)
        self.stats.set_value("break", timedelta(seconds=2))
        self.stats.set_value("memusage/limit_reached", True)
        self.stats.set_value("finish_reason", "finished")
        set_gauge = Operation.SET_GAUGE
        self.assertEqual(
            self.taken(),
            [
                ("scrapy_start_time_seconds", set_gauge, moment.timestamp()),
                ("scrapy_finish_time_seconds", set_gauge, moment.timestamp()),
                ("scrapy_elapsed_time_seconds", set_gauge, 0.25),
                ("scrapy_break", set_gauge, 2.0),
                ("scrapy_memusage_limit_reached", set_gauge, 1.0),
                ("scrapy_finish_reason [reason = finished]", set_gauge, 1.0),
            ],
        )

    def test_not_numbers(self) -> None:
        """Other values stay in Scrapy."""
        for value in (None, "text", [1], {"a": 1}, object()):
            self.stats.set_value("thing", value)
            self.assertIs(self.stats.get_value("thing"), value)
        self.assertEqual(self.taken(), [])

    def test_set_counter(self) -> None:
        """A statistic that was incremented stays a counter."""
        self.stats.inc_value("pages", 5)
        self.stats.set_value("pages", 2)
        self.stats.set_value("pages", -2)
        self.assertEqual(self.taken()[1:], [("scrapy_pages_total", Operation.SET_COUNTER, 2)])

    def test_extremes(self) -> None:
        for value in (3, 5, 4):
            self.stats.max_value("request_depth_max", value)
            self.stats.min_value("least", value)
        self.assertEqual(
            [(name, value) for name, _, value in self.taken()],
            [
                *[("scrapy_request_depth_max", 3.0), ("scrapy_least", 3.0)],
                *[("scrapy_request_depth_max", 5.0), ("scrapy_least", 3.0)] * 2,
            ],
        )

    def test_replaced(self) -> None:
        self.stats.set_stats({"a": 1, "b": None})
        self.assertEqual(self.taken(), [("scrapy_a", Operation.SET_GAUGE, 1.0)])
        self.stats.clear_stats()
        self.stats.inc_value("a")
        self.assertEqual(self.taken(), [("scrapy_a", Operation.SET_GAUGE, 1.0)])

    def test_names(self) -> None:
        """The members of a group are series of one metric."""
        expected = {
            "downloader/response_status_count/404": (
                "downloader_response_status",
                {"status": "404"},
            ),
            "downloader/request_method_count/GET": (
                "downloader_request_method",
                {"method": "GET"},
            ),
            "downloader/exception_type_count/a.b.Error": (
                "downloader_exception_type",
                {"exception": "a.b.Error"},
            ),
            "retry/reason_count/504 Gateway Time-out": (
                "retry_reason",
                {"reason": "504 Gateway Time-out"},
            ),
            "retry/count": ("retry", {}),
            "log_count/INFO": ("log", {"level": "INFO"}),
            "spider_exceptions/KeyError": ("spider_exception_type", {"exception": "KeyError"}),
            "spider_exceptions/count": ("spider_exceptions", {}),
            "feedexport/success_count/FileFeedStorage": (
                "feedexport_success",
                {"storage": "FileFeedStorage"},
            ),
            "memdebug/live_refs/Request": ("memdebug_live_refs", {"class": "Request"}),
            "shop_count/a/b": ("shop", {"value": "a/b"}),
            "scheduler/enqueued": ("scheduler_enqueued", {}),
            "scheduler/enqueued/memory": ("scheduler_enqueued_memory", {}),
            "item_scraped_count": ("item_scraped", {}),
            "shop.de/größe": ("shop_de_gr_e", {}),
        }
        for key, (name, labels) in expected.items():
            found = _Statistic.of(key)
            self.assertEqual((found.name, found.labels), (f"scrapy_{name}", labels), key)

    def test_described(self) -> None:
        self.recorder.described.clear()
        self.stats.inc_value("downloader/response_status_count/200")
        self.stats.inc_value("downloader/response_status_count/404")
        self.stats.inc_value("downloader/response_bytes")
        self.stats.set_value("memusage/max", 1)
        self.stats.set_value("start_time", datetime.now(timezone.utc))
        self.assertEqual(
            [(one.name, one.unit, one.description) for one in self.recorder.described],
            [
                (
                    "scrapy_downloader_response_status_total",
                    Unit.COUNT,
                    "Scrapy's statistic downloader/response_status_count.",
                ),
                (
                    "scrapy_downloader_response_bytes_total",
                    Unit.BYTES,
                    "Scrapy's statistic downloader/response_bytes.",
                ),
                ("scrapy_memusage_max", Unit.BYTES, "Scrapy's statistic memusage/max."),
                ("scrapy_start_time_seconds", Unit.SECONDS, "Scrapy's statistic start_time."),
            ],
        )

    def test_maximum(self) -> None:
        """Too many statistics are logged once, and Scrapy has all."""
        logger = mock.Mock()
        self.patch(bridge, "_log", logger)
        for number in range(bridge.MAX_STATS + 50):
            self.stats.inc_value(f"site/{number}")
        self.assertEqual(len(self.recorder.series), bridge.MAX_STATS)
        self.assertEqual(logger.warning.call_count, 1)
        self.assertEqual(len(self.stats.get_stats()), bridge.MAX_STATS + 50)

    def test_logging(self) -> None:
        """Scrapy's handler counts what is logged, also this warning."""
        self.patch(bridge, "MAX_STATS", 0)

        class Handler(logging.Handler):
            def emit(handler, record: logging.LogRecord) -> None:
                self.stats.inc_value(f"log_count/{record.levelname}")

        handler = Handler()
        bridge._log.addHandler(handler)
        self.addCleanup(bridge._log.removeHandler, handler)
        self.stats.inc_value("a")
        self.assertEqual(self.stats.get_stats(), {"a": 1, "log_count/WARNING": 1})

    def test_recorder_fails(self) -> None:
        self.recorder.sink.log = mock.Mock(append=mock.Mock(side_effect=OSError("full")))
        self.stats.inc_value("a")
        self.stats.set_value("b", 1)
        self.stats.max_value("c", 1)
        self.assertEqual(self.stats.get_stats(), {"a": 1, "b": 1, "c": 1})

    def test_too_long(self) -> None:
        """Keys that cannot be a name, or are not text."""
        for key in ("a" * 70_000, "x_count/\ud800", 5, None):
            self.stats.inc_value(key)
            self.stats.set_value(key, 2)
            self.assertEqual(self.stats.get_value(key), 2)
        self.assertEqual(self.taken(), [])

    def test_same(self) -> None:
        """Values, errors and texts are those of Scrapy's default collector."""
        default: Any = MemoryStatsCollector(self.crawler)
        for stats in (self.stats, default):
            stats.set_value("text", "x")
            self.assertRaises(TypeError, stats.inc_value, "text")
            stats.inc_value("a", 2, 5)
            stats.max_value("b", 1)
            stats.min_value("c", 1)
            stats.set_value("d", None)
            self.assertEqual(stats.get_value("nothing", 7), 7)
        self.assertEqual(self.stats.get_stats(), default.get_stats())

    def test_unnamed(self) -> None:
        """A spider without a name."""
        self.crawler.spidercls = None
        StreamingStatsCollector(self.crawler).inc_value("a")
        self.assertEqual(
            [name for name, _, _ in self.recorder.take()],
            [f"scrapy_{name}_total [spider = unknown]" for name in ("response_received", "a")],
        )
