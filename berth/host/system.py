"""What systemd, nftables and apt answer, for `berth status` and for the metrics.

Each runs the commands itself: to the metrics one that fails is no answer, while `berth status` shows what it got.
"""

from __future__ import annotations

import re
from pathlib import Path

_PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "UnitFileState", "ConditionResult", "RemainAfterExit", "Restart", "Wants"),
    *("Result", "ExecMainExitTimestamp"),
)
# A pattern finds units that do not run only where all are asked for.
SHOW_UNITS = ("systemctl", "show", "--all", "--timestamp=unix", f"--property={','.join(_PROPERTIES)}")
LIST_FAILED = ("systemctl", "list-units", "--all", "--state=failed", "--plain", "--no-legend")
LIST_TABLES = ("nft", "list", "tables")


def units(shown: str) -> dict[str, dict[str, str]]:
    """Return unit -> its properties, as systemd knows them; what it does not say is empty."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.split("\n\n")]
    return {block["Id"]: dict.fromkeys(_PROPERTIES, "") | block for block in blocks if block.get("Id")}


def is_active(unit: dict[str, str]) -> bool:
    """Tell whether it runs. One that reloads or starts does its work, or a moment later another state is seen."""
    return unit["ActiveState"] in ("active", "activating", "reloading")


def first_words(listed: str) -> list[str]:
    return [line.split()[0] for line in listed.splitlines() if line.strip()]


def tables(listed: str) -> set[str]:
    """Return the tables of nftables, as it writes them: inet berth."""
    return set(re.findall(r"^table (\S+ \S+)", listed, re.MULTILINE))


def security_updates(simulated: str) -> int:
    return sum(line.startswith("Inst") and "security" in line.lower() for line in simulated.splitlines())


def is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
