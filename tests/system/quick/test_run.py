"""
C{metrics-tcp run} with real programs, whose streams are read.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from textwrap import dedent
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.daemon import Daemon, occupied_port
from tests.programs import ProgramTestCase, Stream, stream_of, total
from txmetrics_tcp import MetricKind

RUN = [sys.executable, "-m", "txmetrics_tcp", "run"]

WAIT = """
import signal
signal.pause()
"""

PORT = """
import sys
from txmetrics_tcp import current_recorder
print(f"port={current_recorder().addresses[0].port}", flush=True)
"""

NOT_COMMAND = """
import sys
if "txmetrics_tcp" not in sys.orig_argv: """

LOOP = """
import asyncio, sys

async def main():
    tasks = [asyncio.create_task(asyncio.sleep(600)) for _ in range(3)]
    # Ends when the test closes the writing end of the pipe.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

{run}
"""


class RunTestCase(ProgramTestCase):
    def setUp(self) -> None:
        # The paths of UNIX sockets must be short.
        self.sockets = Path(mkdtemp(prefix="run"))
        self.addCleanup(shutil.rmtree, self.sockets)

    def file(self, name: str, text: str) -> str:
        """Write a file into a new directory, and return its path."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        path = directory / name
        path.write_text(dedent(text))
        path.chmod(0o755)
        return str(path)

    def run_program(
        self,
        *program: str,
        listen: str | None = None,
        options: Sequence[str] = (),
        modules: Path | None = None,
    ) -> Daemon:
        """
        @param listen: by default, the directory C{sockets}.
        """
        listen = str(self.sockets) if listen is None else listen
        arguments = ["--listen", listen, *options, "--", *program]
        return Daemon(self, *arguments, runner=RUN, modules=modules)

    def stream(self, pattern: str = "*") -> Stream:
        """Connect to the socket of the process with this name, when it exists."""
        return stream_of(self, lambda: map(str, self.sockets.glob(f"{pattern}.sock")))


class StartTests(RunTestCase):
    """Ways to start a program."""

    def check_watched(self, *program: str, modules: Path | None = None) -> str:
        """Return the name of the program in the stream."""
        run = self.run_program(*program, modules=modules)
        reader = self.stream().read_until(lambda one: total(one, "process_open_fds") > 0)
        run.process.send_signal(signal.SIGTERM)
        self.ends(run, -signal.SIGTERM)
        return reader.statuses[0].source.partition("[")[0]

    def test_script(self) -> None:
        self.assertEqual(self.check_watched(sys.executable, self.file("app.py", WAIT)), "app.py")

    def test_module(self) -> None:
        """C{python -m}, with the module in the program's own PYTHONPATH."""
        modules = Path(self.file("app.py", WAIT)).parent
        self.check_watched(sys.executable, "-m", "app", modules=modules)
        self.assertEqual(len(list(self.sockets.glob("app-*.sock"))), 1)

    def test_executable(self) -> None:
        """A console script."""
        self.assertEqual(self.check_watched(self.file("app", f"#!{sys.executable}{WAIT}")), "app")

    def test_shellScript(self) -> None:
        """A shell script, here without an interpreter line, that starts Python."""
        app = self.file("app.py", WAIT)
        self.check_watched(self.file("start", f"exec {sys.executable} {app}\n"))


