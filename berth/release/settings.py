"""What role stack writes down for this program, and where everything is."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from berth.host import files
from berth.host.refused import Refused
from berth.stack.kept import Kept

PLACE = Path("/opt/berth/releases/settings.json")


@dataclass(frozen=True)
class Settings:
    """One field for each variable of the role; seconds unless it says otherwise."""

    domain: str
    address: str
    root: Path
    edge: Path
    image_prefix: str
    keep: int
    snapshot_before_schema: bool
    schema_seconds: int
    healthy_seconds: int
    smoke_seconds: int
    confirm_seconds: int
    watch_seconds: int
    watch_requests: int
    watch_errors_percent: float
    slower_factor: float
    slower_ms: int
    drain_seconds: int
    # Services of the compose file that run elsewhere: a managed database.
    managed: list[str] = field(default_factory=list)
    # Middlewares of the edge for services whose clients have a limited rate, and for all services; and the same for
    # requests through trusted proxies.
    rate_middlewares: list[str] = field(default_factory=list)
    rate_proxied_middlewares: list[str] = field(default_factory=list)
    middlewares: list[str] = field(default_factory=list)
    proxied_middlewares: list[str] = field(default_factory=list)
    # Addresses and networks of the trusted proxies.
    trusted_proxies: list[str] = field(default_factory=list)
    # Whether the edge traces requests.
    traces: bool = False
    maintenance_retry_after: int = 120
    # For each hook.
    hook_seconds: int = 300
    # Public keys (PEM). With any, only images in a statement that one of them signed are started.
    signing_keys: list[str] = field(default_factory=list)
    # For a command of `berth run` that names no time.
    command_seconds: int = 3600

    @classmethod
    def read(cls, place: Path = PLACE) -> Settings:
        values = files.read_json(place)
        if values is None:
            raise Refused(f"{place} is missing: nothing was released here yet. Run: ansible-playbook site.yml")
        return cls(**{**values, "root": Path(values["root"]), "edge": Path(values["edge"])})

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def history(self) -> Path:
        return self.root / "releases.jsonl"

    def kept(self, release: str) -> Kept:
        return Kept(self.root, release, self.image_prefix)


def stuck(settings: Settings, error: OSError) -> Refused:
    """Say in one sentence why this host cannot go on; of a full disk, which one."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return Refused(f"This host cannot go on: {error}.")
    room = {place: os.statvfs(place) for place in (settings.root, settings.releases, settings.edge)}
    place, least = min(room.items(), key=lambda one: one[1].f_bavail * one[1].f_frsize)
    free = least.f_bavail * least.f_frsize // 1024**2
    return Refused(f"The disk is full: {place} has room for {free} MiB and {least.f_favail} files.")
