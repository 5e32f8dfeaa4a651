"""
The sources of a command: endpoints, recordings, globs of UNIX sockets, streams of a broker, and
files with endpoints.

Nothing here imports Twisted.  `txmetrics_tcp.cli.source_watch` follows what changes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from glob import glob, has_magic
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from txmetrics_tcp._codec.framing import MAX_FRAME
from txmetrics_tcp._net.endpoint_syntax import (
    DEFAULT_ENDPOINT,
    DEFAULT_HOST,
    PORT,
    EndpointError,
    plain_endpoint,
    reads_as_endpoint,
)
from txmetrics_tcp.relay._address import NatsAddress
from txmetrics_tcp.relay._extra import is_nats, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IStreamClientEndpoint

ENVIRONMENT = "METRICS_TCP_ENDPOINTS"
"""The environment variable with the sources of a command that is given none."""

MAX_FILE = 1 << 20
"""The maximum size of a file with endpoints, in bytes."""

_SEPARATORS = re.compile(r"[\s,]+")
_COMMENT = re.compile(r"(^|\s)#.*")
_UNIX = re.compile(r"unix:((address|path)=)?(?P<path>(\\.|[^:\\])*)(?P<rest>.*)", re.DOTALL)
_PATHS = ("/", "./", "../")


class Source(NamedTuple):
    """
    One server or recording.

    @ivar name: the name in messages; unique.
    @ivar endpoint: the endpoint of the server, or the path of the recording.
    @ivar recording: whether it is a recording.
    @ivar origin: where the endpoint was written, to precede messages about it; may be empty.
    @ivar identity: changes when another server may listen there.
    @ivar stream: of a source of a broker, what to connect to instead of C{endpoint}.
    @ivar behind: of a source of a broker, returns the number of messages of all sources that the
        broker has and this process has not received.
    """

    name: str
    endpoint: str
    recording: bool = False
    origin: str = ""
    identity: object = None
    stream: IStreamClientEndpoint | None = None
    behind: Callable[[], int] | None = None


def given_sources(
    arguments: Sequence[str], environ: Mapping[str, str] = os.environ
) -> Sequence[str]:
    """
    Return the sources on the command line; without any, those of the environment variable, or else
    the default endpoint.
    """
    return arguments or endpoints_in(environ) or [DEFAULT_ENDPOINT]


def endpoints_in(environ: Mapping[str, str]) -> list[str]:
    """Return the sources in the environment variable."""
    return list(filter(None, _SEPARATORS.split(environ.get(ENVIRONMENT, ""))))


def is_recording(text: str) -> bool:
    """
    Whether an argument is a recording rather than the endpoint of a server.

    C{5000} is an endpoint even if a file of that name exists; C{./5000} is the file.
    """
    return not reads_as_endpoint(text) and os.path.isfile(text)


class SocketGlob:
    """
    A pattern of paths of UNIX sockets.

    @ivar text: the pattern as the user wrote it.
    """

    def __init__(self, text: str, pattern: str, rest: str, origin: str) -> None:
        """
        @param pattern: the pattern of paths.
        @param rest: what follows the path in an endpoint string.
        """
        self.text = text
        self._pattern = pattern
        self._rest = rest
        self._origin = origin

    def find(self) -> list[Source]:
        """Return the sockets that match now, sorted.  Other files are ignored."""
        found = []
        for path in sorted(glob(self._pattern)):
            try:
                status = os.stat(path)
            except OSError:
                continue
            if stat.S_ISSOCK(status.st_mode):
                endpoint = _unix(path) + self._rest
                identity = status.st_dev, status.st_ino, status.st_ctime_ns
                found.append(Source(endpoint, endpoint, False, self._origin, identity))
        return found


class NatsStream(NamedTuple):
    """
    A stream of a broker, whose sources `txmetrics_tcp.cli.source_watch` follows.

    @ivar text: the URL as the user wrote it.
    """

    text: str
    address: NatsAddress


Item = Source | SocketGlob | NatsStream


class EndpointFile:
    """
    A file with an endpoint or a glob in each line.

    @ivar path: the path of the file.
    @ivar problem: why the file cannot be used now; its former content then applies.
    """

    def __init__(self, path: str) -> None:
        """
        @raise EndpointError: the file cannot be read, or contains something else.
        """
        self.path = path
        self.problem: str = ""
        self._identity: object = None
        self._items: list[Item] = []
        self._read()

    @property
    def empty(self) -> bool:
        """Whether the file names no source."""
        return not self._items

    @property
    def globs(self) -> list[SocketGlob]:
        """The globs in the file."""
        return [item for item in self._items if isinstance(item, SocketGlob)]

    @property
    def streams(self) -> list[NatsStream]:
        """The streams of brokers in the file."""
        return [item for item in self._items if isinstance(item, NatsStream)]

    def find(self) -> list[Source]:
        """Return the sources that the file names now."""
        try:
            self._read()
            self.problem = ""
        except EndpointError as error:
            self.problem = str(error)
        return _find(self._items)

    def _read(self) -> None:
        """Read the file if it has changed."""
        try:
            status = os.stat(self.path)
            identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
            if identity == self._identity:
                return
            with open(self.path, encoding="utf-8") as file:
                text = file.read(MAX_FILE + 1)
        except OSError as error:
            self._identity = None
            raise EndpointError(f"cannot read {self.path}: {error.strerror}") from None
        except ValueError:
            raise EndpointError(f"cannot read {self.path}: not a text file") from None
        if len(text) > MAX_FILE:
            raise EndpointError(f"cannot read {self.path}: larger than {MAX_FILE} bytes")
        items = []
        for number, line in enumerate(text.splitlines(), 1):
            entry = _COMMENT.sub("", line).strip()
            if entry:
                items.append(_item(entry, f"{self.path}, line {number}: "))
        self._items = items
        self._identity = identity


class Sources:
    """
    The sources of a command.

    @ivar fixed: the endpoints and recordings on the command line.
    @ivar watched: the globs, streams and files, whose sources come and go.
    @ivar since: how many seconds ago to begin with streams; None to begin now.
    @ivar max_frame: the largest accepted frame of streams, in bytes.
    """

    def __init__(
        self, arguments: Sequence[str], since: float | None = None, max_frame: int = MAX_FRAME
    ) -> None:
        """
        @param arguments: as `given_sources` returns them.
        @raise EndpointError: a file with endpoints is unusable, or a source is given twice.
        """
        self.fixed: list[Source] = []
        self.watched: list[SocketGlob | NatsStream | EndpointFile] = []
        self.since = since
        self.max_frame = max_frame
        self._items: list[Item | EndpointFile] = []
        for text in arguments:
            if text == "@":
                raise EndpointError("@ lacks the name of a file")
            item = EndpointFile(text[1:]) if text.startswith("@") else _item(text, "")
            if isinstance(item, NatsStream) and item in self.streams:
                raise EndpointError(f"{item.text} is given twice")
            self._items.append(item)
            if not isinstance(item, Source):
                self.watched.append(item)
            elif any(item.name == one.name for one in self.fixed):
                raise EndpointError(f"{item.name} is given twice")
            else:
                self.fixed.append(item)

    @property
    def several(self) -> bool:
        """Whether there can be more than one source."""
        return bool(self.watched) or len(self.fixed) > 1

    @property
    def globs(self) -> list[SocketGlob]:
        """All globs, including those in files."""
        found: list[SocketGlob] = []
        for item in self.watched:
            found += [item] if isinstance(item, SocketGlob) else getattr(item, "globs", [])
        return found

    @property
    def streams(self) -> list[NatsStream]:
        """All streams of brokers, including those in files."""
        found: list[NatsStream] = []
        for item in self.watched:
            found += [item] if isinstance(item, NatsStream) else getattr(item, "streams", [])
        return found

    @property
    def empty_files(self) -> list[str]:
        """The paths of the files that name no source."""
        files = [item for item in self.watched if isinstance(item, EndpointFile)]
        return [file.path for file in files if file.empty]

    @property
    def problems(self) -> list[str]:
        """Why files with endpoints could not be read by the last `find`."""
        files = [item for item in self.watched if isinstance(item, EndpointFile)]
        return [file.problem for file in files if file.problem]

    def find(self) -> dict[str, Source]:
        """
        Return the sources that exist now, by name, in the order in which they were given, except
        those of brokers.
        """
        fixed = {source.name: source for source in self.fixed}
        found: dict[str, Source] = {}
        for item in self._items:
            for source in item.find() if isinstance(item, EndpointFile) else _find([item]):
                found.setdefault(source.name, fixed.get(source.name, source))
        return found


def _item(text: str, origin: str) -> Item:
    """
    @raise EndpointError: the text is neither an endpoint nor a glob nor a stream.
    """
    if is_nats(text):
        try:
            return NatsStream(text, parse_address(text))
        except EndpointError as error:
            raise EndpointError(f"{origin}{error}") from None
    if text.startswith("@"):
        raise EndpointError(f"{origin}{text!r} is not an endpoint: only the command line has files")
    if (pattern := _glob(text, origin)) is not None:
        return pattern
    if origin and is_recording(text):
        raise EndpointError(f"{origin}{text}: a file, not an endpoint")
    return _source(text, origin)


def _glob(text: str, origin: str) -> SocketGlob | None:
    match = _UNIX.fullmatch(text)
    if match is not None:
        path, rest = re.sub(r"\\(.)", r"\1", match["path"]), match["rest"]
    elif ":" not in text or text.startswith(_PATHS):
        path, rest = text, ""
    else:
        return None
    # A file may have such a name.
    if not has_magic(path) or os.path.lexists(path):
        return None
    return SocketGlob(text, path, rest, origin)


def _source(text: str, origin: str = "") -> Source:
    if PORT.fullmatch(text):
        return Source(f"{DEFAULT_HOST}:{text}", text, False, origin)
    if not reads_as_endpoint(text) and _is_socket(text):
        # The shell has expanded a glob, for example.
        return Source(_unix(text), _unix(text), False, origin)
    return Source(text, text, is_recording(text), origin)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _unix(path: str) -> str:
    return str(plain_endpoint(PurePath(path)))


def _find(items: Sequence[Item]) -> list[Source]:
    found = []
    for item in items:
        if isinstance(item, SocketGlob):
            found += item.find()
        elif isinstance(item, Source):
            found.append(item)
    return found
