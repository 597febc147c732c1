"""Which secrets the host has, beside those that .env says it should have.

Written by `berth secrets apply`. Read at each boot, before the databases start: a change that was interrupted is
finished by the next run of Ansible, and until then everything starts with what was in use before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from berth.host import files

# Beside .env. As that, readable by root only.
FILE = "secrets.json"


def digest(text: str) -> str:
    """Return the SHA-256 digest of a secret, as Redis keeps it."""
    return hashlib.sha256(text.encode()).hexdigest()


class DamagedError(Exception):
    """The record cannot be read; the message says what to do."""


@dataclass
class Applied:
    """What was last applied, and what is accepted besides."""

    # The lines of .env that were applied to their end.
    values: dict[str, str] = field(default_factory=dict)
    # Secret -> since when it has its value (ISO 8601).
    since: dict[str, str] = field(default_factory=dict)
    # Redis user -> digests of passwords that are accepted besides: former ones, and those of interrupted changes.
    accepted: dict[str, list[str]] = field(default_factory=dict)
    # Redis user -> rules that the live release may need besides its own.
    rights: dict[str, list[str]] = field(default_factory=dict)
    # Whether accounts of MongoDB still have the bare names of their users, as before version 0.3.
    bare: bool = False
    # Passwords that MongoDB's root may have after an interrupted change.
    roots: list[str] = field(default_factory=list)
    # When accounts last changed, in seconds since the epoch; 0 where no former password is accepted.
    changed: float = 0

    @classmethod
    def read(cls, env_file: Path) -> Applied:
        """Read the file beside this .env; nothing was applied where there is none. Raises DamagedError."""
        place = env_file.with_name(FILE)
        try:
            return cls(**(files.read_json(place) or {}))
        except (ValueError, TypeError) as error:
            raise DamagedError(
                f"{place} is damaged ({error}). Without it nobody knows which former passwords are still in use: if "
                "nothing was rotated since the last release, remove it and run site.yml"
            ) from None

    def write(self, env_file: Path) -> None:
        files.write(env_file.with_name(FILE), json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", 0o600)

    def value(self, name: str, values: Mapping[str, str]) -> str:
        """Return the value of a line that was applied; that of .env where none was."""
        return self.values.get(name) or values[name]
