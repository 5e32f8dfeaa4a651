"""
Objects that hold handles, in processes that multiprocessing spawns.
"""

from __future__ import annotations

from tests.programs import Program, ProgramTestCase


class SpawnTests(ProgramTestCase):
    def test_boundMethod(self) -> None:
        """The handles of an object that is sent to a worker record to the worker's exporter."""
        program = Program(
            self,
            """
            import multiprocessing

            class Job:
                def __init__(self):
                    self.done = counter("jobs_total", queue="a")
                    self.running = gauge("jobs_running").track_inprogress()
                    self.timer = histogram("job_seconds").time()

                def run(self):
                    with start() as metrics:
                        with self.running, self.timer:
                            self.done.increment()
                            totals = metrics.recorder.snapshot().items()
                    say("totals", sorted((str(k), v) for k, v in totals if "job" in k.name))

            if __name__ == "__main__":
                worker = multiprocessing.get_context("spawn").Process(target=Job().run)
                worker.start()
                worker.join()
                say("status", worker.exitcode)
            """,
        )
        output = self.ends(program).splitlines()
        totals = [("jobs_running", 1.0), ("jobs_total [queue = a]", 1)]
        self.assertEqual(output[1:], [f"totals={totals}", "status=0"])
