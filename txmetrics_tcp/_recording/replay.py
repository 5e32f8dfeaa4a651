"""
A recording, served again as a live server: paced by its own timing and by its slowest client.

All of it belongs to the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from txmetrics_tcp._codec.framing import EMPTY_FRAME
from txmetrics_tcp._net.connection import ServedProtocol, for_each
from txmetrics_tcp._net.deadline import cancel
from txmetrics_tcp._net.endpoints import show_address
from txmetrics_tcp._net.writers import CHUNK
from txmetrics_tcp._recording.events import Piece
from txmetrics_tcp._recording.stream_state import StreamState

CATCH_UP = 1.0
"""
How many seconds of being late are made up for.  When a client, or the lack of one, holds the replay
up for longer, the rest of it is played that much later.
"""

# No reactor can wait for as long as a file may say.
_LONG = 3600.0


class ReplayProtocol(ServedProtocol):
    """
    One client: takes what it is sent, and tells its factory when it takes more.
    """

    def __init__(self, factory: ReplayFactory, clock: IReactorTime, address: str) -> None:
        super().__init__(factory, clock, address)
        self.factory = factory
        # Where the stream stands, for a client that comes later.
        self._first: Iterator[bytes] = iter(())

    def start(self, first: Iterable[bytes]) -> None:
        """
        @param first: pieces to send before all else; whole frames each.
        """
        self._first = iter(first)
        self.flush()

    def send(self, frames: bytes) -> None:
        """Send frames, to a client that is not paused."""
        self._outlet.send(frames)

    def probe(self) -> None:
        self.send(EMPTY_FRAME)

    def flush(self) -> None:
        send = self._outlet.send
        while not self.paused and (frames := next(self._first, None)) is not None:
            send(frames)
            # However much the socket takes: the reactor iterates first.
            send = self._outlet.send_later
        if not self.paused:
            if self._finishing:
                self.disconnect()
            else:
                self.factory.client_ready()


class ReplayFactory(ServerFactory):
    """
    Sends the same recording to all clients, and drops nothing.

    It begins when the first client is there; it goes on only while there is one, and all that are
    there have taken what came before.  Who comes later is told first where the stream stands (see
    `StreamState`), and then gets what the others get.

    @ivar clients: those that are there, in the order in which they came.
    @ivar standing: what was sent so far.
    @ivar begun: whether anything was sent.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        pieces: Callable[[], Iterable[Piece]],
        finished: Callable[[], object],
        *,
        speed: float = 1.0,
        loop: bool = False,
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        """
        @param reactor: provides `IReactorTime`.
        @param pieces: called to begin reading the recording, once, or again after each end.
        @param finished: called once, when all is sent and all clients are gone.
        @param speed: how many seconds of the recording are played in one; infinity for as fast as
            clients take them.
        @param loop: whether it begins anew after the end.
        @param say: takes a remark of one line, for people.
        """
        self._clock: IReactorTime = reactor
        self._pieces = pieces
        self._finished = finished
        self._speed = speed
        self._loop = loop
        self._say = say
        self.clients: dict[ReplayProtocol, None] = {}
        self.stream_state = StreamState()
        self.begun = False
        self._reading: Iterator[Piece] | None = None
        self._next: Piece | None = None
        # When the recording's time was 0, by the clock, or would have been.
        self._origin = 0.0
        self._turn: IDelayedCall | None = None
        self._ending = False

    def buildProtocol(self, addr: IAddress | None) -> ReplayProtocol | None:
        if self._ending:
            return None
        return ReplayProtocol(self, self._clock, show_address(addr))

    def stop(self) -> None:
        """Close all connections now.  C{finished} is not called."""
        self._ending = True
        self._finished = lambda: None
        self._cancel()
        for_each(self.clients, ReplayProtocol.abort)

    @property
    def waits_for(self) -> list[ReplayProtocol]:
        """The clients that have not taken yet what was sent."""
        return [client for client in self.clients if client.paused]

    # What the clients call.

    def client_arrived(self, client: ReplayProtocol) -> None:
        """It may have a handshake to do first."""

    def client_left(self, client: ReplayProtocol) -> None:
        """Nothing is kept for a client that is not connected."""

    def client_rejected(
        self,
        client: ReplayProtocol,
        reason: str,
        detail: str = "",
        failure: Failure | None = None,
    ) -> None:
        text = "" if failure is None else detail
        self._say(f"rejected client {client.address}: {reason}{text}")

    def client_connected(self, client: ReplayProtocol) -> None:
        if self._ending:
            client.abort()
            return
        self.clients[client] = None
        first = not self.begun and len(self.clients) == 1
        self._say(f"client {client.address} has come{', the replay begins' if first else ''}")
        client.start(_joined(self.stream_state.frames()))

    def client_ready(self) -> None:
        if self._turn is None and not self._ending:
            self._turn = self._clock.callLater(0, self._play)

    def client_disconnected(self, client: ReplayProtocol) -> None:
        if client in self.clients:
            del self.clients[client]
            self._say(f"client {client.address} has gone")
        if self._ending:
            self._finish()
        elif not self.clients:
            self._cancel()
            if self.begun:
                self._say("nobody is there any more; the replay waits for somebody")
        else:
            # Maybe it was the only one that the others waited for.
            self.client_ready()

    # Inside.

    def _play(self) -> None:
        """Send what is due, and see to it that this is called again."""
        self._turn = None
        if self._ending or not self.clients or self.waits_for:
            # Called again when that has changed.
            return
        frames = self._due()
        if frames:
            self.begun = True
            for_each(self.clients, lambda client: client.send(frames))
        if self._next is None:
            self._ending = True
            for_each(self.clients, ReplayProtocol.finish)
            self._finish()
            return
        if self._turn is None:
            late = self._late(self._next)
            self._turn = self._clock.callLater(min(max(0.0, -late), _LONG), self._play)

    def _due(self) -> bytes:
        """What of the recording is due, but not much more than `CHUNK` bytes."""
        pieces: list[bytes] = []
        size = 0
        while size < CHUNK and (piece := self._peek()) is not None:
            late = self._late(piece)
            if late < 0:
                break
            if late > CATCH_UP:
                self._origin += late
            self.stream_state.follow(piece.events)
            pieces.append(piece.frames)
            size += len(piece.frames)
            self._next = None
        # So that it is known whether this was the last.
        self._peek()
        return b"".join(pieces)

    def _peek(self) -> Piece | None:
        """The next piece, if there is one."""
        if self._next is None and self._reading is not None:
            self._next = next(self._reading, None)
        if self._next is None and (self._loop or self._reading is None):
            self._reading = iter(self._pieces())
            self._next = next(self._reading, None)
            if self._next is not None:
                # It begins at once, whatever time passed before the first event.
                self._origin = self._clock.seconds() - self._next.seconds / self._speed
        return self._next

    def _late(self, piece: Piece) -> float:
        """How many seconds ago a piece was due."""
        return self._clock.seconds() - self._origin - piece.seconds / self._speed

    def _cancel(self) -> None:
        cancel(self._turn)
        self._turn = None

    def _finish(self) -> None:
        if not self.clients:
            self._cancel()
            finished, self._finished = self._finished, lambda: None
            finished()


def _joined(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Frames in pieces of about `CHUNK` bytes."""
    piece = bytearray()
    for frame in frames:
        piece += frame
        if len(piece) >= CHUNK:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
