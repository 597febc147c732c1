"""Restore everything, one database or one collection, as it was at the end of a run or at any point in time since.

It ends in one of two states: done, or as before. First everything is read, verified and copied to staged collections
next to the live ones; then these are renamed, one atomic step each. An interruption before the first rename ends in as
before, a later one in done: the next program that finds the record settles it.
"""

from __future__ import annotations

import time
import uuid
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from berth.backup import own_unit
from berth.backup.bson import Timestamp
from berth.backup.records import Records, facts, hooks, site_lock
from berth.backup.restore_choice import LATEST, Run, choose, moment, moment_text, verify, within
from berth.backup.restore_site import Site, Unsaved
from berth.backup.run import say
from berth.backup.settings import Settings
from berth.host.hooks import DONE, FAILED, UNDONE
from berth.host.lock import Lock, describe
from berth.host.lock import Run as Holder
from berth.host.refused import Failed, Refused

# In this order. Each is recorded before its first step.
PREPARING, CLOSING, FILLING, BESIDE, SWAPPING, OPENING, SAVING, ENDING = (
    "preparing",
    "closing",
    "filling",
    "beside",
    "swapping",
    "opening",
    "saving",
    "ending",
)
# From these a restore can only be finished.
FORWARD = (SWAPPING, OPENING, SAVING)


def add_arguments(verbs: Any) -> None:
    restore = verbs.add_parser("restore", prog="berth restore", help="restore a run, or a point in time since")
    restore.add_argument("run", nargs="?", default=LATEST)
    restore.add_argument("--target", default="")
    restore.add_argument("--time", default="")
    restore.add_argument("--database", default="")
    restore.add_argument("--collection", default="")
    restore.add_argument("--beside", default="")
    restore.add_argument("--dry-run", action="store_true")
    restore.add_argument("--by", default="root")
    # In the unit that does it.
    restore.add_argument("--run-id", default="")
    settle = verbs.add_parser("settle", help="finish or undo an interrupted restore")
    settle.add_argument("--guarded", action="store_true", help="the caller holds the lock")


@dataclass(frozen=True)
class Request:
    run: str
    target: str
    time: str
    database: str
    collection: str
    beside: str

    @classmethod
    def read(cls, args: Namespace) -> Request:
        if args.collection and not args.database:
            raise Refused("restore_collection needs restore_database, which says where it is.")
        return cls(args.run, args.target, args.time, args.database, args.collection, args.beside)

    @property
    def until(self) -> Timestamp | None:
        return moment(self.time)

    @property
    def scope(self) -> str:
        return f"{self.database}.{self.collection}" if self.collection else self.database

    @property
    def whole(self) -> bool:
        """Redis and files have no point-in-time recovery; with a time and a named run, those of that run are meant."""
        return not self.scope and not self.beside and (not self.time or self.run != LATEST)

    @property
    def about(self) -> str:
        return (self.scope or "everything") + (f" into {self.beside}" if self.beside else "")


