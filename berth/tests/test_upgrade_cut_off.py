"""An upgrade of the databases ends in one of two states, done or as before, whatever is cut off at whichever step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from berth.host import commands
from berth.host.live import Live
from berth.host.lock import Lock
from berth.host.refused import Refused
from berth.host.system import Container
from berth.release import engine, switch, unit
from berth.release.host import Host
from berth.release.maintenance import Maintenance
from berth.release.recovery import Recovery
from berth.release.release import Release
from berth.release.settings import Settings
from berth.release.upgrade import Upgrade
from berth.stack import kept
from berth.stack.description import read
from berth.tests import compose
from berth.tests.cut_off import CutOff, Killed

BLUE = Live("1.0", "blue", "f1")
SERVICES = compose.RELEASE
WANTED = {"mongo": "mongo:9", "redis": "redis:9"}
VERSIONS = {"mongo:7": "7.0.14", "mongo:8": "8.0.4", "mongo:8-older": "8.0.1", "mongo:9": "9.0.1", "mongo:10": "10.0.0"}

REMOVE = shutil.rmtree


class CommandFails(Exception):  # noqa: N818  # what it does
    """A command ends with status 1."""


class Docker(CutOff):
    """An engine in memory, with data in real folders. Each command, and each removal of a folder, is a step."""

    def __init__(self, place: Path, bad: str = "") -> None:
        super().__init__()
        self.place, self.bad = place, bad
        self.images = {"mongo": "mongo:8", "redis": "redis:8"}
        self.up = {f"berth-{name}-1" for name in self.images} | {f"berth-blue-{name}-1" for name in SERVICES}
        self.backup = ""
        # Containers of `berth run`.
        self.commands: list[str] = []
        # What mongosh says where it fails, always or with mongo-init.js alone.
        self.mongosh_fails = self.init_fails = ""
        # Images that somebody removed from the host.
        self.gone: set[str] = set()
        # Further names of images.
        self.tags: dict[str, str] = {}
        for name in self.images:
            self.data(name).mkdir(parents=True)
            (self.data(name) / "data").write_text("old")
        self.compatibility.write_text("8.0")

    def data(self, service: str) -> Path:
        return self.place / service / "_data"

    @property
    def compatibility(self) -> Path:
        """MongoDB's featureCompatibilityVersion lies with its data."""
        return self.data("mongo") / "compatibility"

    def run(self, *command: str, **environment: Any) -> subprocess.CompletedProcess[str]:
        try:
            ended = self.step(lambda: self._do(list(command), environment))
        except CommandFails:
            ended = (1, "", f"{command[0]} failed")
        return subprocess.CompletedProcess(command, *ended)

    def remove(self, place: Path) -> None:
        with suppress(CommandFails):
            self.step(lambda: _remove(place))
            return
        _remove(place)

    def _do(self, command: list[str], environment: dict[str, Any]) -> tuple[int, str, str]:
        match command:
            case ["docker", "volume", "inspect", _, name]:
                return 0, str(self.data(name.removesuffix("_data"))), ""
            case ["docker", "image", "inspect", _, name]:
                return 0, f"sha256:{name}", ""
            case ["docker", "inspect", name]:
                return 0, json.dumps(self._inspect(name)), ""
            case ["docker", "ps", project, *_] if "project=berth-run" in project:
                return 0, "\n".join(self.commands), ""
            case ["docker", "ps", *_]:
                return 0, "\n".join([f"berth-{one}-1" for one in self.images] + list(self._colour())), ""
            case ["docker", "tag", image, name]:
                self.tags[name] = image.removeprefix("sha256:")
            case ["docker", "stop", *names]:
                self.up -= set(names)
            case ["docker", "start", *names]:
                self.up |= set(names)
            case ["docker", "rm", "--force", *names]:
                self.up -= set(names)
            case ["docker", "compose", *_, "config", "--format=json"]:
                return compose.answer(command, environment)
            case ["docker", "compose", *_, "--no-deps", first]:
                self._start([first], environment)
            case ["docker", "compose", *_, "--no-deps", first, second]:
                self._start([first, second], environment)
            case ["cp", "--archive", _, source, target]:
                assert not {f"berth-{name}-1" for name in self.images if name in source} & self.up, "it is in use"
                shutil.copytree(source, target)
            case ["docker", "run", *_, image, "--version"]:
                return (
                    0,
                    f"db version v{VERSIONS[image]}\nBuild Info: {{}}" if image in VERSIONS.keys() - self.gone else "",
                    "",
                )
            case ["docker", "exec", "berth-mongo-1", "mongosh", *_] if self.mongosh_fails:
                return 1, "", self.mongosh_fails
            case ["docker", "exec", *_, "/etc/berth/mongo-init.js"] if self.init_fails:
                return 1, "", self.init_fails
            case ["docker", "exec", "berth-mongo-1", "mongosh", *_, "--eval", script] if ".version()" in script:
                return 0, VERSIONS[self.images["mongo"]] + "\n", ""
            case ["docker", "exec", "berth-mongo-1", "mongosh", *_, "--eval", _]:
                return 0, self.compatibility.read_text() + "\n", ""
            case ["docker", "exec", "berth-mongo-1", "mongosh", *_, "/etc/berth/mongo-init.js"]:
                self.raise_compatibility()
            case ["berth", "backup", "status"]:
                return 0, json.dumps({"running": self.backup}), ""
            case ["du", *_]:
                return 0, "3 x", ""
            case _:
                raise AssertionError(command)
        return 0, "", ""

    def _start(self, services: list[str], images: dict[str, Any]) -> None:
        for service in services:
            image = images[f"{service.upper()}_IMAGE"]
            self.images[service] = self.tags.get(image, image)
            self.up.add(f"berth-{service}-1")
            if self.images[service].endswith(":9"):
                # What the old image could not read any more.
                (self.data(service) / "data").write_text("new")

    def raise_compatibility(self) -> None:
        assert {"berth-mongo-1", *self._colour()} <= self.up, "raised before the site is seen to work"
        assert not list(self.place.glob("*/berth-before-upgrade*")), "raised while there is a way back"
        major, minor, _ = VERSIONS[self.images["mongo"]].split(".")
        self.compatibility.write_text(f"{major}.{minor}")

    def _inspect(self, name: str) -> list[dict[str, Any]]:
        service = name.removeprefix("berth-").removesuffix("-1")
        image = self.images.get(service, "app")
        well = name in self.up and image != self.bad
        state = {"Health": {"Status": "healthy" if well else "starting"}}
        return [{"Image": f"sha256:{image}", "Config": {"Image": image}, "State": state, "RestartCount": 2}]

    def _colour(self) -> list[str]:
        return [f"berth-blue-{name}-1" for name in SERVICES]

    def containers(self, colours: Any = ()) -> list[Container]:
        named = {one: f"berth-blue-{one}-1" for one in SERVICES if "blue" in colours}
        status = {name: "Up (healthy)" if name in self.up else "" for name in named.values()}
        return [Container(name, "berth-blue", one, "exited", status[name], ()) for one, name in named.items()]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(unit, "FOLDER", tmp_path / "run")
    monkeypatch.setattr(engine, "logs", lambda *_: "")
    monkeypatch.setattr(engine, "health", lambda *_: [])
    monkeypatch.setattr(Upgrade, "_look_at", lambda *_: None)
    monkeypatch.setattr(switch, "confirm", lambda *_: None)
    # The page is shown as soon as its file is there.
    monkeypatch.setattr(
        Maintenance, "close", lambda self, live, addresses, by="": self.host.edge.close(live, "key", addresses, by)
    )
    needed = {one.name for one in fields(Settings) if one.default is one.default_factory is MISSING}
    numbers: dict[str, Any] = dict.fromkeys(needed - {"root", "edge", "domain", "address", "image_prefix"}, 1)
    return Settings(
        root=tmp_path / "root", edge=tmp_path / "edge", domain="site.test", address="", image_prefix="x", **numbers
    )


