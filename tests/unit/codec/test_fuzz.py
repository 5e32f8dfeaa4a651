"""
The fuzzer finds defects, prints how to reproduce them, and reports nothing else.

C{.ci/run} runs it for longer.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout

from twisted.trial.unittest import SynchronousTestCase

from tests import fuzz
from tests.wire_cases import CASES
from txmetrics_tcp import Decoder, Event, MetricsProtocol


class Blind(Decoder):
    """A decoder that loses all events after the third one of a piece."""

    def feed(self, data: bytes) -> Iterator[Event]:
        yield from list(super().feed(data))[:3]


class Endless(Decoder):
    """Never returns."""

    def feed(self, data: bytes) -> Iterator[Event]:
        while True:
            pass


def failing(self: MetricsProtocol, data: bytes) -> None:
    raise KeyError("unexpected")


class FuzzTests(SynchronousTestCase):
    def run_command(self, *arguments: str) -> tuple[int, str]:
        output = io.StringIO()
        with redirect_stdout(output):
            code = fuzz.main([*arguments, "--seed", "1"])
        return code, output.getvalue()

    def test_findsNothing(self) -> None:
        """Without a defect, the fuzzer reports nothing.  The same seed gives the same inputs."""
        for target in fuzz.TARGETS:
            kept = []
            for _ in range(2):
                fuzzer = fuzz.Fuzzer(target, 1)
                self.assertIsNone(fuzzer.run(lambda: fuzzer.tried == 100))  # noqa: B023
                kept.append(fuzzer.kept)
            self.assertEqual(kept[0], kept[1], target)
            self.assertGreater(kept[0], 0, target)

    def test_findsInTheDecoder(self) -> None:
        """The fuzzer prints how to reproduce a failure, with a small input."""
        self.patch(fuzz, "Decoder", Blind)
        code, output = self.run_command("--target", "decoder")
        self.assertEqual(code, 1)
        self.assertIn("again with: python tests/fuzz.py --target decoder --seed 1", output)
        [call] = [line for line in output.splitlines() if line.startswith("FAILED: ")]
        call = call.removeprefix("FAILED: ")
        self.assertLess(len(call), 1000)
        with self.assertRaisesRegex(fuzz.Failed, "event "):
            eval(call, {"check_decoder": fuzz.check_decoder})

    def test_findsInTheServer(self) -> None:
        self.patch(MetricsProtocol, "dataReceived", failing)
        code, output = self.run_command("--target", "server")
        self.assertEqual(code, 1)
        self.assertIn("KeyError: 'unexpected'", output)
        self.assertIn("FAILED: check_server(b", output)

    def test_findsHangs(self) -> None:
        self.patch(fuzz, "Decoder", Endless)
        self.patch(fuzz, "PATIENCE", 0.05)
        self.patch(fuzz, "SMALLER", 0.1)
        code, output = self.run_command("--target", "decoder")
        self.assertEqual(code, 1)
        self.assertIn("it takes more than 0.05 seconds", output)

    def test_cases(self) -> None:
        """The oracle agrees with the handwritten table of cases."""
        for case in CASES:
            events, wrong, unfinished = fuzz.meaning(case.frame, 5000)
            expected = [] if case.event is None else [fuzz.plain(case.event)]
            self.assertEqual((events, wrong, unfinished), (expected, False, 0), case.name)
