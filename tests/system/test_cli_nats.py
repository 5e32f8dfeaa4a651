"""
Commands and the daemon with a real broker: its faults, credentials and permissions.
"""

from __future__ import annotations

import json
import re
from functools import partial
from importlib import import_module
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest

from tests import ROOT
from tests.authority import Authority, no_tls
from tests.commands import Child, reactor
from tests.daemon import TWISTD
from tests.nats import NatsServer, change_streams
from tests.scraping import get
from tests.system.quick.test_cli_nats import SECRET, NatsCommandTestCase


def iterate() -> Deferred[None]:
    """Let the reactor iterate."""
    iterated: Deferred[None] = Deferred()
    reactor.callLater(0, iterated.callback, None)
    return iterated


class PublishTests(NatsCommandTestCase):
    async def test_noBroker(self) -> None:
        """A broker that is not there is reported once, and retried."""
        broker = NatsServer(self)
        broker.kill()
        child = self.publish(broker, self.serve(), "--source", "shop")
        await child.says(r"cannot publish to nats://.*/METRICS: cannot connect to .*; retrying\n")
        broker.start()
        await child.says(r"publishing to nats://")
        self.assertEqual(child.err.count("cannot publish"), 1)
        child.signal("TERM")
        self.assertEqual(await child.ended, 0)

    async def test_refused(self) -> None:
        """What will not pass ends the command with one line."""
        permit = 'publish: ["$JS.API.STREAM.INFO.METRICS", "$JS.API.STREAM.CREATE.METRICS"]'
        config = (
            f"accounts: {{ A: {{ jetstream: enabled, users: [ {{ user: u, password: {SECRET},"
            f" permissions: {{ {permit} }} }}, {{ user: x, password: {SECRET} }} ] }} }}"
        )
        broker = NatsServer(self, config=config)
        port = self.serve()
        self.counter.increment()
        command = ("publish", port, "--to", broker.url(), "--source", "shop")
        for environ, reason in [
            ("", "the broker does not accept the credentials"),
            ("NATS_USER=u NATS_PASSWORD=wrong", "the broker does not accept the credentials"),
            (f"NATS_USER=u NATS_PASSWORD={SECRET}", "the broker does not permit it: "),
        ]:
            child = self.shell(f'{environ} exec "$@"', *command)
            self.assertEqual(await child.ended, 2, child.err)
            lines = child.err.splitlines()
            self.assertIn(f"cannot publish to {broker.url()}: {reason}", lines[-1])
            self.assertEqual(child.err.count("cannot publish"), 1)
            self.assertNotIn(SECRET, child.err + child.out)


