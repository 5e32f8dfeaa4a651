"""
What a client began to send.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.connection import looks_like


class LooksTests(SynchronousTestCase):
    def test_known(self) -> None:
        for head, name in (
            (b"GET / HTTP/1.1\r\n", "HTTP"),
            (b"OPTIONS * HTTP/1.", "HTTP"),
            (b"PRI * HTTP/2.0\r\n", "HTTP"),
            (bytes.fromhex("16030100c8010000c40303"), "TLS"),
            (b"SSH-2.0-OpenSSH_9", "SSH"),
            (b"PROXY TCP4 192.0", "proxy"),
            (b"\r\n\r\n\0\r\nQUIT\n!\x11", "proxy"),
        ):
            self.assertIn(name, looks_like(head) or "")
            # Not before it can be told.
            self.assertIsNone(looks_like(head[:2]))

    def test_unknown(self) -> None:
        for head in (b"", b"\n", b"GETTING", b"hello", b"\x16\x04\x00", b"\0" * 16):
            self.assertIsNone(looks_like(head), head)
