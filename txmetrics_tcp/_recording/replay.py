"""
Serve a recording as a live server would, paced by the recorded times and by the slowest client.

Everything here belongs to the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from txmetrics_tcp._codec.framing import EMPTY_FRAME
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.connection import ServedProtocol, for_each
from txmetrics_tcp._net.deadline import cancel
from txmetrics_tcp._net.log_throttle import MessageLimit
from txmetrics_tcp._net.writers import CHUNK
from txmetrics_tcp._recording.events import TIME_SLICE, Piece
from txmetrics_tcp._recording.stream_state import StreamState

CATCH_UP = 1.0
"""
The maximum delay, in seconds, after which the replay sends faster to catch up.  A longer delay,
caused by a slow client or by the lack of clients, shifts the rest of the replay.
"""

# Rounding can make a delayed call this many seconds early.  The remaining time may be too short to
# advance the clock.
_EARLY = 1e-6

# Reactors limit the time of a delayed call; the times in a file have no limit.
_MAX_DELAY = 3600.0


class ReplayProtocol(ServedProtocol):
    """
    The connection of one client.  It notifies the factory when the client can take more data.
    """

    def __init__(self, factory: ReplayFactory, clock: IReactorTime, address: str) -> None:
        super().__init__(factory, clock, address)
        self.factory = factory
        # The current state of the stream, for a late client.
        self._initial: Iterator[bytes] = iter(())

    def start(self, state: Iterable[bytes]) -> None:
        """
        Start sending.

        @param state: the frames to send first, in pieces of whole frames.
        """
        self._initial = iter(state)
        self.flush()

    def send(self, frames: bytes) -> None:
        """Send frames.  The client must not be paused."""
        self._outlet.send(frames)

    def probe(self) -> None:
        self.send(EMPTY_FRAME)

    def flush(self) -> None:
        send = self._outlet.send
        while not self.paused and (frames := next(self._initial, None)) is not None:
            send(frames)
            # Let the reactor iterate between pieces, even if the socket accepts more.
            send = self._outlet.send_later
        if not self.paused:
            if self._finishing:
                self.disconnect()
            else:
                self.factory.client_ready()


class ReplayFactory(ServerFactory):
    """
    Send the same recording to all clients, without dropping events.

    The replay begins with the first client.  It pauses while no clients are connected, or while a
    client has not taken the data that was sent.  A late client first receives the current state
    (see `StreamState`), and then the same data as the other clients.

    @ivar clients: the connected clients, in the order of their connections.
    @ivar stream_state: the state of the stream after the data that was sent.
    @ivar begun: whether any data was sent.
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
        @param pieces: returns the pieces of the recording.  Called once or, if C{loop} is true,
            again after each end.
        @param finished: called once, when everything was sent and all clients have disconnected.
        @param speed: the number of seconds of the recording to play in one second; infinity to play
            as fast as the clients read.
        @param loop: whether to begin again after the end.
        @param say: called with human-readable messages of one line.
        """
        self._clock: IReactorTime = reactor
        self._pieces = pieces
        self._finished = finished
        self._speed = speed
        self._loop = loop
        self._messages = MessageLimit(reactor, say)
        self.clients: dict[ReplayProtocol, None] = {}
        self.stream_state = StreamState()
        self.begun = False
        self._reading: Iterator[Piece] | None = None
        self._next: Piece | None = None
        # The clock's time that corresponds to time 0 of the recording.
        self._origin = 0.0
        self._play_call: IDelayedCall | None = None
        self._ending = False

    def buildProtocol(self, addr: IAddress | None) -> ReplayProtocol | None:
        if self._ending:
            return None
        return ReplayProtocol(self, self._clock, show_address(addr))

    def stop(self) -> None:
        """Abort all connections, without calling C{finished}."""
        self._ending = True
        self._finished = lambda: None
        self._cancel()
        for_each(self.clients, ReplayProtocol.abort)
        self._messages.close()

    @property
    def slow_clients(self) -> list[ReplayProtocol]:
        """The clients that have not taken all data that was sent."""
        return [client for client in self.clients if client.paused]

    # Called by the clients.

    def client_arrived(self, client: ReplayProtocol) -> None:
        """Do nothing: the client may have to complete a TLS handshake first."""

    def client_left(self, client: ReplayProtocol) -> None:
        """Do nothing: no state is kept for a client that is not connected."""

    def client_rejected(
        self,
        client: ReplayProtocol,
        reason: str,
        detail: str = "",
        failure: Failure | None = None,
    ) -> None:
        text = "" if failure is None else detail
        self._messages.say(f"rejected client {client.address}: {reason}{text}")

    def client_connected(self, client: ReplayProtocol) -> None:
        if self._ending:
            client.abort()
            return
        self.clients[client] = None
        first = not self.begun and len(self.clients) == 1
        self._messages.say(
            f"client {client.address} connected{'; the replay begins' if first else ''}"
        )
        client.start(_joined(self.stream_state.frames()))

    def client_ready(self) -> None:
        if self._play_call is None and not self._ending:
            self._play_call = self._clock.callLater(0, self._play)

    def client_disconnected(self, client: ReplayProtocol) -> None:
        if client in self.clients:
            del self.clients[client]
            self._messages.say(f"client {client.address} disconnected")
        if self._ending:
            self._finish()
        elif not self.clients:
            self._cancel()
            if self.begun:
                self._messages.say("no clients are connected; the replay is paused")
        else:
            # The others may have waited for this client only.
            self.client_ready()

    def _play(self) -> None:
        """Send the frames that are due, and schedule the next call."""
        self._play_call = None
        if self._ending or not self.clients or self.slow_clients:
            # `client_ready` schedules the next call.
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
        if self._play_call is None:
            late = self._late(self._next)
            self._play_call = self._clock.callLater(min(max(0.0, -late), _MAX_DELAY), self._play)

    def _due(self) -> bytes:
        """
        Return the frames that are due: about `CHUNK` bytes, or those of `TIME_SLICE` seconds.
        """
        pieces: list[bytes] = []
        size = 0
        end = self._clock.seconds() + TIME_SLICE
        while size < CHUNK and (piece := self._peek()) is not None:
            late = self._late(piece)
            if late < -_EARLY:
                break
            if late > CATCH_UP:
                self._origin += late
            if piece.begins:
                self.stream_state.begin_connection()
            self.stream_state.follow(piece.events)
            pieces.append(piece.frames)
            size += len(piece.frames)
            self._next = None
            if self._clock.seconds() >= end:
                break
        # Load the next piece, so that the caller sees whether this was the last one.
        self._peek()
        return b"".join(pieces)

    def _peek(self) -> Piece | None:
        """Return the next piece, or None at the end."""
        if self._next is None and self._reading is not None:
            self._next = next(self._reading, None)
        if self._next is None and (self._loop or self._reading is None):
            self._reading = iter(self._pieces())
            self._next = next(self._reading, None)
            if self._next is not None:
                # The first event is due now, regardless of its time in the recording.
                self._origin = self._clock.seconds() - self._next.seconds / self._speed
        return self._next

    def _late(self, piece: Piece) -> float:
        """Return the number of seconds since a piece was due, negative if it is due later."""
        return self._clock.seconds() - self._origin - piece.seconds / self._speed

    def _cancel(self) -> None:
        cancel(self._play_call)
        self._play_call = None

    def _finish(self) -> None:
        if not self.clients:
            self._cancel()
            self._messages.close()
            finished, self._finished = self._finished, lambda: None
            finished()


def _joined(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Join frames into pieces of about `CHUNK` bytes."""
    piece = bytearray()
    for frame in frames:
        piece += frame
        if len(piece) >= CHUNK:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