class Restore:
    def __init__(self, settings: Settings, records: Records, lock: Lock, site: Site) -> None:
        self._settings, self._records, self._lock, self._site = settings, records, lock, site
        # What is said of a hook that failed after it.
        self._note = ""

    # --- what there is to do ---

    def plan(self, request: Request) -> tuple[Run, dict[str, Any]]:
        """Choose the run, verify it against its manifest, and report what would happen. Changes nothing."""
        if not self._settings.mongo and (request.time or request.scope or request.beside):
            raise Refused(
                "restore_time, restore_database, restore_collection and restore_beside are for MongoDB, which this "
                "host does not have. Choose a run (restore_run): berth backup list"
            )
        run = choose(self._settings, request.run, request.target, request.until)
        wanted = [name for name in run.collections if within(name, request.scope)]
        if self._settings.mongo and not wanted and not request.time:
            has = ", ".join(sorted(run.collections)) or "no collection"
            raise Refused(f"Run {run.id} has no {request.scope}; it has {has}.")
        report = self._describe(run, wanted, request)
        say(f"Reading run {run.id} on target {run.store.name} and comparing it with its manifest")
        verify(run)
        return run, report

    def _describe(self, run: Run, wanted: list[str], request: Request) -> dict[str, Any]:
        live = self._site.collections()
        until = request.until
        end = min(one for one in (until, run.end) if one is not None) if run.end else until
        gone = [] if request.beside else self._gone(live, set(wanted), request.scope)
        described = {}
        for name in sorted({*wanted, *gone}):
            then = f"{run.collections[name]['documents']} in the dump" if name in run.collections else "not in the dump"
            target = beside_name(name, request.beside) if request.beside else name
            described[target] = f"{live.get(target, 'not there')} now, {then}"
        own = ", ".join(own_paths(self._settings, run))
        return {
            "run": run.id,
            "target": run.store.name,
            "release": run.manifest.get("release", {}),
            "as_of": moment_text(end) or run.as_of,
            "increments": len(run.increments),
            "scope": request.scope or "everything",
            "into": f"databases with the suffix {request.beside}" if request.beside else "the live databases",
            "collections": described,
            "removed": gone,
            "kept": sorted(name for name in live if self._is_beside(name)),
            "redis": ("replaced by the run's" if request.whole else "stays as it is") if self._settings.redis else "",
            "databases": {
                one.name: "replaced by the run's"
                if request.whole and run.has(one)
                else "stays as it is"
                if run.has(one)
                else "not in the run, stays as it is"
                for one in self._settings.databases
            },
            "files": f"taken from the run: {own}" if request.whole and own else "stay as they are",
        }

    def _gone(self, live: dict[str, int], wanted: set[str], scope: str) -> list[str]:
        """Return the live collections that would be dropped. Databases of an earlier restore_beside stay."""
        return sorted(name for name in live if name not in wanted and within(name, scope) and not self._is_beside(name))

    def _is_beside(self, name: str) -> bool:
        return name.partition(".")[0] in self._records.state().get("beside", [])

    # --- all of it ---

    def run(self, request: Request, by: str, run_id: str = "") -> dict[str, Any]:
        """Restore. The caller holds the lock.

        Raises Refused where nothing was changed, Failed where changes have been undone, or are not finished.
        """
        inherited = self._settle_before()
        with self._lock.without_commands():
            run_id = self._lock.begin("restore", request.about, by, phase=PREPARING, run_id=run_id, **inherited).id
        began = time.monotonic()
        try:
            hooks(self._settings).before("restore", **facts(self._settings, by, run_id))
            if request.time:
                self._site.save_changes()
            run, report = self.plan(request)
            work = self._beside if request.beside else self._replace
            documents = work(run, request, report)
        except (Refused, OSError) as error:
            raise self._ended(error) from error
        report |= {"changed": True, "documents": documents, "seconds": round(time.monotonic() - began, 1)}
        return report | ({"note": self._note} if self._note else {})

    def _settle_before(self) -> dict[str, Any]:
        """Settle an interrupted run. A restore that is done, but whose services do not start, may be replaced."""
        try:
            self.settle()
        except Refused:
            holder = self._lock.current()
            if holder is None or holder.verb != "restore" or holder.phase != OPENING:
                raise
            return {name: holder.detail[name] for name in ("opens", "writers")}
        return {}

    def _beside(self, run: Run, request: Request, _: dict[str, Any]) -> int:
        """Restore into databases with other names; the live ones are not changed."""
        with self._site.loaded(run, request.scope) as scratch:
            there = {name.partition(".")[0] for name in self._site.collections_of(scratch)}
            chosen = [one for one in there if not request.database or one == request.database]
            databases = sorted(f"{one}{request.beside}" for one in chosen)
            live = {name.partition(".")[0] for name in self._site.collections()}
            if taken := [one for one in databases if one in live]:
                raise Refused(
                    f"{', '.join(taken)} already exists: drop it, or choose another restore_beside than "
                    f"{request.beside}."
                )
            self._lock.enter(BESIDE, beside=databases)
            documents = self._site.put_beside(scratch, request.scope, request.beside)
        with self._records.changing() as state:
            state["beside"] = sorted({*state.get("beside", []), *databases})
        self._end("done")
        return documents

    def _replace(self, run: Run, request: Request, report: dict[str, Any]) -> int:
        with_redis = request.whole and bool(self._settings.redis)
        databases = [one.name for one in filter(run.has, self._settings.databases) if request.whole]
        own = own_paths(self._settings, run) if request.whole else []
        if with_redis:
            self._site.try_redis(run)
        if databases:
            self._site.try_databases(run, databases)
        with self._site.loaded(run, request.scope) as scratch:
            if databases:
                # Nothing saves their changes after a copy.
                self._close()
            copy = self._site.safety_copy(request.about)
            self._note_copy(copy, report)
            if not databases:
                self._close()
            # Changes in MongoDB between the safety copy and the maintenance page.
            self._site.save_changes()
            self._note_copy(copy, report, self._site.moment())
            with self._no_backup():
                self._lock.enter(FILLING)
                documents, names, views = self._site.fill(scratch, request.scope)
                if with_redis:
                    self._site.stage_redis(run)
                if databases:
                    self._site.stage_databases(run, databases)
                if own:
                    self._site.stage_files(run, own)
                removed = self._gone(self._site.collections(), set(names), request.scope)
                swapped = {"names": names, "removed": removed, "views": views, "databases": databases}
                self._lock.enter(SWAPPING, **swapped, redis=with_redis, files=own)
                self._swap()
                report["saved_as"] = self._forward()
        return documents

    @contextmanager
    def _no_backup(self) -> Iterator[None]:
        """Block backups: an increment would send all the restored data again, and a run the staged collections."""
        with ExitStack() as stack:
            for kind in ("run", "oplog"):
                stack.enter_context(self._records.locked(kind, self._settings.wait_seconds))
            yield

    def _note_copy(self, copy: str, report: dict[str, Any], moment: str = "") -> None:
        """Record how to restore the safety copy, before anything is changed."""
        at = f" -e restore_time={moment}" if moment else ""
        report["safety_copy"] = f"-e restore_run={copy}{at} -e confirm={self._settings.site}"
        self._lock.enter(safety_copy=report["safety_copy"])

    def _close(self) -> None:
        """Show the maintenance page and stop the writers; recorded before it is done."""
        before = self._detail()
        opens = before.get("opens", False) or not self._site.is_closed()
        writers = sorted({*before.get("writers", []), *self._site.writers()})
        self._lock.enter(CLOSING, opens=opens, writers=writers)
        if not self._site.is_closed():
            self._site.close()
        self._site.stop(writers)

    # --- to one of the two ends, from wherever it is ---

    def _swap(self) -> None:
        """Each step may have been done already."""
        detail = self._detail()
        self._site.swap(detail["names"], detail["removed"], detail["views"])
        if detail["redis"]:
            self._site.swap_redis()
        # The version before wrote none.
        if databases := detail.get("databases"):
            self._site.swap_databases(databases)
        self._site.swap_files(detail["files"])
        # From here on the services may create dropped collections again.
        self._lock.enter(OPENING)

    def _forward(self) -> str:
        """Start the services, open the site, back up the restored data. Return the id of that run."""
        self._up(self._detail())
        self._lock.enter(SAVING)
        self._site.clear()
        try:
            saved = self._site.save_result(self._holder().release)
        except Unsaved:
            self._end("done")
            raise
        self._end("done")
        return saved

    def _back(self, reason: str, result: str) -> None:
        """Undo: nothing has been renamed to a live name yet."""
        holder = self._holder()
        if holder.phase == FILLING:
            self._site.clear()
        else:
            self._site.remove_scratch()
        if made := holder.detail.get("beside"):
            self._site.drop(made)
        self._up(holder.detail)
        self._end("as before", reason, result)

    def _up(self, detail: dict[str, Any]) -> None:
        if detail.get("writers"):
            self._site.start(detail["writers"])
        if detail.get("opens"):
            self._site.open()

    def _ended(self, error: Refused | OSError) -> Refused | OSError:
        """Undo it if possible; return the error to report."""
        if isinstance(error, Unsaved):
            return error
        holder = self._lock.current()
        reason, lines = (error.reason, error.lines) if isinstance(error, Refused) else (f"{error}.", [])
        if holder is None:
            return Failed(f"The restore is done, but its cleanup failed: {reason}", lines=lines)
        if holder.phase == ENDING:
            ended = holder.detail["ended"]["result"]
            return Failed(
                f"The restore is over ({ended}), but its end could not be recorded: {reason} It is retried "
                "automatically; now: sudo berth backup settle",
                lines=lines,
            )
        if holder.phase in FORWARD:
            return Failed(
                f"{reason} The restore is not finished (phase: {holder.phase}). It is retried automatically; now: "
                f"sudo berth backup settle. To restore the safety copy afterwards: {holder.detail['safety_copy']}",
                lines=lines,
            )
        try:
            self._back(reason, FAILED)
        except (Refused, OSError) as worse:
            return Failed(f"{reason} Undoing it failed too: {worse} Try again: sudo berth backup settle", lines=lines)
        note = f" {self._note}" if self._note else ""
        if holder.phase == PREPARING:
            if isinstance(error, Refused):
                error.reason += note
            return error
        return Failed(f"{reason} Everything is as it was before.{note}", lines=lines)

    def settle(self) -> str:
        """Finish or undo an interrupted run. The caller holds the lock. Return which; empty where there is nothing."""
        holder = self._lock.current()
        if holder is None:
            return ""
        if holder.verb != "restore":
            self._site.settle_release()
            if waits := self._lock.current():
                # A release that its controller has begun and not started: it is sending images.
                raise Refused(
                    f"{describe(waits)} and is still connected. Nothing was changed. Wait until it is done: "
                    "sudo berth status"
                )
            return ""
        say(f"{describe(holder)} and was interrupted")
        if holder.phase == ENDING:
            self._tell()
            return f"{'finished' if holder.detail['ended']['result'] == 'done' else 'undone'}: {describe(holder)}"
        with self._no_backup():
            if holder.phase not in FORWARD:
                self._back("It was interrupted.", UNDONE)
                return f"undone: {describe(holder)}"
            if holder.phase == SWAPPING:
                self._swap()
            try:
                self._forward()
            except Unsaved as unsaved:
                say(unsaved.reason)
            return f"finished: {describe(holder)}"

    def _end(self, result: str, reason: str = "", told: str = DONE) -> None:
        """Record how it ended; hooks are told so, too. A program that takes over from here on changes nothing."""
        self._lock.enter(ENDING, ended={"result": result, "reason": reason, "told": told})
        self._tell()

    def _tell(self) -> None:
        """Tell the history, the hook after it and the caller how it ended, and release the lock."""
        holder = self._holder()
        result, reason, told = (holder.detail["ended"][name] for name in ("result", "reason", "told"))
        line = {"verb": "restore", "by": holder.by, "about": holder.release, "result": result, "reason": reason}
        line["safety_copy"] = holder.detail.get("safety_copy", "")
        took = round(time.time() - holder.began, 1)
        with suppress(OSError):
            self._records.remember(**line, seconds=took)
        known = facts(self._settings, holder.by, holder.id)
        self._note = hooks(self._settings).after("restore", **known, result=told, reason=reason)
        own_unit.tell(holder.id, {**line, "changed": result == "done", "note": self._note})
        self._lock.end()

    def _holder(self) -> Holder:
        return self._lock.enter()

    def _detail(self) -> dict[str, Any]:
        return self._holder().detail


