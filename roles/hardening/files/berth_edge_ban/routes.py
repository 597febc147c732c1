"""Bans at the edge: one route for each network. Behind a proxy the packet filter sees only the proxy's address."""

from __future__ import annotations

import json
import re
from pathlib import Path

from berth_edge_ban.networks import Network, pattern, text


def add(folder: Path, banned: Network) -> None:
    """Block a network."""
    name = _name(banned)
    # Anywhere in the header: forging other addresses in it blocks nobody else.
    header = f"(?:^|[ ,])(?:{pattern(banned)})(?:[ ,]|$)"
    router = {
        "rule": f"ClientIP(`{text(banned)}`) || HeaderRegexp(`X-Forwarded-For`, `{header}`)",
        "priority": 100000,
        "middlewares": [f"{name}-answer", name],
        "service": "noop@internal",
    }
    middlewares = {
        # No proxy may cache the answer.
        f"{name}-answer": {"headers": {"customResponseHeaders": {"Cache-Control": "no-store"}}},
        # No client has this address, so the middleware answers 403.
        name: {"ipAllowList": {"sourceRange": ["255.255.255.255/32"]}},
    }
    draft = folder / f"{name}.new"
    # JSON is YAML.
    draft.write_text(json.dumps({"http": {"routers": {name: router}, "middlewares": middlewares}}, indent=1) + "\n")
    draft.chmod(0o644)
    draft.rename(folder / f"{name}.yml")


def remove(folder: Path, banned: Network) -> None:
    """Unblock a network."""
    (folder / f"{_name(banned)}.yml").unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Unblock all networks, and remove temporary files that a crash left behind."""
    for place in [*folder.glob("ban-*.yml"), *folder.glob("ban-*.new")]:
        place.unlink(missing_ok=True)


def _name(banned: Network) -> str:
    return "ban-" + re.sub("[.:/]", "-", text(banned))
