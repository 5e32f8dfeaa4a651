"""
Feeds damaged streams to the decoder, and damaged requests to the server::

    python tests/fuzz.py --seconds 30 [--seed N] [--target decoder|server]

However a stream is split, the decoder must return exactly the same events as the oracle, and must
fail at the same place.  A view ingests the decoded events.  Streams that reach new
code paths of the decoder are kept, and damaged further.  The server must work correctly for any
data that a client sends, and other clients must receive every event.

The seed is printed; it repeats the same inputs.  A failure is printed as a Python call that
reproduces it, with a minimized input.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import FrameType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from twisted.logger import LogEvent, LogLevel, globalLogPublisher  # noqa: E402

from tests import mutations  # noqa: E402
from tests.oracle import meaning, plain  # noqa: E402
from tests.reader import FakeClient  # noqa: E402
from tests.wire_cases import CASES  # noqa: E402
from txmetrics_tcp import Decoder, Event, ExporterSettings, MetricsFactory, StreamError  # noqa: E402
from txmetrics_tcp._codec import decoder as decoder_module  # noqa: E402
from txmetrics_tcp._exporter import factory as factory_module  # noqa: E402
from txmetrics_tcp._exporter import protocol  # noqa: E402
from txmetrics_tcp.testing import FakeReactor  # noqa: E402

MAX_FRAME = 5000
"""The frame limit of the decoders: small, so that inputs exceed it."""

PATIENCE = 20.0
"""The time limit of an input in seconds, a thousand times the normal time."""

SMALLER = 20.0
"""The time limit for minimizing a failing input, in seconds."""

MAX_KEPT = 2000
"""The maximum number of inputs that are kept to be damaged further."""


class Failed(AssertionError):
    """A check has failed."""


# Checks


def check_decoder(stream: bytes, cuts: list[int]) -> None:
    """
    Compare the decoder with the oracle, and let a view ingest the events.

    @param cuts: the sizes of the pieces of the stream, used in turn.
    """
    expected, wrong, unfinished = meaning(stream, MAX_FRAME)
    decoder = Decoder(MAX_FRAME)
    events: list[Event] = []
    failed = False
    for piece in pieces(stream, cuts):
        try:
            for event in decoder.feed(piece):
                events.append(event)
        except StreamError:
            failed = True
        if decoder.unfinished > MAX_FRAME + 10:
            raise Failed(f"the decoder holds {decoder.unfinished} bytes")
    decoded = [plain(event) for event in events]
    if decoded != expected:
        at = next(
            (at for at, pair in enumerate(zip(decoded, expected)) if pair[0] != pair[1]),  # noqa: B905
            min(len(decoded), len(expected)),
        )
        raise Failed(f"event {at}: {decoded[at : at + 1]}, expected: {expected[at : at + 1]}")
    if failed != wrong:
        raise Failed("the decoder rejected a valid stream" if failed else "no StreamError")
    if decoder.unfinished != unfinished:
        raise Failed(f"{decoder.unfinished} bytes are unfinished, expected: {unfinished}")
    ingest(events)


def check_server(sent: bytes, cuts: list[int]) -> None:
    """
    Let a client send data while events are recorded, and then disconnect.

    @param cuts: the sizes of the pieces of the data, used in turn.
    """
    errors: list[str] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event or event["log_level"] >= LogLevel.error:
            errors.append(repr(event))

    reactor = FakeReactor()
    factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False))
    globalLogPublisher.addObserver(observe)
    try:
        other, client = FakeClient(factory), FakeClient(factory)
        counter = factory.recorder.counter("c")
        for number, piece in enumerate(pieces(sent, cuts)):
            client.transport.receive(piece)
            counter.increment()
            if number % 3 == 0:
                client.read()
            reactor.advance(0.1)
        for one in (client, other):
            one.read_all(reactor)
            if one.reader.unfinished:
                raise Failed("a client has received only part of a frame")
        if other.reader.totals != factory.recorder.snapshot():
            raise Failed("the other client has wrong totals")
        for one in (client, other):
            one.transport.lose()
        reactor.settle()
        if factory.stats().clients:
            raise Failed("a disconnected client is still in the statistics")
        factory.stop()
        reactor.settle()
        if reactor.getDelayedCalls():
            raise Failed(f"delayed calls remain: {reactor.getDelayedCalls()}")
    finally:
        globalLogPublisher.removeObserver(observe)
    if errors:
        raise Failed(f"logged: {errors}")


def ingest(events: list[Event]) -> None:
    """
    Let a view and a replay ingest events; call all methods of the series, and write the state.
    """
    from txmetrics_tcp._recording.stream_state import StreamState
    from txmetrics_tcp._view.series import SourceView

    now = 1.0
    view = SourceView(lambda: now)
    view.connected()
    view.ingest(events)
    for key, series in view.series.items():
        view.description(key)
        series.rate(now)
        series.history(now)
        series.summary(10.0, now)
        series.summary()
    state = StreamState()
    state.follow(events)
    for frame in state.frames():
        Decoder().feed(frame)


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Split data into pieces of these sizes, used in turn."""
    at = turn = 0
    while at < len(data):
        size = max(sizes[turn % len(sizes)], 1) if sizes else len(data)
        yield data[at : at + size]
        at += size
        turn += 1


