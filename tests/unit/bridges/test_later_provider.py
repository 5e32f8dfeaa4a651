"""
Streams of programs that set their own OpenTelemetry provider later.
"""

from __future__ import annotations

from typing import Any
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from txmetrics_tcp.testing import capture

no_api = needs("opentelemetry.metrics")
if not no_api:
    from opentelemetry import metrics
    from opentelemetry.metrics import Meter, MeterProvider, NoOpMeter

    from txmetrics_tcp.bridges._later_provider import stream_later_provider

    class FakeProvider(MeterProvider):
        """
        @ivar calls: the methods that were called, with their arguments.
        """

        def __init__(self) -> None:
            self.calls: list[object] = []

        def get_meter(self, *arguments: Any) -> Meter:
            self.calls.append(arguments)
            return NoOpMeter(arguments[0])

        def force_flush(self, timeout_millis: float) -> bool:
            self.calls.append("flush")
            return False

        def shutdown(self, timeout_millis: float) -> None:
            self.calls.append("shutdown")


@skipIf(no_api, no_api)
class LaterProviderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.set: list[Any] = []
        self.patch(metrics, "set_meter_provider", self.set.append)
        stream_later_provider()
        [self.provider] = self.set

    def test_notSet(self) -> None:
        """Without another provider, measurements are streamed."""
        with capture() as captured:
            self.provider.get_meter("shop").create_counter("orders").add(3)
        self.assertEqual(captured.total("orders"), 3)
        self.assertTrue(self.provider.force_flush())
        self.provider.shutdown()

    def test_set(self) -> None:
        """The provider that the program sets gets meters made before and after, and calls."""
        self.provider.get_meter("before", "1")
        own = FakeProvider()
        metrics.set_meter_provider(own)
        self.provider.get_meter("after", "2", "schema", {"a": "b"})
        self.assertFalse(self.provider.force_flush())
        self.provider.shutdown()
        self.assertEqual(
            own.calls,
            [("before", "1", None), ("after", "2", "schema", {"a": "b"}), "flush", "shutdown"],
        )
        self.assertEqual(self.set, [self.provider])

    def test_second(self) -> None:
        """The API refuses a second provider."""
        first, second = FakeProvider(), FakeProvider()
        metrics.set_meter_provider(first)
        metrics.set_meter_provider(second)
        self.provider.get_meter("shop")
        self.assertEqual((len(first.calls), second.calls), (1, []))
        self.assertEqual(self.set, [self.provider, second])
