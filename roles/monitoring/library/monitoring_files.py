#!/usr/bin/python
"""Write many files and folders in one round trip: what keeps a second run of this role short."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: monitoring_files
short_description: Write many files and folders at once
description:
  - Each entry of O(files) is a file with its content, or a folder. A file is replaced atomically; folders on the way
    are made.
options:
  files:
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        type: path
        required: true
      content:
        description: Without it, the entry is a folder.
        type: str
      owner:
        description: An account, and the group of that name.
        type: str
        default: root
      mode:
        description: Four octal digits. Without it 0644, for a folder 0755.
        type: str
"""

RETURN = r"""
written:
  description: Paths that differed.
  type: list
  elements: str
  returned: always
"""


class Target:
    """One file or folder: what is there, and what there should be."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.path: str = entry["path"]
        self.after: str | None = entry["content"]
        self.mode = int(entry["mode"] or ("0755" if self.after is None else "0644"), 8)
        self.owner: str = entry["owner"]
        # In check mode the account may still have to be made.
        self.ids: tuple[int, int] | None = None
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(self.owner)
            self.ids = account.pw_uid, account.pw_gid
        self.before: str | None = None
        self.differs = self._differs()

    def _differs(self) -> bool:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return True
        if self.after is not None:
            with open(self.path, encoding="utf-8") as file:
                self.before = file.read()
        rights = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
        return self.before != self.after or rights != (self.mode, self.ids)

    def write(self, module: Any) -> None:
        if self.ids is None:
            module.fail_json(msg=f"{self.path} was not written: there is no account {self.owner}")
            return
        if self.after is None:
            os.makedirs(self.path, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=module.tmpdir, delete=False) as file:
                file.write(self.after)
            module.atomic_move(file.name, self.path)
        os.chown(self.path, *self.ids)
        os.chmod(self.path, self.mode)


def main() -> None:
    entry = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str"},
        "owner": {"type": "str", "default": "root"},
        "mode": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "dict", "required": True, "options": entry}},
        supports_check_mode=True,
    )
    os.umask(0o022)  # folders on the way are everybody's to pass, whatever the session's umask
    targets = [target for entry in module.params["files"] if (target := Target(entry)).differs]
    if not module.check_mode:
        for target in targets:
            target.write(module)
    module.exit_json(
        changed=bool(targets),
        written=[target.path for target in targets],
        diff=[
            {
                "before_header": target.path,
                "after_header": target.path,
                "before": target.before or "",
                "after": target.after or "",
            }
            for target in targets
        ],
    )


if __name__ == "__main__":
    main()
