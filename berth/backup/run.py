"""A full run: every part to every target, then the manifest, which commits it."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from berth import __version__
from berth.backup import parts
from berth.backup.records import Busy, Records, facts, hooks, site_lock
from berth.backup.restic import PROBE_SECONDS, Store, Upload
from berth.backup.settings import Settings, Target
from berth.host import commands
from berth.host.clock import now
from berth.host.hooks import DONE, FAILED
from berth.host.refused import Refused

FORMAT = 1


def say(text: str) -> None:
    """Report to the caller; a closed pipe is no reason to stop."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def going_down() -> bool:
    """Tell whether the host is being shut down or restarted."""
    return commands.run_bytes("systemctl", "is-system-running").stdout.strip() == b"stopping"


class Failures:
    """The targets that failed, each with its first reason."""

    def __init__(self) -> None:
        self.reasons: dict[str, Refused] = {}

    def add(self, target: str, why: Refused) -> None:
        if target not in self.reasons:
            say(f"{why.reason}")
            self.reasons[target] = why


def prepare(settings: Settings, targets: list[Target], records: Records, failures: Failures) -> list[Store]:
    """Return the repositories that answer, initialised and without stale locks."""
    known = records.state()["targets"]

    def one(target: Target) -> Store | Refused:
        store = Store(settings, target)
        try:
            if not store.exists():
                if known[target.name].get("run"):
                    raise store.refusal(10, "", "cat")
                say(f"{target.name}: creating the repository")
                store.init()
            store.unlock()
        except Refused as why:
            return why
        return store

    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(one, targets))
    for target, answer in zip(targets, answers, strict=True):
        if isinstance(answer, Refused):
            failures.add(target.name, answer)
    return [answer for answer in answers if isinstance(answer, Store)]


