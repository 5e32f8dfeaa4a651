"""
StatsD over UDP: how much of what is sent is received, beside other servers of StatsD.

npm's statsd (``npm install statsd``) and statsd_exporter (``go install
github.com/prometheus/statsd_exporter``) take part if their commands C{statsd} and
C{statsd_exporter} are in the PATH.

``python -m suite.statsd serve`` is the process of this library's server; the command C{stats}
answers its UDP port and the number of received packets. ``python -m suite.statsd send PORT`` sends;
see `send`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from suite.bench import Bench, Subject
from suite.commands import commands, say
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PATIENCE, NoFigure, Peer, Server, python, until

VIEWER = f"{OURS}, one viewer"
NPM = "npm's statsd"
EXPORTER = "statsd_exporter"
COMMANDS = {NPM: "statsd", EXPORTER: "statsd_exporter"}

RATES = (30_000, 60_000)
SERIES = 600
SENT_GOAL = 0.95
"""The sender must send this share of the rate; otherwise it is the limit."""

TITLE = "StatsD"

HOW = """\
A process sends packets of UDP over the loopback interface for three seconds, at a rate. Each has a
line such as `shop.requests.17:1|c`, of 600 names. "Received" is the share of sent packets that the
server counts until it receives none; the kernel drops the others. All servers have their default
settings. This library's server records each line, and with a viewer streams it."""


def missing() -> dict[str, str]:
    """Return the servers that are not installed, with their commands."""
    return {name: command for name, command in COMMANDS.items() if not shutil.which(command)}


def run(bench: Bench) -> Section:
    absent = missing()
    for name, command in absent.items():
        print(f"statsd: without {name}, since {command} is not in the PATH", flush=True)
    names = [OURS, VIEWER, *(name for name in COMMANDS if name not in absent)]
    subjects = [Subject(name, True) for name in names]
    base = next((name for name in (EXPORTER, NPM) if name not in absent), None)
    rows = []
    for rate in RATES:
        received, cpu = bench.alternate(
            3, lambda subject, rate=rate: measure(bench, subject.name, rate), subjects
        )
        at = f"at {rate:,} packets/s"
        rows += [
            Row.of(f"received {at}", "%", received, base, Goal(0.98)),
            Row.of(f"processor time {at}", "µs a packet", cpu, base),
        ]
    return Section(TITLE, HOW, rows)


def measure(bench: Bench, name: str, rate: int) -> tuple[float, float]:
    """
    Measure one server.

    @return: the share of received packets in percent, and the processor time of a sent one in
        microseconds.
    """
    seconds = 0.3 if bench.quick else 3
    with ExitStack() as stack:
        server: OwnServer | OtherServer
        if name in COMMANDS:
            server = stack.enter_context(other_server(name))
        else:
            server = stack.enter_context(own_server(bench, viewers=int(name == VIEWER)))
        sender = stack.enter_context(Peer([*python("suite.statsd"), "send", str(server.udp)]))
        sender.ask("send", rate=rate / 10, seconds=0.2)  # warms up
        begun, cpu = settled(server), server.cpu_seconds()
        sent = sender.ask("send", rate=rate, seconds=seconds)["sent"]
        received, cpu = settled(server) - begun, server.cpu_seconds() - cpu
    if sent < SENT_GOAL * rate * seconds and not bench.quick:
        raise NoFigure(f"the sender sent only {sent} packets in {seconds} seconds")
    return 100 * received / sent, cpu / sent * 1e6


def settled(server: OwnServer | OtherServer) -> int:
    """Return the number of received packets, once it no longer changes."""
    received, before = server.received(), -1
    while received != before:
        time.sleep(0.2)
        received, before = server.received(), received
    return received


