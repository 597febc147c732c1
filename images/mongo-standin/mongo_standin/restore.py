"""The command line of MongoDB's mongorestore, as far as Berth uses it, for SecantusDB. See README.md."""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import bson
from bson import Timestamp, json_util
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.errors import BulkWriteError, PyMongoError

from mongo_standin.archive import Damaged, Reader, read_exactly
from mongo_standin.common import Parser, connect, say
from mongo_standin.oplog import Oplog

BATCH_BYTES = 8 * 1024 * 1024
OPLOG = ("", "oplog")
USERS = ("admin", "system.users")


class Pattern:
    """A namespace with asterisks, or with $names$ that --nsTo takes up again."""

    def __init__(self, text: str) -> None:
        parts = re.split(r"(\*|\$\w+\$)", text)
        self._names = [part.strip("$") if part != "*" else f"*{i}" for i, part in enumerate(parts[1::2])]
        self._test = re.compile("".join("(.*)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))
        self._parts = parts

    def matches(self, namespace: str) -> bool:
        return bool(self._test.fullmatch(namespace))

    def becomes(self, namespace: str, to: Pattern) -> str | None:
        found = self._test.fullmatch(namespace)
        if not found:
            return None
        values = dict(zip(self._names, found.groups(), strict=True))
        names = iter(to._names)
        return "".join(values[next(names)] if i % 2 else part for i, part in enumerate(to._parts))


@dataclass
class Restore:
    client: MongoClient[Any]
    asked: Any
    restored: int = 0
    failed: int = 0
    # Index documents by namespace and name, built when everything else is done.
    indexes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def target(self, database: str, name: str) -> str | None:
        """Return where a namespace goes, or None where it is not wanted."""
        namespace = f"{database}.{name}"
        if self.asked.db and (database != self.asked.db or self.asked.collection not in ("", name)):
            return None
        included = [Pattern(text) for text in self.asked.nsInclude]
        if included and not any(one.matches(namespace) for one in included):
            return None
        if any(Pattern(text).matches(namespace) for text in self.asked.nsExclude):
            return None
        for old, new in zip(self.asked.nsFrom, self.asked.nsTo, strict=True):
            if renamed := Pattern(old).becomes(namespace, Pattern(new)):
                return renamed
        return namespace

    def collection(self, namespace: str) -> Any:
        database, _, name = namespace.partition(".")
        return self.client[database][name]

    def archive(self, source: BinaryIO) -> None:
        reader = Reader(source)
        targets = {}
        for one in reader.collections:
            key = (one["db"], one["collection"])
            namespace = None if key == OPLOG else self.target(*key)
            if namespace:
                targets[key] = namespace
        has_oplog = any((one["db"], one["collection"]) == OPLOG for one in reader.collections)
        if self.asked.oplogReplay and not has_oplog:
            raise ValueError("no oplog file to replay; make sure you run mongodump with --oplog")
        if self.asked.dryRun:
            for namespace in targets.values():
                say(f"would restore {namespace}")
            say("dry run completed")
            return
        for one in reader.collections:
            key = (one["db"], one["collection"])
            if key in targets and key != USERS:
                self.prepare(targets[key], json_util.loads(one["metadata"]))
        entries = self.documents(reader, targets)
        if self.asked.oplogReplay:
            say("replaying oplog")
            oplog = Oplog(self.client, self.indexes)
            oplog.replay(entries, self.asked.oplogLimit)
            say(f"applied {oplog.applied} oplog entries")
        for _ in entries:
            pass
        self.build_indexes()

    def prepare(self, namespace: str, metadata: dict[str, Any]) -> None:
        database, _, name = namespace.partition(".")
        there = name in self.client[database].list_collection_names()
        if there and self.asked.drop:
            self.collection(namespace).drop()
            there = False
        if not there:
            self.client[database].command({"create": name, **metadata.get("options", {})})
        self.indexes[namespace] = {one["name"]: one for one in metadata.get("indexes", [])}

    def documents(self, reader: Reader, targets: dict[tuple[str, str], str]) -> Iterator[dict[str, Any]]:
        """Insert documents; give the entries of the oplog, which comes last."""
        waiting: dict[str, list[RawBSONDocument]] = {}
        sizes: dict[str, int] = {}
        for database, name, document in reader:
            if (database, name) == OPLOG:
                for namespace in list(waiting):
                    self.insert(namespace, waiting.pop(namespace))
                if document is not None:
                    yield bson.decode(document)
                continue
            namespace = targets.get((database, name), "")
            if not namespace:
                continue
            if (database, name) == USERS:
                if document is not None:
                    self.user(bson.decode(document))
                continue
            if document is not None:
                waiting.setdefault(namespace, []).append(RawBSONDocument(document))
                sizes[namespace] = sizes.get(namespace, 0) + len(document)
            if document is None or sizes[namespace] > BATCH_BYTES:
                self.insert(namespace, waiting.pop(namespace, []))
                sizes[namespace] = 0

    def insert(self, namespace: str, documents: list[RawBSONDocument]) -> None:
        if not documents:
            return
        try:
            self.collection(namespace).insert_many(documents, ordered=False)
            self.restored += len(documents)
        except BulkWriteError as error:
            errors = error.details["writeErrors"]
            self.failed += len(errors)
            self.restored += len(documents) - len(errors)
            say(f"{namespace}: {plain(errors[0])['errmsg']}")

    def user(self, user: dict[str, Any]) -> None:
        """Give back roles. A password cannot be set from what was dumped, so a user who is not here is not made."""
        database = self.client[user["db"]]
        there = plain(database.command({"usersInfo": user["user"]}))["users"]
        if there:
            database.command({"updateUser": user["user"], "roles": user["roles"]})
        else:
            say(f"the stand-in cannot make user {user['_id']} without a password")

    def build_indexes(self) -> None:
        if self.asked.noIndexRestore:
            return
        for namespace, wanted in self.indexes.items():
            database, _, name = namespace.partition(".")
            specs = [
                {key: value for key, value in one.items() if key not in ("ns", "entryFormat")}
                for one in wanted.values()
                if one["name"] != "_id_"
            ]
            if specs:
                self.client[database].command({"createIndexes": name, "indexes": specs})


def plain(document: Any) -> dict[str, Any]:
    return bson.decode(document.raw) if isinstance(document, RawBSONDocument) else document


def raw_documents(source: BinaryIO) -> Iterator[RawBSONDocument]:
    while head := source.read(4):
        yield RawBSONDocument(head + read_exactly(source, int.from_bytes(head, "little") - 4))


def timestamp(text: str) -> Timestamp:
    seconds, _, ordinal = text.partition(":")
    return Timestamp(int(seconds), int(ordinal or 0))


def main() -> None:
    parser = Parser("mongorestore", "Reads what mongodump wrote from standard input.")
    for option in ("drop", "dryRun", "oplogReplay", "noIndexRestore", "stopOnError", "maintainInsertionOrder"):
        parser.add_argument(f"--{option}", action="store_true")
    for option in ("nsInclude", "nsExclude", "nsFrom", "nsTo"):
        parser.add_argument(f"--{option}", action="append", default=[])
    parser.add_argument("--oplogLimit", type=timestamp)
    parser.add_argument("--numInsertionWorkersPerCollection", type=int, default=1)
    parser.add_argument("--dir", default="")
    asked = parser.parse_args()
    if asked.oplogReplay and (asked.nsInclude or asked.db):
        raise ValueError("cannot use --oplogReplay with includes specified")
    if asked.oplogReplay and asked.nsExclude:
        raise ValueError("cannot use --oplogReplay with excludes specified")
    if asked.oplogReplay and asked.nsFrom:
        raise ValueError("cannot use --oplogReplay with namespace renames specified")
    if asked.oplogLimit and not asked.oplogReplay:
        raise ValueError("cannot use --oplogLimit without --oplogReplay enabled")
    if len(asked.nsFrom) != len(asked.nsTo):
        raise ValueError("--nsFrom and --nsTo must be specified an equal number of times")
    if (asked.archive, asked.dir) not in (("-", ""), (None, "-")):
        raise ValueError("the stand-in reads from standard input only: --archive or --dir=-")
    source: Any = gzip.GzipFile(fileobj=sys.stdin.buffer) if asked.gzip else sys.stdin.buffer
    restore = Restore(connect(asked), asked)
    try:
        if asked.archive:
            restore.archive(source)
        elif not asked.collection:
            raise ValueError("cannot restore from stdin without a specified collection")
        elif not asked.dryRun:
            namespace = f"{asked.db}.{asked.collection}"
            restore.prepare(namespace, {})
            restore.insert(namespace, list(raw_documents(source)))
    finally:
        summary = (
            f"{restore.restored} document(s) restored successfully. {restore.failed} document(s) failed to restore."
        )
        say(summary)


if __name__ == "__main__":
    try:
        main()
    except (PyMongoError, OSError, EOFError, ValueError, Damaged, bson.errors.BSONError) as error:
        say(f"Failed: {error}")
        sys.exit(1)
