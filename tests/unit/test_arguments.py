"""
Public functions check their arguments at the call: the error names the argument, the rule and the
value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path
from unittest import skipIf

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import SynchronousTestCase

from tests.authority import no_tls
from tests.connecting import NamesReactor
from txmetrics_tcp import (
    Decoder,
    EndpointError,
    EventStream,
    MetricsClientFactory,
    MetricsClientProtocol,
    MetricsClientService,
    MetricsFactory,
    MetricsService,
    RecordingReader,
    RecordingWriter,
    ServerTLS,
    SourceView,
    TcpBuilder,
    TLSError,
    decode,
    parse_filter,
    tls_endpoint,
)
from txmetrics_tcp._net.endpoints import client_endpoint
from txmetrics_tcp.testing import FakeReactor, PausingTransport

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ\n"


class ArgumentTests(SynchronousTestCase):
    def assert_rejected(
        self, error: type[Exception], rule: str, call: Callable[..., object], **arguments: object
    ) -> None:
        with self.assertRaisesRegex(error, f"^{rule}") as caught:
            call(**arguments)
        self.assertLess(len(str(caught.exception)), 1000)

    def test_reactor(self) -> None:
        """The error for a forgotten reactor shows what stands in its place."""
        rule = "reactor must be a Twisted reactor, not 'localhost:5000'"
        for call in (
            MetricsFactory,
            TcpBuilder,
            EventStream,
            partial(MetricsClientService, received=print),
        ):
            self.assert_rejected(TypeError, rule, call, reactor="localhost:5000")

    def test_clientEndpoint(self) -> None:
        for call in (
            partial(EventStream, NamesReactor()),
            partial(MetricsClientService, NamesReactor(), received=print),
        ):
            server = TCP4ServerEndpoint(FakeReactor(), 5000)
            for wrong in (None, True, 5000.0, b"5000", ["localhost", 5000], print, server):
                self.assert_rejected(TypeError, "endpoint must be a port,", call, endpoint=wrong)
            for bad in ("nonsense", 70000, -1, 0, ("", 5000), ("localhost", 0)):
                self.assert_rejected(EndpointError, "", call, endpoint=bad)
            for good in (5000, ("localhost", 5000), ("::1", 5000, 0, 0), Path("x"), "unix:x"):
                call(endpoint=good)

    def test_maxFrame(self) -> None:
        for call, least in (
            (partial(EventStream, FakeReactor()), 1),
            (partial(MetricsClientService, FakeReactor(), received=print), 1),
            (partial(MetricsClientFactory, print), 1),
            (partial(MetricsClientProtocol, print), 0),
            (Decoder, 0),
            (partial(decode, b""), 0),
        ):
            for wrong in (1.5, "1", True, None, math.nan):
                rule = f"max_frame must be a whole number, not {wrong!r}"
                self.assert_rejected(TypeError, rule, call, max_frame=wrong)
            rule = f"max_frame must be at least {least}, not {least - 1}"
            self.assert_rejected(ValueError, rule, call, max_frame=least - 1)

    def test_callables(self) -> None:
        client = partial(MetricsClientService, FakeReactor())
        for call, names in (
            (client, ("received", "received_many")),
            (partial(client, received=print), ("observer", "retry_policy")),
            (MetricsClientFactory, ("received", "received_many")),
            (partial(MetricsClientProtocol, print), ("connected", "lost")),
            (partial(MetricsFactory, FakeReactor()), ("clock", "monotonic", "in_reactor_thread")),
        ):
            for name in names:
                rule = f"{name} must be callable, not 5"
                self.assert_rejected(TypeError, rule, call, **{name: 5})

    def test_eventStream(self) -> None:
        stream = partial(EventStream, FakeReactor())
        for wrong in (1.5, "1", True, None):
            self.assert_rejected(TypeError, "buffer_size must be ", stream, buffer_size=wrong)
        self.assert_rejected(ValueError, "buffer_size must be at least 1", stream, buffer_size=0)
        for bad in ("x" * 10**6, None, True):
            self.assert_rejected(
                ValueError, "when_full must be 'pause' or 'drop', not ", stream, when_full=bad
            )

    def test_service(self) -> None:
        factory = MetricsFactory(FakeReactor())
        service = partial(MetricsService, factory)
        for wrong in ("127.0.0.1:5000", None, 5000, TCP4ServerEndpoint(FakeReactor(), 5000)):
            rule = "endpoints must be a sequence of endpoints, not "
            self.assert_rejected(TypeError, rule, service, endpoints=wrong)
        client = client_endpoint(FakeReactor(), 5000)
        for wrong in ("127.0.0.1:5000", None, client):
            rule = "endpoints must be server endpoints, not "
            self.assert_rejected(TypeError, rule, service, endpoints=[wrong])
        self.assert_rejected(
            TypeError,
            "tls must be a ServerTLS, not 'key.pem'",
            service,
            endpoints=[],
            tls="key.pem",
        )
        self.assert_rejected(
            TypeError,
            "factory must be a MetricsFactory, not None",
            MetricsService,
            factory=None,
            endpoints=[],
        )

    def test_stop(self) -> None:
        stop = MetricsFactory(FakeReactor()).stop
        for wrong, error in (("1", TypeError), (True, TypeError), (-1, ValueError)):
            self.assert_rejected(error, "timeout must be ", stop, timeout=wrong)
        for bad in (math.inf, math.nan, 1e300):
            self.assert_rejected(ValueError, "timeout must be less than", stop, timeout=bad)

    def test_views(self) -> None:
        for wrong, error in ((1.5, TypeError), (None, TypeError), (-1, ValueError)):
            self.assert_rejected(error, "max_series must be ", SourceView, max_series=wrong)
            self.assert_rejected(error, "limit must be ", PausingTransport, limit=wrong)
        self.assert_rejected(TypeError, "a filter must be a str, not 5", parse_filter, text=5)

    def test_recording(self) -> None:
        """A wrong argument does not change an existing file."""
        path = self.mktemp()
        Path(path).write_bytes(b"precious")
        create = partial(RecordingWriter.create, path)
        append = partial(RecordingWriter.append, path)
        wrong: object
        for wrong in (5, None, b"x"):
            for call in (
                partial(create, overwrite=True),
                append,
                partial(RecordingWriter, BytesIO()),
            ):
                self.assert_rejected(TypeError, "source must be a str, not ", call, source=wrong)
        for wrong in ("no", None, 1):
            for call, name in (
                (create, "overwrite"),
                (partial(create, overwrite=True), "compress"),
                (append, "compress"),
            ):
                rule = f"{name} must be a bool, not {wrong!r}"
                self.assert_rejected(TypeError, rule, call, source="x", **{name: wrong})
        self.assertEqual(Path(path).read_bytes(), b"precious")
        for wrong in (path, StringIO("x"), None):
            rule = "file must be a binary file, opened for reading, not "
            self.assert_rejected(TypeError, rule, RecordingReader, file=wrong)


class TLSArgumentTests(SynchronousTestCase):
    """Errors about the files of TLS contain nothing of a private key."""

    def calls(self) -> list[tuple[Callable[..., object], tuple[str, ...]]]:
        endpoint = client_endpoint(FakeReactor(), 5000)
        return [
            (ServerTLS, ("key", "certificate", "client_ca")),
            (partial(tls_endpoint, endpoint, "localhost"), ("ca", "key", "certificate")),
        ]

    def test_paths(self) -> None:
        for call, names in self.calls():
            for name in names:
                for wrong, rule in (
                    (5, f"{name} must be a path, not int"),
                    (b"key.pem", f"{name} must be a path, not bytes"),
                    (PEM, f"{name} must be the path of a PEM file, not its contents"),
                    (PEM.encode(), f"{name} must be a path, not bytes"),
                ):
                    files = {"key": "x", "certificate": "x", name: wrong}
                    error = self.assertRaises(TypeError, call, **files)
                    self.assertEqual(str(error), rule)

    def test_builder(self) -> None:
        with self.assertRaisesRegex(TypeError, "^key must be a path, not NoneType$"):
            TcpBuilder().tls(None, "server.pem")  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "^key must be the path of a PEM file, not its"):
            TcpBuilder().tls(PEM, "server.pem")

    @skipIf(no_tls, no_tls)
    def test_unusable(self) -> None:
        """A path that no file can have is an error of TLS, with a short message."""
        for path in ("x\0y", "\ud800", "x" * 10**6):
            error = self.assertRaises(TLSError, ServerTLS, path, path)
            self.assertLess(len(str(error)), 5000)
            self.assertIn("cannot read ", str(error))

    def test_endpoint(self) -> None:
        with self.assertRaisesRegex(TypeError, "^endpoint must be a client endpoint, not 'x:1'"):
            tls_endpoint("x:1", "localhost")  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "^name must be a str, not None"):
            tls_endpoint(client_endpoint(FakeReactor(), 1), None)  # type: ignore[arg-type]
