"""A host in memory for `berth release`: docker, the edge and the services by their answers, files in a real folder."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from berth.host import clock, commands, files, lock
from berth.host.live import MARK, Live
from berth.host.refused import Refused
from berth.release import counters, engine, probe, unit
from berth.release.command import arguments_of, do
from berth.release.edge import OPERATOR_HEADER, RELEASE_HEADER, TRIAL_HEADER, Edge
from berth.release.probe import Visit
from berth.release.settings import Settings
from berth.stack import kept
from berth.tests import compose
from berth.tests.cut_off import Killed

OLD, NEW = "1.0", "1.1"
SERVICES = compose.RELEASE
HOOKS = ("before-release", "after-release", "before-rollback", "after-rollback")
# What auth_service's check says of a release that fails it.
BROKEN = "The front page references /assets/app.js, which returned 404 and 0 bytes."
COUNT = 'http_requests_total{method="GET",route="/x",status="%s"} %s\n'
STARTS_IN_SECONDS = 0.4
# A write needs room on the disk; other changes of files do not.
COMMAND, READ, REQUEST, FILE, WRITE = "command", "read", "request", "file", "write"
# Killed before it reads something, a program has done what it had done before the change that comes next.
CHANGES = (COMMAND, FILE, WRITE)
READS = re.compile("docker (ps|inspect|logs|image inspect|compose .*config)")
FAILS, KILLED, FULL = "fails", "killed", "full"
REMOVE = shutil.rmtree


@dataclass(frozen=True)
class Fault:
    """What goes wrong, at which step of which kinds; `stays`: from that step on."""

    what: str = ""
    at: int = -1
    kinds: tuple[str, ...] = ()
    stays: bool = False


@dataclass
class Container:
    service: str
    colour: str
    release: str
    policy: str
    since: float
    # Of one that does not run.
    state: str = ""
    requests: int = 0
    failed: int = 0


@dataclass
class Up:
    """`docker compose up`, which has ended."""

    code: int

    def __enter__(self) -> Up:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be killed."""

    def returncode(self) -> int:
        return self.code

    def lines(self) -> list[str]:
        return ["compose failed"]


