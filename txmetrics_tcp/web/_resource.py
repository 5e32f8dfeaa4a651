"""
The page and its data, as a resource of twisted.web.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from itertools import accumulate
from typing import Any
from urllib.parse import quote

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import CooperativeTask, Cooperator, TaskFinished, TaskStopped
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import CACHED
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from txmetrics_tcp._model import MetricKind
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.failures import without_frames
from txmetrics_tcp._view.rates import RATE_WINDOW
from txmetrics_tcp._view.series import samples_of
from txmetrics_tcp._view.windows import WINDOWS, Samples, Summary
from txmetrics_tcp.web._access import HEADERS, Access, Refusal
from txmetrics_tcp.web._feed import Feed, Followed
from txmetrics_tcp.web._frames import Row, dump, pack
from txmetrics_tcp.web._history import ends_of, heat

MAX_IDS = 2000
"""The maximum number of series in a look."""

MAX_CHARTS = 50
"""The maximum number of series in a history."""

MAX_POINTS = 2000
"""The maximum number of steps of a history."""

MAX_ANSWERS = 16
"""The maximum number of answers that are computed at the same time; further ones get 429."""

STALLED = 600.0
"""The time, in seconds, after which a viewer is disconnected that does not read."""

_log = Logger(namespace="txmetrics_tcp")

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}

_FILE = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9]+)+")
"""The names of files."""

_UNSENT = re.compile(
    rb"""
    ^[ \t]* /\* (?!!) (?: (?!\*/) . )* \*/ [ \t]*$  # but a license begins with /*!
    | ^[ \t]* // [^\n]*
    | ^[ \t]+
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
"""What is left out of scripts and styles: lines that are comments, and indentation."""

_WITH_CHARTS = {"chart.js", "heat.js", "uplot.js"}
"""The scripts that the page loads with its first chart."""

Result = dict[str, Any]


class BadRequest(Exception):
    """A parameter is missing or invalid.  The text is one line, for the client."""


class PageResource(Resource):
    """
    The page at its own path with a slash, and everything else below it.
    """

    def __init__(self, feed: Feed, access: Access, max_viewers: int) -> None:
        """
        @param max_viewers: the maximum number of pages that read the stream.
        """
        super().__init__()
        self.feed = feed
        self.access = access
        self.max_viewers = max_viewers
        self._answers = Answers(feed)
        self._files = PageFiles()

    def getChild(self, path: bytes, request: Request) -> IResource:
        name = path.decode("latin-1")
        rest = [part.decode("latin-1") for part in request.postpath or []]
        if not name and not rest:
            return _Leaf(self, self._page, False, True)
        if name == "page" and len(rest) == 1:
            return _Leaf(self, partial(self._file, rest[0]), False)
        if not rest:
            if name == "stream":
                return _Leaf(self, self._stream)
            if name in ("look", "history", "table"):
                return _Leaf(self, partial(self._answer, name))
        return _Leaf(self, lambda request: refuse(request, Refusal(404, "not found")), False)

    def render(self, request: Request) -> Any:
        """Redirect to the path with a slash, to which the page's links are relative."""
        refusal = self.access.refusal(request, False, True)
        if refusal is not None:
            return refuse(request, refusal)
        set_headers(request)
        name = quote((request.prepath or [b""])[-1], safe="").encode()
        request.setResponseCode(308)
        # "./" since a name may have a colon.
        request.setHeader("location", b"./" + name + b"/")
        return b""

    def close(self) -> None:
        """End all streams and answers."""
        self._answers.stop()
        for viewer in list(self.feed.viewers):
            if isinstance(viewer, StreamViewer):
                viewer.finish()

    def _page(self, request: Request) -> Any:
        return self._files.render_index(request)

    def _file(self, name: str, request: Request) -> Any:
        return self._files.render(name, request)

    def _stream(self, request: Request) -> Any:
        if len(self.feed.viewers) >= self.max_viewers:
            return refuse(request, Refusal(503, f"there are {self.max_viewers} viewers already"))
        request.setHeader("content-type", "application/octet-stream")
        request.setHeader("cache-control", "no-store")
        # Proxies such as nginx would otherwise collect frames.
        request.setHeader("x-accel-buffering", "no")
        if request.method == b"HEAD":
            return b""
        StreamViewer(request, self.feed).begin()
        return NOT_DONE_YET

    def _answer(self, name: str, request: Request) -> Any:
        return self._answers.begin(name, request)


