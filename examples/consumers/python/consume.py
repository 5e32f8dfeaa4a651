"""
Prints the totals of a txmetrics-tcp stream when the server closes the connection.

    protoc --proto_path=../../../proto --python_out=. txmetrics_tcp/event.proto
    python consume.py 127.0.0.1 5000
"""

import socket
import sys

from google.protobuf.proto import parse_length_prefixed

from txmetrics_tcp.event_pb2 import Event, Metadata

KINDS = {number: name.lower() for name, number in Metadata.MetricType.items()}
totals: dict[tuple[object, ...], float] = {}
version = 0
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    stream = connection.makefile("rb")
    while (event := parse_length_prefixed(Event, stream)) is not None:
        if event.HasField("status"):
            version = event.status.protocol_version
        if event.snapshot.complete:
            # All totals follow; before version 3, histograms had none.
            kept = ("histogram",) if version < 3 else ()
            totals = {key: total for key, total in totals.items() if key[0] in kept}
        if event.HasField("histogram_total"):
            # For a histogram, the total is the number of samples.
            one = event.histogram_total
            counts = one.zeros, one.not_finite, *one.positive.counts, *one.negative.counts
            totals["histogram", one.name, tuple(sorted(one.labels.items()))] = sum(counts)
        if event.HasField("gone"):
            gone = event.gone
            kind = KINDS.get(gone.metric_type)
            totals.pop((kind, gone.name, tuple(sorted(gone.labels.items()))), None)
        metric = event.metric
        operation = metric.WhichOneof("operation")
        if operation is None:
            continue  # another event, or an operation of a later version
        action, kind = operation.split("_")
        series = kind, metric.name, tuple(sorted(metric.labels.items()))
        value, total = getattr(metric, operation), totals.get(series, 0)
        if action == "increment":
            total += value
        elif action == "decrement":
            total -= value
        else:
            total = value if action == "set" else total + 1
        totals[series] = total % 2**64 if kind == "counter" else total
for series, total in totals.items():
    print(series, total, sep="\t")
