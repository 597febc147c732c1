"""Log in and gather Ansible's facts. A failed login is a result, too: {"ok": false, "why": ...}."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns ok, user and why; facts after a login."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        user = str(self._templar.template((task_vars or {}).get("ansible_user") or "ssh's default user"))
        try:
            found = self._execute_module(
                "ansible.legacy.setup",
                {"gather_subset": ["!all", "hardware", "network", "virtual"]},
                task_vars=task_vars,
            )
        except (AnsibleError, OSError) as error:
            return {"changed": False, "ok": False, "user": user, "why": str(error)}
        if found.get("failed") or found.get("unreachable") or "ansible_facts" not in found:
            why = str(found.get("module_stderr") or found.get("msg") or "no answer")
            return {"changed": False, "ok": False, "user": user, "why": why}
        return {"changed": False, "ok": True, "user": user, "why": "", "ansible_facts": found["ansible_facts"]}
