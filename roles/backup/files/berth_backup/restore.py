"""Bring back everything, one database or one collection, as it was at the end of a run or at any moment since.

Nothing is touched before all that is needed was read and compared with its manifest. What is there before is saved
first, and what is there then afterwards.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from berth_backup import restore_engine as engine
from berth_backup.bson import Timestamp
from berth_backup.oplog import increment
from berth_backup.records import Records, now, write
from berth_backup.restore_choice import LATEST, Run, choose, moment, moment_text, verify
from berth_backup.restore_scratch import Scratch
from berth_backup.restore_stream import compose
from berth_backup.run import Run as Copy
from berth_backup.run import say
from berth_backup.settings import Refused, Settings

# A bare host: files before the edge asks for a certificate, data before the first release.
FILES, DATA = "files", "data"
# Of the files, what a host that is built anew takes over; routes and settings are written by the roles.
TAKEN_OVER = ("traefik/acme", "releases.jsonl", "releases")
NOT_TAKEN_OVER = (
    "releases/settings.json",
    "releases/run.json",
    "releases/guard",
    "releases/routes.yml",
    "releases/maintenance.yml",
)


def add_arguments(verbs: Any) -> None:
    restore = verbs.add_parser("restore")
    restore.add_argument("run", nargs="?", default=LATEST)
    restore.add_argument("--target", default="")
    restore.add_argument("--time", default="")
    restore.add_argument("--database", default="")
    restore.add_argument("--collection", default="")
    restore.add_argument("--beside", default="")
    restore.add_argument("--dry-run", action="store_true")
    rebuild = verbs.add_parser("rebuild")
    rebuild.add_argument("what", choices=[FILES, DATA])
    rebuild.add_argument("run", nargs="?", default=LATEST)
    rebuild.add_argument("--target", default="")


def restore(settings: Settings, records: Records, asked: Namespace) -> dict[str, Any]:
    """The verb `restore`."""
    until = moment(asked.time)
    if asked.collection and not asked.database:
        raise Refused("restore_collection needs restore_database, which says where it is.")
    scope = f"{asked.database}.{asked.collection}" if asked.collection else asked.database
    with records.locked("restore"):
        if asked.time and not asked.dry_run:
            _save_changes(settings, records)
        run = choose(settings, asked.run, asked.target, until)
        wanted = [name for name in run.collections if not scope or name == scope or name.startswith(f"{scope}.")]
        if not wanted and not until:
            raise Refused(
                f"Run {run.id} has no {scope}; it has {', '.join(sorted(run.collections)) or 'no collection'}."
            )
        # Redis and files know no moments; who names a run besides means those of that run.
        whole = not scope and not asked.beside and (not until or asked.run != LATEST)
        report = _plan(settings, run, wanted, scope, until, asked.beside, whole)
        say(f"Reading run {run.id} on target {run.store.name} and comparing it with its manifest")
        verify(run)
        if asked.dry_run:
            return report | {"changed": False, "dry_run": True}
        began = time.monotonic()
        limit = f"{until[0]}:{until[1]}" if until else ""
        if asked.beside:
            documents = _beside(settings, run, wanted, limit, scope, asked.beside)
        elif scope:
            documents = _part(settings, records, run, limit, scope, report)
        else:
            documents = _everything(settings, records, run, limit, whole, report)
        return report | {"changed": True, "documents": documents, "seconds": round(time.monotonic() - began, 1)}


def _plan(
    settings: Settings, run: Run, wanted: list[str], scope: str, until: Timestamp | None, beside: str, whole: bool
) -> dict[str, Any]:
    """Say what would happen, without doing it."""
    live = engine.collections(settings.mongo)
    end = min(one for one in (until, run.end) if one is not None) if run.end else until
    names = sorted({*wanted, *(name for name in live if not scope or name == scope or name.startswith(f"{scope}."))})
    described = {}
    for name in names:
        then = f"{run.collections[name]['documents']} in the dump" if name in run.collections else "not in the dump"
        target = beside_name(name, beside) if beside else name
        described[target] = f"{live.get(target, 'not there')} now, {then}"
    own = ", ".join(_own_paths(settings, run))
    return {
        "run": run.id,
        "target": run.store.name,
        "release": run.manifest.get("release", {}),
        "as_of": moment_text(end),
        "increments": len(run.increments),
        "scope": scope or "everything",
        "into": f"databases with {beside} at their names' end" if beside else "the live databases",
        "collections": described,
        "redis": "replaced by the run's" if whole and settings.redis else "stays as it is",
        "files": f"taken from the run: {own}" if whole and own else "stay as they are",
    }


def beside_name(namespace: str, suffix: str) -> str:
    database, _, name = namespace.partition(".")
    return f"{database}{suffix}.{name}"


def _beside(settings: Settings, run: Run, wanted: list[str], limit: str, scope: str, suffix: str) -> int:
    """Restore under other names of databases; what the site uses is not touched."""
    databases = {name.partition(".")[0] for name in wanted}
    taken = {name.partition(".")[0] for name in engine.collections(settings.mongo)}
    if there := sorted(one + suffix for one in databases if one + suffix in taken):
        raise Refused(f"{', '.join(there)} is there already: drop it, or choose another restore_beside than {suffix}.")
    with _loaded(settings, run, scope, limit) as scratch:
        return _take(
            settings, scratch, scope, "--nsFrom=$database$.$collection$", f"--nsTo=$database${suffix}.$collection$"
        )


def _part(settings: Settings, records: Records, run: Run, limit: str, scope: str, report: dict[str, Any]) -> int:
    """Replace a database or a collection; the site is closed only while it is copied."""
    database, _, name = scope.partition(".")
    with _loaded(settings, run, scope, limit) as scratch, closed(settings, records, scope, report):
        if not name:
            engine.drop(settings.mongo, [database])
        return _take(settings, scratch, scope, "--drop")


def _everything(settings: Settings, records: Records, run: Run, limit: str, whole: bool, report: dict[str, Any]) -> int:
    with_redis = whole and settings.redis
    if with_redis:
        _try_redis(settings, run)
    with closed(settings, records, "everything", report):
        live = {name.partition(".")[0] for name in engine.collections(settings.mongo)}
        say(f"Replacing {', '.join(sorted(live)) or 'nothing'}")
        engine.drop(settings.mongo, live)
        documents = load(settings, run, limit)
        if with_redis:
            engine.replace_redis(settings.redis, run.redis_snapshot())
        if whole and (own := _own_paths(settings, run)):
            _take_files(run, own)
        return documents


def load(settings: Settings, run: Run, limit: str = "") -> int:
    options = (f"--oplogLimit={limit}",) if limit else ()
    archive = compose(run.archive(), run.later())
    return engine.restore(settings.mongo, archive, "--drop", "--oplogReplay", "--numParallelCollections=1", *options)


def _try_redis(settings: Settings, run: Run) -> None:
    """Let Redis itself say whether it can load this, before the live one has to."""
    with Scratch(settings, "restore") as scratch:
        scratch.start_redis(run.redis_snapshot())


@contextmanager
def _loaded(settings: Settings, run: Run, scope: str, limit: str) -> Iterator[Scratch]:
    """Restore all of it into a throwaway database.

    The oplog can only be replayed on the whole; mongorestore refuses it for a part.
    """
    needed = 2 * sum(one["bytes"] for one in run.collections.values())
    free = shutil.disk_usage("/var/lib/docker").free
    if free < needed:
        raise Refused(
            f"A throwaway database needs {needed >> 20} MiB below /var/lib/docker, where {free >> 20} are free."
        )
    with Scratch(settings, "restore") as scratch:
        scratch.start_mongo()
        say("Restoring into a throwaway database")
        scratch.load(run, limit)
        there = engine.collections(scratch.mongo)
        if scope and not any(one == scope or one.startswith(f"{scope}.") for one in there):
            raise Refused(
                f"At that moment there was no {scope}; there were {', '.join(sorted(there)) or 'no collections'}."
            )
        yield scratch


def _take(settings: Settings, scratch: Scratch, scope: str, *options: str) -> int:
    """Copy from the throwaway database into the live one."""
    say(f"Taking {scope or 'everything'} from there")
    database, _, name = scope.partition(".")
    chosen = [f"--db={database}"] if database else []
    chosen += [f"--collection={name}"] if name else []
    archive = compose(engine.dump(scratch.mongo, "--archive", "--numParallelCollections=1", *chosen))
    return engine.restore(settings.mongo, archive, "--numParallelCollections=1", *options)


def _save_changes(settings: Settings, records: Records) -> None:
    """Make moments of the last minutes reachable."""
    try:
        increment(settings, records)
    except Refused as refused:
        say(f"The newest changes could not be saved first: {refused.reason}")


def _safety_copy(settings: Settings, records: Records, what: str) -> str:
    """Save what is there now as a run of its own, whatever a mistake removed from it; return its name."""
    say("Saving what is there now")
    with records.locked("run", settings.wait_seconds):
        made = Copy(settings, records, f"before a restore of {what}", "before-restore")
        outcome = made(settings.targets)
    if not any(outcome["targets"].values()):
        raise Refused(f"What is there now could not be saved, so nothing was touched: {outcome['reason']}")
    return made.id


def _save_result(settings: Settings, records: Records, what: str) -> str:
    """Make what came back the newest run: a drill, or a host built anew, would take the safety copy for it."""
    say("Saving what is there now as the newest run")
    with records.changing() as state:
        # Whatever the restore removed was meant to go.
        state["collections"] = {}
    made = Copy(settings, records, f"after a restore of {what}", "after-restore")
    outcome = made(settings.targets)
    with records.changing() as state:
        # What led there from the safety copy is the restore itself: all of the data once more.
        for known in state["targets"].values():
            known["before"] = [one for one in known.get("before", []) if one["until"] != known.get("position")]
    if outcome["reason"]:
        raise Refused(
            "The restore is done, and the site as open as before. But a store has no backup of what is there now: "
            f"{outcome['reason']} The newest one there is of what was there before: ansible/backup.yml makes another."
        )
    return made.id


@contextmanager
def closed(settings: Settings, records: Records, what: str, report: dict[str, Any]) -> Iterator[None]:
    """Save what is there, show the maintenance page, stop who writes; then as before, and save what is there then.

    After failure the page stays.
    """
    copy = _safety_copy(settings, records, what)
    ours = _close(settings)
    writers = engine.writers()
    touched = False
    with ExitStack() as others_wait:
        try:
            with _no_release(settings):
                engine.stop(writers)
                # What came between the copy and the page.
                _save_changes(settings, records)
                after = moment_text(Timestamp(int(time.time()) + 1, 0))
                report["safety_copy"] = f"-e restore_run={copy} -e restore_time={after}"
                # An increment would send again all that comes back.
                for kind in ("run", "oplog"):
                    others_wait.enter_context(records.locked(kind, settings.wait_seconds))
                touched = True
                yield
                touched = False
        except BaseException as error:
            if not touched:
                raise
            say("The maintenance page stays, and the services are stopped.")
            reason = error.reason if isinstance(error, Refused) else repr(error)
            back = f"The databases may be incomplete. Back to what was there before: {report['safety_copy']}"
            raise Refused(f"{reason} {back}", error.lines if isinstance(error, Refused) else []) from error
        finally:
            if not touched:
                engine.start(writers)
                if ours:
                    engine.run("berth-release", "maintenance", "off")
        report["saved_as"] = _save_result(settings, records, what)


@contextmanager
def _no_release(settings: Settings) -> Iterator[None]:
    """Keep berth-release from starting one meanwhile, as it keeps a second one."""
    place = settings.root / "releases" / "guard"
    if not place.parent.exists():
        yield
        return
    with place.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("A release is under way. Wait until it is done, then try again.") from None
        yield


def _close(settings: Settings) -> bool:
    """Show the maintenance page; tell whether it was not there before.

    Where nothing is live there is nothing to close.
    """
    edge = settings.root / "traefik/dynamic"
    if (edge / "maintenance.yml").exists() or not (edge / "release.yml").exists():
        return False
    done = engine.run("berth-release", "maintenance", "on")
    if done.returncode:
        said = json.loads(done.stdout)["reason"] if done.stdout else done.stderr.decode()
        raise Refused(f"The site could not be closed, so nothing was touched. {said}")
    return True


# --- back from nothing ---


def rebuild(settings: Settings, records: Records, asked: Namespace) -> dict[str, Any]:
    """The verb `rebuild`: give a bare host its files, later its data. Which run it is is decided once."""
    with records.locked("restore"):
        mark = settings.state / "rebuilt.json"
        done = json.loads(mark.read_text()) if mark.exists() else {}
        if done.get(asked.what) and asked.run in (LATEST, done["run"]):
            return {"changed": False, **done}
        if not done:
            _must_be_bare(settings)
        run = choose(settings, done.get("run", asked.run), done.get("target", asked.target))
        if asked.run == LATEST:
            # Not only the run: everything that was saved after it, too.
            run = choose(settings, LATEST, run.store.name)
        say(f"Reading run {run.id} on target {run.store.name} and comparing it with its manifest")
        verify(run)
        known = {"run": run.id, "target": run.store.name, "as_of": moment_text(run.end), **done}
        if asked.what == FILES:
            _take_over_files(settings, run)
        else:
            there = {name.partition(".")[0] for name in engine.collections(settings.mongo)}
            # What an earlier attempt left half done goes, as long as no release has used it.
            if there and (FILES not in done or engine.writers()):
                raise Refused("The database is not empty, so this host is not a bare one: use ansible/restore.yml.")
            engine.drop(settings.mongo, there)
            known["documents"] = load(settings, run)
            if settings.redis and "redis" in run.manifest["parts"]:
                engine.replace_redis(settings.redis, run.redis_snapshot())
        known[asked.what] = now()
        write(mark, json.dumps(known, indent=2) + "\n")
        return {"changed": True, **known}


def _must_be_bare(settings: Settings) -> None:
    if (settings.root / "releases.jsonl").exists():
        raise Refused(
            "This host has had releases, so it is not a bare one, which -e restore=... is for: use ansible/restore.yml."
        )


def _take_over_files(settings: Settings, run: Run) -> None:
    _take_files(run, [f"{settings.root}/{path}" for path in TAKEN_OVER] + _own_paths(settings, run))
    for path in NOT_TAKEN_OVER:
        (settings.root / path).unlink(missing_ok=True)


def _own_paths(settings: Settings, run: Run) -> list[str]:
    """Return what the owner has named himself; what Berth keeps beside it belongs to the host, not to the data."""
    root = str(settings.root)
    saved = run.manifest["parts"].get("files", {}).get("paths", [])
    return [path for path in saved if path != root and not path.startswith(f"{root}/")]


def _take_files(run: Run, paths: list[str]) -> None:
    """Put files where they lay. What came beside them since stays."""
    includes = (f"--include={path}" for path in paths)
    run.store.ask("restore", run.snapshot("files"), "--target=/", "--verify", *includes, seconds=24 * 3600)
