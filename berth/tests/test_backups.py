"""What `berth backup` decides without a store: what a dump holds, what is damaged, what may go, and who is told."""

from __future__ import annotations

import io
import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import bson
import pytest
import yaml
from ansible.template import Templar, trust_as_template
from bson import Timestamp as Moment
from mongo_standin.archive import Writer

from berth.backup import metrics, oplog, parts
from berth.backup.archive import Tally, differences, tally
from berth.backup.bson import Malformed, Splitter, Timestamp, plain
from berth.backup.check import expired, kept, policy
from berth.backup.command import was_told
from berth.backup.rebuild import rebuild
from berth.backup.records import Busy, Records
from berth.backup.run import Run
from berth.backup.settings import Settings
from berth.host.refused import Refused
from tests.support import ROOT, ansible_loader, rendered

SPEC = util.spec_from_file_location("backup_filters", ROOT / "roles/backup/filter_plugins/backup.py")
assert SPEC
assert SPEC.loader
targets = util.module_from_spec(SPEC)
SPEC.loader.exec_module(targets)

ADA, BOB = {"_id": 1, "name": "Ada"}, {"_id": 2, "name": "Bob", "tags": ["x", {"y": None}], "at": Moment(5, 1)}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    named = {"site": "www.example.net", "root": tmp_path, "mongo": "m", "redis": "", "password": "p", "ping": ""}
    named |= {"previous_password": ""}
    places = {name: tmp_path / name for name in ("state", "cache", "metrics")}
    numbers = {"max_age_hours": 26, "stall_seconds": 10, "wait_seconds": 0, "oplog_told_minutes": 360}
    chosen = targets.settings([{"name": "store", "repository": "/x"}, {"name": "bucket", "repository": "/y"}], "/f")
    place = tmp_path / "backup"
    for folder in (place, *places.values()):
        folder.mkdir()
    keep = {"daily": 7, "weekly": 4, "monthly": 0, "yearly": 0, "oplog_days": 7}
    more = {"paths": [], "commands": [], "keep": keep, "read_data": "100%", "targets": chosen}
    written = {**named, **places, **numbers, **more}
    hidden = {name: written.pop(name) for name in ("password", "previous_password", "ping")}
    (place / "settings.json").write_text(json.dumps(written, default=str))
    (place / "secrets.json").write_text(json.dumps({**hidden, "environment": {"store": {"RESTIC_REST_USERNAME": "u"}}}))
    return Settings.read(place)


