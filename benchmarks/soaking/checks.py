"""
What must hold at the end of a soak.

Each check takes the evidence and gives a `Finding`; none of them knows how the evidence came about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from soaking.slope import fit

Account = Mapping[str, Any]
"""What the server counts of one client: a `txmetrics_tcp.ClientStats` as a mapping."""

Report = Mapping[str, Any]
"""What one client says when it leaves; see `soaking.crowd`."""

ALLOWED_GROWTH = 2_000_000
"""How many bytes the server may grow by: an allocator is never quite at rest."""


@dataclass(frozen=True)
class Sample:
    """
    How things were at one moment, on the server's reactor thread.

    @ivar at: seconds since recording began.
    @ivar stats: its C{stats()} as a mapping, with C{resident} bytes, open C{descriptors} and
        C{connections}.
    """

    at: float
    stats: Mapping[str, Any]


@dataclass
class Evidence:
    """
    What is known at the end.

    @ivar warm_up: how many seconds at the beginning say nothing about memory.
    @ivar samples: in the order of time; the last is from after the server has stopped.
    @ivar accounts: those of all clients that have gone, which at the end are all.
    @ivar reports: those of the clients that could make one.
    @ivar recorded: how many events each recorder has recorded.
    @ivar truth: the totals that the program itself sees.
    @ivar descriptions: the last description of each name.
    @ivar killed: how many processes of clients were killed.
    @ivar troubles: what went wrong beside all that; a process that died, say.
    """

    warm_up: float
    samples: list[Sample] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    recorded: dict[str, int] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    killed: int = 0
    troubles: list[str] = field(default_factory=list)

    @property
    def warm(self) -> list[Sample]:
        """The samples from when the server was warm."""
        return [sample for sample in self.samples if sample.at >= self.warm_up]


@dataclass(frozen=True)
class Finding:
    """
    @ivar what: what was looked at.
    @ivar summary: how it is, in a few words with figures.
    @ivar violations: what does not hold, one line each.
    """

    what: str
    summary: str
    violations: list[str]


def frames(evidence: Evidence) -> Finding:
    """Every client could read all that it received."""
    wrong = [
        f"{_name(report)}: {report['error']}" for report in evidence.reports if report["error"]
    ]
    wrong += [
        f"{_name(report)}: the stream ended within a frame, after {report['unfinished']} bytes"
        for report in evidence.reports
        if report["ended"] and report["unfinished"]
    ]
    total = sum(report["received"] for report in evidence.reports)
    return Finding("frames", f"{len(evidence.reports):,} clients read {total / 1e6:,.1f} MB", wrong)


def accounts(evidence: Evidence) -> Finding:
    """Every event is in every account, and the accounts add up to what was recorded."""
    wrong = []
    looks = 0
    for sample in evidence.samples:
        for account in sample.stats["clients"]:
            looks += 1
            wrong += _unbalanced(account, f"after {sample.at:.0f} s")
    for account in evidence.accounts:
        wrong += _unbalanced(account, "at its end")
        if account["waiting"]:
            wrong.append(f"{account['address']}: gone, and {account['waiting']} wait for it")
    if evidence.samples:
        final = evidence.samples[-1].stats
        pairs = [
            ("recorded", sum(evidence.recorded.values()), "the recorders counted"),
            ("connected", len(evidence.accounts), "that many accounts were closed, namely"),
        ]
        for figure, account_figure in (
            ("written", "written"),
            ("dropped_by_clients", "dropped"),
            ("repairs", "repairs"),
            ("bytes_written", "bytes_written"),
        ):
            total = sum(account[account_figure] for account in evidence.accounts)
            pairs.append((figure, total, "the clients' accounts add up to"))
        wrong += [
            f"the server's {figure} is {final[figure]}, but {whose} {total}"
            for figure, total, whose in pairs
            if final[figure] != total
        ]
        for left in ("clients", "waiting"):
            if final[left]:
                wrong.append(f"after the end, the server has {left}: {final[left]}")
    for report, account in _pairs(evidence, wrong):
        exact = report["ended"]
        for theirs, ours in (("events", "written"), ("received", "bytes_written")):
            if report[theirs] > account[ours] or (exact and report[theirs] != account[ours]):
                figures = f"{report[theirs]} {theirs} came, but {ours} is {account[ours]}"
                wrong.append(f"{_name(report)}: {figures}")
    summary = f"{len(evidence.accounts):,} closed, looked at {looks:,} times while open"
    return Finding("accounts", summary, wrong)


def gaps(evidence: Evidence) -> Finding:
    """Nothing comes twice or out of order; what a client misses is what it was told."""
    wrong: list[str] = []
    missed = exact = 0
    for report, account in _pairs(evidence, []):
        name = _name(report)
        numbers = report["numbers"]
        for by, (_first, _next, _missing, disorder) in numbers.items():
            if disorder:
                wrong.append(f"{name}: {disorder} events of {by} came again or out of order")
        if report["untold"]:
            wrong.append(f"{name}: was told of fewer losses than before, {report['untold']} times")
        told = sum(report["told"][0]) if report["told"] else 0
        if not report["ended"]:
            if told > account["dropped"] + account["dropped_incoming"]:
                wrong.append(
                    f"{name}: was told of {told} losses, more than it had: {dict(account)}"
                )
            continue
        if not report["told"]:
            wrong.append(f"{name}: was never told how the stream fares")
            continue
        exact += 1
        if tuple(report["told"][0]) != (account["dropped_incoming"], account["dropped"]):
            wrong.append(
                f"{name}: was told of {report['told'][0]} losses, but they were"
                f" {account['dropped_incoming']} and {account['dropped']}"
            )
        if account["recorded"] - report["events"] != told:
            wrong.append(
                f"{name}: {account['recorded']} events were recorded and {report['events']} came,"
                f" but it was told of {told} losses"
            )
        # By its own numbers; one that came late cannot know what it missed before the first.
        own = sum(
            missing + evidence.recorded.get(by, 0) - following
            for by, (_first, following, missing, _disorder) in numbers.items()
        )
        if report["witness"]:
            own += sum(first for first, *_ in numbers.values())
            own += sum(count for by, count in evidence.recorded.items() if by not in numbers)
            missed += own
        if own > told or (report["witness"] and own != told):
            wrong.append(f"{name}: {own} numbers are missing, but it was told of {told} losses")
    summary = f"{exact:,} clients at the end; those that saw it all missed {missed:,} events"
    return Finding("gaps", summary, wrong)


def totals(evidence: Evidence) -> Finding:
    """Whoever is there at the end has the program's own totals, and its last descriptions."""
    wrong = []
    survivors = [report for report in evidence.reports if report["ended"]]
    for report in survivors:
        for what, seen, true in (
            ("", report["totals"], evidence.truth),
            ("the description of ", report["descriptions"], evidence.descriptions),
        ):
            differ = [name for name in true if seen.get(name) != true[name]]
            wrong += [
                f"{_name(report)}: {what}{name} is {seen.get(name)!r} instead of {true[name]!r}"
                for name in differ[:3]
            ]
            if len(differ) > 3:
                wrong.append(f"{_name(report)}: and {len(differ) - 3} more are wrong")
    if not survivors:
        wrong.append("no client was there at the end")
    if not evidence.truth:
        wrong.append("there are no totals")
    summary = f"{len(evidence.truth):,} series, equal for {len(survivors)} clients at the end"
    return Finding("totals", summary, wrong)


