"""
The cost of a response to Prometheus.
"""

from __future__ import annotations

from suite.bench import Bench
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PeerError, Server, python
from suite.snapshot import PROMETHEUS

SERIES = 10_000

TITLE = f"A response to Prometheus and an export with OTLP of {SERIES:,} series"

HOW = """\
A server retains 3,333 histograms of 60 occupied buckets each, and counters and gauges, with two or
three labels. The table shows the processor time of a response, from the snapshot to the last byte,
without sending it, beside `generate_latest` of prometheus_client for the same series. Both have 15
classic buckets; protobuf has native histograms in addition, which prometheus_client does not have.
"Gaps" means that every second bucket is empty. Times are the least of three responses. The longest
slice is that of a response in protobuf while most histograms have a sample that is not in their
totals yet; the first response finds empty caches. Both include garbage collections. An export with
OTLP is a request, compressed."""


def run(bench: Bench) -> Section:
    columns: dict[str, list[float]] = {
        name: []
        for name in ("text", "protobuf", "gaps", "generate", "first", "longest", "export", "slice")
    }
    for _ in bench.rounds(7):
        for steps in 32, 16:
            arguments = [*python("suite.retained"), str(SERIES), str(SERIES // 3), str(steps)]
            with Server(True, arguments) as server:
                measure(server, columns, steps == 16)
    text = {OURS: columns["text"], PROMETHEUS: [one for one in columns["generate"] if one]}
    limits = {limit: Goal(limit, False, "ms") for limit in (10, 40, 60)}
    return Section(
        TITLE,
        HOW,
        [
            Row.of("text", "ms", text, PROMETHEUS, limits[40], Goal(0.25, False)),
            Row.of("protobuf", "ms", {OURS: columns["protobuf"]}, None, limits[60]),
            Row.of("protobuf, gaps", "ms", {OURS: columns["gaps"]}, None, limits[60]),
            Row.of("longest slice", "ms", {OURS: columns["longest"]}, None, limits[10]),
            Row.of("longest slice of the first response", "ms", {OURS: columns["first"]}),
            Row.of("OTLP", "ms", {OURS: columns["export"]}, None, limits[60]),
            Row.of("longest slice of OTLP", "ms", {OURS: columns["slice"]}, None, limits[10]),
        ],
    )


def measure(server: Server, columns: dict[str, list[float]], gaps: bool) -> None:
    """Measure the responses of a server, and add the times in milliseconds to columns."""

    def ask(command: str) -> dict[str, float]:
        return {name: value * 1e3 for name, value in server.ask(command).items()}

    first = ask("expose_protobuf")
    if not first["bytes"]:
        raise PeerError("the response is empty")
    # The least of several, since a collection of garbage takes as long as a response.
    protobuf = min(ask("expose_protobuf")["seconds"] for _ in range(3))
    columns["gaps" if gaps else "protobuf"].append(protobuf)
    if gaps:
        return
    columns["first"].append(first["longest"])
    columns["text"].append(min(ask("expose_text")["seconds"] for _ in range(3)))
    columns["generate"].append(min(ask("generate")["seconds"] for _ in range(3)))
    exports = [ask("export") for _ in range(3)]
    columns["export"].append(min(one["seconds"] for one in exports))
    columns["slice"].append(exports[-1]["longest"])
    ask("log")
    columns["longest"].append(ask("expose_protobuf")["longest"])
