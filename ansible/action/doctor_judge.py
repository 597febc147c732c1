"""Look at the controller, and judge everything that was found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

sys.path.append(str(Path(__file__).resolve().parents[1] / "doctor"))

from berth_doctor import asked, controller, host, judge


class ActionModule(ActionBase):  # type: ignore[misc]
    """Takes known, unknown, tried, host, outside and unread; returns lines, with secrets masked."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        given, known = self._task.args, self._task.args["known"]
        tried = [one for one in given["tried"] if "ok" in one]
        facts = {
            "values": known,
            "errors": given["unknown"],
            "unread": given["unread"],
            "reached": {"ok": tried[-1]["ok"], "user": tried[-1]["user"], "tried": tried}
            if tried
            else {"ok": False, "tried": []},
            "host": given["host"].get("found") or None,
            "host_error": given["host"].get("why", ""),
            "offset": given["host"].get("offset"),
            "outside": given["outside"].get("found") or None,
            "outside_error": given["outside"].get("why", ""),
            "controller": {
                "inventory": str((task_vars or {}).get("inventory_dir", "")),
                "key": controller.key(known.get("key_file") or ""),
                "vault": controller.vault(str((task_vars or {}).get("inventory_dir", ".")), given["password_file"]),
                "images": self._images(known),
            },
        }
        lines = host.masked(judge.judge(facts), asked.secrets(known.get("secrets")))
        return {"changed": False, "lines": lines}

    def _images(self, known: dict[str, Any]) -> dict[str, Any] | None:
        """Inspect the images on the controller; the filters of role stack tell which are missing or stand-ins."""
        if known.get("transport") != "archive" or not known.get("images"):
            return None
        found = controller.images(known["images"])

        def filtered(expression: str) -> list[str]:
            local = {"wanted": known["images"], "inspected": found["inspected"]}
            return [
                str(one)
                for one in self._templar.evaluate_expression(trust_as_template(expression), local_variables=local)
            ]

        return {
            **found,
            "absent": filtered("wanted | images_absent(inspected)"),
            "stand_ins": filtered("inspected | stand_in_images"),
        }
