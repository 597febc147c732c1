"""The part of BSON that a backup needs: where documents end, and their top-level fields."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

SMALLEST = 5
EMPTY = b"\5\0\0\0\0"
# The server allows 16 MiB, and a little more for its own oplog entries.
LARGEST = 17 * 1024 * 1024

DOCUMENT, ARRAY = 0x03, 0x04

_INT32 = struct.Struct("<i")
_SIZES = {
    0x01: 8,
    0x06: 0,
    0x07: 12,
    0x08: 1,
    0x09: 8,
    0x0A: 0,
    0x10: 4,
    0x11: 8,
    0x12: 8,
    0x13: 16,
    0x7F: 0,
    0xFF: 0,
}


class Malformed(Exception):  # noqa: N818  # "raise Malformed" says it
    """These bytes are not valid."""


def size(data: bytes | bytearray | memoryview, at: int) -> int:
    """Return the size of the document that begins here."""
    found: int = _INT32.unpack_from(data, at)[0]
    if not SMALLEST <= found <= LARGEST:
        raise Malformed(f"a document of {found} bytes")
    return found


def _value_size(kind: int, data: bytes, at: int) -> int:
    if kind in _SIZES:
        return _SIZES[kind]
    if kind == 0x0B:
        return data.index(0, data.index(0, at) + 1) + 1 - at
    length: int = _INT32.unpack_from(data, at)[0]
    if kind in (DOCUMENT, ARRAY, 0x0F):
        return length
    if kind in (0x02, 0x0D, 0x0E):
        return 4 + length
    if kind == 0x05:
        return 5 + length
    if kind == 0x0C:
        return 4 + length + 12
    raise Malformed(f"a value of type {kind:#x}")


def fields(document: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, type and raw value of each top-level field."""
    at = 4
    try:
        while document[at]:
            kind = document[at]
            end = document.index(0, at + 1)
            name = document[at + 1 : end].decode()
            length = _value_size(kind, document, end + 1)
            # The last byte is the document's own end.
            if not 0 <= length < len(document) - end - 1:
                raise Malformed(f"a field {name} of {length} bytes")
            yield name, kind, document[end + 1 : end + 1 + length]
            at = end + 1 + length
    except (IndexError, ValueError, struct.error) as error:
        raise Malformed(f"a document that ends in the middle ({error})") from None


def plain(document: bytes) -> dict[str, Any]:
    """Return the top-level strings, numbers, booleans and timestamps; other fields are left out."""
    found: dict[str, Any] = {}
    for name, kind, raw in fields(document):
        if kind == 0x02:
            found[name] = _text(raw)
        elif kind == 0x08:
            found[name] = raw != b"\0"
        elif kind == 0x10:
            found[name] = _INT32.unpack(raw)[0]
        elif kind == 0x12:
            found[name] = struct.unpack("<q", raw)[0]
        elif kind == 0x11:
            number, seconds = struct.unpack("<II", raw)
            found[name] = Timestamp(seconds, number)
    return found


def _text(raw: bytes) -> str:
    try:
        return raw[4:-1].decode()
    except UnicodeDecodeError:
        raise Malformed("a text that is not UTF-8") from None


def inner(document: bytes, name: str) -> bytes:
    """Return the document or array of this name; an empty one where there is none."""
    for found, kind, raw in fields(document):
        if found == name and kind in (DOCUMENT, ARRAY):
            return raw
    return EMPTY


def built(values: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Return the document with these fields: name, type and raw value, as `fields` yields them."""
    body = b"".join(bytes([kind]) + name.encode() + b"\0" + raw for name, kind, raw in values)
    return _INT32.pack(len(body) + SMALLEST) + body + b"\0"


def array(documents: Iterable[bytes]) -> bytes:
    """Return the array of these documents."""
    return built((str(number), DOCUMENT, one) for number, one in enumerate(documents))


class Timestamp(tuple[int, int]):
    """A moment of the oplog: seconds, and a number within the second. Written as 1764037800.1."""

    __slots__ = ()

    def __new__(cls, seconds: int, number: int) -> Timestamp:
        return super().__new__(cls, (seconds, number))

    def __str__(self) -> str:
        return f"{self[0]}.{self[1]}"

    @classmethod
    def read(cls, text: str) -> Timestamp:
        seconds, _, number = text.partition(".")
        return cls(int(seconds), int(number))


def timestamp(document: bytes) -> Timestamp:
    """Return the moment of an entry of the oplog."""
    for name, kind, raw in fields(document):
        if name == "ts" and kind == 0x11:
            number, seconds = struct.unpack("<II", raw)
            return Timestamp(seconds, number)
    raise Malformed("an entry of the oplog without its time")


class Splitter:
    """Cuts a stream into documents, however the pieces fall.

    Args:
        start: four bytes that the stream begins with; they are not yielded.
        mark: four bytes that stand between documents, and are yielded as they are.
    """

    def __init__(self, start: bytes = b"", mark: bytes = b"") -> None:
        self._rest, self._start, self._mark = b"", start, mark

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield what this piece completes. Raises Malformed where it cannot be a document."""
        data = self._rest + piece if self._rest else piece
        at = 0
        while len(data) - at >= 4:
            head = data[at : at + 4]
            if self._start:
                if head != self._start:
                    raise Malformed("it does not begin as it should")
                self._start, at = b"", at + 4
                continue
            length = 4 if head == self._mark else size(data, at)
            if at + length > len(data):
                break
            if length > 4 and data[at + length - 1]:
                raise Malformed("a document that does not end with a zero")
            yield data[at : at + length]
            at += length
        self._rest = data[at:]

    def finish(self) -> None:
        """Raise Malformed where the stream ended too early."""
        if self._rest or self._start:
            raise Malformed("a document that ends in the middle")
