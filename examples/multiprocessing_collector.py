"""
A pool of processes that report to a collector.

    mkdir -p /tmp/shop
    twistd -n metrics-tcp --collect unix:/tmp/shop/metrics.sock
    python examples/multiprocessing_collector.py

The argument is another endpoint.
"""

import sys
from multiprocessing import get_context

from txmetrics_tcp import TcpBuilder, counter, histogram

jobs = counter("jobs_total")
duration = histogram("job_seconds")


def report(collector: str) -> None:
    """Runs in each process of the pool."""
    TcpBuilder().report_to(collector).install_in_thread()


@duration.time()
def work(number: int) -> int:
    jobs.increment()
    return number * number


def main() -> None:
    collector = sys.argv[1] if len(sys.argv) > 1 else "unix:/tmp/shop/metrics.sock"
    # Each process is replaced after 100 jobs.
    pool = get_context("spawn").Pool(2, report, (collector,), maxtasksperchild=100)
    print(sum(pool.imap_unordered(work, range(1000))))
    # Unlike terminate(), which is the end of a with statement, this lets the processes end.
    pool.close()
    pool.join()


if __name__ == "__main__":
    main()
