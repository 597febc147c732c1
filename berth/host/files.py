"""Files that another program may read at any moment, and that a full disk must not damage."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def write(place: Path, text: str, mode: int = 0o644, group: int = 0) -> None:
    """Write a temporary file and rename it, so that a reader sees the old text or the new, never a part of it."""
    draft = place.with_name(f".{place.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(draft, mode)
    if group:
        os.chown(draft, -1, group)
    draft.rename(place)


def append(place: Path, line: str) -> None:
    """Append a line; start a new line if a full disk cut the last one short."""
    with place.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(start + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(place: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None where there is no such file."""
    try:
        return dict(json.loads(place.read_text()))
    except FileNotFoundError:
        return None


def json_lines(place: Path) -> list[dict[str, Any]]:
    """Return the lines of a file that `append` wrote; none where there is no such file."""
    try:
        lines = place.read_text().splitlines()
    except FileNotFoundError:
        return []
    # A line cut short by a full disk must not stop a release.
    whole = []
    for line in lines:
        with suppress(ValueError):
            whole.append(json.loads(line))
    return whole
