#!/usr/bin/python
"""Write many files in one round trip, which keeps the second run of a role short."""

from __future__ import annotations

import contextlib
import glob
import grp
import os
import pwd
import re
import shlex
import shutil
import stat
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: berth_files
short_description: Write many files at once
description:
  - Each entry of O(files) is a whole file, single settings in a file that another package owns, a folder, a file
    that must be absent, or a file of another owner whose permissions are limited.
  - Each file is validated before any of them is replaced, and replaced atomically. Parent folders are created.
options:
  files:
    description: The files, folders and limits.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Path of the file, relative to C(/). For V(state=limited) a pattern, which also matches folders.
        type: str
        required: true
      content:
        description: Without it (and without O(files[].settings)) a file is rendered from the role's templates, or
          copied from its files, where it has the same path below C(templates/) or C(files/).
        type: str
      src:
        description: Its path below C(templates/) or C(files/), where that is another one.
        type: str
      vars:
        description: Variables for its template.
        type: dict
      settings:
        description: Keys and their values. The last line that sets a key is replaced; without one, the last line in
          which it is commented out; a missing key is appended. The rest of the file is kept.
        type: dict
      separator:
        description: Separator between key and value.
        type: str
      state:
        description: What the entry is; V(limited) only takes permissions away.
        type: str
        choices: [present, directory, absent, limited]
      owner:
        description: An account, or a number that is uid and gid. Without it root.
        type: str
      group:
        description: Group; the owner's by default. For V(state=limited) it is not changed by default.
        type: str
      mode:
        description: Four octal digits; 0644 by default, 0755 for a folder; a file whose O(files[].settings) are edited
          keeps its mode. For V(state=limited) permissions beyond it are removed, and none are added.
        type: str
      validate:
        description: Command that must succeed on the new content, whose path replaces C(%s).
        type: str
"""

RETURN = r"""
written:
  description: Absolute paths of changed files.
  type: list
  elements: str
  returned: always
