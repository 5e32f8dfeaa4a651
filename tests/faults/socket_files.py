"""
Line 14: an exporter that stops removes only the socket file that it made.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.threads import blockingCallFromThread

from tests.faults import Report, exporter, reactor, run
from txmetrics_tcp import TcpBuilder, TcpRecorder


def main(report: Report) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "metrics.sock")
        with exporter(f"unix:{path}"):
            path.unlink()
            path.touch()
        report.equal("a file remains", path.exists(), True)
        path.unlink(missing_ok=True)
        with exporter(f"unix:{path}"):
            path.unlink()
            build: Any = TcpBuilder().listen_address(f"unix:{path}").build
            another: TcpRecorder = blockingCallFromThread(reactor, build)
        report.equal("the socket of another exporter remains", path.exists(), True)
        stop: Any = another.stop
        blockingCallFromThread(reactor, stop)
        report.equal("after that has stopped", path.exists(), False)


if __name__ == "__main__":
    run(main)
