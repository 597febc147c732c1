"""A restore ends in one of two states, done or as before, whatever is cut off at whichever step."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from berth.backup import own_unit
from berth.backup import restore as restore_module
from berth.backup.oplog import by_itself
from berth.backup.records import Busy, Records, site_lock
from berth.backup.restore import Request, Restore
from berth.backup.restore_choice import within
from berth.backup.restore_site import Unsaved
from berth.backup.run import run as back_up
from berth.backup.settings import Settings, Target
from berth.host import commands
from berth.host.refused import Failed, Refused
from berth.stack.databases import Database
from berth.tests.cut_off import CutOff, Killed

WRITERS = ["berth-blue-auth_service-1", "berth-blue-celery_worker-1"]
NOW = {"auth_db.users": ["after"], "auth_db.new": ["after"], "celery_db.results": ["after"], "auth_db_old.users": ["x"]}
BACKUP = {"auth_db.users": ["before"], "celery_db.results": ["before"], "user_db.profiles": ["before"]}


class World(CutOff):
    """A site in memory. Each change of it is a step at which it can be cut off, before or after."""

    def __init__(self, fails_at: int = -1, fault: Callable[[], BaseException] = Killed, after: bool = False) -> None:
        super().__init__(fails_at, fault, after)
        self.live: dict[str, list[str]] = deepcopy(NOW)
        self.staged: dict[str, list[str]] = {}
        self.redis, self.redis_beside, self.files, self.files_beside = "after", "", "after", ""
        self.shop, self.shop_beside = "after", ""
        self.events: list[str] = []
        self.running, self.open_, self.scratch = set(WRITERS), True, False
        self.runs: list[str] = []
        self.lost: list[str] = []
        # What each hook was told, in their order; and what they answer.
        self.hooked: list[dict[str, str]] = []
        self.bad_hooks: dict[str, tuple[int, str]] = {}
        # Containers of `berth run`.
        self.commands: list[str] = []
        World.latest = self

    latest: World

    def run(self, *command: str, **_: Any) -> CompletedProcess[str]:
        """Take the place of commands.run, where only hooks are started; each is a step."""
        code, output = 0, "\n".join(self.commands) if command[:2] == ("docker", "ps") else ""
        if command[0] == "systemd-run":
            facts = (word.removeprefix("--setenv=BERTH_") for word in command if word.startswith("--setenv=BERTH_"))
            code, output = self.bad_hooks.get(Path(command[-1]).name, (0, ""))
            try:
                self.step(lambda: self.hooked.append(dict(fact.split("=", 1) for fact in facts)))
            except Refused as refused:
                code, output = 1, refused.reason
        return CompletedProcess(command, code, output, "")

    def look(self) -> None:
        """At no moment may a collection be neither old nor new."""
        self.lost += [name for name in ("auth_db.users", "celery_db.results") if name not in self.live]

    # --- what Site offers ---

    def collections(self) -> dict[str, int]:
        return {name: len(rows) for name, rows in self.live.items()}

    def collections_of(self, _: Any) -> dict[str, int]:
        return {name: len(rows) for name, rows in BACKUP.items()}

    def writers(self) -> list[str]:
        return sorted(self.running)

    @contextmanager
    def loaded(self, _run: Any, _scope: str) -> Iterator[None]:
        self.step(lambda: setattr(self, "scratch", True))
        try:
            yield
        except Killed:
            raise
        except BaseException:
            self.scratch = False
            raise
        self.step(self.remove_scratch)

    def try_redis(self, _: Any) -> None:
        self.step(lambda: None)

    def try_databases(self, _: Any, names: list[str]) -> None:
        assert names == ["shop"]
        self.step(lambda: None)

    def safety_copy(self, what: str) -> str:
        self.events.append(f"copy while {'open' if self.open_ else 'closed'}")
        self.step(lambda: self.runs.append(f"before {what}"))
        return "copy"

    def save_changes(self) -> None:
        self.step(lambda: None)

    def moment(self) -> str:
        return "2026-11-29T00:00:00Z"

    def is_closed(self) -> bool:
        return not self.open_

    def close(self) -> None:
        self.step(lambda: setattr(self, "open_", False))

    def open(self) -> None:
        assert self.running == set(WRITERS), "the site is opened onto services that do not run"
        self.step(lambda: setattr(self, "open_", True))

    def stop(self, names: list[str]) -> None:
        for name in names:
            self.step(lambda name=name: self.running.discard(name))  # type: ignore[misc]

    def start(self, names: list[str]) -> None:
        for name in names:
            self.step(lambda name=name: self.running.add(name))  # type: ignore[misc]

    def fill(self, _: Any, scope: str) -> tuple[int, list[str], dict[str, Any]]:
        self.staged = {}
        wanted = {name: rows for name, rows in BACKUP.items() if within(name, scope)}
        for name, rows in wanted.items():
            self.step(lambda name=name, rows=rows: self.staged.update({name: rows}))  # type: ignore[misc]
        return len(wanted), sorted(wanted), {}

    def put_beside(self, _: Any, scope: str, suffix: str) -> int:
        for name, rows in BACKUP.items():
            if within(name, scope):
                new = restore_module.beside_name(name, suffix)
                self.step(lambda new=new, rows=rows: self.live.update({new: rows}))  # type: ignore[misc]
        return 1

    def stage_redis(self, _: Any) -> None:
        self.step(lambda: setattr(self, "redis_beside", "before"))

    def stage_databases(self, _: Any, _names: list[str]) -> None:
        self.step(lambda: setattr(self, "shop_beside", "before"))

    def swap_databases(self, names: list[str]) -> None:
        assert names == ["shop"]
        self.step(lambda: setattr(self, "shop", self.shop_beside))

    def stage_files(self, _: Any, _paths: list[str]) -> None:
        self.step(lambda: setattr(self, "files_beside", "before"))

    def swap(self, names: list[str], removed: list[str], _views: dict[str, Any]) -> None:
        for name in names:
            if name in self.staged:
                self.step(lambda name=name: self.live.update({name: self.staged.pop(name)}))  # type: ignore[misc]
        for name in removed:
            self.step(lambda name=name: self.live.pop(name, None))  # type: ignore[misc]

    def swap_redis(self) -> None:
        if self.redis_beside:
            self.step(lambda: self.__dict__.update(redis=self.redis_beside, redis_beside=""))

    def swap_files(self, paths: list[str]) -> None:
        if paths:
            self.step(lambda: setattr(self, "files", self.files_beside))

    def remove_scratch(self) -> None:
        self.scratch = False

    def clear(self) -> None:
        self.remove_scratch()
        self.step(self.staged.clear)
        self.redis_beside = self.files_beside = self.shop_beside = ""

    def drop(self, databases: list[str]) -> None:
        for name in list(self.live):
            if name.partition(".")[0] in databases:
                del self.live[name]

    def save_result(self, what: str) -> str:
        self.step(lambda: self.runs.append(f"after {what}"))
        return "result"

    def settle_release(self) -> None:
        raise AssertionError("there is no release")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "root/releases").mkdir(parents=True)
    for name in ("state", "cache", "metrics"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(own_unit, "FOLDER", tmp_path / "run")
    run = SimpleNamespace(
        id="20261128T020000Z-aa11",
        store=SimpleNamespace(name="store"),
        end=None,
        as_of="2026-11-28T02:00:00Z",
        has=lambda _: True,
        increments=[],
        collections={name: {"documents": len(rows), "bytes": 1} for name, rows in BACKUP.items()},
        manifest={"parts": {"files": {"paths": ["/srv/uploads"]}}},
    )
    monkeypatch.setattr(restore_module, "choose", lambda *_: run)
    monkeypatch.setattr(restore_module, "verify", lambda *_: None)
    numbers: dict[str, Any] = dict.fromkeys(("max_age_hours", "stall_seconds", "wait_seconds", "oplog_told_minutes"), 1)
    return Settings(
        site="www.example.net",
        root=tmp_path / "root",
        state=tmp_path / "state",
        cache=tmp_path / "cache",
        metrics=tmp_path / "metrics",
        mongo="m",
        redis="r",
        paths=[],
        commands=[],
        keep={},
        read_data="100%",
        targets=[],
        password="p",
        previous_password="",
        ping="",
        **numbers,
    )


@pytest.fixture(autouse=True)
def hooks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put both hooks of a restore on the host."""
    (settings.root / "hooks").mkdir()
    for name in ("before-restore", "after-restore"):
        (settings.root / "hooks" / name).touch()
    monkeypatch.setattr(commands, "run", lambda *command, **words: World.latest.run(*command, **words))


