"""
Programs whose exporter the environment asks for, with reactors and recorders of their own.
"""

from __future__ import annotations

import os
import socket
import stat

from tests.automatic import AutomaticTestCase
from tests.daemon import IN_USE
from tests.programs import Stream, total, until


class StartTests(AutomaticTestCase):
    def test_withoutVariable(self) -> None:
        """Without the variable, a handle imports and starts nothing."""
        program = self.program(
            None,
            """
            counter("events_total").increment()
            say("modules", [name for name in ("twisted", "google") if name in sys.modules])
            say("threads", threading.active_count())
            """,
        )
        self.assertEqual(self.ends(program), "modules=[]\nthreads=1\n")

    def test_import(self) -> None:
        """An import, and a command, start nothing."""
        program = self.program(
            "0",
            """
            say("twisted", "twisted" in sys.modules)
            from twisted.internet.defer import Deferred
            import txmetrics_tcp.testing, txmetrics_tcp._exporter.environment
            say("threads", threading.active_count())
            """,
        )
        self.assertEqual(self.ends(program), "twisted=False\nthreads=1\n")

    def test_stream(self) -> None:
        """
        The first handle starts the exporter, so that no event is lost.  Events recorded before the
        end are sent.  The global reactor is not installed, and nothing is written.
        """
        program = self.program(
            "0",
            """
            events = counter("events_total")
            events.increment()
            say("port", addresses()[0].port)
            wait_for_client()
            for _ in range(1000):
                events.increment()
            from twisted.python import threadable
            say("reactor", "twisted.internet.reactor" in sys.modules)
            say("thread", getattr(threadable, "ioThread", None))
            """,
        )
        stream = Stream(self, program.port)
        self.assertEqual(total(stream.read_all(), "events_total"), 1001)
        output = self.ends(program)
        self.assertIn("reactor=False\nthread=None\n", output)

    def test_logHandler(self) -> None:
        """
        A log handler makes the first handle, while its own lock or that of `logging` is held: the
        exporter's thread, which logs its address, does not wait for the lock.
        """
        program = self.program(
            "0",
            """
            import logging, logging.config

            class Handler(logging.StreamHandler):
                def emit(self, record):
                    counter("events_total").increment()
                    super().emit(record)

            logging.basicConfig(level=logging.INFO, handlers=[Handler(sys.stdout)])
            logging.info("logged")
            """,
        )
        output = self.ends(program)
        self.assertRegex(output, r"\AINFO:txmetrics_tcp:Streaming .*\nINFO:root:logged\n\Z")

    def test_logConfiguration(self) -> None:
        program = self.program(
            "0",
            """
            import logging.config

            class Handler(logging.NullHandler):
                def __init__(self):
                    super().__init__()
                    counter("events_total").increment()
                    say("addresses", len(addresses()))

            handler = {"()": Handler}
            root = {"handlers": ["counting"], "level": "INFO"}
            logging.config.dictConfig(
                {"version": 1, "handlers": {"counting": handler}, "root": root}
            )
            """,
        )
        self.assertEqual(self.ends(program), "addresses=1\n")

    def test_directory(self) -> None:
        """The socket has the program's name and process, is private, and is removed at the end."""
        directory = self.directory()
        program = self.program(
            f"{directory}/new/",
            """
            sys.argv[0] = "/usr/bin/shop"
            counter("events_total").increment(3)
            serve_client()
            """,
        )
        path = f"{directory}/new/shop-{program.process.pid}.sock"
        until(lambda: os.path.exists(os.path.dirname(path)))
        stream = self.stream(f"{directory}/new", program.process.pid)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode), 0o700)
        self.check_total(stream, 3)
        stream.close()
        self.ends(program)
        self.assertEqual(os.listdir(f"{directory}/new"), [])

    def test_staleSockets(self) -> None:
        """A program removes the socket of one that was killed."""
        directory = self.directory()
        killed = self.program(directory, 'counter("c"); wait_until_listening(); signal.pause()')
        killed.said("port")
        killed.process.kill()
        killed.end()
        self.assertEqual([*self.sockets(directory)], [killed.process.pid])
        program = self.program(directory, 'counter("c"); wait_until_listening(); wait_for_client()')
        process = int(program.said("port"))
        self.assertEqual([*self.sockets(directory)], [process])
        self.stream(directory, process).read_all()
        self.ends(program)
        self.assertEqual(os.listdir(directory), [])


class FailureTests(AutomaticTestCase):
    """
    A failure does not raise in the program: it is logged once.
    """

    SCRIPT = """
        counter("events_total").increment()
        counter("others_total").increment()
        say("recorder", current_recorder())
        """

    def check(self, listen: str, reason: str) -> None:
        program = self.program(listen, self.SCRIPT)
        status, output, errors = program.end()
        self.assertEqual(
            (status, output), (0, "recorder=<program recorder: none installed>\n"), errors
        )
        self.assertRegex(
            errors, rf"\ATXMETRICS_TCP_LISTEN: no metrics are streamed: {reason}.*\n\Z"
        )

    def test_value(self) -> None:
        self.check("shop", "shop has no port; write shop:5000")

    def test_path(self) -> None:
        directory = f"{self.directory()}/{'x' * 100}/"
        self.check(directory, "the path of the socket is longer than 107 bytes")

    def test_address(self) -> None:
        self.check("192.0.2.1:0", r"Couldn't listen on 192\.0\.2\.1:0: ")

    def test_directory(self) -> None:
        self.check("/dev/null/x/", "")

    def test_portInUse(self) -> None:
        """While the port is in use, totals are kept; then, the exporter listens."""
        holder = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(holder.close)
        port = holder.getsockname()[1]
        program = self.program(
            str(port),
            """
            counter("events_total").increment(5)
            say("started", addresses())
            wait_until_listening()
            wait_for_client()
            """,
        )
        self.assertEqual(program.said("started"), "()")
        holder.close()
        self.assertEqual(program.port, port)
        self.check_total(Stream(self, port), 5)
        status, _, errors = program.end()
        self.assertEqual(status, 0)
        self.assertEqual(errors.count("\n"), 1)
        self.assertRegex(
            errors,
            rf"process {program.process.pid} will stream its metrics when the address is free:"
            rf" Couldn't listen on 127\.0\.0\.1:{port}: .*{IN_USE}",
        )


