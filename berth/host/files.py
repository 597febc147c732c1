"""Files that another program may read at any moment, and that a full disk must not damage."""

from __future__ import annotations

import os
from pathlib import Path


def write(place: Path, text: str, mode: int = 0o644, group: int = 0) -> None:
    """Write beside the file and rename, so that a reader sees the old or the new text and nothing between."""
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
    """Add a line; after one that a full disk has cut short, on a line of its own."""
    with place.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(start + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