def request(database: str = "", beside: str = "") -> Request:
    return Request("latest", "", "", database, "", beside)


def work(settings: Settings, world: World) -> Restore:
    return Restore(settings, Records(settings), site_lock(settings), world)  # type: ignore[arg-type]


def expected(asked: Request) -> dict[str, list[str]]:
    if asked.beside:
        return {**NOW, **{restore_module.beside_name(name, asked.beside): rows for name, rows in BACKUP.items()}}
    replaced = {name: rows for name, rows in BACKUP.items() if within(name, asked.scope)}
    kept = {name: rows for name, rows in NOW.items() if not within(name, asked.scope)}
    # What an earlier restore put beside stays.
    return {**kept, **replaced, "auth_db_old.users": ["x"]}


def state_of(world: World, asked: Request) -> str:
    """Return done or as before; fail where it is neither."""
    assert world.open_
    assert world.running == set(WRITERS)
    assert not world.staged
    assert not world.redis_beside
    assert not world.shop_beside
    assert not world.scratch
    assert not world.lost, f"neither old nor new was there: {world.lost}"
    if world.live == NOW and (world.redis, world.files, world.shop) == ("after", "after", "after"):
        return "as before"
    own = ("before", "before") if asked.whole else ("after", "after")
    assert (world.live, (world.redis, world.files)) == (expected(asked), own)
    assert not world.events or world.shop == ("before" if world.events == ["copy while closed"] else "after")
    return "done"


