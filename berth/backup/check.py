"""The runs in the repositories: list, verify, and apply the retention policy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from berth.backup.archive import Seen, Tally, differences
from berth.backup.bson import Malformed
from berth.backup.records import Records, seconds_of
from berth.backup.restic import PIECE, Store
from berth.backup.run import say
from berth.backup.settings import Settings, Target
from berth.host.refused import Refused

DAY = 86400
LONG_SECONDS = 12 * 3600
# A run without a manifest may be one under way.
UNFINISHED_SECONDS = 2 * DAY


def tag(snapshot: dict[str, Any], name: str) -> str:
    """Return what follows `name:` among the tags of a snapshot."""
    for found in snapshot.get("tags") or []:
        if found.startswith(f"{name}:"):
            return str(found.partition(":")[2])
    return ""


@dataclass
class Kept:
    """A run in a repository."""

    id: str
    time: str
    # Snapshot of the manifest.
    manifest: str
    # Further tags, such as before-release:1.4.0.
    tags: list[str] = field(default_factory=list)
    # Increments, the oldest first: snapshot, from, to.
    increments: list[dict[str, str]] = field(default_factory=list)
    # Bytes read for it, including its increments.
    bytes: int = 0
    # Why it was made: scheduled, manual by ada@laptop.
    reason: str = ""

    def is_called(self, name: str) -> bool:
        return name in (self.id, *self.tags)

    @property
    def until(self) -> str:
        return self.increments[-1]["to"] if self.increments else ""


def _further_tags(snapshot: dict[str, Any]) -> list[str]:
    return [one for one in snapshot["tags"] if one != "berth" and not one.startswith(("run:", "part:", "reason:"))]


def kept(store: Store) -> list[Kept]:
    """Return the committed runs, the oldest first."""
    snapshots = store.snapshots()
    runs = {
        tag(one, "run"): Kept(tag(one, "run"), one["time"], one["id"], _further_tags(one), reason=tag(one, "reason"))
        for one in snapshots
        if tag(one, "part") == "manifest"
    }
    for one in snapshots:
        found = runs.get(tag(one, "run"))
        if found:
            found.bytes += int((one.get("summary") or {}).get("total_bytes_processed", 0))
        if found and tag(one, "part") == "oplog":
            found.increments.append({"snapshot": one["id"], "from": tag(one, "from"), "to": tag(one, "to")})
    return list(runs.values())


def manifest(store: Store, one: Kept) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.read_text(one.manifest, "/manifest.json"))
    if found.get("format") != 1:
        raise Refused(
            f"Run {one.id} on target {store.name} has manifest format {found.get('format')}, "
            "which this version of berth cannot read: use a newer one."
        )
    return found


def verify(store: Store, one: Kept, seen: Seen | None = None) -> dict[str, Any]:
    """Read every stream of a run and compare it with the manifest; return the manifest, or refuse.

    Args:
        store: where the run is.
        one: the run.
        seen: called with each entry of the dump's oplog; its exceptions are passed on.
    """
    written = manifest(store, one)
    where = f"Run {one.id} on target {store.name} is damaged:"
    for name, part in written["parts"].items():
        if part["kind"] != "stream":
            continue
        digest, length = sha256(), 0
        watch = Tally(seen) if name == "mongo" else None
        try:
            with store.read(part["snapshot"], f"/{part['file']}") as stream:
                while piece := stream.read(PIECE):
                    digest.update(piece)
                    length += len(piece)
                    if watch:
                        watch.feed(piece)
            if watch:
                watch.finish()
        except Malformed as error:
            raise Refused(f"{where} {name} cannot be read ({error}).") from None
        except Refused as why:
            raise Refused(f"{where} {name} cannot be read ({why.reason}).", lines=why.lines) from None
        if watch and (found := differences(written["mongo"], watch.summary())):
            raise Refused(f"{where} {' '.join(found)}")
        if length != part["bytes"] or digest.hexdigest() != part["sha256"]:
            raise Refused(
                f"{where} {name} has another checksum than when it was dumped "
                f"({length} bytes read, {part['bytes']} dumped)."
            )
    end = written.get("mongo", {}).get("oplog", {}).get("last", "")
    for increment in one.increments:
        if increment["from"] != end:
            raise Refused(f"{where} changes between {end} and {increment['from']} are missing.")
        end = increment["to"]
    return written


def check(settings: Settings, records: Records, targets: list[Target]) -> dict[str, Any]:
    """Check each repository and read its newest run; refuse if one of them is damaged."""

    def do(store: Store) -> None:
        began = time.monotonic()
        try:
            _check_one(settings, store)
        finally:
            say(f"{store.name}: checked in {time.monotonic() - began:.1f} s")

    reasons = _on_each(settings, records, targets, "check", do)
    return _end(records, reasons, verb="check", targets={one.name: one.name not in reasons for one in targets})


def _on_each(
    settings: Settings, records: Records, targets: list[Target], verb: str, do: Callable[[Store], None]
) -> dict[str, str]:
    """Run a step on each target and record the outcome; return the reasons of those that failed."""
    reasons = {}
    for target in targets:
        store = Store(settings, target)
        try:
            if not store.exists():
                raise store.refusal(10, "", verb)
            store.unlock()
            do(store)
        except Refused as why:
            say(why.reason)
            reasons[target.name] = why.reason
        with records.changing() as state:
            state["targets"][target.name][f"{verb}_reason"] = reasons.get(target.name, "")
            if target.name not in reasons:
                state["targets"][target.name][f"{verb}_at"] = time.time()
    return reasons


def _end(records: Records, reasons: dict[str, str], **outcome: Any) -> dict[str, Any]:
    outcome["reason"] = " ".join(reasons.values())
    records.remember(**outcome)
    if reasons:
        raise Refused(outcome["reason"])
    return outcome


def _check_one(settings: Settings, store: Store) -> None:
    done = store.run("check", f"--read-data-subset={settings.read_data}", "--quiet", seconds=LONG_SECONDS)
    if done.returncode:
        why = store.refusal(done.returncode, done.stderr or done.stdout, "check")
        if done.returncode == 1:
            raise Refused(
                f"The repository of target {store.name} is damaged: {_telling(why.lines)}. "
                "First make a backup to another target, then see docs/operations.md.",
                lines=why.lines,
            )
        raise why
    runs = kept(store)
    if not runs:
        raise Refused(f"Target {store.name} has no backup of {settings.site} yet. Make one: berth backup run")
    age = (time.time() - seconds_of(runs[-1].time)) / 3600
    if age > settings.max_age_hours:
        raise Refused(
            f"The newest backup on target {store.name} is {age:.0f} hours old, and backup_max_age_hours is "
            f"{settings.max_age_hours}: see `systemctl status berth-backup`."
        )
    verify(store, runs[-1])


def _telling(lines: list[str]) -> str:
    """Return the line with the error, which advice may follow."""
    for word in ("does not match", "ciphertext", "error", "Fatal"):
        for line in lines:
            if word.lower() in line.lower():
                return line.removeprefix("Fatal: ").rstrip(".")
    return lines[-1] if lines else "restic gave no reason"


def forget(settings: Settings, records: Records, targets: list[Target]) -> dict[str, Any]:
    """Remove old runs from every target that is not append-only; refuse if one failed."""
    gone: dict[str, int] = {}

    def do(store: Store) -> None:
        gone[store.name] = _forget_one(settings, store)

    reasons = _on_each(settings, records, [one for one in targets if not one.append_only], "forget", do)
    return _end(records, reasons, verb="forget", snapshots=gone)


def policy(settings: Settings) -> list[str]:
    """Return restic's retention options; the newest run is always kept."""
    kinds = ("daily", "weekly", "monthly", "yearly")
    return ["--keep-last=1", *(f"--keep-{kind}={settings.keep[kind]}" for kind in kinds if settings.keep[kind])]


