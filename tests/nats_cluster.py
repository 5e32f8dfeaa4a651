"""
A cluster of three brokers, whose leader is killed; part of C{.ci/run long}.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack
from typing import Any

from twisted.internet.threads import deferToThread

from tests.nats import NatsServer
from tests.system.quick.test_nats import Follower, NatsTestCase
from txmetrics_tcp.relay.nats import StreamSettings

EVENTS = 1500


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [one.getsockname()[1] for one in sockets]


class ClusterTests(NatsTestCase):
    async def test_leaderKilled(self) -> None:
        """No event is lost when the leader of a stream with three replicas is killed."""
        ports = free_ports(3)
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
        brokers = {
            f"n{port}": NatsServer(
                self,
                *("--server_name", f"n{port}", "--cluster_name", "test", "--routes", routes),
                *("--cluster", f"nats://127.0.0.1:{port}"),
            )
            for port in ports
        }
        ours = brokers[f"n{ports[0]}"]
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        publisher = self.publish(ours, port, settings=StreamSettings(replicas=3))
        follower = Follower(self, ours.url())
        for _ in range(EVENTS // 3):
            jobs.increment()
        await follower.has(EVENTS // 3)
        leader = await deferToThread(lambda: asyncio.run(other_leader(ours, f"n{ports[0]}")))
        for _ in range(EVENTS // 3):
            jobs.increment()
        brokers[leader].kill()
        for _ in range(EVENTS // 3):
            jobs.increment()
        await follower.has(EVENTS)
        self.assertEqual(publisher.given_up, 0)
        self.assertEqual(follower.service._reader.sources["web"].following.missed, 0)
        await Follower(self, ours.url()).has(EVENTS)


async def other_leader(broker: NatsServer, name: str) -> str:
    """Let another server than the named one lead the stream, and return its name."""
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{broker.port}")
    try:
        while True:
            answer = await request(client, "INFO")
            leader = answer.get("cluster", {}).get("leader")
            if leader == name:
                await request(client, "LEADER.STEPDOWN")
            elif leader:
                return str(leader)
    finally:
        await client.close()


async def request(client: Any, what: str) -> dict[str, Any]:
    """Return the answer of the leader, or nothing while there is none."""
    from nats.errors import TimeoutError

    try:
        answer = await client.request(f"$JS.API.STREAM.{what}.METRICS", b"", timeout=1)
    except TimeoutError:
        return {}
    return dict(json.loads(answer.data))
