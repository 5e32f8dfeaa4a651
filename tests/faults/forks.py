"""
Line 8: a forked child may look at its parent's exporter, and logs once that it records nothing.  It
has none of its parent's sockets, even if no descriptors are left.
"""

import os
import resource
import signal
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults import Report, connect, exporter, log_lines, outcome, run
from tests.forking import in_child, warnings_of_forking_off
from tests.programs import until
from txmetrics_tcp import ThreadedExporter, counter


def look(report: Report, metrics: ThreadedExporter, directory: str) -> None:
    lines = log_lines()

    def record() -> list[str]:
        for _ in range(3):
            counter("jobs_total").increment()
        return [line for line in lines if str(os.getpid()) in line]

    def stop() -> list[str]:
        metrics.stop()
        return os.listdir(directory)

    report.equal("addresses", in_child(lambda: outcome(lambda: metrics.addresses)), "()")
    text = in_child(lambda: outcome(lambda: repr(metrics)))
    report.contains("repr", text, "<ThreadedExporter ")
    warned = in_child(record)
    report.contains("log", warned, "Install after forking")
    report.equal("its lines", warned.count("forked"), 1)
    report.equal("files after stop()", in_child(stop), repr(os.listdir(directory)))


def sockets_in_child(all_used: bool) -> int:
    ready, forked = os.pipe()
    used: list[int] = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if all_used:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        with suppress(OSError):
            while True:
                used.append(os.dup(ready))
    with warnings_of_forking_off():
        child = os.fork()
    if child == 0:
        os.write(forked, b".")
        signal.pause()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    os.read(ready, 1)
    links = [os.readlink(path) for path in Path(f"/proc/{child}/fd").iterdir()]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for descriptor in (ready, forked, *used):
        os.close(descriptor)
    return sum(link.startswith("socket") for link in links)


def main(report: Report) -> None:
    with TemporaryDirectory() as directory, exporter(f"unix:{directory}/m.sock") as metrics:
        look(report, metrics, directory)
    with exporter(flush_timeout=0) as metrics, connect(metrics):
        until(lambda: metrics.recorder.stats().clients)
        # The script's own client is the only one.
        report.equal("sockets in a child", sockets_in_child(all_used=False), 1)
        report.equal("without descriptors", sockets_in_child(all_used=True), 1)


if __name__ == "__main__":
    run(main)
