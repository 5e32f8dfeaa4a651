"""
Exporters that run in a thread, in programs with various reactors, endings and forks.

Each program is a separate process, since a reactor runs only once.
"""

from __future__ import annotations

import signal
import socket
from unittest import skipIf

from tests import needs
from tests.programs import Program, ProgramTestCase, Stream, total


class ReactorTests(ProgramTestCase):
    """
    The program may use its own reactor, of any kind.
    """

    def test_runsInAnotherThread(self) -> None:
        """The exporter uses the program's running reactor, and does not stop it at exit."""
        program = Program(
            self,
            """
            from twisted.internet import reactor
            up = threading.Event()
            reactor.callWhenRunning(up.set)
            threading.Thread(target=reactor.run, args=(False,), daemon=True).start()
            up.wait()
            metrics = start()
            wait_for_client(metrics)
            for _ in range(1000):
                events.increment()
            say("threads", threading.active_count())
            """,
        )
        reader = Stream(self, program.port).read_all()
        self.assertEqual(total(reader, "events_total"), 1000)
        self.assertEqual(program.said("threads"), "2")
        self.ends(program)

    def test_runsInTheMainThread(self) -> None:
        program = Program(
            self,
            """
            from twisted.internet import reactor

            def beside():
                metrics = start()
                wait_for_client(metrics)
                for _ in range(1000):
                    events.increment()
                metrics.stop()
                reactor.callFromThread(reactor.stop)

            reactor.callInThread(beside)
            reactor.run()
            """,
        )
        reader = Stream(self, program.port).read_all()
        self.assertEqual(total(reader, "events_total"), 1000)
        self.ends(program)

    ASYNCIO = """
        import asyncio
        from twisted.internet import asyncioreactor
        {loop}

        async def main():
            metrics = await asyncio.to_thread(start)
            await asyncio.to_thread(wait_for_client, metrics)
            for _ in range(1000):
                events.increment()
                await asyncio.sleep(0)
            await asyncio.to_thread(metrics.stop)

        loop.run_until_complete(main())
        """

    def check_loops(self, *loops: str) -> None:
        for loop in loops:
            program = Program(self, self.ASYNCIO.format(loop=loop))
            reader = Stream(self, program.port).read_all()
            self.assertEqual(total(reader, "events_total"), 1000, loop)
            self.ends(program)

    def test_asyncio(self) -> None:
        """The program has an asyncio loop; the reactor is the default one or asyncio's."""
        self.check_loops(
            "loop = asyncio.new_event_loop()",
            # The installed reactor has another loop than the program.
            "loop = asyncio.new_event_loop(); asyncioreactor.install(asyncio.new_event_loop())",
        )

    @skipIf(needs("uvloop"), needs("uvloop"))
    def test_uvloop(self) -> None:
        """The program or the reactor has a uvloop loop."""
        self.check_loops(
            "import uvloop; loop = uvloop.new_event_loop()",
            "import uvloop; loop = asyncio.new_event_loop();"
            "asyncioreactor.install(uvloop.new_event_loop())",
        )

    def test_loopRunningInThisThread(self) -> None:
        """A reactor whose loop runs in this thread cannot run in another thread."""
        program = Program(
            self,
            """
            import asyncio
            from twisted.internet import asyncioreactor

            async def main():
                asyncioreactor.install(asyncio.get_running_loop())
                refused(start)

            asyncio.run(main())
            """,
        )
        self.assertIn("already running", program.said("ReactorThreadError"))
        self.ends(program, errors=None)