class StreamTests(RunTestCase):
    def test_metrics(self) -> None:
        """The stream has the metrics of process and Python, described, and those of the program."""
        script = """
            import gc, sys
            from txmetrics_tcp import counter
            counter("jobs_total").increment(3)
            gc.collect()
        """
        self.run_program(sys.executable, self.file("app.py", dedent(script) + WAIT))
        names = {
            "jobs_total",
            "process_cpu_seconds_total",
            "python_gc_collections_total",
            "python_gc_pause_seconds",
            "python_threads",
        }
        reader = self.stream().read_until(lambda one: names <= {key.name for key in one.totals})
        self.assertEqual(total(reader, "jobs_total"), 3)
        described = {(one.kind, one.name) for one in reader.metadata if one.unit}
        self.assertIn((MetricKind.GAUGE, "python_threads"), described)
        self.assertIn((MetricKind.HISTOGRAM, "python_gc_pause_seconds"), described)

    def check_loop(self, run: str) -> None:
        """Check the metrics of an event loop, and that its end is quiet."""
        script = self.file("app.py", LOOP.format(run=run))
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        command = f'exec "$0" -X dev -W error {script} <&{reading}'
        program = Daemon(
            self,
            *["--listen", str(self.sockets), "--interval", "0.5"],
            *["--", "sh", "-c", command, sys.executable],
            runner=RUN,
            inherit=[reading],
        )
        self.stream("app-*").read_until(
            lambda one: (
                total(one, "asyncio_tasks", thread="MainThread") == 4
                and bool(one.values("asyncio_lag_seconds"))
            )
        )
        os.close(writing)
        self.ends(program)

    def test_asyncio(self) -> None:
        self.check_loop("asyncio.run(main())")

    @skipIf(needs("uvloop"), needs("uvloop"))
    def test_uvloop(self) -> None:
        self.check_loop("import uvloop; uvloop.run(main())")

    def test_fork(self) -> None:
        """A forked process has a stream with the metrics of process and Python, too."""
        script = """
            import os, signal
            if os.fork() == 0:
                os.write(1, b"child=%d\\n" % os.getpid())
            signal.pause()
        """
        program = self.run_program(sys.executable, "-u", self.file("app.py", script))
        child = program.wait_for("child=(.*)\n")[1]
        self.addCleanup(os.kill, int(child), signal.SIGKILL)
        reader = self.stream(f"*-{child}").read_until(lambda one: bool(one.totals))
        self.assertIn(f"[{child}]", reader.statuses[0].source)


class ProcessTests(RunTestCase):
    """Which processes are watched, with a port."""

    def test_child(self) -> None:
        """A process that the program starts is not watched, and has the program's environment."""
        script = """
            import os, subprocess, sys
            from txmetrics_tcp import current_recorder
            watched = hasattr(current_recorder(), "addresses")
            ours = [name for name in os.environ if name.startswith("TXMETRICS_TCP_")]
            print(watched, os.environ.get("PYTHONPATH"), bool(ours), flush=True)
            if len(sys.argv) < 2:
                sys.exit(subprocess.call([sys.executable, __file__, "child"]))
        """
        path = self.file("app.py", script)
        plain = Daemon(self, path, "alone", runner=[sys.executable])
        watched, child = self.ends(self.run_program(sys.executable, path, listen="0")).splitlines()
        self.assertEqual([child], self.ends(plain).splitlines())
        self.assertTrue(watched.startswith("True"), watched)

    def test_execute(self) -> None:
        """A program that the watched process executes in its place is watched."""
        port = self.file("port.py", PORT)
        script = f"""
            import os, sys
            os.execv(sys.executable, [sys.executable, {port!r}])
        """
        program = self.run_program(sys.executable, self.file("app.py", script), listen="0")
        self.assertRegex(self.ends(program), "port=[1-9]")


