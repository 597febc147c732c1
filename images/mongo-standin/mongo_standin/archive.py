"""mongodump's archive format: a magic number, a prelude, and segments of documents; a CRC-64 ends each namespace."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import bson
from bson.int64 import Int64

MAGIC = struct.pack("<I", 0x8199E26D)
TERMINATOR = b"\xff\xff\xff\xff"
# The largest document, and what an oplog entry adds to it.
LARGEST = 16 * 1024 * 1024 + 16 * 1024

_crc64 = ctypes.CDLL("liblzma.so.5").lzma_crc64
_crc64.restype = ctypes.c_uint64
_crc64.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def crc64(data: bytes, before: int = 0) -> int:
    """CRC-64 with the polynomial of ECMA-182, as xz and mongodump use it."""
    return int(_crc64(data, len(data), before))


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Damaged(Exception):  # noqa: N818  # "raise Damaged" says it
    pass


def read_exactly(source: Source, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise Damaged("the archive ends in the middle (unexpected EOF)")
    return data


def read_document(source: Source) -> bytes | None:
    """Return one document, or None at a terminator."""
    head = read_exactly(source, 4)
    if head == TERMINATOR:
        return None
    (size,) = struct.unpack("<i", head)
    if not 5 <= size <= LARGEST:
        raise Damaged(f"invalid BSON size {size}")
    document = head + read_exactly(source, size - 4)
    if document[-1]:
        raise Damaged("a document does not end with a zero")
    return document


class Writer:
    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def prelude(self, server: str, tool: str, collections: list[dict[str, Any]]) -> None:
        header = {"concurrent_collections": 1, "version": "0.1", "server_version": server, "tool_version": tool}
        self._out.write(MAGIC + bson.encode(header) + b"".join(bson.encode(one) for one in collections) + TERMINATOR)

    def collection(self, database: str, name: str, batches: Iterator[bytes]) -> int:
        """Write a namespace to its end; return how many bytes of documents that were."""
        crc = size = 0
        begun = False
        for batch in batches:
            if not begun:
                self._out.write(bson.encode({"db": database, "collection": name, "EOF": False, "CRC": Int64(0)}))
                begun = True
            self._out.write(batch)
            crc, size = crc64(batch, crc), size + len(batch)
        signed = crc - (1 << 64) if crc >> 63 else crc
        end = bson.encode({"db": database, "collection": name, "EOF": True, "CRC": Int64(signed)})
        self._out.write((TERMINATOR if begun else b"") + end + TERMINATOR)
        return size


class Reader:
    """Gives the prelude, then (database, collection, document), with None for the document at a namespace's end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        if source.read(4) != MAGIC:
            raise Damaged("stream or file does not appear to be a mongodump archive")
        header = read_document(source)
        if header is None:
            raise Damaged("the archive has no header")
        self.header = bson.decode(header)
        self.collections: list[dict[str, Any]] = []
        while (document := read_document(source)) is not None:
            self.collections.append(bson.decode(document))

    def __iter__(self) -> Iterator[tuple[str, str, bytes | None]]:
        crcs: dict[tuple[str, str], int] = {}
        ended: set[tuple[str, str]] = set()
        while head := self._source.read(1):
            first = read_document(_Pushed(head, self._source))
            if first is None:
                raise Damaged("a segment without a header")
            header = bson.decode(first)
            database, name = header["db"], header["collection"]
            if header["EOF"]:
                if read_document(self._source) is not None:
                    raise Damaged(f"documents after the end of {database}.{name}")
                if crcs.pop((database, name), 0) != header["CRC"] % (1 << 64):
                    raise Damaged(f"CRC mismatch for {database}.{name}")
                ended.add((database, name))
                yield database, name, None
                continue
            crc = crcs.get((database, name), 0)
            while (document := read_document(self._source)) is not None:
                crc = crc64(document, crc)
                yield database, name, document
            crcs[database, name] = crc
        open_ones = [
            f"{one['db']}.{one['collection']}"
            for one in self.collections
            if (one["db"], one["collection"]) not in ended and one["type"] not in ("view", "timeseries")
        ]
        if open_ones:
            raise Damaged(f"the archive ends before {', '.join(open_ones)} (unexpected EOF)")


class _Pushed:
    """A source whose first byte was read already."""

    def __init__(self, first: bytes, source: Source) -> None:
        self._first, self._source = first, source

    def read(self, size: int) -> bytes:
        if not self._first:
            return self._source.read(size)
        first, self._first = self._first, b""
        return first + self._source.read(size - 1)