def site(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, bad: str = "", unlabelled: bool = False
) -> tuple[Docker, Upgrade]:
    """A site as it is before, whatever was there."""
    for folder in (settings.root, settings.edge, settings.root.parent / "volumes"):
        _remove(folder)
    for folder in (settings.releases, settings.edge / "dynamic", settings.edge / "next"):
        folder.mkdir(parents=True)
    file = settings.kept(BLUE.release).compose_file
    file.parent.mkdir()
    file.write_text(compose.without_labels() if unlabelled else compose.TEXT)
    kept.forget()
    docker = Docker(settings.root.parent / "volumes", bad)
    monkeypatch.setattr(commands, "run", docker.run)
    monkeypatch.setattr(engine, "containers", docker.containers)
    (settings.root / "backup").mkdir()
    (settings.root / "backup/settings.json").touch()
    monkeypatch.setattr(shutil, "rmtree", lambda place, **_: docker.remove(place))
    host = Host.of(settings)
    host.edge.switch(BLUE)
    kept.forget()
    docker.steps = 0
    work = Upgrade(host, Recovery(host), 1)
    # In this process instead of a unit.
    monkeypatch.setattr(unit, "launch_to_end", lambda _verb, run_id, *_: _launched(work, run_id))
    return docker, work


def _remove(place: Path) -> None:
    REMOVE(place, ignore_errors=True)