class TransparencyTests(RunTestCase):
    """
    The program runs as without the command.

    A module sitecustomize of a test skips the process of the command, which is Python, too.
    """

    def check_same(self, *program: str, modules: Path | None = None) -> tuple[int, str, str]:
        run = self.run_program(*program, listen="0", modules=modules)
        plain = Daemon(self, *program[1:], runner=[program[0]], modules=modules)
        ended = run.end()
        self.assertEqual(ended, plain.end())
        return ended

    def test_exit(self) -> None:
        """Output and exit status."""
        script = 'import sys; print("out"); sys.stderr.write("err"); sys.exit(7)'
        self.assertEqual(self.check_same(sys.executable, "-c", script), (7, "out\n", "err"))

    def test_exception(self) -> None:
        status, _, errors = self.check_same(sys.executable, "-c", "1 / 0")
        self.assertEqual(status, 1)
        self.assertIn("ZeroDivisionError", errors)

    def test_signals(self) -> None:
        """A program that a signal ends; SIGPIPE has its default effect in other programs."""
        for name in "TERM", "KILL", "INT":
            script = f"import os, signal; os.kill(os.getpid(), signal.SIG{name})"
            status, _, _ = self.check_same(sys.executable, "-c", script)
            self.assertEqual(status, -getattr(signal, f"SIG{name}"))
        self.assertEqual(
            self.check_same("sh", "-c", "kill -PIPE $$; echo ignored"), (-signal.SIGPIPE, "", "")
        )

    def test_ownSitecustomize(self) -> None:
        """The program's own module sitecustomize runs; its path and modules are unchanged."""
        modules = Path(self.file("sitecustomize.py", f'{NOT_COMMAND}print("own")')).parent
        script = "import sitecustomize, sys; print(sitecustomize.__file__, sys.path)"
        _, output, errors = self.check_same(sys.executable, "-c", script, modules=modules)
        self.assertTrue(output.startswith("own\n"), output)
        self.assertEqual(errors, "")

    def test_failingSitecustomize(self) -> None:
        """An error in it is reported as without the command."""
        modules = Path(self.file("sitecustomize.py", f"{NOT_COMMAND}import no_such_module")).parent
        _, _, errors = self.check_same(sys.executable, "-c", "pass", modules=modules)
        self.assertIn("no_such_module", errors)

    def test_sitecustomizeOfPython(self) -> None:
        """That of the Python itself, as some distributions have."""
        directory = Path(self.mktemp()).resolve()
        venv.create(directory, symlinks=True)
        [packages] = directory.glob("lib/python*/site-packages")
        others = [path for path in sys.path if path.endswith("-packages")]
        (packages / "others.pth").write_text("\n".join(others))
        (packages / "sitecustomize.py").write_text('print("own")')
        python = str(directory / "bin" / "python")
        path = self.file("port.py", PORT)
        output = self.ends(self.run_program(python, path, listen="0"))
        self.assertRegex(output, "own\nport=[1-9]")

    def test_notListening(self) -> None:
        """A program that ends before the exporter listens."""
        port = str(occupied_port(self))
        run = self.run_program(sys.executable, "-c", "print(5); exit(7)", listen=port)
        status, output, errors = run.end()
        self.assertEqual((status, output, errors.count("\n")), (7, "5\n", 1), errors)
        self.assertIn("when the address is free", errors)

    def test_otherPython(self) -> None:
        """A Python without the package's requirements runs the program, after a warning."""
        directory = Path(self.mktemp()).resolve()
        venv.create(directory, symlinks=True)
        python = str(directory / "bin" / "python")
        run = self.run_program(python, "-c", "print(5)", listen="0")
        status, output, errors = run.end()
        self.assertEqual((status, output, errors.count("\n")), (0, "5\n", 1), errors)
        self.assertIn(f"no metrics of {python}", errors)

    def test_isolated(self) -> None:
        """Python with -I ignores the command."""
        self.assertEqual(self.check_same(sys.executable, "-I", "-c", "print(5)"), (0, "5\n", ""))


class NotRunTests(SynchronousTestCase):
    def test_codes(self) -> None:
        """Programs that cannot be run have the exit codes of C{env}."""
        for program, code in ("no-such-program", 127), ("/", 126):
            run = Daemon(self, "--", program, runner=RUN)
            env = Daemon(self, program, runner=["env"])
            status, output, errors = run.end()
            self.assertEqual((status, output, errors.count("\n")), (code, "", 1))
            self.assertEqual(env.end()[0], code)
