"""The stand-ins of mongodump and mongorestore do what MongoDB's own are documented to do, as far as we rely on it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Timestamp
from mongo_standin.archive import Damaged, Reader, Writer, crc64
from mongo_standin.server import Compatibility, Version
from mongo_standin.server import Refused as Unwanted
from pymongo import MongoClient
from pymongo.errors import OperationFailure

IMAGE = os.environ.get("MONGO_IMAGE", "localhost/berth/mongo-standin:8")
PASSWORD = 'it\'s: "quoted" # here'
# How Berth calls the tools: the password comes from a file of the container and is on no command line.
CALL = """exec "$@" --config=/dev/fd/3 3<<END
password: '$(cat /run/secrets/mongo_root_password | sed "s/'/''/g")'
END
"""


@dataclass
class Database:
    name: str
    client: MongoClient[Any]

    def tool(self, name: str, *options: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        access = ("--host=127.0.0.1", "--port=27017", "--username=root", "--authenticationDatabase=admin")
        command = ("docker", "exec", "-i", self.name, "sh", "-c", CALL, name, name, *access, *options)
        return subprocess.run(command, input=given, capture_output=True, check=False)

    def dump(self, *options: str) -> bytes:
        done = self.tool("mongodump", "--archive", *options)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def restore(self, archive: bytes, *options: str) -> str:
        done = self.tool("mongorestore", "--archive", *options, given=archive)
        assert done.returncode == 0, done.stderr.decode()
        return done.stderr.decode()

    def all(self, namespace: str) -> list[dict[str, Any]]:
        database, _, name = namespace.partition(".")
        return list(self.client[database][name].find(sort=[("_id", 1)]))


@pytest.fixture(scope="session")
def standin() -> str:
    """Name the image; where MongoDB itself is pulled there is none."""
    if "mongo-standin" not in IMAGE:
        pytest.skip(f"{IMAGE} is no stand-in")
    return IMAGE


@pytest.fixture(scope="session")
def running(standin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    name = f"berth-standin-{uuid.uuid4().hex[:8]}"
    secrets = tmp_path_factory.mktemp("secrets")
    (secrets / "mongo_root_password").write_text(PASSWORD + "\n")
    (secrets / "mongo_root_password").chmod(0o444)
    secrets.chmod(0o755)
    environment = {"ROOT_USERNAME": "root", "ROOT_PASSWORD_FILE": "/run/secrets/mongo_root_password"}
    given = [f"--env=MONGO_INITDB_{key}={value}" for key, value in environment.items()]
    options = ("--read-only", "--tmpfs=/tmp", f"--volume={secrets}:/run/secrets:ro", "--publish=127.0.0.1::27017")
    started = (
        "docker",
        "run",
        "--detach",
        f"--name={name}",
        *options,
        *given,
        standin,
        "mongod",
        "--auth",
        "--bind_ip_all",
    )
    subprocess.run(started, check=True, capture_output=True)
    try:
        port = subprocess.run(["docker", "port", name, "27017"], check=True, capture_output=True, text=True).stdout
        address = f"mongodb://{port.split()[0]}/?directConnection=true"
        client: MongoClient[Any] = MongoClient(address, username="root", password=PASSWORD, tz_aware=True)
        end = time.monotonic() + 60
        while True:
            try:
                client.admin.command("ping")
                break
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        yield Database(name, client)
        client.close()
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True)


@pytest.fixture
def database(running: Database) -> Iterator[Database]:
    yield running
    for name in running.client.list_database_names():
        if name not in ("admin", "local", "config"):
            running.client.drop_database(name)


def fill(database: Database) -> None:
    shop = database.client.shop
    shop.orders.create_index("number", unique=True, name="number_1")
    shop.orders.insert_many([{"_id": one, "number": one, "lines": [{"n": one}] * 3} for one in range(300)])
    shop.create_collection("log", capped=True, size=4096)
    shop.log.insert_one({"_id": "first"})
    database.client.other.things.insert_one({"_id": 1})


@pytest.mark.integration
def test_what_was_dumped_comes_back_with_options_and_indexes(database: Database) -> None:
    fill(database)
    before = {name: database.all(name) for name in ("shop.orders", "shop.log", "other.things")}
    archive = database.dump("--oplog")
    database.client.shop.orders.drop()
    database.client.shop.log.insert_one({"_id": "second"})
    said = database.restore(archive, "--drop")
    assert "302 document(s) restored successfully. 0 document(s) failed to restore." in said
    assert {name: database.all(name) for name in before} == before
    assert database.client.shop.orders.index_information()["number_1"]["unique"] is True
    assert database.client.shop.log.options()["capped"] is True


@pytest.mark.integration
def test_without_drop_what_is_there_stays_and_duplicates_are_counted(database: Database) -> None:
    fill(database)
    archive = database.dump()
    database.client.shop.orders.delete_many({"_id": {"$lt": 10}})
    said = database.restore(archive, "--nsInclude=shop.orders")
    assert "10 document(s) restored successfully. 290 document(s) failed to restore." in said
    assert len(database.all("shop.orders")) == 300


@pytest.mark.integration
def test_one_collection_is_restored_beside_the_live_one(database: Database) -> None:
    fill(database)
    archive = database.dump()
    database.restore(archive, "--nsInclude=shop.*", "--nsExclude=shop.log", "--nsFrom=shop.*", "--nsTo=beside.*")
    assert database.all("beside.orders") == database.all("shop.orders")
    assert database.client.beside.list_collection_names() == ["orders"]


@pytest.mark.integration
def test_the_oplog_leads_to_the_moment_before_the_mistake(database: Database) -> None:
    fill(database)
    archive = database.dump("--oplog")
    since = next(bson.decode(one)["ts"] for _, name, one in Reader(io.BytesIO(archive)) if name == "oplog" and one)
    shop = database.client.shop
    shop.orders.update_one({"_id": 1}, {"$set": {"lines.1.n": 99, "note": "x"}, "$unset": {"number": ""}})
    shop.orders.update_one({"_id": 2}, {"$push": {"lines": {"n": 4}}})
    shop.orders.update_one({"_id": 3}, {"$pop": {"lines": 1}})
    shop.orders.replace_one({"_id": 4}, {"number": -4})
    shop.orders.delete_one({"_id": 5})
    shop.fresh.insert_one({"_id": "new"})
    shop.fresh.create_index("a", name="a_1")
    shop.fresh.rename("moved")
    shop.orders.drop_index("number_1")
    with database.client.start_session() as session, session.start_transaction():
        shop.orders.insert_one({"_id": "both"}, session=session)
        shop.moved.insert_one({"_id": "both"}, session=session)
    wanted = {name: database.all(name) for name in ("shop.orders", "shop.moved", "shop.log")}
    shop.orders.drop()
    shop.moved.update_many({}, {"$set": {"late": True}})
    query = json.dumps({"ts": {"$gte": {"$timestamp": {"t": since.time, "i": since.inc}}}})
    entries = database.tool("mongodump", "--db=local", "--collection=oplog.rs", f"--query={query}", "--out=-").stdout
    [drop] = [one["ts"] for one in bson.decode_all(entries) if one["op"] == "c" and one["o"].get("drop") == "orders"][
        -1:
    ]

    database.client.drop_database("shop")
    longer = with_oplog(archive, entries)
    database.restore(longer, "--drop", "--oplogReplay", f"--oplogLimit={drop.time}:{drop.inc}")

    assert {name: database.all(name) for name in wanted} == wanted
    assert "a_1" in shop.moved.index_information()
    assert "number_1" not in shop.orders.index_information()


def with_oplog(archive: bytes, entries: bytes) -> bytes:
    """The archive with another oplog, as when changes that were saved later follow those of the dump."""
    reader = Reader(io.BytesIO(archive))
    out = io.BytesIO()
    writer = Writer(out)
    writer.prelude("8.0.0", "100.0.0", reader.collections)
    documents: dict[tuple[str, str], list[bytes]] = {}
    for database, name, document in reader:
        documents.setdefault((database, name), []).extend([document] if document else [])
    for (database, name), found in documents.items():
        writer.collection(database, name, iter(found if database else [entries]))
    return out.getvalue()


@pytest.mark.integration
def test_changes_while_the_dump_is_made_are_in_its_oplog(database: Database) -> None:
    fill(database)
    reader = Reader(io.BytesIO(database.dump("--oplog")))
    assert reader.collections[-1] == {"db": "", "collection": "oplog", "metadata": "", "size": 0, "type": ""}
    oplog = [bson.decode(one) for _, name, one in reader if name == "oplog" and one is not None]
    [newest] = database.client.local["oplog.rs"].find({"op": "i"}, sort=[("$natural", -1)], limit=1)
    assert next(one["ts"] for one in oplog) == newest["ts"]


@pytest.mark.integration
def test_an_oplog_of_mongodb_is_replayed_with_its_vectors_and_transactions(database: Database) -> None:
    database.client.shop.orders.insert_one({"_id": 0})
    archive = database.dump("--oplog")

    def write(number: int) -> dict[str, Any]:
        return {"op": "i", "ns": "shop.orders", "o": {"_id": number}}

    def command(**o: Any) -> dict[str, Any]:
        return {"op": "c", "ns": "admin.$cmd", "o": o}

    def part(number: int, **o: Any) -> dict[str, Any]:
        return {**command(**o), "lsid": {"id": number}, "txnNumber": number}

    nested = command(applyOps=[write(2), {"op": "i", "ns": "config.x", "o": {"_id": 1}}])
    changes = [
        {"op": "n", "ns": "", "o": {}},
        command(applyOps=[write(1), nested]),
        {**command(applyOps=[write(3), write(4)]), "lsid": {"id": 1}, "txnNumber": 1, "multiOpType": 1},
        part(1, applyOps=[write(5)], partialTxn=True),
        part(2, applyOps=[write(6)], prepare=True),
        part(3, applyOps=[write(7)], prepare=True),
        part(1, applyOps=[write(8)]),
        part(2, commitTransaction=1),
        part(3, abortTransaction=1),
        part(4, applyOps=[write(9)], prepare=True),
        {"op": "c", "ns": "shop.$cmd", "o": {"startIndexBuild": "orders"}},
        {"op": "c", "ns": "shop.$cmd", "o": {"createIndexes": "orders", "v": 2, "key": {"a": 1}, "name": "a_1"}},
        {
            "op": "c",
            "ns": "shop.$cmd",
            "o": {"commitIndexBuild": "orders", "indexes": [{"v": 2, "key": {"b": 1}, "name": "b"}]},
        },
    ]
    entries = [bson.encode({"ts": Timestamp(100, at), **one}) for at, one in enumerate(changes)]
    database.restore(with_oplog(archive, b"".join(entries)), "--drop", "--oplogReplay")
    assert [one["_id"] for one in database.all("shop.orders")] == [0, 1, 2, 3, 4, 5, 6, 8]
    assert {"a_1", "b"} <= {*database.client.shop.orders.index_information()}


@pytest.mark.integration
def test_a_dump_with_its_oplog_is_refused_right_after_a_rename_or_a_new_version(database: Database) -> None:
    admin = database.client.admin
    for change, sentence in (
        (lambda: database.client.shop.orders.rename("moved"), "cannot dump with oplog while renames occur"),
        (lambda: set_version(database, OWN, confirm=True), "admin.system.version is modified"),
    ):
        database.client.shop.orders.insert_one({})
        change()
        done = database.tool("mongodump", "--archive", "--oplog")
        assert done.returncode == 1
        assert sentence in done.stderr.decode()
        admin.command("appendOplogNote", data={"msg": "so the newest entry is another one"})
        assert database.dump("--oplog")


OWN, BEFORE = "8.2", "8.0"


def set_version(database: Database, wanted: str, **more: Any) -> None:
    database.client.admin.command("setFeatureCompatibilityVersion", wanted, **more)


def version_of_data(database: Database) -> str:
    found = database.client.admin.command("getParameter", 1, featureCompatibilityVersion=1)
    return str(found["featureCompatibilityVersion"]["version"])


@pytest.mark.integration
def test_the_version_of_the_data_is_changed_as_in_mongodb(database: Database) -> None:
    assert database.client.admin.command("buildInfo")["version"].startswith(f"{OWN}.")
    assert version_of_data(database) == OWN
    for wanted, more, code in (
        (BEFORE, {}, 7369100),
        (BEFORE, {"confirm": 1}, 7369100),
        ("6.0", {"confirm": True}, 4926900),
    ):
        with pytest.raises(OperationFailure) as caught:
            set_version(database, wanted, **more)
        assert caught.value.code == code
    with pytest.raises(OperationFailure, match="admin database"):
        database.client.shop.command("setFeatureCompatibilityVersion", OWN, confirm=True)
    assert version_of_data(database) == OWN
    for wanted in (BEFORE, BEFORE, OWN):
        set_version(database, wanted, confirm=True)
        assert version_of_data(database) == wanted


@pytest.mark.integration
def test_whoever_may_only_read_and_write_does_not_change_it(database: Database) -> None:
    roles = [{"role": "readWrite", "db": "shop"}]
    database.client.shop.command("createUser", "keeper", pwd="secret", roles=roles)
    host, port = database.client.address or ("", 0)
    keeper: MongoClient[Any]
    with MongoClient(
        host, port, username="keeper", password="secret", authSource="shop", directConnection=True
    ) as keeper:
        for command, value, more in (
            ("setFeatureCompatibilityVersion", OWN, {"confirm": True}),
            ("appendOplogNote", 1, {"data": {}}),
        ):
            with pytest.raises(OperationFailure, match="not authorized"):
                keeper.admin.command(command, value, **more)
    database.client.shop.command("dropUser", "keeper")


@pytest.mark.integration
@pytest.mark.parametrize(("chosen", "says"), [([], f"db version v{OWN}."), (["9.0.1"], "db version v9.0.1\n")])
def test_an_image_says_its_version_without_a_server(standin: str, chosen: list[str], says: str) -> None:
    given = [f"--env=MONGO_STANDIN_VERSION={one}" for one in chosen]
    limits = ("--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--entrypoint=mongod")
    done = subprocess.run(
        ["docker", "run", *limits, *given, standin, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(says)


@pytest.mark.parametrize(
    ("version", "there", "starts"),
    [
        ("9.0.0", "9.0", True),
        ("9.0.0", "8.0", True),
        ("9.0.0", "7.0", False),
        ("8.0.4", "9.0", False),
        ("8.2.11", "8.0", True),
        ("8.0.4", "8.2", False),
    ],
)
def test_a_version_starts_on_its_own_data_and_on_that_of_the_one_before(
    tmp_path: Path, version: str, there: str, starts: bool
) -> None:
    (tmp_path / "featureCompatibilityVersion").write_text(there)
    found = Compatibility(Version.read(version), tmp_path)
    with nullcontext() if starts else pytest.raises(SystemExit, match="62"):
        found.open()
    assert found.now == there


def test_a_version_before_7_does_not_know_what_is_to_be_confirmed(tmp_path: Path) -> None:
    found = Compatibility(Version.read("6.0.14"), tmp_path)
    found.open()
    with pytest.raises(Unwanted, match="confirm"):
        found.change({"setFeatureCompatibilityVersion": "6.0", "confirm": True})
    found.change({"setFeatureCompatibilityVersion": "5.0"})
    assert found.now == "5.0"


@pytest.mark.integration
def test_users_are_dumped_with_their_roles_and_what_proves_their_passwords(database: Database) -> None:
    database.client.shop.command("createUser", "keeper", pwd="secret", roles=[{"role": "readWrite", "db": "shop"}])
    archive = database.dump()
    users = [bson.decode(one) for _, name, one in Reader(io.BytesIO(archive)) if name == "system.users" and one]
    [keeper] = [one for one in users if one["_id"] == "shop.keeper"]
    assert keeper["roles"] == [{"role": "readWrite", "db": "shop"}]
    assert "storedKey" in keeper["credentials"]["SCRAM-SHA-256"]
    database.client.shop.command("updateUser", "keeper", roles=[])
    database.restore(archive, "--drop")
    [back] = database.client.shop.command("usersInfo", "keeper")["users"]
    assert back["roles"] == [{"role": "readWrite", "db": "shop"}]
    database.client.shop.command("dropUser", "keeper")


@pytest.mark.integration
def test_a_dry_run_changes_nothing(database: Database) -> None:
    fill(database)
    archive = database.dump()
    database.client.shop.orders.drop()
    assert "dry run completed" in database.restore(archive, "--drop", "--dryRun")
    assert database.client.shop.list_collection_names() == ["log"]


@pytest.mark.integration
@pytest.mark.parametrize(
    "harm", [lambda whole: whole[:-200], lambda whole: whole.replace(b"first", b"worst"), lambda whole: whole[4:]]
)
def test_a_damaged_archive_is_refused(database: Database, harm: Any) -> None:
    fill(database)
    done = database.tool("mongorestore", "--archive", "--drop", given=harm(database.dump("--oplog")))
    assert done.returncode == 1
    assert re.search(r"Failed: .*(unexpected EOF|CRC mismatch|not appear to be)", done.stderr.decode())


@pytest.mark.integration
@pytest.mark.parametrize(
    ("tool", "options", "sentence"),
    [
        ("mongorestore", ("--oplogReplay", "--nsInclude=a.*"), "cannot use --oplogReplay with includes specified"),
        ("mongorestore", ("--oplogReplay", "--nsExclude=a.*"), "cannot use --oplogReplay with excludes specified"),
        ("mongorestore", ("--oplogReplay", "--nsFrom=a.*", "--nsTo=b.*"), "with namespace renames specified"),
        ("mongorestore", ("--oplogLimit=1:1",), "cannot use --oplogLimit without --oplogReplay"),
        ("mongodump", ("--oplog", "--db=shop"), "only supported on full dumps"),
        ("mongodump", ("--query={}", "--db=shop"), "without a specified collection"),
    ],
)
def test_what_the_official_tools_refuse_is_refused(
    database: Database, tool: str, options: tuple[str, ...], sentence: str
) -> None:
    done = database.tool(tool, "--archive", *options)
    assert done.returncode == 1
    assert sentence in done.stderr.decode()


@pytest.mark.integration
@pytest.mark.parametrize("tool", ["mongodump", "mongorestore"])
def test_each_says_that_it_is_a_stand_in(database: Database, tool: str) -> None:
    assert b"STAND-IN" in database.tool(tool, "--help").stdout


def test_the_checksum_is_the_one_of_the_archive_format() -> None:
    # The published check value of CRC-64/XZ.
    assert crc64(b"123456789") == 0x995DC9BBDF1939FA


def test_an_archive_that_lacks_a_promised_collection_is_damaged() -> None:
    out = io.BytesIO()
    promised = {"db": "a", "collection": "b", "metadata": "{}", "size": 0, "type": "collection"}
    Writer(out).prelude("8.0.0", "100.0.0", [promised])
    with pytest.raises(Damaged, match=r"before a\.b"):
        list(Reader(io.BytesIO(out.getvalue())))


def test_a_namespace_may_come_in_pieces() -> None:
    out = io.BytesIO()
    writer = Writer(out)
    one = {"db": "a", "collection": "b", "metadata": "{}", "size": 0, "type": "collection"}
    writer.prelude("8.0.0", "100.0.0", [one])
    writer.collection("a", "b", iter([bson.encode({"_id": Timestamp(1, 1)}), bson.encode({"_id": 2})]))
    assert [document for _, _, document in Reader(io.BytesIO(out.getvalue()))][-1] is None
