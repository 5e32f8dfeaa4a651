"""
An asyncio program that streams its metrics from a separate thread.

    python examples/asyncio_thread.py [ENDPOINT]

This works with any event loop.  Watch with C{metrics-tcp tail}, and stop with Ctrl-C.
"""

import asyncio
import random
import signal
import sys
from contextlib import suppress

from txmetrics_tcp import TcpBuilder, counter, gauge, histogram

requests = counter("requests_total", service="example")
running = gauge("requests_running")
latency = histogram("request_seconds")


@latency.time()
@running.track_inprogress()
async def handle(route: str) -> None:
    await asyncio.sleep(random.uniform(0.0, 0.05))
    requests.labels(route=route).increment()


async def serve() -> None:
    task = asyncio.current_task()
    assert task is not None
    # Without this, Python 3.10 would raise KeyboardInterrupt in arbitrary code.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    while True:
        await asyncio.gather(*[handle(route) for route in ("/", "/cart", "/checkout")])


def main() -> None:
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5000"
    # Starting and stopping block until the other thread is ready, so do both outside the loop.
    with TcpBuilder().listen_address(endpoint).install_in_thread() as metrics:
        print(f"Streaming metrics on {metrics.addresses[0]}", flush=True)
        asyncio.run(serve())


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        main()
