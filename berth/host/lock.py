"""The lock that everything which changes the site takes, and the record of its holder, which outlives the process."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from berth.host import clock, commands, files
from berth.host.refused import Refused

# The compose project of commands beside the live release, and the verbs that they exclude: what replaces data.
COMMANDS = "berth-run"
ALONE_VERBS = ("restore", "upgrade")
BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """Identify this boot of the host; the start of process 1 counts too, for a host that is a container."""
    return f"{BOOT.read_text().strip()} {_process(1)[2]}"


@dataclass(frozen=True)
class Run:
    """An operation in progress, and what another process would need to finish or undo it."""

    id: str
    verb: str
    # Its subject: a release, the scope of a restore such as shop.orders, databases.
    release: str
    by: str
    since: str
    began: float
    phase: str
    session: str
    boot: str
    # The colour it starts on, once that is chosen.
    colour: str = ""
    # The release that was live before, and its colour.
    live: dict[str, str] = field(default_factory=dict)
    # When traffic was switched to it.
    switched: float = 0
    # The services' counters (counters.Seen): those of the old release, and where those of the new one start.
    counted: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    # How long each step took.
    steps: dict[str, float] = field(default_factory=dict)
    # What verbs other than release need to be finished or undone.
    detail: dict[str, Any] = field(default_factory=dict)


def session() -> str:
    """Name the SSH connection that this program was started through; empty where there is none.

    While that process lives, the operator is connected.
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


def is_alive(run: Run) -> bool:
    """Tell whether the operator who started this is still connected; yes, where that cannot be known."""
    if run.boot != boot():
        return False
    if not run.session:
        return True
    number, _, started = run.session.partition(":")
    try:
        return _process(int(number))[2] == started
    except OSError:
        return False


def describe(run: Run | None) -> str:
    if run is None:
        return "Another operation is changing the site"
    return f"{run.by} has been running {run.verb} {run.release} since {run.since} (phase: {run.phase})"


class Lock:
    """The lock and the record, in a folder that outlives the program."""

    # The number of locks that this process holds.
    _mine = 0

    def __init__(self, folder: Path) -> None:
        self._run = folder / "run.json"
        self._guard = folder / "guard"
        self._commands = folder / "commands"

    @contextmanager
    def held(self, wait: bool = False, by_caller: bool = False) -> Iterator[None]:
        """Hold it for the block. The kernel releases it when the process ends, however it ends.

        Raises Refused, which names the holder, where another process has it and `wait` is false. With
        `by_caller` the parent process holds it.
        """
        if by_caller:
            yield
            return
        with self._guard.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Refused(
                    f"{describe(self.current())}, and it is still running. Wait until it is done: sudo berth status"
                ) from None
            Lock._mine += 1
            try:
                yield
            finally:
                Lock._mine -= 1

    @contextmanager
    def with_command(self) -> Iterator[None]:
        """For the block, a command may change data beside the live release; what replaces data does not begin."""
        with self._commands.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    @contextmanager
    def without_commands(self) -> Iterator[None]:
        """Keep out commands for the block, in which a verb that replaces data records that it begins.

        Raises Refused where one runs.
        """
        with self._commands.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = False
            except BlockingIOError:
                held = True
            # One goes on where the program that started it was killed.
            project = f"--filter=label=com.docker.compose.project={COMMANDS}"
            names = commands.run("docker", "ps", project, "--format={{.Names}}").stdout.split()
            if held or names:
                how = f" To end it: sudo docker stop {' '.join(names)}" if names else ""
                raise Refused(f"A command of `berth run` or `berth console` runs. Wait until it is done.{how}")
            yield

    def is_held(self) -> bool:
        try:
            with self.held():
                return False
        except Refused:
            return True

    def busy(self, *verbs: str) -> str:
        """Return which other process holds the lock for one of these verbs; empty where none does."""
        run = self.current()
        if run is None or run.verb not in verbs or Lock._mine:
            return ""
        try:
            # Open read-only: scheduled units may not write to the folder.
            with self._guard.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return describe(run)
        except FileNotFoundError:
            pass
        return ""

    def current(self) -> Run | None:
        found = files.read_json(self._run)
        if found is None:
            return None
        # A newer version may have written more fields.
        return Run(**{name: value for name, value in found.items() if name in Run.__dataclass_fields__})

    def mine(self, run_id: str) -> Run:
        """Return this run; raise Refused where it no longer has the lock."""
        run = self.current()
        if run is None or run.id != run_id:
            raise Refused(f"This run no longer holds the lock. {describe(run)}.")
        return run

    def begin(
        self,
        verb: str,
        release: str,
        by: str,
        live: dict[str, str] | None = None,
        phase: str = "begun",
        *,
        run_id: str = "",
        **detail: Any,
    ) -> Run:
        """Record the start of a run. The caller holds the lock.

        Args:
            verb: release, rollback, upgrade, restore.
            release: Its subject, see Run.
            by: Who started it.
            live: The release that is live, and its colour.
            phase: The first one.
            run_id: Its id, if it has one already.
            detail: What another program needs to finish or undo it.
        """
        run_id, began = run_id or uuid.uuid4().hex[:12], clock.time()
        return self.save(
            Run(run_id, verb, release, by, clock.now(), began, phase, session(), boot(), live=live or {}, detail=detail)
        )

    def save(self, run: Run, **changes: Any) -> Run:
        changed = replace(run, **changes)
        files.write(self._run, json.dumps(vars(changed)) + "\n")
        return changed

    def note(self, **changes: Any) -> None:
        """Record changes, for the process that may have to take over."""
        if run := self.current():
            self.save(run, **changes)

    def enter(self, phase: str = "", **detail: Any) -> Run:
        """Record the next phase and what undoing it needs, before it begins.

        Raises Refused where the record is gone.
        """
        run = self.current()
        if run is None:
            raise Refused("The record of this run was deleted, so it stops here. See what is live: sudo berth status")
        return self.save(run, phase=phase or run.phase, detail={**run.detail, **detail})

    @contextmanager
    def step(self, name: str, needed: bool = True) -> Iterator[None]:
        """Record the phase and how long it took. A step that is not `needed` runs on a full disk too."""
        with suppress(*(() if needed else (OSError,))):
            self.note(phase=name)
        began = clock.monotonic()
        try:
            yield
        finally:
            with suppress(OSError):
                if run := self.current():
                    self.save(run, steps={**run.steps, name: round(clock.monotonic() - began, 1)})

    def end(self) -> None:
        self._run.unlink(missing_ok=True)