class OwnServer:
    """This library's server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.udp = int(server.ask("stats")["udp"])

    def received(self) -> int:
        return int(self._server.ask("stats")["received"])

    def cpu_seconds(self) -> float:
        return self._server.cpu_seconds()


@contextmanager
def own_server(bench: Bench, viewers: int) -> Iterator[OwnServer]:
    with ExitStack() as stack:
        server = stack.enter_context(Server(True, [*python("suite.statsd"), "serve"]))
        if viewers:
            stack.enter_context(bench.peers.reader(server.port, viewers))
            until(lambda: len(server.ask("stats")["clients"]) == viewers, PATIENCE, "no viewer")
        yield OwnServer(server)


class OtherServer:
    """
    A server that is not this library's.

    @ivar udp: its UDP port.
    """

    def __init__(self, name: str, process: int, udp: int, port: int) -> None:
        self._name = name
        self._process = process
        self._port = port
        self.udp = udp

    def received(self) -> int:
        if self._name == NPM:
            with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as admin:
                admin.sendall(b"counters\n")
                text = ""
                while "END" not in text:
                    text += admin.recv(65536).decode()
            return int(re.findall(r"statsd\.packets_received\W+(\d+)", text)[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as response:
            text = response.read().decode()
        figures = dict(
            re.findall(r"^statsd_exporter_udp_(packets|packet_drops)_total (\S+)", text, re.M)
        )
        return int(float(figures["packets"]) - float(figures.get("packet_drops", 0)))

    def cpu_seconds(self) -> float:
        ticks = Path(f"/proc/{self._process}/stat").read_text().rpartition(") ")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def other_server(name: str) -> Iterator[OtherServer]:
    udp, port = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
    with TemporaryDirectory() as directory, ExitStack() as stack:
        arguments = [
            f"--statsd.listen-udp=127.0.0.1:{udp}",
            "--statsd.listen-tcp=",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        if name == NPM:
            # Its counters begin again with each flush.
            config = Path(directory, "config.js")
            config.write_text(
                f"{{address: '127.0.0.1', port: {udp}, mgmt_address: '127.0.0.1',"
                f" mgmt_port: {port}, flushInterval: 3600000, backends: []}}"
            )
            arguments = [str(config)]
        command = shutil.which(COMMANDS[name])
        assert command is not None
        process = stack.enter_context(
            subprocess.Popen(
                [os.path.realpath(command), *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(process.kill)
        server = OtherServer(name, process.pid, udp, port)

        def answers() -> bool:
            with suppress(OSError, LookupError):
                server.received()
                return True
            return False

        until(answers, PATIENCE, f"{name} does not answer")
        yield server


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def send(port: str) -> None:
    """
    Answer the command C{send}: send packets at a C{rate} for some C{seconds}, in ticks of a
    millisecond. After a delay, a tick sends at most four times its share.
    """
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(("127.0.0.1", int(port)))
    packets = cycle([b"shop.requests.%d:1|c" % number for number in range(SERIES)])
    say({})
    for _word, options in commands():
        sent, due = 0, 0.0
        now = last = time.perf_counter()
        end = now + options["seconds"]
        while now < end:
            due += options["rate"] * min(now - last, 0.004)
            last = now
            while due >= 1:
                client.send(next(packets))
                sent += 1
                due -= 1
            time.sleep(0.001)
            now = time.perf_counter()
        say({"sent": sent})


def main() -> None:
    # These install the reactor.
    from dataclasses import asdict

    from suite.server import reactor, serve
    from txmetrics_tcp import MetricsFactory
    from txmetrics_tcp.bridges.statsd import StatsDProtocol, StatsDReceiver

    factory = MetricsFactory(reactor)
    receiver = StatsDReceiver(reactor, factory.recorder)
    port = reactor.listenUDP(0, StatsDProtocol(receiver), interface="127.0.0.1")
    serve(
        factory,
        lambda word, options: {
            "cpu_seconds": time.process_time(),
            "udp": port.getHost().port,
            "received": receiver._datagrams,
            **asdict(factory.stats()),
        },
    )


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2])
    else:
        main()
