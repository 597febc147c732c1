"""What was released before: one JSON object a line."""

from __future__ import annotations

import json
from typing import Any

from berth.host import clock, files
from berth.host.lock import Run
from berth.release.settings import Settings


class History:
    def __init__(self, settings: Settings) -> None:
        self._place = settings.history

    def releases(self) -> list[dict[str, Any]]:
        """Return the attempts to release or roll back, the oldest first."""
        return [line for line in self._lines() if "to" in line]

    def _lines(self) -> list[dict[str, Any]]:
        return files.json_lines(self._place)

    def of(self, run_id: str) -> dict[str, Any] | None:
        """Return what was written about a run; nothing as long as it has not ended."""
        return next((line for line in self._lines() if line.get("run") == run_id), None)

    def add(self, run: Run, result: str, reason: str = "") -> None:
        """Write down how a release or a rollback ended. Raises OSError on a full disk."""
        switched = round(clock.time() - run.switched, 1) if run.switched else None
        before = run.live.get("release", "")
        ends = {"from": before, "to": run.release, "colour": run.colour, "seconds_since_switch": switched}
        # Why it has no valid signature; when its sources were committed.
        ends |= {name: run.detail[name] for name in ("unsigned", "committed") if run.detail.get(name)}
        self.write(run, result, reason, run.steps, **ends)

    def write(self, run: Run, result: str, reason: str, steps: dict[str, float], **more: Any) -> None:
        """Write a line about a run. Raises OSError on a full disk."""
        line = {"at": clock.now(), "run": run.id, "by": run.by, "verb": run.verb, **more, "result": result}
        line |= {"seconds": round(clock.time() - run.began, 1), "reason": reason, "steps": steps}
        files.append(self._place, json.dumps(line))

    def rolled_back(self) -> dict[str, str]:
        """Return release -> when and by whom, for those that were rolled back and not released with force since."""
        marked: dict[str, str] = {}
        for line in self.releases():
            if line["result"] != "live":
                continue
            marked.pop(line["to"], None)
            if line["verb"] == "rollback" and line["from"] and line["from"] != line["to"]:
                marked[line["from"]] = f"{line['at']} by {line['by']}"
        return marked

    def were_live(self) -> list[str]:
        """Return the releases that were live, the newest first, each once."""
        found = [line["to"] for line in reversed(self.releases()) if line["result"] == "live"]
        return list(dict.fromkeys(found))
