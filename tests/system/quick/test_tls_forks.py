"""
TLS connections in a process that is forked from the exporter's.
"""

from __future__ import annotations

from unittest import skipIf

from tests.authority import no_tls
from tests.forking import in_child, is_open
from tests.unit.net.test_tls import TLSTestCase
from txmetrics_tcp._net.tls import ServerTLS


@skipIf(no_tls, no_tls)
class ForkTests(TLSTestCase):
    async def test_child(self) -> None:
        """A forked child has no sockets of the parent, not even of clients in a handshake."""
        own = self.authority.issue()
        await self.exporter(tls=ServerTLS(own.key, own.cert))
        self.connected()
        await self.connect_tls()
        descriptors = [client.transport.fileno() for client in self.factory._present]  # type: ignore[attr-defined]
        self.assertEqual(len(descriptors), 2)

        def still_open() -> list[int]:
            return [one for one in descriptors if is_open(one)]

        self.assertEqual(still_open(), descriptors)
        self.assertEqual(in_child(still_open), "[]")