@dataclass
class World:
    """Commands, requests and changes of files are steps, at which something can go wrong."""

    root: Path
    # What the new release is: "crash", "smoke" (fails its smoke test), "late" (fails requests once it is live).
    bad: str = ""
    fault: Fault = Fault()
    steps: list[str] = field(default_factory=list)
    now: float = 1_800_000_000.0
    containers: dict[str, Container] = field(default_factory=dict)
    # What the controller says of the release once it has looked from outside; None: it does not say.
    opinion: str | None = ""
    connected: bool = True
    # Whether systemd has another program take over from one that was killed, and the controller hears; or all is gone.
    takes_over: bool = True
    dead: bool = False
    # What checks say of how long requests take.
    speeds: dict[str, float] = field(default_factory=dict)
    # In which phase it was killed.
    killed_in: str = ""
    broken: bool = False
    tried: bool = False
    runs: int = 0
    # What each hook was told, in their order; and what those answer that fail.
    hooked: list[dict[str, str]] = field(default_factory=list)
    # The release whose jobs have timers.
    scheduled: Live | None = None
    bad_hooks: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    # Folders and files that services mount, and that are not there.
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.edge = Edge(settings_of(self.root))

    # --- steps ---

    def step(self, kind: str, what: str, change: Callable[[], Any], failed: Callable[[], Any]) -> Any:
        if self.dead:
            raise Killed
        if kind not in self.fault.kinds:
            return change()
        self.broken = len(self.steps) == self.fault.at or (self.broken and self.fault.stays)
        self.steps.append(what)
        if self.broken and self.fault.what == KILLED:
            self.dead, self.killed_in = True, self._record().get("phase", "")
            raise Killed
        return failed() if self.broken else change()

    def repair(self) -> None:
        """Nothing goes wrong any more; who was killed stays dead, and another process may begin."""
        self.fault, self.dead, self.broken = Fault(), False, False

    def name_a_run(self) -> str:
        self.runs += 1
        return f"run-{self.runs}"

    # --- what the program is built on ---

    def run(self, *command: str, given: str | None = None, **environment: object) -> CompletedProcess[str]:
        what = " ".join(word for word in command if not word.startswith("-"))

        def done() -> CompletedProcess[str]:
            return CompletedProcess(command, *self._do(list(command), given, environment))

        failed = CompletedProcess(command, 1, "", f"{command[0]} failed")
        ended: CompletedProcess[str] = self.step(READ if READS.match(what) else COMMAND, what, done, lambda: failed)
        return ended

    def start(self, command: list[str], _: dict[str, str]) -> Up:
        colour, release = command[4].rpartition("-")[2], Path(command[6].partition("=")[2]).parent.name
        return Up(self.step(COMMAND, f"up {colour}", lambda: self.up(colour, release), lambda: 1))

    def sleep(self, seconds: float) -> None:
        if self.dead:
            raise Killed
        self.now += max(seconds, 0.1)
        run = self._record()
        # The controller looks from outside as soon as the release is watched.
        if self.opinion is not None and run.get("phase") == "watch" and unit.judgement(run["id"]) is None:
            unit.judge(run["id"], self.opinion)

    def _record(self) -> dict[str, Any]:
        place = self.root / "releases/run.json"
        return dict(json.loads(place.read_text())) if place.exists() else {}

    def _unit(self, *command: str) -> None:
        """Run the program in a process of its own; where it is killed, the next one takes over."""
        try:
            with suppress(Refused):
                ask(*command)
        except Killed:
            if not self.takes_over:
                raise
            self.dead = False
            ask("settle")

    # --- docker ---

    def of(self, colour: str) -> dict[str, Container]:
        return {name: one for name, one in self.containers.items() if one.colour == colour}

    def state(self, one: Container) -> str:
        return one.state or ("starting" if self.now < one.since + STARTS_IN_SECONDS else "healthy")

    def up(self, colour: str, release: str) -> int:
        self.tried |= release != OLD
        for service in SERVICES:
            known = self.containers.get(f"berth-{colour}-{service}-1")
            if known is None or known.state:
                crashes = self.bad == "crash" and release == NEW and service == "user_service"
                made = Container(service, colour, release, "no", self.now, "exited" if crashes else "")
                self.containers[f"berth-{colour}-{service}-1"] = made
        return 0

    def _do(self, command: list[str], given: str | None, environment: dict[str, Any]) -> tuple[int, str, str]:
        match command:
            case ["systemd-run", *_, "berth", "release", "run", run_id]:
                self._unit("run", run_id)
            case ["systemd-run", *words, hook] if "/hooks/" in hook:
                facts = (word.removeprefix("--setenv=") for word in words if word.startswith("--setenv=BERTH_"))
                self.hooked.append(dict(fact.split("=", 1) for fact in facts))
                return self.bad_hooks.get(Path(hook).name, (0, "", ""))
            case ["systemctl", "restart", "berth-jobs.service"]:
                self.scheduled = self.live
                return (1, "", "Job for berth-jobs.service failed.") if self.bad == "jobs" else (0, "", "")
            case ["systemd-analyze", "calendar", _, schedule] if "25:00" in schedule:
                return 1, "", f"Failed to parse calendar specification '{schedule}': Numerical result out of range"
            case ["docker", "image", "inspect", *names]:
                return 0, json.dumps([self._image(name) for name in names]), ""
            case ["docker", "compose", project, "down", *_]:
                for name in self.of(project.rpartition("-")[2]):
                    del self.containers[name]
            case ["docker", "compose", *_, "config", "--format=json"]:
                return compose.answer(command, environment)
            case ["docker", "ps", "--all", *_]:
                return 0, "\n".join(self._listed()), ""
            case ["docker", "ps", *_]:
                return 0, "berth-traefik_a-1", ""
            case ["docker", "update", policy, *names]:
                for name in names:
                    self.containers[name].policy = policy.partition("=")[2]
            case ["docker", "inspect", "--format={{json .State}}", _]:
                return 0, json.dumps({"Health": {"Log": [{"Output": "not well"}]}}), ""
            case ["docker", "inspect", *names]:
                return 0, json.dumps([self._described(name) for name in names]), ""
            case ["docker", "logs", *_]:
                return 0, "last words", ""
            case ["docker", "rm", "--force", *names]:
                for name in names:
                    self.containers.pop(name, None)
            case ["docker", "exec", _, name, *check]:
                return self._check(self.containers[name], check, json.loads(given or ""))
        return 0, "", ""

    def _check(self, one: Container, command: list[str], plan: dict[str, Any]) -> tuple[int, str, str]:
        """Run a service's check in its container, as the edge leads it."""
        live = self.led_to(plan["headers"])
        if live is None or live.signature != plan["release"] or live.release != one.release:
            return 1, f"/api/auth/login was answered by release {live and live.signature}.\n", ""
        if command[-1] == "auth_service.probe" and self.bad == "smoke" and one.release == NEW:
            return 1, f"{BROKEN}\n", ""
        return 0, json.dumps({"milliseconds": self.speeds}), ""

    @staticmethod
    def _image(name: str) -> dict[str, Any]:
        labels = {"berth.schema": "python3 -m auth_service.schema"} if "auth" in name else None
        return {"Id": f"sha256:{name}", "RepoTags": [name], "Config": {"Labels": labels}}

    def _listed(self) -> Iterator[str]:
        for name, one in self.containers.items():
            state = self.state(one)
            status = {"healthy": "Up (healthy)", "starting": "Up (health: starting)"}.get(state, state)
            yield f"{name}|{one.state or 'running'}|{status}||berth-{one.colour}|{one.service}|"

    def _described(self, name: str) -> dict[str, Any]:
        one = self.containers.get(name)
        state = {"StartedAt": str(one.since if one else 0), "Running": one is None or not one.state}
        # A container's address is its name.
        networks = {"berth_edge": {"IPAddress": name}}
        return {"Name": f"/{name}", "State": state, "RestartCount": 0, "NetworkSettings": {"Networks": networks}}

    def lose_power(self) -> None:
        """Start the host again: those containers run whose policy says so, and memory is empty."""
        self.now += 60
        self.scheduled = self.live
        lock.BOOT.write_text(lock.BOOT.read_text() + "again")
        REMOVE(unit.FOLDER, ignore_errors=True)
        for name, one in self.containers.items():
            if one.policy == "unless-stopped":
                self.containers[name] = replace(one, since=self.now + 1, requests=0, failed=0)
            else:
                one.state = "exited"

    # --- the edge and the services ---

    @property
    def live(self) -> Live | None:
        return self.edge.live()

    def text(self, name: str) -> str:
        place = self.root / "edge/dynamic" / name
        return place.read_text() if place.exists() else ""

    def led_to(self, headers: dict[str, str]) -> Live | None:
        """Return where the edge leads a request."""
        for name, header in (("trial.yml", TRIAL_HEADER), ("operator.yml", OPERATOR_HEADER)):
            text = self.text(name)
            if header in headers and f"`{headers[header]}`" in text:
                line = next(line for line in text.splitlines() if line.startswith(MARK))
                return Live(**json.loads(line.removeprefix(MARK)))
        return None if self.text("maintenance.yml") else self.live

    def _answer(self, path: str, headers: dict[str, str]) -> tuple[int, str, Live | None]:
        live = self.led_to(headers)
        service = {"auth": "auth_service", "user": "user_service"}.get(path.removeprefix("/api/")[:4], "frontend")
        one = self.containers.get(f"berth-{live.colour}-{service}-1") if live else None
        if live is None or one is None or self.state(one) != "healthy":
            return 503, "", None
        one.requests += 1
        return (404, "{}", live) if path.startswith("/api") else (200, "<html></html>", live)

    def connect(self) -> SimpleNamespace:
        """Return what http.client would: a connection to the edge."""
        sent: dict[str, Any] = {}

        def request(_: str, path: str, _body: None, headers: dict[str, str]) -> None:
            sent.update(path=path, headers=headers)

        def answer() -> SimpleNamespace:
            status, text, live = self.step(REQUEST, sent["path"], lambda: self._answer(**sent), _refuse)
            shown = {"X-Berth-Release": live.signature} if live and RELEASE_HEADER in sent["headers"] else {}
            return SimpleNamespace(status=status, read=text.encode, will_close=False, getheader=shown.get)

        sock = SimpleNamespace(settimeout=lambda _: None)
        return SimpleNamespace(sock=sock, request=request, getresponse=answer, close=lambda: None)

    def fetch(self, address: str, _port: int, path: str) -> tuple[int, str]:
        """Answer a request past the edge."""
        found: tuple[int, str] = self.step(REQUEST, f"{address}{path}", lambda: self._count(address, path), _refuse)
        return found

    def _count(self, address: str, path: str) -> tuple[int, str]:
        one = self.containers.get(address)
        if one is None:
            return 200, "process_cpu_seconds_total 1"
        if self.state(one) != "healthy":
            raise ConnectionRefusedError
        if one.service == "frontend" or path != "/metrics":
            return 200, "<html></html>"
        live = self.live
        if self.bad == "late" and one.release == NEW and live and live.release == NEW:
            one.failed += 100
        return 200, COUNT % (200, one.requests) + COUNT % (500, one.failed)


