"""What every verb works with, on one host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from berth.host.hooks import AFTER, BEFORE, DONE, Hooks
from berth.host.lock import Lock, Run
from berth.host.refused import Refused
from berth.release import jobs, unit
from berth.release.edge import Edge
from berth.release.history import History
from berth.release.settings import Settings
from berth.release.smoke import Smoke


@dataclass(frozen=True)
class Host:
    settings: Settings
    edge: Edge
    lock: Lock
    history: History
    smoke: Smoke

    @classmethod
    def of(cls, settings: Settings) -> Host:
        edge = Edge(settings)
        return cls(settings, edge, Lock(settings.releases), History(settings), Smoke(settings, edge))

    @property
    def hooks(self) -> Hooks:
        return Hooks(self.settings.root / "hooks", self.settings.hook_seconds)

    def before(self, run: Run, colour: str) -> None:
        """Run the hook before a release or a rollback. Raises Refused where it fails."""
        if self.hooks.has(BEFORE, run.verb):
            with self.lock.step(f"{BEFORE}-{run.verb}"):
                self.hooks.before(run.verb, **{**self._facts(run), "colour": colour})

    def end(self, run: Run, outcome: dict[str, Any] | Refused, result: str = "") -> None:
        """Schedule what is live, run the hook after it, report the outcome to the controller, and release the lock."""
        try:
            self.settings.kept(run.release).settle(done=result == DONE)
            _add(outcome, jobs.schedule(self.settings, self.edge.live()))
            self._after(run, outcome, result)
            unit.tell_ended(run.id, outcome)
        finally:
            self.lock.end()

    def _after(self, run: Run, outcome: dict[str, Any] | Refused, result: str) -> None:
        """Run the hook after a release or a rollback, unless that is recorded; add its failure to the outcome."""
        name, known = f"{AFTER}-{run.verb}", self.lock.current() or run
        if not self.hooks.has(AFTER, run.verb) or name in known.steps:
            return
        reason = outcome.reason if isinstance(outcome, Refused) else str(outcome.get("note", ""))
        with self.lock.step(name, needed=False):
            said = self.hooks.after(run.verb, **self._facts(known), result=result, reason=reason)
        _add(outcome, said)

    def _facts(self, run: Run) -> dict[str, str]:
        facts = {"domain": self.settings.domain, "by": run.by, "run": run.id, "colour": run.colour}
        return {**facts, "release": run.release, "previous": run.live.get("release", "")}


def _add(outcome: dict[str, Any] | Refused, said: str) -> None:
    """Add a sentence to the end of what is reported."""
    if not said:
        return
    if isinstance(outcome, Refused):
        outcome.reason = f"{outcome.reason} {said}"
    else:
        outcome["note"] = f"{outcome.get('note', '')} {said}".strip()
