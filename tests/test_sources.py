"""What images are built from, here or on the host: what git lists, as it is, whichever checkout it comes from."""

from __future__ import annotations

import os
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

import application
import build
from source_archive import SourcesError, archive, content, copy, listed, main

COMPOSE = """
services:
  app:
    image: ${IMAGE_PREFIX:-localhost/berth}/app:${RELEASE:?needed}
    build: {context: services, dockerfile: app/Dockerfile}
  beat: {image: "${IMAGE_PREFIX}/app:${RELEASE}"}
  pages:
    image: ${IMAGE_PREFIX}/pages:${RELEASE}
    build: ./frontend
  database: {image: "mongo:8"}
"""


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
        "docker-compose.prod.yml": COMPOSE,
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
    with pytest.raises(SourcesError, match=r"git does not track services/app/new\.py"):
        archive(clone)


def test_neither_umask_nor_line_ends_of_a_checkout_reach_an_image(clone: Path, tmp_path: Path) -> None:
    whole = archive(clone)
    program, page = clone / "services/app/main.py", clone / "frontend/index.html"
    program.write_bytes(b"print(1)\r\n")
    for place in (program, page):
        place.chmod(0o600)
    (clone / "services/app").chmod(0o700)
    assert archive(clone) == whole

    program.chmod(0o700)
    copy(clone, listed(clone, ["services"], "--cached"), tmp_path / "context")
    copied = tmp_path / "context/services/app/main.py"
    assert copied.read_bytes() == b"print(1)\n"
    modes = {place.name: place.stat().st_mode & 0o777 for place in (copied.parents[2], copied.parent, copied)}
    assert modes == {"context": 0o755, "app": 0o755, "main.py": 0o755}
    assert (tmp_path / "context/services/app/old.py").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("raw", [b"GIF\0\r\n", "caf\u00e9\r\n".encode("latin-1"), b"unix\n"])
def test_what_is_no_text_stays_as_it_is(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "file").write_bytes(raw)
    assert content(tmp_path / "file") == raw


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_clone_that_belongs_to_somebody_else_is_read(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = archive(clone)
    for place in (clone, *clone.rglob("*")):
        os.chown(place, 12345, 12345)
    # Otherwise git takes the one who called sudo for its user, and his are clones of root's as well.
    monkeypatch.delenv("SUDO_UID", raising=False)
    refused = subprocess.run(["git", "-C", str(clone), "ls-files"], capture_output=True, text=True, check=False)
    assert "dubious ownership" in refused.stderr
    assert archive(clone) == whole


def test_a_folder_that_is_no_clone_is_told_what_makes_it_one(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services/main.py").touch()
    with pytest.raises(SourcesError, match=r"is no git clone\..* git -C \S+ init && git -C \S+ add --all") as refused:
        listed(tmp_path, ["services"])
    for command in str(refused.value).partition("run: ")[2].split(" && "):
        subprocess.run(command.split(), check=True, capture_output=True)
    assert listed(tmp_path, ["services"]) == ["services/main.py"]


def test_a_machine_without_git_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "docker-compose.prod.yml").write_text(COMPOSE)
    with pytest.raises(SystemExit, match="git is not installed on this machine"):
        main(str(tmp_path))
    assert not capsys.readouterr().out


def test_the_images_and_how_they_are_built_are_those_of_the_compose_file() -> None:
    assert application.images(COMPOSE) == ["app", "pages"]
    assert application.builds(COMPOSE) == [
        application.Built("app", "services", "app/Dockerfile"),
        application.Built("pages", "frontend"),
    ]
    assert application.folders(COMPOSE) == ["frontend", "services"]


@pytest.mark.parametrize("context", ["/srv/app", "../app", "https://git.test/app.git"])
def test_a_folder_outside_the_project_is_refused(context: str) -> None:
    text = COMPOSE.replace("./frontend", context)
    with pytest.raises(application.ApplicationError, match=r"build\.context of service pages is"):
        application.builds(text)


@pytest.mark.parametrize("text", ["", "services: [", "x: 1", "services: {database: {image: x}}"])
def test_a_project_that_builds_nothing_has_no_sources(clone: Path, text: str) -> None:
    (clone / "docker-compose.prod.yml").write_text(text)
    with pytest.raises(SourcesError, match=r"docker-compose\.prod\.yml"):
        archive(clone)


def test_what_outlives_releases_has_images_that_variables_name() -> None:
    text = """
services:
  mongo: {profiles: [platform], image: "${MONGO_IMAGE:-mongo:8.0}"}
  postgres: {profiles: [platform], image: "postgres:17"}
  cache: {profiles: [platform], image: "${CACHE_IMAGE:-valkey:8}"}
  web: {profiles: [release], image: "x"}
"""
    assert application.platform(text, {"MONGO_IMAGE": "registry/mongo:8"}) == {
        "mongo": "registry/mongo:8",
        "postgres": "postgres:17",
        "cache": "valkey:8",
    }
    with pytest.raises(application.ApplicationError, match="service mongo of profile platform names no image"):
        application.platform(text.replace(":-mongo:8.0", ""), {})


def test_a_release_of_an_application_elsewhere_is_named_after_its_sources(clone: Path) -> None:
    named = build.current_release(clone)
    assert named == build.current_release(clone)
    assert named != build.current_release()
    (clone / "services/app/main.py").write_text("print(2)\n")
    assert build.current_release(clone) != named
    (clone / "docker-compose.prod.yml").unlink()
    with pytest.raises(build.BuildError, match=r"is no application: docker-compose\.prod\.yml: No such file"):
        build.current_release(clone)
