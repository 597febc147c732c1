import concurrent.futures
import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import hypothesis
import hypothesis.strategies
import pytest
import schemathesis
from pymongo.database import Database
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from auth_service.counters import RedisCounters
from auth_service.limits import Limit
from auth_service.store import MongoRedisAuthStore, User
from auth_service.tests.memory import MemoryCounters
from shared.clients.cache import open_cache
from shared.clients.database import Document, open_database, open_sync_database
from tests_integration.conftest import TOKEN_SECRETS, Container, Mailbox, Program, Site, docker, is_ready, poll
from tests_integration.forge import forged

Case = schemathesis.Case[Any]
Operation = schemathesis.APIOperation[Any, Any, Any, Any]

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery staple"


@contextlib.contextmanager
def admin(redis: Container) -> Iterator[Redis]:
    with contextlib.closing(
        Redis(port=redis.port, username="admin", password="admin-test", decode_responses=True)
    ) as client:
        yield client


def forget(redis: Container, pattern: str) -> None:
    """Let a counter's time pass."""
    with admin(redis) as client:
        for key in list(client.scan_iter(pattern)):
            client.delete(key)


@contextlib.contextmanager
def database(mongo: Container) -> Iterator[Database[Document]]:
    opened = open_sync_database(f"mongodb://127.0.0.1:{mongo.port}/auth_db?directConnection=true", "auth_db", "test")
    try:
        yield opened
    finally:
        opened.client.close()


def sign_up(site: Site, mailbox: Mailbox, address: str, client: httpx.Client) -> str:
    """From nobody to an access token."""
    account = {"email": address, "password": PASSWORD, "name": "Ada"}
    registered = client.post(f"{site.auth}/api/auth/register", json=account)
    assert registered.status_code == 202, registered.text
    link = {"token": mailbox.link_to(address), "password": PASSWORD}
    assert client.post(f"{site.auth}/api/auth/verify", json=link).status_code == 200
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


def test_whoever_breaks_into_user_service_signs_no_token(site: Site) -> None:
    held = site.programs["user_service"].environment
    answers = Counter(
        (url.rpartition("/api/")[2], answer.status_code, answer.json().get("code"))
        for token in forged(held.values())
        for url in (f"{site.auth}/api/auth/me", f"{site.user}/api/users/me")
        for answer in [httpx.get(url, headers={"Authorization": f"Bearer {token}"})]
    )
    assert set(answers) == {("auth/me", 401, "token_invalid"), ("users/me", 401, "token_invalid")}


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


def test_ten_sign_ups_at_once_with_one_address_make_one_account(
    site: Site, mailbox: Mailbox, mongo: Container, address: str
) -> None:
    def register(_: int) -> int:
        account = {"email": address, "password": PASSWORD}
        return httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).status_code

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert set(pool.map(register, range(10))) <= {202, 503}
    link = {"token": mailbox.link_to(address), "password": PASSWORD}
    assert httpx.post(f"{site.auth}/api/auth/verify", json=link, timeout=30).status_code == 200
    assert len(mailbox.to(address)) == 1
    with database(mongo) as auth_db:
        assert [user["verified"] for user in auth_db.users.find({"email": address})] == [True]


def test_a_stranger_who_came_first_gets_nothing(site: Site, mailbox: Mailbox, redis: Container, address: str) -> None:
    """Each with a registration of their own in the real database; the mail's owner keeps the account."""
    stranger, owner = "the password of a stranger", PASSWORD
    for count, password in enumerate((stranger, owner), 1):
        account = {"email": address, "password": password}
        assert httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).status_code == 202
        poll(partial(lambda count: len(mailbox.to(address)) == count, count), 60, "a mail")
        forget(redis, "ratelimit:mail:*")
    token = mailbox.link_to(address)

    def verify(**body: str) -> tuple[int, str]:
        answer = httpx.post(f"{site.auth}/api/auth/verify", json={"token": token, **body}, timeout=30)
        return answer.status_code, answer.json().get("code", "")

    assert verify() == (400, "password_required")
    assert verify(password=stranger) == (400, "credentials_invalid")
    assert verify(password=owner) == (200, "")
    assert verify(password=owner) == (200, "")
    for password, status in ((stranger, 401), (owner, 200)):
        answer = httpx.post(f"{site.auth}/api/auth/login", json={"email": address, "password": password}, timeout=30)
        assert answer.status_code == status