def _refuse() -> None:
    raise ConnectionRefusedError("nobody listens")


def _full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def settings_of(root: Path) -> Settings:
    return Settings(
        domain="site.test",
        address="",
        root=root,
        edge=root / "edge",
        image_prefix="x",
        keep=2,
        snapshot_before_schema=True,
        schema_seconds=3,
        healthy_seconds=3,
        smoke_seconds=4,
        confirm_seconds=1,
        watch_seconds=2,
        watch_requests=20,
        watch_errors_percent=1.0,
        slower_factor=3.0,
        slower_ms=60_000,
        drain_seconds=3,
    )


@cache
def _arguments(*words: str) -> Namespace:
    return arguments_of(list(words))


def ask(*words: str) -> dict[str, Any]:
    """Have the program do something, in a process of its own."""
    kept.forget()
    return do(_arguments(*words))


def play(verb: str = "release", release: str = NEW, *more: str) -> dict[str, Any]:
    """Do what the role does, and raise Refused with what it would say; `more`: further options of begin."""
    run = ask("begin", "--by=ada@laptop", f"--verb={verb}", *more, release)["run"]
    try:
        started = ask("start", run)
        return ask("finish", run) if "probe" in started else started
    except Refused as refused:
        answer = ask("undo", run, f"--reason={refused.reason}")
        raise Refused(answer.get("reason", refused.reason)) from refused


