"""
``check_coexistence.py FIRST SECOND CHECK``: import two modules of messages, and call a function.

It imports nothing else that a test needs, since a process is started for each case.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

OURS = "txmetrics_tcp.event_pb2"
REFERENCE = "reference.event_pb2"
UNRELATED = "unrelated.event_pb2"
COPY = "copy_of_event_pb2"
"""A user's own module, which protoc has generated from this library's schema."""


def same_bytes() -> None:
    """Fail unless what this library's messages write, the reference's read, and vice versa."""
    from google.protobuf.json_format import MessageToDict

    ours, reference = import_module(OURS), import_module(REFERENCE)
    names = ours.DESCRIPTOR.name, reference.DESCRIPTOR.name
    assert names == ("txmetrics_tcp/event.proto", "event.proto"), names
    for one, other in ((ours, reference), (reference, ours)):
        for event in _events(one):
            data = event.SerializeToString(deterministic=True)
            read = other.Event.FromString(data)
            assert MessageToDict(read) == MessageToDict(event), (read, event)
            assert read.SerializeToString(deterministic=True) == data, (read, data)


def copy_usable() -> None:
    """Fail unless this library's messages and those of a user's copy are the same."""
    ours, copy = import_module(OURS), sys.modules[COPY]
    for one, other in ((ours, copy), (copy, ours)):
        for event in _events(one):
            assert other.Event.FromString(event.SerializeToString()) == event, event


def both_usable() -> None:
    """Fail unless this library's messages and unrelated ones each work."""
    ours, unrelated = import_module(OURS), import_module(UNRELATED)
    names = ours.DESCRIPTOR.name, unrelated.DESCRIPTOR.name
    assert names == ("txmetrics_tcp/event.proto", "event.proto"), names
    for event in [*_events(ours), unrelated.Event(id=7, title="a title")]:
        assert type(event).FromString(event.SerializeToString()) == event, event


def _events(module: ModuleType) -> list[object]:
    """One Event of every kind and operation, built with the classes of this module."""
    top = 2**64 - 1
    metadata, metric, event = module.Metadata, module.Metric, module.Event
    operations = {
        "increment_counter": top,
        "set_counter": 0,
        "increment_gauge": 0.5,
        "decrement_gauge": float("inf"),
        "set_gauge": -0.0,
        "record_histogram": 1e-9,
    }
    labels = {"zone": "東京", "empty": ""}
    events = [
        event(metric=metric(name="m", labels=labels, **{operation: value}))
        for operation, value in operations.items()
    ]
    for each in events:
        each.metric.timestamp.FromNanoseconds(1_750_000_000_000_000_001)
    for kind in (metadata.COUNTER, metadata.GAUGE, metadata.HISTOGRAM):
        events.append(event(metadata=metadata(name="m", metric_type=kind)))
        described = metadata(name="m", metric_type=kind, unit_value="bytes", description_value="")
        events.append(event(metadata=described))
    return [*events, event()]


def load(name: str) -> None:
    """Import a module, also C{COPY}, which has the content of this library's."""
    if name != COPY:
        import_module(name)
        return
    path = Path(__file__).parents[2] / "txmetrics_tcp" / "event_pb2.py"
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


if __name__ == "__main__":
    *names, check = sys.argv[1:]
    for name in names:
        load(name)
    {"same_bytes": same_bytes, "both_usable": both_usable, "copy_usable": copy_usable}[check]()
    print("checked")
