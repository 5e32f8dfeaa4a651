"""
A program that measures with prometheus_client, and streams what it measures.

    python examples/prometheus_client_program.py [ENDPOINT]

Watch with C{metrics-tcp tail}, and stop with Ctrl-C.
"""

import random
import sys
import time
from contextlib import suppress

from prometheus_client import Counter, Histogram

from txmetrics_tcp import TcpBuilder
from txmetrics_tcp.bridges.prometheus import stream

jobs = Counter("jobs", "Finished jobs.", ["queue"])
seconds = Histogram("job_seconds", "Time of a job.")


def main() -> None:
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5000"
    with TcpBuilder().listen_address(endpoint).install_in_thread() as metrics:
        stream()
        print(f"Streaming metrics on {metrics.addresses[0]}", flush=True)
        while True:
            with seconds.time():
                time.sleep(random.uniform(0.0, 0.1))
            jobs.labels("mail").inc()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