class Worlds:
    """Makes one world after the other. What the program is built on is replaced once, and leads to the latest."""

    world: World

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.root = folder, folder / "host"
        patch.setattr(Settings, "read", lambda: settings_of(self.root))
        patch.setattr(commands, "run", lambda *command, **words: self.world.run(*command, **words))
        patch.setattr(commands, "Background", lambda *words: self.world.start(*words))
        patch.setattr(engine, "is_there", lambda path: str(path) not in self.world.absent)
        patch.setattr(Visit, "_connect", lambda *_: self.world.connect())
        patch.setattr(counters, "fetch", lambda *words: self.world.fetch(*words))
        patch.setattr(probe, "ROUNDS", 1)
        patch.setattr(unit, "FOLDER", folder / "run")
        patch.setattr(lock, "BOOT", folder / "boot")
        patch.setattr(lock, "session", lambda: "7:began")
        # A few names, over and over, so that the same words need not be parsed again.
        patch.setattr(lock, "uuid", SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=self.world.name_a_run())))
        patch.setattr(lock, "_process", lambda _: ("sshd", 1, "began" if self.world.connected else "gone"))
        self._replace_time(patch)
        self._replace_files(patch)

    def _replace_time(self, patch: pytest.MonkeyPatch) -> None:
        def now() -> float:
            return self.world.now

        def sleep(seconds: float) -> None:
            self.world.sleep(seconds)

        for name in ("monotonic", "time"):
            patch.setattr(clock, name, now)
        patch.setattr(clock, "sleep", sleep)
        patch.setattr(probe, "time", SimpleNamespace(monotonic=now, perf_counter=lambda: 0.0, sleep=sleep))

    def _replace_files(self, patch: pytest.MonkeyPatch) -> None:
        for call in ("chown", "chmod", "fsync"):
            patch.setattr(os, call, lambda *_: None)
        for name in ("unlink", "rename", "hardlink_to"):
            patch.setattr(Path, name, self._step(getattr(Path, name), FILE))
        for name in ("write", "append"):
            patch.setattr(files, name, self._step(getattr(files, name), WRITE))
        patch.setattr(shutil, "rmtree", self._step(REMOVE, FILE))

    def _step(self, change: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def changed(place: Path, *more: Any, **words: Any) -> Any:
            def done() -> Any:
                return change(place, *more, **words)

            # What is said in memory is no step, nor is a part of one.
            if not str(place).startswith(f"{self.root}/") or place.name.startswith("."):
                return done()
            what = f"{change.__name__} {place.relative_to(self.root)}"
            return self.world.step(kind, what, done, _full if kind == WRITE else done)

        return changed

    def keep(self, release: str, text: str = compose.TEXT) -> None:
        """Keep a release's compose file."""
        folder = self.root / "releases" / release
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "docker-compose.prod.yml").write_text(text)
        kept.forget()

    def make(self, bad: str = "", live: bool = True, closed: bool = False) -> World:
        """Make a host on which blue is live, or nothing; and which is open, or closed."""
        for left in (self.root, self.folder / "run"):
            REMOVE(left, ignore_errors=True)
        for name in ("edge/dynamic", "edge/next", "hooks"):
            (self.root / name).mkdir(parents=True)
        for name in HOOKS:
            (self.root / "hooks" / name).touch()
        for release in ("0.8", "0.9", OLD, NEW) if live else ("0.8", NEW):
            self.keep(release)
        (self.folder / "boot").write_text("boot")
        self.world = World(self.root, bad)
        if live:
            self.world.up("blue", OLD)
            for one in self.world.containers.values():
                one.since, one.policy = 0, "unless-stopped"
            edge = self.world.edge
            edge.switch(Live(OLD, "blue", "f1"))
            if closed:
                edge.close(Live(OLD, "blue", "f1"), "key", [], "eve@laptop")
            was = {"at": "2026-11-28T00:00:00Z", "by": "eve", "verb": "release", "from": "", "result": "live"}
            lines = [json.dumps({**was, "to": release}) for release in ("0.8", "0.9", OLD)]
            (self.root / "releases.jsonl").write_text("\n".join(lines) + "\n")
        return self.world
