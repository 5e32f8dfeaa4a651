"""
``metrics-tcp prometheus`` with the Rust server.

`tests.rust_peers.VARIABLE` has the directory of the programs.
"""

from __future__ import annotations

import re
import signal
import sys

from tests.rust_peers import PeersTestCase, Printer, Server, program
from tests.scraping import get, samples

SERVED = re.compile(r"metrics are served on (127\.0\.0\.1:\d+)")


class PrometheusTests(PeersTestCase):
    async def test_restart(self) -> None:
        """Series of the Rust server are served; counters go on after it has restarted."""
        port, server = await self.serve()
        command = ["-m", "txmetrics_tcp", "prometheus", str(port), "--listen", "0"]
        bridge = self.spawn(Printer("prometheus"), sys.executable, *command)
        await bridge.until(lambda: SERVED.search(bridge.errors), "the address")
        found = SERVED.search(bridge.errors)
        assert found is not None
        address = found[1]
        source = f'source="127.0.0.1:{port}"'
        requests = f'rust_requests_total{{route="/a",{source},system="foo"}}'
        connected = f"txmetrics_source_connected{{{source}}}"
        connections = f"txmetrics_source_connections_total{{{source}}}"

        values: dict[str, float] = {}
        while values.get(requests, 0) < 3:
            _, body = await get(address)
            values = samples(body)
        self.assertIn("# HELP rust_requests_total requests served\n", body)
        self.assertIn(f"\nrust_largest_total{{{source}}} {2**64 - 1}\n", body)
        self.assertEqual(values[f'rust_special{{{source},value="inf"}}'], float("inf"))
        self.assertIn(f'rust_latency_bucket{{route="/a",{source},le="0.25"}}', values)
        self.assertEqual((values[connected], values[connections]), (1, 1))
        self.assertNotIn("txmetrics_source_restarts", body)

        server.close_input()
        self.assertEqual(await server.exited(), 0)
        await bridge.until(lambda: "disconnected from" in bridge.errors, "the end")
        before = samples((await get(address))[1])
        self.assertEqual(before[connected], 0)
        self.assertGreaterEqual(before[requests], values[requests])

        again = self.spawn(Server("serve"), program("serve"), f"127.0.0.1:{port}")
        self.assertTrue(await again.listens())
        values = before
        while values[requests] < before[requests] + 3:
            after = samples((await get(address))[1])
            self.assertGreaterEqual(after[requests], values[requests])
            values = after
        self.assertEqual((values[connected], values[connections]), (1, 2))
        bridge.signal(signal.SIGTERM)
        self.assertEqual(await bridge.exited(), 0)