class _Leaf(Resource):
    """A path with its handler, behind the rules of access."""

    isLeaf = True

    def __init__(
        self,
        page: PageResource,
        handle: Callable[[Request], Any],
        data: bool = True,
        navigable: bool = False,
    ) -> None:
        super().__init__()
        self._page = page
        self._handle = handle
        self._data = data
        self._navigable = navigable

    def render(self, request: Request) -> Any:
        refusal = self._page.access.refusal(request, self._data, self._navigable)
        if refusal is not None:
            return refuse(request, refusal)
        set_headers(request)
        return self._handle(request)


def set_headers(request: Request) -> None:
    """Set the headers of all responses."""
    for name, value in HEADERS.items():
        request.setHeader(name, value)


def refuse(request: Request, refusal: Refusal) -> bytes:
    """Answer with an error."""
    set_headers(request)
    # Twisted does not know all of them.
    request.setResponseCode(refusal.code, HTTPStatus(refusal.code).phrase.encode())
    request.setHeader("content-type", "application/json")
    request.setHeader("cache-control", "no-store")
    if refusal.code == 405:
        request.setHeader("allow", "GET, HEAD")
    if refusal.code == 401:
        request.setHeader("www-authenticate", "Bearer")
    if refusal.code in (429, 503):
        request.setHeader("retry-after", "5")
    return dump({"error": refusal.text}).encode() if request.method != b"HEAD" else b""


class PageFiles:
    """
    The files of the page, without comments and indentation.  Lines keep their numbers.  Each file
    is read again if it has changed.
    """

    def __init__(self) -> None:
        self._directory = files("txmetrics_tcp.web") / "page"
        self._read: dict[str, tuple[object, bytes, bytes]] = {}
        modules = {path.name for path in self._directory.iterdir() if path.name.endswith(".js")}
        self._preload = ", ".join(
            f"<page/{name}>; rel=modulepreload" for name in sorted(modules - _WITH_CHARTS)
        ).encode()

    def render_index(self, request: Request) -> Any:
        """Answer with the page.  A browser then requests its modules at once."""
        request.setHeader("link", self._preload)
        return self.render("index.html", request)

    def render(self, name: str, request: Request) -> Any:
        """Answer with a file."""
        found = self._find(name)
        if found is None:
            return refuse(request, Refusal(404, "not found"))
        content, tag = found
        request.setHeader("content-type", _TYPES.get(os.path.splitext(name)[1], "text/plain"))
        request.setHeader("cache-control", "no-cache")
        if request.setETag(tag) is CACHED:
            return b""
        return content

    def _find(self, name: str) -> tuple[bytes, bytes] | None:
        if not _FILE.fullmatch(name):
            return None
        path = self._directory / name
        state: object = None
        if isinstance(path, os.PathLike):
            try:
                status = os.stat(path)
            except OSError:
                return None
            state = status.st_mtime_ns, status.st_size
        known = self._read.get(name)
        if known is None or known[0] != state:
            if not path.is_file():
                return None
            content = path.read_bytes()
            if name.endswith((".css", ".html", ".js")):
                content = _UNSENT.sub(lambda left: b"\n" * left[0].count(b"\n"), content)
            tag = b'"%s"' % hashlib.sha256(content).hexdigest()[:32].encode()
            known = self._read[name] = state, content, tag
        return known[1:]


