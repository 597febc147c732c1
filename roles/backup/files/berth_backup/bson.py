"""As much of BSON as a backup needs: where documents end, and a few fields at their top."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

SMALLEST = 5
EMPTY = b"\5\0\0\0\0"
# The server allows 16 MiB, and its own entries of the oplog a little more.
LARGEST = 17 * 1024 * 1024

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
    """These bytes are not what they should be."""


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
    if kind in (0x03, 0x04, 0x0F):
        return length
    if kind in (0x02, 0x0D, 0x0E):
        return 4 + length
    if kind == 0x05:
        return 5 + length
    if kind == 0x0C:
        return 4 + length + 12
    raise Malformed(f"a value of type {kind:#x}")


def fields(document: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, type and raw value of each field at the top."""
    at = 4
    try:
        while document[at]:
            kind = document[at]
            end = document.index(0, at + 1)
            name = document[at + 1 : end].decode()
            length = _value_size(kind, document, end + 1)
            yield name, kind, document[end + 1 : end + 1 + length]
            at = end + 1 + length
    except (IndexError, ValueError, struct.error) as error:
        raise Malformed(f"a document that ends in the middle ({error})") from None


def plain(document: bytes) -> dict[str, Any]:
    """Return the strings, numbers, truth values and timestamps at the top; other fields are left out."""
    found: dict[str, Any] = {}
    for name, kind, raw in fields(document):
        if kind == 0x02:
            found[name] = raw[4:-1].decode()
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


def inner(document: bytes, name: str) -> bytes:
    """Return the document or array of this name; an empty one where there is none."""
    for found, kind, raw in fields(document):
        if found == name and kind in (0x03, 0x04):
            return raw
    return EMPTY


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
    """Cuts a stream into documents, however the pieces fall."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        data = self._rest + piece
        at = 0
        while len(data) - at >= 4:
            length = size(data, at)
            if at + length > len(data):
                break
            yield data[at : at + length]
            at += length
        self._rest = data[at:]

    def finish(self) -> None:
        if self._rest:
            raise Malformed("a document that ends in the middle")
