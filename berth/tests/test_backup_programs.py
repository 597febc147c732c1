"""`berth backup` against a host in memory: each of its commands fails once, and is the last one before a kill once."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from berth.backup import check, drill, restore_scratch, restore_site
from berth.backup.rebuild import rebuild
from berth.backup.records import Records
from berth.backup.restore_choice import choose, verify
from berth.backup.run import run
from berth.backup.settings import Settings, Target
from berth.host import commands
from berth.host.live import ROUTES, Live
from berth.host.refused import Refused
from berth.stack import kept
from berth.stack.databases import Database
from berth.tests import compose
from berth.tests.backup_host import LIVE, RDB, CommandError, Host
from berth.tests.cut_off import Killed

FAULTS = pytest.mark.parametrize(
    "fault", [Killed, lambda: CommandError("the disk is full")], ids=["killed", "a command fails"]
)
KEEP = {"daily": 7, "weekly": 4, "monthly": 0, "yearly": 0, "oplog_days": 7}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "root"
    (root / "releases").mkdir(parents=True)
    (root / ".env").write_text(
        "PUBLIC_URL='https://www.example.net'\nMONGO_ROOT_PASSWORD='live'\nJWT_PRIVATE_KEY='k'\n"
    )
    for name in ("state", "cache", "metrics"):
        (tmp_path / name).mkdir()
    return Settings(
        site="www.example.net",
        root=root,
        state=tmp_path / "state",
        cache=tmp_path / "cache",
        metrics=tmp_path / "metrics",
        mongo="m",
        redis="r",
        paths=[],
        commands=[],
        keep=KEEP,
        max_age_hours=26,
        read_data="100%",
        stall_seconds=5,
        wait_seconds=0,
        oplog_told_minutes=360,
        targets=[Target("store", "/x"), Target("bucket", "/y")],
        password="p",
        previous_password="",
        ping="",
    )


@pytest.fixture(autouse=True)
def put_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Host], Host]]:
    """Put a host in place of the real one."""
    monkeypatch.setattr(Host, "began", time.time())
    monkeypatch.setattr(restore_scratch, "SECRETS", tmp_path / "scratch")

    there: list[Host] = []

    def put(host: Host) -> Host:
        for before in there:
            before.close()
        there[:] = [host]
        monkeypatch.setattr(commands, "run_bytes", host.run)
        monkeypatch.setattr(commands, "start", host.start)
        return host

    yield put
    for host in there:
        host.close()


@pytest.fixture
def host(put_in: Callable[[Host], Host]) -> Host:
    return put_in(Host())


def backed_up(settings: Settings) -> Records:
    records = Records(settings)
    run(settings, records, "scheduled")
    return records


def steps_of(host: Host, work: Callable[[], Any]) -> int:
    """Return how many commands this takes where nothing fails."""
    host.again()
    work()
    return host.steps


# --- a run -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("host")
def test_a_run_is_the_same_on_every_target_and_can_be_verified(settings: Settings) -> None:
    records = backed_up(settings)
    for target in settings.targets:
        chosen = choose(settings, target=target.name)
        verify(chosen)
        assert set(chosen.manifest["parts"]) == {"mongo", "redis", "files"}
        assert {name: one["documents"] for name, one in chosen.collections.items()} == {
            "auth_db.users": 2,
            "user_db.profiles": 1,
        }
        assert b"".join(chosen.redis_snapshot()) == RDB
    known = records.state()
    assert "begun" not in known
    assert all(known["targets"][one.name]["result"] for one in settings.targets)


@FAULTS
def test_whatever_fails_a_manifest_commits_whole_runs_alone_and_the_next_run_is_good(
    settings: Settings, put_in: Callable[[Host], Host], fault: Callable[[], BaseException]
) -> None:
    # One target; berth/tests/test_backup_cut_off.py has two.
    settings = replace(settings, targets=settings.targets[:1])
    whole = put_in(Host())
    backed_up(settings)
    for number in range(whole.steps):
        for file in settings.state.iterdir():
            file.unlink()
        host = put_in(Host(number, fault))
        records = Records(settings)
        with pytest.raises((Killed, Refused)):
            run(settings, records, "scheduled")
        assert ("begun" in records.state()) == (fault is Killed)
        for repository in host.repositories.values():
            for one in repository.snapshots:
                if "part:manifest" in one["tags"]:
                    parts = json.loads(one["files"]["/manifest.json"])["parts"]
                    assert set(parts) == {"mongo", "redis", "files"}
                    assert {part["snapshot"] for part in parts.values()} <= {one["id"] for one in repository.snapshots}
        host.again()
        run(settings, records, "scheduled")
        for target in settings.targets:
            verify(choose(settings, target=target.name))


def test_a_target_that_fails_leaves_the_run_to_the_other_and_is_named(settings: Settings, host: Host) -> None:
    backed_up(settings)
    del host.repositories["/y"]
    with pytest.raises(Refused, match=r"repository of target bucket is missing at /y.*berth backup init bucket"):
        backed_up(settings)
    state = Records(settings).state()["targets"]
    assert (state["store"]["result"], state["bucket"]["result"]) == (True, False)


def test_a_collection_that_the_run_before_had_is_missed_once(settings: Settings, host: Host) -> None:
    backed_up(settings)
    host.databases["m"].pop("user_db.profiles")
    with pytest.raises(Refused, match=r"user_db\.profiles, which was in the previous run, is missing in MongoDB"):
        backed_up(settings)
    backed_up(settings)


@pytest.mark.parametrize(
    ("pattern", "answer", "sentence"),
    [
        ("mongodump", (1, b"", b"connection refused"), "mongo could not be dumped: connection refused"),
        ("mongodump", (137, b"", b""), "mongo could not be dumped: its container was stopped meanwhile"),
        ("mongodump", (0, b"\x6d\xe2\x99\x81 half", b""), "mongo could not be dumped:"),
        ("redis-cli", (0, b"REDIS half", b""), "redis could not be dumped: not a whole dump of Redis"),
    ],
)
def test_half_a_dump_becomes_no_snapshot(
    settings: Settings, host: Host, pattern: str, answer: tuple[int, bytes, bytes], sentence: str
) -> None:
    host.answers = [(pattern, answer)]
    with pytest.raises(Refused, match=sentence):
        backed_up(settings)
    host.again()
    part = "mongo" if pattern == "mongodump" else "redis"
    for repository in host.repositories.values():
        assert not [
            one for one in repository.snapshots if f"part:{part}" in one["tags"] or "part:manifest" in one["tags"]
        ]


def test_a_target_that_takes_nothing_holds_up_the_other_no_longer_than_the_stall_timeout(
    settings: Settings, host: Host
) -> None:
    host.stuck = {"/y"}
    host.databases["m"]["auth_db.large"] = [{"_id": one, "text": "x" * 1_000_000} for one in range(40)]
    with pytest.raises(Refused, match=r"Target bucket .* accepted no data for 0 s"):
        backed_up(replace(settings, stall_seconds=0.2))  # type: ignore[arg-type]
    verify(choose(settings, target="store"))


def test_a_command_of_the_owner_is_backed_up_and_one_that_is_not_there_is_named(settings: Settings, host: Host) -> None:
    host.answers = [("pg_dump", (0, b"rows", b""))]
    extra = {"name": "ledger", "file": "ledger.sql", "command": ["pg_dump", "ledger", "mongodump"]}
    asked = replace(settings, commands=[extra])
    backed_up(asked)
    chosen = choose(asked)
    assert chosen.store.read_text(chosen.snapshot("extra-ledger"), "/ledger.sql") == "rows"


def test_no_target_and_stopped_databases_are_told(settings: Settings, host: Host) -> None:
    with pytest.raises(Refused, match="backup_targets is empty"):
        run(replace(settings, targets=[]), Records(settings), "scheduled")
    assert host.commands == []


# --- check, forget, list -----------------------------------------------------------------------------------


@FAULTS
def test_a_check_says_of_each_target_whether_it_can_be_trusted(
    settings: Settings, host: Host, fault: Callable[[], BaseException]
) -> None:
    records = backed_up(settings)

    def ask() -> dict[str, Any]:
        return check.check(settings, records, settings.targets)

    for number in range(steps_of(host, ask)):
        host.again(number, fault)
        with pytest.raises((Killed, Refused)):
            ask()
        if fault is not Killed:
            told = [one["check_reason"] for one in records.state()["targets"].values()]
            assert sum(bool(one) for one in told) == 1
    host.again()
    assert ask()["targets"] == {"store": True, "bucket": True}


def test_damage_is_found_and_named(settings: Settings, host: Host) -> None:
    records = backed_up(settings)

    def found(target: str) -> str:
        with pytest.raises(Refused) as refused:
            check.check(settings, records, settings.chosen(target))
        return refused.value.reason

    files = {tag: one["files"] for one in host.repositories["/x"].snapshots for tag in one["tags"]}
    files["part:redis"]["/redis.rdb"] = RDB.replace(b"data", b"dada")
    assert "redis has another checksum than when it was dumped (235 bytes read, 235 dumped)" in found("store")
    whole = files["part:mongo"]["/mongo.archive"]
    files["part:mongo"]["/mongo.archive"] = whole.replace(b"Ada", b"Eve")
    assert "auth_db.users has another checksum than it was written with" in found("store")
    files["part:mongo"]["/mongo.archive"] = whole[:-20]
    assert "mongo cannot be read (malformed archive: a document that ends in the middle" in found("store")
    del files["part:mongo"]["/mongo.archive"]
    assert "mongo cannot be read (Target store (/x): no matching ID found)" in found("store")
    manifest = json.loads(files["part:manifest"]["/manifest.json"])
    files["part:manifest"]["/manifest.json"] = json.dumps({**manifest, "format": 2}).encode()
    assert "has manifest format 2, which this version of berth cannot read" in found("store")
    host.answers = [(" check ", (1, b"", b"pack 1: ciphertext verification failed\nrun restic repair\nFatal: errors"))]
    assert "repository of target bucket is damaged: pack 1: ciphertext verification failed" in found("bucket")
    host.answers = [(" check ", (1, b"", b""))]
    assert "damaged: restic gave no reason" in found("bucket")


@pytest.mark.parametrize(
    ("code", "said", "sentence"),
    [
        (10, b"", "repository of target store is missing at /x"),
        (11, b"", "has been locked for 10m by another host"),
        (12, b"", "does not open with backup_password"),
        (124, b"", r"Target store \(/x\) does not answer"),
        (1, b'{"message": "Fatal: out of luck"}', "Fatal: out of luck"),
        (1, b"Fatal: no such bucket\nadvice", r"Target store \(/x\): no such bucket"),
        (3, b"", r"Target store \(/x\): restic cat ended with 3"),
    ],
)
def test_what_restic_ends_with_becomes_a_sentence(
    settings: Settings, host: Host, code: int, said: bytes, sentence: str
) -> None:
    records = backed_up(settings)
    host.answers = [("cat config", (code, b"", said))]
    with pytest.raises(Refused, match=sentence):
        check.check(settings, records, settings.chosen("store"))


def test_a_backup_that_is_too_old_or_not_there_is_told(
    settings: Settings, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(settings)
    monkeypatch.setattr(Host, "began", time.time() - 40 * 3600)
    run(settings, records, "scheduled", targets=settings.chosen("store"))
    with pytest.raises(
        Refused, match=r"newest backup on target store is \d\d hours old, and backup_max_age_hours is 26"
    ):
        check.check(settings, records, settings.chosen("store"))
    host.repositories["/y"] = type(host.repositories["/x"])("p")
    with pytest.raises(Refused, match=r"Target bucket has no backup of www\.example\.net yet"):
        check.check(settings, records, settings.chosen("bucket"))


@FAULTS
def test_pruning_leaves_the_newest_run_whole_whatever_fails(
    settings: Settings, put_in: Callable[[Host], Host], fault: Callable[[], BaseException]
) -> None:
    host = put_in(Host())
    records = backed_up(settings)
    run(settings, records, "scheduled")
    first = {place: [*one.snapshots] for place, one in host.repositories.items()}

    def ask() -> dict[str, Any]:
        return check.forget(settings, records, settings.targets)

    steps = steps_of(host, ask)
    assert {len(one.snapshots) for one in host.repositories.values()} == {4}
    for number in range(steps):
        for place, one in host.repositories.items():
            one.snapshots = [*first[place]]
        host.again(number, fault)
        with pytest.raises((Killed, Refused)):
            ask()
        host.again()
        for target in settings.targets:
            verify(choose(settings, target=target.name))
        assert not any(ask()["reason"])


def test_an_append_only_target_is_left_alone_and_one_that_lets_nothing_go_is_named(
    settings: Settings, host: Host
) -> None:
    records = backed_up(settings)
    run(settings, records, "scheduled")
    closed = replace(settings, targets=[replace(settings.targets[0], append_only=True)])
    host.again()
    assert check.forget(closed, records, closed.targets)["snapshots"] == {}
    assert host.steps == 0
    host.answers = [("forget --quiet", (0, b"", b"unable to remove <snapshot/1> from the repository"))]
    with pytest.raises(Refused, match=r"refuses to delete\. If it is append-only, set append_only"):
        check.forget(settings, records, settings.targets)


def test_the_list_has_each_run_and_the_reason_of_a_target_that_does_not_answer(settings: Settings, host: Host) -> None:
    backed_up(settings)
    host.answers = [("cat config", (1, b"", b"Fatal: no route to host"))]
    assert check.listing(settings, settings.chosen("bucket")) == {
        "bucket": {"reason": "Target bucket (/y): no route to host"}
    }
    host.answers = []
    [one] = check.listing(settings, settings.chosen("store"))["store"]
    assert (one["reason"], one["increments"], one["tags"]) == ("scheduled", 0, [])
    assert one["bytes"] > len(RDB)


# --- the drill ---------------------------------------------------------------------------------------------


def drilled(settings: Settings, records: Records, wanted: str = "latest") -> dict[str, Any]:
    return drill.drill(settings, records, Namespace(run=wanted, target="store"))


SHOP = Database("shop", ("shop-dump", "--all"), ("shop-restore", "--clean"))


def without_mongodb(settings: Settings) -> Settings:
    return replace(settings, mongo="", redis="", databases=(SHOP,))


@FAULTS
def test_a_database_of_the_application_is_dumped_drilled_and_restored_without_mongodb(
    settings: Settings, put_in: Callable[[Host], Host], fault: Callable[[], BaseException]
) -> None:
    host, settings = put_in(Host()), without_mongodb(settings)
    records = backed_up(settings)
    found = choose(settings)
    about = found.manifest["parts"]["shop"]
    assert (about["kind"], about["file"], about["bytes"]) == ("stream", "shop.dump", 4)
    verify(found)
    seen = drilled(settings, records)
    assert (seen["result"], seen["databases"], seen["as_of"]) == ("passed", ["shop"], found.manifest["ended"])
    assert host.made == set()
    [began] = [words for words in host.commands if "--name=berth-drill-shop" in words]
    # As the live one, with empty volumes, other secrets, and nothing published.
    assert began[-3:] == ("berth-shop-1:1", "point", "serve")
    assert {
        *("--entrypoint=entry", "--user=999:999", "--read-only", "--cap-drop=ALL", "--tmpfs=/run/shop:size=16m"),
        *("--volume=/data", "--volume=/opt/berth/shop.conf:/etc/shop.conf:ro", "--network=berth-drill"),
        "--health-cmd=ready --host=127.0.0.1",
    } <= set(began)
    assert not any("/run/berth/secrets" in word or "--publish" in word for word in began)
    # The drill has restored into a database of its own.
    assert host.shops["berth-shop-1"] == b"rows"
    assert host.shops["berth-drill-shop"] == b"rows"

    host.shops["berth-shop-1"] = b"newer rows"
    site = restore_site.Site(settings, records)

    def restore() -> None:
        site.try_databases(found, ["shop"])
        site.stage_databases(found, ["shop"])
        site.swap_databases(["shop"])
        site.clear()

    for number in range(steps_of(host, restore)):
        host.shops["berth-shop-1"] = b"newer rows"
        host.again(number, fault)
        with suppress(Killed, Refused):
            restore()
        assert host.shops["berth-shop-1"] in (b"newer rows", b"rows")
        host.again()
        restore()
        assert host.shops["berth-shop-1"] == b"rows"
        assert not (settings.state / "restore-databases").exists()


def test_a_dump_of_nothing_and_a_database_without_a_health_check_are_refused(settings: Settings, host: Host) -> None:
    settings = without_mongodb(settings)
    records = backed_up(settings)
    host.shops["berth-shop-1"] = b""
    with pytest.raises(Refused, match=r"shop could not be dumped: its command \(berth\.backup\) wrote nothing"):
        run(settings, records, "scheduled")
    host.answers = [("inspect berth-shop-1", (0, json.dumps([{"Config": {"Healthcheck": None}}]).encode(), b""))]
    with pytest.raises(Refused, match="Service shop has no health check, which tells when a throwaway database"):
        drilled(settings, records)
    host.answers = [("shop-restore", (3, b"", b"relation shop does not exist\n"))]
    with pytest.raises(Refused, match=r"^berth\.restore of service shop ended with 3: relation shop does not exist$"):
        drilled(settings, records)


def test_a_run_from_before_there_was_a_database_leaves_it_alone(settings: Settings, host: Host) -> None:
    records = backed_up(settings)
    settings = replace(settings, databases=(SHOP,))
    assert "databases" not in drilled(settings, records)
    assert not choose(settings).has(SHOP)
    assert host.shops == {"berth-shop-1": b"rows"}


def test_a_drill_restores_compares_and_leaves_its_evidence(settings: Settings, host: Host) -> None:
    records = backed_up(settings)
    seen = drilled(settings, records)
    assert (seen["result"], seen["documents"], seen["redis_keys"]) == ("passed", 3, 3)
    assert seen["collections"] == {"auth_db.users": 2, "user_db.profiles": 1}
    assert seen["checks"] == "left out: no release with a check is live"
    assert host.made == set()
    assert json.loads(Path(seen["evidence"]).read_text())["result"] == "passed"
    lines = (settings.metrics / "berth_backup_drill.prom").read_text()
    assert 'berth_backup_drill_result{target="store"} 1\n' in lines
    assert 'berth_backup_drill_documents{target="store"} 3\n' in lines


@FAULTS
def test_a_drill_that_fails_at_any_command_says_so_and_the_next_one_removes_what_it_left(
    settings: Settings, host: Host, fault: Callable[[], BaseException]
) -> None:
    records = backed_up(settings)
    for number in range(steps_of(host, lambda: drilled(settings, records))):
        host.again(number, fault)
        try:
            result = drilled(settings, records)["result"]
        except (Killed, Refused):
            result = "failed"
        newest = json.loads(max((settings.state / "drills").iterdir()).read_text())
        assert newest["result"] == result
        metrics = (settings.metrics / "berth_backup_drill.prom").read_text()
        assert f'berth_backup_drill_result{{target="store"}} {int(result == "passed")}\n' in metrics
        # MongoDB and Redis are asked again, as they may not be ready yet; nothing was left to remove.
        assert result == "failed" or host.failed[:2] == ("docker", "exec") or host.steps <= number
    host.again()
    assert drilled(settings, records)["result"] == "passed"
    assert host.made == set()
    assert host.databases["m"] == LIVE


def test_a_drill_finds_what_comes_back_otherwise_than_it_was(
    settings: Settings, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = backed_up(settings)
    restore = host._restore

    def loses(database: Any, words: tuple[str, ...], given: bytes) -> Any:
        answer = restore(database, words, given)
        database["auth_db.users"].pop()
        return answer

    monkeypatch.setattr(host, "_restore", loses)
    with pytest.raises(Refused, match=r"is damaged: auth_db\.users has 1 documents instead of 2.*Use another target"):
        drilled(settings, records)


@pytest.mark.usefixtures("host")
def test_a_drill_refuses_an_old_run_unless_it_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    records = backed_up(settings)
    run_id = choose(settings).id
    monkeypatch.setattr(drill, "time", SimpleNamespace(time=lambda: Host.began + 40 * 3600, monotonic=time.monotonic))
    with pytest.raises(Refused, match="is 40 hours old, and backup_max_age_hours allows 26"):
        drilled(settings, records)
    assert drilled(settings, records, run_id)["result"] == "passed"


def keep_live(settings: Settings, monkeypatch: pytest.MonkeyPatch, text: str = compose.TEXT) -> None:
    """Have a release be live, with its compose file kept."""
    (settings.root / "traefik/dynamic").mkdir(parents=True, exist_ok=True)
    (settings.root / ROUTES).write_text(Live("1.4", "blue").mark)
    folder = settings.root / "releases/1.4"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "docker-compose.prod.yml").write_text(text)

    def resolved(*command: str, **environment: Any) -> CompletedProcess[str]:
        return CompletedProcess(command, *compose.answer(list(command), environment))

    monkeypatch.setattr(commands, "run", resolved)
    kept.forget()


def test_a_drill_has_the_services_that_answer_requests_check_the_restored_data(
    settings: Settings, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_live(settings, monkeypatch)
    records = backed_up(settings)
    host.release = {f"berth-blue-{name}-1": name for name in ("auth_service", "celery_worker", "frontend")}
    host.running |= set(host.release)
    (settings.root / "releases/probe").write_text("secret")
    host.answers = [("auth_service.probe", (0, b'{"note": "signed in"}\n', b""))]
    assert drilled(settings, records)["checks"] == {"auth_service": '{"note": "signed in"}'}
    [given] = [json.loads(given) for words, given in host.given if "auth_service.probe" in words]
    assert given == {
        **{"url": "http://127.0.0.1:8000", "address": "", "headers": {}, "release": ""},
        **{"seconds": 30, "secret": "secret", "restored": True},
    }
    assert host.made == set()
    host.answers = [("auth_service.probe", (1, b"The probe account cannot sign in.\n", b""))]
    with pytest.raises(Refused, match=r"auth_service fails its check on the restored data: The probe account cannot"):
        drilled(settings, records)
    assert host.made == set()


@pytest.mark.usefixtures("host")
def test_a_backup_from_before_there_were_checks_is_drilled_without(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_live(settings, monkeypatch, compose.without_labels())
    records = backed_up(settings)
    later = settings.root / "releases/1.5/docker-compose.prod.yml"
    later.parent.mkdir(parents=True)
    later.write_text(compose.TEXT)
    (settings.root / ROUTES).write_text(Live("1.5", "blue").mark)
    why = "left out: release 1.4, which was live when the backup was made, has no check"
    assert drilled(settings, records)["checks"] == why


def test_a_restore_stops_what_the_live_release_says_writes_and_all_where_it_says_nothing(
    settings: Settings, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.release = {f"berth-blue-{name}-1": name for name in ("auth_service", "beat", "frontend", "flower")}
    host.running |= set(host.release)
    site = restore_site.Site(settings, Records(settings))
    keep_live(settings, monkeypatch)
    assert site.writers() == ["berth-blue-auth_service-1", "berth-blue-beat-1"]
    keep_live(settings, monkeypatch, compose.without_labels())
    assert site.writers() == ["berth-blue-auth_service-1", "berth-blue-beat-1", "berth-blue-frontend-1"]
    (settings.root / ROUTES).unlink()
    kept.forget()
    assert site.writers() == list(host.release)


# --- a lost server -----------------------------------------------------------------------------------------


def rebuilt(settings: Settings, what: str, run_id: str = "latest") -> dict[str, Any]:
    return rebuild(settings, Records(settings), Namespace(what=what, run=run_id, target=""))


@FAULTS
def test_a_bare_host_gets_files_and_data_whatever_fails_in_between(
    settings: Settings, put_in: Callable[[Host], Host], fault: Callable[[], BaseException]
) -> None:
    host = put_in(Host())
    backed_up(settings)

    def bare() -> None:
        (settings.state / "rebuilt.json").unlink(missing_ok=True)
        host.databases["m"], host.redis["r"] = {}, b""

    def both() -> None:
        assert rebuilt(settings, "files")["changed"] is True
        assert rebuilt(settings, "data")["documents"] == 3

    bare()
    for number in range(steps_of(host, both)):
        bare()
        host.again(number, fault)
        # Where one target does not answer while the run is chosen, the other one is taken.
        with suppress(Killed, Refused):
            both()
        host.again()
        rebuilt(settings, "files")
        rebuilt(settings, "data")
        assert host.databases["m"] == LIVE
        assert host.redis["r"] == RDB
        assert "r" in host.running


def test_a_bare_host_without_mongodb_gets_its_database(
    settings: Settings, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = without_mongodb(settings)
    backed_up(settings)
    host.shops["berth-shop-1"] = b""
    rebuilt(settings, "files")
    assert rebuilt(settings, "data")["databases"] == ["shop"]
    assert host.shops["berth-shop-1"] == b"rows"
    # A release uses it.
    (settings.state / "rebuilt.json").unlink()
    keep_live(settings, monkeypatch)
    host.release = {"berth-blue-beat-1": "beat"}
    host.running |= set(host.release)
    with pytest.raises(Refused, match="The database is not empty"):
        rebuilt(settings, "data")


def test_a_host_that_is_not_bare_is_left_alone(settings: Settings, host: Host) -> None:
    backed_up(settings)
    with pytest.raises(Refused, match="The database is not empty"):
        rebuilt(settings, "data")
    (settings.root / "releases.jsonl").write_text("")
    with pytest.raises(Refused, match="This host has had releases"):
        rebuilt(settings, "files")
    assert host.databases["m"] == LIVE
