"""
Counts of Python's logging.
"""

from __future__ import annotations

import logging
import logging.config
from collections import Counter
from typing import Any
from unittest import mock

from tests.recorders import GlobalRecorderTestCase, ListRecorder
from txmetrics_tcp import set_global_recorder
from txmetrics_tcp.bridges import logging as bridge
from txmetrics_tcp.bridges.logging import CountingHandler


class HandlerTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        # A tree of loggers of its own.
        self.root = logging.RootLogger(logging.NOTSET)
        self.manager = logging.Manager(self.root)

    def log(self, name: str) -> logging.Logger:
        return self.manager.getLogger(name)

    def handle(self, handler: CountingHandler) -> CountingHandler:
        self.root.addHandler(handler)
        return handler

    def counted(self) -> Counter[str]:
        return Counter(
            name.removeprefix("python_log_records_total ") for name, _, _ in self.recorder.take()
        )

    def test_levels(self) -> None:
        """Levels that a program adds have one label."""
        self.handle(CountingHandler(recorder=self.recorder))
        for level in (5, 10, 20, 25, 30, 40, 50, 60):
            self.log("shop").log(level, "something")
        self.assertEqual(
            self.counted(),
            {
                f"[level = {level}, logger = shop]": 3 if level == "other" else 1
                for level in ("debug", "info", "warning", "error", "critical", "other")
            },
        )

    def test_lowest_level(self) -> None:
        self.handle(CountingHandler("ERROR", self.recorder))
        self.log("shop").warning("something")
        self.log("shop").error("something")
        self.assertEqual(self.counted(), {"[level = error, logger = shop]": 1})

    def test_root(self) -> None:
        self.handle(CountingHandler(recorder=self.recorder))
        self.root.info("something")
        self.assertEqual(self.counted(), {"[level = info, logger = root]": 1})

    def test_maximum(self) -> None:
        """Each logger after the first ones is another one."""
        self.handle(CountingHandler(recorder=self.recorder, max_loggers=2))
        for name in ("a", "b", "c", "d", "a", "c"):
            self.log(name).info("something")
        self.assertEqual(
            self.counted(),
            {
                "[level = info, logger = a]": 2,
                "[level = info, logger = b]": 1,
                "[level = info, logger = other]": 3,
            },
        )

    def test_default_maximum(self) -> None:
        handler = self.handle(CountingHandler(recorder=self.recorder))
        for number in range(2 * bridge.MAX_NAMES):
            self.log(f"request.{number}").info("something")
        self.assertEqual(len(self.recorder.series), bridge.MAX_NAMES + 1)
        self.assertEqual(len(handler._counts._increments), bridge.MAX_NAMES + 1)

    def test_own(self) -> None:
        """This library's records are not counted."""
        self.handle(CountingHandler(recorder=self.recorder))
        for name in ("txmetrics_tcp", "txmetrics_tcp.part", "txmetrics_tcp_shop"):
            self.log(name).info("something")
        self.assertEqual(self.counted(), {"[level = info, logger = txmetrics_tcp_shop]": 1})

    def test_recursion(self) -> None:
        """What a recorder logs while it records is not counted."""
        log = self.log("recorder")

        class LoggingRecorder(ListRecorder):
            def attach(self, key: Any) -> Any:
                log.info("attached")
                return super().attach(key)

        recorder = LoggingRecorder()
        self.handle(CountingHandler(recorder=recorder))
        self.log("shop").info("something")
        self.assertEqual([dict(key.labels)["logger"] for key in recorder.series], ["shop"])

    def test_recorder_fails(self) -> None:
        """The program notices nothing, and other handlers have the record."""
        self.recorder.sink.log = mock.Mock(append=mock.Mock(side_effect=OSError("full")))
        self.handle(CountingHandler(recorder=self.recorder))
        other = mock.Mock(level=0)
        self.root.addHandler(other)
        self.log("shop").info("something")
        self.assertEqual(other.handle.call_count, 1)

    def test_too_long(self) -> None:
        """The name of a logger that cannot be a label."""
        self.handle(CountingHandler(recorder=self.recorder))
        self.log("a" * 70_000).info("something")
        self.assertEqual(self.counted(), {})

    def test_no_lock(self) -> None:
        """A thread that logs does not wait for another one."""
        handler = self.handle(CountingHandler(recorder=self.recorder))
        self.patch(handler, "lock", None)
        self.log("shop").info("something")
        self.assertEqual(self.counted(), {"[level = info, logger = shop]": 1})

    def test_filter(self) -> None:
        handler = self.handle(CountingHandler(recorder=self.recorder))
        handler.addFilter(lambda record: record.levelno > logging.INFO)
        self.log("shop").info("something")
        self.log("shop").error("something")
        self.assertEqual(self.counted(), {"[level = error, logger = shop]": 1})

    def test_configuration(self) -> None:
        """The handler can be configured by name; its recorder is the global one."""
        configuration = {
            "class": "txmetrics_tcp.bridges.logging.CountingHandler",
            "level": "WARNING",
            "max_loggers": 5,
        }
        configurator = logging.config.DictConfigurator({"version": 1})
        self.root.addHandler(configurator.configure_handler(configuration))
        log = self.log("shop")
        log.error("before the recorder is installed")
        set_global_recorder(self.recorder)
        log.error("something")
        log.info("something")
        self.assertEqual(self.counted(), {"[level = error, logger = shop]": 1})
        self.assertEqual(self.recorder.described, [bridge.METADATA])

    def test_wrong(self) -> None:
        wrong: Any = "recorder"
        self.assertRaises(TypeError, CountingHandler, recorder=wrong)
        self.assertRaises(ValueError, CountingHandler, max_loggers=-1)
        self.assertRaises(ValueError, CountingHandler, "LOUD")
