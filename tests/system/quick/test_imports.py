"""
The modules that the library and the command line import, which determine their startup time.
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
        "prometheus --help",
    ],
    1: ["tail ./missing", "stats ./missing"],
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
        "stats --sort nothing",
        "record",
        "record 5000",
        "record a b --append --force",
        "replay a --speed 0",
        "replay a --listen 65536",
        "observe --max-frame 0",
        "prometheus --listen 65536",
        "prometheus localhost:99999",
    ],
}
"""By exit code, arguments that end without running a command."""


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
        @return: the output of a program, and the names in `HEAVY` that it has imported.
        """
        find = f"import sys; print(*[name for name in {HEAVY} if name in sys.modules])"
        return self.run_python("-c", f"{dedent(script)}\n{find}")

    def test_recording(self) -> None:
        """A library that only records imports no heavy module."""
        script = """
            from txmetrics_tcp import counter, local_recorder, describe_gauge
            counter("c").increment()
        """
        self.assertEqual(self.loaded(script), "")

    def test_recordingLater(self) -> None:
        """
        After C{import txmetrics_tcp}, recording imports no modules: the first use of a name may
        follow a chroot, a fork, or the start of interpreter shutdown.
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
        """C{--version} does not import the recording modules."""
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
        """Importing the commands does not import a reactor, which would install it, or Textual."""
        script = (
            "import sys;"
            "from txmetrics_tcp.cli import observe, prometheus, record, replay, stats, tail;"
            "print({'twisted.internet.reactor', 'textual'} & {*sys.modules})"
        )
        self.assertEqual(self.run_python("-c", script), "set()")

    def test_usage(self) -> None:
        """Help, the version and usage errors import no heavy module."""
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
        """C{python -m txmetrics_tcp} runs the same command as the console script."""
        output = self.run_python("-m", "txmetrics_tcp", "--version")
        self.assertEqual(output, f"metrics-tcp {txmetrics_tcp.__version__}")

    def test_reactorImportedLate(self) -> None:
        """The reactor is imported only for a service, since its import installs it."""
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

    def test_bridges(self) -> None:
        """The bridges from Twisted and asyncio import no reactor, that from logging no Twisted."""
        script = """
            import sys
            import txmetrics_tcp.bridges.logging as bridge
            bridge.CountingHandler()
            print("twisted" in sys.modules)
            import txmetrics_tcp.bridges.asyncio, txmetrics_tcp.bridges.twisted
            print("twisted.internet.reactor" in sys.modules)
        """
        self.assertEqual(self.run_python("-c", dedent(script)).split(), ["False", "False"])

    def test_reactorInstalledBefore(self) -> None:
        """The builder uses the reactor that the program has installed."""
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
