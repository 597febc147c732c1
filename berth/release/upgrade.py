"""Upgrade the images of MongoDB and Redis, behind the maintenance page; roll back where the new ones fail."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berth.host import clock, commands
from berth.host.commands import LAST_LINES, last_lines
from berth.host.live import Live
from berth.host.lock import Run, describe
from berth.host.refused import Refused
from berth.host.system import Container
from berth.release import engine, switch, unit
from berth.release.engine import Side
from berth.release.host import Host
from berth.release.maintenance import Maintenance
from berth.release.mongo import raise_compatibility, refuse_leap
from berth.release.probe import ProbeFailed
from berth.release.recovery import Recovery, interrupted
from berth.stack.kept import FILE, compose

# A database that was restarted so often will not start.
RESTARTS = 2
# The worker finishes its tasks, as when a colour is drained.
STOP_SECONDS = 180
UPGRADE, MONGO = "upgrade", "mongo"
# Free space needed, as a factor of what is copied.
ROOM = 1.2


@dataclass(frozen=True)
class Database:
    """One database container, as it is before the upgrade."""

    service: str
    # The image to run, and the one that runs: by name where the name still means the same image.
    new: str
    old: str
    data: Path

    @classmethod
    def read(cls, record: dict[str, str]) -> Database:
        return cls(**{**record, "data": Path(record["data"])})  # type: ignore[arg-type]

    @property
    def record(self) -> dict[str, str]:
        return {**vars(self), "data": str(self.data)}

    @property
    def container(self) -> str:
        return f"berth-{self.service}-1"

    @property
    def copy(self) -> Path:
        """Beside the data, where the same disk has to have room."""
        return self.data.with_name("berth-before-upgrade")


# Phases. No new image touches the data before the copies are complete; once they are removed, the outcome is final.
CLOSING, REPLACING, REMOVING = "closing", "replacing", "removing"


@dataclass
class Upgrade:
    """The verb that replaces databases, for which the site closes."""

    host: Host
    recovery: Recovery
    healthy_seconds: int
    took: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.maintenance = Maintenance(self.host)
        self.recovery.others[UPGRADE] = self.settle

    def upgrade(self, by: str, wanted: dict[str, str]) -> dict[str, Any]:
        """Upgrade these databases to these images, in a unit of its own. Return how it ended."""
        with self.host.lock.held():
            self.recovery.free(break_lock=False)
            due = self._due(wanted)
            if not due:
                return {"changed": False}
            if backup := self._backup():
                raise Refused(f"A backup is running ({backup}). Wait until it is done. Nothing was changed.")
            for database in due:
                if database.service == MONGO:
                    refuse_leap(database.container, database.old, database.new)
                self._room_for(database)
            live = self.host.edge.live()
            detail: dict[str, Any] = {
                "due": [database.record for database in due],
                "opens": bool(live and not self.host.edge.maintenance_key()),
            }
            with self.host.lock.without_commands():
                run = self.host.lock.begin(UPGRADE, names(due), by, vars(live) if live else {}, CLOSING, **detail)
            unit.clear()
        problem = unit.launch_to_end("upgrade-run", run.id, "--seconds", str(self.healthy_seconds))
        return self.recovery.outcome(run.id, problem)

    def run(self, run_id: str) -> dict[str, Any]:
        """Run every step, behind the maintenance page. A failure is undone."""
        with self.host.lock.held(wait=True):
            run = self.host.lock.mine(run_id)
            began, due = clock.monotonic(), [Database.read(one) for one in run.detail["due"]]
            try:
                self._replace(self.host.edge.live(), due, run)
            except (Refused, OSError) as error:
                no = error if isinstance(error, Refused) else Refused(f"The upgrade failed: {error}.")
                raise self._undone(run, due, no) from error
            self.took["closed"] = round(clock.monotonic() - began, 1)
            return self._over(self.host.lock.mine(run_id), due, None)

    def settle(self, run: Run) -> str:
        """Settle an interrupted upgrade: back to the old images, unless the new ones had passed."""
        due = [Database.read(one) for one in run.detail["due"]]
        if run.phase == REMOVING:
            self._over(run, due, None if run.detail["new"] else Refused(str(run.detail["reason"])))
            return f"finished: {describe(run)}"
        self._undone(run, due, Refused(f"{interrupted(run)}."))
        return f"undone: {describe(run)}"

    # --- what is there ---

    def _due(self, wanted: dict[str, str]) -> list[Database]:
        databases = [self._look(service, image) for service, image in wanted.items()]
        return [database for database in databases if database.old != database.new]

    def _look(self, service: str, image: str) -> Database:
        data = commands.run("docker", "volume", "inspect", "--format={{.Mountpoint}}", f"{service}_data").stdout.strip()
        if not data:
            raise Refused(f"{service} has no data on this host, so there is nothing to upgrade.")
        if not self._image_id(image):
            raise Refused(f"Image {image} is not on the host, so nothing was changed.")
        container = json.loads(commands.run("docker", "inspect", f"berth-{service}-1").stdout or "[]")
        # Missing after a run that was interrupted while the container was replaced.
        name = image
        if not container and f"berth-{service}-1" in engine.names():
            raise Refused(f"docker inspect berth-{service}-1 failed, so nothing was changed.")
        if container:
            old, name = container[0]["Image"], container[0]["Config"]["Image"]
            if self._image_id(name) != old:
                # The name means another image by now; the old one gets a tag of its own, so that it is not pruned.
                name = f"berth/{service}:before-upgrade"
                commands.run("docker", "tag", old, name)
        return Database(service, image, name, Path(data))

    def _image_id(self, name: str) -> str:
        return commands.run("docker", "image", "inspect", "--format={{.Id}}", name).stdout.strip()

    def _backup(self) -> str:
        """Return the holder of the backup's lock: a backup needs the databases."""
        if not (self.host.settings.root / "backup/settings.json").exists():
            return ""
        return str(json.loads(commands.run("berth", "backup", "status").stdout or "{}").get("running", ""))

    def _room_for(self, database: Database) -> None:
        """A rollback uses a copy of the data, made while the services are stopped."""
        done = commands.run("du", "--summarize", "--bytes", str(database.data))
        # It fails if a file is deleted meanwhile, and still counts the others.
        if not done.stdout:
            raise Refused(
                f"The size of {database.data} could not be read. Nothing was changed.", "du", last_lines(done)
            )
        size = int(done.stdout.split()[0])
        free = shutil.disk_usage(database.data).free
        if free < size * ROOM:
            raise Refused(
                f"{database.service} has {size // 2**20} MiB of data and the disk {free // 2**20} MiB free: "
                "too little for the copy that a rollback needs. Nothing was changed."
            )

    # --- what is done ---

    def _replace(self, live: Live | None, due: list[Database], run: Run) -> None:
        if live:
            self.maintenance.close(live, self.host.edge.maintenance_addresses(), run.by)
        self._stop_services(live)
        self._timed("databases stopped", "stop", [database.container for database in due])
        began = clock.monotonic()
        for database in due:
            # One left by an earlier attempt has older data.
            shutil.rmtree(database.copy, ignore_errors=True)
            self._copy(database.data, database.copy)
        self.took["copied"] = round(clock.monotonic() - began, 1)
        self.host.lock.note(phase=REPLACING)
        self._start_databases({database: database.new for database in due})
        self._start_services(live)
        self.host.lock.enter(REMOVING, new=True)

    def _undone(self, run: Run, due: list[Database], no: Refused) -> Refused:
        """Roll back to the old images and the copied data; return the refusal.

        Where they do not start either, the site stays closed, and the copies and the record are kept.
        """
        live, phase = self.host.edge.live(), self.host.lock.mine(run.id).phase
        # Before the page is shown nothing has been stopped, and the site is open.
        begun = live is None or phase == REPLACING or bool(self.host.edge.maintenance_key())
        if begun:
            self._stop_services(live)
        try:
            if phase == REPLACING:
                commands.run("docker", "rm", "--force", *(database.container for database in due))
                for database in due:
                    shutil.rmtree(database.data, ignore_errors=True)
                    self._copy(database.copy, database.data)
            if begun:
                self._start_databases({database: database.old for database in due})
                self._start_services(live)
        except (Refused, OSError) as worse:
            kept = [str(database.copy) for database in due if database.copy.exists()]
            raise Refused(
                f"{no.reason} The rollback to the old image failed too ({worse}), so the site stays closed. "
                f"Try again: sudo berth release settle. The data from before: {', '.join(kept) or 'in its volume'}.",
                no.culprit,
                no.lines,
            ) from worse
        back = " Rolled back to the old image and the data before the upgrade." if begun else ""
        refused = Refused(f"{no.reason}{back}", no.culprit, no.lines)
        self.host.lock.enter(REMOVING, new=False, reason=refused.reason)
        self._over(self.host.lock.mine(run.id), due, refused)
        return refused

    def _over(self, run: Run, due: list[Database], refused: Refused | None) -> dict[str, Any]:
        """Remove the copies, open the site, raise featureCompatibilityVersion, add it to the history.

        Raises Refused where that version could not be raised; the upgrade stays in place.
        """
        for database in due:
            for left in (database.copy, _draft(database.copy)):
                shutil.rmtree(left, ignore_errors=True)
        live = self.host.edge.live()
        if live and run.detail["opens"]:
            self.host.edge.open()
            switch.confirm(self.host, live)
        raised = [raise_compatibility(one.container) for one in due if one.service == MONGO and refused is None]
        unraised = next(filter(None, raised), None)
        problem = refused or unraised
        result, reason = "failed" if refused else "live", problem.reason if problem else ""
        images = {database.service: f"{database.old} -> {database.new}" for database in due}
        with suppress(OSError):
            self.host.history.write(run, result, reason, self.took, databases=images)
        answer = {"changed": True, "steps": self.took, "to": {database.service: database.new for database in due}}
        self.host.end(run, problem or answer)
        if unraised:
            raise unraised
        return answer

    def _copy(self, source: Path, target: Path) -> None:
        """Copy under a temporary name, so that a partial copy is never used."""
        part = _draft(target)
        shutil.rmtree(part, ignore_errors=True)
        done = commands.run("cp", "--archive", "--reflink=auto", str(source), str(part), seconds=3600)
        if done.returncode:
            raise Refused(f"{source} could not be copied.", "cp", last_lines(done))
        part.rename(target)

    def _start_databases(self, images: dict[Database, str]) -> None:
        began, root = clock.monotonic(), self.host.settings.root
        chosen = {f"{database.service.upper()}_IMAGE": image for database, image in images.items()}
        done = commands.run(
            *compose(root, root / FILE, "berth"),
            *(
                "--profile=platform",
                "up",
                "--detach",
                "--pull=never",
                "--no-deps",
                *(database.service for database in images),
            ),
            seconds=self.healthy_seconds,
            # The compose file requires them, these services do not use them.
            RELEASE="-",
            COLOUR="-",
            **chosen,
        )
        if done.returncode:
            raise Refused("The databases could not be started.", "compose", last_lines(done))
        for database in images:
            self._await_healthy(database.container, began + self.healthy_seconds)
        self.took["databases healthy"] = round(clock.monotonic() - began, 1)

    def _await_healthy(self, name: str, deadline: float) -> None:
        while True:
            inspected = json.loads(commands.run("docker", "inspect", name).stdout or "[{}]")[0]
            state = inspected.get("State", {})
            if state.get("Health", {}).get("Status") == "healthy":
                return
            if inspected.get("RestartCount", 0) >= RESTARTS or clock.monotonic() > deadline:
                image = inspected.get("Config", {}).get("Image", "its new image")
                raise Refused(
                    f"{name} did not become healthy on {image}.",
                    name,
                    engine.logs(name, LAST_LINES).splitlines() + engine.health(name),
                )
            clock.sleep(0.3)

    def _stop_services(self, live: Live | None) -> None:
        """Each finishes its work: requests from before the page, running tasks."""
        self._timed("services stopped", "stop", [one.name for group in self._writers(live) for one in group])

    def _start_services(self, live: Live | None) -> None:
        """What has no route comes last: before the smoke test, no task may change what a rollback would lose."""
        if live is None:
            return
        began = clock.monotonic()
        serving, working = self._writers(live)
        # Of a release without labels nobody knows which of them serve.
        groups = (serving, working) if serving else (working,)
        for number, group in enumerate(groups):
            self._timed("services started", "start", [one.name for one in group])
            for one in group:
                self._await_healthy(one.name, clock.monotonic() + self.host.settings.healthy_seconds)
            if number == 0:
                self._look_at(live)
        self.took["services healthy"] = round(clock.monotonic() - began, 1)

    def _writers(self, live: Live | None) -> tuple[list[Container], list[Container]]:
        """Return the containers that write to the databases: those that serve requests, and the others."""
        if live is None:
            return [], []
        side = Side.on(self.host.settings, live)
        found = [one for one in side.containers() if side.known.get(one.service).writes]
        routed = [one for one in found if side.known.get(one.service).routes]
        return routed, [one for one in found if one not in routed]

    def _look_at(self, live: Live) -> None:
        try:
            self.host.smoke.look(live, routed=True)
        except ProbeFailed as failed:
            raise Refused(f"The site failed its smoke test after the databases were started: {failed}") from failed

    # --- small things ---

    def _timed(self, what: str, verb: str, names: list[str]) -> None:
        """Stop or start those containers that are there."""
        began = clock.monotonic()
        there = engine.names()
        if found := [name for name in names if name in there]:
            done = commands.run("docker", verb, *found, seconds=STOP_SECONDS)
            if done.returncode:
                raise Refused(f"docker {verb} failed for {', '.join(found)}.", "docker", last_lines(done))
        self.took[what] = round(self.took.get(what, 0) + clock.monotonic() - began, 1)


def _draft(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.part")


def names(due: list[Database]) -> str:
    return " and ".join(database.service for database in due)
