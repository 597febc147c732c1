"""Which entries of the oplog are replayed, and as what: the rules of mongorestore --oplogReplay."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson import Int64
from bson import Timestamp as Moment

from berth.backup.bson import Malformed, Timestamp
from berth.backup.check import Kept
from berth.backup.replay import Replay, Unreplayable
from berth.backup.restore_choice import Run, verify
from berth.host.refused import Refused
from berth.tests.test_restore_stream import STORE, archive, read

USERS = "auth_db.users"
SESSION = {"id": bson.Binary(b"s" * 16, 4), "uid": b"u" * 32}


def insert(number: int, namespace: str = USERS) -> dict[str, Any]:
    return {"op": "i", "ns": namespace, "ui": bson.Binary(b"c" * 16, 4), "o": {"_id": number}}


def command(o: dict[str, Any], namespace: str = "auth_db.$cmd", **more: Any) -> dict[str, Any]:
    return {"op": "c", "ns": namespace, "o": o, **more}


def many(*operations: dict[str, Any], **more: Any) -> dict[str, Any]:
    return command({"applyOps": list(operations)}, "admin.$cmd", **more)


def at(number: int, entry: dict[str, Any]) -> bytes:
    return bson.encode({"ts": Moment(100, number), "t": Int64(1), "v": Int64(2), **entry})


def replayed(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what mongorestore is given, without the time."""
    found = [bson.decode(one) for one in Replay().saved(at(1, entry))]
    return [{name: value for name, value in one.items() if name not in ("ts", "t", "v")} for one in found]


@pytest.mark.parametrize(
    "entry",
    [
        insert(1),
        insert(1) | {"fromMigrate": True},
        {"op": "u", "ns": USERS, "o": {"$v": 2, "diff": {"u": {"name": "Ada"}}}, "o2": {"_id": 1}},
        {"op": "d", "ns": USERS, "o": {"_id": 1}},
        insert(1, "auth_db.system.buckets.temperatures"),
        insert(1, "auth_db.system.views"),
        command({"create": "users", "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"}}),
        command({"drop": "users"}),
        command({"dropDatabase": 1}),
        command({"collMod": "users", "index": {"name": "seen_1", "expireAfterSeconds": 60}}),
        command({"convertToCapped": "users", "size": 4096}),
        command({"createIndexes": "users", "v": 2, "key": {"a": 1}, "name": "a_1"}),
        command({"commitIndexBuild": "users", "indexBuildUUID": b"", "indexes": [{"v": 2, "key": {"a": 1}}]}),
        command({"dropIndexes": "users", "index": "a_1"}),
        command({"renameCollection": "auth_db.a", "to": "auth_db.b"}),
        command({"renameCollection": "auth_db.a", "to": "auth_db.b"}, "admin.$cmd"),
        many(insert(1), many(insert(2), command({"create": "more"}))),
        # What has a session and a number is no transaction yet: a retried write, a vectored insert.
        insert(1) | {"lsid": SESSION, "txnNumber": Int64(3), "prevOpTime": {"ts": Moment(9, 9), "t": Int64(1)}},
        many(insert(1), insert(2), lsid=SESSION, txnNumber=Int64(3), multiOpType=1, prevOpTime={"ts": Moment(9, 9)}),
    ],
    ids=str,
)
def test_what_changes_the_owners_data_is_replayed_as_it_is(entry: dict[str, Any]) -> None:
    assert replayed(entry) == [entry]


