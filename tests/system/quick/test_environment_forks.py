"""
Processes of multiprocessing whose exporter the environment asks for.
"""

from __future__ import annotations

from tests.automatic import AutomaticTestCase


class MultiprocessingTests(AutomaticTestCase):
    def check(self, method: str) -> None:
        path = self.directory()
        program = self.program(
            path,
            f"""
            import multiprocessing
            events = counter("events_total")

            def work():
                events.increment(3)
                wait_until_listening()
                wait_for_client()
                events.increment(4)

            if __name__ == "__main__":
                context = multiprocessing.get_context({method!r})
                child = context.Process(target=work)
                child.start()
                child.join()
                say("status", child.exitcode)
                say("sockets", [one for one in os.listdir({path!r}) if str(child.pid) in one])
            """,
        )
        # The socket of the child is removed at its end, after its last events are sent.
        stream = self.stream(path, int(program.said("port")))
        self.check_total(stream, 7)
        stream.read_all()
        self.assertEqual(program.said("status"), "0")
        self.assertEqual(program.said("sockets"), "[]")
        self.ends(program, errors=None)

    def test_fork(self) -> None:
        self.check("fork")

    def test_spawn(self) -> None:
        self.check("spawn")

    def test_forkserver(self) -> None:
        self.check("forkserver")
