"""
Random damage to bytes, and to protobuf messages with their lengths corrected.

A decoder rejects most damaged bytes early. Damaged messages with correct lengths reach the code
that decodes frames.
"""

from __future__ import annotations

import re
from random import Random

from txmetrics_tcp import Key, Metric, Operation, encode_metric

INTERESTING = (0x00, 0x01, 0x0A, 0x10, 0x12, 0x1A, 0x20, 0x28, 0x7F, 0x80, 0x81, 0xC3, 0xFE, 0xFF)
"""Bytes with a meaning in a frame, and their neighbours."""

_STAMP = re.compile(rb"\x12[\x0b\x0c]\x08.{5}\x10(?P<nanos>[\x80-\xff]{3,4}.)", re.DOTALL)

Field = tuple[bytes, int, bytes]
"""A field of a message: its encoded tag, its wire type, and its payload."""


def damaged(random: Random, data: bytes) -> bytes:
    """Return the bytes with a few random changes."""
    if not data:
        return bytes([random.choice(INTERESTING)])
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.randrange(len(changed) + 1)
        to = min(at + random.choice((1, 1, 2, 4, 8, 30)), len(changed))
        match random.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case 1 if at < len(changed):
                changed[at] = random.choice(INTERESTING)
            case 2 if at < len(changed):
                changed[at] = (changed[at] + random.choice((1, -1))) % 256
            case 3:
                del changed[at:to]
            case 4:
                changed[at:at] = changed[at:to] * random.choice((1, 1, 2, 20))
            case 5:
                changed[at:at] = bytes(
                    random.choice(INTERESTING) for _ in range(random.randrange(1, 4))
                )
            case 6:
                changed[at:to] = random.randbytes(to - at)
    return bytes(changed)


def flipped(random: Random, data: bytes) -> bytes:
    """Return the bytes with one or two of them changed."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(changed))
        match random.randrange(3):
            case 0:
                changed[at] ^= 1 << random.randrange(8)
            case 1:
                changed[at] = random.choice(INTERESTING)
            case 2:
                # If two neighbours are lengths, one field grows at the expense of the other.
                changed[at] = (changed[at] + 1) % 256
                changed[at - 1] = (changed[at - 1] - 1) % 256
    return bytes(changed)


def later(random: Random, message: bytes) -> bytes:
    """Return a later message of the same series: with another time or value."""
    changed = bytearray(message)
    stamp = _STAMP.search(message)
    if stamp is not None and random.random() < 0.7:
        at, to = stamp.span("nanos")
        for place in range(at, to - 1):
            changed[place] = random.randrange(128, 256)
        changed[to - 1] = random.randrange(4)
    elif changed:
        changed[-1] = random.choice((0, 1, 63, 64, 127, 191))
    return bytes(changed)


def varint(random: Random, value: int) -> bytes:
    """Encode a varint, sometimes with more bytes than needed."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value % 128 + 128)
        value //= 128
    if random.random() < 0.03:
        encoded += bytes([value + 128] + [128] * random.randrange(9))
        value = 0
    return bytes([*encoded, value])


def framed(random: Random, message: bytes) -> bytes:
    return varint(random, len(message)) + message


def frames(stream: bytes) -> list[bytes]:
    """Return the messages of a valid stream, without an unfinished one at its end."""
    messages = []
    at = 0
    while True:
        size, begin = _read_varint(stream, at)
        if begin is None or begin + size > len(stream):
            return messages
        at = begin + size
        messages.append(stream[begin:at])


def changed_message(random: Random, message: bytes, others: list[bytes], depth: int = 0) -> bytes:
    """
    Return a message with one field changed, at any depth, and all lengths correct.

    @param others: messages from which fields may be copied.
    """
    fields = _fields(message)
    if fields is None or random.random() < 0.1:
        return damaged(random, message)
    index = random.randrange(len(fields)) if fields else 0
    action = random.randrange(10)
    if not fields or action == 0:
        donor = _fields(random.choice(others)) or []
        fields[index:index] = random.sample(donor, min(len(donor), 1))
    elif action == 1:
        del fields[index]
    elif action == 2:
        fields.insert(random.randrange(len(fields) + 1), fields[index])
    elif action == 3:
        random.shuffle(fields)
    elif action == 4:
        # Adds a field with a random number and type, which may be unknown or wrong.
        number, wire = random.randrange(20), random.choice((0, 1, 2, 3, 4, 5, 7))
        payload = {0: b"\x01", 1: bytes(8), 2: b"\x01x", 3: b"", 4: b"", 5: bytes(4), 7: b""}[wire]
        fields.insert(index, (varint(random, number << 3 | wire), wire, payload))
    else:
        tag, wire, payload = fields[index]
        if wire == 2:
            payload = changed_message(random, payload, others, depth + 1)
        elif wire == 0:
            payload = varint(random, _number(random))
        else:
            payload = random.choice((payload[::-1], random.randbytes(len(payload))))
        if random.random() < 0.05:
            tag = damaged(random, tag)
        fields[index] = tag, wire, payload
    return b"".join(
        tag + (framed(random, payload) if wire == 2 else payload) for tag, wire, payload in fields
    )


def series(random: Random, count: int) -> list[bytes]:
    """Return messages of one series, which differ only in time and value."""
    operation = random.choice(list(Operation))
    texts = {_text(random): _text(random) for _ in range(random.choice((0, 0, 1, 2, 10)))}
    labels = tuple(sorted(texts.items()))
    key = Key(operation.kind, _text(random) or "m", labels)
    second = random.choice((0, 1, 10**9, 1_795_363_464, 2**31, 2**35 - 1, 2**35, 253_402_300_799))
    messages = []
    for _ in range(count):
        value: float = _number(random) % 2**64
        if operation > Operation.SET_COUNTER:
            value = random.choice((0.0, -0.0, float("nan"), float("inf"), 1.5, random.random()))
        if random.random() < 0.2:
            second += 1
        nanos = random.choice((0, 1, 127, 128, 2**21, 2**28 - 1, 2**28, 10**9 - 1, -1))
        if nanos < 0:
            nanos = random.randrange(10**9)
        metric = Metric(key, operation, value, second * 10**9 + nanos)
        messages.append(frames(encode_metric(metric))[0])
    return messages


def _text(random: Random) -> str:
    length = random.choice((0, 1, 1, 3, 10, 60, 110, 127, 128, 129, 200))
    return "".join(random.choices("ab\x00\n\x80ß東🦀\x12 (", k=length))


def _number(random: Random) -> int:
    bits = random.choice((0, 1, 7, 8, 14, 15, 21, 28, 31, 32, 35, 56, 57, 62, 63, 64, 65, 70))
    return max((1 << bits) - random.choice((0, 1, 2)), 0)


def _fields(message: bytes) -> list[Field] | None:
    """Return the fields of a message, or None if it is not valid."""
    fields = []
    at = 0
    while at < len(message):
        tag, begin = _read_varint(message, at)
        if begin is None:
            return None
        wire = tag & 7
        first = begin
        if wire == 2:
            size, start = _read_varint(message, begin)
            if start is None or start + size > len(message):
                return None
            first, end = start, start + size
        elif wire == 0:
            _, stop = _read_varint(message, begin)
            if stop is None:
                return None
            end = stop
        elif wire in (1, 5):
            end = begin + (8 if wire == 1 else 4)
            if end > len(message):
                return None
        else:
            return None
        fields.append((message[at:begin], wire, message[first:end]))
        at = end
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int | None]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
    return value, None
