"""Choose the run, the target and the point in time, and verify that all of it can be read, before any change."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from berth.backup import check
from berth.backup.bson import Malformed, Splitter, Timestamp, timestamp
from berth.backup.check import Kept
from berth.backup.replay import Replay, Unreplayable
from berth.backup.restic import PIECE, Store
from berth.backup.restore_stream import compose
from berth.backup.settings import Settings
from berth.host.refused import Refused
from berth.stack.databases import Database

LATEST = "latest"
DAY = 24 * 3600
ANOTHER = "Use another target (restore_target) or an earlier run (restore_run): berth backup list"


@dataclass(frozen=True)
class Increment:
    snapshot: str
    first: Timestamp
    last: Timestamp


@dataclass(frozen=True)
class Run:
    """A committed run in one repository."""

    kept: Kept
    store: Store
    manifest: dict[str, Any]
    # The requested point in time, exclusive; everything where none was requested.
    until: Timestamp | None = None

    @property
    def id(self) -> str:
        return self.kept.id

    @property
    def increments(self) -> list[Increment]:
        return [
            Increment(one["snapshot"], Timestamp.read(one["from"]), Timestamp.read(one["to"]))
            for one in self.kept.increments
        ]

    @property
    def dump_end(self) -> Timestamp | None:
        text = self.manifest.get("mongo", {}).get("oplog", {}).get("last", "")
        return Timestamp.read(text) if text else None

    @property
    def end(self) -> Timestamp | None:
        """The newest change in this run and its increments."""
        return self.increments[-1].last if self.increments else self.dump_end

    @property
    def collections(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manifest.get("mongo", {}).get("collections", {})
        return {name: one for name, one in found.items() if not name.startswith(("admin.", "config."))}

    @property
    def as_of(self) -> str:
        """The moment of its data: the newest change in MongoDB, or the end of a run without MongoDB."""
        return moment_text(self.end) or str(self.manifest["ended"])

    def dump(self, database: Database) -> Iterator[bytes]:
        """Yield the dump of one of the other databases. Raises Refused."""
        snapshot = self.snapshot(database.name)
        yield from pieces(self.store, snapshot, self.manifest["parts"][database.name]["file"])

    def has(self, database: Database) -> bool:
        """Tell whether the run has a dump of a database, which may have been added since."""
        return database.name in self.manifest["parts"]

    def snapshot(self, part: str) -> str:
        try:
            return str(self.manifest["parts"][part]["snapshot"])
        except KeyError:
            raise Refused(f"Run {self.id} has no part {part}; choose another one: berth backup list") from None

    def archive(self, with_changes: bool = True) -> Iterator[bytes]:
        """Yield what mongorestore gets: the dump and, if wanted, the increments. Raises Refused."""
        dumped = pieces(self.store, self.snapshot("mongo"), self.manifest["parts"]["mongo"]["file"])
        try:
            yield from compose(dumped, filter(self.is_wanted, self.later()) if with_changes else ())
        except Malformed as error:
            raise damaged(self, str(error)) from None
        except Unreplayable as error:
            raise unreplayable(self, error) from None

    def redis_snapshot(self) -> Iterator[bytes]:
        yield from pieces(self.store, self.snapshot("redis"), self.manifest["parts"]["redis"]["file"])

    def is_wanted(self, entry: bytes) -> bool:
        """Tell whether an entry that was saved after the dump is from before the requested point in time."""
        return self.until is None or timestamp(entry) < self.until

    def later(self) -> Iterator[bytes]:
        """The entries of the oplog that were saved after the dump."""
        last = self.dump_end
        for increment in self.increments:
            if last is not None and increment.first != last:
                raise Refused(
                    f"The changes between {moment_text(last)} and {moment_text(increment.first)} were not saved "
                    f"with run {self.id}: choose a point in time before them (restore_time)."
                )
            splitter = Splitter()
            for piece in pieces(self.store, increment.snapshot, "oplog.bson"):
                for entry in splitter.feed(piece):
                    yield entry
                    last = timestamp(entry)
            splitter.finish()
            if last != increment.last:
                raise Malformed(f"the changes up to {increment.last} end at {last}")


def pieces(store: Store, snapshot: str, file: str) -> Iterator[bytes]:
    with store.read(snapshot, f"/{file}") as stream:
        while piece := stream.read(PIECE):
            yield piece


def moment(text: str) -> Timestamp | None:
    """Read `restore_time`: ISO 8601 with a time of day (UTC unless it names a zone), or seconds since 1970.

    Also a timestamp of the oplog (seconds.number). A date alone is refused: it would mean midnight.
    """
    if not text:
        return None
    if re.fullmatch(r"\d+\.\d+", text):
        return Timestamp.read(text)
    try:
        if text.isdigit() and len(text) > len("20261129"):
            at = float(text)
        elif "T" not in text and " " not in text.strip():
            raise ValueError
        else:
            read = datetime.fromisoformat(text)
            at = read.replace(tzinfo=read.tzinfo or UTC).timestamp()
    except ValueError:
        raise Refused(
            f"restore_time is {text!r}. Write date, time and zone, without spaces: 2026-11-25T02:30:00Z."
        ) from None
    if at > time.time():
        raise Refused(f"restore_time is {text}, which is in the future.")
    return Timestamp(int(at), 0)


def moment_text(at: Timestamp | None) -> str:
    if at is None:
        return ""
    return datetime.fromtimestamp(at[0], UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def choose(settings: Settings, wanted: str = LATEST, target: str = "", until: Timestamp | None = None) -> Run:
    """Find the run. `latest` includes the newest increment; a named run ends at its own end."""
    problems = []
    found: list[Run] = []
    for one in settings.chosen(target):
        store = Store(settings, one)
        try:
            if not store.exists():
                problems.append(f"Target {one.name} has no repository at {one.repository}.")
                continue
            if chosen := choose_among(_runs(store, wanted), wanted, until):
                found.append(chosen)
        except Refused as refused:
            problems.append(refused.reason)
    if found:
        # The first target, where several have as much.
        return max(found, key=lambda run: (run.end or Timestamp(0, 0), run.manifest["ended"]))
    what = f"run {wanted}" if wanted != LATEST else "run"
    before = f" that ended before {moment_text(until)}" if until else ""
    names = ", ".join(one.name for one in settings.chosen(target))
    raise Refused(" ".join(problems) or f"There is no {what}{before} on {names}. See: berth backup list")


def _runs(store: Store, wanted: str) -> Iterator[Run]:
    """Yield the matching runs, the newest first; their manifests are read only when needed."""
    for kept in reversed(check.kept(store)):
        if wanted == LATEST or kept.is_called(wanted):
            yield Run(kept, store, check.manifest(store, kept))


def choose_among(runs: Iterable[Run], wanted: str, until: Timestamp | None) -> Run | None:
    """Find the run among those of one repository, the newest first."""
    newer: Run | None = None
    for run in runs:
        if until is None and wanted == LATEST:
            return run
        if wanted == LATEST and until and newer:
            _refuse_unknown(run, newer, until)
        newer = run
        # Increments that begin later are not needed; a named run ends at its own end.
        needed = sum(one.first < until for one in run.increments) if until else 0
        end = run.dump_end
        if until is None or (end is not None and end < until):
            return replace(run, kept=replace(run.kept, increments=run.kept.increments[:needed]), until=until)
    return None


def _refuse_unknown(run: Run, newer: Run, until: Timestamp) -> None:
    """Refuse a point in time that neither run covers."""
    if run.end and newer.dump_end and run.end < until <= newer.dump_end and run.end != newer.dump_end:
        raise Refused(
            f"Target {run.store.name} has no increments between {moment_text(run.end)} and "
            f"{moment_text(newer.dump_end)}: choose a point in time before or after, or restore_run={newer.id}."
        )


def verify(run: Run) -> None:
    """Read everything that a restore needs and compare it with the manifest; refuse with one sentence.

    That includes whether the increments can be replayed.
    """
    replay = Replay()
    try:
        check.verify(run.store, run.kept, replay.dumped)
    except Unreplayable as error:
        raise unreplayable(run, error) from None
    except Refused as refused:
        raise Refused(f"{refused.reason} {ANOTHER}", lines=refused.lines) from None
    try:
        for part, about in run.manifest["parts"].items():
            if about["kind"] == "tree":
                run.store.ask("dump", "--archive=tar", run.snapshot(part), "/", "--target=/dev/null", seconds=DAY)
        for entry in run.later():
            if run.is_wanted(entry):
                replay.saved(entry)
    except Malformed as error:
        raise damaged(run, str(error)) from None
    except Unreplayable as error:
        raise unreplayable(run, error) from None
    except Refused as refused:
        raise damaged(run, refused.reason, refused.lines) from None


def unreplayable(run: Run, error: Unreplayable) -> Refused:
    """Report which change cannot be replayed, and what can be restored instead."""
    what = (
        f"Run {run.id} on target {run.store.name} cannot be restored with all its changes: at {error.at} "
        f"({moment_text(error.at)}) the oplog has {error}, which cannot be replayed."
    )
    if error.at and run.dump_end and error.at > run.dump_end:
        return Refused(f"{what} Restore what was there before (restore_time={error.at}), or restore_run={run.id}.")
    return Refused(f"{what} {ANOTHER}")


def damaged(run: Run, what: str, lines: list[str] | None = None) -> Refused:
    """Report that a run is damaged, and what can be used instead."""
    return Refused(f"Run {run.id} on target {run.store.name} is damaged: {what.rstrip('.')}. {ANOTHER}", lines=lines)


def within(name: str, scope: str) -> bool:
    """Tell whether a collection (database.collection) is the scope or in it; an empty scope is everything."""
    # A collection's name is not a prefix: users does not include users.archive.
    return not scope or name == scope or ("." not in scope and name.startswith(f"{scope}."))
