"""Parses the stream of `mongodump --archive` and computes checksums that do not depend on order.

The form: a magic number; one document about the dump; one about each collection; a mark. Then blocks: a document that
names the collection and says whether this is its end, documents of the collection, a mark. The oplog is a collection
without a database. The end of a collection has the CRC-64 of its documents.
"""

from __future__ import annotations

import ctypes
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any

from berth.backup import bson
from berth.backup.bson import Malformed, Splitter, Timestamp

MAGIC = struct.pack("<I", 0x8199E26D)
MARK = b"\xff\xff\xff\xff"

# Called with each entry of the oplog.
Seen = Callable[[bytes], object]


@cache
def _library() -> ctypes.CDLL:
    # Debian's dpkg needs it, so it is on every host; mongodump's checksum is the one of xz.
    found = ctypes.CDLL("liblzma.so.5")
    found.lzma_crc64.restype = ctypes.c_uint64
    found.lzma_crc64.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    return found


def crc64(data: bytes, before: int) -> int:
    """Return the CRC-64 of ECMA-182 of what came before (0 at first) and this."""
    return int(_library().lzma_crc64(data, len(data), before))


def items(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the documents and marks of an archive, however the pieces fall. Raises Malformed."""
    splitter = Splitter(MAGIC, MARK)
    for piece in pieces:
        yield from splitter.feed(piece)
    splitter.finish()


@dataclass(frozen=True)
class About:
    """What an archive says of a collection before its documents."""

    namespace: str
    # The oplog has none.
    database: str
    indexes: list[str]
    # The name of its documents' blocks: a view has none, a time series has buckets.
    data: str

    @classmethod
    def read(cls, item: bytes) -> About:
        """Read one of the documents before the first mark. Raises Malformed."""
        found = bson.plain(item)
        database, name = _named(found)
        namespace = f"{database}.{name}"
        try:
            metadata = json.loads(found.get("metadata") or "{}")
            indexes = sorted(str(index["name"]) for index in metadata.get("indexes") or [])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Malformed(f"the metadata of {namespace} cannot be read") from None
        elsewhere = {"view": "", "timeseries": _buckets(namespace)}
        return cls(namespace, database, indexes, elsewhere.get(found.get("type", ""), namespace))


@dataclass(frozen=True)
class Header:
    """The document before a block of documents."""

    namespace: str
    database: str
    is_end: bool
    # Of all documents of the collection, at its end.
    crc: int | None

    @classmethod
    def read(cls, item: bytes) -> Header:
        """Read the document after a mark. Raises Malformed."""
        if item == MARK:
            raise Malformed("a block without a header")
        found = bson.plain(item)
        database, name = _named(found)
        crc = found.get("CRC")
        return cls(f"{database}.{name}", database, bool(found.get("EOF")), None if crc is None else crc % 2**64)


class Ends:
    """Collections that an archive has listed and not ended: some are left if it was truncated between blocks."""

    def __init__(self) -> None:
        self._missing: dict[str, str] = {}

    def listed(self, about: About) -> None:
        if about.data:
            self._missing[about.data] = about.data if about.database else "the oplog"

    def block(self, header: Header) -> None:
        if header.is_end:
            self._missing.pop(header.namespace, None)
            # Not every server keeps a time series in buckets of another name.
            self._missing.pop(_buckets(header.namespace), None)
        else:
            self._missing[header.namespace] = header.namespace if header.database else "the oplog"

    def finish(self) -> None:
        """Raise Malformed where not all have ended."""
        if self._missing:
            raise Malformed(f"it ends in the middle of {', '.join(self._missing.values())}")


def _buckets(namespace: str) -> str:
    database, _, name = namespace.partition(".")
    return f"{database}.system.buckets.{name}"


def _named(found: dict[str, Any]) -> tuple[str, str]:
    database, name = found.get("db"), found.get("collection")
    if not isinstance(database, str) or not isinstance(name, str):
        raise Malformed("a block that names no collection")
    return database, name


@dataclass
class Collection:
    """The documents of one collection so far."""

    indexes: list[str] = field(default_factory=list)
    documents: int = 0
    size: int = 0
    total: int = 0
    crc: int = 0
    ended: bool = False

    def add(self, document: bytes) -> None:
        self.documents += 1
        self.size += len(document)
        self.total += int.from_bytes(sha256(document).digest())
        self.crc = crc64(document, self.crc)

    def summary(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "bytes": self.size,
            "checksum": f"{self.total % 2**256:064x}",
            "indexes": self.indexes,
        }


class Tally:
    """Takes the archive piece by piece; `finish` checks that it is complete.

    Args:
        seen: called with each entry of the oplog.

    Both methods raise Malformed, with a sentence's end that names the archive.
    """

    def __init__(self, seen: Seen | None = None) -> None:
        self.versions: dict[str, str] = {}
        self.collections: dict[str, Collection] = {}
        self.oplog_first: Timestamp | None = None
        self.oplog_last: Timestamp | None = None
        self.oplog_entries = 0
        self._seen = seen
        self._splitter = Splitter(MAGIC, MARK)
        self._ends = Ends()
        self._oplog = Collection()
        self._step = self._about_dump
        self._current = self._oplog

    def feed(self, piece: bytes) -> None:
        with as_archive():
            for item in self._splitter.feed(piece):
                self._step(item)

    def _about_dump(self, item: bytes) -> None:
        found = bson.plain(item)
        self.versions = {"mongo": found.get("server_version", ""), "mongodump": found.get("tool_version", "")}
        self._step = self._about_collection

    def _about_collection(self, item: bytes) -> None:
        if item == MARK:
            self._step = self._header
            return
        about = About.read(item)
        self._ends.listed(about)
        if about.database:
            self.collections[about.namespace] = Collection(about.indexes)

    def _header(self, item: bytes) -> None:
        header = Header.read(item)
        self._ends.block(header)
        if header.database:
            self._current = self.collections.setdefault(header.namespace, Collection())
            self._step = self._document
        else:
            self._current = self._oplog
            self._step = self._entry
        self._current.ended = header.is_end
        if header.is_end and header.crc != self._current.crc:
            raise Malformed(f"{header.namespace} has another checksum than it was written with")

    def _document(self, item: bytes) -> None:
        if item == MARK:
            self._step = self._header
        elif self._current.ended:
            raise Malformed("documents after the end of their collection")
        else:
            self._current.add(item)

    def _entry(self, item: bytes) -> None:
        self._document(item)
        if item == MARK:
            return
        moment = bson.timestamp(item)
        self.oplog_first = self.oplog_first or moment
        self.oplog_last = moment
        self.oplog_entries += 1
        if self._seen:
            self._seen(item)

    def finish(self) -> None:
        """Raise Malformed where the stream ended too early."""
        with as_archive():
            self._splitter.finish()
            if self._step != self._header:
                raise Malformed("it ends in the middle")
            self._ends.finish()

    def summary(self) -> dict[str, Any]:
        """Return the part `mongo` of a manifest."""
        return {
            "collections": {name: found.summary() for name, found in sorted(self.collections.items())},
            "oplog": {
                "first": str(self.oplog_first or ""),
                "last": str(self.oplog_last or ""),
                "entries": self.oplog_entries,
            },
        }


@contextmanager
def as_archive() -> Iterator[None]:
    """Add to the message that it is the archive that is malformed."""
    try:
        yield
    except Malformed as error:
        raise Malformed(f"malformed archive: {error}") from None


def tally(pieces: Iterable[bytes]) -> Tally:
    """Read a whole archive."""
    read = Tally()
    for piece in pieces:
        read.feed(piece)
    read.finish()
    return read


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return the differences between the collections of two summaries, a sentence each."""
    sentences = []
    for name, one in expected["collections"].items():
        other = found["collections"].get(name)
        if other is None:
            sentences.append(f"{name} is missing ({one['documents']} documents).")
        elif other["documents"] != one["documents"]:
            sentences.append(f"{name} has {other['documents']} documents instead of {one['documents']}.")
        elif other["checksum"] != one["checksum"]:
            sentences.append(f"{name} has another checksum than when it was dumped.")
    extra = [name for name in found["collections"] if name not in expected["collections"]]
    return sentences + [f"{name} is not in the manifest." for name in extra]