class Run:
    def __init__(self, settings: Settings, records: Records, reason: str, tag: str) -> None:
        self.settings = settings
        self.records = records
        self.failures = Failures()
        self.began, self.start = now(), time.monotonic()
        self.id = f"{self.began.replace('-', '').replace(':', '')}-{secrets.token_hex(2)}"
        self.reason = reason
        self._tags = [f"run:{self.id}", *([tag] if tag else [])]
        self.stores: list[Store] = []
        # target -> part -> its entry in the manifest
        self.parts: dict[str, dict[str, dict[str, Any]]] = {}
        self.versions = {"berth": __version__}
        self.mongo: dict[str, Any] | None = None

    def tags(self, part: str) -> list[str]:
        return [*self._tags, f"part:{part}"]

    def __call__(self, targets: list[Target]) -> dict[str, Any]:
        with self.records.changing() as state:
            # Left behind if the process is killed.
            state["begun"] = {"at": time.time(), "reason": self.reason}
        try:
            hooks(self.settings).before("backup", **facts(self.settings, self.reason, self.id))
        except Refused as why:
            for target in targets:
                self.failures.add(target.name, why)
            return self._account(targets, [])
        self.stores = prepare(self.settings, targets, self.records, self.failures)
        self.parts = {store.name: {} for store in self.stores}
        try:
            if self.stores:
                self.versions["restic"] = self.stores[0].ask("version", seconds=PROBE_SECONDS).split()[1]
                for part in parts.streams(self.settings):
                    self._stream(part)
                self._files()
        except Refused as why:
            for store in self.stores:
                self.failures.add(store.name, why)
            self.stores = []
        missing = self._missing()
        self._at_each_store(self._commit)
        return self._account(targets, missing)

    def _at_each_store(self, step: Callable[[Store], None]) -> None:
        """Run a step for all targets at once; a target that fails is dropped from the run."""

        def one(store: Store) -> Refused | None:
            try:
                step(store)
            except Refused as why:
                return why
            return None

        stores = list(self.stores)
        with ThreadPoolExecutor(max_workers=8) as pool:
            for store, why in zip(stores, pool.map(one, stores), strict=True):
                if why:
                    self._drop(store, why)

    def _drop(self, store: Store, why: Refused) -> None:
        self.failures.add(store.name, why)
        self.stores.remove(store)

    def _stream(self, part: parts.Part) -> None:
        began = time.monotonic()
        uploads = [Upload(store, part.file, self.tags(part.name)) for store in self.stores]
        passed = parts.pump(part, uploads, self.settings)
        for upload in uploads:
            try:
                self.parts[upload.store.name][part.name] = {**passed, "snapshot": upload.end()}
            except Refused as why:
                self._drop(upload.store, why)
        if isinstance(part.watch, parts.Archive):
            self.mongo = part.watch.tally.summary()
            self.versions |= part.watch.tally.versions
        elif isinstance(part.watch, parts.Rdb):
            self.versions["redis"] = part.watch.version
        say(f"{part.name}: {passed['bytes']} bytes in {time.monotonic() - began:.1f} s")

    def _files(self) -> None:
        places = parts.paths(self.settings)

        def one(store: Store) -> None:
            done = store.back_up_paths(places, self.tags("files"))
            self.parts[store.name]["files"] = {
                "kind": "tree",
                "paths": places,
                "snapshot": done["snapshot_id"],
                "bytes": done["total_bytes_processed"],
                "files": done["total_files_processed"],
            }

        if places:
            self._at_each_store(one)

    def _missing(self) -> list[str]:
        """Return the collections that the previous run had and this one does not."""
        before: dict[str, int] = self.records.state().get("collections", {})
        if self.mongo is None or not self.stores:
            return []
        return sorted(name for name in before if name not in self.mongo["collections"])

    def manifest(self, store: Store) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "run": self.id,
            "site": self.settings.site,
            "target": store.name,
            "reason": self.reason,
            "began": self.began,
            "ended": now(),
            "release": parts.release(self.settings),
            "versions": self.versions,
            "environment": parts.environment(self.settings),
            "parts": self.parts[store.name],
            **({"mongo": self.mongo} if self.mongo else {}),
        }

    def _commit(self, store: Store) -> None:
        written = self.manifest(store)
        # A tag, since the list of runs reads no manifests. A comma would end the tag.
        tags = [*self.tags("manifest"), f"reason:{self.reason.replace(',', '')}"]
        store.back_up_text(json.dumps(written, indent=1) + "\n", "manifest.json", tags)
        ended = time.time()
        with self.records.changing() as state:
            known = state["targets"][store.name]
            if self.mongo and known.get("run") and known.get("position"):
                ends = {"position": known["position"], "until": self.mongo["oplog"]["last"]}
                known["before"] = [*known.get("before", []), {"run": known["run"], **ends}]
            known |= {
                "run": self.id,
                "ended": written["ended"],
                "success_at": ended,
                "parts": {name: part["bytes"] for name, part in written["parts"].items()},
            }
            if self.mongo:
                known |= {
                    "position": self.mongo["oplog"]["last"],
                    "oplog_at": ended,
                    "oplog_reason": "",
                }
                state["collections"] = {name: one["documents"] for name, one in self.mongo["collections"].items()}

    def _account(self, targets: list[Target], missing: list[str]) -> dict[str, Any]:
        """Record the outcome, and return it."""
        took = round(time.monotonic() - self.start, 1)
        reasons = {name: why.reason for name, why in self.failures.reasons.items()}
        lost = [
            f"{name}, which was in the previous run, is missing in MongoDB; if that is a mistake, restore it from there"
            for name in missing
        ]
        with self.records.changing() as state:
            for target in targets:
                state["targets"][target.name] |= {
                    "attempt_at": time.time(),
                    "result": target.name not in reasons,
                    "reason": reasons.get(target.name, ""),
                }
            state["seconds"] = took
            state["missing"] = missing
            if not (reasons and going_down()):
                state.pop("begun", None)
        told = " ".join([*dict.fromkeys(reasons.values()), *(f"{one}." for one in lost)])
        outcome = {
            "verb": "run",
            "run": self.id,
            "why": self.reason,
            "targets": {target.name: target.name not in reasons for target in targets},
            "bytes": {name: part["bytes"] for found in self.parts.values() for name, part in found.items()},
            "seconds": took,
            "reason": told,
        }
        known = facts(self.settings, self.reason, self.id)
        if said := hooks(self.settings).after("backup", **known, result=FAILED if reasons else DONE, reason=told):
            say(said)
            outcome["note"] = said
        self.records.remember(**outcome)
        return outcome


def _await_databases(settings: Settings) -> None:
    """Wait for an upgrade or a restore; refuse, naming it, where that takes too long."""
    deadline = time.monotonic() + settings.wait_seconds
    while holder := site_lock(settings).busy("upgrade", "restore"):
        if time.monotonic() >= deadline:
            raise Busy(holder)
        time.sleep(1)


def run(
    settings: Settings, records: Records, reason: str, tag: str = "", targets: list[Target] | None = None
) -> dict[str, Any]:
    """Back up everything to these targets, or to all; refuse at the end if one failed."""
    chosen = settings.targets if targets is None else targets
    if not chosen:
        raise Refused("There is no backup target: backup_targets is empty.")
    _await_databases(settings)
    with records.locked("run", settings.wait_seconds):
        outcome = Run(settings, records, reason, tag)(chosen)
    if outcome["reason"]:
        raise Refused(outcome["reason"])
    return outcome
