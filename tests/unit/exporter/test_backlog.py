"""
Tests of batches, and of the pending events of one client.
"""

from __future__ import annotations

import gc
from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._exporter.backlog import Backlog, Batch
from txmetrics_tcp._net.writers import CHUNK


def frames(*sizes: int) -> list[bytes]:
    """Return frames of the given sizes; adjacent frames differ."""
    return [bytes([65 + number % 50]) * size for number, size in enumerate(sizes)]


def batch(frames: list[bytes], since: int = 0) -> Batch:
    """Return a batch of the given frames."""
    return Batch(frames, since)


class BatchTests(SynchronousTestCase):
    def test_oneChunk(self) -> None:
        self.assertEqual(batch([b"a", b"bc", b"d"], 0).chunks(), [(b"abcd", 3)])

    def test_chunks(self) -> None:
        """Chunks hold whole frames and at most C{CHUNK} bytes, except for a longer frame."""
        sent = frames(CHUNK - 1, 1, 1, 2 * CHUNK, CHUNK // 2, CHUNK // 2, 3)
        chunks = batch(sent).chunks()
        self.assertEqual([end for _, end in chunks], [2, 3, 4, 6, 7])
        first = 0
        for chunk, end in chunks:
            self.assertEqual(chunk, b"".join(sent[first:end]))
            first = end

    def test_shared(self) -> None:
        """All clients receive the same bytes object."""
        shared = batch(frames(1, 2, 3))
        self.assertIs(shared.chunks()[0][0], shared.chunks()[0][0])
        self.assertIs(shared.chunk(0, CHUNK)[0], shared.chunks()[0][0])

    def test_memory(self) -> None:
        """Whether or not it was split, a batch keeps one number for each frame."""
        for size in (1, CHUNK):
            one = batch(frames(*[size] * 7))
            self.assertEqual(len(one.chunks()), size // CHUNK * 6 + 1)
            self.assertEqual(one.end(6), 6 * size)
            self.assertEqual(one.end(7), 7 * size)
            kept = gc.get_referents(one)
            numbers = [x for x in kept if isinstance(x, list) and isinstance((*x, 0)[0], int)]
            self.assertEqual([len(x) for x in numbers if x], [7])


class BacklogTests(SynchronousTestCase):
    def test_oldestAreDropped(self) -> None:
        backlog = Backlog(3)
        self.assertEqual(backlog.add(batch([b"a", b"b"], 1)), 0)
        self.assertEqual(backlog.add(batch([b"c", b"d"], 2)), 1)
        self.assertEqual(backlog.since, 1)
        self.assertEqual(backlog.add(batch([b"e"], 3)), 1)
        self.assertEqual(backlog.since, 2)
        self.assertEqual(len(backlog), 3)
        self.assertEqual(backlog.take(CHUNK), (b"cde", 3))
        self.assertEqual(len(backlog), 0)

    def test_batchLargerThanTheLimit(self) -> None:
        backlog = Backlog(2)
        self.assertEqual(backlog.add(batch([b"a", b"b", b"c", b"d", b"e"], 1), 1), 2)
        self.assertEqual(backlog.take(CHUNK), (b"de", 2))

    def test_nothingFits(self) -> None:
        backlog = Backlog(None)
        backlog.add(batch([b"abc", b"d"], 1))
        self.assertEqual(backlog.take(2), (b"", 0))
        self.assertEqual(backlog.take(2, at_least_one=True), (b"abc", 1))
        self.assertEqual(backlog.take(2), (b"d", 1))

    def test_wholeBatchesAreShared(self) -> None:
        """Taking a whole batch does not copy it."""
        whole = batch(frames(10, 20))
        chunk = whole.chunks()[0][0]
        backlog = Backlog(None)
        backlog.add(whole)
        self.assertIs(backlog.take(CHUNK)[0], chunk)

    def test_clear(self) -> None:
        backlog = Backlog(5)
        backlog.add(batch([b"a", b"b"], 1))
        backlog.take(0, at_least_one=True)
        backlog.clear()
        self.assertFalse(backlog)
        backlog.add(batch([b"c", b"d"], 1))
        self.assertEqual(backlog.take(CHUNK), (b"cd", 2))

    @given(
        st.one_of(st.none(), st.integers(1, 12)),
        st.lists(
            st.one_of(
                st.lists(st.integers(1, 9), min_size=1, max_size=8),  # add a batch
                st.integers(0, 30),  # take this many bytes
                st.just(None),  # take one event
            )
        ),
    )
    def test_likeADeque(self, limit: int | None, steps: list[list[int] | int | None]) -> None:
        """A backlog behaves like a deque of frames with the same limit."""
        backlog = Backlog(limit)
        model: deque[bytes] = deque(maxlen=limit)
        for step in steps:
            if isinstance(step, list):
                coming = frames(*step)
                before = len(model)
                model.extend(coming)
                dropped = backlog.add(batch(coming))
                self.assertEqual(dropped, before + len(coming) - len(model))
            elif step is None:
                if model:
                    self.assertEqual(backlog.take(0, at_least_one=True), (model.popleft(), 1))
            else:
                expected = b""
                count = 0
                while model and len(expected) + len(model[0]) <= step:
                    expected += model.popleft()
                    count += 1
                self.assertEqual(backlog.take(step), (expected, count))
            self.assertEqual(len(backlog), len(model))
