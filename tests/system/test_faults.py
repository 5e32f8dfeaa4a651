"""
Runs the scripts of tests/faults, which compare what they measure with the right value.
"""

from __future__ import annotations

import subprocess
import sys
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, environment, no_descriptors
from tests.authority import no_tls
from tests.daemon import LIMIT

MEASURING = {
    "consumer_memory": ("20",),
    "cost_of_own_metrics": ("2", "1"),
    "cost_of_values": ("10",),
    "many_series": ("2", "10"),
    "recording_signals": ("2",),
    "stopped_exporters": ("1", "10"),
}
"""The scripts that measure time or memory, with arguments for little of it."""


def run(name: str, *arguments: str) -> tuple[str, str]:
    """Return the last line of a script's output, and all its output."""
    command = [sys.executable, "-m", f"tests.faults.{name}", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=10 * LIMIT
    )
    return done.stdout.splitlines()[-1], done.stdout + done.stderr


class ScriptTests(SynchronousTestCase):
    def assert_right(self, name: str) -> None:
        last, output = run(name)
        self.assertEqual(last, "OK", output)

    def test_all(self) -> None:
        """Every script has a test."""
        scripts = {path.stem for path in (ROOT / "tests" / "faults").glob("*.py")}
        tests = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")}
        self.assertEqual(scripts - {"__init__"}, tests - {"all", "measuring"} | {*MEASURING})

    @skipIf(no_descriptors, no_descriptors)
    def test_measuring(self) -> None:
        """Scripts that measure time or memory work.  Their figures depend on the machine."""
        for name, arguments in MEASURING.items():
            last, output = run(name, *arguments)
            self.assertRegex(last, "^(OK$|WRONG: )", output)
            self.assertNotIn("Error: ", last, output)

    def test_allowed_networks(self) -> None:
        self.assert_right("allowed_networks")

    def test_blocked_commands(self) -> None:
        self.assert_right("blocked_commands")

    def test_command_lines(self) -> None:
        self.assert_right("command_lines")

    def test_endpoints(self) -> None:
        self.assert_right("endpoints")

    def test_failed_stop(self) -> None:
        self.assert_right("failed_stop")

    @skipIf(no_descriptors, no_descriptors)
    def test_forks(self) -> None:
        self.assert_right("forks")

    def test_gone_series(self) -> None:
        self.assert_right("gone_series")

    def test_handles(self) -> None:
        self.assert_right("handles")

    def test_hangup(self) -> None:
        self.assert_right("hangup")

    def test_hidden_text(self) -> None:
        self.assert_right("hidden_text")

    def test_kept_recordings(self) -> None:
        self.assert_right("kept_recordings")

    def test_labels(self) -> None:
        self.assert_right("labels")

    def test_loss_lines(self) -> None:
        self.assert_right("loss_lines")

    @skipIf(no_tls, no_tls)
    def test_offered_protocols(self) -> None:
        self.assert_right("offered_protocols")

    def test_pending_stats(self) -> None:
        self.assert_right("pending_stats")

    def test_power_cuts(self) -> None:
        self.assert_right("power_cuts")

    def test_series_limit(self) -> None:
        self.assert_right("series_limit")

    def test_setting_errors(self) -> None:
        self.assert_right("setting_errors")

    def test_socket_files(self) -> None:
        self.assert_right("socket_files")

    def test_stats_table(self) -> None:
        self.assert_right("stats_table")

    def test_stuck_lookup(self) -> None:
        self.assert_right("stuck_lookup")

    def test_systemd_sockets(self) -> None:
        self.assert_right("systemd_sockets")

    def test_tail_beginning(self) -> None:
        self.assert_right("tail_beginning")

    def test_timers(self) -> None:
        self.assert_right("timers")

    def test_value_errors(self) -> None:
        self.assert_right("value_errors")

    def test_viewer_numbers(self) -> None:
        self.assert_right("viewer_numbers")

    def test_viewer_steps(self) -> None:
        self.assert_right("viewer_steps")