def _forget_one(settings: Settings, store: Store) -> int:
    snapshots = store.snapshots()
    # Restic applies the policy to the manifests; the rest of a run goes with its manifest.
    listed = store.ask(
        *("forget", "--dry-run", "--json", f"--host={settings.site}", "--tag=berth,part:manifest", "--group-by=host"),
        *policy(settings),
    )
    staying = {tag(one, "run") for group in json.loads(listed or "[]") for one in group["keep"] or []}
    leaving = expired(snapshots, staying, settings.keep["oplog_days"], time.time())
    if leaving:
        done = store.run("forget", "--quiet", *leaving, seconds=LONG_SECONDS)
        if done.returncode:
            raise store.refusal(done.returncode, done.stderr, "forget")
        # Restic exits with 0 all the same.
        if "unable to remove" in done.stderr:
            raise Refused(
                f"Target {store.name} refuses to delete. If it is append-only, set append_only in backup_targets."
            )
    store.ask("prune", "--quiet", seconds=LONG_SECONDS)
    return len(leaving)


def expired(snapshots: list[dict[str, Any]], staying: set[str], oplog_days: int, moment: float) -> list[str]:
    """Return the snapshots to remove: those of runs that expired, and increments beyond oplog_days."""
    found = []
    committed = {tag(one, "run") for one in snapshots if tag(one, "part") == "manifest"}
    newest = max(committed, default="")
    for one in snapshots:
        run_id, age = tag(one, "run"), moment - seconds_of(one["time"])
        if run_id not in staying:
            unfinished = run_id not in committed and age < UNFINISHED_SECONDS
            if not unfinished:
                found.append(str(one["id"]))
        elif tag(one, "part") == "oplog" and run_id != newest and age > oplog_days * DAY:
            found.append(str(one["id"]))
    return found


def listing(settings: Settings, targets: list[Target]) -> dict[str, Any]:
    """Return the runs on each target; a target that does not answer has a reason instead."""
    found: dict[str, Any] = {}
    for target in targets:
        store = Store(settings, target)
        try:
            runs = kept(store) if store.exists() else []
            found[target.name] = [
                {
                    "run": one.id,
                    "time": one.time,
                    "reason": one.reason,
                    "tags": one.tags,
                    "bytes": one.bytes,
                    "increments": len(one.increments),
                    "until": one.until,
                }
                for one in runs
            ]
        except Refused as why:
            found[target.name] = {"reason": why.reason}
    return found
