"""Reads what `mongodump --archive` writes while it passes by, and makes checksums that do not depend on order.

The form: a magic number; one document about the dump; one about each collection; a mark. Then blocks: a document that
names the collection and says whether this is its end, documents of the collection, a mark. The oplog is a collection
without a database.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from berth_backup import bson
from berth_backup.bson import Malformed, Timestamp

MAGIC = struct.pack("<I", 0x8199E26D)
MARK = b"\xff\xff\xff\xff"


@dataclass
class Collection:
    """What passed of one collection."""

    indexes: list[str] = field(default_factory=list)
    # Of a view or a time series only the description is listed under its name.
    has_data: bool = True
    documents: int = 0
    size: int = 0
    total: int = 0
    ended: bool = False

    def add(self, document: bytes) -> None:
        self.documents += 1
        self.size += len(document)
        self.total += int.from_bytes(sha256(document).digest())

    def summary(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "bytes": self.size,
            "checksum": f"{self.total % 2**256:064x}",
            "indexes": self.indexes,
        }


class Tally:
    """Fed with the archive piece by piece; `finish` says whether all of it came."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.collections: dict[str, Collection] = {}
        self.oplog_first: Timestamp | None = None
        self.oplog_last: Timestamp | None = None
        self.oplog_entries = 0
        self._rest = b""
        self._oplog_open = False
        self._step = self._magic
        self._current: Collection | None = None

    def feed(self, piece: bytes) -> None:
        data = self._rest + piece if self._rest else piece
        at = 0
        while len(data) - at >= 4:
            if data[at : at + 4] in (MARK, MAGIC):
                length = 4
            else:
                length = bson.size(data, at)
                if at + length > len(data):
                    break
            self._step(data[at : at + length])
            at += length
        self._rest = data[at:]

    def _magic(self, item: bytes) -> None:
        if item != MAGIC:
            raise Malformed("not an archive of mongodump")
        self._step = self._about_dump

    def _about_dump(self, item: bytes) -> None:
        found = bson.plain(item)
        self.versions = {"mongo": found.get("server_version", ""), "mongodump": found.get("tool_version", "")}
        self._step = self._about_collection

    def _about_collection(self, item: bytes) -> None:
        if item == MARK:
            self._step = self._header
            return
        found = bson.plain(item)
        metadata = json.loads(found.get("metadata") or "{}")
        if found["db"]:
            indexes = sorted(index["name"] for index in metadata.get("indexes") or [])
            has_data = found.get("type", "") in ("", "collection")
            self.collections[f"{found['db']}.{found['collection']}"] = Collection(indexes, has_data)

    def _header(self, item: bytes) -> None:
        found = bson.plain(item)
        if "db" not in found or "collection" not in found:
            raise Malformed("a block that names no collection")
        name = f"{found['db']}.{found['collection']}"
        if found["db"]:
            self._current = self.collections.setdefault(name, Collection())
            self._current.ended = found.get("EOF", False)
            self._step = self._document
        else:
            self._oplog_open = not found.get("EOF", False)
            self._step = self._entry

    def _document(self, item: bytes) -> None:
        if item == MARK:
            self._step = self._header
        else:
            assert self._current is not None  # noqa: S101  # the header set it
            self._current.add(item)

    def _entry(self, item: bytes) -> None:
        if item == MARK:
            self._step = self._header
            return
        moment = bson.timestamp(item)
        self.oplog_first = self.oplog_first or moment
        self.oplog_last = moment
        self.oplog_entries += 1

    def finish(self) -> None:
        """Raise Malformed where the stream ended too early."""
        if self._rest or self._step != self._header:
            raise Malformed("the archive ends in the middle")
        cut = [name for name, found in self.collections.items() if found.has_data and not found.ended]
        if self._oplog_open:
            cut.append("the oplog")
        if cut:
            raise Malformed(f"the archive ends in the middle of {', '.join(cut)}")

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


def tally(pieces: Iterable[bytes]) -> Tally:
    """Read a whole archive."""
    read = Tally()
    for piece in pieces:
        read.feed(piece)
    read.finish()
    return read


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Say, one sentence each, where the collections of two summaries differ."""
    said = []
    for name, one in expected["collections"].items():
        other = found["collections"].get(name)
        if other is None:
            said.append(f"{name} is missing ({one['documents']} documents).")
        elif other["documents"] != one["documents"]:
            said.append(f"{name} has {other['documents']} documents instead of {one['documents']}.")
        elif other["checksum"] != one["checksum"]:
            said.append(f"{name} has other content than when it was dumped.")
    said += [f"{name} is not in the manifest." for name in found["collections"] if name not in expected["collections"]]
    return said
