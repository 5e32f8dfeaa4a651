"""
A program that is instrumented with OpenTelemetry, and streams its measurements.

    OTEL_PYTHON_METER_PROVIDER=txmetrics python examples/opentelemetry_app.py [ENDPOINT]

Watch with C{metrics-tcp tail}, and stop with Ctrl-C.
"""

import queue
import random
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

from opentelemetry import metrics

from txmetrics_tcp import TcpBuilder

waiting: queue.Queue[str] = queue.Queue()


def observe_waiting(options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
    yield metrics.Observation(waiting.qsize())


meter = metrics.get_meter("shop")
orders = meter.create_counter("shop.orders", "{order}", "Orders by kind.")
duration = meter.create_histogram("shop.order.duration", "s", "How long orders take.")
meter.create_observable_gauge("shop.orders.waiting", [observe_waiting], "{order}")


def serve() -> None:
    while True:
        for _ in range(random.randrange(3)):
            waiting.put(random.choice(["book", "music"]))
        start = time.monotonic()
        time.sleep(random.uniform(0.01, 0.03))
        if not waiting.empty():
            attributes: dict[str, str | bool] = {"kind": waiting.get(), "express": False}
            orders.add(1, attributes)
            duration.record(time.monotonic() - start, attributes)


def main() -> None:
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5000"
    with TcpBuilder().listen_address(endpoint).install_in_thread() as exporter:
        print(f"Streaming metrics on {exporter.addresses[0]}", flush=True)
        serve()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
