"""
Starts and stops exporters that run in a thread.

Each program is a separate process, since a reactor runs only once.
"""

from __future__ import annotations

import socket

from tests.programs import Program, ProgramTestCase, Stream, total


class UseTests(ProgramTestCase):
    def test_contextManager(self) -> None:
        """The exporter stops at the end of the block; another may be started afterwards."""
        program = Program(
            self,
            """
            with TcpBuilder().listen_address(0).install_in_thread() as first:
                say("first", first)
                events.increment()
                say("global", current_recorder() is first.recorder)
            say("first", first)
            say("global", current_recorder() is first.recorder)
            events.increment(100)
            with TcpBuilder().listen_address(0).install_in_thread() as second:
                events.increment(10)
                say("second", [*second.recorder.snapshot().values()])
            second.stop()
            say("threads", threading.active_count())
            """,
        )
        output = self.ends(program).splitlines()
        self.assertRegex(output[0], "^first=<ThreadedExporter on IPv4.*127.0.0.1")
        self.assertEqual(
            output[1:],
            [
                "global=True",
                "first=<ThreadedExporter on nothing>",
                "global=False",
                "second=[10]",
                "threads=2",
            ],
        )

    def test_stopFlushes(self) -> None:
        """When C{stop} returns, the stream has ended, with all events of all threads."""
        program = Program(
            self,
            """
            metrics = start()
            wait_for_client(metrics)

            def work():
                for _ in range(250):
                    events.increment()

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            metrics.stop()
            say("clients", len(metrics.recorder.stats().clients))
            signal.pause()
            """,
        )
        stream = Stream(self, program.port)
        self.assertEqual(total(stream.read_all(), "events_total"), 1000)
        self.assertEqual(program.said("clients"), "0")

    def test_stopThatTakesTooLong(self) -> None:
        """The recorder is uninstalled; the exporter stops later."""
        program = Program(
            self,
            """
            metrics = start()
            from twisted.internet import reactor
            blocked = threading.Event()
            reactor.callFromThread(blocked.wait)
            refused(metrics.stop, 0.05)
            clock = time.monotonic
            accelerate_clock()
            refused(metrics.stop)
            time.monotonic = clock
            say("global", current_recorder())
            blocked.set()
            # Installing does not need a second stop.
            second = start()
            metrics.stop()
            say("end", metrics)
            say("global", current_recorder() is second.recorder)
            """,
        )
        self.assertIn("within 0.05 seconds", program.said("TimeoutError"))
        # The flush timeout is 600 seconds.
        self.assertIn("within 604.0 seconds", program.said("TimeoutError", 2))
        self.assertIn("none installed", program.said("global"))
        self.assertEqual(program.said("global", 2), "True")
        self.assertIn("end=<ThreadedExporter on nothing>", self.ends(program))

    def test_stopWhenTheReactorHasStopped(self) -> None:
        program = Program(
            self,
            """
            metrics = start()
            from twisted.internet import reactor
            reactor.callFromThread(reactor.stop)
            while reactor.running:
                time.sleep(0.001)
            metrics.stop()
            refused(TcpBuilder().listen_address(0).install_in_thread)
            """,
        )
        self.assertIn("runs only once", program.said("ReactorThreadError"))
        self.ends(program)

    def test_stopWhileTheReactorStops(self) -> None:
        """C{stop} does not wait for a stopped reactor."""
        program = Program(
            self,
            """
            from twisted.internet.defer import Deferred
            metrics = start()
            from twisted.internet import reactor
            metrics.recorder.stop = lambda: (reactor.stop(), Deferred())[1]
            metrics.stop(1000)
            """,
        )
        self.ends(program)

    def test_signalHandlers(self) -> None:
        """The program's signal handlers stay installed."""
        program = Program(
            self,
            """
            which = signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP
            before = [signal.getsignal(one) for one in which], signal.set_wakeup_fd(-1)
            start()
            after = [signal.getsignal(one) for one in which], signal.set_wakeup_fd(-1)
            say("same", before == after)
            """,
        )
        self.assertEqual(program.said("same"), "True")
        self.ends(program)

    def test_oftenStopped(self) -> None:
        """Stopped exporters, with all their totals, do not stay in memory."""
        program = Program(
            self,
            """
            import socket
            handles = [counter("events_total", number=str(number)) for number in range(10)]

            def use():
                with TcpBuilder().listen_address(0).install_in_thread() as metrics:
                    with socket.create_connection(("127.0.0.1", metrics.addresses[0].port)):
                        wait_for_client(metrics)
                        for handle in handles:
                            handle.increment()
                    try:
                        TcpBuilder().install_in_thread()
                    except RecorderInstalledError:
                        pass

            def stop_on_the_reactor_thread():
                metrics = TcpBuilder().listen_address(0).install_in_thread()
                blockingCallFromThread(reactor, metrics.recorder.stop)

            def count():
                # On the reactor thread, whose last call then refers to nothing.
                gc.collect()
                found = [type(one).__name__ for one in gc.get_objects()]
                names = "MetricsFactory", "MetricsService", "TcpRecorder", "StreamedSeries", "Port"
                return [found.count(name) for name in names]

            from twisted.internet.threads import blockingCallFromThread
            from twisted.internet import reactor
            for _ in range(50):
                stop_on_the_reactor_thread()
                use()
            say("left", blockingCallFromThread(reactor, count))
            """,
        )
        self.assertEqual(program.said("left"), "[0, 0, 0, 0, 0]")
        self.ends(program)

    def test_log(self) -> None:
        """The exporter's log lines go to the program's logging."""
        program = Program(
            self,
            """
            import logging
            start("0.0.0.0:0").stop()
            logging.basicConfig(level="INFO", format="%(name)s")
            start()
            """,
        )
        status, _, errors = program.end()
        self.assertEqual(status, 0)
        self.assertRegex(errors, r"\AAny client with network access to .*\ntxmetrics_tcp\n\Z")