SHOP = Database("shop", ("dump",), ("restore",))
# What is asked for, and databases besides MongoDB and Redis.
ASKED: list[tuple[Request, tuple[Database, ...]]] = [
    (request(), ()),
    (request(), (SHOP,)),
    (request("auth_db"), (SHOP,)),
    (request(beside="_then"), ()),
]


@pytest.fixture(params=ASKED, ids=["everything", "everything and another database", "a database", "beside"])
def asked(request: pytest.FixtureRequest, settings: Settings) -> Request:
    with Records(settings).changing() as state:
        state["beside"] = ["auth_db_old"]
    found: Request
    found, databases = request.param
    object.__setattr__(settings, "databases", databases)
    return found


def test_another_database_is_copied_while_nobody_writes_and_its_restore_is_planned(settings: Settings) -> None:
    object.__setattr__(settings, "databases", (SHOP,))
    world = World()
    work(settings, world).run(request(), "ada@laptop")
    # MongoDB's changes after a copy are saved; those of others are not.
    assert (world.events, world.shop) == (["copy while closed"], "before")
    _, plan = work(settings, World()).plan(request())
    assert plan["databases"] == {"shop": "replaced by the run's"}
    _, plan = work(settings, World()).plan(request("auth_db"))
    assert plan["databases"] == {"shop": "stays as it is"}


@pytest.mark.parametrize("asked", [request("auth_db"), request(beside="_then")])
def test_without_mongodb_only_whole_runs_are_restored(settings: Settings, asked: Request) -> None:
    object.__setattr__(settings, "mongo", "")
    with pytest.raises(
        Refused, match=r"^restore_time, .* are for MongoDB, which this host does not have\. Choose a run"
    ):
        work(settings, World()).plan(asked)


def steps(settings: Settings, asked: Request) -> int:
    world = World()
    answer = work(settings, world).run(asked, "ada@laptop")
    assert answer["changed"]
    assert state_of(world, asked) == "done"
    assert site_lock(settings).current() is None
    return world.steps


def test_no_data_is_replaced_under_a_command(settings: Settings, asked: Request) -> None:
    world = World()
    world.commands = ["berth-run-auth_service-0a1b2c3d"]
    with pytest.raises(Refused, match=r"A command of `berth run` or `berth console` runs\. Wait until it is done"):
        work(settings, world).run(asked, "ada@laptop")
    assert (world.steps, state_of(world, asked)) == (0, "as before")
    assert site_lock(settings).current() is None
    # Its program is there, its container not yet.
    world.commands = []
    lock = site_lock(settings)
    with lock.with_command(), pytest.raises(Refused, match="Wait until it is done"):
        work(settings, world).run(asked, "ada@laptop")
    assert site_lock(settings).current() is None


