"""
What is imported, and so what it costs to import the library and to ask the command line something.
"""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

import txmetrics_tcp
from tests import environment
from tests.daemon import LIMIT

HEAVY = ("twisted", "zope", "google", "OpenSSL", "cryptography", "textual", "rich", "asyncio")

USAGE = {
    0: [
        "--version",
        "--help",
        "tail --help",
        "stats --help",
        "record --help",
        "replay --help",
        "observe --help",
    ],
    2: [
        "",
        "unknown",
        "--unknown",
        "tail --unknown",
        "tail --count 0",
        "tail --duration never",
        "tail --filter /(/",
        "tail 127.0.0.1:99999",
        "tail localhost:99999",
        "tail [::1]:99999",
        "tail 65536",
        "tail ./missing",
        "stats --sort nothing",
        "record",
        "record 5000",
        "record a b --append --force",
        "replay a --speed 0",
        "replay a --listen 65536",
        "observe --max-frame 0",
    ],
}
"""By exit code, what ends without running a command."""


class ImportTests(SynchronousTestCase):
    def run_python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.strip()

    def loaded(self, script: str) -> str:
        """
        @return: what else a program prints, and which of `HEAVY` it has imported in the end.
        """
        find = f"import sys; print(*[name for name in {HEAVY} if name in sys.modules])"
        return self.run_python("-c", f"{dedent(script)}\n{find}")

    def test_recording(self) -> None:
        """A library that only records costs its users next to nothing at import."""
        script = """
            from txmetrics_tcp import counter, local_recorder, describe_gauge
            counter("c").increment()
        """
        self.assertEqual(self.loaded(script), "")

    def test_recordingLater(self) -> None:
        """
        After C{import txmetrics_tcp}, recording imports nothing: the first use of a name may come
        after a chroot, in a child of a fork, or as the interpreter ends.
        """
        script = """
            import builtins, sys, txmetrics_tcp

            class Late:
                def __del__(self):
                    txmetrics_tcp.gauge("g").set(1)

            builtins.late = Late()
            sys.path.clear()
            sys.meta_path.clear()
            txmetrics_tcp.counter("c").increment()
            with txmetrics_tcp.local_recorder(txmetrics_tcp.NoopRecorder()):
                txmetrics_tcp.describe_gauge("g", txmetrics_tcp.Unit.BYTES, "a gauge")
            txmetrics_tcp.Key, txmetrics_tcp.Series
        """
        self.assertEqual(self.loaded(script), "")

    def test_command(self) -> None:
        """The command line answers without the names of recording, too."""
        done = subprocess.run(
            [sys.executable, "-m", "txmetrics_tcp", "--version"],
            env={**environment(), "PYTHONPROFILEIMPORTTIME": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        self.assertEqual(done.returncode, 0)
        self.assertIn("txmetrics_tcp.cli.parser", done.stderr)
        self.assertNotIn("txmetrics_tcp._instruments", done.stderr)

    def test_commands(self) -> None:
        """Importing the commands imports no reactor, which would install it, and no Textual."""
        script = (
            "import sys; from txmetrics_tcp.cli import observe, record, replay, stats, tail;"
            "print({'twisted.internet.reactor', 'textual'} & {*sys.modules})"
        )
        self.assertEqual(self.run_python("-c", script), "set()")

    def test_usage(self) -> None:
        """Help, the version and usage errors load nothing that takes long."""
        script = f"""
            from contextlib import redirect_stderr, redirect_stdout
            from io import StringIO
            from txmetrics_tcp.cli import main

            def code(line):
                with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                    try:
                        return main(line.split())
                    except SystemExit as end:
                        return end.code

            for expected, lines in {USAGE}.items():
                for line in lines:
                    if code(line) != expected:
                        print(line)
        """
        self.assertEqual(self.loaded(script), "")

    def test_module(self) -> None:
        """C{python -m} runs the same as the console script."""
        said = self.run_python("-m", "txmetrics_tcp", "--version")
        self.assertEqual(said, f"metrics-tcp {txmetrics_tcp.__version__}")

    def test_importedLate(self) -> None:
        """Importing a reactor installs it, and some programs want another one."""
        output = self.run_python(
            "-c",
            "import sys\n"
            "import txmetrics_tcp\n"
            "import txmetrics_tcp.tap, txmetrics_tcp.testing\n"
            "builder = txmetrics_tcp.TcpBuilder().listen_address(0).buffer_size(5)\n"
            "txmetrics_tcp.counter('c').increment()\n"
            "txmetrics_tcp.describe_counter('c')\n"
            "print('twisted.internet.reactor' in sys.modules)\n"
            "builder.service()\n"
            "print('twisted.internet.reactor' in sys.modules)\n",
        )
        self.assertEqual(output.split(), ["False", "True"])

    def test_installedBefore(self) -> None:
        """The reactor that a program chose is the one that it listens with."""
        output = self.run_python(
            "-c",
            "import txmetrics_tcp\n"
            "builder = txmetrics_tcp.TcpBuilder().listen_address(0)\n"
            "from twisted.internet import selectreactor\n"
            "selectreactor.install()\n"
            "def listening(recorder):\n"
            "    print(type(reactor).__name__, recorder.addresses[0].host)\n"
            "    recorder.stop().addCallback(lambda result: reactor.stop())\n"
            "from twisted.internet import reactor\n"
            "builder.install().addCallback(listening)\n"
            "reactor.run()\n",
        )
        self.assertEqual(output.split(), ["SelectReactor", "127.0.0.1"])
