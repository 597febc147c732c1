#!/usr/bin/python
"""Make the password of what watches the site, once, on the host itself, and write it as each program reads it."""

from __future__ import annotations

import base64
import ctypes
import grp
import hashlib
import json
import os
import secrets
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: monitoring_login
short_description: Make a password once, and write it as each program reads it
description:
  - Files in O(directory) are V(password); V(web.yml), which Prometheus and its exporters take (web.config.file);
    V(authorization), the value of the header for health checks; and V(curl), options for C(curl --config), which root
    alone reads.
  - A password that is there stays. To change it, remove the file.
options:
  directory:
    type: path
    required: true
  group:
    description: Who else reads them.
    type: str
    required: true
  username:
    type: str
    required: true
"""

RETURN = r"""
sum:
  description: Another one for another password.
  type: str
  returned: always
"""

_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# The password has 256 bits, which no number of rounds protects better. A costly hash would let anybody on the host
# spend the processor time of it with wrong passwords.
_COST = 4


def hashed(password: str) -> str:
    """Return it as bcrypt writes it; the salt comes from the password, so that a second run finds nothing to change."""
    salt = "".join(_ALPHABET[byte % 64] for byte in hashlib.sha256(f"salt {password}".encode()).digest()[:21])
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    # Of the last character two bits count.
    found = library.crypt(password.encode(), f"$2b${_COST:02}${salt}u".encode())
    if found is None or not found.startswith(b"$2b$"):
        raise OSError("libcrypt knows no bcrypt")
    return bytes(found).decode()


def derived(username: str, password: str) -> dict[str, str]:
    """Return what each program reads."""
    both = f"{username}:{password}"
    return {
        "web.yml": f"basic_auth_users: {json.dumps({username: hashed(password)})}\n",
        "authorization": base64.b64encode(both.encode()).decode(),
        "curl": f'user = "{both}"\n',
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    folder: str = module.params["directory"]
    place = os.path.join(folder, "password")
    if module.check_mode and not os.path.exists(place):
        module.exit_json(changed=True, sum="")
    # In check mode the group may still have to be made.
    known = [each.gr_gid for each in grp.getgrall() if each.gr_name == module.params["group"]]
    if not known and not module.check_mode:
        module.fail_json(msg=f"there is no group {module.params['group']}")
    group = known[0] if known else -1
    wanted = {"password": _read(place) or secrets.token_urlsafe(32)}
    wanted |= derived(module.params["username"], wanted["password"])
    changed = _folder(folder, group, module.check_mode)
    for name, content in wanted.items():
        changed = (
            _file(module, os.path.join(folder, name), content, group, 0o400 if name == "curl" else 0o440) or changed
        )
    module.exit_json(changed=changed, sum=hashlib.sha256(wanted["web.yml"].encode()).hexdigest())


def _read(place: str) -> str:
    try:
        with open(place, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _has(place: str, mode: int, group: int) -> bool:
    try:
        found = os.stat(place)
    except FileNotFoundError:
        return False
    return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, os.geteuid(), group)


def _folder(place: str, group: int, check: bool) -> bool:
    if _has(place, 0o750, group):
        return False
    if not check:
        os.makedirs(place, mode=0o750, exist_ok=True)
        os.chown(place, -1, group)
        os.chmod(place, 0o750)  # noqa: S103  # the group is the containers'
    return True


def _file(module: Any, place: str, content: str, group: int, mode: int) -> bool:
    if _read(place) == content and _has(place, mode, group):
        return False
    if not module.check_mode:
        draft = f"{place}.new"
        with open(draft, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o400)) as file:
            file.write(content)
        os.chown(draft, -1, group)
        os.chmod(draft, mode)
        os.rename(draft, place)
    return True


if __name__ == "__main__":
    main()
