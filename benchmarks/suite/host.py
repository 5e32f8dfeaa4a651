"""
Facts about the host: its hardware and software, and the cost of system calls and method calls.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from timeit import Timer
from typing import Any

from suite.figures import number


class Empty:
    """Has the empty method whose call is a unit of cost."""

    def method(self) -> None:
        pass


def timer(statement: str, names: dict[str, Any]) -> Timer:
    # Measures this thread's processor time, so other work on the machine does not count.
    return Timer(statement, timer=time.thread_time, globals=names)


def nanoseconds(timed: Timer, count: int, repeat: int = 5) -> float:
    """Measure the cost of a statement without its loop: the least of several repetitions."""
    loop = min(timer("pass", {}).repeat(repeat, count))
    return (min(timed.repeat(repeat, count)) - loop) / count * 1e9


def empty_call_ns() -> float:
    """Measure the cost of an empty method call."""
    return nanoseconds(timer("one.method()", {"one": Empty()}), 50_000)


def system_call_ns() -> float:
    """Measure the cost of the cheapest system call, without the call from Python."""
    timed = nanoseconds(timer("call()", {"call": os.getppid}), 20_000)
    return timed - nanoseconds(timer("call()", {"call": object().__hash__}), 20_000)


def send_and_recv_ns() -> float:
    """Measure the cost of sending a byte over loopback and receiving it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sending = socket.create_connection(listening.getsockname())
        receiving, _ = listening.accept()
        with sending, receiving:
            names = {"send": sending.send, "recv": receiving.recv}
            return nanoseconds(timer("send(b'x'); recv(1)", names), 5_000)


def facts(rust_lock: Path | None, reader: str, call_ns: float) -> dict[str, str]:
    """
    Return the facts at the head of the page.

    @param rust_lock: the Cargo.lock of the Rust programs, if they were built.
    """
    found = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "host": f"{os.cpu_count()} x {_processor()}, {platform.system()} {platform.release()}",
        "a system call (getppid)": f"{number(system_call_ns())} ns",
        "a byte sent and received over loopback": f"{number(send_and_recv_ns())} ns",
        "an empty method call": f"{number(call_ns)} ns",
        "reader": reader,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in ("twisted", "protobuf", "prometheus_client", "opentelemetry-sdk"):
        found[package] = _installed(package)
    if rust_lock is None:
        found["metrics-exporter-tcp"] = "not built: cargo or protoc is missing"
    else:
        lock = rust_lock.read_text()
        for package in ("metrics-exporter-tcp", "prost"):
            found[package] = lock.split(f'name = "{package}"\nversion = "')[1].split('"')[0]
    return found


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()
