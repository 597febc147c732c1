"""What outlives a run: locks, the state of each target, and the history."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from typing import Any

from berth.backup.settings import Settings
from berth.host import files
from berth.host.clock import now
from berth.host.hooks import Hooks
from berth.host.live import ROUTES, read_live
from berth.host.lock import Lock
from berth.host.refused import Refused

# How long a stopped drill may take to remove its containers.
DRILL_SECONDS = 120


def seconds_of(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def site_lock(settings: Settings) -> Lock:
    """Return the lock of everything that changes the site; without role stack, only backups use it."""
    releases = settings.root / "releases"
    return Lock(releases if releases.exists() else settings.state)


def hooks(settings: Settings) -> Hooks:
    return Hooks(settings.root / "hooks", settings.hook_seconds)


def facts(settings: Settings, by: str, run: str) -> dict[str, str]:
    """Return what hooks are told of a backup or a restore before it ends."""
    live = read_live(settings.root / ROUTES)
    known = {"release": live.release, "colour": live.colour} if live else {}
    return {"domain": settings.site, "by": by, "run": run, **known}


class Busy(Refused):
    """Another process holds the lock."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"{holder}. Wait until it is done, then try again.")
        self.holder = holder
        found = re.match(r"Process (\d+), a drill,", holder)
        # The process of a drill; 0 where something else holds the lock.
        self.drill = int(found[1]) if found else 0


class Stopped(Refused):
    """SIGTERM came."""


class Records:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.state
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def locked(self, name: str, wait: float = 0, drill: bool = False) -> Iterator[None]:
        """Hold a lock for the block. The kernel releases it when the process ends, however it ends.

        Parameters
        ----------
        wait : for how many seconds another holder is waited for.
        drill : the holder is a restore drill, which a restore may stop.

        Raises
        ------
        Busy : another process holds the lock.
        """
        with (self._folder / f"{name}.lock").open("a+") as file:
            os.chmod(file.name, 0o600)
            deadline = time.monotonic() + wait
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        file.seek(0)
                        holder = file.read().strip() or f"Another process holds the {name} lock"
                        raise Busy(holder) from None
                    time.sleep(0.2)
            file.truncate(0)
            what = ", a drill," if drill else ""
            file.write(f"Process {os.getpid()}{what} has held the {name} lock since {now()}")
            file.flush()
            yield

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Hold the restore lock for the block. A drill that holds it is stopped: the next night has another.

        Raises
        ------
        Busy : another restore holds the lock, or the drill has not ended.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.locked("restore"))
            except Busy as busy:
                if not busy.drill:
                    raise
                with suppress(ProcessLookupError):
                    os.kill(busy.drill, signal.SIGTERM)
                stack.enter_context(self.locked("restore", DRILL_SECONDS))
            yield

    def holder(self, name: str) -> str:
        """Return who holds the lock; empty where nobody does."""
        try:
            with self.locked(name):
                return ""
        except Busy as busy:
            return busy.holder

    def state(self) -> dict[str, Any]:
        """Return the recorded state; empty on a new host."""
        try:
            found: dict[str, Any] = json.loads((self._folder / "state.json").read_text())
        except (FileNotFoundError, ValueError):
            found = {}
        known = found.get("targets", {})
        return {**found, "targets": {target.name: known.get(target.name, {}) for target in self._settings.targets}}

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """Read the state, let it be changed, write it; an increment and a run may end at the same time."""
        with self.locked("state", wait=30):
            state = self.state()
            yield state
            files.write(self._folder / "state.json", json.dumps(state, indent=1) + "\n", 0o600)

    def remember(self, **line: Any) -> None:
        """Add a line to the history."""
        files.append(self._folder / "history.jsonl", json.dumps({"at": now(), **line}))

    def history(self, last: int) -> list[dict[str, Any]]:
        return files.json_lines(self._folder / "history.jsonl")[-last:]