class ErrorTests(ProgramTestCase):
    def test_anotherIsGlobal(self) -> None:
        """If another global recorder is installed, the error names it."""
        program = Program(self, "set_global_recorder(NoopRecorder()); refused(start)")
        self.assertIn("NoopRecorder", program.said("RecorderInstalledError"))
        self.ends(program)

    def test_cannotListen(self) -> None:
        """The error names the reason, and `install_in_thread` works afterwards."""
        occupied = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(occupied.close)
        program = Program(
            self,
            f"""
            refused(start, {occupied.getsockname()[1]})
            refused(start, "nonsense:1:2:3")
            metrics = start()
            events.increment()
            say("recorded", [*metrics.recorder.snapshot().values()])
            """,
        )
        self.assertIn("Address already in use", program.said("ListenError"))
        self.assertIn("nonsense", program.said("EndpointError"))
        self.assertEqual(program.said("recorded"), "[1]")
        self.ends(program)

    def test_alreadyRunning(self) -> None:
        """
        Starting a second exporter raises an error.  Calls on the reactor thread, which would hang,
        raise errors.
        """
        program = Program(
            self,
            """
            metrics = start()
            refused(start)
            from twisted.internet import reactor
            done = threading.Event()

            def in_reactor():
                refused(TcpBuilder().install_in_thread)
                refused(metrics.stop)
                done.set()

            reactor.callFromThread(in_reactor)
            done.wait()
            """,
        )
        self.assertRegex(
            program.said("RecorderInstalledError"),
            r"streamed already, by <ThreadedExporter on .*>: use it, or call its stop\(\) first",
        )
        self.assertIn("call install() here", program.said("ReactorThreadError"))
        self.assertIn("call recorder.stop() here", program.said("ReactorThreadError", 2))
        self.ends(program)

    def test_stoppedOneIsNotBlamed(self) -> None:
        """The error does not name an exporter whose recorder was stopped and replaced."""
        program = Program(
            self,
            """
            from twisted.internet import reactor
            from twisted.internet.threads import blockingCallFromThread
            metrics = start()
            blockingCallFromThread(reactor, metrics.recorder.stop)
            set_global_recorder(NoopRecorder())
            refused(start)
            metrics.stop()
            """,
        )
        self.assertNotIn("ThreadedExporter", program.said("RecorderInstalledError"))
        self.ends(program)

    def test_reactorHasStopped(self) -> None:
        program = Program(
            self,
            """
            from twisted.internet import reactor
            reactor.callWhenRunning(reactor.stop)
            reactor.run()
            refused(start)
            say("global", current_recorder())
            """,
        )
        self.assertIn("has run and stopped", program.said("ReactorThreadError"))
        self.assertIn("none installed", program.said("global"))
        self.ends(program)
