"""
A Celery application whose workers stream their metrics.

    export TXMETRICS_TCP_LISTEN=/tmp/shop/
    celery --workdir examples --app celery_app worker --concurrency 2

Each process has its own socket, C{/tmp/shop/celery-PID.sock}.  The application only records
metrics; the variable makes an exporter start in each process that records.  Queue a task with
C{celery --workdir examples --app celery_app call celery_app.add --args '[1, 2]'}.

The queue is a directory, so that the example needs no broker.  The environment variable QUEUE sets
another one.
"""

import os
import time
from typing import Any

from celery import Celery, Task, signals

from txmetrics_tcp import counter, describe_histogram, gauge, histogram

describe_histogram("celery_task_seconds", "seconds", "How long tasks take.")

tasks = counter("celery_tasks_total")
running = gauge("celery_tasks_running")
duration = histogram("celery_task_seconds")

QUEUE = os.environ.get("QUEUE", "/tmp/shop-queue")

os.makedirs(QUEUE, exist_ok=True)
app = Celery("celery_app", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": QUEUE,
    "data_folder_out": QUEUE,
    "control_folder": QUEUE,
}


@signals.task_prerun.connect
def begin(task: Task, **more: Any) -> None:
    running.increment()
    task.request.begun = time.perf_counter()


@signals.task_postrun.connect
def end(task: Task, state: str, **more: Any) -> None:
    running.decrement()
    duration.labels(task=task.name).record(time.perf_counter() - task.request.begun)
    tasks.labels(task=task.name, state=state).increment()


@app.task
def add(x: int, y: int) -> int:
    return x + y