def test_hooks_are_told_what_is_done_before_and_after(settings: Settings, asked: Request) -> None:
    world = World()
    work(settings, world).run(asked, "ada@laptop", "one")
    facts = {"VERB": "restore", "DOMAIN": "www.example.net", "BY": "ada@laptop", "RUN": "one"}
    facts |= dict.fromkeys(("PREVIOUS", "REASON", "RELEASE", "COLOUR"), "")
    assert world.hooked == [
        {"HOOK": "before-restore", **facts, "RESULT": ""},
        {"HOOK": "after-restore", **facts, "RESULT": "done"},
    ]


def test_a_hook_before_that_fails_stops_it_before_anything_is_changed(settings: Settings, asked: Request) -> None:
    world = World()
    world.bad_hooks["before-restore"] = (3, "Not now")
    with pytest.raises(Refused, match=r"^Hook before-restore ended with 3: Not now\. Nothing was changed\.$"):
        work(settings, world).run(asked, "ada@laptop", "one")
    # Both hooks.
    assert world.steps == 2
    assert (world.hooked[1]["HOOK"], world.hooked[1]["RESULT"]) == ("after-restore", "failed")
    assert state_of(world, asked) == "as before"
    assert site_lock(settings).current() is None


def test_a_hook_after_that_fails_is_reported_and_undoes_nothing(settings: Settings, asked: Request) -> None:
    world = World()
    world.bad_hooks["after-restore"] = (124, "")
    answer = work(settings, world).run(asked, "ada@laptop")
    assert answer["note"] == "Hook after-restore did not end within 300 s."
    assert state_of(world, asked) == "done"


@pytest.mark.parametrize("after", [False, True], ids=["before a step", "after a step"])
def test_killed_at_any_step_it_is_settled_to_done_or_as_before(settings: Settings, asked: Request, after: bool) -> None:
    seen = []
    for number in range(steps(settings, asked)):
        world = World(number, after=after)
        with pytest.raises(Killed):
            work(settings, world).run(asked, "ada@laptop", "one")
        if holder := site_lock(settings).current():
            assert (holder.verb, holder.by) == ("restore", "ada@laptop")
            said = work(settings, world).settle()
            assert ("finished" in said) == (state_of(world, asked) == "done")
        seen.append(state_of(world, asked))
        assert site_lock(settings).current() is None
        # Whoever waits for it hears which.
        told = json.loads((own_unit.FOLDER / "one.json").read_text())
        assert told["result"] == seen[-1]
        # The hook after it heard the same; again only where its program was killed right after it.
        assert {one["RESULT"] for one in world.hooked if one["HOOK"] == "after-restore"} <= {
            *({"done"} if seen[-1] == "done" else {"failed", "undone"})
        }
        assert "after-restore" in [one["HOOK"] for one in world.hooked]
        assert len(world.hooked) <= 3
    # Once it has gone forward it never goes back.
    assert seen == sorted(seen)
    assert {"as before", "done"} == set(seen) or asked.beside


def test_killed_while_it_is_settled_it_is_settled_by_the_next_one(settings: Settings, asked: Request) -> None:
    for number in range(steps(settings, asked)):
        for again in range(0, 12, 3):
            world = World(number)
            with pytest.raises(Killed):
                work(settings, world).run(asked, "ada@laptop")
            world.fails_at = world.steps + again
            try:
                work(settings, world).settle()
            except Killed:
                world.fails_at = -1
                work(settings, world).settle()
            state_of(world, asked)
            assert site_lock(settings).current() is None


def test_what_fails_at_any_step_says_how_it_ended(settings: Settings, asked: Request) -> None:
    # The failure of this one undoes nothing.
    (settings.root / "hooks/after-restore").unlink()
    for number in range(steps(settings, asked)):
        world = World(number, lambda: Refused("Docker does not answer."))
        with pytest.raises(Refused) as refused:
            work(settings, world).run(asked, "ada@laptop")
        said = refused.value.reason
        assert "Docker does not answer." in said
        if "The restore is done" in said:
            world.remove_scratch()
            assert state_of(world, asked) == "done"
        elif site_lock(settings).current():
            assert "berth backup settle" in said
            assert "-e restore_run=copy -e restore_time=" in said
            work(settings, world).settle()
            assert state_of(world, asked) == "done"
        else:
            assert state_of(world, asked) == "as before"
            assert isinstance(refused.value, Failed) == ("as it was before" in said)


