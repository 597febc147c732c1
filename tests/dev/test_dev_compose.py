"""`make dev` and docker-compose.dev.yml as a developer uses them: every command, every port, and code that reloads."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.support import CHROMIUM, CHROMIUM_ARGUMENTS, Mailbox, copy_of_the_project, join, new_account, poll

ROOT = Path(__file__).resolve().parents[2]
PORTS = {"mongo": 27017, "redis": 6379, "user_service": 8001, "auth_service": 8002, "frontend": 5173}
PROJECT = "berth-dev-test"
FRONTEND, AUTH, USER, MAILBOX = (f"http://localhost:{port}" for port in (5173, 8002, 8001, 1080))

pytestmark = [pytest.mark.site, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Checkout:
    """A developer's copy of the project, which these tests may edit."""

    path: Path

    def compose(self, *words: str, expect_failure: bool = False) -> str:
        command = ["docker", "compose", "-p", PROJECT, "-f", "docker-compose.dev.yml", *words]
        environment = {**os.environ, **images()}
        done = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if expect_failure:
            assert done.returncode != 0, done.stdout
        else:
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout + done.stderr

    def make(self, verb: str) -> str:
        """Do what `make dev` (up) and `make dev-down` (down) do; return what the developer reads."""
        environment = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "IMAGES": images()["IMAGES_MODE"]}
        done = subprocess.run(
            [sys.executable, "images/dev.py", verb],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.path / file
        text = path.read_text()
        assert old in text, f"{old!r} is no longer in {file}: choose another line to edit"
        path.write_text(text.replace(old, new, 1))


def images() -> dict[str, str]:
    """Return the images that this machine can have, as `make images` wrote them down."""
    lines = (ROOT / ".cache" / "images.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    for name, port in PORTS.items():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)), f"port {port}, which {name} wants, is taken on this machine"
    path = tmp_path_factory.mktemp("checkout") / "berth"
    path.mkdir()
    copy_of_the_project(path)
    for parent in path.parents[:3]:
        parent.chmod(0o755)
    # Images are named after what git lists.
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=path, check=True)
    mine = Checkout(path)
    yield mine
    mine.compose("--profile", "*", "down", "-v", "--remove-orphans")


@pytest.fixture(scope="module")
def started(checkout: Checkout) -> str:
    """What a developer reads who starts it for the first time."""
    return checkout.make("up")


@pytest.fixture(scope="module")
def running(checkout: Checkout, started: str) -> Checkout:
    assert started
    return checkout


def test_without_a_secret_it_does_not_start_and_says_how_to_make_one(checkout: Checkout) -> None:
    said = checkout.compose("up", "-d", expect_failure=True)
    assert "JWT_PRIVATE_KEY" in said or "JWT_PUBLIC_KEYS" in said or "JWT_SECRET_KEY" in said
    assert "`make dev` writes it into .env" in said


def test_one_command_writes_the_secret_starts_it_and_says_where_it_is(running: Checkout, started: str) -> None:
    assert (running.path / ".env").stat().st_mode & 0o777 == 0o600
    for address in (FRONTEND, f"{AUTH}/api/auth/docs", f"{USER}/api/users/docs", MAILBOX):
        assert address in started
        assert httpx.get(address, headers={"Accept": "text/html"}).status_code == 200
    for port in (PORTS["mongo"], PORTS["redis"]):
        assert f"localhost:{port}" in started


@pytest.mark.parametrize(("name", "port"), PORTS.items())
def test_a_port_is_there_on_loopback_only(running: Checkout, name: str, port: int) -> None:
    published = running.compose("ps", name, "--format", "{{.Ports}}")
    assert f"127.0.0.1:{port}->" in published
    assert "0.0.0.0" not in published
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


@pytest.mark.usefixtures("running")
def test_signing_up_through_the_front_end_sends_a_mail() -> None:
    account = new_account()
    assert httpx.post(f"{FRONTEND}/api/auth/register", json=account).status_code == 202
    assert Mailbox(MAILBOX).link_for(account["email"])


@pytest.mark.parametrize(
    ("service", "url"), [("auth_service", f"{AUTH}/api/auth"), ("user_service", f"{USER}/api/users")]
)
def test_a_saved_service_reloads(running: Checkout, service: str, url: str) -> None:
    main = (running.path / "services" / service / "main.py").read_text()
    title = re.search(r'title="([^"]+)"', main)
    assert title, "the title of the API is what this test edits"
    running.edit(f"services/{service}/main.py", f'title="{title[1]}"', 'title="Saved just now"')

    def reloaded() -> bool | None:
        try:
            return True if httpx.get(f"{url}/openapi.json").json()["info"]["title"] == "Saved just now" else None
        except (httpx.TransportError, ValueError):
            return None

    poll(reloaded, 60, f"{service} with the saved change")


def test_a_saved_view_appears_in_the_open_page(running: Checkout) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page()
        page.goto(f"{FRONTEND}/signin")
        heading = page.get_by_role("heading", level=1)
        expect(heading).to_be_visible(timeout=30_000)
        said = heading.inner_text()
        page.evaluate("window.stillTheSamePage = true")
        views = [path for path in (running.path / "frontend" / "src").rglob("*.tsx") if ".test." not in path.name]
        view = next(path for path in views if f'title="{said}"' in path.read_text())
        running.edit(str(view.relative_to(running.path)), f'title="{said}"', 'title="Saved just now"')
        expect(page.get_by_role("heading", level=1)).to_have_text("Saved just now", timeout=30_000)
        assert page.evaluate("window.stillTheSamePage") is True
        browser.close()


def test_ps_exec_and_logs_work(running: Checkout) -> None:
    assert "auth_service" in running.compose("ps")
    assert "PONG" in running.compose("exec", "-T", "redis", "redis-cli", "ping") or "NOAUTH" in running.compose(
        "exec", "-T", "redis", "redis-cli", "ping"
    )
    with subprocess.Popen(
        ["docker", "compose", "-p", PROJECT, "-f", "docker-compose.dev.yml", "logs", "-f", "auth_service"],
        cwd=running.path,
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout
        httpx.get(f"{AUTH}/api/auth/me", headers={"X-Request-ID": "followed-in-the-log"})
        assert any("followed-in-the-log" in line for line in following.stdout)
        following.kill()


def test_flower_is_there_when_its_profile_is(running: Checkout) -> None:
    running.compose("--profile", "flower", "up", "-d", "--wait", "flower")
    assert httpx.get("http://localhost:5555/").status_code in {200, 401}


def test_containers_run_as_nobody_in_particular(running: Checkout) -> None:
    for service in ("auth_service", "user_service", "celery_worker", "beat", "frontend", "mongo", "redis"):
        assert running.compose("exec", "-T", service, "id", "-u").strip() != "0", service


def test_down_keeps_the_data_and_down_v_removes_it(running: Checkout) -> None:
    with httpx.Client(base_url=AUTH) as http:
        visitor = join(http, Mailbox(MAILBOX))
    account = {"email": visitor.email, "password": visitor.password}
    env = (running.path / ".env").read_text()
    assert "the data is kept" in running.make("down")
    running.make("up")
    assert (running.path / ".env").read_text() == env
    assert httpx.post(f"{AUTH}/api/auth/login", json=account).status_code == 200
    running.compose("--profile", "*", "down", "-v")
    running.compose("up", "-d", "--wait")
    assert httpx.post(f"{AUTH}/api/auth/login", json=account).status_code == 401
