"""
``metrics-tcp tail --raw`` as a process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from pathlib import Path
from unittest import skipIf

from twisted.internet.task import deferLater

from tests import no_descriptors
from tests.commands import Child, CommandTestCase, reactor
from tests.recordings import MANY, THREE, increment, metrics


class ProcessTests(CommandTestCase):
    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).resolve())

    def fifo(self) -> Child:
        """Print a FIFO."""
        os.mkfifo(self.path)
        return self.child("tail", "--raw", self.path)

    async def writer(self) -> int:
        """Return the writing end of the FIFO as soon as the command has opened it for reading."""
        while True:
            try:
                writing = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENXIO)
                await deferLater(reactor, 0.01)
            else:
                self.addCleanup(os.close, writing)
                return writing

    async def test_file(self) -> None:
        """A file, given by name or as standard input, is printed to its end."""
        Path(self.path).write_bytes(MANY)
        by_name = self.child("tail", "--raw", self.path)
        redirected = self.shell(f'"$@" < {self.path}', "tail", "--raw", "-")
        for child in by_name, redirected:
            self.assertEqual(await child.ended, 0)
            self.assertEqual((child.out.count("\n"), child.err), (metrics(MANY), ""))

    async def test_pipe(self) -> None:
        """A pipe on standard input is printed as data arrives, until its writer closes it."""
        child = self.child("tail", "--raw", "-")
        for number in range(1, 3):
            for piece in increment(number)[:10], increment(number)[10:]:
                child.transport.write(piece)  # type: ignore[union-attr]
            await child.prints(f"requests_total {number}\n")
        child.transport.closeStdin()  # type: ignore[union-attr]
        self.assertEqual(await child.ended, 0)
        self.assertEqual((child.out.count("\n"), child.err), (2, ""))

    async def test_sharedInput(self) -> None:
        """The command does not change the flags of standard input."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        flags = fcntl.fcntl(reading, fcntl.F_GETFL)
        child = self.child("tail", "--raw", "-", childFDs={0: reading, 1: "r", 2: "r"})
        os.write(writing, THREE)
        await child.prints("requests_total 2\n")
        self.assertEqual(fcntl.fcntl(reading, fcntl.F_GETFL), flags)
        child.signal("TERM")
        self.assertEqual(await child.ended, 143)

    async def test_socket(self) -> None:
        """A socket on standard input, connected to a server, is printed as data arrives."""
        port = int(self.serve())
        with socket.create_connection(("127.0.0.1", port)) as connection:
            descriptors = {0: connection.fileno(), 1: "r", 2: "r"}
            child = self.child("tail", "--raw", "-", childFDs=descriptors)
        await child.prints("^status ")
        self.counter.increment(3)
        await child.prints(r"requests_total \[route = /\] 3\n")
        await self.server.stop(0)
        self.assertEqual((await child.ended, child.err), (0, ""))

    async def test_fifo(self) -> None:
        """Events in a FIFO are printed while it stays open; SIGTERM ends the command."""
        child = self.fifo()
        os.write(await self.writer(), THREE)
        await child.prints("requests_total 2\n")
        child.signal("TERM")
        self.assertEqual((await child.ended, child.err), (143, ""))

    @skipIf(no_descriptors, no_descriptors)
    async def test_noWriter(self) -> None:
        """A signal ends the command while no program has opened the FIFO for writing."""
        child = self.fifo()
        status = Path(f"/proc/{child.transport.pid}/status")  # type: ignore[union-attr]

        def handles_signals() -> bool:
            # The command opens the FIFO first.  Python itself handles only SIGINT.
            caught = int(status.read_text().partition("SigCgt:")[2].split()[0], 16)
            return bool(caught >> signal.SIGTERM - 1 & 1)

        while not handles_signals():
            await deferLater(reactor, 0.01)
        child.signal("INT")
        self.assertEqual((await child.ended, child.out, child.err), (130, "", ""))

    async def test_head(self) -> None:
        """``| head -1`` ends the command at once, even if the capture stays open."""
        os.mkfifo(self.path)
        script = '{ "$@"; echo "code $?" >&2; } | head -1'
        child = self.shell(script, "tail", "--raw", self.path)
        os.write(await self.writer(), THREE)
        self.assertEqual(await child.ended, 0)
        self.assertEqual((child.out.count("\n"), child.err), (1, "code 0\n"))

    async def test_fullDisk(self) -> None:
        """If the output cannot be written, the command ends, and reports it once."""
        Path(self.path).write_bytes(MANY)
        child = self.shell('"$@" > /dev/full', "tail", "--raw", self.path)
        self.assertEqual(await child.ended, 1)
        message = "metrics-tcp: cannot write to standard output: No space left on device\n"
        self.assertEqual(child.err, message)