def _launched(work: Upgrade, run_id: str) -> str:
    with suppress(Refused):
        work.run(run_id)
    return ""


def state_of(docker: Docker, settings: Settings) -> str:
    """Return done or as before; fail where it is neither."""
    assert not (settings.edge / "dynamic/maintenance.yml").exists()
    assert docker.up == {"berth-mongo-1", "berth-redis-1", *(f"berth-blue-{name}-1" for name in SERVICES)}
    assert Lock(settings.releases).current() is None
    assert not list(docker.place.glob("*/berth-before-upgrade*"))
    data = {(docker.data(name) / "data").read_text() for name in docker.images}
    images = set(docker.images.values())
    if images == {"mongo:9", "redis:9"}:
        assert (data, docker.compatibility.read_text()) == ({"new"}, "9.0")
        return "done"
    assert (images, data, docker.compatibility.read_text()) == ({"mongo:8", "redis:8"}, {"old"}, "8.0")
    return "as before"


@pytest.mark.parametrize("bad", ["", "redis:9"], ids=["good images", "one bad image"])
@pytest.mark.parametrize("after", [False, True], ids=["before a step", "after a step"])
def test_killed_at_any_step_it_is_settled_to_done_or_as_before(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, bad: str, after: bool
) -> None:
    docker, work = site(settings, monkeypatch, bad)
    if bad:
        with pytest.raises(Refused, match="Rolled back to the old image and the data before the upgrade"):
            work.upgrade("ada@laptop", WANTED)
    else:
        work.upgrade("ada@laptop", WANTED)
    assert state_of(docker, settings) == ("as before" if bad else "done")
    seen = []
    for number in range(docker.steps):
        docker, work = site(settings, monkeypatch, bad)
        docker.fails_at, docker.after = number, after
        with pytest.raises(Killed):
            work.upgrade("ada@laptop", WANTED)
        work.recovery.settle()
        seen.append(state_of(docker, settings))
    assert seen == sorted(seen)
    assert set(seen) == ({"as before"} if bad else {"as before", "done"})


def test_what_fails_at_any_step_is_undone_or_done_and_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    work.upgrade("ada@laptop", WANTED)
    for number in range(docker.steps):
        docker, work = site(settings, monkeypatch)
        docker.fails_at, docker.fault = number, CommandFails
        try:
            work.upgrade("ada@laptop", WANTED)
            reason = ""
        except Refused as refused:
            reason = refused.reason
        unraised = "featureCompatibilityVersion was not raised" in reason
        if unraised:
            # The next play does it.
            docker.raise_compatibility()
        assert state_of(docker, settings) == ("done" if unraised or not reason else "as before")


