"""The text of a vault file with other values, encrypted again with the password that opened it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret, is_encrypted
from ansible.plugins.loader import filter_loader

from ansible.plugins.lookup import LookupBase  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: changed_vault
short_description: A vault file with other values
description:
  - Its terms are the path of the file, and the values to change (name -> value; {} for none).
  - Returns the encrypted text. Comments and order are kept. Nothing is written.
options:
  current: {description: "Values that the file has to have, by name: what it lacks is elsewhere.", type: dict}
  password_file: {description: The file of its password, instead of the one that this run was given., type: path}
  new_password: {description: What to encrypt it with from now on., type: str}
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    """Used in a play as lookup('changed_vault', file, changes)."""

    def run(self, terms: list[Any], _variables: Any = None, **kwargs: Any) -> list[str]:
        """Read the file. Raises AnsibleError where it cannot be opened; the message says what to do."""
        path, changes = Path(str(terms[0])), terms[1]
        try:
            text = path.read_bytes()
        except OSError as error:
            raise AnsibleError(f"{path} cannot be read: {error.strerror}. Set rotate_vault_file to the file.") from None
        if not is_encrypted(text):
            raise AnsibleError(f"{path} is not encrypted. Encrypt it first: ansible-vault encrypt {path}")
        vault = self._vault(kwargs.get("password_file", ""))
        try:
            plain = vault.decrypt(text).decode()
        except AnsibleError:
            raise AnsibleError(f"The vault password of this run does not open {path}.") from None
        change = filter_loader.get("vault_changed").j2_function
        problem = filter_loader.get("vault_problem").j2_function
        # Errors of YAML would quote a line with a secret.
        try:
            reason = problem(plain, dict(changes), dict(kwargs.get("current") or {}))
            changed = change(plain, dict(changes)) if changes and not reason else plain
        except Exception as error:  # whatever it is, its text may have a secret
            reason = f"it cannot be read as YAML ({type(error).__name__})"
        if reason:
            raise AnsibleError(f"{path} cannot be changed: {reason}. Nothing was changed.") from None
        if kwargs.get("new_password"):
            vault = VaultLib([("default", VaultSecret(str(kwargs["new_password"]).encode()))])
        return [vault.encrypt(changed.encode()).decode()]

    def _vault(self, password_file: str) -> VaultLib:
        if not password_file:
            return self._loader._vault  # the one that opens this run's files
        return VaultLib([("default", VaultSecret(Path(password_file).read_bytes().strip()))])