@pytest.mark.parametrize(
    "entry",
    [
        {"op": "n", "ns": "", "o": {"msg": "periodic noop"}},
        *({"op": kind, "ns": USERS, "o": {"_id": 1}} for kind in ("ci", "cu", "cd", "km")),
        insert(1, "config.system.sessions"),
        insert(1, "config.transactions"),
        insert(1, "admin.system.version"),
        insert(1, "admin.system.users"),
        insert(1, "__mdb_internal.x"),
        command({"create": "mine"}, "admin.$cmd"),
        command({"somethingNew": 1}, "config.$cmd"),
        *(command({name: "users"}) for name in ("startIndexBuild", "abortIndexBuild", "setMultikeyMetadata")),
        command({"dropIdent": "collection-7"}),
        insert(1, "auth_db.berth_restore.users"),
        command({"createIndexes": "berth_restore.users"}),
        many(insert(1, "config.transactions"), insert(2, "auth_db.berth_restore.users")),
        many(),
    ],
    ids=str,
)
def test_what_is_the_servers_or_was_a_restores_own_is_left_out(entry: dict[str, Any]) -> None:
    """A dump begins with the entry before it: after a restore, the rename of a collection that is in no dump."""
    assert replayed(entry) == []


def test_the_rename_that_ends_a_restore_is_left_out_of_a_dump_and_refused_in_saved_changes() -> None:
    """A dump begins after it. Replayed later, what was filled in would be missing."""
    entry = at(7, command({"renameCollection": "auth_db.berth_restore.a", "to": "auth_db.a"}))
    assert list(Replay().dumped(entry)) == []
    with pytest.raises(Unreplayable, match="the end of a restore"):
        Replay().saved(entry)


def test_a_name_that_only_looks_like_a_restores_own_is_replayed() -> None:
    entry = {**insert(1), "o": {"_id": "auth_db.berth_restore.users"}}
    assert replayed(entry) == [entry]


def test_of_many_operations_those_of_the_owner_are_replayed() -> None:
    entry = many(insert(1), insert(2, "config.x"), many(insert(3, "admin.system.users"), insert(4)))
    assert replayed(entry) == [many(insert(1), many(insert(4)))]


@pytest.mark.parametrize("wrap", [lambda one: one, many])
def test_an_insert_of_an_array_becomes_an_insert_of_each(wrap: Any) -> None:
    vectored = {**insert(0), "o": [{"_id": 1}, {"_id": 2, "x": {"y": [1]}}]}
    singles = [{**vectored, "o": one} for one in vectored["o"]]
    assert replayed(wrap(vectored)) == (singles if wrap(vectored) == vectored else [many(*singles)])


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (command({"upgradeDowngradeViewlessTimeseries": "temperatures"}), "the command upgradeDowngradeViewless"),
        (command({"importCollection": "users"}), "the command importCollection"),
        (many(insert(1), command({"importCollection": "users"})), "the command importCollection"),
        ({**insert(1), "op": "xx"}, "an operation of kind xx"),
    ],
)
def test_what_mongorestore_does_not_know_is_named_with_its_time(entry: dict[str, Any], named: str) -> None:
    with pytest.raises(Unreplayable, match=named) as caught:
        replayed(entry)
    assert caught.value.at == Timestamp(100, 1)


