"""Which release is live: the first line of the edge's routes says it, so there is one source of truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

# Below the folder of the site.
ROUTES = "traefik/dynamic/release.yml"
MARK = "# berth-release: "
COLOURS = ("blue", "green")


@dataclass(frozen=True)
class Live:
    """A release and the colour it is on; the fingerprint names its content and settings."""

    release: str
    colour: str
    fingerprint: str = ""

    @property
    def signature(self) -> str:
        return f"{self.release} {self.colour}"

    @property
    def mark(self) -> str:
        """The first line of the routes to this release."""
        return f"{MARK}{json.dumps(vars(self))}\n"


def read_live(routes: Path) -> Live | None:
    """Return the release that these routes lead to; None if there are no routes."""
    try:
        first = routes.read_text().partition("\n")[0]
    except FileNotFoundError:
        return None
    return Live(**json.loads(first.removeprefix(MARK))) if first.startswith(MARK) else None


def other(colour: str) -> str:
    return COLOURS[1] if colour == COLOURS[0] else COLOURS[0]