# Inputs


class Streams:
    """
    Generates streams for the decoder.

    The sources are the table of cases, a recorded stream, generated series, and kept streams.

    @ivar kept: the streams that reached new code paths.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        recorded = (ROOT / "tests" / "data" / "reference-stream.bin").read_bytes()
        self._seeds = [
            message
            for stream in [*(case.frame for case in CASES), recorded]
            for message in mutations.frames(stream)
        ]
        self.kept: list[bytes] = []

    def __call__(self) -> bytes:
        random = self._random
        if self.kept and random.random() < 0.5:
            stream = random.choice(self.kept)
            if random.random() < 0.4:
                return mutations.damaged(random, stream)
            messages = mutations.frames(stream)[:50]
        else:
            messages = random.choices(self._seeds, k=random.randrange(5))
        for _ in range(random.choice((0, 1, 1, 2))):
            messages += mutations.series(random, random.choice((2, 3, 6)))
        if not messages:
            return random.randbytes(random.randrange(40))
        for _ in range(random.choice((0, 1, 1, 2, 4))):
            at = random.randrange(len(messages))
            message = messages[at]
            if message and random.random() < 0.3:
                # Keeps the size, so that the frame begins like others of its series.
                message = mutations.flipped(random, message)
            else:
                message = mutations.changed_message(random, message, self._seeds)
            # Similar messages follow, since known series take another code path.
            again = [mutations.later(random, message) for _ in range(random.choice((0, 0, 1, 3)))]
            messages[at : at + random.randrange(2)] = [message, *again]
        if random.random() < 0.3:
            random.shuffle(messages)
        stream = b"".join(mutations.framed(random, message) for message in messages)
        return mutations.damaged(random, stream) if random.random() < 0.1 else stream


class Requests:
    """Generates data that clients might send to the server, which expects none."""

    kept: list[bytes]

    def __init__(self, random: Random) -> None:
        self._random = random
        self.kept = []
        self._seeds = [
            b"",
            b"GET / HTTP/1.1\r\nHost: localhost:5000\r\nUser-Agent: curl/8\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"\r\n\r\n\x0d\x0aQUIT\n",
            b"\xff\xf4\xff\xfd\x06",
            b"\x00",
            CASES[0].frame,
        ]

    def __call__(self) -> bytes:
        random = self._random
        sent = random.choice(self._seeds) * random.choice((1, 1, 1, 2, 50))
        for _ in range(random.randrange(4)):
            sent = mutations.damaged(random, sent)
        if random.random() < 0.05:
            # Around the limit at which a client is disconnected.
            sent = (sent or b"x") * (random.choice((65_000, 65_536, 70_000)) // max(len(sent), 1))
        return sent


# Fuzzing


class Coverage:
    """
    Detects new code paths in some modules: pairs of lines that run one after another.
    """

    def __init__(self, modules: list[ModuleType]) -> None:
        self._filenames = {module.__file__ for module in modules}
        self._seen: set[tuple[int, int]] = set()
        self._last = 0

    def new(self, function: Callable[[], object]) -> bool:
        """Call a function, and return whether it reached a new code path."""
        before = len(self._seen)
        other = sys.gettrace()
        sys.settrace(self._trace_call)
        try:
            function()
        finally:
            sys.settrace(other)
        return len(self._seen) > before

    def _trace_call(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._trace_line if frame.f_code.co_filename in self._filenames else None

    def _trace_line(self, frame: FrameType, event: str, argument: object) -> Any:
        line = frame.f_lineno
        self._seen.add((self._last, line))
        self._last = line
        return self._trace_line


Check = Callable[[bytes, list[int]], None]

TARGETS: dict[str, tuple[Check, type[Streams] | type[Requests], list[ModuleType]]] = {
    "decoder": (check_decoder, Streams, [decoder_module]),
    "server": (check_server, Requests, [protocol, factory_module]),
}


class Fuzzer:
    """
    Fuzzes one target.

    @ivar tried: the number of inputs tried.
    """

    def __init__(self, target: str, seed: int) -> None:
        self._check, inputs, modules = TARGETS[target]
        self._random = Random(f"{target} {seed}")
        self._inputs = inputs(self._random)
        self._coverage = Coverage(modules)
        self.tried = 0

    @property
    def kept(self) -> int:
        """The number of kept inputs."""
        return len(self._inputs.kept)

    def run(self, enough: Callable[[], bool]) -> str | None:
        """
        Try inputs until C{enough} returns true, or one fails.

        @return: a human-readable description of the failure, or None.
        """
        random = self._random
        signal.signal(signal.SIGVTALRM, _timed_out)
        while not enough():
            data = self._inputs()
            # Splits only short inputs into single bytes, which is slow.
            small = [1] if len(data) < 200 else [len(data) // 7]
            sizes = random.choice(([], [], small, [random.randrange(10, 400)], [300, 1, 70, 13]))
            self.tried += 1
            # Tracing is slow, and every fourth input is enough to find new code paths.
            watch = self.tried % 4 == 0
            try:
                if not watch:
                    self._try(data, sizes)
                elif self._coverage.new(lambda: self._try(data, sizes)):  # noqa: B023
                    kept = self._inputs.kept
                    if len(kept) >= MAX_KEPT:
                        kept.pop(random.randrange(MAX_KEPT))
                    kept.append(data)
            except Exception:
                return self._describe(data, sizes)
        return None

    def _try(self, data: bytes, sizes: list[int]) -> None:
        # Counts this process's own time, without pauses of the machine.
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
        try:
            self._check(data, sizes)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _describe(self, data: bytes, sizes: list[int]) -> str:
        data = self._minimize(data, sizes)
        try:
            self._try(data, sizes)
        except Exception:
            trace = traceback.format_exc()
        return f"{trace}\nFAILED: {self._check.__name__}({data!r}, {sizes!r})"

    def _minimize(self, data: bytes, sizes: list[int]) -> bytes:
        """Return a smaller input that also fails."""
        size = len(data) // 2
        deadline = time.monotonic() + SMALLER
        while size and time.monotonic() < deadline:
            at = 0
            while at < len(data) and time.monotonic() < deadline:
                less = data[:at] + data[at + size :]
                try:
                    self._try(less, sizes)
                except Exception:
                    data = less
                else:
                    at += size
            size //= 2
        return data


def _timed_out(number: int, frame: FrameType | None) -> None:
    raise Failed(f"it takes more than {PATIENCE} seconds")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Fuzz the decoder and the server.")
    parser.add_argument("--seconds", type=float, default=30, help="duration (default: 30)")
    parser.add_argument("--seed", type=int, help="repeat the run with this seed")
    parser.add_argument("--target", choices=TARGETS, help="fuzz only this target")
    options = parser.parse_args(arguments)
    seed = Random().randrange(10**9) if options.seed is None else options.seed
    targets = [options.target] if options.target else list(TARGETS)
    for target in targets:
        fuzzer = Fuzzer(target, seed)
        print(f"fuzzing the {target} with --seed {seed}", flush=True)
        deadline = time.monotonic() + options.seconds / len(targets)
        failure = fuzzer.run(lambda: time.monotonic() > deadline)  # noqa: B023
        print(f"  {fuzzer.tried} inputs, {fuzzer.kept} of them kept")
        if failure is not None:
            print(failure)
            print(f"again with: python tests/fuzz.py --target {target} --seed {seed}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