class ExitTests(ProgramTestCase):
    """
    Every program ends soon and silently, and sends all pending events where possible.
    """

    def run_to_end(
        self, ending: str, recorded: int, status: int = 0, errors: str | None = ""
    ) -> str:
        program = Program(
            self,
            f"""
            metrics = start()
            wait_for_client(metrics)

            def record(n=1000):  # fits into the buffer
                for _ in range(n):
                    events.increment()
            {ending}
            """,
        )
        reader = Stream(self, program.port).read_all()
        self.assertEqual(total(reader, "events_total"), recorded)
        return self.ends(program, status, errors)

    def test_sysExit(self) -> None:
        """All events are sent, including those recorded after the main thread has ended."""
        self.run_to_end(
            """
            main = threading.main_thread()
            threading.Thread(target=lambda: (main.join(), record(300))).start()
            atexit.register(record, 300)
            record(300)
            sys.exit(3)
            """,
            900,
            3,
        )

    def test_exception(self) -> None:
        output = self.run_to_end("record(); os.dup2(1, 2); raise RuntimeError", 1000, 1)
        self.assertEqual(output.count("Traceback"), 1)

    def test_sysExitInThread(self) -> None:
        """C{sys.exit} in a thread ends only the thread."""
        self.run_to_end(
            """
            thread = threading.Thread(target=lambda: (record(500), sys.exit(3)))
            thread.start()
            thread.join()
            record(500)
            """,
            1000,
        )

    def test_sigtermByDefault(self) -> None:
        """An unhandled SIGTERM kills the program, as usual."""
        program = Program(self, "start(); say('up', 1); signal.pause()")
        stream = Stream(self, program.port)
        stream.read_until(lambda reader: bool(reader.statuses))
        program.process.send_signal(signal.SIGTERM)
        stream.read_all()
        self.ends(program, -signal.SIGTERM)

    def test_sigtermHandled(self) -> None:
        self.run_to_end(
            """
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
            record()
            os.kill(os.getpid(), signal.SIGTERM)
            """,
            1000,
            5,
        )

    def test_interrupted(self) -> None:
        self.run_to_end(
            "record(); os.kill(os.getpid(), signal.SIGINT); signal.pause()",
            1000,
            -signal.SIGINT,
            None,
        )

    def test_osExit(self) -> None:
        program = Program(self, "start(); record = events.increment; record(); os._exit(4)")
        self.ends(program, 4)

    def test_recordingWhileShuttingDown(self) -> None:
        """Daemon threads and finalizers may record during interpreter shutdown."""
        program = Program(
            self,
            """
            import logging
            logging.getLogger("txmetrics_tcp").disabled = True  # it would log losses
            metrics = start()
            wait_for_client(metrics)

            def record():
                while True:
                    events.increment()
                    gauge("g").set(1)
                    time.sleep(0)  # lets other threads run at the end

            for _ in range(3):
                threading.Thread(target=record, daemon=True).start()

            class Late:
                def __del__(self):
                    events.increment()
                    say("late", sys.is_finalizing())

            gc.disable()
            late = Late()
            late.cycle = late
            del late
            """,
        )
        Stream(self, program.port).read_all()
        self.assertIn("late=True\n", self.ends(program))

    def test_finalizersWithHeldLocks(self) -> None:
        """
        Finalizers that record or take snapshots after daemon threads have died do not wait for the
        locks that those threads held.
        """
        program = Program(
            self,
            """
            from twisted.internet import reactor
            recorder = MetricsFactory(reactor).recorder
            incoming, counter = recorder._incoming, recorder.counter
            held, never = threading.Event(), threading.Event()

            def hold():
                with incoming._lock, incoming._registry._lock:
                    held.set()
                    never.wait()

            class Late:
                def __del__(self):
                    for _ in range(10_000):
                        counter("c").increment()
                    counter("made and forgotten")
                    [total] = recorder.snapshot().values()
                    say("late", (sys.is_finalizing(), total, recorder.stats().dropped_incoming))

            counter("c").increment()
            threading.Thread(target=hold, daemon=True).start()
            held.wait()
            gc.disable()
            late = Late()
            late.cycle = late
            del late
            """,
        )
        self.assertEqual(self.ends(program), "late=(True, 10001, 0)\n")

    def test_stalledClient(self) -> None:
        """A client that does not read does not delay the program's end."""
        program = Program(
            self,
            """
            metrics = start(patience=0.1)
            wait_for_client(metrics)
            big = counter("big", text="x" * 60_000)
            for _ in range(1000):
                big.increment()
            """,
        )
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", program.port))
            self.ends(program)

    def test_stuckReactor(self) -> None:
        """A blocked reactor does not delay the program's end."""
        program = Program(
            self,
            """
            start()
            from twisted.internet import reactor
            blocked, never = threading.Event(), threading.Event()
            reactor.callFromThread(lambda: (blocked.set(), never.wait()))
            blocked.wait()
            accelerate_clock()
            """,
        )
        self.ends(program)


