"""What every verb works with, on one host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from berth.host.lock import Lock, Run
from berth.host.refused import Refused
from berth.release import unit
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

    def end(self, run: Run, outcome: dict[str, Any] | Refused) -> None:
        """Tell whoever follows a run how it ended, and give up its lock."""
        try:
            unit.tell_ended(run.id, outcome)
        finally:
            self.lock.end()