class FaultTests(NatsCommandTestCase):
    """Totals after faults are those that the test has recorded."""

    async def test_fullBuffer(self) -> None:
        """What a publisher gives up is counted and reported; totals are exact afterwards."""
        broker = NatsServer(self)
        port = self.serve()
        child = self.publish(
            broker, port, "--source", "shop", "--buffer", "2KiB", "--linger", "1ms"
        )
        follower = self.follow(broker)
        await follower.has("shop", 0)
        self.counter.increment()
        # This is not in the first snapshot: the consumer has finished joining.
        await follower.has("shop", 1)
        broker.kill()
        total = 1
        while "giving up events of shop" not in child.err:
            self.counter.increment()
            total += 1
            await iterate()
        broker.start()
        await follower.has("shop", total)
        await child.says(r"[Gg]ave up [0-9]+ events of shop")
        child.signal("INT")
        self.assertEqual(await child.ended, 0)
        # It may have given up more after the first report.
        missed = follower.views["shop"].missed_client
        self.assertRegex(
            child.err, rf"published {total:,} events? of 1 source, of which {missed:,} were given"
        )

    async def test_twoPublishers(self) -> None:
        """Of two publishers of one source, one is killed, and the other stopped."""
        broker = NatsServer(self)
        port = self.serve()
        first, second = (self.publish(broker, port, "--source", "shop") for _ in range(2))
        await first.says("publishing to")
        await second.says("publishing to")
        follower = self.follow(broker)
        self.counter.increment(3)
        await follower.has("shop", 3)
        first.signal("KILL")
        await first.ended
        self.counter.increment(4)
        await follower.has("shop", 7)
        second.signal("TERM")
        await second.ended
        third = self.publish(broker, port, "--source", "shop")
        self.counter.increment(5)
        await follower.has("shop", 12)
        third.signal("TERM")
        await third.ended

    async def test_streamDeleted(self) -> None:
        """A publisher creates the stream again, and consumers follow that."""
        broker = NatsServer(self)
        child = self.publish(broker, self.serve(), "--source", "shop")
        follower = self.follow(broker)
        self.counter.increment(3)
        await follower.has("shop", 3)
        await change_streams(broker, lambda streams: streams.delete_stream("METRICS"))
        self.counter.increment(4)
        await follower.has("shop", 7)
        await self.follow(broker).has("shop", 7)
        child.signal("TERM")
        self.assertEqual(await child.ended, 0)

    async def test_consumerKilled(self) -> None:
        """A consumer that was killed begins again with exact totals."""
        broker = NatsServer(self)
        child = self.publish(broker, self.serve(), "--source", "shop")
        total = 0
        for _ in range(2):
            consumer = self.child("prometheus", broker.url(), "--listen", "0")
            address = (await consumer.says(r"metrics are served on (127\.0\.0\.1:\d+)"))[1]
            self.counter.increment(3)
            total += 3
            line = f'requests_total{{route="/",source="shop"}} {total}\n'
            while line not in (await get(address))[1]:
                pass
            consumer.signal("KILL")
            await consumer.ended
            self.counter.increment(4)
            total += 4
        await self.follow(broker).has("shop", total)
        child.signal("TERM")
        await child.ended

    async def test_silence(self) -> None:
        """Commands show when a publisher has lost its server, and when it has been killed."""
        broker = NatsServer(self)
        port = self.serve()
        child = self.publish(broker, port, "--source", "shop")
        tail = self.child("tail", broker.url())
        await tail.says("connected to shop")
        await self.port.stopListening()
        self.server.stop(0)
        await tail.says("disconnected from shop: its publisher has lost the connection to its")
        child.signal("KILL")
        await child.ended
        tail.signal("TERM")
        await tail.ended


