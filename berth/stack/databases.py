"""Databases of the platform that the application dumps and restores itself, as labels of their services say.

Ansible reads the file on the controller and writes the result into the settings of backups: what is dumped depends on
the databases that run, not on the release that is live.

Standard library only.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from berth.host.refused import Refused
from berth.stack.needs import COMPOSE_FILE, MONGO, REDIS, labels_of

PROFILE = "platform"
# Other parts of a backup, which databases are named like.
TAKEN = ("files", "manifest", "oplog")
BACKUP, RESTORE = "berth.backup", "berth.restore"


@dataclass(frozen=True)
class Database:
    """A service with berth.backup: the commands are run in its container."""

    name: str
    # Writes a dump to standard output.
    backup: tuple[str, ...]
    # Replaces all data by the dump on standard input; may be repeated.
    restore: tuple[str, ...]


def read(compose: Mapping[str, Any]) -> list[Database]:
    """Read a compose file that YAML has loaded, or that compose has resolved.

    Raises:
        Refused: a label is wrong; the message names service and label.
    """
    found = []
    for name, service in (compose.get("services") or {}).items():
        labels = labels_of(service or {})
        given = {key: labels[key] for key in (BACKUP, RESTORE) if key in labels}
        if not given:
            continue
        key = next(iter(given))
        if PROFILE not in ((service or {}).get("profiles") or ()):
            raise _refused(name, key, f"is for services of profile {PROFILE}.")
        if name in (MONGO, REDIS):
            raise _refused(name, key, "is not needed: Berth backs it up by itself.")
        if name in TAKEN or name.startswith("extra-"):
            raise _refused(name, key, f"needs another name of the service: a backup has a part {name} already.")
        if len(given) == 1:
            other = RESTORE if key == BACKUP else BACKUP
            raise _refused(name, key, f"needs {other}, too: the two are tried together in each restore drill.")
        found.append(Database(name, _command(name, BACKUP, given[BACKUP]), _command(name, RESTORE, given[RESTORE])))
    return found


def _command(name: str, key: str, text: str) -> tuple[str, ...]:
    # Compose reads $$ as one.
    plain = text.replace("$$", "\0")
    if "$" in plain:
        raise _refused(name, key, "has a variable of compose: write the value itself, and $$ for a $.")
    try:
        words = tuple(shlex.split(plain.replace("\0", "$")))
    except ValueError as error:
        raise _refused(name, key, f'is "{text}": {error}') from None
    if not words:
        raise _refused(name, key, f'is "{text}": a command is needed.')
    return words


def _refused(service: str, key: str, problem: str) -> Refused:
    return Refused(f"{COMPOSE_FILE}: {key} of service {service} {problem}", "compose")
