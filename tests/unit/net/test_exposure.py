"""
The clients that can connect to a listening address.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net import exposure
from txmetrics_tcp._net.exposure import audience, may_enter


class AudienceTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        for host in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
            self.assertEqual(self.audience(host), "", host)
        for host in ("0.0.0.0", "::"):
            self.assertEqual(
                self.audience(host), "Any client with network access to this machine", host
            )
        for host in ("192.0.2.1", "2001:db8::1", "fe80::1%eth0"):
            self.assertEqual(self.audience(host), f"Any client with network access to {host}", host)

    def audience(self, host: str) -> str:
        made = IPv6Address if ":" in host else IPv4Address
        return audience(made("TCP", host, 5))

    def test_conditions(self) -> None:
        address = IPv4Address("TCP", "0.0.0.0", 5)
        self.assertEqual(
            audience(address, ["192.0.2.0/24", "2001:db8::/32"], certified=True),
            "Any client in 192.0.2.0/24, 2001:db8::/32 with network access to this machine"
            " and a certificate from the client CA",
        )

    def test_directories(self) -> None:
        """The modes of the directories above restrict access to a socket file."""
        for mode, allowed, clients in (
            (0o666, stat.S_IXOTH | stat.S_IXGRP, "Any user of this machine"),
            (0o666, stat.S_IXGRP, "Any user with access to its directory"),
            (0o666, 0, ""),
            (0o660, stat.S_IXGRP, "Any user in group "),
            (0o660, 0, ""),
            (0o644, stat.S_IXOTH | stat.S_IXGRP, ""),
        ):
            self.patch(exposure, "may_enter", lambda path, bits, allowed=allowed: bits & allowed)
            path = self.mktemp()
            Path(path).touch()
            os.chmod(path, mode)
            found = audience(UNIXAddress(path))
            self.assertTrue(found.startswith(clients) and bool(found) == bool(clients), found)

    def test_mayEnter(self) -> None:
        directory = Path(self.mktemp()).resolve()
        inner = directory / "inner"
        inner.mkdir(parents=True)
        path = os.fsencode(inner / "x.sock")
        directory.chmod(0o700)
        self.assertTrue(may_enter(path, stat.S_IXUSR))
        self.assertFalse(may_enter(path, stat.S_IXGRP | stat.S_IXOTH))
        self.assertTrue(may_enter(b"/no/such/directory/x.sock", stat.S_IXOTH))

    def test_abstract(self) -> None:
        address = UNIXAddress(b"\0metrics")
        self.assertEqual(audience(address), "Any user of this machine")
        self.assertEqual(
            audience(address, certified=True),
            "Any user of this machine with a certificate from the client CA",
        )

    def test_missingFile(self) -> None:
        self.assertEqual(audience(UNIXAddress(self.mktemp())), "")
