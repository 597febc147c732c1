"""Generate the password of the monitoring once, on the host, and write it in the format that each program reads.

usage: berth secrets monitoring-login DIRECTORY GROUP USERNAME [--check]

Files in DIRECTORY: `password`; `web.yml`, for Prometheus and its exporters (web.config.file); `authorization`, the
header's value for health checks; and `curl`, options for `curl --config`, which only root can read. GROUP can read the
others. An existing password is kept; to change it, remove the file.

Prints {"changed": ..., "sum": ...}; sum changes with the password, and is empty if there is none yet. With --check
nothing is changed.
"""

from __future__ import annotations

import base64
import ctypes
import grp
import hashlib
import json
import os
import secrets
import stat
import sys
from pathlib import Path

from berth.host import files

_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# The password has 256 bits, so more rounds would not protect it better; they would let every account of the host
# burn CPU time by sending wrong passwords.
_COST = 4


def hashed(password: str) -> str:
    """Return its bcrypt hash. The salt is derived from the password, so that a second run changes nothing."""
    salt = "".join(_ALPHABET[byte % 64] for byte in hashlib.sha256(f"salt {password}".encode()).digest()[:21])
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    # Only two bits of the salt's last character count.
    found = library.crypt(password.encode(), f"$2b${_COST:02}${salt}u".encode())
    if found is None or not found.startswith(b"$2b$"):
        raise OSError("libcrypt does not support bcrypt")
    return bytes(found).decode()


def derived(username: str, password: str) -> dict[str, str]:
    """Return file name -> content."""
    both = f"{username}:{password}"
    return {
        "web.yml": f"basic_auth_users: {json.dumps({username: hashed(password)})}\n",
        "authorization": base64.b64encode(both.encode()).decode(),
        "curl": f'user = "{both}"\n',
    }


def make(folder: Path, group: int, username: str, *, check: bool) -> tuple[bool, str]:
    """Create or correct the folder; return whether it changed, and the sum."""
    if check and not (folder / "password").exists():
        return True, ""
    wanted = {"password": _read(folder / "password") or secrets.token_urlsafe(32)}
    wanted |= derived(username, wanted["password"])
    changed = _folder(folder, group, check)
    for name, content in wanted.items():
        changed = _file(folder / name, content, group, 0o400 if name == "curl" else 0o440, check) or changed
    return changed, hashlib.sha256(wanted["web.yml"].encode()).hexdigest()


def _read(place: Path) -> str:
    try:
        return place.read_text()
    except FileNotFoundError:
        return ""


def _has(place: Path, mode: int, group: int) -> bool:
    try:
        found = place.stat()
    except FileNotFoundError:
        return False
    return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, os.geteuid(), group)


def _folder(place: Path, group: int, check: bool) -> bool:
    if _has(place, 0o750, group):
        return False
    if not check:
        place.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.chown(place, -1, group)
        place.chmod(0o750)
    return True


def _file(place: Path, content: str, group: int, mode: int, check: bool) -> bool:
    if _read(place) == content and _has(place, mode, group):
        return False
    if not check:
        files.write(place, content, mode, group)
    return True


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    check = arguments[3:] == ["--check"]
    if len(arguments) != (4 if check else 3):
        print(__doc__, file=sys.stderr)
        return 2
    directory, name, username = arguments[:3]
    os.umask(0o022)  # parent folders must be accessible to all, whatever the session's umask is
    # With --check the group may not exist yet.
    group = next((one.gr_gid for one in grp.getgrall() if one.gr_name == name), -1)
    if group < 0 and not check:
        print(f"There is no group {name}.", file=sys.stderr)
        return 1
    try:
        changed, total = make(Path(directory), group, username, check=check)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"changed": changed, "sum": total}))
    return 0