@implementer(IPushProducer)
class StreamViewer:
    """
    A page that reads the stream.

    While it does not read, it gets no frames, and afterwards what has changed since the last one.
    So at most one frame is pending for it.
    """

    version: int | None = None
    sent_at: float = -math.inf

    def __init__(self, request: Request, feed: Feed) -> None:
        self._request = request
        self._feed = feed
        self._paused = False
        self._ended = False
        self._stalled: Deadline | None = None

    def begin(self) -> None:
        """Begin to send."""
        self._request.notifyFinish().addBoth(self._end)
        self._request.registerProducer(self, True)
        self._feed.join(self)

    def finish(self) -> None:
        """End the stream."""
        if not self._ended:
            self._request.unregisterProducer()
            self._request.finish()

    @property
    def ready(self) -> bool:
        return not (self._paused or self._ended)

    def send(self, frame: bytes) -> None:
        self._request.write(frame)

    def fail(self) -> None:
        self._abort()

    def pauseProducing(self) -> None:
        if not self._paused:
            self._paused = True
            site: Any = self._request.site
            self._stalled = Deadline(site.reactor, STALLED, self._abort)

    def resumeProducing(self) -> None:
        self._paused = False
        self._stop_waiting()

    def stopProducing(self) -> None:
        """Called if the connection is lost; `_end` follows."""

    def _stop_waiting(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _abort(self) -> None:
        abort_request(self._request)
        self._end(None)

    def _end(self, result: object) -> None:
        self._ended = True
        self._stop_waiting()
        self._feed.leave(self)


def abort_request(request: Request) -> None:
    """Close the connection of a request at once."""
    channel: Any = request.channel
    if channel is not None:
        # A stream of HTTP/2 has another method.
        abort = getattr(channel, "abortConnection", None) or channel.forceAbortClient
        abort()


class Answers:
    """Computes answers in slices, between which the reactor handles other events."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._pending: set[CooperativeTask[Any]] = set()
        # Results of looks and the second for which they hold.
        self._cached: dict[object, Result] = {}
        self._cached_at = -1

    def begin(self, name: str, request: Request) -> Any:
        """Answer a request."""
        if not self._feed.active:
            # The first viewer starts what follows the sources.
            return refuse(request, Refusal(503, "there is no data before the stream is read"))
        if len(self._pending) >= MAX_ANSWERS:
            return refuse(request, Refusal(429, "too many requests at the same time"))
        try:
            steps = getattr(self, f"_{name}")(Arguments(request))
        except BadRequest as error:
            return refuse(request, Refusal(400, str(error)))
        request.setHeader("cache-control", "no-store")
        binary = name == "table"
        kind = "application/octet-stream" if binary else "application/json"
        request.setHeader("content-type", kind)
        if request.method == b"HEAD":
            return b""
        site: Any = request.site
        cooperator = Cooperator(scheduler=partial(site.reactor.callLater, 0))
        outcome: list[Any] = []
        task = cooperator.cooperate(_run(steps, outcome))
        self._pending.add(task)
        gone = request.notifyFinish()
        gone.addErrback(lambda failure: self._stop(task))

        def done(result: object) -> None:
            request.write(outcome[0] if binary else dump(outcome[0]).encode())
            request.finish()

        def failed(failure: Failure) -> None:
            if failure.check(TaskStopped) is None:
                _log.failure("Cannot answer a request of the page", without_frames(failure))
                abort_request(request)

        def ended(result: object) -> object:
            self._pending.discard(task)
            return result

        task.whenDone().addBoth(ended).addCallback(done).addErrback(failed)
        return NOT_DONE_YET

    def stop(self) -> None:
        """Give up all answers."""
        for task in list(self._pending):
            self._stop(task)

    def _stop(self, task: CooperativeTask[Any]) -> None:
        with suppress(TaskFinished):
            task.stop()

    # look

    def _look(self, arguments: Arguments) -> Iterator[Any]:
        ids = arguments.ids("ids", MAX_IDS)
        groups = arguments.groups("groups", MAX_IDS)
        if not ids and not groups:
            raise BadRequest("ids: the numbers of series, such as 1,2,3")
        if arguments.text("relative") == "1":
            # Short numbers, since many proxies limit addresses to 8 kB.
            ids = list(accumulate(ids))
            groups = [list(accumulate(group)) for group in groups]
        window = arguments.number("window", 10)
        if window and window not in WINDOWS:
            raise BadRequest("window: 10, 60, 300, or 0 for all time")
        at = arguments.number("at", None)
        return self._look_steps(ids, groups, window or None, at)

    def _look_steps(
        self, ids: list[int], groups: list[list[int]], window: float | None, at: float | None
    ) -> Iterator[Any]:
        found: Result = {}
        for number in ids:
            one = self._cached_look((number,), window, at)
            if one is not None:
                found[str(number)] = one
            yield None
        result: Result = {
            "t": self._feed.time() if at is None else at,
            "window": window or 0,
            "series": found,
        }
        if groups:
            result["groups"] = together = {}
            for index, group in enumerate(groups):
                one = self._cached_look(tuple(group), window, at)
                if one is not None:
                    together[str(index)] = one
                yield None
        yield result

    def _cached_look(
        self, group: tuple[int, ...], window: float | None, at: float | None
    ) -> Result | None:
        second = math.floor(self._feed.time())
        if second != self._cached_at:
            self._cached_at = second
            self._cached.clear()
        key = group, window, at
        found = self._cached.get(key)
        if found is None:
            found = self._figures(group, window, at)
            if found is not None:
                self._cached[key] = found
        return found

    def _figures(
        self, group: Sequence[int], window: float | None, at: float | None
    ) -> Result | None:
        rows = self._rows(group)
        if not rows or len({row.series.key.kind for _, row in rows}) > 1:
            return None
        kind = rows[0][1].series.key.kind
        totals: list[int | float] = []
        rates: list[float] = []
        for followed, row in rows:
            if at is None:
                totals.append(row.series.value)
                rates.append(row.series.rate(followed.source.view_now()))
                continue
            column = followed.history.column(at)
            value = None if column is None else column.value(row.id)
            if value is None or column is None:
                continue
            totals.append(value)
            end = column.time
            if kind is MetricKind.GAUGE:
                before = followed.history.column(end - RATE_WINDOW)
                then = None if before is None else before.value(row.id)
                rates.append(math.nan if then is None else (value - then) / RATE_WINDOW)
            else:
                ends = range(end, end + 1, RATE_WINDOW)
                rate = followed.history.rates(row.id, ends)[0]
                rates.append(math.nan if rate is None else rate)
        if not totals:
            return None
        total, rate = sum(totals), sum(rates)
        result: Result = {"kind": kind.value, "value": _number(total), "rate": _number(rate)}
        if isinstance(total, int) and abs(total) >= 2**53:
            result["big"] = str(total)
        if at is None:
            result["change"] = _number(sum(row.series.change for _, row in rows))
        if kind is MetricKind.HISTOGRAM:
            result.update(_statistics(self._summary(rows, window, at)))
        return result

    def _summary(
        self, rows: list[tuple[Followed, Row]], window: float | None, at: float | None
    ) -> Summary | None:
        parts = []
        for followed, row in rows:
            if at is None:
                part = samples_of(row.series, window, followed.source.view_now())
            else:
                first = -math.inf if window is None else at - window
                part = followed.history.samples(row.id, first, at)
            if part is not None:
                parts.append(part)
        if not parts:
            return None
        return (parts[0] if len(parts) == 1 else Samples.of(parts)).summary()

    def _rows(self, ids: Sequence[int]) -> list[tuple[Followed, Row]]:
        table, followed = self._feed.table, self._feed.followed
        found = []
        for number in ids:
            known = table.by_id.get(number)
            if known is not None and known[0].number in followed:
                found.append((followed[known[0].number], known[1]))
        return found

    # history

    def _history(self, arguments: Arguments) -> Iterator[Any]:
        ids = arguments.ids("ids", MAX_CHARTS)
        if not ids:
            raise BadRequest("ids: the numbers of series, such as 1,2,3")
        begin, end = self._feed.begin, self._feed.end or math.floor(self._feed.time())
        first = arguments.number("from", None)
        last = arguments.number("to", None)
        points = arguments.number("points", 600) or 600
        first = max(begin or end, end - 600.0 if first is None else first)
        last = min(end, end if last is None else last)
        ends = ends_of(first, max(last, first), int(min(max(points, 1), MAX_POINTS)))
        return self._history_steps(ids, ends, arguments.text("heat") == "1")

    def _history_steps(self, ids: list[int], ends: range, with_heat: bool) -> Iterator[Any]:
        series: Result = {}
        for followed, row in self._rows(ids):
            kind = row.series.key.kind
            one: Result = {"kind": kind.value}
            series[str(row.id)] = one
            history = followed.history
            if kind is MetricKind.GAUGE:
                one["value"] = history.values(row.id, ends)
                yield None
                continue
            one["rate"] = [_rounded(rate) for rate in history.rates(row.id, ends)]
            yield None
            if kind is MetricKind.HISTOGRAM:
                columns: dict[str, list[float | None]] = {
                    name: [] for name in ("p50", "p90", "p99", "max")
                }
                for end in ends:
                    summary = history.summary(row.id, end, ends.step)
                    for name, values in columns.items():
                        values.append(None if summary is None else _number(getattr(summary, name)))
                    yield None
                one.update(columns)
                if with_heat:
                    one["heat"] = heat([history.in_step(row.id, end, ends.step) for end in ends])
                    yield None
        first = ends[0] - ends.step
        marks = [mark for mark in self._feed.marks if first <= mark["t"] <= ends[-1] + 1]
        yield {"t": list(ends), "step": ends.step, "series": series, "marks": marks}

    # table

    def _table(self, arguments: Arguments) -> Iterator[Any]:
        at = arguments.number("at", None)
        if at is None:
            raise BadRequest("at: a time in seconds since 1970")
        return self._table_steps(at)

    def _table_steps(self, at: float) -> Iterator[Any]:
        table = self._feed.table
        ids, values = array("I"), array("d")
        definitions: list[str] = []
        for followed in self._feed.followed.values():
            column = followed.history.column(at)
            if column is None or column.time > at + 1:
                continue
            live = {row.id: row.definition for row in followed.rows.live}
            ended = followed.rows.definitions
            for number, value in zip(column.ids, column.values, strict=True):
                definition = live.get(number) or ended.get(number)
                if definition is not None:
                    ids.append(number)
                    values.append(value)
                    definitions.append(definition)
            yield None
        head = table.definitions_head()
        head.insert(0, f'"t":{at:.3f},"at":{at:.3f},"epoch":{table.epoch},"whole":true')
        head.append(f'"series":[{",".join(definitions)}]')
        ago = self._feed.before(at)
        if ago is not None:
            head.append(f'"ago":[{dump(ago[0].tolist())},{dump(ago[1].tolist())},{ago[2]:.3f}]')
        yield pack(table.version, f"{{{','.join(head)}}}", ids, values)


def _run(steps: Iterator[Any], outcome: list[Any]) -> Iterator[None]:
    """Take steps, of which the last one returns the result."""
    for result in steps:
        if result is not None:
            outcome.append(result)
        yield


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _statistics(summary: Summary | None) -> Result:
    if summary is None:
        return {"count": 0}
    names = ("sum", "min", "max", "mean", "p50", "p90", "p99", "p999")
    result: Result = {name: _number(getattr(summary, name)) for name in names}
    return {"count": summary.count, **result, "partial": summary.partial}


class Arguments:
    """The parameters of a request's query."""

    def __init__(self, request: Request) -> None:
        self._args: dict[bytes, list[bytes]] = request.args or {}

    def text(self, name: str) -> str:
        """
        @raise BadRequest: it is given twice.
        """
        values = self._args.get(name.encode(), [])
        if len(values) > 1:
            raise BadRequest(f"{name}: given twice")
        return values[0].decode("latin-1") if values else ""

    def number(self, name: str, default: float | None) -> float | None:
        """
        @raise BadRequest: it is not a finite number.
        """
        text = self.text(name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not -1e12 < value < 1e12:
            raise BadRequest(f"{name}: a number")
        return value

    def ids(self, name: str, limit: int) -> list[int]:
        """
        @raise BadRequest: they are not numbers of series, or too many.
        """
        return [number for group in self._split(name, limit, ",") for number in group]

    def groups(self, name: str, limit: int) -> list[list[int]]:
        """
        @raise BadRequest: they are not numbers of series, or too many.
        """
        return self._split(name, limit, "+")

    def _split(self, name: str, limit: int, within: str) -> list[list[int]]:
        text = self.text(name)
        if not text:
            return []
        # A plus sign in a query stands for a space.
        parts = [part.replace("+", " ").split() for part in text.split(",")]
        flat = [number for part in parts for number in part]
        if len(flat) > limit:
            raise BadRequest(f"{name}: {limit} at most")
        if not all(number.isascii() and number.isdigit() and len(number) < 11 for number in flat):
            raise BadRequest(f"{name}: numbers of series")
        return [list(map(int, part)) for part in parts]