def test_a_forgotten_password_is_replaced_by_mail_and_ends_every_session(
    site: Site, mailbox: Mailbox, address: str
) -> None:
    with site.api() as client:
        bearer = {"Authorization": f"Bearer {sign_up(site, mailbox, address, client)}"}
        assert client.post(f"{site.auth}/api/auth/password/forgotten", json={"email": address}).status_code == 202
        chosen = {"token": mailbox.link_to(address, "Choose a new password"), "password": "another long password"}
        assert client.post(f"{site.auth}/api/auth/password/reset", json=chosen).status_code == 200
        assert client.post(f"{site.auth}/api/auth/password/reset", json=chosen).json()["code"] == "token_invalid"
        for url in (f"{site.auth}/api/auth/me", f"{site.user}/api/users/me"):
            assert client.get(url, headers=bearer).json()["code"] == "session_revoked"
        assert client.post(f"{site.auth}/api/auth/refresh").status_code == 401
        account = {"email": address, "password": chosen["password"]}
        assert client.post(f"{site.auth}/api/auth/login", json=account).status_code == 200
    told = "Your password was changed"
    poll(lambda: [mail for mail in mailbox.to(address) if mail["subject"] == told], 60, "word to the owner")


def test_a_changed_password_ends_the_other_sessions(site: Site, mailbox: Mailbox, address: str) -> None:
    with site.api() as client, site.api() as other:
        sign_up(site, mailbox, address, client)
        here, there = (
            {"Authorization": f"Bearer {answer.json()['access_token']}"}
            for answer in (
                each.post(f"{site.auth}/api/auth/login", json={"email": address, "password": PASSWORD})
                for each in (client, other)
            )
        )
        change = {"current": PASSWORD, "new": "another long password"}
        assert client.post(f"{site.auth}/api/auth/password/change", json=change, headers=here).status_code == 204
        assert client.get(f"{site.auth}/api/auth/me", headers=here).status_code == 200
        assert client.post(f"{site.auth}/api/auth/refresh").status_code == 200
        assert other.get(f"{site.auth}/api/auth/me", headers=there).status_code == 401
        assert other.post(f"{site.auth}/api/auth/refresh").status_code == 401


def test_a_mail_bomb_is_defused(site: Site, mailbox: Mailbox, redis: Container, address: str) -> None:
    local, _, domain = address.partition("@")
    for number in range(20):
        account = {"email": f"{local}+{number}@{domain}", "password": PASSWORD}
        assert httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).status_code in {202, 503}
    assert mailbox.link_to(f"{local}+0@{domain}")
    sent = httpx.get(f"{mailbox.web}/api/email").json()
    assert sum(to["address"].startswith(f"{local}+") for mail in sent for to in mail["to"]) == 1
    with admin(redis) as client:
        assert not list(client.scan_iter("celery-task-meta-*"))


async def test_counters_in_redis_count_as_those_in_memory_do(redis: Container, address: str) -> None:
    """Under the service's rights in production, and in the same words as the unit tests' counters."""
    cache = open_cache(f"redis://auth_service:auth-test@127.0.0.1:{redis.port}/0")
    for counters in (RedisCounters(cache), MemoryCounters()):
        one, two = Limit("one", f"one:{address}", 2, 60), Limit("two", f"two:{address}", 1, 30)
        assert await counters.take([one]) is None
        assert await counters.take([one, two]) is None
        refused = await counters.take([two, one])
        assert refused
        assert refused[0] == two
        assert 0 < refused[1] <= 30
        assert [count for count, _ in await counters.read(one.key, two.key)] == [2, 1]
        await counters.give_back(two.key, one.key)
        assert [count for count, _ in await counters.read(one.key, two.key)] == [1, 0]
        assert await counters.add({one.key: 60, f"new:{address}": 60}) == {one.key: 2, f"new:{address}": 1}
        assert await counters.claim(f"claim:{address}", 50) == 0
        assert 0 < await counters.claim(f"claim:{address}", 50) <= 50
        await counters.remember(f"known:{address}", 90, one.key, f"claim:{address}")
        found = await counters.read(f"known:{address}", one.key)
        assert [count for count, _ in found] == [1, 0]
        assert 0 < found[0][1] <= 90
    await cache.connection_pool.disconnect()


