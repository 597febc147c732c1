"""Increments: what MongoDB changed since the run or since the increment before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from berth.backup import bson, parts
from berth.backup.bson import Malformed, Splitter, Timestamp
from berth.backup.records import Busy, Records, site_lock
from berth.backup.restic import Store, Upload
from berth.backup.run import Failures, prepare, run, say
from berth.backup.settings import Settings, Target
from berth.host.refused import Refused

# Held in memory: the tags of a snapshot, which include its end, are set before its content is read.
MOST_BYTES = 32 * 1024 * 1024
# A target that is down must not delay the next increment.
STORE_SECONDS = 240
# A full run because there is nothing to continue is tried at most this often.
RETRY_SECONDS = 3600
AGAIN = "the run before was cut off"


class Gap(Exception):  # noqa: N818  # "raise Gap" says it
    """The oplog does not hold the entry that the last increment ended with."""


def entries(settings: Settings, position: Timestamp) -> Iterator[bytes]:
    """Yield the oplog's entries after this one."""
    splitter, at_first = Splitter(), True
    try:
        with parts.pieces(parts.oplog_since(settings, position), settings, "oplog") as stream:
            for piece in stream:
                for entry in splitter.feed(piece):
                    if at_first and bson.timestamp(entry) != position:
                        raise Gap
                    if not at_first:
                        yield entry
                    at_first = False
        splitter.finish()
    except Malformed as error:
        raise Refused(f"oplog could not be dumped: {error}.") from None
    if at_first:
        raise Gap


class Chunk:
    def __init__(self, begins_after: Timestamp) -> None:
        self.begins_after = self.ends_with = begins_after
        self.data = bytearray()
        # Whether anything but no-ops came.
        self.changes = 0

    def add(self, entry: bytes) -> None:
        self.data += entry
        found = bson.plain(entry)
        self.ends_with = found["ts"]
        self.changes += found.get("op") != "n"


def chunks(settings: Settings, position: Timestamp, until: Timestamp | None = None) -> Iterator[Chunk]:
    """Yield what changed since, in chunks that fit into memory; of no-ops alone only up to `until`."""
    chunk = Chunk(position)
    for entry in entries(settings, position):
        if until and bson.timestamp(entry) > until:
            break
        if len(chunk.data) + len(entry) > MOST_BYTES:
            yield chunk
            chunk = Chunk(chunk.ends_with)
        chunk.add(entry)
    if chunk.changes or (until and chunk.data):
        yield chunk


