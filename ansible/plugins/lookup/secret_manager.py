"""The secrets in an environment's secret manager, for playbooks that write there: ansible/tasks/write_secrets.yml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.loader import vars_loader

from ansible.plugins.lookup import LookupBase  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: secret_manager
short_description: Secrets of a secret manager, and how to write to it
description:
  - Its terms are the value of berth_secret_manager and the folder of the inventory.
  - Returns type, name, options and version of the manager, and its secrets, which are empty where none are there yet.
options: {}
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    """Used in a play as lookup('secret_manager', berth_secret_manager, inventory_dir)."""

    def run(self, terms: list[Any], _variables: Any = None, **_kwargs: Any) -> list[dict[str, Any]]:
        """Read the manager. Raises AnsibleError where that fails; the message says what to do."""
        plugin = vars_loader.get("secret_manager")
        if plugin is None:
            raise AnsibleError("The vars plugin secret_manager is missing: ansible.cfg of this project is not read.")
        setting, folder = terms
        reader = __import__(type(plugin).__module__, fromlist=["read"])
        secrets: Any = None
        try:
            secrets = reader.read(setting, Path(folder), reader.looker(self._loader))
        except reader.NoSecretsError:
            secrets = reader.Secrets({}, 0)
        return [
            {
                "type": setting["type"],
                "name": reader.told(setting),
                "options": reader.settled(setting, Path(folder)),
                "version": secrets.version,
                "secrets": secrets.values,
            }
        ]
