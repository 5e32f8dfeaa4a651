"""
``metrics-tcp web``: show the series of servers and recordings on a page for browsers.
"""

from __future__ import annotations

import argparse
import re
import secrets
import webbrowser
from threading import Thread
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.endpoint_syntax import EndpointError
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.exposure import audience
from txmetrics_tcp._net.tls import ServerTLS
from txmetrics_tcp._net.tls_errors import TLSError
from txmetrics_tcp.cli.arguments import WEB_PORT
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, sources_of
from txmetrics_tcp.cli.output import CommandError, log_observer, say
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.source_watch import SourceWatch
from txmetrics_tcp.cli.sources import Source
from txmetrics_tcp.observe.sources import LiveSource, RecordingSource
from txmetrics_tcp.web import MetricsWeb
from txmetrics_tcp.web._access import check_host, read_token
from txmetrics_tcp.web._site import PageService


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._options = options
        for name in options.allow_host:
            try:
                check_host(name)
            except ValueError as error:
                raise EndpointError(f"--allow-host: {error}") from None
        self._tls = _server_tls(options)
        self._token: str | None = None
        if options.token_file is not None:
            try:
                self._token = read_token(options.token_file)
            except ValueError as error:
                raise CommandError(str(error)) from None

        def make(source: Source) -> LiveSource | RecordingSource:
            if source.recording:
                recording = RecordingSource(
                    reactor,
                    source.endpoint,
                    lambda seconds: self._web._feed.reached(recording, seconds),
                )
                return recording
            endpoint = client_endpoint_from(options, reactor, source)
            return LiveSource(
                reactor, source.name, endpoint, options.max_frame, behind=source.behind
            )

        self._watch: SourceWatch[LiveSource | RecordingSource] = SourceWatch(
            reactor, sources_of(options), make, say, self._show_sources, failed=self._refused
        )
        self._web = MetricsWeb(
            reactor,
            history=options.history,
            max_viewers=options.max_viewers,
            allow_hosts=options.allow_host,
            token=self._token,
        )
        endpoint = server_endpoint(reactor, options.listen, WEB_PORT)
        self._service = PageService(
            reactor, self._web.resource, [endpoint], self._tls, with_token=True
        )
        self._running = Running(reactor, self._finish, interrupted_code=lambda number: 0)

    def _refused(self, text: str) -> None:
        say(text)
        self._running.stop(2)

    def _show_sources(self) -> None:
        self._web._feed.show(self._watch.clients.values())

    def run(self) -> int:
        globalLogBeginner.beginLoggingTo([log_observer], redirectStandardIO=False)
        return self._running.run(self._start)

    def _start(self) -> Any:
        return self._service.listen().addCallbacks(self._listening, self._not_listening)

    def _listening(self, result: object) -> None:
        address = self._service.addresses[0]
        if audience(address) and self._token is None:
            self._token = secrets.token_urlsafe(32)
            self._web._require(self._token)
        link = _link(address, self._options.allow_host, self._tls is not None)
        if self._token is not None:
            link += f"#token={self._token}"
        say(f"the page is at {link}")
        self._web.startService()
        self._show_sources()
        self._watch.start()
        if self._options.open:
            # Browsers in the terminal return when they end.
            Thread(target=webbrowser.open, args=(link,), daemon=True).start()

    def _not_listening(self, reason: Failure) -> None:
        say(reason.getErrorMessage())
        self._running.stop(1)

    def _finish(self) -> Deferred[Any]:
        self._web.stopService()
        return gatherResults([self._watch.stop(), maybeDeferred(self._service.stop)])


def _server_tls(options: argparse.Namespace) -> ServerTLS | None:
    key, certificate = options.web_tls_key, options.web_tls_cert
    if key is None and certificate is None:
        return None
    if key is None or certificate is None:
        raise EndpointError("--web-tls-key and --web-tls-cert must be given together")
    try:
        return ServerTLS(key, certificate)
    except TLSError as error:
        raise CommandError(str(error)) from None


def _link(address: IAddress, hosts: list[str], tls: bool) -> str:
    scheme = "https" if tls else "http"
    if not isinstance(address, IPv4Address | IPv6Address):
        return show_address(address)
    host = show_address(address)
    # On the loopback interface, the names are those of a proxy.
    if hosts and (tls or audience(address)):
        host = hosts[0] if _WITH_PORT.search(hosts[0]) else f"{hosts[0]}:{address.port}"
    elif address.host in ("0.0.0.0", "::"):
        host = f"localhost:{address.port}"
    return f"{scheme}://{host}/"


_WITH_PORT = re.compile(":[0-9]+$")


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
