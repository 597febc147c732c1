"""The restore drill: restore into throwaway containers, compare, check, record the result, clean up."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from berth.backup import restore_engine as engine
from berth.backup.archive import Tally, differences
from berth.backup.records import Records, Stopped, seconds_of
from berth.backup.restore_choice import LATEST, Run, choose, damaged, verify
from berth.backup.restore_scratch import Scratch
from berth.backup.run import say
from berth.backup.settings import Settings
from berth.host import files
from berth.host.clock import now
from berth.host.refused import Refused
from berth.stack import kept
from berth.stack.kept import Kept

KEPT = 60
DAY = 24 * 3600


def add_arguments(verbs: Any) -> None:
    drill_verb = verbs.add_parser(
        "drill",
        prog="berth drill",
        help="restore the newest backup into throwaway containers, and compare",
    )
    drill_verb.add_argument("run", nargs="?", default=LATEST)
    drill_verb.add_argument("--target", default="")


class Evidence:
    """The record of a drill, written whether it passed or failed."""

    def __init__(self, settings: Settings, target: str) -> None:
        self._settings = settings
        self.seen: dict[str, Any] = {"began": now(), "target": target, "result": "failed", "steps": {}}
        self._began = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        say(name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seen["steps"][name] = round(time.monotonic() - began, 1)

    def write(self) -> Path:
        self.seen["seconds"] = round(time.monotonic() - self._began, 1)
        self.seen["ended"] = now()
        folder = self._settings.state / "drills"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = folder / f"{self.seen['began'].replace(':', '')}.json"
        files.write(place, json.dumps(self.seen, indent=2) + "\n", 0o600)
        for old in sorted(folder.glob("*.json"))[:-KEPT]:
            old.unlink()
        if self.seen["result"] != "stopped":
            self._write_metrics()
        return place

    def _write_metrics(self) -> None:
        place = self._settings.metrics / "berth_backup_drill.prom"
        target = f'{{target="{self.seen["target"]}"}}'
        good = self.seen["result"] == "passed"
        lines = _read(place) if place.exists() else {}
        lines |= {
            f"berth_backup_drill_result{target}": str(int(good)),
            f"berth_backup_drill_last_attempt_timestamp_seconds{target}": str(int(time.time())),
            f"berth_backup_drill_duration_seconds{target}": str(self.seen["seconds"]),
        }
        if good:
            lines |= {
                f"berth_backup_drill_last_success_timestamp_seconds{target}": str(int(time.time())),
                f"berth_backup_drill_documents{target}": str(self.seen.get("documents", 0)),
            }
        files.write(place, "".join(f"{name} {value}\n" for name, value in lines.items()))


def _read(place: Path) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in place.read_text().splitlines())


def drill(settings: Settings, records: Records, args: Namespace) -> dict[str, Any]:
    """The verb `drill`. Each night uses another target, so that all are tested."""
    if not settings.targets:
        raise Refused("backup_targets is empty, so there is nothing to restore.")
    target = args.target or settings.targets[int(time.time() // DAY) % len(settings.targets)].name
    evidence = Evidence(settings, target)
    with records.locked("restore", drill=True):
        try:
            _drill(settings, args.run, evidence)
            evidence.seen["result"] = "passed"
        except Stopped as stopped:
            # By a restore, a shutdown or an operator: it says nothing about the backups.
            evidence.seen |= {"result": "stopped", "reason": stopped.reason}
            raise
        except Refused as refused:
            evidence.seen |= {"reason": refused.reason, "lines": refused.lines}
            raise
        except Exception as error:
            evidence.seen["reason"] = repr(error)
            raise
        finally:
            evidence.seen["evidence"] = str(evidence.write())
    return {"changed": False, **evidence.seen}


def _drill(settings: Settings, wanted: str, evidence: Evidence) -> None:
    seen = evidence.seen
    run = choose(settings, wanted, seen["target"])
    seen |= {"run": run.id, "as_of": run.as_of, "increments": len(run.increments)}
    if wanted == LATEST:
        _refuse_stale(settings, run)
    with evidence.step("read"):
        verify(run)
    with Scratch(settings, "drill") as scratch:
        if settings.mongo:
            _restore_and_compare(run, scratch, evidence)
        if settings.redis:
            with evidence.step("redis"):
                seen["redis_keys"] = scratch.start_redis(run.redis_snapshot())
        for one in filter(run.has, settings.databases):
            with evidence.step(one.name):
                scratch.start_database(one, run.dump(one))
            seen.setdefault("databases", []).append(one.name)
        if reason := _unchecked(settings, run):
            seen["checks"] = f"left out: {reason}"
            return
        with evidence.step("check"):
            seen["checks"] = _check(settings, scratch)


def _unchecked(settings: Settings, run: Run) -> str:
    """Say why services cannot check the restored data; empty where they can."""
    if not (settings.mongo or settings.databases) or not kept.live(settings.root).checks:
        return "no release with a check is live"
    made_by = run.manifest.get("release", {}).get("release", "")
    if not Kept(settings.root, made_by).known.checks:
        # Nothing had made the account by then.
        return f"release {made_by or '(none)'}, which was live when the backup was made, has no check"
    return ""


def _check(settings: Settings, scratch: Scratch) -> dict[str, str]:
    """Have the live release's services check the restored data; of those that serve requests, by themselves."""
    stack = kept.live(settings.root)
    running = {one.service: one.name for one in engine.members(stack) if one.state == "running"}
    secret = (settings.root / "releases/probe").read_text()
    services = [one for one in stack.checks if one.port and one.name in running]
    return {one.name: scratch.check(one, running[one.name], secret) for one in services}


def _restore_and_compare(run: Run, scratch: Scratch, evidence: Evidence) -> None:
    with evidence.step("database"):
        scratch.start_mongo()
    with evidence.step("restore as dumped"):
        archive = run.archive(with_changes=False)
        engine.restore(scratch.mongo, archive, "--drop", "--noIndexRestore", "--numParallelCollections=1")
    with evidence.step("compare"):
        found = _tally(scratch)
        if differing := differences({"collections": run.collections}, found):
            raise damaged(run, " ".join(differing))
        evidence.seen["collections"] = {name: one["documents"] for name, one in found["collections"].items()}
    with evidence.step("restore with changes"):
        scratch.load(run)
        found = _tally(scratch)
        evidence.seen["documents"] = sum(one["documents"] for one in found["collections"].values())
    if not run.increments and run.manifest["mongo"]["oplog"]["first"] == run.manifest["mongo"]["oplog"]["last"]:
        # Nothing changed during the dump, so every index must have been restored.
        for name, one in run.collections.items():
            if one["indexes"] != found["collections"][name]["indexes"]:
                raise damaged(run, f"{name} was restored without one of its indexes {', '.join(one['indexes'])}")


def _tally(scratch: Scratch) -> dict[str, Any]:
    tally = Tally()
    for piece in engine.dump(scratch.mongo):
        tally.feed(piece)
    tally.finish()
    return tally.summary()


def _refuse_stale(settings: Settings, run: Run) -> None:
    hours = (time.time() - seconds_of(run.manifest["ended"])) / 3600
    if hours > settings.max_age_hours:
        raise Refused(
            f"The newest run on target {run.store.name}, {run.id}, is {hours:.0f} hours old, and "
            f"backup_max_age_hours allows {settings.max_age_hours}. See: systemctl status berth-backup"
        )
