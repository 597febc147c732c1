"""Replays an oplog as mongorestore --oplogReplay does, as far as SecantusDB can: skips, transactions, vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import bson
from bson import Timestamp
from pymongo import DeleteOne, MongoClient, ReplaceOne, UpdateOne

BATCH_OPERATIONS = 1000
SKIPPED = ("n", "ci", "cu", "cd", "km")
SKIPPED_COMMANDS = ("startIndexBuild", "abortIndexBuild", "setMultikeyMetadata", "dropIdent")


class Oplog:
    """Applies entries to a server. Indexes are noted by namespace and name, and built by whoever asked."""

    def __init__(self, client: MongoClient[Any], indexes: dict[str, dict[str, dict[str, Any]]]) -> None:
        self.client, self.indexes = client, indexes
        self.applied = 0
        # Writes to one collection in a row are sent together.
        self._waiting: list[Any] = []
        self._target = ""
        # Of transactions that are not committed yet, by session and number.
        self._open: dict[tuple[bytes, int], list[dict[str, Any]]] = {}

    def replay(self, entries: Iterable[dict[str, Any]], limit: Timestamp | None) -> None:
        """Apply entries up to a time, which itself is not applied."""
        for entry in entries:
            if limit and entry["ts"] >= limit:
                break
            if is_transaction(entry):
                self._transaction(entry)
            else:
                self._apply(entry)
        self._flush()

    def _apply(self, entry: dict[str, Any]) -> None:
        namespace, o = entry["ns"], entry["o"]
        if entry["op"] in SKIPPED or namespace.startswith(("config.", "__mdb_internal")):
            return
        if entry["op"] == "c":
            verb = next(iter(o))
            if verb == "applyOps":
                for one in o["applyOps"]:
                    self._apply(one)
            elif verb not in SKIPPED_COMMANDS:
                self._flush()
                self.applied += 1
                self._command(namespace.partition(".")[0], verb, o)
            return
        self.applied += 1
        if namespace != self._target or len(self._waiting) >= BATCH_OPERATIONS:
            self._flush()
            self._target = namespace
        self._waiting += operations(entry)

    def _transaction(self, entry: dict[str, Any]) -> None:
        known, o = (bson.encode(entry["lsid"]), entry["txnNumber"]), entry["o"]
        self._open.setdefault(known, []).extend(o.get("applyOps", []))
        if "prepare" in o or "partialTxn" in o:
            return
        operations = self._open.pop(known)
        for one in operations if "abortTransaction" not in o else ():
            self._apply(one)

    def _flush(self) -> None:
        if self._waiting:
            database, _, name = self._target.partition(".")
            self.client[database][name].bulk_write(self._waiting, ordered=True)
            self._waiting = []

    def _command(self, database: str, verb: str, o: dict[str, Any]) -> None:
        name = o[verb]
        namespace = f"{database}.{name}"
        match verb:
            case "create":
                if name not in self.client[database].list_collection_names():
                    self.client[database].command({k: v for k, v in o.items() if k != "idIndex"})
                    self.indexes[namespace] = {}
            case "drop":
                self.client[database].drop_collection(name)
                self.indexes.pop(namespace, None)
            case "dropDatabase":
                self.client.drop_database(database)
                for one in [one for one in self.indexes if one.startswith(f"{database}.")]:
                    del self.indexes[one]
            case "renameCollection":
                self.client.admin.command({verb: name, "to": o["to"], "dropTarget": bool(o.get("dropTarget"))})
                self.indexes[o["to"]] = self.indexes.pop(name, {})
            case "createIndexes" | "commitIndexBuild":
                # MongoDB notes one index as the command itself; the stand-in has a list of them always.
                own = [{key: value for key, value in o.items() if key != verb}]
                self.indexes.setdefault(namespace, {}).update({one["name"]: one for one in o.get("indexes", own)})
            case "dropIndexes" | "dropIndex" | "deleteIndexes" | "deleteIndex":
                self.indexes.get(namespace, {}).pop(o["index"], None)
            case "collMod":
                self.client[database].command(o)
            case _:
                raise ValueError(f"unknown oplog command name {verb}")


def is_transaction(entry: dict[str, Any]) -> bool:
    """Tell an entry of a transaction from a vectored insert, which has a session and a number too."""
    if entry["op"] != "c" or entry.get("multiOpType") == 1 or "lsid" not in entry or "txnNumber" not in entry:
        return False
    return bool({"applyOps", "commitTransaction", "abortTransaction"} & {*entry["o"]})


def operations(entry: dict[str, Any]) -> list[Any]:
    """What an entry of the stand-in's oplog asks for. Each may be done twice, as in the official tool."""
    o = entry["o"]
    if entry["op"] == "d":
        return [DeleteOne({"_id": o["_id"]})]
    if entry["op"] == "i":
        return [ReplaceOne({"_id": o["_id"]}, o, upsert=True)]
    same = {"_id": entry["o2"]["_id"]}
    if o.get("$v") != 2:
        return [ReplaceOne(same, o)]
    # Not mongod's own form of a change, which is why the official tool could not replay it.
    diff = o["diff"]
    shortened = {one["field"]: {"$each": [], "$slice": one["newSize"]} for one in diff.get("truncatedArrays", [])}
    steps = [
        ("$push", shortened),
        ("$unset", dict.fromkeys(diff.get("removedFields", []), "")),
        ("$set", diff.get("updatedFields", {})),
    ]
    return [UpdateOne(same, {operator: fields}) for operator, fields in steps if fields]
