"""
A Twisted application, an echo server, that streams its metrics.

    twistd -ny examples/twisted_app.py

Connect to it with C{nc 127.0.0.1 7000} and type, and watch with C{metrics-tcp tail}.  Where each of
them listens is in the environment: ECHO is one of Twisted's endpoint strings, METRICS is that or
a port or HOST:PORT.
"""

import os

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txmetrics_tcp import TcpBuilder, counter, describe_counter, gauge, set_global_recorder

# Before there is anybody to record to: they get to whoever is set below.
describe_counter("echo_bytes_total", "bytes", "What was sent back.")
echoed = counter("echo_bytes_total")
connections = gauge("echo_connections")


class Echo(Protocol):
    def connectionMade(self) -> None:
        connections.increment()

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)
        echoed.increment(len(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        connections.decrement()


# A service like any other: it listens when the application starts (as root, if twistd is to give
# that up later), and when the application stops it sends what was recorded, and then closes.
metrics = TcpBuilder().listen_address(os.environ.get("METRICS", "127.0.0.1:5000")).service()
set_global_recorder(metrics.recorder)

endpoint = serverFromString(reactor, os.environ.get("ECHO", "tcp:7000:interface=127.0.0.1"))
echo = StreamServerEndpointService(endpoint, Factory.forProtocol(Echo))

application = Application("echo")  # what twistd looks for
metrics.setServiceParent(application)
echo.setServiceParent(application)
