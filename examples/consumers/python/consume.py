"""
Prints the totals of a txmetrics-tcp stream when the server closes the connection.

    protoc --proto_path=../../../proto --python_out=. txmetrics_tcp/event.proto
    python consume.py 127.0.0.1:5000
"""

import socket
import sys
from collections.abc import Iterator
from io import BufferedReader

from google.protobuf.message import DecodeError

from txmetrics_tcp import event_pb2

MAX_FRAME = 1 << 20

# By kind, name and labels. The totals of counters and histograms are ints.
totals: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: consume.py HOST:PORT")
    host, _, port = sys.argv[1].rpartition(":")
    try:
        with socket.create_connection((host, int(port))) as connection:
            for frame in frames(connection.makefile("rb")):
                # An empty frame is an event without a variant.
                event = event_pb2.Event.FromString(frame)
                if event.WhichOneof("event") == "metric":
                    apply(event.metric)
    except (OSError, EOFError, ValueError, DecodeError) as error:
        sys.exit(f"consume: {error}")
    for (kind, name, labels), total in sorted(totals.items()):
        line = [kind, name, *(f"{key}={value}" for key, value in labels), repr(total)]
        sys.stdout.buffer.write("\t".join(line).encode() + b"\n")


def frames(stream: BufferedReader) -> Iterator[bytes]:
    """Yield each frame, until the server closes the connection."""
    while stream.peek(1):
        length = shift = 0
        more = True
        while more:
            [byte] = read(stream, 1)
            length |= (byte & 0x7F) << shift
            shift += 7
            more = byte >= 0x80 and shift < 64
        if length > MAX_FRAME:
            raise ValueError(f"the server sent a frame of {length} bytes")
        yield read(stream, length)


def read(stream: BufferedReader, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the stream ended within a frame")
    return data


def apply(metric: event_pb2.Metric) -> None:
    operation = metric.WhichOneof("operation")
    if operation is None:
        return  # an operation of a later version
    action, kind = operation.split("_")
    series = kind, metric.name, tuple(sorted(metric.labels.items()))
    value = getattr(metric, operation)
    total = totals.get(series, 0)
    if operation == "increment_counter":
        totals[series] = (total + value) % 2**64
    elif action == "increment":
        totals[series] = total + value
    elif action == "decrement":
        totals[series] = total - value
    elif action == "set":
        totals[series] = value
    else:
        totals[series] = total + 1  # a sample of a histogram


if __name__ == "__main__":
    main()
