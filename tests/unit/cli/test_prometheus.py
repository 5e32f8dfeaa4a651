"""
``metrics-tcp prometheus``: clients of servers, and errors before the command runs.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.error import (
    CannotListenError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.commands import CommandReactor, run
from tests.connecting import FakeEndpoint
from tests.recordings import HTTP, STATUS, increment
from txmetrics_tcp.bridges._views import ServerView
from txmetrics_tcp.cli import output, prometheus
from txmetrics_tcp.cli.view_clients import Client
from txmetrics_tcp.testing import FakeReactor


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.endpoint = FakeEndpoint()
        self.messages: list[str] = []
        self.server = ServerView("there", self.reactor.seconds, 60.0)
        self.client = Client(self.reactor, self.endpoint, self.server, self.messages.append)
        self.client.start()

    def reconnect(self) -> None:
        """Wait until the next attempt, whose time is random."""
        tried = len(self.endpoint.attempts)
        while len(self.endpoint.attempts) == tried:
            self.reactor.advance(0.1)

    def test_receiving(self) -> None:
        """The view receives the events; the first ones are reported."""
        transport = self.endpoint.succeed()
        self.assertTrue(self.server.connected)
        transport.receive(STATUS + increment(30))
        transport.receive(increment(12))
        (series,) = self.server.view.series.values()
        self.assertEqual(series.value, 42)
        self.reactor.advance(10)
        self.assertEqual(self.messages, ["receiving metrics from there"])
        transport.lose(ConnectionDone())
        self.assertFalse(self.server.connected)
        self.reconnect()
        self.endpoint.succeed().receive(STATUS)
        self.assertEqual(
            self.messages[1:],
            [
                "disconnected from there: Connection was closed cleanly",
                "receiving metrics from there",
            ],
        )

    def test_refused(self) -> None:
        """Each reason for a failure is reported once, until events are received."""
        for _ in range(3):
            self.endpoint.fail(ConnectionRefusedError())
            self.reconnect()
        refused = "cannot connect to there: Connection was refused by other side"
        self.assertEqual(self.messages, [refused])
        transport = self.endpoint.succeed()
        transport.receive(STATUS)
        transport.lose()
        self.reconnect()
        self.endpoint.fail(ConnectionRefusedError())
        lost, again = self.messages[2:]
        self.assertIn("disconnected from there: ", lost)
        self.assertEqual(again, refused)

    def test_notAStream(self) -> None:
        """A peer that is no metrics server is reported once, whatever it sends."""
        for data in HTTP, b"\xff" * 20, HTTP:
            transport = self.endpoint.succeed()
            transport.receive(data)
            transport.lose()
            self.assertFalse(self.server.connected)
            self.reconnect()
        (message,) = self.messages
        self.assertIn("disconnected from there: not a metrics stream", message)

    def test_silent(self) -> None:
        """A server that sends nothing is reported, with its name."""
        transport = self.endpoint.succeed()
        self.reactor.advance(10)
        self.assertEqual(
            self.messages, ["there: no data received yet; does the server require TLS (--tls-ca)?"]
        )
        self.assertTrue(self.server.connected)
        transport.lose(ConnectionLost())

    def test_stop(self) -> None:
        """Stopping prints nothing, and leaves no delayed calls."""
        transport = self.endpoint.succeed()
        transport.receive(STATUS)
        stopped = self.client.stop()
        self.assertNoResult(stopped)
        transport.lose()
        self.successResultOf(stopped)
        self.assertEqual(self.messages, ["receiving metrics from there"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class Refusing(CommandReactor):
    """A reactor that cannot listen."""

    def listenTCP(self, port: int, factory: Factory, *more: object, **options: object) -> Any:
        raise CannotListenError("127.0.0.1", port, OSError(98, "Address already in use"))


class CommandTests(SynchronousTestCase):
    def test_cannotListen(self) -> None:
        with mock.patch.object(prometheus, "globalLogBeginner"):
            ended = run("prometheus", "5000", on=Refusing())
        says = "cannot listen on 127.0.0.1:9464: [Errno 98] Address already in use"
        self.assertEqual(ended, (1, "", f"metrics-tcp: {says}\n"))

    def test_noPort(self) -> None:
        """The message suggests the usual port of exporters for Prometheus."""
        ended = run("prometheus", "5000", "--listen", "localhost")
        says = "localhost has no port; write localhost:9464"
        self.assertEqual(ended, (2, "", f"metrics-tcp prometheus: {says}\n"))

    def test_log(self) -> None:
        """Log events from warnings on are messages, one line each."""
        messages: list[str] = []
        self.patch(output, "say", messages.append)
        log = Logger(observer=output.log_observer)
        log.info("Nothing")
        log.warn("The metric {metric} is not exposed", metric="a\x1b[2J")
        self.assertEqual(messages, ["The metric a\x1b[2J is not exposed"])
