"""What role backup writes down for this program, and where everything is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berth.host import files
from berth.host.refused import Refused
from berth.stack.databases import Database

PLACE = Path("/opt/berth/backup")


@dataclass(frozen=True)
class Target:
    """One repository of restic."""

    name: str
    repository: str
    append_only: bool = False
    options: dict[str, str] = field(default_factory=dict)
    # Credentials, read from secrets.json.
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """One field for each variable of the role; seconds unless it says otherwise."""

    site: str
    # Where the stack lives: .env, releases, the edge's folder.
    root: Path
    state: Path
    cache: Path
    metrics: Path
    # The container, or empty where there is none to ask.
    mongo: str
    redis: str
    paths: list[str]
    # name, file, command
    commands: list[dict[str, Any]]
    # daily, weekly, monthly, yearly, and days of increments
    keep: dict[str, int]
    max_age_hours: int
    read_data: str
    stall_seconds: int
    wait_seconds: int
    oplog_told_minutes: int
    targets: list[Target]
    password: str
    # Opens what was not given the new one yet; empty where there is no old one.
    previous_password: str
    ping: str
    # For each hook.
    hook_seconds: int = 300
    # Those that the application dumps and restores itself.
    databases: tuple[Database, ...] = ()

    @classmethod
    def read(cls, place: Path = PLACE) -> Settings:
        values, secret = _written(place / "settings.json"), _written(place / "secrets.json")
        paths = {name: Path(values[name]) for name in ("root", "state", "cache", "metrics")}
        targets = [
            Target(**target, environment=secret["environment"].get(target["name"], {})) for target in values["targets"]
        ]
        databases = tuple(
            Database(one["name"], tuple(one["backup"]), tuple(one["restore"])) for one in values.get("databases", ())
        )
        hidden = {name: secret.get(name, "") for name in ("password", "previous_password", "ping")}
        return cls(**{**values, **paths, **hidden, "targets": targets, "databases": databases})

    def target(self, name: str) -> Target:
        for target in self.targets:
            if target.name == name:
                return target
        known = ", ".join(target.name for target in self.targets) or "none"
        raise Refused(f"There is no target {name}; backup_targets names: {known}.")

    def chosen(self, name: str = "") -> list[Target]:
        """Return one target, or all of them."""
        return [self.target(name)] if name else self.targets


def _written(place: Path) -> dict[str, Any]:
    if (found := files.read_json(place)) is None:
        raise Refused(f"{place} is missing: run ansible-playbook site.yml, or role backup alone.")
    return found