class SourcesTests(NatsCommandTestCase):
    """Commands that follow the sources of a stream."""

    async def shop(self, broker: NatsServer, name: str = "shop") -> Child:
        """Publish a new server; return the publisher when consumers can follow it."""
        child = self.publish(broker, self.serve(), "--source", name)
        await child.says("publishing to")
        return child

    async def end(self, *children: Child) -> None:
        for child in children:
            child.signal("TERM")
            await child.ended

    async def test_tail(self) -> None:
        """Sources come and go; the name of a source begins its lines."""
        broker = NatsServer(self)
        child = self.child("tail", broker.url() + "?source=sh*")
        await child.says("cannot follow nats://.*: the stream does not exist; retrying")
        shop = await self.shop(broker)
        counter = self.counter
        other = await self.shop(broker, "other")
        await child.prints("(?m)^shop  status ")
        counter.increment(3)
        await child.prints(r"(?m)^shop  .*counter/increment requests_total .* 3$")
        await self.end(shop)
        await child.says("disconnected from shop: its publisher has stopped\n")
        again = await self.shop(broker)
        await child.says("(?s)connected to shop\n.*connected to shop\n")
        self.counter.increment(4)
        await child.prints(r"(?m)^shop  .*counter/increment requests_total .* 4$")
        await self.end(child, other, again)
        self.assertNotIn("other", child.out + child.err)

    async def test_since(self) -> None:
        """Events of the past are printed; a server has none."""
        broker = NatsServer(self)
        shop = await self.shop(broker)
        await self.follow(broker).has("shop", 0)
        self.counter.increment(7)
        await self.follow(broker).has("shop", 7)
        child = self.child("tail", broker.url(), "--since", "10m", "--json", "--count", "1")
        self.assertEqual(await child.ended, 0)
        self.assertIn('"endpoint":"shop"', child.out)
        child = self.child("tail", "5000", "--since", "10m")
        self.assertEqual(await child.ended, 2)
        self.assertIn("--since requires a nats:// URL", child.err)
        await self.end(shop)

    async def test_brokerKilled(self) -> None:
        """The stream of a source continues after the broker has been killed, without a gap."""
        broker = NatsServer(self)
        shop = await self.shop(broker)
        child = self.child("tail", broker.url(), "--json")
        await child.prints('"event":"status"')
        for number in range(1, 4):
            self.counter.increment(number)
            await child.prints(f'"operation":"increment".*"value":{number},')
            if number == 1:
                broker.kill()
                await child.says("cannot follow .*; retrying")
                broker.start()
        self.assertEqual(child.out.count('"operation":"increment"'), 3)
        self.assertEqual(child.out.count('"event":"status"'), 1)
        self.assertIn("following nats://", child.err)
        await self.end(child, shop)

    async def test_stats(self) -> None:
        broker = NatsServer(self)
        shop = await self.shop(broker)
        self.counter.increment(7)
        await self.follow(broker).has("shop", 7)
        report = await self.stats(self.child, broker.url() + "?source=shop")
        self.assertEqual((report["endpoint"], report["behind"]), ("shop", 0))
        self.assertEqual([one["value"] for one in report["series"]], [7])
        await self.end(shop)

    async def test_prometheus(self) -> None:
        """The page has the state of a source while the broker is gone, and afterwards."""
        broker = NatsServer(self)
        shop = await self.shop(broker)
        self.counter.increment(7)
        child = self.child("prometheus", broker.url(), "--listen", "0")
        address = (await child.says(r"metrics are served on (127\.0\.0\.1:\d+)"))[1]
        await child.says("receiving metrics from shop")

        async def page() -> str:
            _, body = await get(address)
            return body

        text = await page()
        self.assertIn('txmetrics_source_behind_messages{source="shop"} 0', text)
        self.assertIn('txmetrics_source_connected{source="shop"} 1', text)
        self.assertIn('requests_total{route="/",source="shop"} 7', text)
        broker.kill()
        await child.says("cannot follow")
        self.assertIn('txmetrics_source_connected{source="shop"} 0', await page())
        broker.start()
        await child.says("(?s)cannot follow.*following")
        self.assertIn('txmetrics_source_connected{source="shop"} 1', await page())
        await self.end(child, shop)

    async def test_record(self) -> None:
        """Each source has a file."""
        broker = NatsServer(self)
        shop = await self.shop(broker)
        into = Path(self.mktemp())
        child = self.child("record", f"{into}/", broker.url(), "--count", "2")
        await child.says("connected to shop")
        self.counter.increment(7)
        self.counter.increment(1)
        self.assertEqual(await child.ended, 0)
        self.assertEqual([path.name for path in into.iterdir()], ["shop.rec"])
        child = self.child("stats", str(into / "shop.rec"), "--json")
        self.assertEqual(await child.ended, 0)
        self.assertEqual([one["value"] for one in json.loads(child.out)["series"]], [8])
        await self.end(shop)

    async def test_refused(self) -> None:
        """What will not pass ends a command with one line."""
        config = (
            "accounts: { A: { jetstream: enabled, users: ["
            f' {{ user: u, password: {SECRET}, permissions: {{ publish: "x" }} }},'
            f" {{ user: all, password: {SECRET} }} ] }} }}"
        )
        broker = NatsServer(self, config=config)
        record = ["record", f"{self.mktemp()}/"]
        for command in ["tail"], ["stats"], ["prometheus", "--listen", "0"], record:
            name, *arguments = command
            for environ, reason in [
                ("", "the broker does not accept the credentials"),
                (f"NATS_USER=u NATS_PASSWORD={SECRET}", "the broker does not permit it: "),
            ]:
                child = self.shell(f'{environ} exec "$@"', name, *arguments, broker.url())
                self.assertEqual(await child.ended, 2, child.err)
                self.assertIn(f"cannot follow {broker.url()}: {reason}", child.err)
                self.assertEqual(child.err.count("cannot"), 1, child.err)
                self.assertNotIn(SECRET, child.err + child.out)

    async def test_foreign(self) -> None:
        """A stream of other messages is refused."""
        broker = NatsServer(self)
        await change_streams(
            broker, lambda streams: streams.add_stream(name="METRICS", subjects=["orders.>"])
        )
        for child in (
            self.child("tail", broker.url()),
            self.publish(broker, self.serve(), "--source", "x"),
        ):
            self.assertEqual(await child.ended, 2, child.err)
            self.assertIn("METRICS is not one of metrics: it has orders.> instead of", child.err)


