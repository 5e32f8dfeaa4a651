"""
The endpoint and TLS options of a command.
"""

from __future__ import annotations

import argparse
from typing import Any
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.authority import Authority, no_tls
from tests.commands import run
from tests.loopback import reactor
from txmetrics_tcp import EndpointError
from txmetrics_tcp._recording.blocks import RecordingError
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, sources_of
from txmetrics_tcp.cli.output import CommandError
from txmetrics_tcp.cli.parser import parse_arguments

if not needs("nats") and not needs("zstandard"):
    from txmetrics_tcp.relay._broker import StreamSettings
    from txmetrics_tcp.relay._messages import BUFFER_BYTES


def parsed(*arguments: str) -> argparse.Namespace:
    return parse_arguments(["tail", *arguments])


def endpoint_from(options: argparse.Namespace) -> Any:
    """Return the endpoint of the only source."""
    (source,) = sources_of(options).find().values()
    return client_endpoint_from(options, reactor, source)


class OptionsTests(SynchronousTestCase):
    def refused(self, *arguments: str, error: type[Exception] = EndpointError) -> str:
        options = parsed(*arguments)
        return str(self.assertRaises(error, endpoint_from, options))

    def test_plain(self) -> None:
        """Without TLS options, the endpoint does not use TLS."""
        endpoint = endpoint_from(parsed("localhost:5000"))
        self.assertNotIn("Wrapper", type(endpoint).__name__)

    @skipIf(no_tls, no_tls)
    def test_eachOption(self) -> None:
        """Each TLS option enables TLS."""
        authority = Authority(self)
        own = authority.issue()
        for arguments in (
            ["--tls"],
            ["--tls-ca", authority.file],
            ["--tls-name", "metrics.example"],
            ["--tls-cert", own.cert, "--tls-key", own.key],
        ):
            endpoint = endpoint_from(parsed(*arguments))
            self.assertIn("Wrapper", type(endpoint).__name__)

    @skipIf(no_tls, no_tls)
    def test_emptyOption(self) -> None:
        """A TLS option with an empty value, such as an unset variable, enables TLS."""
        endpoint = endpoint_from(parsed("localhost:5000", "--tls-name", ""))
        self.assertIn("Wrapper", type(endpoint).__name__)
        self.assertIn("cannot read ", self.refused("--tls-ca", "", error=CommandError))

    def test_severalEndpoints(self) -> None:
        """A wrong endpoint among several is named."""
        for endpoint in "5000::", "host:70000":
            ended = run("tail", "5001", endpoint, "5002")
            self.assertEqual((ended.code, ended.err.count("\n")), (2, 1))
            self.assertIn(f"{endpoint!r} is not an endpoint", ended.err)

    def test_portMissing(self) -> None:
        """An endpoint without a port may also be the name of a file."""
        for text in ("127.0.0.1", "127.1", "localhost"):
            self.assertEqual(self.refused(text), f"{text} has no port; write {text}:5000")
        for text in ("web1", "web1.example", "stream.rec"):
            self.assertEqual(
                self.refused(text, error=RecordingError),
                f"{text}: no such file; for a server, write {text}:5000",
            )
        self.assertEqual(
            self.refused("./web1", error=RecordingError),
            "./web1: no such file, and not an endpoint",
        )

    def test_invalid(self) -> None:
        self.assertIn("together", self.refused("--tls-cert", "x"))
        self.assertIn("--tls-name", self.refused("unix:/run/x", "--tls"))
        if not no_tls:
            self.assertIn("cannot read x: ", self.refused("--tls-ca", "x", error=CommandError))
            self.assertIn("is not a valid host name", self.refused("--tls-name", "a..b"))
            self.assertIn("already uses TLS", self.refused("tls:localhost:5000", "--tls"))


class PublishTests(SynchronousTestCase):
    skip = needs("nats") or needs("zstandard")

    def test_refused(self) -> None:
        """Where and as what to publish."""
        url = "nats://h/M"
        for arguments, reason in [
            ([], "--to is missing"),
            (["--to", "5000"], "--to: expected nats://HOST[:PORT]/STREAM\n"),
            (["--to", "nats://h"], "--to: a nats:// URL must be nats://HOST"),
            (["--to", f"{url}?source=a"], "--to: give the name of the source with --source"),
            (["--to", url, "--source", " "], "--source: the name of a source must have 1 to 512"),
            (["--to", url, "--source", "/" * 171], "--source: the name of a source must have"),
            ([url, "--to", url], "--to: nats://h:4222/M is also a source; its own messages"),
            (["5000", f"{url}?source=a", "--to", url], "--to: nats://h:4222/M is also a source"),
        ]:
            ended = run("publish", *arguments)
            self.assertEqual((ended.code, ended.out), (2, ""), arguments)
            self.assertIn(f"metrics-tcp publish: {reason}", ended.err)

    def test_defaults(self) -> None:
        options = parse_arguments(["publish"])
        settings = StreamSettings()
        self.assertEqual(
            (options.linger, options.buffer, options.snapshot, options.max_age, options.replicas),
            (0.05, BUFFER_BYTES, 5.0, settings.max_age, settings.replicas),
        )
