"""Go on where a file of variables cannot be read, such as a vault with another password; in ansible/doctor.yml only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.context import CLIARGS
from ansible.errors import AnsibleError

from ansible.plugins.vars import BaseVarsPlugin  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: doctor
short_description: Files of variables that cannot be read, as doctor_unread
description:
  - In ansible/doctor.yml an unreadable file of variables counts as empty, and doctor_unread has the reason by path.
  - In any other playbook it does nothing.
  - It has to stand before host_group_vars in vars_plugins_enabled.
options: {}
"""

PLAYBOOK = Path(__file__).resolve().parents[2] / "doctor.yml"


@functools.cache
def is_doctor(playbooks: tuple[str, ...]) -> bool:
    """Return whether the doctor is among the playbooks of the command line."""
    return PLAYBOOK in [Path(one).resolve() for one in playbooks]


class VarsModule(BaseVarsPlugin):  # type: ignore[misc]
    """Makes Ansible's loader tolerant before host_group_vars uses it."""

    REQUIRES_ENABLED = True
    is_stateless = True

    def get_vars(self, loader: Any, _path: str, _entities: Any) -> dict[str, Any]:
        """Return what could not be read so far, in the doctor."""
        if not is_doctor(tuple(CLIARGS.get("args") or ())):
            return {}
        if not isinstance(loader.load_from_file, Tolerant):
            loader.load_from_file = Tolerant(loader.load_from_file)
        return {"doctor_unread": loader.load_from_file.unread}


class Tolerant:
    """Loads a file as Ansible does; gives an empty one in place of one that it cannot read, and remembers why."""

    def __init__(self, load: Callable[..., Any]) -> None:
        self._load = load
        self.unread: dict[str, str] = {}

    def __call__(self, file_name: str, *arguments: Any, **options: Any) -> Any:
        if str(file_name) in self.unread:
            return {}
        try:
            return self._load(file_name, *arguments, **options)
        except AnsibleError as error:
            self.unread[str(file_name)] = str(error)
            return {}