class Increment:
    def __init__(self, settings: Settings, records: Records) -> None:
        self.settings = settings
        self.records = records
        self.reasons: dict[str, str] = {}
        self.sent = 0

    def __call__(self) -> None:
        state = self.records.state()["targets"]
        self._complete(state)
        groups: dict[tuple[str, str], list[Target]] = {}
        orphans: list[Target] = []
        # A target that is down is waited for once.
        for target in self._there(self.settings.targets):
            known = state[target.name]
            if known.get("run") and known.get("position"):
                groups.setdefault((known["run"], known["position"]), []).append(target)
            else:
                orphans.append(target)
        for (run_id, position), targets in groups.items():
            try:
                self._continue(run_id, Timestamp.read(position), targets)
            except Gap:
                say("The oplog has rolled over, or is of another database: a full run is due.")
                orphans += targets
            except Refused as why:
                self.reasons |= {target.name: why.reason for target in targets}
        self._note([target for target in self.settings.targets if target not in orphans])
        due = [one for one in orphans if time.time() - state[one.name].get("attempt_at", 0) > RETRY_SECONDS]
        waiting = [one for one in orphans if one not in due]
        self.reasons |= {
            one.name: f"Target {one.name} has no run to continue: {state[one.name]['reason']}" for one in waiting
        }
        if due:
            run(self.settings, self.records, "nothing to continue", targets=due)

    def _there(self, targets: list[Target]) -> list[Target]:
        return [one for one in targets if one.name not in self.reasons]

    def _complete(self, state: dict[str, dict[str, Any]]) -> None:
        """Extend each run to the end of the next one's dump, so that every point in time can be restored."""
        groups: dict[tuple[str, str, str], list[Target]] = {}
        for target in self.settings.targets:
            for before in state[target.name].get("before", []):
                groups.setdefault((before["run"], before["position"], before["until"]), []).append(target)
        for (run_id, position, until), all_targets in groups.items():
            if not (targets := self._there(all_targets)):
                continue
            try:
                self._continue(run_id, Timestamp.read(position), targets, Timestamp.read(until))
            except Gap:
                say(
                    f"The changes between run {run_id} and the next one are no longer in the oplog: "
                    "no point in time between their increments can be restored."
                )
            except Refused as why:
                self.reasons |= {target.name: why.reason for target in targets}
            with self.records.changing() as changed:
                for target in targets:
                    known = changed["targets"][target.name]
                    if target.name not in self.reasons:
                        known["before"] = [one for one in known["before"] if one["run"] != run_id]

    def _continue(
        self, run_id: str, position: Timestamp, targets: list[Target], until: Timestamp | None = None
    ) -> None:
        left: list[Store] | None = None
        for chunk in chunks(self.settings, position, until):
            if left is None:
                # Checked first: an upload to a target that is down would be waited for.
                away = Failures()
                left = prepare(self.settings, targets, self.records, away)
                self.reasons |= {name: why.reason for name, why in away.reasons.items()}
            tags = [f"run:{run_id}", "part:oplog", f"from:{chunk.begins_after}", f"to:{chunk.ends_with}"]
            uploads = [Upload(store, "oplog.bson", tags) for store in left]
            for upload in uploads:
                upload.give(bytes(chunk.data), self.settings.stall_seconds)
            for upload in uploads:
                try:
                    upload.end(STORE_SECONDS)
                except Refused as why:
                    self.reasons[upload.store.name] = why.reason
                    left.remove(upload.store)
            self._moved(run_id, left, chunk)
            self.sent += len(chunk.data)
            if not left:
                break

    def _moved(self, run_id: str, stores: list[Store], chunk: Chunk) -> None:
        with self.records.changing() as state:
            for store in stores:
                known = state["targets"][store.name]
                # A full run may have replaced it meanwhile.
                for chain in (known, *known.get("before", [])):
                    if chain.get("run") == run_id:
                        chain["position"] = str(chunk.ends_with)

    def _note(self, targets: list[Target]) -> None:
        with self.records.changing() as state:
            for target in targets:
                reason = self.reasons.get(target.name, "")
                state["targets"][target.name]["oplog_reason"] = reason
                if not reason:
                    state["targets"][target.name]["oplog_at"] = time.time()


def increment(settings: Settings, records: Records) -> dict[str, Any]:
    """Send the changes to every target; refuse if one failed."""
    if not settings.mongo:
        raise Refused("There is no MongoDB to back up: backup_mongo_container is empty.")
    made = Increment(settings, records)
    try:
        with records.locked("oplog"):
            made()
    except Busy as why:
        say(why.reason)
        return {"verb": "oplog", "bytes": 0, "skipped": why.reason}
    if made.reasons:
        raise Refused(" ".join(dict.fromkeys(made.reasons.values())))
    return {"verb": "oplog", "bytes": made.sent}


def by_itself(settings: Settings, records: Records) -> dict[str, Any]:
    """The verb `oplog`: an increment; and a run, if the last one was interrupted by a shutdown."""
    if holder := site_lock(settings).busy("upgrade", "restore"):
        return {"verb": "oplog", "bytes": 0, "skipped": holder}
    outcome = increment(settings, records)
    if cut_off(records):
        run(settings, records, AGAIN)
    return outcome


def cut_off(records: Records) -> bool:
    """Tell whether a run began and its process ended without recording a result."""
    try:
        with records.locked("run"):
            begun: dict[str, Any] = records.state().get("begun", {})
    except Busy:
        return False
    # If the repeated run is interrupted, too, it is not repeated every few minutes.
    return bool(begun) and (begun["reason"] != AGAIN or time.time() - begun["at"] > RETRY_SECONDS)
