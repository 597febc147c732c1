"""The command `berth backup` itself, from its words to its answer, on a host in memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from berth.backup import command as program
from berth.backup import drill, metrics, own_unit, restore_engine, restore_site
from berth.backup.records import Busy, Records, site_lock
from berth.backup.restic import Store
from berth.backup.restore import Request, Restore
from berth.backup.restore_choice import choose
from berth.backup.restore_site import Site
from berth.backup.run import run
from berth.backup.settings import Settings
from berth.host import commands
from berth.host.refused import Refused
from berth.tests.backup_host import LIVE, RDB, CommandError, Host
from berth.tests.cut_off import Killed
from berth.tests.test_backup_programs import put_in, settings  # noqa: F401  # fixtures

RELEASE = {"berth-blue-auth_service-1": "auth_service", "berth-blue-celery_worker-1": "celery_worker"}
NEWER = b"REDIS0012 newer \xff" + b"checksum"


@pytest.fixture
def host(put_in: Callable[[Host], Host]) -> Host:  # noqa: F811
    return put_in(Host())


class Command:
    """`berth backup`, asked as on the command line."""

    def __init__(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
        self.settings = settings
        self._capsys = capsys
        self.code = 0
        self.said = ""

    def __call__(self, *words: str) -> dict[str, Any]:
        self._capsys.readouterr()
        self.code = program.main([*words])
        out, self.said = self._capsys.readouterr()
        return dict(json.loads(out.splitlines()[-1]))

    def in_unit(self, command: tuple[str, ...]) -> None:
        self(*command[command.index("backup") + 1 :])


@pytest.fixture
def berth_backup(
    settings: Settings,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Command]:
    command = Command(settings, capsys)
    monkeypatch.setattr(Settings, "read", lambda: command.settings)
    monkeypatch.setattr(own_unit, "FOLDER", tmp_path / "run")
    mask, handler = os.umask(0o022), signal.getsignal(signal.SIGTERM)
    yield command
    os.umask(mask)
    signal.signal(signal.SIGTERM, handler)


def test_a_backup_is_made_listed_checked_pruned_and_known(berth_backup: Command, host: Host) -> None:
    made = berth_backup("run", "--reason", "manual by ada@laptop", "--tag", "before-release:1.4.0")
    assert (berth_backup.code, made["targets"]) == (0, {"store": True, "bucket": True})
    [one] = berth_backup("list", "--target", "store")["store"]
    assert (one["run"], one["reason"]) == (made["run"], "manual by ada@laptop")
    assert one["tags"] == ["before-release:1.4.0"]
    assert berth_backup("check")["targets"] == {"store": True, "bucket": True}
    assert berth_backup("forget")["snapshots"] == {"store": 0, "bucket": 0}
    known = berth_backup("status")
    assert known["targets"]["store"]["run"] == made["run"]
    assert known["targets"]["store"]["problems"] == []
    assert [line["verb"] for line in known["history"]] == ["run", "check", "forget"]
    assert 'berth_backup_last_result{target="store"} 1' in (berth_backup.settings.metrics / metrics.FILE).read_text()
    assert host.repositories.keys() == {"/x", "/y"}


def test_a_failure_is_a_sentence_a_code_and_a_metric(berth_backup: Command, host: Host) -> None:
    berth_backup("run")
    host.answers = [("mongodump", (1, b"", b"connection refused"))]
    assert berth_backup("run")["reason"] == "mongo could not be dumped: connection refused."
    assert berth_backup.code == 1
    assert 'berth_backup_last_result{target="store"} 0' in (berth_backup.settings.metrics / metrics.FILE).read_text()
    assert berth_backup("check", "--target", "attic")["reason"].startswith("There is no target attic")


def test_a_second_run_at_once_is_refused_without_a_mail(berth_backup: Command, host: Host) -> None:
    with Records(berth_backup.settings).locked("run"):
        assert "has held the run lock since" in berth_backup("run")["reason"]
    assert berth_backup.code == own_unit.REFUSED
    assert host.commands == []


def test_an_increment_that_fails_again_is_not_told_again(berth_backup: Command, host: Host) -> None:
    berth_backup("run")
    host.answers = [("oplog.rs", (1, b"", b"connection refused"))]
    assert "connection refused" in berth_backup("oplog")["reason"]
    assert berth_backup.code == 1
    berth_backup("oplog")
    assert berth_backup.code == program.TOLD
    host.answers = []
    berth_backup("oplog")
    assert berth_backup.code == 0


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "x", "/var/lib/berth-backup"),
            "The disk is full (/var/lib/berth-backup): free some space",
        ),
        (OSError(errno.EIO, "Input/output error"), "Input/output error."),
    ],
)
def test_a_failure_of_the_system_is_a_sentence(
    berth_backup: Command, host: Host, monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Records, "remember", fail)
    assert sentence in berth_backup("run")["reason"]
    assert berth_backup.code == 1
    monkeypatch.setattr(Records, "__init__", fail)
    assert sentence in berth_backup("status")["reason"]
    assert host.repositories


def test_a_shutdown_ends_a_run_with_a_sentence() -> None:
    with pytest.raises(Refused, match="stopped by SIGTERM"):
        program.ended(signal.SIGTERM, None)


def test_a_restore_stops_a_drill_and_waits_for_nothing_else(
    berth_backup: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, told = Records(berth_backup.settings), list[tuple[int, int]]()
    with ExitStack() as running:

        def kill(pid: int, number: int) -> None:
            told.append((pid, number))
            running.close()

        monkeypatch.setattr(os, "kill", kill)
        running.enter_context(records.locked("restore", drill=True))
        with records.restoring():
            assert told == [(os.getpid(), signal.SIGTERM)]
            # That is a restore now, which is never stopped.
            with pytest.raises(Busy, match="has held the restore lock"), Records(berth_backup.settings).restoring():
                pass
    assert len(told) == 1


def test_a_stopped_drill_mails_nobody_and_says_nothing_about_the_backups(
    berth_backup: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(drill, "_drill", stop)
    assert "stopped by SIGTERM" in berth_backup("drill")["reason"]
    assert berth_backup.code == program.TOLD
    [record] = (berth_backup.settings.state / "drills").iterdir()
    assert json.loads(record.read_text())["result"] == "stopped"
    assert not (berth_backup.settings.metrics / "berth_backup_drill.prom").exists()


def test_a_drill_during_a_restore_is_refused_without_a_mail(berth_backup: Command) -> None:
    with Records(berth_backup.settings).restoring():
        assert "has held the restore lock" in berth_backup("drill")["reason"]
    assert berth_backup.code == own_unit.REFUSED


def test_a_repository_is_made_anew_only_where_there_is_none(berth_backup: Command, host: Host) -> None:
    berth_backup("run")
    assert "already has a repository that opens, so none was created" in berth_backup("init", "store")["reason"]
    host.repositories.pop("/x")
    assert berth_backup("init", "store") == {"verb": "init", "target": "store"}
    assert berth_backup("run")["targets"] == {"store": True, "bucket": True}


def test_restic_itself_gets_repository_and_credentials(
    berth_backup: Command, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    berth_backup("run")
    berth_backup.settings = replace(berth_backup.settings, password="new", previous_password="p")

    class Replaced(Exception):  # noqa: N818  # no error: the program is another one from here on
        pass

    def replaced(name: str, words: list[str], environment: dict[str, str]) -> None:
        raise Replaced(name, words, environment)

    monkeypatch.setattr(program.os, "execvpe", replaced)  # type: ignore[attr-defined]
    with pytest.raises(Replaced) as seen:
        berth_backup("restic", "store", "list", "locks")
    name, words, environment = seen.value.args
    assert (name, words[-2:], environment["RESTIC_REPOSITORY"]) == ("restic", ["list", "locks"], "/x")
    # Until berth backup rekey has been there.
    assert environment["RESTIC_PASSWORD"] == "p"
    assert host.repositories["/x"].keys == {"key1": "p"}


# --- another password --------------------------------------------------------------------------------------


def test_another_password_opens_the_repositories_and_the_one_before_no_more(berth_backup: Command, host: Host) -> None:
    berth_backup("run")
    berth_backup.settings = replace(berth_backup.settings, password="new", previous_password="p")
    host.units["rekey"] = berth_backup.in_unit
    said = berth_backup("rekey")
    assert (berth_backup.code, said["changed"]) == (0, True)
    assert {frozenset(one.keys.values()) for one in host.repositories.values()} == {frozenset({"new"})}
    assert berth_backup("rekey")["changed"] is False
    host.answers = [("cat config", (1, b"", b"Fatal: no route to host"))]
    assert "The previous password is still in use on these targets" in berth_backup("rekey")["reason"]


def test_an_append_only_repository_keeps_the_key_and_says_how_to_remove_it(berth_backup: Command, host: Host) -> None:
    berth_backup("run")
    closed = replace(berth_backup.settings.targets[0], append_only=True)
    berth_backup.settings = replace(berth_backup.settings, password="new", previous_password="p", targets=[closed])
    said = berth_backup("rekey", "--run-id=one")
    assert said["targets"]["store"]["previous"].endswith("restic key remove key1")
    assert set(host.repositories["/x"].keys.values()) == {"p", "new"}
    berth_backup.settings = replace(berth_backup.settings, password="x", previous_password="y")
    assert "Neither the new password nor the previous one opens" in berth_backup("rekey", "--run-id=two")["reason"]


# --- a unit of its own -------------------------------------------------------------------------------------


def test_who_asks_while_the_unit_runs_or_after_it_was_ended_is_told(berth_backup: Command, host: Host) -> None:
    host.answers = [("systemd-run", (1, b"", b"Unit berth-backup-rekey.service was already loaded"))]
    assert berth_backup("rekey")["reason"].startswith("berth-backup-rekey is already running")
    host.answers = [("systemd-run", (1, b"", b"killed"))]
    assert "ended without reporting a result (killed)" in berth_backup("rekey")["reason"]


# --- the external monitor -----------------------------------------------------------------------------------


@pytest.fixture
def watcher() -> Iterator[SimpleNamespace]:
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(500 if len(seen) < 2 else 200)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}/secret", seen=seen)
        server.shutdown()
        thread.join()


def test_an_outside_watcher_hears_of_success_and_failure_and_its_address_is_not_said(
    berth_backup: Command, host: Host, watcher: SimpleNamespace
) -> None:
    berth_backup.settings = replace(berth_backup.settings, ping=watcher.url)
    berth_backup("run")
    assert watcher.seen == ["/secret", "/secret"]
    assert "The external monitor (vault_backup_ping_url) does not answer: Internal Server Error." in berth_backup.said
    assert "secret" not in berth_backup.said
    host.answers = [("mongodump", (1, b"", b"no"))]
    berth_backup("run")
    assert watcher.seen[2:] == ["/secret/fail"]


# --- a restore, down to each command -----------------------------------------------------------------------


@pytest.fixture
def site(
    settings: Settings,  # noqa: F811
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Settings:
    """A live site with a backup, and newer data since."""
    edge = settings.root / "traefik/dynamic"
    edge.mkdir(parents=True)
    (edge / "release.yml").write_text('# berth-release: {"release": "1.4.0", "colour": "blue"}\n')
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / "picture").write_text("before")
    clock = SimpleNamespace(now=time.time())

    def tick() -> float:
        clock.now += 1
        return float(clock.now)

    monkeypatch.setattr(restore_site, "time", SimpleNamespace(time=tick, sleep=lambda _: None))
    monkeypatch.setattr(restore_site.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))  # type: ignore[attr-defined]
    host.edge, host.release = edge, dict(RELEASE)
    host.running |= set(RELEASE)
    asked = replace(settings, paths=[str(uploads)], targets=settings.targets[:1])
    run(asked, Records(asked), "scheduled")
    newer(host, uploads)
    return asked


def newer(host: Host, uploads: Path) -> None:
    host.databases["m"] = {"auth_db.users": [{"_id": 3, "name": "Eve"}], "auth_db.new": [{"_id": 1}]}
    host.redis["r"] = NEWER
    (uploads / "picture").write_text("after")


def state(host: Host, uploads: Path) -> str:
    """Return as before or done; fail where it is neither."""
    assert not (host.edge / "maintenance.yml").exists()
    assert set(RELEASE) | {"m", "r"} <= host.running
    assert host.made == set()
    found = (host.databases["m"], host.redis["r"], (uploads / "picture").read_text())
    if found == (LIVE, RDB, "before"):
        return "done"
    old = {"auth_db.users": [{"_id": 3, "name": "Eve"}], "auth_db.new": [{"_id": 1}]}
    assert found == (old, NEWER, "after")
    return "as before"


def test_a_restore_brings_back_databases_redis_and_files_and_saves_both(
    site: Settings, host: Host, berth_backup: Command, tmp_path: Path
) -> None:
    berth_backup.settings = site
    host.units["restore"] = berth_backup.in_unit
    plan = berth_backup("restore", "--dry-run")
    assert plan["collections"]["auth_db.new"] == "1 now, not in the dump"
    assert state(host, tmp_path / "uploads") == "as before"
    # The safety copy is the newest run otherwise.
    told = berth_backup("restore", plan["run"])
    assert berth_backup.code == 0, told
    assert state(host, tmp_path / "uploads") == "done"
    reasons = [one["reason"] for one in berth_backup("list")["store"]]
    assert reasons == ["scheduled", "before a restore of everything", "after a restore of everything"]
    assert berth_backup("settle") == {"changed": False}


def test_one_database_is_put_beside_the_live_one(site: Settings, host: Host, berth_backup: Command) -> None:
    berth_backup.settings = site
    run_id = choose(site).id
    berth_backup("restore", run_id, "--database=auth_db", "--beside=_then", "--run-id=one")
    assert host.databases["m"]["auth_db_then.users"] == LIVE["auth_db.users"]
    assert host.databases["m"]["auth_db.users"] == [{"_id": 3, "name": "Eve"}]
    berth_backup("restore", run_id, "--collection=users", "--run-id=two")
    assert berth_backup.code == own_unit.REFUSED


def test_a_restore_without_room_is_refused_before_anything_is_touched(
    site: Settings, host: Host, berth_backup: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(restore_site.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))  # type: ignore[attr-defined]
    berth_backup.settings = site
    assert "A restore needs 0 MiB of disk space in /var/lib/docker" in berth_backup("restore", "--run-id=one")["reason"]
    assert state(host, tmp_path / "uploads") == "as before"


@pytest.mark.parametrize("fault", [Killed, lambda: CommandError("the disk is full")], ids=["killed", "a command fails"])
def test_whatever_command_of_a_restore_is_the_last_one_it_is_settled_to_done_or_as_before(
    site: Settings, host: Host, tmp_path: Path, fault: Callable[[], BaseException]
) -> None:
    run_id, uploads = choose(site).id, tmp_path / "uploads"
    kept = deepcopy({place: one.snapshots for place, one in host.repositories.items()})
    records = Records(site)

    def work() -> Restore:
        return Restore(site, records, site_lock(site), Site(site, records))

    def restored() -> None:
        work().run(Request(run_id, "", "", "", "", ""), "ada@laptop")

    host.again()
    restored()
    assert state(host, uploads) == "done"
    seen = []
    # berth/tests/test_restore_cut_off.py has every step; here a third of the commands is enough.
    for number in range(int(fault is Killed), host.steps, 3):
        newer(host, uploads)
        for place, one in host.repositories.items():
            one.snapshots = [*kept[place]]
        host.again(number, fault)
        # A command that is tried again, or that a restore can do without, ends nothing.
        with suppress(Killed, Refused):
            restored()
        host.again()
        if site_lock(site).current():
            work().settle()
        Site(site, records).remove_scratch()
        seen.append(state(host, uploads))
    # Once it has gone forward it never goes back.
    assert fault is not Killed or seen == sorted(seen)
    assert set(seen) == {"as before", "done"}


# --- what is asked of Docker -------------------------------------------------------------------------------


def test_a_container_that_does_not_become_healthy_is_told_with_its_last_line(host: Host) -> None:
    sick = [{"State": {"Running": False, "Status": "exited", "Health": {"Status": "unhealthy"}}}]
    host.answers = [
        ("docker inspect", (0, json.dumps(sick).encode(), b"")),
        ("docker logs", (0, b"", b"one\nno memory")),
    ]
    with pytest.raises(Refused, match="m did not become healthy: no memory"):
        restore_engine.await_healthy("m")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((1, b"", b"2026-11-29\tFailed: no space left\nadvice"), "mongorestore in m: Failed: no space left"),
        ((0, b"", b"1 document(s) restored successfully. 2 document(s) failed to restore."), "mongorestore in m"),
        ((1, b"", b""), "it ended with 1"),
    ],
)
def test_mongorestore_that_fails_is_told(host: Host, answer: tuple[int, bytes, bytes], sentence: str) -> None:
    host.answers = [("mongorestore", answer)]
    with pytest.raises(Refused, match=sentence):
        restore_engine.restore("m", [b"archive"])


def test_an_archive_that_breaks_off_is_not_taken_for_whole(host: Host) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise Refused("the repository went away")

    for give in (
        lambda: restore_engine.restore("m", broken()),
        lambda: restore_engine.stage_redis("r", broken()),
    ):
        with pytest.raises(Refused, match="the repository went away"):
            give()
    assert host.databases["m"] == LIVE
    assert host.volumes == {}


# --- the one place that starts programs --------------------------------------------------------------------


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real programs, whatever was put in their place before."""
    monkeypatch.undo()


@pytest.mark.usefixtures("real")
def test_a_command_gets_input_and_environment_and_is_ended_when_it_is_late() -> None:
    done = commands.run_bytes(
        "sh", "-c", "cat; echo $WHO >&2; exit 3", given=b"in", env={"WHO": "me", "PATH": os.environ["PATH"]}
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"me\n")
    late = commands.run_bytes("sh", "-c", "echo begun >&2; exec cat <&0 >/dev/null; exec sleep 60", seconds=0.3)
    assert late.returncode in (0, commands.LATE)
    late = commands.run_bytes("sleep", "60", seconds=0.2)
    assert (late.returncode, late.stderr) == (commands.LATE, b"timed out after 0 s")
    with commands.start("cat") as process:
        assert process.communicate(b"stream") == (b"stream", b"")
    with pytest.raises(FileNotFoundError):
        commands.start("/no/such/program")


def test_on_a_disk_that_is_almost_full_restic_does_without_its_cache(
    settings: Settings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(settings, settings.targets[0])
    for free, word in ((1 << 40, "--cleanup-cache"), (1000, "--no-cache")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert word in store.command("snapshots")
    shutil.rmtree(settings.cache)
    monkeypatch.undo()
    assert "--no-cache" in store.command("snapshots")