class ForkTests(ProgramTestCase):
    """
    A forked child may install an exporter if its parent has not.
    """

    CHILDREN = """
        import multiprocessing

        def work(n):
            metrics = start()
            handle = counter("work_total", child=str(n))
            wait_for_client(metrics)
            for _ in range(1000):
                handle.increment()

        if __name__ == "__main__":
            {before}
            context = multiprocessing.get_context({method!r})
            children = [context.Process(target=work, args=(n,)) for n in range(2)]
            for child in children:
                child.start()
            for child in children:
                child.join()
            say("status", [child.exitcode for child in children])
        """

    def check_children(self, method: str, before: str = "", ports: int = 0) -> Program:
        program = Program(self, self.CHILDREN.format(method=method, before=before))
        found = set()
        for nth in (1, 2):
            reader = Stream(self, int(program.said("port", ports + nth))).read_all()
            for n in "01":
                if total(reader, "work_total", child=n) == 1000:
                    found.add(n)
        self.assertEqual(found, {"0", "1"})
        self.assertEqual(program.said("status"), "[0, 0]")
        return program

    def test_multiprocessing(self) -> None:
        """
        Children of every start method may install an exporter. If a child runs a new interpreter,
        this also works after the parent has installed an exporter.
        """
        self.ends(self.check_children("fork"))
        for method in ("spawn", "forkserver"):
            self.ends(self.check_children(method, "start()", ports=1))

    def test_multiprocessingForkFromInstalled(self) -> None:
        """
        If the parent has installed an exporter, a forked child cannot; its events are dropped with
        a warning, and the parent's clients are not affected.
        """
        program = Program(
            self,
            """
            import multiprocessing, warnings
            warnings.simplefilter("ignore")

            def work():
                say("child", os.getpid())
                for _ in range(1000):
                    events.increment()
                refused(start)

            metrics = start()
            wait_for_client(metrics)
            context = multiprocessing.get_context("fork")
            child = context.Process(target=work)
            child.start()
            child.join()
            say("status", child.exitcode)
            events.increment()
            """,
        )
        reader = Stream(self, program.port).read_all()
        self.assertEqual(total(reader, "events_total"), 1)
        self.assertIn("install after forking", program.said("ReactorThreadError"))
        self.assertEqual(program.said("status"), "0")
        self.ends(program, errors=f"{self.warning(program)}\n")

    def test_osFork(self) -> None:
        """A child that exits normally does not affect the parent and its clients."""
        program = Program(
            self,
            """
            import warnings
            warnings.simplefilter("ignore")
            metrics = start()
            wait_for_client(metrics)
            events.increment()
            child = os.fork()
            if child == 0:
                say("child", os.getpid())
                events.increment(1000)
                refused(start)
                say("exporter", metrics)
                metrics.stop()
                sys.exit(7)
            say("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            events.increment()
            """,
        )
        reader = Stream(self, program.port).read_all()
        self.assertEqual(total(reader, "events_total"), 2)
        self.assertIn("install after forking", program.said("ReactorThreadError"))
        self.assertEqual(program.said("status"), "7")
        self.assertEqual(program.said("exporter"), "<ThreadedExporter on nothing>")
        self.ends(program, errors=f"{self.warning(program)}\n")

    def test_finalizerInChild(self) -> None:
        """A child whose only event is recorded during interpreter shutdown ends, silently."""
        program = Program(
            self,
            """
            import warnings
            warnings.simplefilter("ignore")
            metrics = start()

            class Late:
                def __del__(self):
                    events.increment()
                    say("late", sys.is_finalizing())

            child = os.fork()
            if child == 0:
                gc.disable()
                late = Late()
                late.cycle = late
                del late
                sys.exit()
            say("status", os.waitpid(child, 0)[1])
            """,
        )
        self.assertEqual(program.said("status"), "0")
        self.assertIn("late=True\n", self.ends(program))

    def warning(self, program: Program) -> str:
        return (
            f"Process {program.said('child')} records no metrics: it was forked from a process that"
            " was already streaming.  Install after forking, in each process"
        )

    def test_forkOnTheReactorThread(self) -> None:
        """In a child forked on the reactor thread, the reactor does not run."""
        program = Program(
            self,
            """
            import warnings
            warnings.simplefilter("ignore")
            metrics = start()
            from twisted.internet import reactor
            forked = threading.Event()

            def fork():
                child = os.fork()
                if child == 0:
                    refused(start)
                    os._exit(0)
                os.waitpid(child, 0)
                forked.set()

            reactor.callFromThread(fork)
            forked.wait()
            """,
        )
        self.assertIn("install after forking", program.said("ReactorThreadError"))
        self.ends(program)

    def test_forkAfterTheReactorHasStopped(self) -> None:
        """If the parent's reactor has stopped, a child can install an exporter and exit cleanly."""
        program = Program(
            self,
            """
            import multiprocessing

            def work():
                metrics = start()
                wait_for_client(metrics)
                for _ in range(1000):
                    events.increment()

            start()
            from twisted.internet import reactor
            reactor.callFromThread(reactor.stop)
            while threading.active_count() > 1:
                time.sleep(0.001)
            child = multiprocessing.get_context("fork").Process(target=work)
            child.start()
            child.join()
            say("status", child.exitcode)
            """,
        )
        reader = Stream(self, int(program.said("port", 2))).read_all()
        self.assertEqual(total(reader, "events_total"), 1000)
        self.assertEqual(program.said("status"), "0")
        self.ends(program)

    PRELOADED = """
        {preload}

        def readers():
            # The inodes of the files that the reactor reads, such as its wake-up pipe.
            reactor = sys.modules.get("twisted.internet.reactor")
            every = reactor.getReaders() if reactor else []
            return {{os.fstat(reader.fileno()).st_ino for reader in every}}

        inherited = readers()
        children = []
        for n in range(2):
            child = os.fork()
            if child == 0:
                metrics = start()
                say("shared", inherited & readers())
                handle = counter("work_total", child=str(n))
                wait_for_client(metrics)
                for _ in range(1000):
                    handle.increment()
                metrics.stop()
                sys.exit()
            children.append(child)
        status = [os.waitpid(child, 0)[1] for child in children]
        say("status", status)
        """

    def test_preloaded(self) -> None:
        """
        Children of a parent that has imported the reactor, as in a pre-fork server, do not share
        the reactor's descriptors.
        """
        for preload in (
            "from twisted.internet import reactor; set_global_recorder(NoopRecorder())",
            "import asyncio; from twisted.internet import asyncioreactor;"
            "asyncioreactor.install(asyncio.new_event_loop())",
        ):
            program = Program(self, self.PRELOADED.format(preload=preload))
            streams = [Stream(self, int(program.said("port", nth))) for nth in (1, 2)]
            totals = [
                tuple(total(stream.read_all(), "work_total", child=str(n)) for n in range(2))
                for stream in streams
            ]
            self.assertEqual(sorted(totals), [(0, 1000), (1000, 0)])
            self.assertEqual(program.said("status"), "[0, 0]")
            self.assertEqual(self.ends(program).count("shared=set()"), 2)

    def test_builderWithAnInheritedReactor(self) -> None:
        """An inherited reactor that was passed explicitly cannot be replaced, which is an error."""
        program = Program(
            self,
            """
            from twisted.internet import reactor
            builder = TcpBuilder(reactor).listen_address(0)
            child = os.fork()
            if child == 0:
                refused(builder.install_in_thread)
                os._exit(0)
            os.waitpid(child, 0)
            """,
        )
        self.assertIn("shares", program.said("ReactorThreadError"))
        self.ends(program)