def test_killed_while_it_is_settled_it_is_settled_by_the_next_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    work.upgrade("ada@laptop", WANTED)
    for number in range(0, docker.steps, 2):
        for again in (1, 5, 9, 16):
            docker, work = site(settings, monkeypatch)
            docker.fails_at = number
            with pytest.raises(Killed):
                work.upgrade("ada@laptop", WANTED)
            docker.fails_at = docker.steps + again
            try:
                work.recovery.settle()
            except Killed:
                work.recovery.settle()
            state_of(docker, settings)


@pytest.mark.parametrize(
    ("wanted", "compatibility", "says"),
    [
        (
            "mongo:10",
            "8.0",
            r"^mongo runs 8\.0\.4 and mongo:10 is 10\.0\.0: MongoDB is upgraded one major version at a time\. Set "
            r"berth_mongo_image to an image of 9\.0 and run ansible/upgrade_data\.yml; then go on to 10\.0\. "
            r"Nothing was changed\.$",
        ),
        (
            "mongo:7",
            "8.0",
            r"^mongo runs 8\.0\.4 and mongo:7 is 7\.0\.14: MongoDB does not start on data of a later version\. Set "
            r"berth_mongo_image to an image of 8\.0 or later\. Nothing was changed\.$",
        ),
        (
            "mongo:9",
            "7.0",
            r"^mongo runs 8\.0\.4 and mongo:9 is 9\.0\.1, but the data has featureCompatibilityVersion 7\.0 and "
            r"needs 8\.0\. Raise it first: set berth_mongo_image to an image of 8\.0 and run "
            r"ansible/upgrade_data\.yml\. Nothing was changed\.$",
        ),
        (
            "mongo:9",
            "7.0 on its way to 8.0",
            r"featureCompatibilityVersion 7\.0 on its way to 8\.0 and needs 8\.0",
        ),
        (
            "mongo:silent",
            "8.0",
            r"^`mongod --version` in mongo:silent does not print its version\. Nothing was changed\.$",
        ),
    ],
)
def test_a_mongodb_that_cannot_take_over_the_data_is_refused_before_anything_changes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, wanted: str, compatibility: str, says: str
) -> None:
    docker, work = site(settings, monkeypatch)
    docker.compatibility.write_text(compatibility)
    with pytest.raises(Refused, match=says):
        work.upgrade("ada@laptop", {**WANTED, "mongo": wanted})
    docker.compatibility.write_text("8.0")
    assert state_of(docker, settings) == "as before"
    assert not settings.history.exists()


