"""
The settings of an export with OTLP: variables, URLs, and no secrets in texts.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp.bridges._otlp_settings import DEFAULT_URL, OtlpSettings

PREFIX = "OTEL_EXPORTER_OTLP_"


def settings(url: str | None = None, **variables: str) -> OtlpSettings:
    """Return the settings in an environment; names lack the prefix, except those in lower case."""
    environ = {
        name.upper() if name.islower() else PREFIX + name: value
        for name, value in variables.items()
    }
    return OtlpSettings.from_environment(url, environ=environ)


class VariablesTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        found = settings()
        self.assertEqual(found, OtlpSettings(attributes={"service.name": "unknown_service"}))
        self.assertEqual((found.url, found.interval, found.timeout), (DEFAULT_URL, 15.0, 10.0))
        self.assertTrue(found.gzip)

    def test_endpoint(self) -> None:
        """The path is appended to a base URL only; the option precedes the environment."""
        for url, variables, expected in (
            (None, {"ENDPOINT": "http://a:1"}, "http://a:1/v1/metrics"),
            (None, {"ENDPOINT": "http://a:1/b/"}, "http://a:1/b/v1/metrics"),
            (None, {"ENDPOINT": "http://a", "METRICS_ENDPOINT": "http://b/c"}, "http://b/c"),
            (None, {"ENDPOINT": "http://a", "METRICS_ENDPOINT": " "}, "http://a/v1/metrics"),
            ("https://c", {"ENDPOINT": "http://a"}, "https://c/v1/metrics"),
            ("https://c/", {}, "https://c/v1/metrics"),
            ("https://c/d", {}, "https://c/d"),
            ("http://[::1]:4318", {}, "http://[::1]:4318/v1/metrics"),
        ):
            self.assertEqual(settings(url, **variables).url, expected)

    def test_values(self) -> None:
        found = settings(
            "https://a",
            HEADERS="api-key=a%20b%3D, x-scope=1",
            CERTIFICATE="ca.pem",
            CLIENT_KEY="k",
            CLIENT_CERTIFICATE="c",
            COMPRESSION="none",
            TIMEOUT="2500",
            PROTOCOL="http/protobuf",
            otel_metric_export_interval="60000",
        )
        self.assertEqual(found.headers, {"api-key": "a b=", "x-scope": "1"})
        self.assertEqual((found.timeout, found.interval, found.gzip), (2.5, 60.0, False))
        # A daemon changes its working directory.
        files = found.ca, found.key, found.certificate
        self.assertEqual(files, tuple(os.path.abspath(one) for one in ("ca.pem", "k", "c")))

    def test_metricsVariables(self) -> None:
        """Those for metrics precede those for all signals."""
        found = settings(
            "https://a",
            HEADERS="a=1",
            METRICS_HEADERS="b=2",
            TIMEOUT="1",
            METRICS_TIMEOUT="2000",
            PROTOCOL="grpc",
            METRICS_PROTOCOL="http/protobuf",
            COMPRESSION="gzip",
            METRICS_COMPRESSION="none",
            METRICS_CERTIFICATE="/ca",
        )
        self.assertEqual((found.headers, found.timeout), ({"b": "2"}, 2.0))
        self.assertEqual((found.gzip, found.ca), (False, "/ca"))

    def test_interval(self) -> None:
        """The option precedes the environment."""
        environ = {"OTEL_METRIC_EXPORT_INTERVAL": "1000"}
        self.assertEqual(OtlpSettings.from_environment(interval=5.0, environ=environ).interval, 5.0)

    def test_resource(self) -> None:
        found = settings(
            otel_resource_attributes="service.name=a,host.name=b%2Cc,service.instance.id=i"
        )
        about = {"service.name": "a", "host.name": "b,c", "service.instance.id": "i"}
        self.assertEqual(found.attributes, about)
        self.assertEqual(dict(found.resource()), about)
        self.assertEqual(dict(found.resource_of("web:1"))["service.instance.id"], "i/web:1")
        found = settings(otel_resource_attributes="service.name=a", otel_service_name="b")
        self.assertEqual(found.attributes, {"service.name": "b"})

    def test_instance(self) -> None:
        """Each run of a program has its own identity."""
        first, second = (dict(settings().resource())["service.instance.id"] for _ in range(2))
        self.assertNotEqual(first, second)

    def test_invalid(self) -> None:
        """Messages name the variable, without its value."""
        for name, value, expected in (
            ("PROTOCOL", "grpc", "only http/protobuf is supported"),
            ("METRICS_PROTOCOL", "http/json", "only http/protobuf is supported"),
            ("COMPRESSION", "zstd", "expected gzip or none"),
            ("TIMEOUT", "0", "expected a number of milliseconds, 1 or more"),
            ("TIMEOUT", "1s", "expected a number of milliseconds, 1 or more"),
            ("HEADERS", "hunter2", "expected NAME=VALUE, separated by commas"),
            ("HEADERS", "a=hunter2%0d%0a", "a header has a character that is not allowed in it"),
            ("HEADERS", "a hunter2=1", "a header has a character that is not allowed in it"),
            ("HEADERS", "a=hunter2%ff", "a value is not UTF-8"),
            ("HEADERS", "Content-Type=a", "the header Content-Type cannot be set"),
            ("ENDPOINT", "hunter2", "expected a URL such as http"),
            ("METRICS_ENDPOINT", "http://user:hunter2@a", "a URL with a user or a password"),
        ):
            error = self.assertRaises(ValueError, settings, **{name: value})
            self.assertIn(f"{PREFIX}{name}: {expected}", str(error))
            self.assertNotIn("hunter2", str(error))
        error = self.assertRaises(ValueError, settings, otel_resource_attributes="a")
        self.assertIn("OTEL_RESOURCE_ATTRIBUTES: ", str(error))
        error = self.assertRaises(ValueError, settings, CLIENT_KEY="/k")
        self.assertIn("must be given together", str(error))


class SecretsTests(SynchronousTestCase):
    def test_urls(self) -> None:
        """A URL with credentials is rejected, and not repeated in the message."""
        for url, expected in (
            ("https://user:hunter2@a/b", "a user or a password"),
            ("https://hunter2@a", "a user or a password"),
            ("https://a/b?key=hunter2", "a query"),
            ("https://a/#hunter2", "a query"),
            ("https://a/?", "a query"),
            ("ftp://hunter2", "expected a URL"),
            ("https://", "expected a URL"),
            ("https://a:hunter2", "expected a URL"),
            ("https://a:99999", "expected a URL"),
            ("https://[a", "expected a URL"),
            ("https://a b", "expected a URL"),
            ("https://hunter2\n", "expected a URL"),
            ("", "expected a URL"),
        ):
            error = self.assertRaises(ValueError, settings, url)
            self.assertIn(expected, str(error))
            self.assertNotIn("hunter2", str(error))

    def test_text(self) -> None:
        self.assertNotIn("hunter2", repr(settings("https://a", HEADERS="api-key=hunter2")))

    def test_plain(self) -> None:
        """Credentials are not sent to another machine without TLS; other headers are."""
        secrets: dict[str, Any] = {"HEADERS": "x-scope-orgid=1,Authorization=Bearer hunter2"}
        error = self.assertRaises(ValueError, settings, "http://a", **secrets)
        self.assertEqual(
            str(error),
            "the header Authorization is not sent to another machine without TLS: use https://",
        )
        for url in "https://a", "http://localhost", "http://127.0.0.1:1", "http://[::1]:1":
            self.assertEqual(len(settings(url, **secrets).headers), 2)
        self.assertEqual(len(settings("http://a", HEADERS="x-scope-orgid=1").headers), 1)

    def test_values(self) -> None:
        for wrong in {"interval": 0}, {"timeout": -1.0}, {"url": "a"}, {"headers": {"a": "\n"}}:
            self.assertRaises(ValueError, OtlpSettings, **wrong)