def dump(**collections: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    writer = Writer(out)
    about = [
        {
            "db": "auth_db",
            "collection": name,
            "metadata": json.dumps({"indexes": [{"name": "_id_"}]}),
            "size": 0,
            "type": "collection",
        }
        for name in collections
    ]
    writer.prelude("8.0.0", "100.0.0", about)
    for name, documents in collections.items():
        writer.collection("auth_db", name, iter([bson.encode(one) for one in documents]))
    writer.collection("", "oplog", iter([bson.encode({"ts": Moment(9, one), "op": "n"}) for one in (1, 2)]))
    return out.getvalue()


def cut(whole: bytes, size: int) -> Iterator[bytes]:
    return (whole[at : at + size] for at in range(0, len(whole), size))


@pytest.mark.parametrize("size", [1, 7, 10_000_000])
def test_a_dump_is_counted_while_it_passes_however_the_pieces_fall(size: int) -> None:
    found = tally(cut(dump(users=[ADA, BOB], sessions=[]), size))
    assert found.versions == {"mongo": "8.0.0", "mongodump": "100.0.0"}
    summary = found.summary()
    assert summary["oplog"] == {"first": "9.1", "last": "9.2", "entries": 2}
    users = summary["collections"]["auth_db.users"]
    assert (users["documents"], users["indexes"]) == (2, ["_id_"])
    assert summary["collections"]["auth_db.sessions"]["documents"] == 0


def test_the_checksum_is_the_same_in_any_order_and_another_for_any_change() -> None:
    first = tally([dump(users=[ADA, BOB])]).summary()
    assert differences(first, tally([dump(users=[BOB, ADA])]).summary()) == []
    assert differences(first, tally([dump(users=[{**ADA, "name": "Eve"}, BOB])]).summary()) == [
        "auth_db.users has another checksum than when it was dumped."
    ]
    assert differences(first, tally([dump(users=[ADA])]).summary()) == ["auth_db.users has 1 documents instead of 2."]
    assert differences(first, tally([dump()]).summary()) == ["auth_db.users is missing (2 documents)."]


def test_a_dump_that_is_cut_anywhere_is_not_whole() -> None:
    whole = dump(users=[ADA, BOB], sessions=[ADA])
    taken_for_whole = []
    for end in range(len(whole)):
        read = Tally()
        try:
            read.feed(whole[:end])
            read.finish()
        except Malformed:
            continue
        taken_for_whole.append(end)
    # Between the collections and the oplog after them there is a seam; mongodump's own exit status covers that.
    assert all(tally([whole[:end]]).oplog_entries == 0 for end in taken_for_whole)
    assert len(taken_for_whole) <= 1


@pytest.mark.parametrize("length", [-5, -(2**31), 6, 2**31 - 1])
def test_a_field_that_cannot_be_so_long_is_malformed(length: int) -> None:
    whole = bytearray(bson.encode({"name": "Ada"}))
    whole[10:14] = length.to_bytes(4, "little", signed=True)
    with pytest.raises(Malformed, match="a field name of"):
        plain(bytes(whole))


def test_redis_sends_a_mark_after_its_dump_which_is_not_kept() -> None:
    rdb = b"REDIS0012\xfa\x09redis-ver\x058.0.2" + b"data" * 50 + b"\xff" + b"checksum"
    for size in (1, 13, 1000):
        read = parts.Rdb()
        kept = b"".join(read.feed(piece) for piece in cut(rdb + b"7acd" * 10, size))
        assert kept + read.finish() == rdb
        assert read.version == "8.0.2"
    without = parts.Rdb()
    assert without.feed(rdb) + without.finish() == rdb
    half = parts.Rdb()
    half.feed(rdb[:-20])
    with pytest.raises(Malformed):
        half.finish()


def entries(*numbers: int, op: str = "i") -> bytes:
    return b"".join(bson.encode({"ts": Moment(100, one), "op": op, "o": {"_id": one}}) for one in numbers)


@pytest.fixture
def oplog_holds(monkeypatch: pytest.MonkeyPatch) -> Any:
    def hold(content: bytes) -> None:
        program = f"import sys; sys.stdout.buffer.write({content!r})"
        monkeypatch.setattr(parts, "oplog_since", lambda *_: [sys.executable, "-c", program])

    return hold


def test_an_increment_holds_what_came_after_the_one_before(settings: Settings, oplog_holds: Any) -> None:
    oplog_holds(entries(5, 6, 7))
    [chunk] = oplog.chunks(settings, Timestamp(100, 5))
    assert (str(chunk.begins_after), str(chunk.ends_with)) == ("100.5", "100.7")
    assert len(list(Splitter().feed(bytes(chunk.data)))) == 2


def test_an_increment_too_large_for_memory_becomes_several_without_a_gap(
    settings: Settings, oplog_holds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    oplog_holds(entries(*range(1, 12)))
    monkeypatch.setattr(oplog, "MOST_BYTES", 200)
    found = list(oplog.chunks(settings, Timestamp(100, 1)))
    assert len(found) > 2
    assert [str(one.begins_after) for one in found] == ["100.1", *(str(one.ends_with) for one in found[:-1])]
    assert str(found[-1].ends_with) == "100.11"


def test_where_only_the_servers_heartbeat_came_there_is_no_increment(settings: Settings, oplog_holds: Any) -> None:
    oplog_holds(entries(5) + entries(6, 7, op="n"))
    assert list(oplog.chunks(settings, Timestamp(100, 5))) == []


def test_a_run_is_completed_up_to_the_next_one_whatever_came_and_no_further(
    settings: Settings, oplog_holds: Any
) -> None:
    oplog_holds(entries(5) + entries(6, 7, op="n") + entries(8))
    [chunk] = oplog.chunks(settings, Timestamp(100, 5), until=Timestamp(100, 7))
    assert str(chunk.ends_with) == "100.7"
    assert list(oplog.chunks(settings, Timestamp(100, 5), until=Timestamp(100, 5))) == []


def test_a_run_that_was_cut_off_is_made_up_for_once_and_not_again_at_once(settings: Settings) -> None:
    records = Records(settings)
    assert not oplog.cut_off(records)
    with records.changing() as state:
        state["begun"] = {"at": time.time(), "reason": "schedule"}
    assert oplog.cut_off(records)
    with Records(settings).locked("run"):
        assert not oplog.cut_off(records)
    with records.changing() as state:
        state["begun"]["reason"] = oplog.AGAIN
    assert not oplog.cut_off(records)
    with records.changing() as state:
        state["begun"]["at"] -= 2 * oplog.RETRY_SECONDS
    assert oplog.cut_off(records)


@pytest.mark.parametrize("left", [b"", entries(6, 7)])
def test_an_oplog_that_has_rolled_over_is_noticed(settings: Settings, oplog_holds: Any, left: bytes) -> None:
    oplog_holds(left)
    with pytest.raises(oplog.Gap):
        list(oplog.chunks(settings, Timestamp(100, 5)))


def test_an_oplog_that_ends_in_the_middle_of_an_entry_is_refused(settings: Settings, oplog_holds: Any) -> None:
    oplog_holds(entries(5, 6)[:-3])
    with pytest.raises(Refused, match="oplog could not be dumped"):
        list(oplog.chunks(settings, Timestamp(100, 5)))


def snapshot(run: str, part: str, day: int) -> dict[str, Any]:
    return {"id": f"{run}-{part}-{day}", "time": f"2026-01-{day:02}T00:00:00Z", "tags": [f"run:{run}", f"part:{part}"]}


def test_with_its_manifest_a_run_goes_whole_and_what_was_never_finished_goes_after_two_days() -> None:
    snapshots = [
        *(snapshot("1", part, 1) for part in ("mongo", "oplog", "manifest")),
        *(snapshot("2", part, 2) for part in ("mongo", "oplog", "manifest")),
        *(snapshot("3", part, 20) for part in ("mongo", "oplog", "manifest")),
        snapshot("broken", "mongo", 3),
        snapshot("under-way", "mongo", 20),
    ]
    moment = 1768953600.0  # 21 January
    leaving = expired(snapshots, {"2", "3"}, oplog_days=7, moment=moment)
    assert leaving == ["1-mongo-1", "1-oplog-1", "1-manifest-1", "2-oplog-2", "broken-mongo-3"]


class Shelf:
    """A store that keeps what is said of the snapshots, in memory."""

    name = "store"

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def back_up_text(self, _text: str, _file: str, tags: list[str]) -> str:
        # Restic ends a tag at a comma.
        split = [part for one in tags for part in one.split(",")]
        self.kept.append({"id": "a", "time": "2026-11-29T02:30:00Z", "tags": ["berth", *split]})
        return "a"

    def snapshots(self) -> list[dict[str, Any]]:
        return self.kept


@pytest.mark.parametrize("reason", ["scheduled", "manual by ada@laptop"])
def test_why_and_for_whom_a_run_was_made_is_seen_in_the_list_of_runs(settings: Settings, reason: str) -> None:
    shelf = Shelf()
    made = Run(settings, Records(settings), reason, "before-release:1.4.0")
    made.parts["store"] = {}
    made._commit(shelf)  # type: ignore[arg-type]
    [run] = kept(shelf)  # type: ignore[arg-type]
    assert (run.id, run.reason, run.tags) == (made.id, reason, ["before-release:1.4.0"])


def role_values(role: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / f"roles/{role}/vars/main.yml").read_text()))


