import concurrent.futures
import contextlib
import socket
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import hypothesis
import hypothesis.strategies
import pytest
import schemathesis
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests_integration.conftest import Container, Mailbox, Program, Site, docker, is_ready, poll

Case = schemathesis.Case[Any]
Operation = schemathesis.APIOperation[Any, Any, Any, Any]

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery staple"


def sign_up(site: Site, mailbox: Mailbox, address: str, client: httpx.Client) -> str:
    """From nobody to an access token."""
    account = {"email": address, "password": PASSWORD, "name": "Ada"}
    registered = client.post(f"{site.auth}/api/auth/register", json=account)
    assert registered.status_code == 201, registered.text
    assert registered.json()["mail"] == "queued"
    token = mailbox.link_to(address)
    assert client.post(f"{site.auth}/api/auth/verify", json={"token": token}).status_code == 200
    signed_in = client.post(f"{site.auth}/api/auth/login", json={"email": address, "password": PASSWORD})
    assert signed_in.status_code == 200, signed_in.text
    return str(signed_in.json()["access_token"])


def test_from_sign_up_to_sign_out(site: Site, mailbox: Mailbox, address: str) -> None:
    with site.api() as client:
        bearer = {"Authorization": f"Bearer {sign_up(site, mailbox, address, client)}"}
        assert client.get(f"{site.auth}/api/auth/me", headers=bearer).json()["verified"] is True
        profile = client.get(f"{site.user}/api/users/me", headers=bearer).json()
        assert (profile["email"], profile["name"]) == (address, "Ada")
        changed = client.patch(f"{site.user}/api/users/me", headers=bearer, json={"bio": "Poet"}).json()
        assert client.get(f"{site.user}/api/users/me", headers=bearer).json() == changed
        refreshed = client.post(f"{site.auth}/api/auth/refresh").json()["access_token"]
        bearer = {"Authorization": f"Bearer {refreshed}"}
        assert client.get(f"{site.user}/api/users/me", headers=bearer).json() == changed
        assert client.post(f"{site.auth}/api/auth/logout").status_code == 204
        for url in (f"{site.auth}/api/auth/me", f"{site.user}/api/users/me"):
            assert client.get(url, headers=bearer).json()["code"] == "session_revoked"
        assert client.post(f"{site.auth}/api/auth/refresh").status_code == 401


@pytest.mark.usefixtures("site")
def test_redis_refused_none_of_our_programs_anything(redis: Container) -> None:
    admin = Redis(port=redis.port, username="admin", password="admin-test", decode_responses=True)
    with contextlib.closing(admin):
        refused = [entry for entry in admin.acl_log() if entry["reason"] != "auth"]
        assert not refused


def test_redis_lets_nobody_else_in_and_gives_each_service_its_own_keys_only(redis: Container) -> None:
    nobody = Redis(port=redis.port)
    with contextlib.closing(nobody), pytest.raises(AuthenticationError):
        nobody.ping()
    user_service = Redis(port=redis.port, username="user_service", password="user-test")
    with contextlib.closing(user_service):
        for forbidden in (
            lambda: user_service.set("revoked:x", "1"),
            lambda: user_service.get("celery"),
            lambda: user_service.flushall(),
            lambda: user_service.keys(),
        ):
            with pytest.raises(NoPermissionError):
                forbidden()
    admin = Redis(port=redis.port, username="admin", password="admin-test")
    with contextlib.closing(admin):
        admin.acl_log_reset()


def test_an_email_registers_once_even_ten_times_at_once(site: Site, address: str) -> None:
    def register(_: int) -> int:
        account = {"email": address, "password": PASSWORD}
        return httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).status_code

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        statuses = sorted(pool.map(register, range(10)))
    assert statuses == [201] + [409] * 9


def test_a_first_sight_by_many_requests_at_once_makes_one_profile(site: Site, mailbox: Mailbox, address: str) -> None:
    with site.api() as client:
        bearer = {"Authorization": f"Bearer {sign_up(site, mailbox, address, client)}"}

    def look(_: int) -> tuple[int, str]:
        answer = httpx.get(f"{site.user}/api/users/me", headers=bearer, timeout=30)
        return answer.status_code, answer.text

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        [(status, _)] = set(pool.map(look, range(20)))
    assert status == 200


def test_guessing_is_slowed_down_by_every_worker_together(site: Site, address: str) -> None:
    guess = {"email": address, "password": "wrong"}
    statuses = [httpx.post(f"{site.auth}/api/auth/login", json=guess, timeout=30).status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]


def test_a_queue_of_sign_ins_that_is_too_long_is_cut_and_nothing_breaks(site: Site, address: str) -> None:
    def sign_in(number: int) -> int:
        body = {"email": f"{number}{address}", "password": "wrong"}
        answer = httpx.post(f"{site.auth}/api/auth/login", json=body, timeout=60)
        assert answer.status_code != 503 or answer.headers["retry-after"]
        return answer.status_code

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        statuses = set(pool.map(sign_in, range(120)))
    assert statuses <= {401, 503}
    assert 401 in statuses


