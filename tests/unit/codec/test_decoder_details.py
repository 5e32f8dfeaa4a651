"""
What only mutants of the decoder have shown that nobody looked at; see docs/mutation-testing.md.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Decoder, Key, Metric, MetricKind, Operation, StreamError
from txmetrics_tcp._codec.encoder import encode_metric

SAMPLE = encode_metric(
    Metric(Key(MetricKind.HISTOGRAM, "h" * 1000), Operation.RECORD_HISTOGRAM, 1.0, 10**18)
)


class DecoderDetailTests(SynchronousTestCase):
    def test_unfinished(self) -> None:
        """Every byte of a frame that is not complete counts, in however many pieces it came."""
        decoder = Decoder()
        self.assertEqual(len(list(decoder.feed(SAMPLE))), 1)
        self.assertEqual(decoder.unfinished, 0)
        for number in range(1, len(SAMPLE)):
            self.assertEqual(list(decoder.feed(SAMPLE[number - 1 : number])), [])
            self.assertEqual(decoder.unfinished, number)
        self.assertEqual(len(list(decoder.feed(SAMPLE[-1:]))), 1)
        self.assertEqual(decoder.unfinished, 0)

    def test_namesOfOthers(self) -> None:
        """What it looks like is said as people say it."""
        for beginning, name in (
            (b"HTTP/1.1 400 Bad Request", "an HTTP server"),
            (b"SSH-2.0-OpenSSH_9.2", "an SSH server"),
            (b"220 mail.example.org ESMTP", "an FTP or mail server"),
            (b"220-ftp.example.org", "an FTP or mail server"),
            (b"\x15\x03\x01\x00\x02\x02F", "TLS"),
            (b"\x16\x03\x01\x00\x02\x02F", "TLS"),
            (b"<?xml", "HTML or XML"),
        ):
            decoder = Decoder()
            error = self.assertRaises(StreamError, lambda: list(decoder.feed(beginning)))  # noqa: B023
            self.assertRegex(str(error), rf"looks like {name}$|looks like {name}\)$")
