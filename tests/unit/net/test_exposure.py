"""
Who can connect to where something listens.
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
            self.assertEqual(self.audience(host), "Everybody who can reach this machine", host)
        for host in ("192.0.2.1", "2001:db8::1", "fe80::1%eth0"):
            self.assertEqual(
                self.audience(host), f"Everybody who can reach {host} of this machine", host
            )

    def audience(self, host: str) -> str:
        made = IPv6Address if ":" in host else IPv4Address
        return audience(made("TCP", host, 5))

    def test_conditions(self) -> None:
        address = IPv4Address("TCP", "0.0.0.0", 5)
        self.assertEqual(
            audience(address, ["192.0.2.0/24", "2001:db8::/32"], certified=True),
            "Everybody in 192.0.2.0/24, 2001:db8::/32 who can reach this machine"
            " and has a certificate that is asked for",
        )

    def test_directories(self) -> None:
        """A socket for all is for nobody where nobody may go."""
        for mode, doors, who in (
            (0o666, stat.S_IXOTH | stat.S_IXGRP, "Every user of this machine"),
            (0o666, stat.S_IXGRP, "Every user who may enter its directory"),
            (0o666, 0, ""),
            (0o660, stat.S_IXGRP, "Every user of group "),
            (0o660, 0, ""),
            (0o644, stat.S_IXOTH | stat.S_IXGRP, ""),
        ):
            self.patch(exposure, "may_enter", lambda path, bits, doors=doors: bits & doors)
            path = self.mktemp()
            Path(path).touch()
            os.chmod(path, mode)
            found = audience(UNIXAddress(path))
            self.assertTrue(found.startswith(who) and bool(found) == bool(who), found)

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
        self.assertEqual(audience(address), "Every user of this machine")
        self.assertEqual(
            audience(address, certified=True),
            "Every user of this machine who has a certificate that is asked for",
        )

    def test_gone(self) -> None:
        self.assertEqual(audience(UNIXAddress(self.mktemp())), "")