def memory(evidence: Evidence) -> Finding:
    """The server does not grow once it is warm."""
    samples = [(sample.at, float(sample.stats["resident"])) for sample in evidence.warm[:-1]]
    try:
        slope = fit(samples)
    except ValueError as error:
        return Finding("memory", "not judged", [f"memory: {error}"])
    summary = (
        f"{samples[-1][1] / 1e6:.1f} MB; {slope.rate * 3.6e-3:+.3f} ± {slope.error * 3.6e-3:.3f}"
        f" MB an hour, fitted over {slope.seconds:.0f} s ({slope.growth / 1e6:+.3f} MB in all)"
    )
    wrong = []
    if slope.certain_growth > ALLOWED_GROWTH:
        wrong.append(
            f"memory grows: {slope.certain_growth / 1e6:.3f} MB in {slope.seconds:.0f} s at least,"
            f" {ALLOWED_GROWTH / 1e6:.3f} MB are allowed"
        )
    return Finding("memory", summary, wrong)


def descriptors(evidence: Evidence) -> Finding:
    """A client costs one descriptor while it is connected, and then none."""
    # The last was taken when the server had let go of its port.
    *running, last = evidence.samples
    others = [sample.stats["descriptors"] - sample.stats["connections"] for sample in running]
    wrong = [
        f"after {sample.at:.0f} s {number} descriptors are open beside those of"
        f" {sample.stats['connections']} clients, and {others[0]} were at the beginning"
        for sample, number in zip(running, others, strict=True)
        if number != others[0]
    ]
    if last.stats["descriptors"] != others[0] - 1:
        wrong.append(
            f"after the end {last.stats['descriptors']} descriptors are open, {others[0] - 1} were"
            " before"
        )
    most = max(sample.stats["connections"] for sample in running)
    summary = (
        f"{others[0]} and one for each client, {most} at most; {last.stats['descriptors']} left"
    )
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
    """All that can be said."""
    how = "not all" if evidence.troubles else "all"
    findings = [Finding("processes", f"{how} did as they were told", evidence.troubles)]
    if evidence.samples:
        findings += [check(evidence) for check in CHECKS]
    return findings


def _unbalanced(account: Account, when: str) -> list[str]:
    where = ("dropped_incoming", "dropped", "written", "discarded", "waiting")
    if account["recorded"] == sum(account[one] for one in where):
        return []
    figures = " + ".join(f"{account[one]} {one}" for one in where)
    return [f"{account['address']} {when}: {account['recorded']} recorded, but {figures}"]


def _pairs(evidence: Evidence, wrong: list[str]) -> list[tuple[Report, Account]]:
    """Each report with the server's account of the same client."""
    by_address = {account["address"]: account for account in evidence.accounts}
    if len(by_address) != len(evidence.accounts):
        wrong.append("two clients have had the same address")
    pairs = []
    for report in evidence.reports:
        account = by_address.get(report["address"])
        if account is not None:
            pairs.append((report, account))
        elif report["received"]:
            wrong.append(f"{_name(report)}: read something, but the server has no account of it")
    return pairs


def _name(report: Report) -> str:
    what = f"{report['address']} ({report['manner']})"
    return f"{what}, to the end" if report["ended"] else what
