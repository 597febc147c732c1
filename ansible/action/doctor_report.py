"""Show the lines of every host as a table, write them to a JSON file if one is named, and fail if one is wrong."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

sys.path.append(str(Path(__file__).resolve().parents[1] / "doctor"))

from berth_doctor import table

WIDTH, NARROWEST, WIDEST = 100, 70, 120

UNSEEN = {
    "check": "doctor",
    "subject": "Checks",
    "status": "wrong",
    "seen": "they ended early",
    "remedy": "Fix the error above, and run it again.",
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Takes json, a path or nothing; reads doctor_judged of each of the play's hosts."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        hosts = {
            name: self._lines((task_vars or {})["hostvars"][name])
            for name in (task_vars or {})["ansible_play_hosts_all"]
        }
        display = Display()
        width = min(max(shutil.get_terminal_size((WIDTH, 25)).columns, NARROWEST), WIDEST) - 1
        for name, lines in hosts.items():
            display.display(f"\n{name}: {table.summary(lines)}\n")
            for row, colour in table.rows(lines, width):
                display.display(row, color=colour)
        display.display("")
        wrong = sum(line["status"] == "wrong" for lines in hosts.values() for line in lines)
        if path := self._task.args.get("json"):
            Path(path).expanduser().write_text(json.dumps({"wrong": wrong, "hosts": hosts}, indent=2) + "\n")
        if wrong:
            return {
                "changed": False,
                "failed": True,
                "msg": f"Wrong: {wrong}. The table says how to fix it.",
            }
        return {"changed": False, "msg": "Nothing is wrong."}

    @staticmethod
    def _lines(found: dict[str, Any]) -> list[dict[str, str]]:
        judged = found.get("doctor_judged", {}).get("lines") or [UNSEEN]
        return [{key: str(value) for key, value in line.items()} for line in judged]
