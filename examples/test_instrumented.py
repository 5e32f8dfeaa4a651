"""
Tests of instrumented code with pytest.

    pytest examples/test_instrumented.py

The code under test is in the same file to keep the example short.
"""

from collections.abc import Iterator

import pytest

from txmetrics_tcp import MetricKind, Operation, counter, gauge, histogram
from txmetrics_tcp.testing import Captured, capture

# The code under test, with module-level handles.
orders = counter("orders_total", shop="main")
rejected = counter("orders_rejected_total")
stock = gauge("stock", shop="main")
sizes = histogram("order_items")


@rejected.count_exceptions(ValueError)
def order(items: int) -> None:
    if items < 1:
        raise ValueError("nothing to order")
    orders.increment()
    stock.decrement(items)
    sizes.record(items)


@pytest.fixture
def metrics() -> Iterator[Captured]:
    with capture() as captured:
        yield captured


def test_order(metrics: Captured) -> None:
    order(3)
    order(1)
    assert metrics.total("orders_total", shop="main") == 2
    assert metrics.total("stock", shop="main") == -4
    assert metrics.samples("order_items") == [3, 1]
    assert metrics.total("orders_rejected_total") is None


def test_rejected(metrics: Captured) -> None:
    with pytest.raises(ValueError):
        order(0)
    assert metrics.total("orders_rejected_total") == 1
    assert metrics.total("orders_total", shop="main") is None


def test_in_detail(metrics: Captured) -> None:
    """The events are available as values, in the order in which they were recorded."""
    order(2)
    first = metrics.metrics[0]
    assert (first.key.kind, first.key.name) == (MetricKind.COUNTER, "orders_total")
    assert first.key.labels == (("shop", "main"),)
    assert (first.operation, first.value) == (Operation.INCREMENT_COUNTER, 1)
    assert [str(metric.key) for metric in metrics.metrics[1:]] == [
        "stock [shop = main]",
        "order_items",
    ]
