"""Go on where a file of variables cannot be read, such as a vault with another password.

Only ansible/doctor.yml uses it: what could not be read, and why, is told to its plays as doctor_unread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.loader import strategy_loader

Base: type = strategy_loader.get("one_interpreter", class_only=True)


class StrategyModule(Base):
    """The strategy of every other playbook, with variable files read one by one."""

    def run(self, iterator: Any, play_context: Any) -> Any:
        if not isinstance(self._loader.load_from_file, Tolerant):
            self._loader.load_from_file = Tolerant(self._loader.load_from_file)
        hosts = self._inventory.get_hosts(iterator._play.hosts)
        for host in hosts:
            self._variable_manager.get_vars(play=iterator._play, host=host)
        for host in hosts:
            unread = {"doctor_unread": self._loader.load_from_file.unread}
            self._variable_manager.set_nonpersistent_facts(host.name, unread)
        return super().run(iterator, play_context)


class Tolerant:
    """Loads a file as Ansible does; gives an empty one in place of one that it cannot read, and remembers why."""

    def __init__(self, load: Callable[..., Any]) -> None:
        self._load = load
        self.unread: dict[str, str] = {}

    def __call__(self, file_name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return self._load(file_name, *arguments, **options)
        except AnsibleError as error:
            self.unread[str(file_name)] = str(error)
            return {}
