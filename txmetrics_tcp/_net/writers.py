"""
How bytes get to a client: by way of its transport, or straight into its socket.

All of it belongs to the reactor thread.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.tcp import Connection

CHUNK = 64 * 1024
"""
The most bytes that are given to a transport at once.  Twisted's transports pause their producer
when more than this waits in them, so a client that stalls holds about one chunk there.
"""


class Outlet:
    """
    Writes to a transport, whatever that is: TLS, or another layer over a socket, or a fake.

    The transport pauses its producer, as a rule from within a write.

    @cvar streaming: how a producer is to be registered with the transport.
    @cvar bypasses: whether it may send, to a producer that is not paused, though a method of the
        transport is on the stack, which a signal handler or a finalizer has interrupted.
    """

    __slots__ = ("_producer", "_transport")

    streaming = True
    bypasses = False

    def __init__(self, transport: ITransport, producer: IPushProducer) -> None:
        self._transport: Any = transport
        self._producer = producer

    def send(self, data: bytes) -> None:
        """
        Send now, if that can be.

        After an exception it is unknown how much is sent: the connection has to be closed.
        """
        try:
            self._transport.write(data)
        except MemoryError:
            # A producer that is paused is not kept for want of memory.
            self._producer.stopProducing()
            raise

    send_later = send


class SocketOutlet:
    """
    Sends to a socket at once, and leaves to its transport only what the socket does not take.

    A transport's ``write`` sends nothing: it keeps the bytes, asks the poller to tell when the
    socket takes some, and sends them in the reactor's next turn.  But a socket nearly always takes
    all there is, and then all that costs as much as sending.

    So the producer is a pull producer in the transport's eyes: paused, here, as soon as the
    transport has anything to send, and resumed by it when it has nothing left.  What is sent must
    not overtake what the transport has, so C{send} may be called only while the producer is not
    paused.  Then the transport has nothing to send, and no method of it on the stack is about that.
    """

    __slots__ = ("_producer", "_send", "_transport")

    streaming = False
    bypasses = True

    def __init__(self, transport: Connection, producer: IPushProducer) -> None:
        self._transport = transport
        self._producer = producer
        self._send = transport.getHandle().send

    def send(self, data: bytes) -> None:
        """Send now what the socket takes, and the rest later.  See `Outlet.send`."""
        try:
            sent = self._send(data)
        except OSError:
            # It takes nothing now; or it is lost, which the transport will find out.
            sent = 0
        if sent != len(data):
            self._producer.pauseProducing()
            self._transport.write(data[sent:])

    def send_later(self, data: bytes) -> None:
        """Send in the next reactor iteration.  See `Outlet.send`."""
        self._producer.pauseProducing()
        self._transport.write(data)


def abort(transport: Any) -> None:
    """Abort a connection, or close it in the usual way where the transport has nothing else."""
    getattr(transport, "abortConnection", transport.loseConnection)()


def outlet(transport: ITransport, producer: IPushProducer) -> Outlet | SocketOutlet:
    """The quickest way to send over a transport, for a producer that is still to be registered."""
    if isinstance(transport, Connection) and not getattr(transport, "TLS", False):
        return SocketOutlet(transport, producer)
    return Outlet(transport, producer)
