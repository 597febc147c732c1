"""`make new-service` in a copy of the project: what it writes passes every check, and nothing else changes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import copy_of_the_project

SERVICE = "services/orders_service"
COMPOSE_FILES = ("docker-compose.dev.yml", "docker-compose.prod.yml")
pytestmark = pytest.mark.timeout(600)


class Checkout:
    """A developer's copy of the project, with this virtual environment."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{sys.prefix}/bin:{os.environ['PATH']}"
        return subprocess.run(
            command,
            cwd=self.path,
            env={**os.environ, "PATH": path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def must(self, *command: str, **environment: str) -> str:
        done = self.run(*command, **environment)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    def new_service(self, name: str) -> subprocess.CompletedProcess[str]:
        # The virtual environment is the one that runs this test.
        return self.run("make", "--old-file=venv-dev", "new-service", f"NAME={name}")

    def changes(self) -> list[str]:
        return self.must("git", "status", "--porcelain").splitlines()

    def services(self, file: str) -> dict[str, dict[str, object]]:
        services: dict[str, dict[str, object]] = yaml.safe_load((self.path / file).read_text())["services"]
        return services


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The project as it is here, committed or not."""
    path = tmp_path_factory.mktemp("new") / "berth"
    copy_of_the_project(path)
    checkout = Checkout(path)
    (path / ".venv").symlink_to(sys.prefix)
    checkout.must("git", "init", "--quiet")
    (path / ".git/info/exclude").write_text(".venv\n")
    checkout.must("git", "add", "--all")
    checkout.must("git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--message=before")
    return checkout


@pytest.fixture(scope="module")
def after(before: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The project with one service more."""
    path = tmp_path_factory.mktemp("one-more") / "berth"
    shutil.copytree(before.path, path, symlinks=True)
    checkout = Checkout(path)
    done = checkout.new_service("orders")
    assert done.returncode == 0, done.stderr
    assert "http://localhost:8003/api/orders/docs" in done.stdout
    return checkout


def test_a_service_more_is_its_folder_and_lines_of_two_compose_files(after: Checkout) -> None:
    assert after.changes() == [*(f" M {file}" for file in COMPOSE_FILES), f"?? {SERVICE}/"]
    # Lines are added, and none is changed.
    assert re.findall(r"^\d+\t(\d+)\t", after.must("git", "diff", "--numstat"), re.MULTILINE) == ["0", "0"]


def test_the_folder_has_the_files_that_other_services_have(after: Checkout) -> None:
    here, there = (
        {
            str(file.relative_to(folder))
            for file in folder.rglob("*")
            if file.is_file() and "tests" not in file.parts[-2:]
        }
        for folder in (after.path / SERVICE, after.path / "services/user_service")
    )
    assert here == {file for file in there if "__pycache__" not in file}
    # Containers of the laptop run as other users.
    assert all(each.stat().st_mode & 0o004 for each in (after.path / SERVICE).rglob("*"))


def test_it_is_routed_counted_and_given_what_it_needs_and_no_more(after: Checkout) -> None:
    production = after.services("docker-compose.prod.yml")
    assert production["orders_service"]["labels"] == {
        "berth.route": "/api/orders/",
        "berth.port": "8000",
        "berth.cookies": "false",
        "berth.metrics": "/metrics",
        "berth.writes": "true",
        "berth.mongo": "orders_db",
        "berth.redis": "%R~revoked:* resetchannels -@all +@connection +get -@dangerous",
        "berth.secrets": "jwt_public_keys",
    }
    users = [each["user"] for name, each in production.items() if name != "orders_service"]
    assert production["orders_service"]["user"] == "10010:10010"
    assert "10010:10010" not in users
    routes = after.services("docker-compose.dev.yml")["frontend"]["environment"]
    assert "/api/orders=http://orders_service:8000" in str(routes)


def test_the_next_one_gets_a_user_and_a_port_of_its_own(after: Checkout, tmp_path: Path) -> None:
    shutil.copytree(after.path, tmp_path / "berth", symlinks=True)
    checkout = Checkout(tmp_path / "berth")
    # As long as a name may be: no line gets too long.
    name = "abcdefghijklmnopqrstuvw_xyz_12"
    done = checkout.new_service(name)
    assert done.returncode == 0, done.stderr
    assert checkout.services("docker-compose.prod.yml")[f"{name}_service"]["user"] == "10011:10011"
    assert checkout.services("docker-compose.dev.yml")[f"{name}_service"]["ports"] == ["127.0.0.1:8004:8000"]
    checkout.must("ruff", "check", f"services/{name}_service")
    checkout.must("ruff", "format", "--check", f"services/{name}_service")
    checkout.must("yamllint", *COMPOSE_FILES)


def test_every_linter_passes_it_untouched(after: Checkout) -> None:
    after.must("ruff", "check", SERVICE)
    after.must("ruff", "format", "--check", SERVICE)
    after.must("yamllint", *COMPOSE_FILES)
    after.must("hadolint", f"{SERVICE}/Dockerfile")
    after.must("mypy", SERVICE)


def test_its_tests_and_the_contracts_pass(after: Checkout) -> None:
    contracts = ["tests/test_env_contract.py", "tests/test_openapi_contract.py", "berth/tests/test_stack.py"]
    shared = [f"services/shared/tests/test_{name}.py" for name in ("locks", "tokens", "tracing")]
    # Those of it, and those that read the whole compose file.
    only = "-k=orders_service or test_stack or user_ids"
    done = after.must("pytest", "-n0", "-p", "no:cacheprovider", "-rA", only, SERVICE, *contracts, *shared)
    # The contracts know it without having been told.
    for known in ("test_openapi_contract", "test_env_contract", "test_locks"):
        assert re.search(rf"^PASSED \S*{known}\.py::\S+\[orders_service\]", done, re.MULTILINE), known


@pytest.mark.skipif(not shutil.which("docker"), reason="compose itself is asked")
def test_compose_reads_both_files(after: Checkout) -> None:
    keys = dict.fromkeys(("JWT_PRIVATE_KEY", "JWT_PUBLIC_KEYS", "JWT_SECRET_KEY"), "-")
    after.must("docker", "compose", "-f", COMPOSE_FILES[0], "config", "--quiet", **keys)
    config = ("-f", COMPOSE_FILES[1], "--profile=release", "config", "--services")
    assert "orders_service" in after.must("docker", "compose", *config, RELEASE="1", COLOUR="blue").split()


def test_run_again_it_refuses_and_changes_nothing(after: Checkout) -> None:
    changes, diff = after.changes(), after.must("git", "diff")
    done = after.new_service("orders")
    assert done.returncode != 0
    assert "new-service: services/orders_service is there already: choose another name." in done.stderr
    assert (after.changes(), after.must("git", "diff")) == (changes, diff)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "Say what the service is about: make new-service NAME=orders"),
        ("Orders", "lower-case letters, digits and single underscores"),
        ("9lives", "begins with a letter"),
        ("order-lines", "such as orders or order_lines"),
        ("../orders", "such as orders or order_lines"),
        ("a" * 31, "at most 30 characters"),
        ("orders_service", "Leave out _service, which is added: make new-service NAME=orders"),
        ("mongo", "docker-compose.prod.yml has a service mongo already"),
        ("redis", "docker-compose.prod.yml has a service redis already"),
        ("mailbox", "docker-compose.dev.yml has a service mailbox already"),
        ("auth", "services/auth_service is there already"),
        ("shared", "services/shared is there already"),
        ("users", "/api/users/ is a route of user_service already"),
    ],
)
def test_a_name_that_will_not_do_is_one_sentence_and_changes_nothing(before: Checkout, name: str, says: str) -> None:
    done = before.new_service(name)
    assert done.returncode != 0
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith("new-service: ")]
    assert says in sentence
    assert before.changes() == []


def test_a_compose_file_without_what_the_blocks_refer_to_is_left_alone(before: Checkout, tmp_path: Path) -> None:
    shutil.copytree(before.path, tmp_path / "berth", symlinks=True)
    checkout = Checkout(tmp_path / "berth")
    file = checkout.path / "docker-compose.dev.yml"
    file.write_text(re.sub(r"([&*])web\b", r"\1http", file.read_text()))
    changes = checkout.changes()
    done = checkout.new_service("orders")
    assert "docker-compose.dev.yml has no anchor &web" in done.stderr
    assert checkout.changes() == changes
