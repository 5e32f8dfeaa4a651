"""
A threaded program without an event loop that streams its metrics.

    python examples/threaded.py [ENDPOINT]

Watch with C{metrics-tcp tail}, and stop with Ctrl-C.
"""

import queue
import random
import sys
import threading
import time
from contextlib import suppress

from txmetrics_tcp import TcpBuilder, counter, describe_histogram, gauge, histogram

describe_histogram("job_seconds", "seconds", "How long jobs take.")

finished = counter("jobs_total", result="finished")
failed = counter("jobs_total", result="failed")
waiting = gauge("jobs_waiting")
running = gauge("jobs_running")
duration = histogram("job_seconds")

jobs: queue.Queue[float] = queue.Queue()


@duration.time()
@running.track_inprogress()
@failed.count_exceptions()
def do(job: float) -> None:
    time.sleep(job)
    if job > 0.09:
        raise ValueError("the job took too long")


def work() -> None:
    while True:
        job = jobs.get()
        waiting.set(jobs.qsize())
        try:
            do(job)
        except ValueError:
            continue
        finished.increment()


def main() -> None:
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5000"
    # Pending events are sent at the end of the block, and when the program exits.
    with TcpBuilder().listen_address(endpoint).install_in_thread() as metrics:
        print(f"Streaming metrics on {metrics.addresses[0]}", flush=True)
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        while True:
            jobs.put(random.uniform(0.0, 0.1))
            waiting.set(jobs.qsize())
            time.sleep(0.02)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
