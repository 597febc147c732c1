"""Name the application's sources by their content, and pack them: what git tracks, as it is now.

usage: source_archive.py DIRECTORY [ARCHIVE]
Ends with 1 and a sentence where that is not all there is.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

FOLDERS = ("services", "frontend")


def listed(directory: Path, *options: str) -> list[str]:
    command = ["git", "-C", str(directory), "ls-files", "-z", *options, "--", *FOLDERS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git cannot say which sources {directory} has: {done.stderr.strip()}")
    return sorted(filter(None, done.stdout.split("\0")))


def archive(directory: Path) -> bytes:
    """Pack them so that the same sources give the same bytes, whoever packs them and whenever."""
    if unknown := listed(directory, "--others", "--exclude-standard"):
        raise SystemExit(f"git does not track {', '.join(unknown)}. Add them, or move them elsewhere.")
    files = [name for name in listed(directory, "--cached") if (directory / name).is_file()]
    folders = {str(folder) for name in files for folder in Path(name).parents if folder.name}
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        # Named too, so that they can be read in the images whatever the host's umask is.
        for name in sorted([*folders, *files]):
            place = directory / name
            member = tarfile.TarInfo(name)
            member.mode = 0o755 if place.stat().st_mode & 0o100 else 0o644
            if place.is_dir():
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
                continue
            member.size = place.stat().st_size
            with place.open("rb") as content:
                tar.addfile(member, content)
    return packed.getvalue()


def main(directory: str, place: str = "") -> None:
    packed = archive(Path(directory).resolve())
    if place:
        Path(place).write_bytes(packed)
    print(hashlib.sha256(packed).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
