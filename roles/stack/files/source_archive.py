"""Name the application's sources by their content, and pack them: what git tracks, as it is now.

usage: source_archive.py DIRECTORY [ARCHIVE]
Ends with 1 and a sentence where that is not all there is.

What comes out of here is the same for the same sources: neither the umask nor the line ends of a checkout reach it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import application

sys.path.insert(0, str(Path(__file__).resolve().parent))


class SourcesError(Exception):
    """Which sources there are cannot be said; the message says why, and what helps."""


def listed(directory: Path, folders: Iterable[str], *options: str) -> list[str]:
    """Return the files below these folders that git lists and that are there, relative to the directory, sorted.

    Raises:
        SourcesError: git is missing, or does not know the directory.
    """
    # A clone may belong to somebody else (sudo, a shared folder). Whoever gets here runs its programs already, so git's
    # doubts about its settings gain nothing.
    git = ["git", "-c", "safe.directory=*", "-C", str(directory)]
    try:
        done = subprocess.run(
            [*git, "ls-files", "-z", *options, "--", *folders],
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError:
        raise SourcesError("the sources are those that git lists, and there is no git on this machine.") from None
    if done.returncode:
        words = " ".join(done.stderr.split())
        if "not a git repository" in words:
            words = (
                f"{directory} is no git clone. Clone the project with git; or, where it was unpacked from an archive, "
                f"run: git -C {directory} init && git -C {directory} add --all"
            )
        raise SourcesError(f"the sources are those that git lists, and git does not list them: {words}")
    return sorted({name for name in done.stdout.split("\0") if name and (directory / name).is_file()})


def content(place: Path) -> bytes:
    """Return what is in a file, with the line ends that git keeps, whatever the checkout has made of them."""
    read = place.read_bytes()
    if b"\r\n" not in read or b"\0" in read:
        return read
    try:
        read.decode()
    except UnicodeDecodeError:
        return read
    return read.replace(b"\r\n", b"\n")


def mode(place: Path) -> int:
    """Return the mode that a file or folder has in an image: readable by a container's user, whatever the umask was."""
    return 0o755 if place.is_dir() or place.stat().st_mode & 0o100 else 0o644


def folders_of(files: Iterable[str]) -> set[str]:
    """Return every folder that these files are in."""
    return {str(folder) for name in files for folder in Path(name).parents if folder.name}


def copy(directory: Path, files: Iterable[str], to: Path) -> None:
    """Copy files so that an image built of them is the same from whichever checkout they come."""
    files = list(files)
    for folder in [Path(), *sorted(map(Path, folders_of(files)))]:
        (to / folder).mkdir()
        (to / folder).chmod(0o755)
    for name in files:
        (to / name).write_bytes(content(directory / name))
        (to / name).chmod(mode(directory / name))
        os.utime(to / name, (0, 0))


def folders_to_build(directory: Path) -> list[str]:
    """Return the folders from which the compose file of a project builds its images.

    Raises:
        SourcesError: it says none, or is not a compose file.
    """
    place = directory / application.COMPOSE_FILE
    try:
        found = application.folders(place.read_text())
    except (OSError, application.ApplicationError) as error:
        raise SourcesError(f"the sources are what {place} builds images from: {error}") from None
    if not found:
        raise SourcesError(f"no service in {place} has a build section, so there are no sources.")
    return found


def archive(directory: Path) -> bytes:
    """Pack them so that the same sources give the same bytes, whoever packs them and whenever.

    Raises:
        SourcesError: there are files that git does not track, or git does not know the directory.
    """
    folders = folders_to_build(directory)
    if unknown := listed(directory, folders, "--others", "--exclude-standard"):
        raise SourcesError(f"git does not track {', '.join(unknown)}. Add them, or move them elsewhere.")
    files = listed(directory, folders, "--cached")
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        # Folders are named too, so that they can be read in the images whatever the host's umask is.
        for name in sorted([*folders_of(files), *files]):
            place = directory / name
            member = tarfile.TarInfo(name)
            member.mode = mode(place)
            if place.is_dir():
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
                continue
            data = content(place)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    return packed.getvalue()


def main(directory: str, place: str = "") -> None:
    try:
        packed = archive(Path(directory).resolve())
    except SourcesError as error:
        raise SystemExit(str(error)) from None
    if place:
        Path(place).write_bytes(packed)
    print(hashlib.sha256(packed).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
