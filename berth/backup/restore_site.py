"""What a restore does to the live site, one step per method. Each may be interrupted anywhere and repeated."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from berth.backup import parts
from berth.backup import restore_engine as engine
from berth.backup.bson import Timestamp
from berth.backup.oplog import increment
from berth.backup.records import Records
from berth.backup.replay import STAGED
from berth.backup.restic import PIECE
from berth.backup.restore_choice import Run, moment_text, within
from berth.backup.restore_scratch import Scratch
from berth.backup.run import Run as Copy
from berth.backup.run import say
from berth.backup.settings import Settings
from berth.host import commands
from berth.host.refused import Failed, Refused
from berth.stack import kept
from berth.stack.databases import Database

# Live, staged, and in the throwaway database.
COPIES = 3


class Unsaved(Failed):
    """The restore is done, but its result is not in every repository."""


class Site:
    """Everything a restore needs of the host."""

    def __init__(self, settings: Settings, records: Records) -> None:
        self._settings, self._records = settings, records
        self._files = settings.state / "restore-files"
        self._dumps = settings.state / "restore-databases"

    # --- what is there ---

    def collections(self) -> dict[str, int]:
        return engine.collections(self._settings.mongo) if self._settings.mongo else {}

    def collections_of(self, scratch: Scratch) -> dict[str, int]:
        return engine.collections(scratch.mongo)

    def writers(self) -> list[str]:
        """Return the running services that write to the databases."""
        return engine.writers(kept.live(self._settings.root))

    # --- before the site is closed ---

    @contextmanager
    def loaded(self, run: Run, scope: str) -> Iterator[Scratch]:
        """Restore all of MongoDB's data into a throwaway database; it is empty where there is no MongoDB.

        The oplog can only be replayed on the whole; mongorestore refuses it for a part.
        """
        needed = COPIES * sum(one["bytes"] for one in run.collections.values())
        free = shutil.disk_usage("/var/lib/docker").free
        if free < needed:
            raise Refused(
                f"A restore needs {needed >> 20} MiB of disk space in /var/lib/docker, and {free >> 20} MiB are free."
            )
        with Scratch(self._settings, "restore") as scratch:
            if not self._settings.mongo:
                yield scratch
                return
            scratch.start_mongo()
            say("Restoring into a throwaway database")
            scratch.load(run)
            there = engine.collections(scratch.mongo)
            if scope and not any(within(name, scope) for name in there):
                raise Refused(
                    f"{scope} did not exist at that time. There were: {', '.join(sorted(there)) or 'no collections'}."
                )
            if fixed := [name for name in engine.time_series(scratch.mongo) if within(name, scope)]:
                raise Refused(
                    f"{', '.join(fixed)}: MongoDB cannot rename a time series, so it cannot be replaced in one step. "
                    "Restore it into another database (restore_beside) and copy it over."
                )
            yield scratch

    def try_redis(self, run: Run) -> None:
        """Load the snapshot into a throwaway Redis, before the live one has to."""
        with Scratch(self._settings, "restore") as scratch:
            scratch.start_redis(run.redis_snapshot())

    def try_databases(self, run: Run, names: list[str]) -> None:
        """Restore the other databases into throwaway ones, before the live ones are changed."""
        needed = sum(run.manifest["parts"][one.name]["bytes"] for one in self._databases(names))
        free = shutil.disk_usage(self._settings.state).free
        if free < needed:
            raise Refused(
                f"A restore needs {needed >> 20} MiB of disk space in {self._settings.state}, and {free >> 20} MiB "
                "are free."
            )
        with Scratch(self._settings, "restore") as scratch:
            for one in self._databases(names):
                scratch.start_database(one, run.dump(one))

    def _databases(self, names: list[str]) -> list[Database]:
        found = [one for one in self._settings.databases if one.name in names]
        if gone := set(names) - {one.name for one in found}:
            raise Refused(f"{', '.join(sorted(gone))}: docker-compose.prod.yml has no berth.restore for it any more.")
        return found

    def safety_copy(self, what: str) -> str:
        """Back up the current data as a run of its own, even if collections are missing; return its id."""
        say("Making the safety copy")
        with self._records.locked("run", self._settings.wait_seconds):
            made = Copy(self._settings, self._records, f"before a restore of {what}", "before-restore")
            outcome = made(self._settings.targets)
        if not any(outcome["targets"].values()):
            raise Refused(f"The safety copy failed, so nothing was changed: {outcome['reason']}")
        return made.id

    def save_changes(self) -> None:
        """Make an increment, so that the last minutes can be restored."""
        if not self._settings.mongo:
            return
        try:
            increment(self._settings, self._records)
        except Refused as refused:
            say(f"The increment before the restore failed: {refused.reason}")

    def moment(self) -> str:
        """Return a point in time after every change up to now, once it has passed. Empty where there is none."""
        if not self._settings.mongo:
            return ""
        at = int(time.time()) + 1
        while time.time() <= at:
            time.sleep(0.05)
        return moment_text(Timestamp(at, 0))

    # --- closed ---

    def is_closed(self) -> bool:
        """Tell whether there is nothing to close: the maintenance page is shown, or nothing is live."""
        edge = self._settings.root / "traefik/dynamic"
        return (edge / "maintenance.yml").exists() or not (edge / "release.yml").exists()

    def close(self) -> None:
        self._maintenance("on", "The site could not be closed, so nothing was changed.")

    def open(self) -> None:
        self._maintenance("off", "The site could not be opened again.")

    def _maintenance(self, state: str, problem: str) -> None:
        # The lock is ours.
        done = commands.run_bytes("berth", "maintenance", state, "--guarded")
        if done.returncode:
            reason = json.loads(done.stdout)["reason"] if done.stdout else done.stderr.decode()
            raise Refused(f"{problem} {reason}")

    def stop(self, names: list[str]) -> None:
        engine.stop(names)

    def start(self, names: list[str]) -> None:
        """Start them, and other stopped containers of their colour; wait until all are healthy."""
        members = engine.members(kept.live(self._settings.root))
        projects = {one.project for one in members if one.name in names}
        wanted = [
            one.name for one in members if one.name in names or (one.state != "running" and one.project in projects)
        ]
        if gone := [name for name in names if name not in wanted]:
            raise Refused(f"{', '.join(gone)} no longer exists: release the live version again (ansible/release.yml).")
        engine.start(wanted)

    # --- staged ---

    def fill(self, scratch: Scratch, scope: str) -> tuple[int, list[str], dict[str, Any]]:
        """Copy from the throwaway database to staged collections, and compare.

        Returns documents, the collections (database.collection), and views with their options.
        """
        if not self._settings.mongo:
            return 0, [], {}
        say("Copying to staged collections")
        engine.drop_staged(self._settings.mongo)
        views = {name: one for name, one in engine.views(scratch.mongo).items() if within(name, scope)}
        options = [f"--nsExclude={name}" for name in views]
        renamed = f"--nsTo=$database$.{STAGED}$collection$"
        documents = self._take(scratch, scope, "--drop", "--nsFrom=$database$.$collection$", renamed, *options)
        wanted = {name: count for name, count in engine.collections(scratch.mongo).items() if within(name, scope)}
        if (found := engine.staged(self._settings.mongo)) != wanted:
            wrong = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            raise Refused(f"The staged collections differ from the restored ones: {', '.join(wrong)}.")
        return documents, sorted(wanted), views

    def put_beside(self, scratch: Scratch, scope: str, suffix: str) -> int:
        """Copy from the throwaway database into databases with this suffix."""
        return self._take(scratch, scope, "--nsFrom=$database$.$collection$", f"--nsTo=$database${suffix}.$collection$")

    def _take(self, scratch: Scratch, scope: str, *options: str) -> int:
        database, _, name = scope.partition(".")
        chosen = [f"--db={database}"] if database else []
        chosen += [f"--collection={name}"] if name else []
        archive = engine.dump(scratch.mongo, *chosen)
        return engine.restore(self._settings.mongo, archive, "--numParallelCollections=1", *options)

    def stage_redis(self, run: Run) -> None:
        engine.stage_redis(self._settings.redis, run.redis_snapshot())

    def stage_databases(self, run: Run, names: list[str]) -> None:
        """Take the dumps out of the repository, which may not answer when they are needed."""
        shutil.rmtree(self._dumps, ignore_errors=True)
        self._dumps.mkdir(mode=0o700)
        for one in self._databases(names):
            with (self._dumps / one.name).open("wb") as file:
                file.writelines(run.dump(one))
                file.flush()
                os.fsync(file.fileno())

    def stage_files(self, run: Run, paths: list[str]) -> None:
        shutil.rmtree(self._files, ignore_errors=True)
        take_files(run, paths, self._files)

    # --- the swap, and cleanup ---

    def swap(self, names: list[str], removed: list[str], views: dict[str, Any]) -> None:
        if not self._settings.mongo:
            return
        say("Replacing the live collections")
        engine.await_healthy(self._settings.mongo)
        engine.swap(self._settings.mongo, names, removed, views)

    def swap_redis(self) -> None:
        engine.swap_redis(self._settings.redis)

    def swap_databases(self, names: list[str]) -> None:
        """Restore the dumps. Where it was cut off, each is restored again."""
        for one in self._databases(names):
            say(f"Restoring {one.name}")
            container = parts.container_of(one)
            engine.await_healthy(container)
            with (self._dumps / one.name).open("rb") as file:
                engine.restore_database(container, one, iter(partial(file.read, PIECE), b""))

    def swap_files(self, paths: list[str]) -> None:
        """Restore files to their paths. Files that were added since stay."""
        for path in map(Path, paths):
            source = self._files / path.relative_to("/")
            if source.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                copy = ("cp", "--archive", "--remove-destination", "--no-target-directory", str(source), str(path))
                engine.must(commands.run_bytes(*copy, seconds=3600), f"{path} could not be put back")

    def remove_scratch(self) -> None:
        """Remove the throwaway database of an interrupted restore."""
        Scratch(self._settings, "restore").remove()

    def clear(self) -> None:
        """Remove everything staged, and the throwaway database."""
        self.remove_scratch()
        if self._settings.mongo:
            engine.drop_staged(self._settings.mongo)
        if self._settings.redis:
            engine.drop_staged_redis(self._settings.redis)
        shutil.rmtree(self._files, ignore_errors=True)
        shutil.rmtree(self._dumps, ignore_errors=True)

    def drop(self, databases: list[str]) -> None:
        engine.drop(self._settings.mongo, databases)

    def settle_release(self) -> None:
        """Have berth release settle its interrupted run. The lock is ours."""
        done = commands.run_bytes("berth", "release", "settle", "--guarded", seconds=3600)
        if done.returncode:
            reason = json.loads(done.stdout)["reason"] if done.stdout else done.stderr.decode()
            raise Refused(f"An interrupted run could not be settled: {reason}")

    def save_result(self, what: str) -> str:
        """Back up the restored data as the newest run: a drill or a rebuild would use the safety copy otherwise."""
        say("Backing up the restored data as the newest run")
        with self._records.changing() as state:
            # What the restore removed is not reported as missing.
            state["collections"] = {}
        made = Copy(self._settings, self._records, f"after a restore of {what}", "after-restore")
        outcome = made(self._settings.targets)
        with self._records.changing() as state:
            # The changes since the safety copy are the restore itself: all of the data once more.
            for known in state["targets"].values():
                known["before"] = [one for one in known.get("before", []) if one["until"] != known.get("position")]
                if known.get("run") != made.id:
                    # Do not continue from the safety copy either: a full run is due, and tried at once.
                    known |= {"position": "", "attempt_at": 0}
        if outcome["reason"]:
            raise Unsaved(
                "The restore is done, and the site is open or closed as before. But the backup of the restored data "
                f"failed: {outcome['reason']} The newest run there has the data from before the restore. Make another: "
                "ansible/backup.yml"
            )
        return made.id


def take_files(run: Run, paths: list[str], target: Path = Path("/")) -> None:
    includes = (f"--include={path}" for path in paths)
    run.store.ask("restore", run.snapshot("files"), f"--target={target}", "--verify", *includes, seconds=24 * 3600)
