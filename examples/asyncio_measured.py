"""
A program that streams the lag of its asyncio event loop, the number of tasks, and what it logs.

    python examples/asyncio_measured.py [ENDPOINT]

Watch with C{metrics-tcp observe}, and stop with Ctrl-C.
"""

import asyncio
import logging
import sys
import time
from contextlib import suppress

from txmetrics_tcp import TcpBuilder
from txmetrics_tcp.bridges.asyncio import measure_loop
from txmetrics_tcp.bridges.logging import CountingHandler

log = logging.getLogger("worker")


async def work() -> None:
    while True:
        await asyncio.sleep(0.1)
        time.sleep(0.02)  # blocks the loop
        log.info("worked")


async def main() -> None:
    measure_loop()
    await asyncio.gather(*(work() for _ in range(3)))


if __name__ == "__main__":
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5000"
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    logging.getLogger().addHandler(CountingHandler())
    with TcpBuilder().listen_address(endpoint).install_in_thread() as metrics:
        print(f"Streaming metrics on {metrics.addresses[0]}", flush=True)
        with suppress(KeyboardInterrupt):
            asyncio.run(main())