class ReactorTests(AutomaticTestCase):
    """
    The program runs its own event loop, which it chooses after its first handle.
    """

    TWISTED = """
        events = counter("events_total")
        {install}
        from twisted.internet import reactor, task, threads
        from twisted.internet.defer import ensureDeferred
        from twisted.python import threadable

        async def main(reactor):
            await task.deferLater(reactor, 0)
            wait_until_listening()
            say("in", threadable.isInIOThread())
            say("out", await threads.deferToThread(threadable.isInIOThread))
            while not current_recorder().stats().clients:
                await task.deferLater(reactor, 0.001)
            events.increment(4)

        say("type", type(reactor).__name__)
        task.react(lambda reactor: ensureDeferred(main(reactor)))
        """

    def check(self, script: str) -> str:
        program = self.program("0", script)
        self.check_total(Stream(self, program.port), 4)
        return self.ends(program)

    def test_default(self) -> None:
        output = self.check(self.TWISTED.format(install=""))
        self.assertIn("in=True\nout=False\n", output)

    def test_asyncio(self) -> None:
        install = "from twisted.internet import asyncioreactor; asyncioreactor.install()"
        output = self.check(self.TWISTED.format(install=install))
        self.assertIn("type=AsyncioSelectorReactor\n", output)
        self.assertIn("in=True\nout=False\n", output)

    def test_asyncioProgram(self) -> None:
        self.check(
            """
            import asyncio

            async def main():
                events = counter("events_total")
                wait_until_listening()
                while not current_recorder().stats().clients:
                    await asyncio.sleep(0.001)
                events.increment(4)

            asyncio.run(main())
            """
        )


class ReplacedTests(AutomaticTestCase):
    """
    The program installs its own exporter.
    """

    def check(self, script: str) -> None:
        program = self.program("0", script)
        self.check_total(Stream(self, program.port), 2)
        status, output, errors = program.end()
        self.assertEqual(status, 0)
        self.assertIn("before=()\n", output)
        self.assertRegex(
            errors, r"\ATXMETRICS_TCP_LISTEN has no effect any more: the program installs .*\n\Z"
        )

    def test_thread(self) -> None:
        """It may listen on the same address: the other exporter no longer does."""
        self.check(
            """
            events = counter("events_total")
            events.increment()
            before = current_recorder()
            from txmetrics_tcp import TcpBuilder
            port = before.addresses[0].port
            metrics = TcpBuilder().listen_address(port).install_in_thread()
            events.increment(2)
            assert metrics.addresses[0].port == port
            say("before", before.addresses)
            wait_until_listening()
            wait_for_client()
            """
        )

    def test_reactor(self) -> None:
        self.check(
            """
            events = counter("events_total")
            events.increment()
            before = current_recorder()
            from twisted.internet import task
            from twisted.internet.defer import ensureDeferred
            from txmetrics_tcp import TcpBuilder

            async def main(reactor):
                port = before.addresses[0].port
                recorder = await TcpBuilder(reactor).listen_address(port).install()
                events.increment(2)
                say("before", before.addresses)
                wait_until_listening()
                while not recorder.stats().clients:
                    await task.deferLater(reactor, 0.001)
                await recorder.stop()

            task.react(lambda reactor: ensureDeferred(main(reactor)))
            """
        )

    def test_first(self) -> None:
        """If the program installs its own before its first handle, the other does not start."""
        program = self.program(
            "0",
            """
            from txmetrics_tcp import TcpBuilder
            metrics = TcpBuilder().listen_address(0).install_in_thread()
            counter("events_total").increment(2)
            wait_until_listening()
            say("threads", threading.active_count())
            wait_for_client()
            """,
        )
        self.check_total(Stream(self, program.port), 2)
        self.assertIn("threads=2\n", self.ends(program))


class CallbackTests(AutomaticTestCase):
    def test_onStart(self) -> None:
        """
        Callbacks run on the reactor thread, in each process, before or after the start.  One that
        fails is logged, and one that makes a handle does not block.
        """
        program = self.program(
            "0",
            """
            from txmetrics_tcp._exporter import environment

            def early(recorder, reactor):
                counter("early_total").increment()
                say("early", recorder is current_recorder())

            def late(recorder, reactor):
                assert threading.current_thread() is not threading.main_thread()
                reactor.callLater(0, say, "late", threading.current_thread().name)

            environment.on_start(early)
            environment.on_start(lambda recorder, reactor: 1 / 0)
            environment.start()
            environment.on_start(late)
            wait_until_listening()
            wait_for_client()

            def child():
                counter("events_total").increment()
                wait_until_listening()
                serve_client()

            os.waitpid(fork(child), 0)
            """,
        )
        self.check_total(Stream(self, program.port), 1, "early_total")
        self.assertEqual(program.said("late"), "txmetrics-tcp reactor")
        stream = Stream(self, int(program.said("port", 2)))
        self.check_total(stream, 1, "early_total")
        stream.close()
        self.assertEqual(program.said("early", 2), "True")
        self.assertEqual(program.said("late", 2), "txmetrics-tcp reactor")
        self.assertEqual(self.ends(program, errors=None).count("early"), 2)
