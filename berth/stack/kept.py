"""Releases as they are kept on this host: each with its own compose file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from berth.host import commands, files
from berth.host.commands import last_lines
from berth.host.live import ROUTES, read_live
from berth.host.refused import Refused
from berth.stack.description import JOB, PROFILE, UNKNOWN, Description, read

FILE = "docker-compose.prod.yml"
SERVICES = "services.json"
PREFIX = "image_prefix"
# The signed statement about its images.
STATEMENT = "provenance.intoto.jsonl"
FILES = (FILE, PREFIX, SERVICES, STATEMENT)
# Stands for the colour where a compose file is read that belongs to both.
ANY_COLOUR = "any"


def compose(root: Path, file: Path, project: str, progress: str = "plain") -> list[str]:
    """Return the beginning of a compose command for the stack in this folder."""
    place = [f"--project-directory={root}", f"--project-name={project}", f"--env-file={root}/.env", f"--file={file}"]
    return ["docker", "compose", f"--progress={progress}", *place]


@dataclass(frozen=True)
class Kept:
    """A release on this host."""

    root: Path
    release: str
    # What stands before the names of its images, where it has not kept that itself.
    default_prefix: str = ""

    @property
    def folder(self) -> Path:
        return self.root / "releases" / self.release

    @property
    def compose_file(self) -> Path:
        return self.folder / FILE

    @property
    def prefix(self) -> str:
        """It may have come from elsewhere than the next."""
        kept = self.folder / PREFIX
        return kept.read_text().strip() if kept.exists() else self.default_prefix

    @property
    def environment(self) -> dict[str, str]:
        """Return what its compose file asks for, besides .env and the colour."""
        return {"RELEASE": self.release, **({"IMAGE_PREFIX": self.prefix} if self.prefix else {})}

    @property
    def config(self) -> dict[str, Any]:
        """Return its compose file as compose resolves it, for any colour. Raises Refused where it is not valid."""
        return _config(self)

    @property
    def description(self) -> Description:
        """Raises Refused where its compose file or the labels in it are not valid."""
        return _description(self)

    @property
    def known(self) -> Description:
        """Return as much as is known: what is live must not depend on a file that somebody has damaged."""
        try:
            return self.description
        except Refused:
            return UNKNOWN

    def set_aside(self) -> None:
        """Copy its files before a controller writes others: what is live may have the same name."""
        for name in FILES:
            if (place := self.folder / name).exists():
                files.write(_beside(place), place.read_text())

    def settle(self, done: bool) -> None:
        """Put back what was set aside, unless the new files are live. May be repeated."""
        for name in FILES:
            copy = _beside(self.folder / name)
            if not copy.exists():
                continue
            if done:
                copy.unlink()
            else:
                copy.replace(self.folder / name)
                forget()

    def write_services(self) -> None:
        """Write its services, and which have metrics, for programs that may not read .env, as compose does."""
        described = self.description
        scraped = [one.name for one in described.services if one.metrics]
        files.write(self.folder / SERVICES, json.dumps({"services": described.names, "metrics": scraped}))

    @property
    def started_with(self) -> str:
        """Return everything that its own services are started with, as text."""
        services = self.config["services"].items()
        return json.dumps({name: one for name, one in services if {PROFILE, JOB} & {*(one.get("profiles") or ())}})


def _beside(place: Path) -> Path:
    return place.with_name(f"{place.name}.before")


# A process reads each file once.
@cache
def _config(kept: Kept) -> dict[str, Any]:
    if not kept.compose_file.exists():
        raise Refused(f"The host lacks {kept.compose_file}, so release {kept.release} is not complete.")
    command = [*compose(kept.root, kept.compose_file, "berth-any"), "--profile=*", "config", "--format=json"]
    done = commands.run(*command, seconds=60, **kept.environment, COLOUR=ANY_COLOUR, RESTART_POLICY="no")
    if done.returncode:
        raise Refused(f"{FILE} of release {kept.release} is not valid.", "compose", last_lines(done))
    return dict(json.loads(done.stdout))


@cache
def _description(kept: Kept) -> Description:
    return read(kept.config)


def live(root: Path) -> Description:
    """Return what is known of the release that the edge routes to."""
    led = read_live(root / ROUTES)
    return Kept(root, led.release).known if led else UNKNOWN


def services_of(root: Path, release: str) -> dict[str, bool | None]:
    """Return service -> whether it has metrics.

    None: an earlier version did not write that. Empty: it wrote nothing.
    """
    written = files.read_json(root / "releases" / release / SERVICES) or {"services": []}
    scraped = written.get("metrics")
    return {name: None if scraped is None else name in scraped for name in written["services"]}


def forget() -> None:
    """Read files again, as another process would."""
    _config.cache_clear()
    _description.cache_clear()
