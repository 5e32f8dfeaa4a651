"""
The human-readable form of addresses.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.addresses import show_address


class ShowTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """Addresses of Twisted and of the C{socket} module have the same human-readable form."""
        for text, addresses in {
            "192.0.2.1:5": [IPv4Address("TCP", "192.0.2.1", 5), ("192.0.2.1", 5)],
            "[::1]:5": [IPv6Address("TCP", "::1", 5), ("::1", 5), ("::1", 5, 0, 0)],
            "unix:/run/x": [UNIXAddress(b"/run/x"), b"/run/x", "/run/x"],
            "unix:(unnamed)": [UNIXAddress(None), b"", ""],
            "None": [None],
        }.items():
            self.assertEqual(
                [show_address(address) for address in addresses], [text] * len(addresses)
            )
