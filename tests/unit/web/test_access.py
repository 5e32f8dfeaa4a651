"""
Which requests are answered.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.web.serving import Answer, PageTestCase
from txmetrics_tcp.web._access import Access, check_host, check_token, read_token

DATA = ("/stream", "/look?ids=1", "/history?ids=1", "/table?at=1")


class HostTests(PageTestCase):
    hosts = ("metrics.example", "other.example:8443")

    def check(self, host: str | None, code: int) -> None:
        for path in ("/", "/page/index.html", "/look?ids=1"):
            self.assertEqual(self.get(path, Host=host).code, code, (host, path))

    def test_accepted(self) -> None:
        for host in (
            "127.0.0.1:5080",
            "localhost:5080",
            "LOCALHOST:5080",
            "metrics.example",
            "metrics.example:5080",
            "other.example:8443",
        ):
            self.check(host, 200)

    def test_rejected(self) -> None:
        for host in (
            "evil.example",
            "evil.example:5080",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.1:50800",
            "127.0.0.1.evil.example:5080",
            "localhost.evil.example:5080",
            "metrics.example.evil.example",
            "metrics.example:1",
            "other.example",
            "other.example:5080",
            "evil.metrics.example",
            "127.0.0.2:5080",
            "",
        ):
            self.check(host, 421)

    def test_missing(self) -> None:
        for path in ("/", "/look?ids=1"):
            self.assertEqual(self.get(path, Host=None).code, 421)

    def test_several(self) -> None:
        self.assertEqual(self.get("/", host="localhost:5080").code, 421)


class NameTests(SynchronousTestCase):
    def test_valid(self) -> None:
        for name in ("metrics", "Metrics.example:8443", "192.0.2.1", "[2001:db8::1]:443", "[::1]"):
            self.assertEqual(check_host(name), name.lower())

    def test_invalid(self) -> None:
        """No request has such a name, so its mistake would otherwise remain hidden."""
        for name in (
            "",
            "https://metrics.example",
            "metrics.example/",
            "metrics.example:",
            "metrics.example:port",
            "*.example",
            " metrics.example",
            "metrics.example\n",
            "::1",
            "münchen.example",
        ):
            error = self.assertRaises(ValueError, Access, [name])
            self.assertIn("not the name of a host", str(error))

    def test_type(self) -> None:
        """A single name is not taken for a list of letters."""
        self.assertRaises(TypeError, Access, "metrics.example")
        self.assertRaises(TypeError, Access, [b"metrics.example"])


class AddressTests(PageTestCase):
    def check(self, address: Any, host: str, code: int = 200) -> None:
        self.local = address
        self.assertEqual(self.get("/", Host=host).code, code, host)

    def test_hostIsTheAddressOfTheConnection(self) -> None:
        self.check(IPv6Address("TCP", "::1", 5080), "[::1]:5080")
        self.check(IPv4Address("TCP", "192.0.2.1", 5080), "192.0.2.1:5080")
        self.check(IPv4Address("TCP", "192.0.2.1", 80), "192.0.2.1")
        self.check(UNIXAddress(b"/run/x.sock"), "localhost")

    def test_localhostIsOnlyTheLoopbackInterface(self) -> None:
        self.check(IPv4Address("TCP", "192.0.2.1", 5080), "localhost:5080", 421)
        self.check(UNIXAddress(b"/run/x.sock"), "evil.example", 421)


class OriginTests(PageTestCase):
    hosts = ("metrics.example",)

    def code(self, path: str, **headers: str) -> int:
        return self.get(path, **headers).code

    def test_own(self) -> None:
        for path in ("/", "/look?ids=1"):
            self.assertEqual(self.code(path, Origin="http://127.0.0.1:5080"), 200)
            self.assertEqual(self.code(path, Origin="https://metrics.example"), 200)
            self.assertEqual(self.code(path, Sec_Fetch_Site="same-origin"), 200)
            self.assertEqual(self.code(path, Sec_Fetch_Site="none"), 200)

    def test_others(self) -> None:
        for path in ("/", *DATA):
            for origin in (
                "null",
                "",
                "http://evil.example",
                "http://127.0.0.1:5080.evil.example",
                "http://evil.example/http://127.0.0.1:5080",
                "http://evil.example@127.0.0.1:5080",
                "http://127.0.0.1:5080/",
                "http://127.0.0.1:1",
                "file://127.0.0.1:5080",
                "http://[",
            ):
                self.assertEqual(self.code(path, Origin=origin), 403, (path, origin))
            for site in ("cross-site", "same-site", "", "anything"):
                self.assertEqual(self.code(path, Sec_Fetch_Site=site), 403, (path, site))

    def test_linksToThePage(self) -> None:
        """Other sites may link to the page, but not to its data, and not embed it."""
        headers = {
            "Sec_Fetch_Site": "cross-site",
            "Sec_Fetch_Mode": "navigate",
            "Sec_Fetch_Dest": "document",
        }
        self.assertEqual(self.code("/", **headers), 200)
        for path in (*DATA, "/page/index.html"):
            self.assertEqual(self.code(path, **headers), 403)
        self.assertEqual(self.code("/", **{**headers, "Sec_Fetch_Dest": "iframe"}), 403)


class MethodTests(PageTestCase):
    def test_others(self) -> None:
        for path in ("/", "/page/index.html", *DATA):
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
                answer = self.get(path, method=method, Content_Length="0")
                self.assertEqual(answer.code, 405, (method, path))
                self.assertEqual(answer.headers["allow"], "GET, HEAD")

    def test_head(self) -> None:
        for path in ("/", "/page/index.html", *DATA):
            answer = self.get(path, method="HEAD")
            self.assertEqual((answer.code, answer.body), (200, b""), path)


class HeaderTests(PageTestCase):
    def check(self, answer: Answer) -> None:
        headers = answer.headers
        policy = headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual(headers["x-content-type-options"], "nosniff")
        self.assertEqual(headers["referrer-policy"], "no-referrer")
        self.assertEqual(headers["cross-origin-resource-policy"], "same-origin")
        self.assertEqual(headers["cross-origin-opener-policy"], "same-origin")
        self.assertNotIn("access-control-allow-origin", headers)
        self.assertNotIn("set-cookie", headers)

    def test_allResponses(self) -> None:
        for path in ("/", "/page/index.html", "/nothing", "/page/nothing", "/look", *DATA):
            self.check(self.get(path, method="HEAD"))
            self.check(self.get(path, method="POST", Content_Length="0"))
        self.check(self.get("/", Host="evil.example"))

    def test_wholeServer(self) -> None:
        """A request for no resource, which Twisted would answer itself."""
        answer = self.get("*", method="OPTIONS")
        self.assertEqual(answer.code, 405)
        self.check(answer)

    def test_reasons(self) -> None:
        self.assertEqual(self.get("/", Host="evil.example").reason, "Misdirected Request")
        self.assertEqual(self.get("/nothing").reason, "Not Found")

    def test_dataIsNotStored(self) -> None:
        for path in DATA:
            self.assertEqual(self.get(path, method="HEAD").headers["cache-control"], "no-store")


class TokenTests(PageTestCase):
    token = "0123456789abcdef"

    def test_dataRequiresIt(self) -> None:
        for path in DATA:
            for value in (
                None,
                "",
                "Bearer",
                "Bearer ",
                "Bearer 0123456789abcdeF",
                "Bearer 0123456789abcde",
                "Bearer 0123456789abcdef0",
                "Basic 0123456789abcdef",
                "0123456789abcdef",
                "Bearer \xff\xfe",
            ):
                answer = self.get(path, Authorization=value)
                self.assertEqual(answer.code, 401, (path, value))
                self.assertEqual(answer.headers["www-authenticate"], "Bearer")

    def test_accepted(self) -> None:
        self.assertEqual(self.get("/look?ids=1").code, 200)
        self.assertEqual(self.get("/look?ids=1", Authorization=f"bearer {self.token}").code, 200)

    def test_notInTheAddress(self) -> None:
        path = f"/look?ids=1&token={self.token}"
        self.assertEqual(self.get(path, Authorization=None).code, 401)

    def test_pageHasNoData(self) -> None:
        """The page itself reads the token from its address."""
        for path in ("/", "/page/index.html"):
            self.assertEqual(self.get(path, Authorization=None).code, 200)

    def test_otherRulesComeFirst(self) -> None:
        self.assertEqual(self.get("/look?ids=1", Host="evil.example").code, 421)


class TokenCheckTests(SynchronousTestCase):
    def test_invalid(self) -> None:
        """A token that no header can have, or that is easy to guess."""
        for token in ("0123456789abcde", "0123456789 abcdef", "0123456789abcdef\n", "é" * 20):
            error = self.assertRaises(ValueError, check_token, token)
            self.assertNotIn(token, str(error))
        self.assertRaises(TypeError, check_token, b"0123456789abcdef")


class TokenFileTests(SynchronousTestCase):
    def write(self, content: bytes) -> str:
        path: str = self.mktemp()
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_firstLine(self) -> None:
        path = self.write(b"0123456789abcdef\r\nanything\n")
        self.assertEqual(read_token(path), "0123456789abcdef")

    def test_unusable(self) -> None:
        for content in (b"", b"\n0123456789abcdef", b"short\n", b"0123456789 abcdef", b"\xff" * 20):
            path = self.write(content)
            error = self.assertRaises(ValueError, read_token, path)
            self.assertIn(path, str(error))

    def test_missing(self) -> None:
        path = os.path.join(self.mktemp(), "nothing")
        error = self.assertRaises(ValueError, read_token, path)
        self.assertEqual(str(error), f"cannot read {path}: No such file or directory")
