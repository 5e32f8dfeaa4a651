"""
Checks at the end of a soak.

Each check takes the evidence and returns a `Finding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Account = Mapping[str, Any]
"""The server's statistics of one client: a `txmetrics_tcp.ClientStats` as a mapping."""

Report = Mapping[str, Any]
"""The report of one client when it leaves; see `soaking.crowd`."""

ALLOWED_GROWTH = 2_000_000
"""The number of bytes by which the server may grow, since an allocator's memory always varies."""

BLOCKS = 24
"""
The maximum number of blocks into which memory samples are averaged before a line is fitted. Without
blocks, the standard error would be too small, because neighbouring samples are nearly equal.
"""

FEWEST = 3
"""The minimum number of samples through which a line is fitted."""

CERTAIN = 3.0
"""Growth of more than this number of standard errors counts as certain."""


@dataclass(frozen=True)
class Sample:
    """
    The server at one moment.

    @ivar at: seconds since recording began.
    @ivar stats: the server's C{stats()} as a mapping, with C{resident} bytes, open C{descriptors}
        and C{connections}.
    """

    at: float
    stats: Mapping[str, Any]


@dataclass
class Evidence:
    """
    The evidence of a run.

    @ivar warm_up: the number of seconds at the beginning in which memory is not checked.
    @ivar samples: the samples, ordered by time; the last one was taken after the server stopped.
    @ivar accounts: the accounts of all clients that have disconnected; at the end, of all clients.
    @ivar reports: the reports of the clients that were not killed.
    @ivar recorded: the number of events of each recorder.
    @ivar exact_totals: the program's totals.
    @ivar descriptions: the last description of each name.
    @ivar killed: the number of client processes that were killed.
    @ivar troubles: other failures, such as a process that died.
    """

    warm_up: float
    samples: list[Sample] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    recorded: dict[str, int] = field(default_factory=dict)
    exact_totals: dict[str, Any] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    killed: int = 0
    troubles: list[str] = field(default_factory=list)

    @property
    def warm(self) -> list[Sample]:
        """The samples after the warm-up."""
        return [sample for sample in self.samples if sample.at >= self.warm_up]


@dataclass(frozen=True)
class Finding:
    """
    @ivar what: the name of the check.
    @ivar summary: the result in a few words, with figures.
    @ivar violations: one line for each failure.
    """

    what: str
    summary: str
    violations: list[str]


def frames(evidence: Evidence) -> Finding:
    """Every client decoded all data that it received."""
    wrong = []
    for report in evidence.reports:
        if report["error"]:
            wrong.append(f"{_name(report)}: {report['error']}")
        if report["ended"] and report["unfinished"]:
            size = report["unfinished"]
            wrong.append(f"{_name(report)}: the stream ended within a frame, after {size} bytes")
    total = sum(report["received"] for report in evidence.reports)
    return Finding("frames", f"{len(evidence.reports):,} clients read {total / 1e6:,.1f} MB", wrong)


def accounts(evidence: Evidence) -> Finding:
    """Every account balances, and the accounts add up to the recorded events."""
    wrong = []
    looks = 0
    for sample in evidence.samples:
        for account in sample.stats["clients"]:
            looks += 1
            wrong += _unbalanced(account, f"after {sample.at:.0f} s")
    for account in evidence.accounts:
        wrong += _unbalanced(account, "at its end")
        if account["waiting"]:
            wrong.append(f"{account['address']}: disconnected with {account['waiting']} pending")
    final = evidence.samples[-1].stats
    pairs = [
        (
            "recorded",
            sum(evidence.recorded.values()) + final["released"],
            "the recorders and released series counted",
        ),
        ("connected", len(evidence.accounts), "the number of closed accounts is"),
    ]
    for figure in ("written", "dropped_client", "repairs", "bytes_written"):
        total = sum(account[figure] for account in evidence.accounts)
        pairs.append((figure, total, "the clients' accounts add up to"))
    wrong += [
        f"the server's {figure} is {final[figure]}, but {whose} {total}"
        for figure, total, whose in pairs
        if final[figure] != total
    ]
    wrong += [
        f"at the end, {left} is {final[left]}" for left in ("clients", "waiting") if final[left]
    ]
    for report, account in _pairs(evidence, wrong):
        for received, written in (("events", "written"), ("received", "bytes_written")):
            more = report[received] - account[written]
            if more > 0 or (report["ended"] and more):
                wrong.append(
                    f"{_name(report)}: {received} is {report[received]}, but {written} is"
                    f" {account[written]}"
                )
    summary = f"{len(evidence.accounts):,} closed, sampled {looks:,} times while open"
    return Finding("accounts", summary, wrong)


