"""
Programs whose exporter the environment asks for, and that fork.
"""

from __future__ import annotations

import socket
from textwrap import dedent
from unittest import skipIf

from tests import needs
from tests.automatic import AutomaticTestCase
from tests.programs import Program, Stream

_PARENT = """
events = counter("events_total")
events.increment(100)
wait_until_listening()
"""


class ForkTests(AutomaticTestCase):
    def serving(self, script: str) -> Program:
        """Start a program that listens and then runs a script."""
        self.path = self.directory()
        return self.program(self.path, _PARENT + dedent(script))

    def check_child(self, program: Program, total: float, nth: int = 2) -> None:
        """Check the total of a child, which listens as the nth process."""
        process = int(program.said("port", nth))
        stream = self.stream(self.path, process)
        self.check_total(stream, total)
        stream.close()

    def test_event(self) -> None:
        """
        A child has its own socket and totals.  Events that it records before it listens count, and
        the parent continues.
        """
        program = self.serving(
            """
            def child():
                events.increment(2)
                events.increment(3)
                wait_until_listening()
                wait_for_client()
                events.increment(4)
                os.read(childs, 1)

            childs, parents = os.pipe()
            process = fork(child)
            wait_for_client()
            events.increment(1)
            os.write(parents, b".")
            os.waitpid(process, 0)
            """
        )
        process = int(program.said("port", 2))
        stream = self.stream(self.path, process)
        self.check_total(stream, 9)
        self.check_total(self.stream(self.path, program.process.pid), 101)
        self.assertEqual(stream.reader.statuses[0].source.count(f"[{process}]"), 1)
        self.ends(program)

    def test_handle(self) -> None:
        """A new handle starts the exporter of a child, too."""
        program = self.serving(
            """
            def child():
                assert not addresses()
                other = counter("others_total")
                wait_until_listening()
                other.increment(2)
                serve_client()

            os.waitpid(fork(child), 0)
            """
        )
        stream = self.stream(self.path, int(program.said("port", 2)))
        self.check_total(stream, 2, "others_total")
        stream.close()
        self.ends(program)

    def test_firstHandleInChildren(self) -> None:
        """Without a handle in the parent, each child starts at its first handle."""
        self.path = self.directory()
        program = self.program(
            self.path,
            """
            def child():
                counter("events_total").increment(3)
                wait_until_listening()
                serve_client()

            for process in [fork(child), fork(child)]:
                os.waitpid(process, 0)
            say("threads", threading.active_count())
            """,
        )
        for nth in (1, 2):
            self.check_child(program, 3, nth)
        self.assertEqual(program.said("threads"), "1")
        self.ends(program)

    def test_nothingRecorded(self) -> None:
        """A child that records nothing starts nothing: no thread, no socket."""
        program = self.serving(
            """
            import subprocess
            threads = lambda: len(os.listdir("/proc/self/task"))
            def child():
                counter("events_total")
                say("threads", threads())

            os.waitpid(fork(child), 0)
            subprocess.run(["true"], preexec_fn=lambda: say("before", threads()), check=True)
            say("sockets", len(os.listdir(os.environ["TXMETRICS_TCP_LISTEN"])))
            """
        )
        output = self.ends(program)
        self.assertIn("threads=1\nbefore=1\nsockets=1\n", output)

    def test_signalHandler(self) -> None:
        """The first event of a child may be in a signal handler that interrupts anything."""
        program = self.serving(
            """
            signal.signal(signal.SIGUSR1, lambda *arguments: events.increment())

            def child():
                # The lock of the interrupted thread.
                with threading._active_limbo_lock:
                    os.kill(os.getpid(), signal.SIGUSR1)
                    say("recorded", current_recorder().snapshot()[events.key])
                wait_until_listening()
                serve_client()

            os.waitpid(fork(child), 0)
            """
        )
        self.assertEqual(program.said("recorded"), "1")
        self.check_child(program, 1)
        self.ends(program)

    def test_finalizer(self) -> None:
        """The first event of a child may be in a finalizer, while other threads hold locks."""
        program = self.serving(
            """
            from txmetrics_tcp._exporter.environment import _state
            from txmetrics_tcp._instruments.facade import _program

            class Finalized:
                def __del__(self):
                    events.increment(7)

            kept = [Finalized()]

            def child():
                kept.clear()
                wait_until_listening()
                serve_client()

            ready, done = threading.Event(), threading.Event()

            def hold():
                with _state.lock, _program._lock, current_recorder()._incoming._lock:
                    ready.set()
                    done.wait()

            thread = threading.Thread(target=hold)
            thread.start()
            ready.wait()
            process = fork(child)
            done.set()
            thread.join()
            os.waitpid(process, 0)
            """
        )
        self.check_child(program, 7)
        self.assertEqual(program.wait_until_gone(), True)

    @skipIf(needs("gevent"), needs("gevent"))
    def test_gevent(self) -> None:
        """A program whose threads are greenlets from the beginning."""
        self.path = self.directory()
        program = self.program(
            self.path,
            "import gevent.monkey; gevent.monkey.patch_all()"
            + _PARENT
            + """
def child():
    events.increment(3)
    wait_until_listening()
    serve_client()

os.waitpid(fork(child), 0)
""",
        )
        self.check_child(program, 3)
        self.ends(program)

    def test_greenlets(self) -> None:
        """
        In a child, the exporter does not start if threads have become greenlets since it started
        in the parent: its reactor would block the program.
        """
        program = self.serving(
            """
            import _thread
            # As gevent does.
            _thread.start_new_thread = lambda function, arguments: function(*arguments)

            def child():
                events.increment()
                while hasattr(current_recorder(), "addresses"):
                    time.sleep(0.001)
                say("child", "continues")

            os.waitpid(fork(child), 0)
            """
        )
        self.assertEqual(program.said("child"), "continues")
        status, _, errors = program.end()
        self.assertEqual(status, 0)
        self.assertRegex(
            errors, r"\A.*: no metrics are streamed: process \d+ was forked after gevent's .*\n\Z"
        )

    def test_grandchild(self) -> None:
        """A child's child begins again, too, whether the child has recorded or not."""
        program = self.serving(
            """
            def grandchild():
                events.increment(2)
                wait_until_listening()
                serve_client()

            def child():
                if recorded:
                    events.increment()
                os.waitpid(fork(grandchild), 0)

            for recorded in (False, True):
                os.waitpid(fork(child), 0)
            """
        )
        self.check_child(program, 2)
        self.check_child(program, 2, nth=3)
        self.ends(program)

    def test_ownRecorder(self) -> None:
        """A child that installs its own exporter replaces the one of the environment."""
        program = self.serving(
            """
            def child():
                from txmetrics_tcp import TcpBuilder
                metrics = TcpBuilder().listen_address(0).install_in_thread()
                events.increment(6)
                wait_until_listening()
                serve_client()
                say("sockets", len(os.listdir(os.environ["TXMETRICS_TCP_LISTEN"])))

            os.waitpid(fork(child), 0)
            """
        )
        stream = Stream(self, int(program.said("port", 2)))
        self.check_total(stream, 6)
        stream.close()
        self.assertEqual(program.said("sockets"), "1")
        self.ends(program)

    def test_daemon(self) -> None:
        """
        A process that forked twice takes over the port when its parent has ended, and has counted
        all its events.  It logs once that it waits.
        """
        with socket.socket() as holder:
            # The system assigns the port to no other program.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
            program = self.program(
                str(port),
                """
                import logging

                class Handler(logging.Handler):
                    def emit(self, record):
                        say("logged", record.getMessage())

                logging.getLogger("txmetrics_tcp").addHandler(Handler())
                events = counter("events_total")
                wait_until_listening()
                if os.fork():
                    wait_for_client()
                    sys.exit()
                os.setsid()
                if os.fork():
                    os._exit(0)
                events.increment(7)
                wait_until_listening()
                wait_for_client()
                """,
            )
            self.assertEqual(program.port, port)
            self.assertIn("will stream its metrics when", program.said("logged"))
            # Lets the parent end.
            Stream(self, port).read_all()
            self.assertEqual(program.said("port", 2), str(port))
            self.check_total(Stream(self, port), 7)
            self.assertTrue(program.wait_until_gone())
        self.assertEqual(self.ends(program).count("will stream"), 1)
