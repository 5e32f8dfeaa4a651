"""
Line 12: SIGHUP without TLS does not end the daemon, which says that there is nothing to reload.
"""

import signal
from subprocess import PIPE, STDOUT, Popen

from tests import environment
from tests.daemon import TWISTD
from tests.faults import Report, run


def main(report: Report) -> None:
    command = [*TWISTD, "-n", "--pidfile=", "metrics-tcp", "--no-host", "--listen=0"]
    with Popen(command, stdout=PIPE, stderr=STDOUT, text=True, env=environment()) as daemon:
        assert daemon.stdout is not None
        for line in daemon.stdout:
            if "Streaming metrics on" in line:
                daemon.send_signal(signal.SIGHUP)
            elif "SIGHUP" in line:
                break
        report.contains("log", line.strip(), "nothing to reload")
        daemon.terminate()
        rest = daemon.stdout.read()
        report.contains("log until SIGTERM", rest, "SIGTERM")


if __name__ == "__main__":
    run(main)
