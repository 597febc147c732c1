"""Disaster recovery on a bare host: files before the edge requests a certificate, data before the first release."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from berth.backup import restore_engine as engine
from berth.backup.parts import container_of
from berth.backup.records import Records
from berth.backup.restore import own_paths
from berth.backup.restore_choice import LATEST, Run, choose, verify
from berth.backup.restore_site import take_files
from berth.backup.run import say
from berth.backup.settings import Settings
from berth.host import files
from berth.host.clock import now
from berth.host.refused import Refused
from berth.stack import kept

FILES, DATA = "files", "data"
# The files that a rebuilt host takes over; routes and settings are written by the roles.
TAKEN_OVER = ("traefik/acme", "releases.jsonl", "releases")
NOT_TAKEN_OVER = (
    "releases/settings.json",
    "releases/run.json",
    "releases/guard",
)


def add_arguments(verbs: Any) -> None:
    rebuild = verbs.add_parser(
        "rebuild", prog="berth rebuild", help="disaster recovery: restore files or data to a bare host"
    )
    rebuild.add_argument("what", choices=[FILES, DATA])
    rebuild.add_argument("run", nargs="?", default=LATEST)
    rebuild.add_argument("--target", default="")


def rebuild(settings: Settings, records: Records, args: Namespace) -> dict[str, Any]:
    """The verb `rebuild`: restore files, later data, to a bare host. The run is chosen once."""
    with records.restoring():
        mark = settings.state / "rebuilt.json"
        done = files.read_json(mark) or {}
        if done.get(args.what) and args.run in (LATEST, done["run"]):
            return {"changed": False, **done}
        if DATA in done:
            raise Refused(
                f"This host was already rebuilt from run {done['run']}. To restore again: ansible/restore.yml"
            )
        if not done:
            _must_be_bare(settings)
        run = choose(settings, done.get("run", args.run), done.get("target", args.target))
        if args.run == LATEST:
            # Including the increments saved since then.
            run = choose(settings, LATEST, run.store.name)
        say(f"Reading run {run.id} on target {run.store.name} and comparing it with its manifest")
        verify(run)
        known = {"run": run.id, "target": run.store.name, "as_of": run.as_of, **done}
        if args.what == FILES:
            _take_over_files(settings, run)
        else:
            known |= _take_over_data(settings, run, again=FILES in done)
            if settings.redis and "redis" in run.manifest["parts"]:
                engine.replace_redis(settings.redis, run.redis_snapshot())
        known[args.what] = now()
        files.write(mark, json.dumps(known, indent=2) + "\n", 0o600)
        return {"changed": True, **known}


def _must_be_bare(settings: Settings) -> None:
    if (settings.root / "releases.jsonl").exists():
        raise Refused("This host has had releases, and -e restore=... is for bare hosts only: use ansible/restore.yml.")


def _take_over_data(settings: Settings, run: Run, again: bool) -> dict[str, Any]:
    """Restore the databases. Data of an interrupted attempt is dropped, as long as no release has used it."""
    there = {name.partition(".")[0] for name in engine.collections(settings.mongo)} if settings.mongo else set()
    used = engine.writers(kept.live(settings.root)) if there or settings.databases else []
    if used or (there and not again):
        raise Refused("The database is not empty, so this is not a bare host: use ansible/restore.yml.")
    taken: dict[str, Any] = {}
    if settings.mongo:
        engine.drop(settings.mongo, there)
        options = ("--drop", "--oplogReplay", "--numParallelCollections=1")
        taken["documents"] = engine.restore(settings.mongo, run.archive(), *options)
    for one in filter(run.has, settings.databases):
        engine.restore_database(container_of(one), one, run.dump(one))
        taken.setdefault("databases", []).append(one.name)
    return taken


def _take_over_files(settings: Settings, run: Run) -> None:
    take_files(run, [f"{settings.root}/{path}" for path in TAKEN_OVER] + own_paths(settings, run))
    for path in NOT_TAKEN_OVER:
        (settings.root / path).unlink(missing_ok=True)
