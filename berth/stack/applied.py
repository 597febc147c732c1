"""Which secrets the host's databases have, beside those that .env says they should have.

Written by `berth secrets apply`. Read at each boot, before the databases start.
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
# What the databases are administered with; they have the old one until they have taken over the other passwords.
ADMINS = ("mongo_root_password", "redis_admin_password")


def digest(text: str) -> str:
    """Return the SHA-256 digest of a secret, as Redis keeps it."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Applied:
    """What was last applied, and what is accepted besides."""

    # Secret -> its digest, and since when it has this value (ISO 8601).
    digests: dict[str, str] = field(default_factory=dict)
    since: dict[str, str] = field(default_factory=dict)
    # The passwords of ADMINS that the databases have.
    admins: dict[str, str] = field(default_factory=dict)
    # Redis user -> digests of former passwords that are still accepted.
    accepted: dict[str, list[str]] = field(default_factory=dict)
    # When accounts last changed, in seconds since the epoch; 0 where no former password is accepted.
    changed: float = 0

    @classmethod
    def read(cls, env_file: Path) -> Applied:
        """Read the file beside this .env; nothing was applied where there is none, or where it is damaged."""
        try:
            return cls(**(files.read_json(env_file.with_name(FILE)) or {}))
        except (ValueError, TypeError):
            return cls()

    def write(self, env_file: Path) -> None:
        files.write(env_file.with_name(FILE), json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", 0o600)

    def admin(self, name: str, values: Mapping[str, str]) -> str:
        """Return the password that the database has: .env's, unless another was applied."""
        return self.admins.get(name) or values[name.upper()]