def test_a_restore_whose_result_could_not_be_saved_is_done_all_the_same(settings: Settings) -> None:
    world = World()

    def unsaved(_: str) -> str:
        raise Unsaved("The restore is done. But a repository has no backup of it.")

    world.save_result = unsaved  # type: ignore[method-assign,assignment]
    with pytest.raises(Unsaved):
        work(settings, world).run(request(), "ada@laptop")
    assert site_lock(settings).current() is None
    assert world.live["auth_db.users"] == ["before"]
    assert world.open_


def test_data_on_which_no_service_starts_is_replaced_by_another_restore(settings: Settings) -> None:
    with Records(settings).changing() as state:
        state["beside"] = ["auth_db_old"]
    world = World()
    start = world.start

    def broken(_: list[str]) -> None:
        raise Refused("berth-blue-auth_service-1 did not become healthy.")

    world.start = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(Failed, match="not finished"):
        work(settings, world).run(request(), "ada@laptop")
    assert not world.open_

    tried = []

    def first_only(names: list[str]) -> None:
        tried.append(names)
        if len(tried) == 1:
            broken(names)
        start(names)

    world.start = first_only  # type: ignore[method-assign]
    work(settings, world).run(request(), "bob@laptop")
    assert state_of(world, request()) == "done"


def test_the_lock_is_the_one_of_releases_and_names_its_holder(settings: Settings) -> None:
    lock = site_lock(settings)
    named = r"ada@laptop has been running restore everything since .* \(phase: preparing\)"
    with lock.held():
        lock.begin("restore", "everything", "ada@laptop", phase="preparing")
        with pytest.raises(Refused, match=named), site_lock(settings).held():
            pass


def test_a_release_whose_controller_sends_images_keeps_its_record_and_is_named(settings: Settings) -> None:
    world, lock = World(), site_lock(settings)
    begun = lock.begin("release", "1.4.0", "ada@laptop")
    # Whose controller is connected is waited for.
    world.settle_release = lambda: None  # type: ignore[method-assign]
    named = r"^ada@laptop has been running release 1\.4\.0 since .* and is still connected\. Nothing was changed"
    with pytest.raises(Refused, match=named):
        work(settings, world).run(request(), "bob@laptop")
    assert lock.current() == begun
    assert state_of(world, request()) == "as before"
    # Whose is gone is given up.
    world.settle_release = lock.end  # type: ignore[method-assign]
    with Records(settings).changing() as state:
        state["beside"] = ["auth_db_old"]
    work(settings, world).run(request(), "bob@laptop")
    assert state_of(world, request()) == "done"


@pytest.mark.parametrize(
    ("name", "scope", "inside"),
    [
        ("auth_db.users", "", True),
        ("auth_db.users", "auth_db", True),
        ("auth_db2.users", "auth_db", False),
        ("auth_db.users", "auth_db.users", True),
        ("auth_db.users.sessions", "auth_db.users", False),
        ("auth_db.users.sessions", "auth_db", True),
    ],
)
def test_a_restore_of_a_collection_means_no_other_whose_name_begins_alike(name: str, scope: str, inside: bool) -> None:
    assert within(name, scope) == inside


def test_who_only_asks_for_the_holder_writes_nothing(settings: Settings) -> None:
    """To the units that make backups, the folder is read-only."""
    lock = site_lock(settings)
    lock.begin("upgrade", "mongo", "ada@laptop", phase="closing")
    guard = settings.root / "releases/guard"
    guard.unlink(missing_ok=True)
    assert lock.busy("upgrade", "restore") == ""
    assert not guard.exists()


def test_a_backup_waits_for_who_has_the_databases_and_names_them(settings: Settings) -> None:
    lock, records = site_lock(settings), Records(settings)
    lock.begin("upgrade", "mongo", "ada@laptop", phase="closing")
    with (settings.root / "releases/guard").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="ada@laptop has been running upgrade mongo since"):
            back_up(settings, records, "by hand", targets=[Target("store", "/x")])
        assert "ada@laptop" in by_itself(settings, records)["skipped"]
        # A release makes its own backup meanwhile.
        lock.begin("release", "1.4.0", "ada@laptop", phase="schema")
        assert lock.busy("upgrade", "restore") == ""


def test_the_plan_says_what_goes_and_what_was_put_beside_stays(settings: Settings) -> None:
    with Records(settings).changing() as state:
        state["beside"] = ["auth_db_old"]
    _, plan = work(settings, World()).plan(request())
    assert plan["removed"] == ["auth_db.new"]
    assert plan["kept"] == ["auth_db_old.users"]
    assert "auth_db_old.users" not in plan["collections"]
