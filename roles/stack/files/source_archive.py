"""Hash the application's sources and pack them: the files that git tracks, in their current state.

usage: source_archive.py DIRECTORY [ARCHIVE]
Exits with 1 and a message if there are untracked files.

The result is the same for the same sources, whatever the umask and the line ends of the checkout are.
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
    """The sources cannot be listed; the message says why, and how to fix it."""


def listed(directory: Path, folders: Iterable[str], *options: str) -> list[str]:
    """Return the existing files below these folders that git lists, relative to the directory, sorted.

    Raises:
        SourcesError: git is missing, or the directory is no repository.
    """
    # A clone may have another owner (sudo, a shared folder). This program already runs from it, so git's ownership
    # check protects nothing.
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
        raise SourcesError(
            "the sources are the files that git lists, and git is not installed on this machine."
        ) from None
    if done.returncode:
        words = " ".join(done.stderr.split())
        if "not a git repository" in words:
            words = (
                f"{directory} is no git clone. Clone the project with git; or, if it was unpacked from an archive, "
                f"run: git -C {directory} init && git -C {directory} add --all"
            )
        raise SourcesError(f"the sources are the files that git lists, and git failed: {words}")
    return sorted({name for name in done.stdout.split("\0") if name and (directory / name).is_file()})


def content(place: Path) -> bytes:
    """Return the content of a file with LF line ends, even if the checkout converted them to CRLF."""
    read = place.read_bytes()
    if b"\r\n" not in read or b"\0" in read:
        return read
    try:
        read.decode()
    except UnicodeDecodeError:
        return read
    return read.replace(b"\r\n", b"\n")


def mode(place: Path) -> int:
    """Return the mode of a file or folder in an image: readable by a container's user, whatever the umask was."""
    return 0o755 if place.is_dir() or place.stat().st_mode & 0o100 else 0o644


def folders_of(files: Iterable[str]) -> set[str]:
    """Return all folders that contain these files."""
    return {str(folder) for name in files for folder in Path(name).parents if folder.name}


def copy(directory: Path, files: Iterable[str], to: Path) -> None:
    """Copy files so that an image built from them is the same for every checkout."""
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
    """Pack the files so that the same sources always give the same bytes.

    Raises:
        SourcesError: there are untracked files, or the directory is no repository.
    """
    folders = folders_to_build(directory)
    if unknown := listed(directory, folders, "--others", "--exclude-standard"):
        raise SourcesError(f"git does not track {', '.join(unknown)}. Add them, or move them elsewhere.")
    files = listed(directory, folders, "--cached")
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        # With entries for folders, so that they are readable in the images whatever the host's umask is.
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