def test_without_redis_accounts_are_still_made_and_the_rest_says_so(
    site: Site, redis: Container, mailbox: Mailbox, address: str
) -> None:
    docker("stop", "--time=1", redis.id)
    try:
        ready = httpx.get(f"{site.auth}/readyz", timeout=10)
        assert ready.status_code == 503
        assert "redis" in ready.json()["detail"]
        assert httpx.get(f"{site.auth}/healthz").status_code == 200
        account = {"email": address, "password": PASSWORD}
        registered = httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30)
        assert (registered.status_code, registered.json()["mail"]) == (201, "delayed")
        refused = httpx.post(f"{site.auth}/api/auth/login", json=account, timeout=30)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.headers["content-type"] == "application/problem+json"
    finally:
        docker("start", redis.id)
    poll(lambda: is_ready(site.auth), 30, "readiness after Redis came back")
    again = httpx.post(f"{site.auth}/api/auth/verification", json={"email": address}, timeout=30)
    assert again.status_code == 202
    assert mailbox.link_to(address)


def test_without_the_database_a_request_is_asked_to_come_back(site: Site, mongo: Container, address: str) -> None:
    docker("pause", mongo.id)
    try:
        began = time.monotonic()
        answer = httpx.post(f"{site.auth}/api/auth/login", json={"email": address, "password": PASSWORD}, timeout=30)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert time.monotonic() - began < 25
        assert httpx.get(f"{site.user}/readyz", timeout=30).status_code == 503
    finally:
        docker("unpause", mongo.id)
    poll(lambda: is_ready(site.auth) and is_ready(site.user), 30, "readiness after the database came back")


def test_a_mail_waits_for_a_mail_server_that_is_away_and_is_sent_once(
    site: Site, mailbox: Mailbox, address: str
) -> None:
    docker("pause", mailbox.smtp.id)
    try:
        account = {"email": address, "password": PASSWORD}
        assert httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).status_code == 201
    finally:
        docker("unpause", mailbox.smtp.id)
    assert mailbox.link_to(address)
    assert len(mailbox.to(address)) == 1


def test_a_worker_that_is_killed_loses_no_mail(site: Site, mailbox: Mailbox, address: str) -> None:
    site.worker.kill()
    try:
        account = {"email": address, "password": PASSWORD}
        assert httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).json()["mail"] == "queued"
        assert not mailbox.to(address)
    finally:
        site.worker.start()
    assert mailbox.link_to(address)


@pytest.mark.parametrize("service", ["auth", "user"])
def test_no_request_makes_a_service_fail(site: Site, mailbox: Mailbox, address: str, service: str) -> None:
    """A bounded number of made-up requests: each gets a documented answer, none a server error."""
    with site.api() as client:
        token = sign_up(site, mailbox, address, client)
    base = {"auth": site.auth, "user": site.user}[service]
    path = {"auth": "auth", "user": "users"}[service]
    schema = schemathesis.openapi.from_url(f"{base}/api/{path}/openapi.json")
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        for case in made_up_cases(found.ok(), 40):
            # A made-up token or password is well formed and still refused, which that check would not have.
            case.call_and_validate(
                headers={"Authorization": f"Bearer {token}"}, excluded_checks=[positive_data_acceptance]
            )


def made_up_cases(operation: Operation, count: int) -> list[Case]:
    """The same requests in every run; where there is a body, half of them are wrong on purpose."""
    cases: list[Case] = []
    modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if operation.body else [])]
    strategy = hypothesis.strategies.one_of([operation.as_strategy(mode) for mode in modes])

    @hypothesis.settings(
        max_examples=count,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=strategy)
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return cases


def test_the_running_worker_uses_uvloop_and_httptools_and_names_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "SERVICE": "probe",
        "BIND": f"127.0.0.1:{port}",
        "WEB_CONCURRENCY": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
    }
    arguments = ["-m", "gunicorn", "--config", "python:shared.gunicorn_conf", "tests_integration.probe:app"]
    program = Program(tmp_path / "log", arguments, environment)
    program.start()
    try:

        def answer() -> httpx.Response | None:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/")
            return None

        response = poll(answer, 30, "the probe")
        assert response.json() == {"loop": "uvloop", "parser": "uvicorn.protocols.http.httptools_impl"}
        assert "server" not in response.headers
        assert program.stop() == 0
    finally:
        program.kill()
    assert all(line.startswith("{") for line in program.log.read_text().splitlines())


def test_a_service_with_an_example_key_ends_with_one_sentence(tmp_path: Path) -> None:
    environment = {
        "ENVIRONMENT": "dev",
        "MONGO_URI": "mongodb://nowhere",
        "REDIS_URI": "redis://nowhere",
        "JWT_SECRET_KEY": "replace-me",
    }
    program = Program(tmp_path / "log", ["-m", "auth_service"], environment)
    program.start()
    assert program.process.wait(30) == 1
    [sentence] = program.log.read_text().splitlines()
    assert "JWT_SECRET_KEY" in sentence
    assert "openssl rand -hex 32" in sentence


def test_metrics_are_those_of_all_workers(site: Site) -> None:
    def requests() -> float:
        name = 'http_requests_total{method="GET",route="/healthz",status="200"}'
        lines = httpx.get(f"{site.user}/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0)

    before = requests()
    for _ in range(20):
        httpx.get(f"{site.user}/healthz")
    assert requests() == before + 20
