"""Make the password of what watches the site, once, on the host itself, and write it as each program reads it.

usage: berth secrets monitoring-login DIRECTORY GROUP USERNAME [--check]

Files in DIRECTORY are `password`; `web.yml`, which Prometheus and its exporters take (web.config.file);
`authorization`, the value of the header for health checks; and `curl`, options for `curl --config`, which root alone
reads. GROUP reads the others. A password that is there stays; to change it, remove the file.

Prints {"changed": ..., "sum": ...}; sum is another one for another password, and empty where there is none yet. With
--check nothing is changed.
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


def make(folder: Path, group: int, username: str, *, check: bool) -> tuple[bool, str]:
    """Bring the folder to its content; return whether it differed, and the sum."""
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
    """Do what the usage says."""
    check = arguments[3:] == ["--check"]
    if len(arguments) != (4 if check else 3):
        print(__doc__, file=sys.stderr)
        return 2
    directory, name, username = arguments[:3]
    os.umask(0o022)  # folders on the way are everybody's to pass, whatever the session's umask
    # With --check the group may still have to be made.
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
