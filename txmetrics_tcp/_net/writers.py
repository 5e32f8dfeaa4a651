"""
Write bytes to a client, either through its transport or directly to its socket.

Everything in this module runs on the reactor thread.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.tcp import Connection

CHUNK = 64 * 1024
"""
Maximum number of bytes per write to a transport.  Twisted's transports pause their producer when
more than this is buffered, so a stalled client has about one chunk buffered in its transport.
"""


class Outlet:
    """
    Writes to any transport: TLS, another layer over a socket, or a fake.

    The transport pauses its producer, usually during a write.

    @cvar streaming: the argument for C{registerProducer}.
    @cvar bypasses: whether a signal handler or finalizer may send after interrupting a method of
        the transport, provided that the producer is not paused.
    """

    __slots__ = ("_producer", "_transport")

    streaming = True
    bypasses = False

    def __init__(self, transport: ITransport, producer: IPushProducer) -> None:
        self._transport: Any = transport
        self._producer = producer

    def send(self, data: bytes) -> None:
        """
        Send data, without waiting for a reactor iteration if possible.

        After an exception, the number of sent bytes is unknown, and the connection must be closed.
        """
        try:
            self._transport.write(data)
        except MemoryError:
            # Prevent further sends, since the number of sent bytes is unknown.
            self._producer.stopProducing()
            raise

    send_later = send


class SocketOutlet:
    """
    Sends directly to a socket, and passes only the rest to its transport.

    A transport's ``write`` does not send.  It buffers the bytes, registers the socket with the
    poller, and sends in the next reactor iteration.  A socket nearly always accepts all bytes
    immediately, so buffering them first would cost as much as sending them.

    The producer is registered as a pull producer.  This class pauses it whenever the transport has
    buffered bytes, and the transport resumes it when its buffer is empty.  Directly sent bytes must
    not overtake buffered bytes, so C{send} may be called only while the producer is not paused.
    The transport's buffer is then empty, so no method of the transport can be sending.
    """

    __slots__ = ("_producer", "_send", "_transport")

    streaming = False
    bypasses = True

    def __init__(self, transport: Connection, producer: IPushProducer) -> None:
        self._transport = transport
        self._producer = producer
        self._send = transport.getHandle().send

    def send(self, data: bytes) -> None:
        """Send as much as the socket accepts now, and the rest later.  See `Outlet.send`."""
        try:
            sent = self._send(data)
        except OSError:
            # The socket is full, or the connection is lost, which the transport will report.
            sent = 0
        if sent != len(data):
            self._producer.pauseProducing()
            self._transport.write(data[sent:])

    def send_later(self, data: bytes) -> None:
        """Send in the next reactor iteration.  See `Outlet.send`."""
        self._producer.pauseProducing()
        self._transport.write(data)


def abort(transport: Any) -> None:
    """Abort a connection; if the transport cannot abort, close it normally."""
    getattr(transport, "abortConnection", transport.loseConnection)()


def outlet(transport: ITransport, producer: IPushProducer) -> Outlet | SocketOutlet:
    """
    Return the fastest way to send over a transport.

    @param producer: the producer that the caller will register with the transport.
    """
    if isinstance(transport, Connection) and not getattr(transport, "TLS", False):
        return SocketOutlet(transport, producer)
    return Outlet(transport, producer)