def test_the_timer_says_scheduled_and_an_operator_is_named() -> None:
    values, unit = role_values("backup"), "etc/systemd/system/berth-backup.service.j2"
    scheduled = rendered("backup", unit, _backup_unit=values["_backup_units"]["berth-backup"])
    assert "ExecStart=/usr/local/sbin/berth backup run --reason scheduled\n" in scheduled
    manual = rendered("backup", unit, _backup_unit=values["_backup_manual"])
    assert 'ExecStart=/usr/local/sbin/berth backup run "--reason=manual by %i"\n' in manual
    # Who asked may be told that it was refused; a timer is not.
    assert "SuccessExitStatus=3\n" in scheduled
    assert "SuccessExitStatus=3\n" not in manual
    assert "CollectMode=inactive-or-failed\n" in manual


@pytest.mark.parametrize(
    ("who", "unit"),
    [
        ("ada@laptop.home", "berth-backup@ada@laptop.home.service"),
        ("Ada O'Neil@böx", "berth-backup@Ada_O_Neil@b_x.service"),
    ],
)
def test_the_unit_of_a_manual_backup_is_named_after_who_asked(who: str, unit: str) -> None:
    variables = {"backup_verb": "now", "_backup_by": who}
    template = trust_as_template(role_values("backup")["_backup_asked_unit"])
    assert Templar(loader=ansible_loader(), variables=variables).template(template) == unit


