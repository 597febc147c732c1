#!/usr/bin/env python3
"""Print the changes of one version, as CHANGELOG.md has them: of the newest release, or of the one that is named."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"
HEADING = re.compile(r"^## (\S+)(?: - \d{4}-\d\d-\d\d)?$", re.MULTILINE)
UNRELEASED = "Unreleased"


def sections(changelog: str) -> dict[str, str]:
    """Return version -> its changes, newest first."""
    _, *parts = HEADING.split(changelog)
    return {version: text.strip() for version, text in zip(parts[::2], parts[1::2], strict=True)}


def main(arguments: list[str]) -> int:
    """Print the changes of a version; 2 where there is no such version."""
    found = sections(CHANGELOG.read_text())
    wanted = arguments[0] if arguments and arguments[0] else next(name for name in found if name != UNRELEASED)
    # As the tag is called.
    if (text := found.get(wanted.removeprefix("v"))) is None:
        print(f"CHANGELOG.md has no version {wanted}. It has: {', '.join(found)}", file=sys.stderr)
        return 2
    print(text or "No changes.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
