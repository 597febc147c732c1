"""Read values of the inventory one by one, so that an error in one does not hide the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template


class ActionModule(ActionBase):  # type: ignore[misc]
    """Takes expressions by name; returns known (name -> value) and unknown (expression -> reason)."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        known: dict[str, Any] = {}
        unknown: dict[str, str] = {}
        # Defaults of roles, which are evaluated outside of any here, name files by it.
        role = {"role_path": str(Path(__file__).resolve().parents[2] / "roles/berth")}
        templar = self._templar.copy_with_new_env(available_variables={**self._templar.available_variables, **role})
        for name, expression in self._task.args["expressions"].items():
            try:
                known[name] = plain(templar.evaluate_expression(trust_as_template(str(expression))))
            except (AnsibleError, TypeError, ValueError, KeyError, AttributeError) as error:
                unknown[str(expression)] = str(error)
        return {"changed": False, "known": known, "unknown": unknown}


def plain(value: Any) -> Any:
    """Return a value with all templates resolved."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)
