"""Which entries of the oplog are replayed, and in which form mongorestore gets them.

The rules are those of `mongorestore --oplogReplay` (mongodb/mongo-tools, mongorestore/oplog.go and common/txn), applied
before it is started: docs/decisions/0025. mongorestore itself drops `ui`, collects transactions until they are
committed, and builds indexes at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

from berth.backup import bson
from berth.backup.bson import ARRAY, DOCUMENT, Malformed, Timestamp

# Prefix of restored collections, next to the live ones in the same database, until they are renamed.
STAGED = "berth_restore."

WRITES = ("i", "u", "d")
# No-ops, and a server's internal records: container operations, multikey changes.
SKIPPED = ("n", "ci", "cu", "cd", "km")
COMMANDS = (
    "create",
    "drop",
    "dropDatabase",
    "renameCollection",
    "convertToCapped",
    "emptycapped",
    "collMod",
    "createIndexes",
    "commitIndexBuild",
    "dropIndexes",
    "dropIndex",
    "deleteIndexes",
    "deleteIndex",
    "dbCheck",
)
# An index counts once its build is committed; the others are about one server's storage.
SKIPPED_COMMANDS = ("startIndexBuild", "abortIndexBuild", "setMultikeyMetadata", "dropIdent")
ENDS_TRANSACTION = ("commitTransaction", "abortTransaction")


class Unreplayable(Exception):  # noqa: N818  # "raise Unreplayable" says it
    """An entry that mongorestore could not replay, or only in part. The text names it."""

    def __init__(self, why: str, at: Timestamp | None = None) -> None:
        super().__init__(why)
        self.at = at


def is_data(namespace: str) -> bool:
    """Tell whether it is the owner's data, not the server's own, whose accounts come from the vault."""
    return not namespace.startswith(("admin.", "config.", "local.", "__mdb_internal"))


def is_staged(name: str, command: str = "") -> bool:
    """Tell whether a collection, or the first argument of a database's command, is a staged one."""
    database = command.removesuffix("$cmd")
    if command and not name.startswith(database):
        name = database + name
    return name.partition(".")[2].startswith(STAGED)


class Replay:
    """Takes each entry in order; returns what mongorestore gets: nothing, the entry, or a rewritten form."""

    def __init__(self) -> None:
        # The newest entry of each transaction that has not ended, by session and number.
        self._open: dict[tuple[bytes, int], Timestamp] = {}

    def dumped(self, entry: bytes) -> list[bytes]:
        """Take an entry of the dump's own oplog. Raises Unreplayable and Malformed.

        The beginning of a transaction may be missing: mongodump's oplog begins with the oldest open transaction, so
        this one was committed before the dump, which has all of it.
        """
        return self._take(entry, may_begin_before=True)

    def saved(self, entry: bytes) -> list[bytes]:
        """Take an entry that was saved after the dump. Raises Unreplayable and Malformed.

        mongorestore would replay a partial transaction without an error.
        """
        return self._take(entry, may_begin_before=False)

    def _take(self, entry: bytes, may_begin_before: bool) -> list[bytes]:
        at = bson.timestamp(entry)
        try:
            if not may_begin_before and _ends_restore(entry):
                raise Unreplayable("the end of a restore, whose result is in a later run alone")
            self._follow(entry, at, may_begin_before)
            return list(_replayed(entry))
        except Unreplayable as error:
            raise Unreplayable(str(error), at) from None

    def _follow(self, entry: bytes, at: Timestamp, may_begin_before: bool) -> None:
        """Each entry of a transaction names the one before it (prevOpTime); none may be missing."""
        known = _transaction(entry)
        if known is None:
            return
        previous = bson.plain(bson.inner(entry, "prevOpTime")).get("ts", Timestamp(0, 0))
        missing = previous != Timestamp(0, 0) and self._open.get(known) != previous
        if missing and not may_begin_before:
            raise Unreplayable("a transaction whose beginning was not saved")
        names = {name for name, _, _ in bson.fields(bson.inner(entry, "o"))}
        if names & {"prepare", "partialTxn"}:
            self._open[known] = at
        else:
            self._open.pop(known, None)


