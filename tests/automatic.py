"""
Programs whose exporter the environment asks for.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from tests.programs import Program, ProgramTestCase, Stream, stream_of, total
from txmetrics_tcp._exporter.environment import VARIABLE

PREAMBLE = """
import os, signal, sys, threading, time, warnings
# Python 3.12 and later warn in a program that forks and has threads.
warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)
from txmetrics_tcp import counter, current_recorder

def say(name, value):
    # One write, so that output of other processes does not mix with it.
    os.write(1, f"{name}={value}\\n".encode())

def addresses():
    return getattr(current_recorder(), "addresses", ())

def wait_until_listening():
    while not addresses():
        time.sleep(0.001)
    say("port", getattr(addresses()[0], "port", os.getpid()))

def wait_for_client():
    while not current_recorder().stats().clients:
        time.sleep(0.001)

def serve_client():
    # Until it has gone: the totals have been sent.
    wait_for_client()
    while current_recorder().stats().clients:
        time.sleep(0.001)

def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.001)

def fork(act):
    child = os.fork()
    if not child:
        try:
            act()
        finally:
            # Without the functions of atexit, as in many servers.
            os._exit(0)
    return child
"""


class AutomaticTestCase(ProgramTestCase):
    def program(self, listen: str | None, script: str) -> Program:
        """Start a program, with a value of the environment variable."""
        variables = {} if listen is None else {VARIABLE: listen}
        return Program(self, script, PREAMBLE, variables)

    def directory(self) -> str:
        """Return a new directory, with a path that is short enough for a socket."""
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        return directory

    def sockets(self, directory: str) -> dict[int, str]:
        """Return the paths of the sockets in a directory, by process."""
        found = {}
        for path in Path(directory).iterdir():
            if match := re.fullmatch(r"[\w.-]+-(\d+)\.sock", path.name):
                found[int(match[1])] = str(path)
        return found

    def stream(self, directory: str, process: int) -> Stream:
        """Connect to the socket of a process, once it exists."""
        return stream_of(self, lambda: filter(None, [self.sockets(directory).get(process)]))

    def check_total(self, stream: Stream, expected: float, name: str = "events_total") -> None:
        """Read until a total has a value, and check that it never has a greater one."""
        reader = stream.read_until(lambda reader: total(reader, name) >= expected)
        self.assertEqual(total(reader, name), expected)
