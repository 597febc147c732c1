"""What every service does, asked of auth_service's and user_service's own applications."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from auth_service.main import create_app
from auth_service.settings import AuthSettings
from shared import keys
from shared.app import new_app
from shared.errors import Overloaded
from shared.http import Limits, RequestEnvelope
from shared.logging import configure_logging

MEDIA_TYPE = "application/problem+json"


@asynccontextmanager
async def no_lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


def new_client() -> TestClient:
    private_key = keys.new_private_key()
    settings = AuthSettings(
        environment="dev",
        mongo_uri=SecretStr("mongodb://nowhere"),
        redis_uri=SecretStr("redis://nowhere"),
        jwt_private_key=SecretStr(private_key),
        jwt_public_keys=[keys.public_key(private_key)],
        jwt_secret_key=SecretStr("0123456789abcdef0123456789abcdef"),
    )
    app = create_app(settings)
    app.state.auth = None  # no route below gets as far as the rules, unless it is to fail there
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def client() -> TestClient:
    return new_client()


def test_a_sane_request_id_is_kept_and_another_replaced(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "edge-1234.abc"}).headers["x-request-id"] == "edge-1234.abc"
    for insane in ("short", "x" * 129, "with space", '"quoted"'):
        made = client.get("/healthz", headers={"X-Request-ID": insane}).headers["x-request-id"]
        assert made != insane
        assert len(made) == 32


def test_an_unknown_path_is_a_problem_document(client: TestClient) -> None:
    answer = client.get("/api/auth/nothing", headers={"X-Request-ID": "edge-1234"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = answer.json()
    assert (problem["status"], problem["code"], problem["request_id"]) == (404, "not_found", "edge-1234")


def test_a_wrong_method_is_told_the_right_ones(client: TestClient) -> None:
    answer = client.delete("/api/auth/login")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"email": ' + b"9" * 5000 + b"}", "application/json"),
        (b"[" * 30000, "application/json"),
        (b'{"\\ud800": 1}', "application/json"),
        (b'{"email": NaN, "password": Infinity}', "application/json"),
        (b"null", "application/json"),
        (b'{"email": "ada@example.com", "password": "x"}', "text/plain"),
        (b"email=a", "application/x-www-form-urlencoded"),
        (b"--x", "multipart/form-data; boundary=x"),
        (b"", "application/json"),
    ],
)
def test_what_cannot_be_read_is_the_callers_fault(client: TestClient, body: bytes, content_type: str) -> None:
    answer = client.post("/api/auth/login", content=body, headers={"Content-Type": content_type})
    assert answer.status_code in {400, 415, 422}, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE


def test_a_body_that_is_too_large_is_not_read(client: TestClient) -> None:
    answer = client.post("/api/auth/login", content=b"x" * 65537)
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"


def test_a_body_of_unknown_length_is_counted(client: TestClient) -> None:
    answer = client.post("/api/auth/login", content=iter([b"x" * 40000, b"x" * 40000]))
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"


def test_an_unexpected_error_says_nothing_about_its_cause(client: TestClient) -> None:
    answer = client.post("/api/auth/logout", headers={"Cookie": "refresh_token=a.b"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert "NoneType" not in answer.text


def test_a_request_that_takes_too_long_is_answered() -> None:
    async def slow(scope, receive, send):  # type: ignore[no-untyped-def]  # noqa: ARG001
        await asyncio.Event().wait()

    answer = TestClient(RequestEnvelope(slow, Limits(own=0.01))).get("/")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_a_refusal_by_load_is_told_as_503_and_accounted_as_no_fault_of_the_service() -> None:
    app = new_app("test", "/api", "1", no_lifespan)

    @app.get("/full")
    async def full() -> None:
        raise Overloaded("Too many at once.")

    client = TestClient(app)
    answer = client.get("/full")
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert int(answer.headers["retry-after"]) > 0
    assert 'http_requests_total{method="GET",route="/full",status="overload"} 1.0' in client.get("/metrics").text
    assert 'route="/full",status="503"' not in client.get("/metrics").text


def test_a_request_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    new_client().get("/api/auth/nothing/with/secrets?token=abcdefgh", headers={"X-Request-ID": "edge-1234"})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [line] = [line for line in lines if line["logger"] == "access"]
    assert line["request_id"] == "edge-1234"
    assert (line["method"], line["route"], line["status"]) == ("GET", "unknown", 404)


def test_behind_an_edge_only_failures_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("auth_service", "INFO", "1", "blue")
    app = RequestEnvelope(_fails_at("/broken"))
    client = TestClient(app, raise_server_exceptions=False)
    client.get("/fine")
    client.get("/broken")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines if line["logger"] == "access"] == [500]


def _fails_at(path: str) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        if scope["path"] == path:
            raise RuntimeError("broken")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    return app


def test_the_description_names_every_problem_and_the_page_shows_it(client: TestClient) -> None:
    paths = client.get("/api/auth/openapi.json").json()["paths"]
    assert {"400", "401", "403", "413", "422", "429", "503"} <= set(paths["/api/auth/login"]["post"]["responses"])
    assert "429" in paths["/api/auth/register"]["post"]["responses"]
    assert "/readyz" not in paths
    assert "<script" not in client.get("/api/auth/docs").text
    assert "POST /api/auth/login" in client.get("/api/auth/docs").text


def test_metrics_count_by_pattern_not_by_path(client: TestClient) -> None:
    client.get("/api/auth/one-of-many-paths")
    text = client.get("/metrics").text
    assert 'http_requests_total{method="GET",route="unknown",status="404"}' in text
    assert "one-of-many-paths" not in text
