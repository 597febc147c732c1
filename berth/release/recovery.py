"""Finish or undo a run that failed or was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from berth.host import clock, commands
from berth.host.hooks import DONE, FAILED, UNDONE
from berth.host.live import Live
from berth.host.lock import Run, boot, describe, is_alive
from berth.host.refused import Refused
from berth.release import engine, unit
from berth.release.engine import Side
from berth.release.host import Host
from berth.release.probe import ProbeFailed
from berth.release.retire import retire
from berth.release.settings import stuck
from berth.release.switch import confirm, roll_back
from berth.release.watch import counts, watch_release

# Verbs of a record; that of a restore is settled by berth backup.
RELEASES, RESTORE = ("release", "rollback"), "restore"
RESTORE_SECONDS = 3600


@dataclass
class Recovery:
    host: Host
    # Verb -> what finishes or undoes a run of that verb, and returns which.
    others: dict[str, Callable[[Run], str]] = field(default_factory=dict)

    # --- undo ---

    @contextmanager
    def undoing(self, run: Run) -> Iterator[None]:
        """Undo the run if the block fails."""
        try:
            yield
        except Refused as refused:
            self.undo(self.host.lock.current() or run, refused)
            raise
        except OSError as error:
            why = stuck(self.host.settings, error)
            self.undo(self.host.lock.current() or run, why)
            raise why from error

    def undo(self, run: Run, refused: Refused, result: str = FAILED) -> None:
        """Roll back to the old colour if needed, keep the new one's logs, stop it, and add it to the history."""
        host = self.host
        host.edge.end_trial()
        host.settings.kept(run.release).settle(done=False)
        if run.colour:
            side = Side(host.settings, run.release, run.colour)
            with suppress(OSError):
                side.keep_logs()
            live = host.edge.live()
            # It starts on the idle colour, so if that one is live, traffic was switched.
            if live and live.colour == run.colour:
                roll_back(host, run)
            else:
                side.discard()
                if live:
                    # In case a rollback was interrupted here.
                    Side.on(host.settings, live).set_restart("unless-stopped")
            engine.stop_colour(run.colour)
        # A full disk must not keep the run from ending properly.
        with suppress(OSError):
            host.history.add(host.lock.current() or run, result, refused.reason)
        host.end(run, refused, result)

    # --- settle ---

    def free(self, break_lock: bool) -> str:
        """Finish or undo an interrupted run. Return which.

        Raises Refused where its controller is still connected, or where neither is possible.
        """
        run = self.host.lock.current()
        if run is None:
            return ""
        if self.is_waited_for(run) and not break_lock:
            raise Refused(
                f"{describe(run)} and is still connected. Wait; or, if that run is known to be dead, "
                "break its lock: -e release_break_lock=true."
            )
        try:
            return self._settle(run)
        except Refused as refused:
            if not break_lock:
                raise
            # The operator decided so. What is live stays; the next release clears the other colour.
            self.host.settings.kept(run.release).settle(done=False)
            self.host.lock.end()
            return f"given up: {describe(run)}. {refused.reason}"

    def settle(self, held: bool = False) -> dict[str, Any]:
        """Finish or undo an interrupted run: after its process was killed, or the host was rebooted.

        With `held` the caller holds the lock.
        """
        with self.host.lock.held(wait=True, by_caller=held):
            run = self.host.lock.current()
            # A restore has a unit of its own for this.
            if run is None or self.is_waited_for(run) or run.verb == RESTORE:
                return {"changed": False}
            return {"changed": True, "settled": self._settle(run)}

    def outcome(self, run_id: str, problem: str = "") -> dict[str, Any]:
        """Follow a run to its end. If its process was killed in the middle, settle it here.

        `problem` is what systemd-run reported; it is used where there is no other reason.

        Raises Refused with the reason of a run that failed.
        """
        with self.host.lock.held(wait=True):
            run = self.host.lock.current()
            if run and run.id == run_id:
                if problem:
                    run = self.host.lock.save(run, detail={**run.detail, "problem": problem})
                self._settle(run)
        if (answer := unit.ended(run_id)) is None:
            raise Refused(f"This run no longer holds the lock. {describe(self.host.lock.current())}.")
        return answer

    def is_waited_for(self, run: Run) -> bool:
        """Tell whether it waits for its controller. From the first step on, a release runs without one."""
        return run.phase == "begun" and is_alive(run)

    def is_over(self, run: Run) -> bool:
        """Tell whether a run was completed and recorded, and only its lock was left, which is released here.

        Raises Refused with what remains to be done after a successful upgrade.
        """
        line = self.host.history.of(run.id)
        if line is None:
            return False
        ended = {"changed": True, "steps": line["steps"], "seconds": line["seconds"], "note": line["reason"]}
        # What the role prints about an upgrade.
        ended["to"] = {name: images.rpartition(" -> ")[2] for name, images in line.get("databases", {}).items()}
        refused = Refused(line["reason"])
        live = line["result"] == "live"
        unfinished = live and "databases" in line and line["reason"]
        self.host.end(run, ended if live and not unfinished else refused, DONE if live else line["result"])
        if unfinished:
            raise refused
        return True

    def _settle(self, run: Run) -> str:
        """Finish or undo an interrupted run. Return which."""
        if self.is_over(run):
            return f"ended: {describe(run)}"
        if run.verb in RELEASES:
            return self._settle_release(run)
        if run.verb == RESTORE:
            return _settle_restore()
        if run.verb in self.others:
            return self.others[run.verb](run)
        raise Refused(f"{describe(run)}; this version of berth does not know that verb. Run site.yml, then try again.")

    def _settle_release(self, run: Run) -> str:
        """Undo it, unless it is live and passes the watch."""
        description, cut = describe(run), interrupted(run)
        live = self.host.edge.live()
        if live is None or not run.colour or live.colour != run.colour:
            self.undo(run, Refused(f"{cut}."), UNDONE)
            return f"undone: {description}"
        try:
            self._look_again(run, live)
        except (Refused, ProbeFailed) as failed:
            self.undo(run, Refused(f"{cut}, and then: {failed}"), UNDONE)
            return f"undone: {description}"
        Side.on(self.host.settings, live).set_restart("unless-stopped")
        retire(self.host, run, f"{cut}, and finished afterwards.")
        return f"finished: {description}"

    def _look_again(self, run: Run, live: Live) -> None:
        """Confirm, probe and watch what is live."""
        restarted = run.boot != boot()
        if restarted:
            # The containers may still be starting.
            self._await_healthy(Side.on(self.host.settings, live))
        confirm(self.host, live)
        self.host.smoke.look(live)
        if restarted:
            # Counters start from zero, and the silence of the reboot is not the release's fault.
            run = self.host.lock.save(run, start=counts(self.host, live).plain())
        watch_release(self.host, run)

    def _await_healthy(self, side: Side) -> None:
        deadline = clock.monotonic() + self.host.settings.healthy_seconds
        while side.not_healthy() and clock.monotonic() < deadline:
            clock.sleep(0.5)


def interrupted(run: Run) -> str:
    """Say that a run was interrupted, and what systemd-run reported."""
    problem = run.detail.get("problem", "")
    return f"It was interrupted (phase: {run.phase}{f'; systemd-run: {problem}' if problem else ''})"


def _settle_restore() -> str:
    done = commands.run("berth", "backup", "settle", "--guarded", seconds=RESTORE_SECONDS)
    answer = json.loads(done.stdout or "{}")
    if done.returncode:
        raise Refused(
            f"An interrupted restore could not be settled: {answer.get('reason', 'berth backup failed')} "
            "To abandon it: -e release_break_lock=true",
            "berth backup",
            answer.get("lines", []),
        )
    return str(answer["settled"])
