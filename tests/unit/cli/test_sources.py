"""
The sources of a command: endpoints, globs, files, and the environment variable.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import EndpointError
from txmetrics_tcp.cli.record import file_name
from txmetrics_tcp.cli.sources import Sources, given_sources


class SocketCase(SynchronousTestCase):
    def setUp(self) -> None:
        # The path of a socket must be short.
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def bind(self, name: str) -> str:
        """Create a socket on which no server listens, and return its path."""
        path = f"{self.directory}/{name}"
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(path)
        return path


class SourcesTests(SocketCase):
    def test_given(self) -> None:
        """Arguments precede the environment variable, which precedes the default."""
        variable = {"METRICS_TCP_ENDPOINTS": " 5001,web1:5000\n@more  , unix:/a "}
        self.assertEqual(given_sources(["5000"], variable), ["5000"])
        self.assertEqual(given_sources([], variable), ["5001", "web1:5000", "@more", "unix:/a"])
        for nothing in {}, {"METRICS_TCP_ENDPOINTS": " , "}:
            self.assertEqual(given_sources([], nothing), ["127.0.0.1:5000"])

    def test_fixed(self) -> None:
        sources = Sources(["5000", "web1:5000", "[::1]:5000", self.bind("s")])
        names = ["127.0.0.1:5000", "web1:5000", "[::1]:5000", f"unix:{self.directory}/s"]
        self.assertEqual(list(sources.find()), names)
        self.assertEqual((sources.several, sources.watched), (True, []))
        self.assertFalse(Sources(["5000"]).several)

    def test_twice(self) -> None:
        error = self.assertRaises(EndpointError, Sources, ["5000", "127.0.0.1:5000"])
        self.assertEqual(str(error), "127.0.0.1:5000 is given twice")

    def test_glob(self) -> None:
        """Globs match the sockets that exist at the time, and no other files."""
        for text in f"{self.directory}/*.sock", f"unix:{self.directory}/*.sock":
            with self.subTest(text):
                sources = Sources([text])
                self.assertTrue(sources.several)
                Path(self.directory, "file.sock").write_text("")
                os.symlink("nowhere", f"{self.directory}/broken.sock")
                self.assertEqual(sources.find(), {})
                paths = [self.bind(f"{number:03}.sock") for number in range(200)]
                self.bind("other")
                self.assertEqual(list(sources.find()), [f"unix:{path}" for path in paths])
                for name in os.listdir(self.directory):
                    os.unlink(f"{self.directory}/{name}")
                self.assertEqual(sources.find(), {})

    def test_globSyntax(self) -> None:
        """Other parts of the endpoint string stay; special characters are escaped."""
        self.bind("a:b")
        (source,) = Sources([f"unix:{self.directory}/a*:timeout=3"]).find().values()
        self.assertEqual(source.endpoint, rf"unix:{self.directory}/a\:b:timeout=3")
        for text in "[::1]:5000", "*:5000", "tcp:host=*:port=1":
            self.assertEqual(Sources([text]).watched, [])

    def test_literalName(self) -> None:
        """A file whose name has such characters is that file."""
        path = Path(self.directory, "[1].rec")
        path.write_bytes(b"")
        (source,) = Sources([str(path)]).find().values()
        self.assertTrue(source.recording)

    def test_identity(self) -> None:
        """A socket that was replaced is another server's."""
        sources = Sources([f"{self.directory}/*"])
        path = self.bind("s")
        before = sources.find()
        self.assertEqual(sources.find(), before)
        os.rename(self.bind("new"), path)
        self.assertEqual(sources.find().keys(), before.keys())
        self.assertNotEqual(sources.find(), before)

    def test_file(self) -> None:
        """A file has an endpoint or a glob per line, and is read again when it has changed."""
        path = Path(self.mktemp())
        self.bind("a.sock")
        path.write_text(f"# all\n\n 5001 # web\n{self.directory}/*.sock\n5001\nweb#1:5000\n")
        sources = Sources([f"@{path}", "5001"])
        self.assertEqual(sources.empty_files, [])
        names = ["127.0.0.1:5001", f"unix:{self.directory}/a.sock", "web#1:5000"]
        self.assertEqual(list(sources.find()), names)
        self.assertEqual([one.text for one in sources.globs], [f"{self.directory}/*.sock"])
        path.write_text("5002")
        self.assertEqual(list(sources.find()), ["127.0.0.1:5002", "127.0.0.1:5001"])
        self.assertEqual(sources.problems, [])
        path.write_text("# none")
        self.assertEqual(list(sources.find()), ["127.0.0.1:5001"])
        self.assertEqual(sources.empty_files, [str(path)])

    def test_order(self) -> None:
        """Sources have the order in which they were given, also if a glob names one again."""
        a, b, c = (f"unix:{self.bind(name)}" for name in ("a.sock", "b.sock", "c"))
        sources = Sources([c, f"{self.directory}/*.sock", "5000", b])
        self.assertEqual(list(sources.find()), [c, a, b, "127.0.0.1:5000"])
        self.assertIsNone(sources.find()[b].identity)
        os.unlink(f"{self.directory}/b.sock")
        self.assertEqual(list(sources.find()), [c, a, "127.0.0.1:5000", b])

    def test_fileProblems(self) -> None:
        """While a file is unusable, its former content applies."""
        path = Path(self.mktemp())
        path.write_text("5000")
        sources = Sources([f"@{path}"])
        path.unlink()
        self.assertEqual(list(sources.find()), ["127.0.0.1:5000"])
        (problem,) = sources.problems
        self.assertIn(": No such file or directory", problem)
        for text, says in [
            ("@other", "line 1: '@other' is not an endpoint: only the command line has files"),
            (f"5001\n{__file__}", ", line 2: "),
            ("5" * 2_000_000, "larger than"),
        ]:
            path.write_text(text)
            self.assertEqual(list(sources.find()), ["127.0.0.1:5000"])
            self.assertIn(says, sources.problems[0])
            self.assertRaises(EndpointError, Sources, [f"@{path}"])
        path.write_bytes(b"\xff")
        self.assertRaises(EndpointError, Sources, [f"@{path}"])
        for text, says in [
            (f"@{self.directory}", f"cannot read {self.directory}: Is a directory"),
            ("@", "@ lacks the name of a file"),
        ]:
            self.assertEqual(str(self.assertRaises(EndpointError, Sources, [text])), says)
        path.write_text("5003")
        self.assertEqual((list(sources.find()), sources.problems), (["127.0.0.1:5003"], []))


class FileNameTests(SynchronousTestCase):
    def test_names(self) -> None:
        for name, file in [
            ("127.0.0.1:5000", "127.0.0.1-5000.rec"),
            ("unix:/run/app/worker 1.sock", "run-app-worker-1.sock.rec"),
            ("unix:../x", "x.rec"),
            (":", "source.rec"),
        ]:
            self.assertEqual(file_name(name), file)
