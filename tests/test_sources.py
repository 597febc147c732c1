"""What is sent to a host that builds a release itself: what git tracks, as it is, and nothing else."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from source_archive import archive


def git(place: Path, *command: str) -> None:
    subprocess.run(["git", "-C", str(place), *command], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    for name, text in {
        "services/app/main.py": "print(1)\n",
        "services/app/old.py": "",
        "frontend/index.html": "<p>",
        "inventories/production/vault.yml": "secret",
        ".gitignore": ".env\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "add", "--all")
    (tmp_path / "services/.env").write_text("PASSWORD=secret")
    return tmp_path


def test_only_sources_that_git_tracks_are_sent_and_as_they_are_now(clone: Path) -> None:
    (clone / "services/app/main.py").write_text("print(2)\n")
    (clone / "services/app/old.py").unlink()
    packed = archive(clone)
    with tarfile.open(fileobj=BytesIO(packed)) as tar:
        assert {member.name for member in tar if member.isreg()} == {"services/app/main.py", "frontend/index.html"}
        # Whatever the host's umask is, a container's user reads them.
        assert {member.mode for member in tar if member.isdir()} == {0o755}
    assert b"print(2)" in packed
    assert b"secret" not in packed


def test_the_same_sources_give_the_same_archive(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    git(other, "clone", str(clone), "elsewhere")
    first = archive(clone)
    git(clone, "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--message=All")
    git(other / "elsewhere", "pull")
    (clone / "services/app/main.py").touch()
    assert archive(clone) == first == archive(other / "elsewhere")


def test_a_file_that_git_does_not_track_is_named_and_stops_it(clone: Path) -> None:
    (clone / "services/app/new.py").touch()
    with pytest.raises(SystemExit, match=r"git does not track services/app/new\.py"):
        archive(clone)
