"""Render the role's templates on the controller, and pass all of them to the module at once."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """`files` as ansible/library/berth_files.py describes it; a bare string stands for {path: ...}."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        files = self._task.args.get("files")
        if not isinstance(files, list) or set(self._task.args) != {"files"}:
            raise AnsibleActionFail("berth_files takes one argument, the list `files`")
        entries = [dict(entry) if isinstance(entry, dict) else {"path": entry} for entry in files]
        for entry in entries:
            if entry.get("state", "present") == "present" and "settings" not in entry and "content" not in entry:
                entry["content"] = self._rendered(entry["path"], task_vars or {})
        return dict(self._execute_module("berth_files", {"files": entries}, task_vars=task_vars))

    def _rendered(self, path: str, task_vars: dict[str, Any]) -> str:
        templar = self._templar.copy_with_new_env(available_variables={**task_vars, "berth_files_path": path})
        return str(templar.template(trust_as_template("{{ lookup('ansible.builtin.template', berth_files_path) }}")))
