"""
A Twisted application, an echo server, that streams its metrics.

    twistd -ny examples/twisted_app.py

Connect with C{nc 127.0.0.1 7000} and type, and watch with C{metrics-tcp tail}.  Environment
variables set the endpoints: ECHO is a Twisted endpoint string; METRICS is an endpoint string, a
port, or HOST:PORT.
"""

import os

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txmetrics_tcp import TcpBuilder, counter, describe_counter, gauge, set_global_recorder

# Created before a recorder is installed: they use the recorder that is installed below.
describe_counter("echo_bytes_total", "bytes", "Bytes sent back to clients.")
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


# A Twisted service: it listens when the application starts, before twistd drops root privileges.
# When the application stops, it sends pending events and closes all connections.
metrics = TcpBuilder().listen_address(os.environ.get("METRICS", "127.0.0.1:5000")).service()
set_global_recorder(metrics.recorder)

endpoint = serverFromString(reactor, os.environ.get("ECHO", "tcp:7000:interface=127.0.0.1"))
echo = StreamServerEndpointService(endpoint, Factory.forProtocol(Echo))

application = Application("echo")  # twistd looks for this name
metrics.setServiceParent(application)
echo.setServiceParent(application)
