"""MongoDB and Redis on other images, behind the maintenance page; back to the old ones where the new ones do not do."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berth_release.deploy import Deploy
from berth_release.edge import Live
from berth_release.engine import LAST_LINES, containers, health, last_lines, logs, run
from berth_release.probe import Visit, Wrong
from berth_release.records import now, write
from berth_release.settings import Refused

# A database that ended so often does not come up by itself.
RESTARTS = 2
# The worker ends the tasks that it holds, as at the end of a colour.
STOP_SECONDS = 180
# So much more than is copied has to be free.
ROOM = 1.2


@dataclass(frozen=True)
class Database:
    """One database container as it is before anything happens to it."""

    service: str
    # What it is to run, and what it runs: by name where the name still means the same.
    new: str
    old: str
    data: Path

    @property
    def container(self) -> str:
        return f"berth-{self.service}-1"

    @property
    def copy(self) -> Path:
        """Beside the data, where the same disk has to have room."""
        return self.data.with_name("berth-before-upgrade")


@dataclass
class Upgrade(Deploy):
    """The verb that closes the site. Everything else about a release is in Deploy."""

    healthy_seconds: int = 180
    took: dict[str, float] = field(default_factory=dict)

    def upgrade(self, by: str, wanted: dict[str, str]) -> dict[str, Any]:
        """Run these databases on these images. What an earlier attempt left half done is brought to its end."""
        with self.records.guarded():
            if who := self.records.current():
                raise Refused(f"{self.records.describe(who)}. Finish that first: run release.yml.")
            databases = [self._look(service, image) for service, image in wanted.items()]
            due = [database for database in databases if database.old != database.new]
            if not due and not self._mark.exists():
                return {"changed": False}
            for database in due:
                self._room_for(database)
            return self._behind_the_page(by, due or databases)

    # --- what is there ---

    @property
    def _mark(self) -> Path:
        """Says that an upgrade is under way, and whether it was the one that closed the site."""
        return self.settings.releases / "upgrade.json"

    def _look(self, service: str, image: str) -> Database:
        data = run("docker", "volume", "inspect", "--format={{.Mountpoint}}", f"{service}_data").stdout.strip()
        if not data:
            raise Refused(f"{service} has no data on this host, so there is nothing to upgrade.")
        if not self._image_id(image):
            raise Refused(f"The host lacks {image}, so nothing was begun.")
        container = json.loads(run("docker", "inspect", f"berth-{service}-1").stdout or "[]")
        # Not there after a run that was cut off while the container was replaced.
        name = image
        if container:
            old, name = container[0]["Image"], container[0]["Config"]["Image"]
            if self._image_id(name) != old:
                # The name means another image by now; the old one gets a name of its own, so that nobody removes it.
                name = f"berth/{service}:before-upgrade"
                run("docker", "tag", old, name)
        return Database(service, image, name, Path(data))

    def _image_id(self, name: str) -> str:
        return run("docker", "image", "inspect", "--format={{.Id}}", name).stdout.strip()

    def _room_for(self, database: Database) -> None:
        """The way back is a copy of the data, made while nobody writes."""
        size = int(run("du", "--summarize", "--bytes", str(database.data)).stdout.split()[0])
        free = shutil.disk_usage(database.data).free
        if not database.copy.exists() and free < size * ROOM:
            raise Refused(
                f"{database.service} has {size // 2**20} MiB of data and the disk {free // 2**20} MiB of room: "
                "too little for the copy that is the way back. Nothing was begun."
            )

    # --- what is done ---

    def _behind_the_page(self, by: str, due: list[Database]) -> dict[str, Any]:
        began, live = time.monotonic(), self.edge.live()
        opens = json.loads(self._mark.read_text())["opens"] if self._mark.exists() else not self.edge.maintenance_key()
        write(self._mark, json.dumps({"opens": opens}) + "\n")
        refused = None
        if live:
            try:
                self._close(live, self.edge.maintenance_addresses())
            except Refused:
                self._mark.unlink()
                raise
        closed = time.monotonic()
        try:
            self._replace(live, due)
        except (Refused, OSError) as no:
            refused = self._put_back(live, due, no if isinstance(no, Refused) else Refused(f"It did not go on: {no}."))
        for database in due:
            shutil.rmtree(database.copy, ignore_errors=True)
        if live and opens:
            self.edge.open()
            self._confirm(live)
        self._mark.unlink()
        self.took["closed"] = round(time.monotonic() - closed, 1)
        self._note_it(by, due, time.monotonic() - began, refused)
        if refused:
            raise refused
        return {"changed": True, "steps": self.took, "to": {database.service: database.new for database in due}}

    def _replace(self, live: Live | None, due: list[Database]) -> None:
        self._stop_services(live)
        self._timed("databases stopped", "stop", [database.container for database in due])
        began = time.monotonic()
        for database in due:
            if not database.copy.exists():
                self._copy(database.data, database.copy)
        self.took["copied"] = round(time.monotonic() - began, 1)
        self._start_databases({database: database.new for database in due})
        self._start_services(live)

    def _put_back(self, live: Live | None, due: list[Database], no: Refused) -> Refused:
        """Return what is to be said. Where not even the old one comes up, the site stays closed and the copy stays."""
        self._stop_services(live)
        run("docker", "rm", "--force", *(database.container for database in due))
        try:
            for database in due:
                if database.copy.exists():
                    shutil.rmtree(database.data)
                    self._copy(database.copy, database.data)
            self._start_databases({database: database.old for database in due})
            self._start_services(live)
        except (Refused, OSError) as worse:
            raise Refused(
                f"{no.reason} And the old image did not come back either ({worse}), so the site stays closed. "
                f"The data as it was: {', '.join(str(database.copy) for database in due)}.",
                no.guilty,
                no.lines,
            ) from worse
        return Refused(f"{no.reason} The old image is back, with the data as it was.", no.guilty, no.lines)

    def _copy(self, source: Path, target: Path) -> None:
        """Under another name until it is whole, so that a copy that was cut off is never taken for one."""
        part = target.with_name(f"{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        done = run("cp", "--archive", "--reflink=auto", str(source), str(part), seconds=3600)
        if done.returncode:
            raise Refused(f"{source} could not be copied.", "cp", last_lines(done))
        part.rename(target)

    def _start_databases(self, images: dict[Database, str]) -> None:
        began, root = time.monotonic(), self.settings.root
        chosen = {f"{database.service.upper()}_IMAGE": image for database, image in images.items()}
        done = run(
            *("docker", "compose", "--progress=plain", f"--project-directory={root}", "--project-name=berth"),
            *(f"--env-file={root}/.env", f"--file={root}/docker-compose.prod.yml", "--profile=platform"),
            *("up", "--detach", "--pull=never", "--no-deps", *(database.service for database in images)),
            seconds=self.healthy_seconds,
            # The file asks for them, these services do not.
            RELEASE="-",
            COLOUR="-",
            **chosen,
        )
        if done.returncode:
            raise Refused("The databases could not be started.", "compose", last_lines(done))
        for database in images:
            self._await_healthy(database.container, began + self.healthy_seconds)
        self.took["databases healthy"] = round(time.monotonic() - began, 1)

    def _await_healthy(self, name: str, deadline: float) -> None:
        while True:
            inspected = json.loads(run("docker", "inspect", name).stdout or "[{}]")[0]
            state = inspected.get("State", {})
            if state.get("Health", {}).get("Status") == "healthy":
                return
            if inspected.get("RestartCount", 0) >= RESTARTS or time.monotonic() > deadline:
                image = inspected.get("Config", {}).get("Image", "its new image")
                raise Refused(
                    f"{name} did not become healthy on {image}.",
                    name,
                    logs(name, LAST_LINES).splitlines() + health(name),
                )
            time.sleep(0.3)

    def _stop_services(self, live: Live | None) -> None:
        """Each ends what it holds: requests that came before the page, tasks under way."""
        names = [one.name for one in containers([live.colour]) if one.service != "frontend"] if live else []
        self._timed("services stopped", "stop", names)

    def _start_services(self, live: Live | None) -> None:
        """The worker last: until the site is seen to work, nothing may happen that the copy does not know."""
        if live is None:
            return
        began = time.monotonic()
        found = containers([live.colour])
        for group in (("auth_service", "user_service"), ("celery_worker", "beat")):
            names = [one.name for one in found if one.service in group]
            self._timed("services started", "start", names)
            for name in names:
                self._await_healthy(name, time.monotonic() + self.settings.healthy_seconds)
            if "auth_service" in group:
                self._look_at(live)
        self.took["services healthy"] = round(time.monotonic() - began, 1)

    def _look_at(self, live: Live) -> None:
        visitor = Visit(**self._description(self.edge.pass_header(), live.signature))
        try:
            visitor.everything()
        except Wrong as wrong:
            raise Refused(f"On the new images the site is not well: {wrong}") from wrong
        finally:
            visitor.close()

    # --- small things ---

    def _timed(self, what: str, verb: str, names: list[str]) -> None:
        """Stop or start those containers that are there."""
        began = time.monotonic()
        there = set(run("docker", "ps", "--all", "--format={{.Names}}").stdout.split())
        if found := [name for name in names if name in there]:
            done = run("docker", verb, *found, seconds=STOP_SECONDS)
            if done.returncode:
                raise Refused(f"Docker did not {verb} {', '.join(found)}.", "docker", last_lines(done))
        self.took[what] = round(self.took.get(what, 0) + time.monotonic() - began, 1)

    def _note_it(self, by: str, due: list[Database], seconds: float, refused: Refused | None) -> None:
        line = {
            "at": now(),
            "by": by,
            "verb": "upgrade",
            "databases": {database.service: f"{database.old} -> {database.new}" for database in due},
            "result": "failed" if refused else "live",
            "seconds": round(seconds, 1),
            "reason": refused.reason if refused else "",
            "steps": self.took,
        }
        with suppress(OSError), self.settings.history.open("a") as file:
            file.write(json.dumps(line) + "\n")
