"""Render the role's templates on the controller, and pass all of them to the module at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

# As the module `template` has it.
MANAGED = {"ansible_managed": "Ansible managed"}


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """`files` as ansible/library/berth_files.py describes it; a bare string stands for {path: ...}."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        files = self._task.args.get("files")
        if not isinstance(files, list) or set(self._task.args) != {"files"}:
            raise AnsibleActionFail("berth_files takes one argument, the list `files`")
        entries = [dict(entry) if isinstance(entry, dict) else {"path": entry} for entry in files]
        for entry in entries:
            source, variables = entry.pop("src", entry["path"]), entry.pop("vars", {})
            if entry.get("state", "present") == "present" and "settings" not in entry and "content" not in entry:
                entry["content"] = self._content(source, {**MANAGED, **(task_vars or {}), **variables})
        return dict(self._execute_module("berth_files", {"files": entries}, task_vars=task_vars))

    def _content(self, source: str, variables: dict[str, Any]) -> str:
        """Return a template rendered, or a file as it is. The look-up `template` would copy all variables each time."""
        try:
            found = self._find_needle("templates", source)
        except AnsibleError:
            return str(self._loader.get_text_file_contents(self._find_needle("files", source)))
        # What it includes has a path below templates/, too.
        folder = str(Path(found).parents[len(Path(source).parts) - 1])
        templar = self._templar.copy_with_new_env(searchpath=[folder], available_variables=variables)
        text = trust_as_template(self._loader.get_text_file_contents(found))
        return str(templar.template(text, escape_backslashes=False))