def _ends_restore(entry: bytes) -> bool:
    """Tell whether a staged collection was renamed to its live name: what was copied into it is not replayed."""
    if bson.plain(entry).get("op") != "c":
        return False
    return is_staged(str(bson.plain(bson.inner(entry, "o")).get("renameCollection", "")))


def _transaction(entry: bytes) -> tuple[bytes, int] | None:
    """Return session and number of the transaction that this entry belongs to.

    A vectored insert has both too, but is complete by itself (multiOpType 1).
    """
    found = bson.plain(entry)
    if found.get("op") != "c" or found.get("multiOpType") == 1 or "txnNumber" not in found:
        return None
    session, names = bson.inner(entry, "lsid"), [name for name, _, _ in bson.fields(bson.inner(entry, "o"))]
    if session == bson.EMPTY or not {"applyOps", *ENDS_TRANSACTION} & {*names}:
        return None
    return session, found["txnNumber"]


def _replayed(entry: bytes) -> Iterator[bytes]:
    found = bson.plain(entry)
    kind, namespace = found.get("op"), str(found.get("ns", ""))
    if kind in SKIPPED:
        return
    if kind == "c":
        yield from _command(entry, namespace)
    elif kind not in WRITES:
        raise Unreplayable(f"an operation of kind {kind}")
    elif is_data(namespace) and not is_staged(namespace):
        yield from _single_inserts(entry) if kind == "i" else (entry,)


def _single_inserts(entry: bytes) -> Iterator[bytes]:
    """Yield an insert for each document where `o` is an array of them, which mongorestore does not read."""
    values = list(bson.fields(entry))
    [inserted] = [(kind, raw) for name, kind, raw in values if name == "o"] or [(0, b"")]
    if inserted[0] == DOCUMENT:
        yield entry
    elif inserted[0] == ARRAY:
        for document in _documents(inserted[1]):
            yield bson.built(("o", DOCUMENT, document) if one[0] == "o" else one for one in values)
    else:
        raise Malformed("an insert without a document")


def _command(entry: bytes, namespace: str) -> Iterator[bytes]:
    command = bson.inner(entry, "o")
    values = list(bson.fields(command))
    if not values:
        raise Malformed("a command without a name")
    name = values[0][0]
    if any(one == "applyOps" for one, _, _ in values):
        yield from _many(entry, command)
    elif name in ENDS_TRANSACTION:
        yield entry
    elif name not in SKIPPED_COMMANDS and _is_about_data(namespace, command):
        if name not in COMMANDS:
            raise Unreplayable(f"the command {name}")
        yield entry


def _is_about_data(namespace: str, command: bytes) -> bool:
    first = next(iter(bson.plain(command).values()), "")
    # Names the database too, whatever database the entry stands under.
    target = str(first) if next(bson.fields(command))[0] == "renameCollection" else namespace
    return is_data(target) and not is_staged(str(first), namespace)


def _many(entry: bytes, command: bytes) -> Iterator[bytes]:
    """Yield the entry with those of its operations that are replayed.

    An entry that ends a transaction stays even without any: earlier entries wait for it.
    """
    operations = list(_documents(bson.inner(command, "applyOps")))
    kept = [one for operation in operations for one in _replayed(operation)]
    if not kept and not _transaction(entry):
        return
    if kept == operations:
        yield entry
    else:
        yield _with(entry, "o", DOCUMENT, _with(command, "applyOps", ARRAY, bson.array(kept)))


def _with(document: bytes, name: str, kind: int, raw: bytes) -> bytes:
    return bson.built((name, kind, raw) if one[0] == name else one for one in bson.fields(document))


def _documents(array: bytes) -> Iterator[bytes]:
    for _, kind, raw in bson.fields(array):
        if kind != DOCUMENT:
            raise Malformed("an operation that is not a document")
        yield raw