def gaps(evidence: Evidence) -> Finding:
    """No event arrives twice or out of order; reported losses equal the missing events."""
    wrong: list[str] = []
    missed = exact = 0
    for report, account in _pairs(evidence, []):
        name = _name(report)
        numbers = report["numbers"]
        for by, (_first, _next, _missing, disorder) in numbers.items():
            if disorder:
                wrong.append(f"{name}: {disorder} events of {by} arrived twice or out of order")
        if report["fewer"]:
            wrong.append(f"{name}: fewer losses were reported than before, {report['fewer']} times")
        dropped = (account["dropped_incoming"], account["dropped_client"])
        losses = tuple(report["reported"][0]) if report["reported"] else (0, 0)
        lost = sum(losses)
        if not report["ended"]:
            if lost > sum(dropped):
                wrong.append(f"{name}: {lost} losses were reported, but {sum(dropped)} counted")
            continue
        if not report["reported"]:
            wrong.append(f"{name}: the stream's status was never reported")
            continue
        exact += 1
        if losses != dropped:
            wrong.append(f"{name}: losses of {losses} were reported, but {dropped} counted")
        if account["recorded"] - report["events"] != lost:
            wrong.append(
                f"{name}: {report['events']} of {account['recorded']} recorded events were"
                f" received, but losses of {lost} reported"
            )
        # A late client cannot know its losses before its first number.
        own = sum(
            missing + evidence.recorded.get(by, 0) - following
            for by, (_first, following, missing, _disorder) in numbers.items()
        )
        if report["witness"]:
            own += sum(first for first, *_ in numbers.values())
            own += sum(count for by, count in evidence.recorded.items() if by not in numbers)
            own += evidence.samples[-1].stats["released"] - report["gone"]
            missed += own
        if own > lost or (report["witness"] and own != lost):
            wrong.append(f"{name}: {own} numbers are missing, but losses of {lost} were reported")
    summary = f"{exact:,} clients at the end; the witnesses missed {missed:,} events"
    return Finding("gaps", summary, wrong)


def totals(evidence: Evidence) -> Finding:
    """Each client at the end has the program's totals and last descriptions."""
    wrong = []
    survivors = [report for report in evidence.reports if report["ended"]]
    for report in survivors:
        for what, seen, true in (
            ("", report["totals"], evidence.exact_totals),
            ("the description of ", report["descriptions"], evidence.descriptions),
        ):
            differ = [name for name in true if seen.get(name) != true[name]]
            wrong += [
                f"{_name(report)}: {what}{name} is {seen.get(name)!r} instead of {true[name]!r}"
                for name in differ
            ]
    if not survivors:
        wrong.append("no client was connected at the end")
    if not evidence.exact_totals:
        wrong.append("the program has no totals")
    summary = (
        f"{len(evidence.exact_totals):,} series, equal for {len(survivors)} clients at the end"
    )
    return Finding("totals", summary, wrong)


