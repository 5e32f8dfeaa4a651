"""
Addresses of streams, and credentials from the environment.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import EndpointError
from txmetrics_tcp.relay import _extra
from txmetrics_tcp.relay._access import Access
from txmetrics_tcp.relay._address import FORM, NatsAddress, check_source_name
from txmetrics_tcp.relay._extra import BrokerReport, parse_address

SECRET = "s3cret"
SEED = "SU" + 56 * "A"

CREDENTIALS = (
    "must not contain credentials; set NATS_USER and NATS_PASSWORD, or NATS_CREDS, in the"
    " environment"
)


class AddressTests(SynchronousTestCase):
    def test_valid(self) -> None:
        for url, address in [
            ("nats://web1/METRICS", NatsAddress("web1:4222", "METRICS")),
            ("nats://[::1]:5/M", NatsAddress("[::1]:5", "M")),
            ("nats://h:5/M?source=web*", NatsAddress("h:5", "M", "web*")),
            ("nats://h/M?source=a%2Fb%20c", NatsAddress("h:4222", "M", "a/b c")),
        ]:
            self.assertEqual(NatsAddress.parse(url), address)

    def test_invalid(self) -> None:
        """The text of an error never has the URL, which may contain a password."""
        for url, reason in [
            *(
                (url, f"must be {FORM}")
                for url in (
                    "nats:",
                    "nats://h",
                    "nats://h/",
                    "nats:///M",
                    "nats://h/a/b",
                    "nats://h/a.b",
                    "nats://h:x/M",
                    "nats://h:99999/M",
                    "nats://h/M#x",
                    "nats://h/M?sources=x",
                    "nats://h/M?source=",
                    "nats://h/M?source=a&source=b",
                    "nats://h/M?x",
                    "tls://h/M",
                    "nats://[::1/M",
                    "nats://h/>",
                    "nats://a b/M",
                    "nats://h/M?source=\udcff",
                )
            ),
            (f"nats://u:{SECRET}@h/M", CREDENTIALS),
            (f"nats://{SECRET}@h/M", CREDENTIALS),
            (f"nats://u:{SECRET}@h:x/M", f"must be {FORM}"),
        ]:
            error = self.assertRaises(ValueError, NatsAddress.parse, url)
            self.assertEqual(str(error), reason, url)

    def test_sourceNames(self) -> None:
        for name in "a", "web1.example.com:5000", "é" * 85, "a" * 512:
            check_source_name(name)
        for name in "", "\udcff", "é" * 86, "a" * 513:
            with self.assertRaisesRegex(ValueError, "the name of a source must "):
                check_source_name(name)

    def test_names(self) -> None:
        address = NatsAddress("h:1", "M", "web*")
        for other, source, names in [
            (NatsAddress("h:1", "M"), None, True),
            (NatsAddress("h:1", "M"), "web1", True),
            (NatsAddress("h:1", "M"), "sums", False),
            (NatsAddress("h:2", "M"), "web1", False),
            (NatsAddress("h:1", "N"), None, False),
        ]:
            self.assertIs(address.names(other, source), names)

    def test_missingExtra(self) -> None:
        with mock.patch.object(_extra, "find_spec", return_value=None):
            error = self.assertRaises(EndpointError, parse_address, "nats://h/M")
        self.assertIn("pip install 'txmetrics-tcp[nats]'", str(error))


class AccessTests(SynchronousTestCase):
    def test_environment(self) -> None:
        path = self.mktemp()
        Path(path).write_text(SEED)
        for environ, access in [
            ({}, Access()),
            ({"NATS_USER": ""}, Access()),
            ({"NATS_USER": "u", "NATS_PASSWORD": SECRET}, Access("u", SECRET)),
            ({"NATS_TOKEN": SECRET}, Access(token=SECRET)),
            # As for the command nats.
            ({"NATS_USER": SECRET}, Access(token=SECRET)),
            ({"NATS_CREDS": path}, Access(credentials_file=path)),
            ({"NATS_NKEY": path}, Access(nkey_file=path)),
        ]:
            found = Access.from_environment(environ)
            self.assertEqual(found, access)
            self.assertNotIn(SECRET, repr(found))

    def test_invalid(self) -> None:
        path = self.mktemp()
        Path(path).write_text("x")
        for environ, reason in [
            ({"NATS_PASSWORD": SECRET}, "NATS_PASSWORD is set without NATS_USER"),
            (
                {"NATS_USER": SECRET, "NATS_TOKEN": SECRET},
                "NATS_USER is set without NATS_PASSWORD",
            ),
            (
                {"NATS_USER": "u", "NATS_PASSWORD": SECRET, "NATS_CREDS": path},
                "NATS_USER and NATS_CREDS cannot be used together",
            ),
            (
                {"NATS_CREDS": "/no/file"},
                "NATS_CREDS: cannot read /no/file: No such file or directory",
            ),
            (
                {"NATS_NKEY": "/no/file"},
                "NATS_NKEY: cannot read /no/file: No such file or directory",
            ),
            ({"NATS_CREDS": path}, f"NATS_CREDS: {path} does not contain the seed of an nkey"),
            ({"NATS_NKEY": path}, f"NATS_NKEY: {path} does not contain the seed of an nkey"),
            ({"NATS_CA": path}, f"NATS_CA: {path} contains no certificates"),
            ({"NATS_CERT": path}, "NATS_CERT and NATS_KEY must be set together"),
            (
                {"NATS_CERT": path, "NATS_KEY": path},
                "NATS_CERT and NATS_KEY: not a certificate and its private key, not encrypted",
            ),
        ]:
            error = self.assertRaises(ValueError, Access.from_environment, environ)
            self.assertEqual(str(error), reason)


class Unavailable:
    def __init__(self, reason: str, permanent: bool = False) -> None:
        self.reason = reason
        self.permanent = permanent


class ReportTests(SynchronousTestCase):
    def report(self, failed: bool = True) -> BrokerReport:
        self.said: list[str] = []
        self.failures: list[str] = []
        return BrokerReport(
            NatsAddress("h:1", "M"),
            ("follow", "following"),
            self.said.append,
            self.failures.append if failed else None,
        )

    def test_changes(self) -> None:
        """Each new state is reported once."""
        report = self.report()
        for state in [Unavailable("a"), Unavailable("a"), Unavailable("b"), object(), object()]:
            report(state)
        cannot = "cannot follow nats://h:1/M: "
        self.assertEqual(
            self.said, [f"{cannot}a; retrying", f"{cannot}b; retrying", "following nats://h:1/M"]
        )

    def test_succeeded(self) -> None:
        """That the broker answers is no warning."""
        succeeded: list[str] = []
        report = BrokerReport(
            NatsAddress("h:1", "M"),
            ("follow", "following"),
            self.fail,
            succeeded=succeeded.append,
        )
        report(object())
        self.assertEqual(succeeded, ["following nats://h:1/M"])

    def test_permanent(self) -> None:
        """What will not pass is a failure, unless the broker has delivered something before."""
        report = self.report()
        report(Unavailable("denied", True))
        self.assertEqual((self.said, self.failures), ([], ["cannot follow nats://h:1/M: denied"]))
        report(object())
        report(Unavailable("denied", True))
        self.assertEqual(self.said[-1], "cannot follow nats://h:1/M: denied; retrying")
        report = self.report(failed=False)
        report(Unavailable("denied", True))
        self.assertEqual(self.said, ["cannot follow nats://h:1/M: denied; retrying"])
