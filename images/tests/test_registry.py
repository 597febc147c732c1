"""Our own images at a registry that asks for a login: pushed from here, pulled by a host, refused to everybody else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import application
import build

pytestmark = pytest.mark.integration

TOKEN = "the-token"
# bcrypt, which is all that the registry takes, with the least work that it takes.
HTPASSWD = "ada:$2b$04$IsLx1W4X/ONUtTkn0GhJq.pxrUaqRDPxUG/asqAaYq2ieXKicWWVq\n"


def docker(*arguments: str, given: str = "") -> str:
    command = ["docker", *arguments]
    return subprocess.run(command, input=given, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on this machine that nobody may use but ada."""
    settings = ["REGISTRY_AUTH=htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM=test", "REGISTRY_AUTH_HTPASSWD_PATH=/srv/users"]
    publish = ["--publish=127.0.0.1::5000", *(f"--env={setting}" for setting in settings)]
    container = docker("create", *publish, f"{build.DEFAULT_PREFIX}/registry:2")
    users = tmp_path_factory.mktemp("registry") / "users"
    users.write_text(HTPASSWD)
    users.chmod(0o644)
    docker("cp", str(users), f"{container}:/srv/users")
    docker("start", container)
    try:
        yield docker("port", container, "5000").splitlines()[0]
    finally:
        docker("rm", "--force", "--volumes", container)


@pytest.fixture
def image(registry: str) -> Iterator[str]:
    name = f"{registry}/berth/auth_service:pushed"
    docker("build", "--quiet", f"--tag={name}", "-", given="FROM scratch\nLABEL berth.test=pushed\n")
    yield name
    docker("image", "rm", name)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is logged in."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("REGISTRY_USERNAME", "REGISTRY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def test_whoever_has_the_password_pushes_and_nothing_is_left_of_it(
    registry: str, image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REGISTRY_USERNAME", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", TOKEN)
    with build.registry_login(registry) as options:
        build.push([image], options)
        docker(*options, "pull", "--quiet", image)
        kept = Path(options[1])
    assert not kept.exists()
    assert not list(tmp_path.rglob("config.json"))


def test_a_wrong_password_is_refused_before_anything_is_built(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_USERNAME", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "another-token")
    with (
        pytest.raises(build.BuildError, match=r"refuses the login .*401 Unauthorized") as refused,
        build.registry_login(registry),
    ):
        pass
    assert "another-token" not in str(refused.value)


def test_without_a_login_the_sentence_says_how_to_log_in(registry: str, image: str) -> None:
    with (
        build.registry_login(registry) as options,
        pytest.raises(build.BuildError, match=f"was not pushed: .*docker login {registry}"),
    ):
        build.push([image], options)


@pytest.fixture
def pushed(registry: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A release that only the registry has."""
    names = [
        f"{registry}/berth/{name}:1.0"
        for name in application.images((build.PROJECT / application.COMPOSE_FILE).read_text())
    ]
    for name in names:
        docker("build", "--quiet", f"--tag={name}", "-", given=f"FROM scratch\nLABEL berth.test={name}\n")
    with monkeypatch.context() as patch:
        patch.setenv("REGISTRY_USERNAME", "ada")
        patch.setenv("REGISTRY_PASSWORD", TOKEN)
        with build.registry_login(registry) as options:
            build.push(names, options)
    docker("image", "rm", *names)
    yield names
    subprocess.run(["docker", "image", "rm", *names], capture_output=True, check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="the folder of the login is below /run")
def test_a_host_pulls_with_the_login_and_keeps_nothing_of_it(registry: str, pushed: list[str], tmp_path: Path) -> None:
    here = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "stack_domain": "www.site.test",
        "stack_disk_free_gib": 0,
        "stack_image_transport": "registry",
        "stack_image_prefix": f"{registry}/berth",
        "stack_release": "1.0",
        "stack_mongo_local": False,
        "stack_redis_local": False,
        "stack_traefik_image": f"{build.DEFAULT_PREFIX}/registry:2",
    }
    roles = [{"ansible.builtin.import_role": {"name": "stack", "tasks_from": name}} for name in ("preflight", "images")]
    play = tmp_path / "play.yml"
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": roles}]))
    everything = ""

    def run(**changes: str) -> tuple[int, str]:
        nonlocal everything
        said = tmp_path / "variables.json"
        said.write_text(json.dumps({**here, **changes}))
        done = subprocess.run(
            ["ansible-playbook", "-vvv", "--inventory", "host,", "--extra-vars", f"@{said}", play],
            cwd=build.PROJECT,
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "false"},
            capture_output=True,
            text=True,
            check=False,
        )
        everything += done.stdout + done.stderr
        return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)

    code, said = run()
    assert code != 0
    assert f"could not pull {', '.join(sorted(pushed))}:" in said, said[-3000:]
    assert "in this project: berth_registry_username and vault_registry_password" in said

    login = {"stack_registry_username": "ada", "stack_registry_password": TOKEN}
    code, said = run(**login)
    assert code == 0, said[-3000:]
    assert not list(Path("/run").glob("berth-registry-*"))
    assert not list(tmp_path.rglob("config.json"))
    assert TOKEN not in everything
    docker("image", "inspect", *pushed)

    code, said = run(**login)
    assert code == 0, said[-3000:]
    assert "changed=0" in said
