"""The command line of MongoDB's mongodump, as far as Berth uses it, for SecantusDB. See README.md."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import bson
from bson import Timestamp, json_util
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from mongo_standin.archive import Writer
from mongo_standin.common import TOOL_VERSION, Parser, connect, say

# As the official tool: what belongs to the server and not to its owner.
NOT_DUMPED = ("local", "config")


def plain(document: Any) -> dict[str, Any]:
    return bson.decode(document.raw) if isinstance(document, RawBSONDocument) else dict(document)


def metadata(client: MongoClient[Any], database: str, info: dict[str, Any]) -> dict[str, Any]:
    name, kind = info["name"], info["type"]
    indexes = [] if kind == "view" else [plain(one) for one in client[database][name].list_indexes()]
    for index in indexes:
        # A mark of the stand-in's storage that no MongoDB would take.
        index.pop("entryFormat", None)
    text = {"options": info["options"], "indexes": indexes, "collectionName": name, "type": kind}
    if uuid := info["info"].get("uuid"):
        text["uuid"] = uuid.hex() if isinstance(uuid, bytes) else uuid.hex
    return {
        "db": database,
        "collection": name,
        "metadata": json_util.dumps(text, json_options=json_util.CANONICAL_JSON_OPTIONS),
        "size": 0,
        "type": kind,
    }


def collections(client: MongoClient[Any], asked: Any) -> list[dict[str, Any]]:
    databases = [asked.db] if asked.db else sorted(set(client.list_database_names()) - {*NOT_DUMPED, "admin"})
    found = []
    for database in databases:
        infos = [plain(one) for one in client[database].list_collections()]
        for info in sorted(infos, key=lambda one: str(one["name"])):
            # Of a database's own system collections, stored functions alone are data.
            wanted = info["name"] == "system.js" or not info["name"].startswith("system.")
            if wanted and asked.collection in ("", info["name"]):
                found.append(metadata(client, database, info))
    if not asked.db:
        text = '{"options":{},"indexes":[],"collectionName":"system.users","type":"collection"}'
        found.append({"db": "admin", "collection": "system.users", "metadata": text, "size": 0, "type": "collection"})
    return found


def documents(client: MongoClient[Any], one: dict[str, Any], query: Any) -> Iterator[bytes]:
    if (one["db"], one["collection"]) == ("admin", "system.users"):
        for short in client.admin["system.users"].find():
            asked = {"usersInfo": {"user": short["user"], "db": short["db"]}, "showCredentials": True}
            for user in plain(client.admin.command(asked))["users"]:
                yield bson.encode(user)
        return
    yield from client[one["db"]][one["collection"]].find_raw_batches(query)


def last_entry(client: MongoClient[Any]) -> Timestamp:
    newest = client.local["oplog.rs"].find(sort=[("$natural", -1)], limit=1)
    found: Timestamp = next(iter(newest))["ts"]
    return found


def dump(client: MongoClient[Any], asked: Any, out: BinaryIO) -> None:
    chosen = collections(client, asked)
    if asked.collection and not chosen and asked.db not in NOT_DUMPED:
        raise ValueError(f"no collection {asked.db}.{asked.collection}")
    if asked.out == "-":
        for batch in client[asked.db][asked.collection].find_raw_batches(asked.query):
            out.write(batch)
        return
    start = last_entry(client) if asked.oplog else None
    writer = Writer(out)
    oplog = [{"db": "", "collection": "oplog", "metadata": "", "size": 0, "type": ""}] if asked.oplog else []
    writer.prelude(plain(client.admin.command("buildInfo"))["version"], TOOL_VERSION, chosen + oplog)
    for one in chosen:
        if one["type"] != "view":
            size = writer.collection(one["db"], one["collection"], documents(client, one, asked.query))
            say(f"done dumping {one['db']}.{one['collection']} ({size} bytes)")
    if start:
        since = {"ts": {"$gte": start, "$lte": last_entry(client)}}
        writer.collection("", "oplog", restorable(client.local["oplog.rs"].find_raw_batches(since)))


def restorable(batches: Iterable[bytes]) -> Iterator[bytes]:
    """Refuse, as the official tool does, what happened meanwhile and could not be replayed on this dump."""
    for batch in batches:
        for entry in bson.decode_all(batch):
            if entry.get("ns") == "admin.system.version":
                raise ValueError("cannot dump with oplog if admin.system.version is modified")
            if "renameCollection" in entry["o"]:
                raise ValueError("cannot dump with oplog while renames occur")
        yield batch


def main() -> None:
    parser = Parser("mongodump", "Writes documents, users, indexes and, with --oplog, the changes meanwhile.")
    parser.add_argument("--oplog", action="store_true")
    parser.add_argument("--query", type=json_util.loads)
    parser.add_argument("--out", default="")
    asked = parser.parse_args()
    if asked.collection and not asked.db:
        parser.error("cannot dump a collection without a specified database")
    if asked.query is not None and not asked.collection:
        parser.error("cannot dump using a query without a specified collection")
    if asked.oplog and asked.db:
        parser.error("--oplog mode only supported on full dumps")
    if asked.out == "-" and not asked.collection:
        parser.error("can only dump a single collection to stdout")
    if (asked.archive, asked.out) not in (("-", ""), (None, "-")):
        parser.error("the stand-in writes to standard output only: --archive or --out=-")
    out: Any = sys.stdout.buffer
    if asked.gzip:
        with gzip.open(out, "wb", compresslevel=6) as packed:
            dump(connect(asked), asked, packed)
    else:
        dump(connect(asked), asked, out)
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except (PyMongoError, OSError, ValueError, StopIteration) as error:
        say(f"Failed: {error or 'no oplog'}")
        sys.exit(1)