def fit(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """
    Fit a line by least squares.

    @param samples: time in seconds, and value.
    @return: the growth per second, and its standard error.
    @raise ValueError: fewer than `FEWEST` samples were given.
    """
    if len(samples) < FEWEST:
        raise ValueError(f"cannot fit a line through {len(samples)} samples")
    count = min(BLOCKS, max(FEWEST, len(samples) // 2))
    cuts = [len(samples) * i // count for i in range(count + 1)]
    blocks = [samples[cuts[i] : cuts[i + 1]] for i in range(count)]
    xs = [math.fsum(at for at, _ in block) / len(block) for block in blocks]
    ys = [math.fsum(value for _, value in block) / len(block) for block in blocks]
    x_mean, y_mean = math.fsum(xs) / count, math.fsum(ys) / count
    spread = math.fsum((x - x_mean) ** 2 for x in xs)
    rate = math.fsum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread
    left = math.fsum((y - y_mean - rate * (x - x_mean)) ** 2 for x, y in zip(xs, ys, strict=True))
    return rate, math.sqrt(left / (count - 2) / spread)


def memory(evidence: Evidence) -> Finding:
    """The server's memory does not grow after the warm-up."""
    samples = [(sample.at, float(sample.stats["resident"])) for sample in evidence.warm[:-1]]
    try:
        rate, error = fit(samples)
    except ValueError as raised:
        return Finding("memory", "not judged", [f"memory: {raised}"])
    seconds = samples[-1][0] - samples[0][0]
    certain = (rate - CERTAIN * error) * seconds
    summary = (
        f"{samples[-1][1] / 1e6:.1f} MB; {rate * 3.6e-3:+.3f} ± {error * 3.6e-3:.3f} MB an hour,"
        f" fitted over {seconds:.0f} s ({rate * seconds / 1e6:+.3f} MB in all)"
    )
    wrong = []
    if certain > ALLOWED_GROWTH:
        wrong.append(
            f"memory grew by at least {certain / 1e6:.3f} MB in {seconds:.0f} s;"
            f" {ALLOWED_GROWTH / 1e6:.3f} MB are allowed"
        )
    return Finding("memory", summary, wrong)


def descriptors(evidence: Evidence) -> Finding:
    """A client uses one descriptor while it is connected, and none afterwards."""
    # The last sample was taken after the server closed its port.
    *running, last = evidence.samples
    others = [sample.stats["descriptors"] - sample.stats["connections"] for sample in running]
    wrong = [
        f"after {sample.at:.0f} s, {number} descriptors were open besides those of"
        f" {sample.stats['connections']} clients; {others[0]} were open at the beginning"
        for sample, number in zip(running, others, strict=True)
        if number != others[0]
    ]
    left = last.stats["descriptors"]
    if left != others[0] - 1:
        wrong.append(f"at the end, {left} descriptors were open instead of {others[0] - 1}")
    most = max(sample.stats["connections"] for sample in running)
    summary = f"{others[0]} and one for each client, {most} at most; {left} left"
    return Finding("descriptors", summary, wrong)


CHECKS: tuple[Callable[[Evidence], Finding], ...] = (
    frames,
    accounts,
    gaps,
    totals,
    memory,
    descriptors,
)


def judge(evidence: Evidence) -> list[Finding]:
    """Return all findings; without samples, only failures of processes."""
    how = f"{len(evidence.troubles)} failures" if evidence.troubles else "no failure"
    findings = [Finding("processes", how, evidence.troubles)]
    if len(evidence.samples) > 1:
        findings += [check(evidence) for check in CHECKS]
    return findings


def _unbalanced(account: Account, when: str) -> list[str]:
    where = ("dropped_incoming", "dropped_client", "written", "discarded", "waiting")
    if account["recorded"] == sum(account[one] for one in where):
        return []
    figures = " + ".join(f"{account[one]} {one}" for one in where)
    return [f"{account['address']} {when}: {account['recorded']} recorded, but {figures}"]


def _pairs(evidence: Evidence, wrong: list[str]) -> list[tuple[Report, Account]]:
    """Pair each report with the server's account of the same client."""
    by_address = {account["address"]: account for account in evidence.accounts}
    if len(by_address) != len(evidence.accounts):
        wrong.append("two clients had the same address")
    pairs = []
    for report in evidence.reports:
        account = by_address.get(report["address"])
        if account is not None:
            pairs.append((report, account))
        elif report["received"]:
            wrong.append(f"{_name(report)}: it received data, but the server has no account of it")
    return pairs


def _name(report: Report) -> str:
    what = f"{report['address']} ({report['manner']})"
    return f"{what}, to the end" if report["ended"] else what