@pytest.mark.parametrize("entry", [command({}), {**insert(1), "o": 5}, many(insert(1)) | {"o": {"applyOps": [1]}}])
def test_an_entry_that_says_nothing_is_malformed(entry: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        replayed(entry)


# --- transactions: over several entries, of which each names the one before it ---


def part(number: int, previous: int, o: dict[str, Any]) -> bytes:
    before = Moment(100, previous) if previous else Moment(0, 0)
    own = {"lsid": SESSION, "txnNumber": Int64(7), "prevOpTime": {"ts": before, "t": Int64(1 if previous else -1)}}
    return at(number, command(o, "admin.$cmd", **own))


FIRST = part(1, 0, {"applyOps": [insert(1)], "partialTxn": True})
LAST = part(2, 1, {"applyOps": [insert(2)], "count": 2})
PREPARED = part(3, 0, {"applyOps": [insert(3)], "prepare": True})
COMMITTED = part(4, 3, {"commitTransaction": 1, "prepared": True, "commitTimestamp": Moment(100, 4)})
ABORTED = part(4, 3, {"abortTransaction": 1})
WHOLE = part(5, 0, {"applyOps": [insert(5)]})


@pytest.mark.parametrize(
    "entries", [[FIRST, LAST], [PREPARED, COMMITTED], [PREPARED, ABORTED], [WHOLE], [FIRST], [FIRST, LAST, PREPARED]]
)
def test_a_transaction_is_replayed_in_all_its_entries(entries: list[bytes]) -> None:
    replay = Replay()
    assert [one for entry in entries for one in replay.saved(entry)] == entries


@pytest.mark.parametrize("entry", [LAST, COMMITTED, ABORTED])
def test_a_transaction_whose_beginning_was_not_saved_is_not_replayed_in_part(entry: bytes) -> None:
    with pytest.raises(Unreplayable, match="a transaction whose beginning was not saved"):
        Replay().saved(entry)
    # Of the dump's own oplog, it was committed before the dump.
    assert Replay().dumped(entry) == [entry]


def test_a_transaction_that_begins_in_the_dump_may_end_in_what_was_saved_later() -> None:
    replay = Replay()
    assert replay.dumped(FIRST) + replay.saved(LAST) == [FIRST, LAST]


def test_nothing_follows_the_end_of_a_transaction() -> None:
    replay = Replay()
    assert replay.saved(FIRST) + replay.saved(LAST) == [FIRST, LAST]
    with pytest.raises(Unreplayable):
        replay.saved(part(3, 2, {"applyOps": [insert(3)]}))


def test_the_end_of_a_transaction_stays_where_all_else_of_it_is_left_out() -> None:
    replay = Replay()
    replay.saved(FIRST)
    [kept] = replay.saved(part(2, 1, {"applyOps": [insert(2, "config.x")], "count": 2}))
    assert bson.decode(kept)["o"] == {"applyOps": [], "count": 2}


# --- before anything is changed ---


def saved(monkeypatch: pytest.MonkeyPatch, oplog: bytes, *later: bytes, until: int | None = None) -> Run:
    """A run whose dump has this entry, with what was saved later."""
    monkeypatch.setattr("berth.backup.check.verify", lambda _store, _kept, seen: seen(oplog))
    monkeypatch.setattr(Run, "later", lambda _: iter(later))
    monkeypatch.setattr("berth.backup.restore_choice.pieces", lambda *_: iter([archive(oplog)]))
    manifest = {
        "parts": {"mongo": {"kind": "stream", "snapshot": "s", "file": "f"}},
        "mongo": {"oplog": {"last": "100.1"}},
    }
    return Run(Kept("one", "", "m"), STORE, manifest, Timestamp(100, until) if until else None)


UNKNOWN = at(6, command({"importCollection": "users"}))


def test_a_restore_is_refused_where_a_change_cannot_be_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved(monkeypatch, at(1, insert(1)), at(5, insert(2)), UNKNOWN)
    for work in (verify, lambda one: list(one.archive())):
        with pytest.raises(
            Refused,
            match=r"^Run one on target bucket cannot be restored with all its changes: at 100\.6 \(1970-\S+Z\) "
            r"the oplog has the command importCollection, which cannot be replayed\. Restore what was there before "
            r"\(restore_time=100\.6\), or restore_run=one\.$",
        ):
            work(run)
    assert list(run.archive(with_changes=False))


def test_a_moment_before_it_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved(monkeypatch, at(1, insert(1)), at(5, insert(2)), UNKNOWN, until=6)
    verify(run)
    assert [one["ts"].inc for one in read(run.archive())[".oplog"]] == [1, 5]


def test_a_run_whose_own_oplog_cannot_be_replayed_names_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved(monkeypatch, at(1, command({"importCollection": "users"})))
    with pytest.raises(
        Refused, match=r"which cannot be replayed\. Use another target \(restore_target\) or an earlier"
    ):
        verify(run)
