"""The input of mongorestore: the dump without the server's accounts, its oplog continued by the increments."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from berth.backup import bson
from berth.backup.archive import MAGIC, MARK, About, Ends, Header, as_archive, crc64, items
from berth.backup.bson import Malformed
from berth.backup.replay import Replay, is_data

# Output comes in pieces of about this size.
PIECE = 1024 * 1024
_OPLOG = (("db", b""), ("collection", b"oplog"))


def compose(pieces: Iterable[bytes], later: Iterable[bytes] = ()) -> Iterator[bytes]:
    """Yield an archive made from another one; `later` are entries to append to its oplog.

    Raises Malformed, and Unreplayable where an entry of the oplog cannot be replayed.
    """
    with as_archive():
        yield from _composed(items(pieces), later)


def _composed(found: Iterator[bytes], later: Iterable[bytes]) -> Iterator[bytes]:
    writer, replay, ends = _Writer(), Replay(), Ends()
    writer.add(MAGIC, next(found, b""))
    for item in _until_mark(found):
        about = About.read(item)
        ends.listed(about)
        if not about.database or is_data(about.namespace):
            writer.add(item)
    writer.add(MARK)
    ended = False
    for item in found:
        header = Header.read(item)
        ends.block(header)
        documents = _until_mark(found)
        if header.database:
            yield from _collection(writer, item, documents, is_data(header.namespace))
        elif header.is_end:
            if any(documents):
                raise Malformed("documents after the end of the oplog")
            entries = (one for entry in later for one in replay.saved(entry))
            yield from _oplog(writer, entries)
            writer.add(_oplog_header(ends=True, crc=writer.crc), MARK)
            ended = True
        else:
            yield from _oplog(writer, (one for entry in documents for one in replay.dumped(entry)))
    ends.finish()
    if not ended and next(iter(later), None) is not None:
        raise Malformed("it has no oplog that changes could follow")
    yield from writer.rest()


def _collection(writer: _Writer, header: bytes, documents: Iterator[bytes], wanted: bool) -> Iterator[bytes]:
    if not wanted:
        for _ in documents:
            pass
        return
    writer.add(header)
    for document in documents:
        writer.add(document)
        yield from writer.full()
    writer.add(MARK)


def _oplog(writer: _Writer, entries: Iterator[bytes]) -> Iterator[bytes]:
    writer.add(_oplog_header(ends=False, crc=0))
    for entry in entries:
        writer.crc = crc64(entry, writer.crc)
        writer.add(entry)
        yield from writer.full()
    writer.add(MARK)


class _Writer:
    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0
        # Of the oplog so far.
        self.crc = 0

    def add(self, *written: bytes) -> None:
        self._waiting += written
        self._size += sum(map(len, written))

    def full(self) -> Iterator[bytes]:
        if self._size >= PIECE:
            yield from self.rest()

    def rest(self) -> Iterator[bytes]:
        yield b"".join(self._waiting)
        self._waiting, self._size = [], 0


def _until_mark(found: Iterator[bytes]) -> Iterator[bytes]:
    for item in found:
        if item == MARK:
            return
        yield item
    raise Malformed("it ends in the middle")


def _oplog_header(ends: bool, crc: int) -> bytes:
    """Return the document before a block of the oplog: db, collection, EOF, CRC."""
    names = [(name, 0x02, struct.pack("<i", len(text) + 1) + text + b"\0") for name, text in _OPLOG]
    return bson.built([*names, ("EOF", 0x08, bytes([ends])), ("CRC", 0x12, struct.pack("<Q", crc))])