async def test_unverified_accounts_are_purged_and_those_that_any_release_verified_stay(
    mongo: Container, redis: Container, address: str
) -> None:
    opened = open_database(f"mongodb://127.0.0.1:{mongo.port}/auth_db?directConnection=true", "auth_db", "test")
    cache = open_cache(f"redis://auth_service:auth-test@127.0.0.1:{redis.port}/0")
    store = MongoRedisAuthStore(opened, cache)
    now = datetime.now(UTC)
    for name, age in (("old", 8), ("young", 6), ("verified", 8), ("tried again", 8)):
        user = User(f"{name} {address}", f"{name}.{address}", "", "hash", verified=False)
        assert await store.place_user(user, now - timedelta(days=age)) == user
    # As the release before does it.
    await opened.users.update_one({"_id": f"verified {address}"}, {"$set": {"verified": True}})
    again = User("another id", f"tried again.{address}", "", "another hash", verified=False)
    kept = await store.place_user(again, now)
    assert kept
    assert (kept.id, kept.password_hash) == (f"tried again {address}", "hash")
    assert await store.place_user(User("x", f"verified.{address}", "", "", verified=False), now) is None
    assert await store.purge_unverified(now - timedelta(days=7)) >= 1
    left = [user["_id"] async for user in opened.users.find({"_id": {"$regex": address}})]
    assert sorted(left) == [f"{name} {address}" for name in ("tried again", "verified", "young")]
    opened.client.close()
    await cache.connection_pool.disconnect()


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
        # Each from a network of its own, or the limit of one would answer.
        headers = {"X-Forwarded-For": f"2001:db8:{number:x}::1"}
        answer = httpx.post(f"{site.auth}/api/auth/login", json=body, headers=headers, timeout=60)
        assert answer.status_code != 503 or answer.headers["retry-after"]
        return answer.status_code

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        statuses = set(pool.map(sign_in, range(120)))
    assert statuses <= {401, 503}
    assert 401 in statuses


def test_without_redis_nothing_is_promised_and_everything_says_so(
    site: Site, redis: Container, mailbox: Mailbox, address: str
) -> None:
    account = {"email": address, "password": PASSWORD}
    docker("stop", "--time=1", redis.id)
    try:
        ready = httpx.get(f"{site.auth}/readyz", timeout=10)
        assert ready.status_code == 503
        assert "redis" in ready.json()["detail"]
        assert httpx.get(f"{site.auth}/healthz").status_code == 200
        for path in ("register", "login"):
            refused = httpx.post(f"{site.auth}/api/auth/{path}", json=account, timeout=30)
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert refused.headers["content-type"] == "application/problem+json"
    finally:
        docker("start", redis.id)
    poll(lambda: is_ready(site.auth), 30, "readiness after Redis came back")
    assert httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).status_code == 202
    assert mailbox.link_to(address)


def test_without_the_database_a_request_is_asked_to_come_back(site: Site, mongo: Container, address: str) -> None:
    docker("pause", mongo.id)
    try:
        # Given up on before this client does.
        for path in ("login", "register"):
            account = {"email": address, "password": PASSWORD}
            answer = httpx.post(f"{site.auth}/api/auth/{path}", json=account, timeout=30)
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
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
        assert httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).status_code == 202
    finally:
        docker("unpause", mailbox.smtp.id)
    assert mailbox.link_to(address)
    assert len(mailbox.to(address)) == 1


def test_a_worker_that_is_killed_loses_no_mail(site: Site, mailbox: Mailbox, address: str) -> None:
    site.worker.kill()
    try:
        account = {"email": address, "password": PASSWORD}
        assert httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).status_code == 202
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
        **TOKEN_SECRETS["auth_service"],
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
