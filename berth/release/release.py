"""A release, step by step. Visitors notice nothing until the switch; after it, the old colour stays ready."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from berth.host.live import COLOURS, other
from berth.host.lock import Run, describe
from berth.host.refused import Refused
from berth.release import engine, unit
from berth.release.engine import Side
from berth.release.gates import Candidate, Gates
from berth.release.host import Host
from berth.release.recovery import RELEASES, Recovery
from berth.release.retire import EMERGENCY, retire, retire_passwords
from berth.release.signed import UNSIGNED, require_signed
from berth.release.switch import confirm, switch_traffic
from berth.release.watch import watch_release


@dataclass(frozen=True)
class Release:
    """The verbs release and rollback, as the controller calls them. Each raises Refused."""

    host: Host
    recovery: Recovery

    def begin(
        self,
        verb: str,
        release: str,
        by: str,
        force: bool,
        break_lock: bool,
        *,
        unsigned: str = "",
        committed: str = "",
        emergency: str = "",
    ) -> dict[str, Any]:
        """Take the lock. A run that was interrupted is finished or undone first.

        Args:
            verb: release or rollback.
            release: Empty for the previous one.
            by: Who started it.
            force: Even if that release was rolled back.
            break_lock: Give up a run that cannot be settled.
            unsigned: Why it may have no valid signature; empty: it has to have one.
            committed: When the newest commit of the released sources was made; empty where that is not known.
            emergency: Not empty: neither the watch nor the old colour's requests are waited for.
        """
        lock, history = self.host.lock, self.host.history
        with lock.held():
            settled = self.recovery.free(break_lock)
            release = release or self._previous()
            if verb == "rollback":
                # A release that is not on this host is a typing error, not an attempt.
                side = Side(self.host.settings, release, COLOURS[0])
                side.inspect_images()
                if not unsigned:
                    require_signed(side)
            marked = history.rolled_back()
            if release in marked and not force:
                raise Refused(
                    f"Release {release} was rolled back at {marked[release]}. "
                    "Choose another one; or release it again with -e release_force=true."
                )
            live = self.host.edge.live()
            if verb == "release":
                self.host.settings.kept(release).set_aside()
            told = ((UNSIGNED, unsigned), ("committed", committed), (EMERGENCY, emergency))
            known = {name: text for name, text in told if text}
            run = lock.begin(verb, release, by, vars(live) if live else {}, **known)
            unit.clear()
            return {"changed": bool(settled), "run": run.id, "release": release, "settled": settled}

    def start(self, run_id: str) -> dict[str, Any]:
        """Start the run. Return when traffic is switched; the watch goes on without the caller."""
        self.host.lock.mine(run_id)
        problem = unit.launch(run_id)
        return unit.switched(run_id) or self.recovery.outcome(run_id, problem)

    def run(self, run_id: str) -> dict[str, Any]:
        """Run every step; a failure before the last one is undone. Waits for the controller's verdict only."""
        host = self.host
        with host.lock.held(wait=True):
            run = host.lock.mine(run_id)
            with self.recovery.undoing(run):
                gates = Gates(host, run)
                candidate = gates.inspect()
                if candidate.is_live:
                    return self._leave(run, candidate)
                host.before(run, candidate.side.colour)
                gates.clear(candidate)
                gates.schema(candidate)
                gates.start(candidate)
                gates.smoke(candidate)
                switch_traffic(host, candidate)
                self._tell_switched(run, candidate)
                note = watch_release(host, host.lock.mine(run_id))
            return retire(host, host.lock.mine(run_id), note)

    def finish(self, run_id: str) -> dict[str, Any]:
        """The controller's check from outside passed. Return how the watch ended."""
        unit.judge(run_id, "")
        return self.recovery.outcome(run_id)

    def roll_back(self, release: str, by: str, force: bool, unsigned: str = "") -> dict[str, Any]:
        """Roll back without a controller, so without a check from outside: only this host's own watch decides.

        Args:
            release: The target; empty for the previous release.
            by: Who started it.
            force: Even if that release was itself rolled back.
            unsigned: Why it may have no valid signature.

        Raises:
            Refused: It was refused, or failed; the release before is still live.
        """
        run = self.begin("rollback", release, by, force, break_lock=False, unsigned=unsigned)
        started = self.start(run["run"])
        ended = {} if "already" in started else self.finish(run["run"])
        return {**started, **ended, "release": run["release"]}

    def undo(self, run_id: str, reason: str) -> dict[str, Any]:
        """Roll back because the controller's check from outside failed.

        Where the run had already failed for a reason of its own, that one is returned: it caused what the controller
        saw. A run that has ended stays as it is, and the note says so.

        Raises Refused for a run of another verb: what it holds is undone by its own.
        """
        lock = self.host.lock
        run = lock.current()
        ours = run is not None and run.id == run_id
        if run and ours and run.verb not in RELEASES:
            raise Refused(
                f"{describe(run)}. Only a release or a rollback is undone so. To end it: sudo berth release settle"
            )
        if ours:
            unit.judge(run_id, reason)
            # The run's own process, if it is alive, rolls back.
            with lock.held(wait=True):
                run = lock.current()
                if run and run.id == run_id:
                    ours = not self.recovery.is_over(run)
                    if ours:
                        self.recovery.undo(run, Refused(reason))
        try:
            live = unit.ended(run_id)
        except Refused as own:
            return {"changed": ours, **own.answer}
        if live:
            return {
                "changed": False,
                "note": "The release stays live: its run had ended before this objection.",
            }
        if line := self.host.history.of(run_id):
            # Other runs followed, or the host was rebooted.
            return {"changed": False, "note": f"This run has ended already ({line['result']}, at {line['at']})."}
        return {"changed": ours}

    def _previous(self) -> str:
        """Return the release that was live before this one."""
        live, marked = self.host.edge.live(), self.host.history.rolled_back()
        for release in self.host.history.were_live():
            if (live is None or release != live.release) and release not in marked:
                return release
        raise Refused(
            "There is no earlier release to roll back to. Name one: -e to=<version>; on the server: sudo berth "
            "rollback <version>"
        )

    def _tell_switched(self, run: Run, candidate: Candidate) -> None:
        """Report the switch, so that the controller can check from outside."""
        live, target = candidate.live, candidate.target
        switched = {
            "changed": True,
            "from": live.signature if live else "nothing",
            "to": target.signature,
            # The check from outside uses the public name.
            "probe": self.host.smoke.plan(target) | {"address": ""},
        }
        unit.tell_switched(run.id, switched)
        unit.ready()

    def _leave(self, run: Run, candidate: Candidate) -> dict[str, Any]:
        """The release is live already. Only restore edited routes and stop a leftover colour."""
        host, live, changed = self.host, candidate.target, []
        idle = other(live.colour)
        if not host.edge.leads_to(live):
            host.edge.switch(live)
            confirm(host, live)
            changed.append("routes written again")
        if engine.containers([idle]):
            engine.stop_colour(idle)
            changed.append(f"{idle} stopped")
        if note := retire_passwords(host, live, at_once=bool(run.detail.get(EMERGENCY))):
            changed.append(note)
        if host.history.were_live()[:1] != [live.release]:
            host.history.add(replace(run, colour=live.colour), "live", "It was live already.")
            changed.append("history completed")
        answer = {"changed": bool(changed), "already": live.signature, "settled": ", ".join(changed)}
        unit.tell_switched(run.id, answer)
        host.settings.kept(run.release).settle(done=True)
        host.lock.end()
        unit.ready()
        return answer