class DaemonTests(NatsCommandTestCase):
    def daemon(self, *options: str, environ: str = "") -> Child:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        script = f'cd {directory} && {environ} exec "$@"'
        command = [*TWISTD, "-n", "--pidfile=", "metrics-tcp", "--listen", "0", *options]
        return self.spawn("/bin/sh", "-c", script, "sh", *command)

    async def test_publish(self) -> None:
        """
        A daemon publishes its stream, even if it accepts no clients, and another one collects it.
        """
        broker = NatsServer(self)
        first = self.daemon(
            *("--publish", broker.url(), "--publish-source", "web1", "--no-host"),
            *("--allow", "192.0.2.1", "--publish-snapshot", "200ms"),
        )
        await first.prints("Publishing to nats://")
        given_up = "txmetrics_publisher_given_up_events_total"
        of_first = self.child("tail", broker.url(), "--filter", given_up, "--json")
        await of_first.prints(f'"{given_up}".*"value":0')
        second = self.daemon("--from", broker.url(), "--no-process", "--no-host")
        port = (await second.prints(r"Streaming metrics on .*:(\d+)"))[1]
        tail = self.child(
            "tail", port, "--filter", "txmetrics_collector_source_connected", "--json"
        )
        await tail.prints('"txmetrics_collector_source_connected".*"value":1')
        for child in of_first, tail, second, first:
            child.signal("TERM")
            await child.ended

    async def test_permission(self) -> None:
        """A daemon logs once that the broker rejects it, and tries again."""
        broker = NatsServer(self, "--auth", SECRET)
        daemon = self.daemon("--publish", broker.url(), environ="NATS_TOKEN=wr0ng")
        await daemon.prints("Cannot publish to nats://.*not accept the credentials; retrying")
        daemon.signal("TERM")
        await daemon.ended
        daemon = self.daemon("--publish", broker.url(), environ=f"NATS_TOKEN={SECRET}")
        await daemon.prints("Publishing to nats://")
        daemon.signal("TERM")
        await daemon.ended
        self.assertNotIn(SECRET, daemon.out + daemon.err)

    async def test_invalid(self) -> None:
        for options, reason in [
            (["--publish", f"nats://u:{SECRET}@h/S"], "--publish: a nats:// URL must not contain"),
            (["--from", f"nats://u:{SECRET}@h/S"], "--from: a nats:// URL must not contain"),
            (["--publish", "5000"], "--publish: expected nats://HOST[:PORT]/STREAM"),
            (
                ["--publish", "nats://h/S", "--publish-source", "a", "--from", "nats://h/S"],
                "--from: the source a of nats://h:4222/S is what --publish publishes",
            ),
            (
                ["--publish", "nats://h/S", "--publish-source", ""],
                "--publish-source: the name of a source must have 1 to 512 characters",
            ),
            (["--publish", "nats://h"], "--publish: a nats:// URL must be nats://HOST"),
            (["--publish-buffer", "x"], "--publish-buffer: expected a number of bytes"),
        ]:
            daemon = self.daemon(*options)
            self.assertEqual(await daemon.ended, 1)
            self.assertIn(reason, daemon.err)
            self.assertNotIn(SECRET, daemon.out + daemon.err)


