"""What outlives a run: who is at it and how far, and what was released before."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from berth_release import clock, files
from berth_release.clock import now
from berth_release.settings import Refused, Settings

BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """Name the time from this start of the host to the next one; a host that is a container starts more often."""
    return f"{BOOT.read_text().strip()} {_process(1)[2]}"


@dataclass(frozen=True)
class Run:
    """A release under way: the lock, and what somebody else would need to finish or undo it."""

    id: str
    verb: str
    release: str
    by: str
    since: str
    began: float
    phase: str
    session: str
    boot: str
    # The colour it starts on, once that is chosen.
    colour: str = ""
    # What the edge led to before.
    live: dict[str, str] = field(default_factory=dict)
    # When everybody was led to it.
    switched: float = 0
    # What services counted (watch.Seen): how the old release did, and what the new one's count starts at.
    counted: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    # How long each step took.
    steps: dict[str, float] = field(default_factory=dict)
    # What other verbs than a release need to be finished or undone.
    detail: dict[str, Any] = field(default_factory=dict)


def session() -> str:
    """Name the SSH connection that this program was started through; empty where there is none.

    As long as its process lives, so does the operator's end.
    """
    process = os.getpid()
    while process > 1:
        name, parent, started = _process(process)
        if name.startswith("sshd"):
            return f"{process}:{started}"
        process = parent
    return ""


def _process(number: int) -> tuple[str, int, str]:
    """Return a process's name, its parent and its start; the last tells it from a later one with the same number."""
    text = Path(f"/proc/{number}/stat").read_text()
    name, _, rest = text.partition("(")[2].rpartition(") ")
    values = rest.split()
    return name, int(values[1]), values[19]


def is_alive(who: Run) -> bool:
    """Tell whether the operator who began this is still connected. Where that cannot be known, yes."""
    if who.boot != boot():
        return False
    if not who.session:
        return True
    number, _, started = who.session.partition(":")
    try:
        return _process(int(number))[2] == started
    except OSError:
        return False


class Records:
    def __init__(self, settings: Settings) -> None:
        self._history = settings.history
        self._run = settings.releases / "run.json"
        self._guard = settings.releases / "guard"

    @contextmanager
    def guarded(self, wait: bool = False) -> Iterator[None]:
        """One program at a time. The kernel gives this up by itself when the program ends, however it ends."""
        with self._guard.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Refused(
                    f"{self.describe(self.current())}, on this host right now. Wait until it is done."
                ) from None
            yield

    def is_guarded(self) -> bool:
        try:
            with self.guarded():
                return False
        except Refused:
            return True

    def current(self) -> Run | None:
        try:
            found = json.loads(self._run.read_text())
        except FileNotFoundError:
            return None
        # One that a newer program wrote may say more.
        return Run(**{name: value for name, value in found.items() if name in Run.__dataclass_fields__})

    @staticmethod
    def describe(who: Run | None) -> str:
        if who is None:
            return "Somebody is changing the site"
        return f"{who.by} has been at {who.verb} {who.release} since {who.since} (phase: {who.phase})"

    def begin(self, verb: str, release: str, by: str, live: dict[str, str], phase: str = "begun", **detail: Any) -> Run:
        run_id, began = uuid.uuid4().hex[:12], clock.time()
        return self.save(
            Run(run_id, verb, release, by, now(), began, phase, session(), boot(), live=live, detail=detail)
        )

    def save(self, who: Run, **changes: Any) -> Run:
        changed = replace(who, **changes)
        files.write(self._run, json.dumps(asdict(changed)) + "\n")
        return changed

    def end(self) -> None:
        self._run.unlink(missing_ok=True)

    def history(self) -> list[dict[str, Any]]:
        try:
            lines = self._history.read_text().splitlines()
        except FileNotFoundError:
            return []
        # A line that a full disk cut short is no reason to refuse a release.
        whole = []
        for line in lines:
            with suppress(ValueError):
                whole.append(json.loads(line))
        return [line for line in whole if "to" in line]

    def remember(self, who: Run, result: str, reason: str = "") -> None:
        line = {
            "at": now(),
            "by": who.by,
            "verb": who.verb,
            "from": who.live.get("release", ""),
            "to": who.release,
            "colour": who.colour,
            "result": result,
            "seconds": round(clock.time() - who.began, 1),
            "seconds_since_switch": round(clock.time() - who.switched, 1) if who.switched else None,
            "reason": reason,
            "steps": who.steps,
        }
        files.append(self._history, json.dumps(line))

    def rolled_back(self) -> dict[str, str]:
        """Return release -> when and by whom, for those that were rolled back and not released with force since."""
        marked: dict[str, str] = {}
        for line in self.history():
            if line["result"] != "live":
                continue
            marked.pop(line["to"], None)
            if line["verb"] == "rollback" and line["from"] and line["from"] != line["to"]:
                marked[line["from"]] = f"{line['at']} by {line['by']}"
        return marked

    def were_live(self) -> list[str]:
        """Return the releases that were live, the newest first, each once."""
        found = [line["to"] for line in reversed(self.history()) if line["result"] == "live"]
        return list(dict.fromkeys(found))
