"""
Line 7: a copy of a handle is the same handle, and a pickle finds it again, also in a process that
C{multiprocessing} spawns.
"""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

from tests.faults import Report, exporter, outcome, run
from txmetrics_tcp import Counter, counter, histogram


class Job:
    def __init__(self) -> None:
        self.done = counter("jobs_total", queue="a")
        self.latency = histogram("job_seconds").time()

    def run(self) -> str:
        self.done.increment()
        return str(self.done.key)


def main(report: Report) -> None:
    job = Job()
    copies: dict[str, Counter] = {}
    for name, call in {
        "copy": lambda: copy.copy(job.done),
        "deepcopy": lambda: copy.deepcopy(job).done,
        "pickle": lambda: pickle.loads(pickle.dumps(job)).done,
    }.items():
        made = outcome(call)
        report.contains(name, made, "jobs_total")
        if isinstance(made, Counter):
            copies[name] = made
    with exporter() as metrics:
        for handle in copies.values():
            handle.increment()
        report.equal("counted by the copies", [*metrics.recorder.snapshot().values()], [3])

    def spawn() -> str:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(job.run).result()

    report.equal("key in a spawned process", outcome(spawn), "jobs_total [queue = a]")


if __name__ == "__main__":
    run(main)
