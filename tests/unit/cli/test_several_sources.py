"""
Whole commands with several sources, on a fake reactor.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from unittest import mock, skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, needs
from tests.commands import CommandReactor, Ended, run, serving
from tests.recordings import STATUS, STREAM, increment, joined, metrics, read, record
from txmetrics_tcp.cli.sources import ENVIRONMENT

PATTERN = "/run/no-such-dir/*.sock"


class SeveralTests(SynchronousTestCase):
    def setUp(self) -> None:
        # The names of files must be short.
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.recording = f"{self.directory}/old.rec"
        Path(self.recording).write_bytes(record(STATUS + increment(7)))

    def record(self, *arguments: str, on: CommandReactor | None = None) -> Ended:
        return run("record", f"{self.directory}/new/", *arguments, on=on or serving(STREAM))

    @property
    def recorded(self) -> dict[str, bytes]:
        """The streams in the directory of recordings, by the names of their files."""
        files = Path(self.directory, "new").iterdir()
        return {path.name: joined(read(path.read_bytes())[1]) for path in files}

    def test_tailMixed(self) -> None:
        """The end of a recording does not end the lines of a server."""
        stream = STATUS + increment(8)
        ended = run("tail", self.recording, "5000", "--duration", "5", on=serving(stream))
        self.assertEqual(ended.code, 0)
        self.assertRegex(ended.out, r"(?m)^\S*old\.rec +\S+ counter/increment requests_total 7$")
        self.assertRegex(ended.out, r"(?m)^127\.0\.0\.1:5000 +\S+ .* requests_total 8$")
        self.assertEqual(ended.err, "metrics-tcp: connected to 127.0.0.1:5000\n")

    def test_tailRecordings(self) -> None:
        """C{tail} of recordings ends with the last one; the worst exit code counts."""
        other = f"{self.directory}/other.rec"
        Path(other).write_bytes(record(STATUS + increment(8)))
        code, out, _ = run("tail", self.recording, other)
        self.assertEqual(
            (code, [line.split()[0] for line in out.splitlines()].count("old")), (0, 2)
        )
        Path(other).write_bytes(record(b"\x02\xff\xff"))
        self.assertEqual(run("tail", self.recording, other).code, 1)

    def test_statsMixed(self) -> None:
        """A recording is read as a whole, a server is watched; the reports have their order."""
        code, out, said = run(
            "stats", self.recording, "5000", "--json", on=serving(STATUS + increment(8))
        )
        reports = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            [(one["endpoint"], one["series"][0]["value"]) for one in reports],
            [(self.recording, 7), ("127.0.0.1:5000", 8)],
        )
        self.assertEqual((code, said), (0, ""))

    @skipIf(reason := needs("jsonschema.validators"), reason)
    def test_schema(self) -> None:
        """JSON lines with the field C{endpoint} follow the schema."""
        schema = json.loads((ROOT / "txmetrics_tcp" / "json-lines.schema.json").read_text())
        validator = import_module("jsonschema").Draft202012Validator(schema)
        options = ["--json", "--duration", "1"]
        out = run("tail", "5000", "5001", *options, on=serving(STATUS + STREAM)).out
        lines = [json.loads(line) for line in out.splitlines()]
        for line in lines:
            validator.validate(line)
        self.assertEqual({line["endpoint"] for line in lines}, {"127.0.0.1:5000", "127.0.0.1:5001"})

    def test_recordCount(self) -> None:
        """C{record --count} is exact over all streams."""
        number = metrics(STREAM) + 5
        code, _, said = self.record("5000", "5001", "--count", str(number))
        self.assertEqual(code, 0)
        self.assertEqual(sum(map(metrics, self.recorded.values())), number)
        self.assertIn(f"recorded {number} events of 2 sources in ", said)

    def test_recordNames(self) -> None:
        """Sources whose files would have the same name get files of their own, in each run."""
        sources = [f"tcp:localhost:5000:timeout={seconds}" for seconds in ("3", "+3", "03")]
        names = [f"tcp-localhost-5000-timeout-{end}.rec" for end in ("03", "3-2", "3")]
        for run_number in 1, 2:
            self.record(*sources, "--append", "--duration", "1")
            self.assertEqual(sorted(self.recorded), names)
            for stream in self.recorded.values():
                self.assertEqual(stream, STREAM * run_number)

    def test_recordExisting(self) -> None:
        """If one of the files exists, nothing is changed."""
        os.mkdir(f"{self.directory}/new")
        Path(self.directory, "new", "127.0.0.1-5001.rec").write_bytes(record(STREAM))
        code, _, said = self.record("5000", "5001", "--duration", "1")
        self.assertEqual(code, 1)
        self.assertIn("127.0.0.1-5001.rec already exists: use --append", said)
        self.assertEqual(list(self.recorded), ["127.0.0.1-5001.rec"])

    def test_noSources(self) -> None:
        """A glob that matches nothing all the time is no source."""
        for command, says in [
            ("tail", "found no sources within 1 s"),
            ("stats", "found no sources"),
            (f"record {self.directory}/", "found no sources; recorded nothing"),
        ]:
            code, out, said = run(*command.split(), PATTERN, "--duration", "1")
            waiting = f"metrics-tcp: no socket matches {PATTERN} yet; waiting for one\n"
            self.assertEqual((code, out, said), (1, "", f"{waiting}metrics-tcp: {says}\n"))

    def test_environment(self) -> None:
        """A message about a source in the environment variable names the variable."""
        with mock.patch.dict(os.environ, {ENVIRONMENT: "5000 99999"}):
            for command in "tail", "stats", "prometheus", f"record {self.mktemp()}/":
                code, _, said = run(*command.split())
                self.assertEqual(code, 2)
                self.assertIn(f": {ENVIRONMENT}: '99999' is not an endpoint", said)
            self.assertEqual(run("tail", self.recording).code, 0)
            self.assertNotIn(ENVIRONMENT, run("tail", "99999").err)
        with mock.patch.dict(os.environ, {ENVIRONMENT: f"{self.directory}/none.rec"}):
            self.assertIn(f" {ENVIRONMENT}: {self.directory}/none.rec: no such", run("tail").err)
