"""
``metrics-tcp web``: errors before the page is served, and the link to it.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock, skipIf

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from tests.authority import no_tls
from tests.commands import run
from tests.unit.cli.test_prometheus import Refusing
from txmetrics_tcp.cli import web
from txmetrics_tcp.cli.web import _link


class ErrorTests(SynchronousTestCase):
    def check(self, code: int, message: str, *arguments: str) -> None:
        """Check that the command fails with one line."""
        with mock.patch.object(web, "globalLogBeginner"):
            ended = run("web", *arguments, on=Refusing())
        self.assertEqual((ended.code, ended.out), (code, ""), ended.err)
        self.assertEqual(ended.err.count("\n"), 1, ended.err)
        self.assertIn(message, ended.err)

    def test_cannotListen(self) -> None:
        says = "Couldn't listen on 127.0.0.1:5080: [Errno 98] Address already in use"
        self.check(1, says, "5000")

    def test_tokenFile(self) -> None:
        path = self.mktemp()
        self.check(1, f"cannot read {path}: No such file", "--token-file", path)
        Path(path).write_text("short\n")
        self.check(1, "at least 16 ASCII characters", "--token-file", path)

    @skipIf(no_tls, no_tls)
    def test_tls(self) -> None:
        self.check(2, "must be given together", "--web-tls-key", "k")
        self.check(2, "must be given together", "--web-tls-cert", "c")
        self.check(1, "cannot read", "--web-tls-key", "./k", "--web-tls-cert", "./c")

    def test_options(self) -> None:
        for options, message in (
            (["--listen", "nonsense:x"], "nonsense"),
            (["--listen", "localhost"], "write localhost:5080"),
            (["--allow-host", "https://metrics.example"], "--allow-host: 'https://metrics"),
            (["--allow-host", ""], "--allow-host: '' is not the name of a host"),
        ):
            self.check(2, message, "5000", *options)

    def test_usage(self) -> None:
        for options in (
            ["--max-viewers", "0"],
            ["--history", "0"],
            ["--history", "never"],
        ):
            ended = run("web", "5000", *options)
            self.assertEqual(ended.code, 2, ended.err)
            self.assertIn(f"error: argument {options[0]}", ended.err)

    def test_recording(self) -> None:
        self.check(1, "no such file", "./nothing.rec")


class LinkTests(SynchronousTestCase):
    def check(self, link: str, address: IAddress, *hosts: str, tls: bool = False) -> None:
        self.assertEqual(_link(address, list(hosts), tls), link)

    def test_address(self) -> None:
        self.check("http://127.0.0.1:5080/", IPv4Address("TCP", "127.0.0.1", 5080))
        self.check("https://[::1]:5080/", IPv6Address("TCP", "::1", 5080), tls=True)
        self.check("http://192.0.2.1:5080/", IPv4Address("TCP", "192.0.2.1", 5080))
        self.check("unix:/run/web.sock", UNIXAddress(b"/run/web.sock"))

    def test_allAddresses(self) -> None:
        for host in ("0.0.0.0", "::"):
            self.check("http://localhost:80/", IPv4Address("TCP", host, 80))

    def test_names(self) -> None:
        """The first name stands for this machine; with loopback, for a proxy."""
        everywhere = IPv4Address("TCP", "0.0.0.0", 5080)
        self.check("http://a.example:5080/", everywhere, "a.example", "b.example")
        self.check("http://a.example:80/", everywhere, "a.example:80")
        self.check("http://[2001:db8::1]:5080/", everywhere, "[2001:db8::1]")
        loopback = IPv4Address("TCP", "127.0.0.1", 5080)
        self.check("http://127.0.0.1:5080/", loopback, "a.example")
        self.check("https://a.example:5080/", loopback, "a.example", tls=True)