def test_writers_alone_are_stopped_and_those_without_a_route_come_back_last(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    calls: list[set[str]] = []
    run = docker.run

    def noted(*command: str, **environment: Any) -> subprocess.CompletedProcess[str]:
        if command[:2] in (("docker", "stop"), ("docker", "start")) and "blue" in command[2]:
            calls.append({name.split("-")[2] for name in command[2:]})
        return run(*command, **environment)

    monkeypatch.setattr(commands, "run", noted)
    work.upgrade("ada@laptop", WANTED)
    writing = [one for one in read(json.loads(compose.resolved(RELEASE="1.0", COLOUR="blue"))).services if one.writes]
    serving, working = {one.name for one in writing if one.routes}, {one.name for one in writing if not one.routes}
    assert serving >= {"auth_service", "user_service"}
    assert working >= {"celery_worker", "beat"}
    assert calls == [serving | working, serving, working]
    assert state_of(docker, settings) == "done"


def test_under_a_release_without_labels_every_service_is_stopped_and_started(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch, unlabelled=True)
    looks: list[set[str]] = []
    monkeypatch.setattr(Upgrade, "_look_at", lambda *_: looks.append(set(docker.up)))
    work.upgrade("ada@laptop", WANTED)
    assert looks == [docker.up]
    assert state_of(docker, settings) == "done"


def test_an_image_that_is_gone_from_the_host_stops_no_upgrade_of_the_server_that_runs_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    docker.gone = {"mongo:8"}
    work.upgrade("ada@laptop", WANTED)
    assert state_of(docker, settings) == "done"


def test_a_mongodb_that_does_not_say_what_its_data_is_of_is_not_replaced(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    docker.mongosh_fails = "MongoNetworkError: connect ECONNREFUSED"
    with pytest.raises(Refused, match=r"^berth-mongo-1 does not answer, .* Nothing was changed\.$") as caught:
        work.upgrade("ada@laptop", WANTED)
    assert caught.value.lines == [docker.mongosh_fails]
    assert state_of(docker, settings) == "as before"


def test_another_patch_release_is_taken_and_asks_nothing_of_the_data(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    docker.compatibility.write_text("7.0")
    docker.mongosh_fails = "it does not even start"
    with pytest.raises(Refused, match="featureCompatibilityVersion was not raised: it does not even start"):
        work.upgrade("ada@laptop", {"mongo": "mongo:8-older"})
    assert docker.images["mongo"] == "mongo:8-older"


def test_where_the_data_cannot_be_raised_the_upgrade_stands_and_that_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)

    docker.init_fails = "Error: an index is in its way"
    with pytest.raises(
        Refused,
        match=r"^The databases run their new images and the site is open\. But featureCompatibilityVersion was not "
        r"raised: Error: an index is in its way\. Run ansible/upgrade_data\.yml again\.$",
    ):
        work.upgrade("ada@laptop", WANTED)
    docker.compatibility.write_text("9.0")
    assert state_of(docker, settings) == "done"
    line = json.loads(settings.history.read_text())
    assert (line["result"], "an index is in its way" in line["reason"]) == ("live", True)


@pytest.mark.parametrize("after", [False, True], ids=["before a step", "after a step"])
def test_whoever_brings_an_upgrade_to_its_end_says_that_the_data_could_not_be_raised(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    docker, work = site(settings, monkeypatch)
    docker.init_fails = "Error: an index is in its way"
    with pytest.raises(Refused, match="was not raised"):
        work.upgrade("ada@laptop", WANTED)
    stood = 0
    for number in range(docker.steps):
        docker, work = site(settings, monkeypatch)
        docker.init_fails = "Error: an index is in its way"
        docker.fails_at, docker.after = number, after
        with pytest.raises(Killed):
            work.upgrade("ada@laptop", WANTED)
        reason = ""
        try:
            work.recovery.settle()
        except Refused as refused:
            reason = refused.reason
        if docker.images["mongo"] == "mongo:9":
            assert "featureCompatibilityVersion was not raised: Error: an index is in its way" in reason
            assert Lock(settings.releases).current() is None
            stood += 1
        else:
            assert (reason, state_of(docker, settings)) == ("", "as before")
    assert stood


def test_killed_once_that_is_in_the_history_it_is_said_to_who_waits_and_by_who_settles(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    docker.init_fails = "Error: an index is in its way"

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as cut:
        cut.setattr(Host, "end", killed)
        with pytest.raises(Killed):
            work.upgrade("ada@laptop", WANTED)
    run = Lock(settings.releases).current()
    assert run
    with pytest.raises(Refused, match="was not raised"):
        work.recovery.settle()
    with pytest.raises(Refused, match="was not raised"):
        work.recovery.outcome(run.id)
    assert Lock(settings.releases).current() is None
    assert work.recovery.settle() == {"changed": False}


def test_what_keeps_systemd_from_starting_the_program_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    monkeypatch.setattr(unit, "launch_to_end", lambda *_: "Failed to start transient service unit: Access denied")
    with pytest.raises(Refused, match=r"^It was interrupted \(phase: closing; systemd-run: Failed .* denied\)\."):
        work.upgrade("ada@laptop", WANTED)
    assert state_of(docker, settings) == "as before"


def test_what_was_taken_back_is_not_raised(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    docker, work = site(settings, monkeypatch, "redis:9")
    docker.compatibility.write_text("7.0")
    with pytest.raises(Refused, match="Rolled back to the old image"):
        work.upgrade("ada@laptop", {"mongo": "mongo:8-older", "redis": "redis:9"})
    assert docker.compatibility.read_text() == "7.0"


def test_an_upgrade_of_redis_asks_nothing_of_mongodb(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    docker, work = site(settings, monkeypatch)
    docker.mongosh_fails = "it is not asked"
    work.upgrade("ada@laptop", {"redis": "redis:9"})
    assert docker.images == {"mongo": "mongo:8", "redis": "redis:9"}


def test_an_upgrade_does_not_stop_the_databases_under_a_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    docker.commands = ["berth-run-auth_service-0a1b2c3d"]
    how = r"Wait until it is done\. To end it: sudo docker stop berth-run-auth_service-0a1b2c3d"
    with pytest.raises(Refused, match=how):
        work.upgrade("ada@laptop", WANTED)
    assert state_of(docker, settings) == "as before"


def test_an_upgrade_does_not_stop_the_databases_under_a_backup(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    docker.backup = "Process 7 has held the run lock since 02:30"
    with pytest.raises(
        Refused, match=r"^A backup is running \(Process 7 has held the run lock .*\)\. Wait until it is done"
    ):
        work.upgrade("ada@laptop", WANTED)
    assert state_of(docker, settings) == "as before"


def test_the_site_is_not_opened_onto_services_that_are_down(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, work = site(settings, monkeypatch)
    work.host.edge.close(BLUE, "key", [], "ada@laptop")
    docker.up.discard("berth-blue-user_service-1")
    with pytest.raises(Refused, match=r"user_service is exited: the site stays closed.*maintenance_force=true"):
        work.maintenance.disable()
    assert (settings.edge / "dynamic/maintenance.yml").exists()
    work.maintenance.disable(force=True)
    assert not (settings.edge / "dynamic/maintenance.yml").exists()


def test_a_verb_that_is_not_finished_keeps_the_site_closed_and_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, work = site(settings, monkeypatch)
    work.host.edge.close(BLUE, "key", [], "ada@laptop")
    work.host.lock.begin("restore", "everything", "ada@laptop", {}, "swapping")
    with pytest.raises(Refused, match=r"ada@laptop has been running restore everything since .* is not finished"):
        work.maintenance.disable()


def test_a_restore_that_was_cut_off_is_settled_before_a_release_begins(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, work = site(settings, monkeypatch)
    work.host.lock.begin("restore", "everything", "ada@laptop", {}, "swapping")
    asked = []

    def settled(*command: str, **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        work.host.lock.end()
        return subprocess.CompletedProcess(command, 0, '{"changed": true, "settled": "finished: it"}', "")

    monkeypatch.setattr(commands, "run", settled)
    begun = Release(work.host, work.recovery).begin("release", "1.1", "bob@laptop", False, False)
    assert asked == [("berth", "backup", "settle", "--guarded")]
    assert begun["settled"] == "finished: it"


def set_maintenance(work: Upgrade, on: bool) -> None:
    if on:
        work.maintenance.enable([], "ada@laptop")
    else:
        work.maintenance.disable()


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_maintenance_cut_off_at_any_step_is_finished_by_the_same_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, on: bool
) -> None:
    page = settings.edge / "dynamic/maintenance.yml"
    for number in range(2):
        docker, work = site(settings, monkeypatch)
        if not on:
            work.maintenance.enable([], "ada@laptop")
        rename, unlink = Path.rename, Path.unlink

        def step(change: Callable[..., Any], docker: Docker = docker) -> Callable[..., Any]:
            return lambda place, *more, **words: (
                docker.step(lambda: change(place, *more, **words))
                if "dynamic" in str(more or place) and "release" not in place.name
                else change(place, *more, **words)
            )

        docker.fails_at = docker.steps + number
        with monkeypatch.context() as cut:
            cut.setattr(Path, "rename", step(rename))
            cut.setattr(Path, "unlink", step(unlink))
            cut.setattr(Maintenance, "_refuse_to_open", lambda *_: None)
            with pytest.raises(Killed):
                set_maintenance(work, on)
        # What visitors see is what is believed.
        assert bool(work.host.edge.maintenance_key()) == page.exists()
        set_maintenance(work, on)
        assert page.exists() == on
