"""Run one of berth_doctor's programs where the task connects to; questions, with secrets, go to its standard input."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

FOLDER = Path(__file__).resolve().parents[1] / "doctor"
sys.path.append(str(FOLDER))

from berth_doctor import asked  # noqa: E402


class ActionModule(ActionBase):  # type: ignore[misc]
    """Takes program (host or outside) and known values; returns found and the clock's offset, or why not."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        program, known = self._task.args["program"], self._task.args["known"]
        questions = {"host": asked.for_host, "outside": asked.for_outside}[program](known)
        source = (FOLDER / "berth_doctor" / f"{program}.py").read_text()
        began = time.time()
        try:
            done = self._low_level_execute_command(
                f"python3 -c {shlex.quote(source)}", in_data=json.dumps(questions).encode()
            )
            found = json.loads(done["stdout"]) if done["rc"] == 0 else None
        except (AnsibleError, OSError, ValueError) as error:
            return {"changed": False, "found": {}, "why": str(error)}
        if found is None:
            lines = (done["stderr"] or done["stdout"]).strip().splitlines() or [f"status {done['rc']}"]
            return {"changed": False, "found": {}, "why": lines[-1]}
        return {"changed": False, "found": found, "why": "", "offset": offset(found.get("now"), began, time.time())}


def offset(there: float | None, began: float, ended: float) -> float | None:
    """Return how far a clock is ahead, at the least, that was read between these two moments of ours."""
    if there is None:
        return None
    return there - began if there < began else max(there - ended, 0.0)