# --- the verbs ---


def restore(settings: Settings, records: Records, args: Namespace) -> dict[str, Any]:
    """The verb `restore`: in a unit of its own, so that it goes on if its caller disconnects."""
    request, lock = Request.read(args), site_lock(settings)
    work = Restore(settings, records, lock, Site(settings, records))
    if args.dry_run:
        with records.restoring():
            return work.plan(request)[1] | {"changed": False, "dry_run": True}
    if not args.run_id:
        return _in_its_unit(lock, records, work, args)
    with lock.held(), records.restoring():
        try:
            answer = work.run(request, args.by, args.run_id)
        except Refused as refused:
            own_unit.tell(args.run_id, refused)
            raise
        own_unit.tell(args.run_id, answer)
        return answer


def _in_its_unit(lock: Lock, records: Records, work: Restore, args: Namespace) -> dict[str, Any]:
    # Names the lock holder before anything is begun.
    with lock.held(), records.restoring():
        pass
    run_id = uuid.uuid4().hex[:12]
    words = ("target", "time", "database", "collection", "beside", "by")
    where = [f"--{name}={getattr(args, name)}" for name in words]
    arguments = ("restore", args.run, *where, f"--run-id={run_id}")
    failure = own_unit.launch("berth-restore", *arguments, settled_by="berth-restore-settle.service")
    # If its process was killed in the middle, it is settled here or by its unit.
    with lock.held(wait=True):
        holder = lock.current()
        if holder and holder.id == run_id:
            work.settle()
    told = own_unit.told(run_id, failure)
    if told.get("result") == "as before":
        raise Failed("The restore was interrupted. Everything is as it was before.")
    return told


def settle(settings: Settings, records: Records, guarded: bool) -> dict[str, Any]:
    """The verb `settle`."""
    lock = site_lock(settings)
    with nullcontext() if guarded else lock.held(wait=True):
        holder = lock.current()
        if holder is None or holder.verb != "restore":
            return {"changed": False}
        return {"changed": True, "settled": Restore(settings, records, lock, Site(settings, records)).settle()}


def beside_name(namespace: str, suffix: str) -> str:
    database, _, name = namespace.partition(".")
    return f"{database}{suffix}.{name}"


def own_paths(settings: Settings, run: Run) -> list[str]:
    """Return the paths that the owner has configured; those of Berth itself belong to the host, not to the data."""
    root = str(settings.root)
    saved = run.manifest["parts"].get("files", {}).get("paths", [])
    return [path for path in saved if path != root and not path.startswith(f"{root}/")]