def test_the_newest_run_stays_whatever_is_kept(settings: Settings) -> None:
    assert policy(settings) == ["--keep-last=1", "--keep-daily=7", "--keep-weekly=4"]


def test_the_second_of_two_at_once_says_who_is_at_it(settings: Settings) -> None:
    first, second = Records(settings), Records(settings)
    with (
        first.locked("run"),
        pytest.raises(Busy, match=r"Process \d+ has held the run lock since .*Wait"),
        second.locked("run"),
    ):
        pass
    with second.locked("run"):
        pass


def test_an_increment_that_goes_on_failing_is_told_once_until_it_succeeds(settings: Settings) -> None:
    records = Records(settings)
    assert not was_told(records, "oplog", "The store is away.", 360)
    assert was_told(records, "oplog", "The store is away.", 360)
    assert not was_told(records, "oplog", "", 360)
    assert not was_told(records, "oplog", "The store is away.", 360)
    assert not was_told(records, "run", "The store is away.", 360)


def test_metrics_say_per_target_what_is_safe_and_what_failed(settings: Settings) -> None:
    records = Records(settings)
    with records.changing() as state:
        state["targets"]["store"] |= {"success_at": 1.5, "attempt_at": 2, "reason": "", "parts": {"mongo": 7}}
        state["targets"]["bucket"] |= {"attempt_at": 2, "reason": "The store is away."}
    metrics.publish(settings, records)
    place = settings.metrics / "berth_backup.prom"
    lines = place.read_text().splitlines()
    assert place.stat().st_mode & 0o777 == 0o644
    assert 'berth_backup_last_success_timestamp_seconds{target="store"} 1.500' in lines
    assert 'berth_backup_part_bytes{target="store",part="mongo"} 7' in lines
    assert 'berth_backup_last_result{target="store"} 1' in lines
    assert 'berth_backup_last_result{target="bucket"} 0' in lines
    assert "away" not in place.read_text()


def test_credentials_stay_out_of_what_is_no_secret(settings: Settings) -> None:
    assert settings.target("store").environment == {"RESTIC_REST_USERNAME": "u"}
    with pytest.raises(Refused, match="There is no target attic; backup_targets names: store, bucket"):
        settings.target("attic")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"repository": "rest:https://me:secret@store.example.net/x"}, "holds a password"),
        ({"name": "Store 1"}, "is no name"),
        ({"ssh_key": "k"}, "no ssh_known_hosts"),
    ],
)
def test_a_target_that_cannot_work_is_named_before_anything_changes(changes: dict[str, str], sentence: str) -> None:
    [said] = targets.problems([{"name": "store", "repository": "/x", **changes}], "p" * 24, [])
    assert sentence in said
    assert "secret@" not in said


def test_no_backup_is_made_without_a_password() -> None:
    [said] = targets.problems([{"name": "store", "repository": "/x"}], "", [])
    assert "vault_backup_password" in said
    assert targets.problems([], "", []) == []


def test_a_host_that_was_rebuilt_is_not_rebuilt_from_another_run(settings: Settings) -> None:
    """Its services may be stopped just now: that makes no bare host of it."""
    settings.state.mkdir(parents=True, exist_ok=True)
    (settings.state / "rebuilt.json").write_text('{"run": "one", "target": "store", "files": "then", "data": "then"}')
    for what in ("files", "data"):
        assert rebuild(settings, Records(settings), Namespace(what=what, run="latest", target=""))["changed"] is False
        with pytest.raises(Refused, match="already rebuilt from run one"):
            rebuild(settings, Records(settings), Namespace(what=what, run="two", target=""))
