"""
Our messages beside those of other packages that brought an `event.proto` of their own.

protobuf has one pool of descriptors for a process and refuses a second file of the same name or
a second symbol of the same name. Both orders of import count, and an import cannot be undone: so
every case is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT

OURS = "txmetrics_tcp._codec.event_pb2"
REFERENCE = "tests.data.reference_event_pb2"
UNRELATED = "tests.data.unrelated_event_pb2"


def same_bytes() -> None:
    """Fail unless what either of ours and the reference's messages writes, the other reads."""
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


def both_usable() -> None:
    """Fail unless ours and somebody else's unrelated messages each work."""
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


class CoexistenceTests(SynchronousTestCase):
    """Each case imports its modules in its order, in a new process, and then runs a check there."""

    def check(self, first: str, second: str, check: str) -> None:
        script = (
            f"import {first}, {second}; from {__name__} import {check}; {check}(); print('checked')"
        )
        path = [str(ROOT), *filter(None, sys.path)]
        # "python" is protobuf's pure implementation, which some platforms have only.
        for implementation in ("", "python"):
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
            if implementation:
                environment["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = implementation
            ended = subprocess.run(
                [sys.executable, "-c", script],
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
            self.assertEqual((ended.returncode, ended.stdout), (0, "checked\n"), ended.stderr)

    def test_ours_then_the_reference(self) -> None:
        self.check(OURS, REFERENCE, "same_bytes")

    def test_the_reference_then_ours(self) -> None:
        self.check(REFERENCE, OURS, "same_bytes")

    def test_ours_then_an_unrelated(self) -> None:
        self.check(OURS, UNRELATED, "both_usable")

    def test_an_unrelated_then_ours(self) -> None:
        self.check(UNRELATED, OURS, "both_usable")
