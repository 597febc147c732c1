"""The one lock of everything that changes the site, shared with releases, and the record of who holds it.

The kernel gives the lock up when its program ends; the record stays, so that the next one knows what was cut off.
"""

from __future__ import annotations

import fcntl
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from berth.backup.records import now, write
from berth.backup.settings import Refused, Settings

BOOT = Path("/proc/sys/kernel/random/boot_id")
# The field in which proc(5) names a process's start.
STARTED = 19


def boot() -> str:
    """Name the time from this start of the host to the next one."""
    first = Path("/proc/1/stat").read_text().rpartition(") ")[2].split()
    return f"{BOOT.read_text().strip()} {first[STARTED]}"


@dataclass(frozen=True)
class Holder:
    """A verb under way, in the form of releases' records."""

    id: str
    verb: str
    by: str
    since: str
    began: float
    phase: str
    boot: str
    # What it is about, for people: everything, auth_db.users.
    release: str = ""
    session: str = ""
    colour: str = ""
    live: dict[str, str] = field(default_factory=dict)
    switched: float = 0
    counted: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    # What another program needs to finish or undo it.
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        return f"{self.by} has been at {self.verb} {self.release} since {self.since} (phase: {self.phase})"


class SiteLock:
    """Lock and record.

    Where role stack is not, this program alone uses them.
    """

    # How often this program holds it.
    mine = 0

    def __init__(self, settings: Settings) -> None:
        releases = settings.root / "releases"
        folder = releases if releases.exists() else settings.state
        self._lock, self._record = folder / "guard", folder / "run.json"

    @contextmanager
    def held(self, wait: bool = False) -> Iterator[None]:
        """Hold the lock as long as the block lasts.

        Raises Refused, which names the holder, where somebody else does and `wait` is false.
        """
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                holder = self.current()
                who = holder.sentence if holder else "Somebody is changing the site"
                raise Refused(f"{who}, on this host right now. Wait until it is done: berth status") from None
            SiteLock.mine += 1
            try:
                yield
            finally:
                SiteLock.mine -= 1

    def busy(self, *verbs: str) -> str:
        """Return who else holds the lock for one of these verbs; empty where nobody does."""
        holder = self.current()
        if holder is None or holder.verb not in verbs or SiteLock.mine:
            return ""
        try:
            # Read only: to the units of the schedule, the stack's folder is.
            with self._lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return holder.sentence
        except FileNotFoundError:
            pass
        return ""

    def current(self) -> Holder | None:
        try:
            found = json.loads(self._record.read_text())
        except FileNotFoundError:
            return None
        known = Holder.__dataclass_fields__
        return Holder(**{name: value for name, value in found.items() if name in known})

    def begin(
        self, verb: str, phase: str, about: str, by: str, run_id: str = "", detail: dict[str, Any] | None = None
    ) -> Holder:
        run_id = run_id or uuid.uuid4().hex[:12]
        holder = Holder(run_id, verb, by, now(), time.time(), phase, boot(), release=about, detail=detail or {})
        self._write(holder)
        return holder

    def note(self, phase: str = "", **detail: Any) -> Holder:
        """Write down, before it is done, what comes next and what undoing it needs."""
        holder = self.current()
        if holder is None:
            raise Refused("The record of what is under way has gone. Nothing more is done.")
        changed = replace(holder, phase=phase or holder.phase, detail={**holder.detail, **detail})
        self._write(changed)
        return changed

    def _write(self, holder: Holder) -> None:
        write(self._record, json.dumps(holder.__dict__) + "\n", 0o644)

    def end(self) -> None:
        self._record.unlink(missing_ok=True)
