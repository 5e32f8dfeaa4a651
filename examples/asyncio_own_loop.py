"""
An asyncio program, optionally on uvloop, that streams its metrics from its own event loop.

Twisted's asyncio reactor runs on the program's loop, so everything happens in one thread.

    python examples/asyncio_own_loop.py [--uvloop] [ENDPOINT]

Watch with C{metrics-tcp tail}, and stop with Ctrl-C.  If a framework runs the loop, a web server
for example, stream from a separate thread instead: see asyncio_thread.py.
"""

import asyncio
import random
import sys
from typing import Any

from twisted.internet import asyncioreactor, task
from twisted.internet.defer import Deferred

from txmetrics_tcp import TcpBuilder, counter, gauge, histogram

requests = counter("requests_total", service="example")
running = gauge("requests_running")
latency = histogram("request_seconds")


@latency.time()
@running.track_inprogress()
async def handle(route: str) -> None:
    await asyncio.sleep(random.uniform(0.0, 0.05))
    requests.labels(route=route).increment()


async def serve(reactor: Any, endpoint: str) -> None:
    started = TcpBuilder(reactor).listen_address(endpoint).install()
    recorder = await started.asFuture(asyncio.get_running_loop())
    # Send pending events before the loop stops, also after Ctrl-C.
    reactor.addSystemEventTrigger("before", "shutdown", recorder.stop)
    print(f"Streaming metrics on {recorder.addresses[0]}", flush=True)
    while True:
        await asyncio.gather(*[handle(route) for route in ("/", "/cart", "/checkout")])


def main() -> None:
    arguments = sys.argv[1:]
    if "--uvloop" in arguments:
        import uvloop

        arguments.remove("--uvloop")
        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    # Must precede any import of twisted.internet.reactor, which would install another reactor.
    asyncioreactor.install(loop)
    endpoint = arguments[0] if arguments else "127.0.0.1:5000"
    # Runs the reactor, and with it the loop, until Ctrl-C.
    task.react(lambda reactor: Deferred.fromFuture(loop.create_task(serve(reactor, endpoint))))


if __name__ == "__main__":
    main()