"""


def with_settings(text: str, settings: dict[str, Any], separator: str) -> str:
    """Return the text with each key set to its value, and everything else unchanged.

    Parameters: settings maps a key to its value; separator stands between the two.
    """
    for key, value in settings.items():
        line = f"{key}{separator}{value}"
        end = r"(?:\s*=|\s|$)" if separator.strip() else r"(?:\s|$)"
        in_force = re.compile(rf"^[ \t]*{re.escape(key)}{end}.*$", re.MULTILINE)
        # With one value only: a sentence that begins with the key is no setting.
        commented = re.compile(rf"^[ \t]*#[ \t]*{re.escape(key)}{end}[ \t]*\S*[ \t]*$", re.MULTILINE)
        found = list(in_force.finditer(text)) or list(commented.finditer(text))
        if found:
            text = text[: found[-1].start()] + line + text[found[-1].end() :]
        else:
            text = text + ("" if text.endswith("\n") or not text else "\n") + line + "\n"
    return text


class Limit:
    """One file or folder of another owner, and its maximum permissions."""

    def __init__(self, path: str, entry: dict[str, Any]) -> None:
        self.path = path
        self.mode = int(entry["mode"], 8)
        self.gid = grp.getgrnam(entry["group"]).gr_gid if entry.get("group") else -1
        self.differs = self._apply(dry=True)

    def write(self) -> None:
        self._apply(dry=False)

    def _apply(self, *, dry: bool) -> bool:
        # Homes belong to their users: a link there must not point to another user's file.
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            found = os.fstat(handle)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                return False
            mode = stat.S_IMODE(found.st_mode)
            self.before = f"{mode:04o}"
            self.after = f"{mode & self.mode:04o}"
            if not dry:
                os.fchown(handle, -1, self.gid)
                os.fchmod(handle, mode & self.mode)
            return bool(mode & ~self.mode) or self.gid not in (-1, found.st_gid)
        finally:
            os.close(handle)


class Target:
    """One file or folder: its current and its wanted state."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.path = os.path.realpath("/" + entry["path"].lstrip("/"))
        self.validate = entry["validate"]
        self.wanted = entry["state"] or "present"
        self.before: str | None = None
        self.after = ""
        found: os.stat_result | None = None
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self.path)
            if self.wanted != "directory":
                with open(self.path, encoding="utf-8") as file:
                    self.before = file.read()
        mode = entry["mode"] or ("0755" if self.wanted == "directory" else "0644")
        self.mode = int(mode, 8)
        if self.wanted == "present" and entry["settings"] is None:
            self.after = entry["content"] or ""
        elif self.wanted == "present":
            self.after = with_settings(self.before or "", entry["settings"], entry["separator"] or " ")
            if found and not entry["mode"]:
                self.mode = stat.S_IMODE(found.st_mode)
        # In check mode an account or a group may not exist yet.
        self.missing = ""
        self.ids = self._ids(entry["owner"] or "root", entry["group"])
        self.differs = self._differs(found)

    def _ids(self, owner: str, group: str | None) -> tuple[int, int]:
        if owner.isdigit():
            return int(owner), int(owner)
        try:
            account = pwd.getpwnam(owner)
        except KeyError:
            self.missing = f"account {owner}"
            return -1, -1
        if group is None:
            return account.pw_uid, account.pw_gid
        try:
            return account.pw_uid, grp.getgrnam(group).gr_gid
        except KeyError:
            self.missing = f"group {group}"
            return -1, -1

    def _differs(self, found: os.stat_result | None) -> bool:
        if self.wanted == "absent":
            return found is not None
        if found is None:
            return True
        rights = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
        content = self.wanted == "present" and self.before != self.after
        return content or rights != (self.mode, self.ids)

    def candidate(self, folder: str) -> str:
        """Write the wanted content to a temporary folder, under its own name, which some validators require."""
        place = tempfile.mkdtemp(dir=folder)
        path = os.path.join(place, os.path.basename(self.path))
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.after)
        os.chmod(path, self.mode)
        return path

    def write(self, module: Any, candidate: str | None) -> None:
        """Rename the temporary file into place, create the folder, or remove the file."""
        if self.wanted == "absent":
            os.unlink(self.path)
            return
        if candidate is None:
            os.makedirs(self.path, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            os.chown(candidate, *self.ids)
            module.atomic_move(candidate, self.path)
        os.chown(self.path, *self.ids)
        os.chmod(self.path, self.mode)


def main() -> None:
    entry = {
        "path": {"type": "str", "required": True},
        "content": {"type": "str"},
        "settings": {"type": "dict"},
        "separator": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "directory", "absent", "limited"]},
        "owner": {"type": "str"},
        "group": {"type": "str"},
        "mode": {"type": "str"},
        "validate": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "dict", "required": True, "options": entry}},
        supports_check_mode=True,
    )
    entries = module.params["files"]
    limits = [
        limit
        for entry in entries
        if entry["state"] == "limited"
        for path in sorted(glob.glob("/" + entry["path"].lstrip("/")))
        if (limit := Limit(path, entry)).differs
    ]
    targets = [target for entry in entries if entry["state"] != "limited" and (target := Target(entry)).differs]
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as folder:
        candidates = {}
        for target in targets:
            if target.wanted != "present":
                continue
            candidates[target.path] = target.candidate(folder)
            if target.validate:
                command = shlex.split(target.validate.replace("%s", candidates[target.path]))
                # In check mode on a bare host the program may not be installed yet.
                if module.check_mode and not shutil.which(command[0]):
                    continue
                code, out, err = module.run_command(command)
                if code:
                    module.fail_json(msg=f"{target.path} was not replaced, {command[0]} refuses it: {err or out}")
        if not module.check_mode:
            for target in targets:
                if target.missing and target.wanted != "absent":
                    module.fail_json(msg=f"{target.path} was not written: there is no {target.missing}")
            os.umask(0o022)  # parent folders must be accessible to all, whatever the session's umask is
            for target in targets:
                target.write(module, candidates.get(target.path))
            for limit in limits:
                limit.write()
    changes: list[Target | Limit] = [*targets, *limits]
    module.exit_json(
        changed=bool(changes),
        written=[one.path for one in changes],
        diff=[
            {"before_header": one.path, "after_header": one.path, "before": one.before or "", "after": one.after}
            for one in changes
        ],
    )


if __name__ == "__main__":
    main()