class SecretsTests(NatsCommandTestCase):
    """Credentials come from files and the environment, and appear nowhere else."""

    async def test_tls(self) -> None:
        """
        With a private authority, the certificate of the broker is verified; no credentials are
        given to a broker without TLS.  Neither messages nor the stream contain a password.
        """
        if no_tls:
            raise SkipTest(no_tls)
        authority = Authority(self)
        issued = authority.issue()
        options = ["--tls", "--tlscert", issued.cert, "--tlskey", issued.key]
        broker = NatsServer(self, *options, "--user", "u", "--pass", SECRET)
        user = f"NATS_USER=u NATS_PASSWORD={SECRET}"
        trusting = f'{user} NATS_CA={authority.file} exec "$@"'
        port = self.serve()
        self.counter.increment(3)
        publish = ("publish", port, "--to", broker.url(), "--source", "shop")
        publisher = self.shell(trusting, *publish)
        await publisher.says("publishing to")
        tail = self.shell(trusting, "tail", broker.url(), "--json", "--verbose", "--count", "1")
        self.assertEqual(await tail.ended, 0)
        stranger = self.shell(f'{user} exec "$@"', *publish)
        await stranger.says("cannot publish to .*certificate verify failed")
        plain = NatsServer(self, "--user", "u", "--pass", SECRET)
        cheated = self.shell(trusting, "tail", plain.url())
        await cheated.says("cannot follow .*the broker does not require TLS")
        children = [publisher, tail, stranger, cheated]
        for child in children:
            if child is not tail:
                child.signal("TERM")
                await child.ended
            self.assertNotIn(SECRET, child.out + child.err)
        broker.kill()
        for path in broker.store.rglob("*"):
            if path.is_file():
                self.assertNotIn(SECRET.encode(), path.read_bytes())

    async def test_nkey(self) -> None:
        """The seed of an nkey is read from a file."""
        nkeys = import_module("nkeys")
        seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
        pair = nkeys.from_seed(bytearray(seed))
        broker = NatsServer(
            self, config=f"authorization: {{ users: [ {{ nkey: {pair.public_key.decode()} }} ] }}"
        )
        path = Path(self.mktemp()).absolute()
        path.write_bytes(seed)
        publish = ("publish", self.serve(), "--to", broker.url(), "--source", "shop")
        child = self.shell(f'NATS_NKEY={path} exec "$@"', *publish)
        await child.says("publishing to")
        child.signal("TERM")
        self.assertEqual(await child.ended, 0)
        self.assertNotIn(seed.decode(), child.out + child.err)

    async def test_permissions(self) -> None:
        """The permissions that the documents name are enough."""
        page = (
            (ROOT / "docs" / "how-to" / "nats.md").read_text().partition("needs the permission")[2]
        )
        subjects = re.findall(r"`([$_\w.>]+)`", page.partition("##")[0])
        subjects = [
            re.sub(r"(?<!\.)\bSTREAM\b(?=\.>)|(?<=\.)STREAM(?=\.>|$)", "METRICS", one)
            for one in subjects
        ]
        at = subjects.index("_INBOX.>")
        users = ", ".join(
            f"{{ user: {user}, password: {SECRET}, permissions: {{"
            f' publish: {json.dumps(allowed)}, subscribe: "_INBOX.>" }} }}'
            for user, allowed in [("writer", subjects[:at]), ("reader", subjects[at + 1 :])]
        )
        broker = NatsServer(
            self, config=f"accounts: {{ A: {{ jetstream: enabled, users: [ {users} ] }} }}"
        )
        port = self.serve()
        self.counter.increment(3)
        publish = ("publish", port, "--to", broker.url(), "--source", "shop")
        writer = self.shell(f'NATS_USER=writer NATS_PASSWORD={SECRET} exec "$@"', *publish)
        await writer.says("publishing to")
        reader = partial(self.shell, f'NATS_USER=reader NATS_PASSWORD={SECRET} exec "$@"')
        report = await self.stats(reader, broker.url())
        self.assertEqual([one["value"] for one in report["series"]], [3])
        writer.signal("TERM")
        self.assertEqual(await writer.ended, 0)
