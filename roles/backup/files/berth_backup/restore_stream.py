"""What mongorestore is given: the dump without the server's accounts, its oplog continued by what was saved later."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Iterator
from functools import cache

from berth_backup import bson
from berth_backup.archive import MAGIC, MARK
from berth_backup.bson import Malformed

# What is restored stands under this name beside what is live, in the same database, until it is renamed.
STAGED = "berth_restore."
# Pieces of about this size are handed on.
PIECE = 1024 * 1024


@cache
def _library() -> ctypes.CDLL:
    # Debian's dpkg needs it, so it is on every host; mongodump's checksum is the one of xz.
    found = ctypes.CDLL("liblzma.so.5")
    found.lzma_crc64.restype = ctypes.c_uint64
    found.lzma_crc64.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    return found


def crc64(data: bytes, before: int) -> int:
    return int(_library().lzma_crc64(data, len(data), before))


def is_data(namespace: str) -> bool:
    """Tell what belongs to the owner from what belongs to the server, whose accounts come from the vault."""
    return not namespace.startswith(("admin.", "config."))


def is_replayed(entry: bytes) -> bool:
    """Tell whether an entry of the oplog is the owner's; transactions stand under admin.$cmd.

    What a restore did with its own collections (STAGED) is not: a dump begins with the entry before it, which would
    rename one that is in no dump.
    """
    namespace = str(bson.plain(entry).get("ns", ""))
    if namespace.endswith(".$cmd"):
        command = bson.inner(entry, "o")
        many = [raw for _, kind, raw in bson.fields(bson.inner(command, "applyOps")) if kind == 0x03]
        if many:
            return not all(is_staged(str(bson.plain(one).get("ns", ""))) for one in many)
        first = next(iter(bson.plain(command).values()), "")
        return namespace == "admin.$cmd" or (is_data(namespace) and not is_staged(str(first), namespace))
    return namespace == "admin.$cmd" or (is_data(namespace) and not is_staged(namespace))


def is_staged(name: str, command: str = "") -> bool:
    """Tell whether a collection, or what a command of a database names first, stands beside a live one."""
    database = command.removesuffix("$cmd")
    if command and not name.startswith(database):
        name = database + name
    return name.partition(".")[2].startswith(STAGED)


def compose(pieces: Iterable[bytes], later: Iterable[bytes] = ()) -> Iterator[bytes]:
    """Yield an archive made of another one; `later` are entries that follow those of its oplog."""
    writer = _Writer()
    items = _items(pieces)
    if next(items, b"") != MAGIC:
        raise Malformed("not an archive of mongodump")
    writer.add(MAGIC, next(items, b""))
    for about in _until_mark(items):
        found = bson.plain(about)
        if not found["db"] or is_data(f"{found['db']}.{found['collection']}"):
            writer.add(about)
    writer.add(MARK)
    crc = 0
    for header in items:
        found = bson.plain(header)
        is_oplog, is_end = not found["db"], bool(found["EOF"])
        if is_oplog and is_end:
            for _ in _until_mark(items):
                raise Malformed("documents after the end of the oplog")
            writer.add(_header(ends=False, crc=0))
            for entry in later:
                if is_replayed(entry):
                    writer.add(entry)
                    crc = crc64(entry, crc)
                    yield from writer.full()
            writer.add(MARK, _header(ends=True, crc=crc), MARK)
            continue
        wanted = is_oplog or is_data(f"{found['db']}.{found['collection']}")
        if wanted:
            writer.add(header)
        for document in _until_mark(items):
            if is_oplog and is_replayed(document):
                crc = crc64(document, crc)
                writer.add(document)
            elif wanted and not is_oplog:
                writer.add(document)
            yield from writer.full()
        if wanted:
            writer.add(MARK)
    yield from writer.rest()


class _Writer:
    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0

    def add(self, *items: bytes) -> None:
        self._waiting += items
        self._size += sum(map(len, items))

    def full(self) -> Iterator[bytes]:
        if self._size >= PIECE:
            yield from self.rest()

    def rest(self) -> Iterator[bytes]:
        yield b"".join(self._waiting)
        self._waiting, self._size = [], 0


def _items(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield documents and marks, however the pieces fall."""
    rest = b""
    for piece in pieces:
        data = rest + piece
        at = 0
        while len(data) - at >= 4:
            length = 4 if data[at : at + 4] in (MARK, MAGIC) else bson.size(data, at)
            if at + length > len(data):
                break
            yield data[at : at + length]
            at += length
        rest = data[at:]
    if rest:
        raise Malformed("the archive ends in the middle")


def _until_mark(items: Iterator[bytes]) -> Iterator[bytes]:
    for item in items:
        if item == MARK:
            return
        yield item
    raise Malformed("the archive ends in the middle")


def _header(ends: bool, crc: int) -> bytes:
    """The document before a block of the oplog, as BSON: db, collection, EOF, CRC."""
    body = b"\x02db\0" + _string("") + b"\x02collection\0" + _string("oplog")
    body += b"\x08EOF\0" + (b"\1" if ends else b"\0") + b"\x12CRC\0" + struct.pack("<Q", crc)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def _string(text: str) -> bytes:
    return struct.pack("<i", len(text) + 1) + text.encode() + b"\0"
