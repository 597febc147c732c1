import json
import logging
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanKind, Status, StatusCode
from pydantic import SecretStr

from shared import keys, tracing
from shared.app import new_app
from shared.logging import JsonFormatter
from shared.settings import CommonSettings, load_settings
from shared.spans import FromRequests, SpanTracing
from shared.tests.collector import Collector, collecting

SERVICES = Path(__file__).parents[2]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as server:
        yield server


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, float], SpanTracing]]:
    """Begin to trace, as a service does; what that changes in the process is changed back."""
    before = propagate.get_global_textmap()
    started: list[SpanTracing] = []
    monkeypatch.setattr(tracing, "_active", tracing.active())

    def begin(endpoint: str, ratio: float) -> SpanTracing:
        active = tracing.begin("test_service", settings(endpoint, ratio))
        assert isinstance(active, SpanTracing)
        started.append(active)
        return active

    yield begin
    for each in started:
        each.close()
    RedisInstrumentor().uninstrument()
    PymongoInstrumentor().uninstrument()
    propagate.set_global_textmap(before)


def settings(endpoint: str, ratio: float = 1.0) -> CommonSettings:
    return CommonSettings(
        environment="dev",
        release="1.2.3",
        mongo_uri=SecretStr("mongodb://nowhere"),
        redis_uri=SecretStr("redis://nowhere"),
        traces_endpoint=endpoint,
        traces_ratio=ratio,
    )


def client() -> TestClient:
    async def lifespan(_: object) -> None:
        pass

    router = APIRouter()

    @router.get("/things/{name}")
    async def thing(name: str) -> dict[str, Any]:
        if name == "broken":
            raise RuntimeError(f"{name}: the address ada@example.com was refused")
        line = json.loads(JsonFormatter().format(logging.makeLogRecord({"msg": "asked"})))
        return {**line, "sent_along": tracing.active().headers()}

    app = new_app(title="Test", prefix="/api", release="1.2.3", lifespan=lifespan)  # type: ignore[arg-type]
    app.include_router(router)
    return TestClient(app)


def test_a_service_that_does_not_trace_loads_nothing_for_it() -> None:
    # FastAPI loads the interface by itself, and redis what it finds of figures (2 MB); the rest is ours to leave out.
    program = (
        "import sys\n"
        f"import {', '.join(f'{main.parent.name}.main' for main in SERVICES.glob('*/main.py'))}\n"
        "from auth_service.settings import AuthSettings\n"
        "auth_service.main.create_app(AuthSettings())\n"
        "heavy = tuple('opentelemetry.' + part for part in ('sdk.trace', 'exporter', 'instrumentation', 'proto'))\n"
        "print([name for name in sys.modules if name.startswith((*heavy, 'google.protobuf'))])\n"
    )
    told = {"ENVIRONMENT": "dev", "MONGO_URI": "mongodb://x", "REDIS_URI": "redis://x"}
    told |= {"JWT_SECRET_KEY": secrets.token_hex(32), "JWT_PRIVATE_KEY": (key := keys.new_private_key())}
    told |= {"JWT_PUBLIC_KEYS": keys.public_key(key)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**told, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "endpoint",
    [
        "collector:4318",
        "grpc://collector:4317/v1/traces",
        "https://collector:4318",
        "https://",
        "https://collector:port/v1/traces",
        "https://me:password@collector/v1/traces",
        "https://collector/v1/traces?api_key=x",
    ],
)
def test_an_address_that_no_span_would_arrive_at_stops_the_start(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"ENVIRONMENT": "dev", "MONGO_URI": "mongodb://x", "REDIS_URI": "redis://x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRACES_ENDPOINT", endpoint)
    with pytest.raises(SystemExit):
        load_settings(CommonSettings)
    [sentence] = capsys.readouterr().err.splitlines()
    assert sentence.startswith("TRACES_ENDPOINT: must be where a collector takes OTLP over HTTP")
    assert "password" not in endpoint or endpoint not in sentence


def test_a_request_continues_the_trace_of_the_edge_and_its_log_lines_name_it(
    collector: Collector, begin: Callable[[str, float], SpanTracing]
) -> None:
    active = begin(collector.endpoint, 0)
    edge = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    line = client().get("/things/one?token=canary", headers={**edge, "baggage": "secret=canary"}).json()
    active.close()
    [span] = collector.spans
    assert (span["trace"], span["parent"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert line["sent_along"] == {"traceparent": f"00-{span['trace']}-{span['span']}-01"}
    assert (line["trace_id"], line["span_id"]) == (span["trace"], span["span"])
    assert (span["name"], span["service"], span["kind"]) == ("GET /things/{name}", "test_service", "server")
    assert span["attributes"] == {
        "http.request.method": "GET",
        "http.route": "/things/{name}",
        "http.response.status_code": 200,
        "server.address": "testserver",
        "server.port": 80,
    }
    assert "canary" not in str(collector.spans)


def test_an_error_leaves_as_its_kind_not_as_its_text(
    collector: Collector, begin: Callable[[str, float], SpanTracing]
) -> None:
    active = begin(collector.endpoint, 1)
    assert client().get("/things/broken").status_code == 500
    tracer = trace.get_tracer("a library", tracer_provider=active._provider)
    text = 'E11000 duplicate key: { email: "ada@example.com" }'
    with tracer.start_as_current_span("GET /x", kind=SpanKind.SERVER) as span:
        span.set_status(Status(StatusCode.ERROR, text))
        span.set_attribute("celery.retry.reason", text)
        span.record_exception(ValueError(text))
    active.close()
    assert [each["failed"] for each in collector.spans] == [True, True]
    assert collector.spans[1]["events"] == [{"name": "exception", "attributes": {"exception.type": "ValueError"}}]
    assert "ada@example.com" not in str(collector.spans)


def test_the_edge_decides_and_a_request_that_is_not_traced_has_no_trace_in_its_lines(
    collector: Collector, begin: Callable[[str, float], SpanTracing]
) -> None:
    active = begin(collector.endpoint, 1)
    edge = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
    assert "trace_id" not in client().get("/things/one", headers=edge).json()
    assert client().get("/healthz").status_code == 200
    active.close()
    assert collector.spans == []


def test_only_a_request_begins_a_trace() -> None:
    sampler = FromRequests(1)
    decisions = {kind: sampler.should_sample(Context(), 1, "x", kind).decision for kind in SpanKind}
    assert [kind for kind, decision in decisions.items() if decision is not Decision.DROP] == [SpanKind.SERVER]


def test_a_collector_that_is_away_is_worth_one_line_and_its_return_another(
    collector: Collector, begin: Callable[[str, float], SpanTracing], caplog: pytest.LogCaptureFixture
) -> None:
    active = begin(collector.endpoint, 1)
    exporter = active._exporter
    collector.away = True
    caplog.set_level(logging.INFO)
    tracer = trace.get_tracer("a library", tracer_provider=active._provider)

    def send() -> SpanExportResult:
        with tracer.start_as_current_span("GET /x", kind=SpanKind.SERVER) as span:
            pass
        return exporter.export([span])  # type: ignore[list-item]

    assert [send() for _ in range(5)] == [SpanExportResult.FAILURE] * 5
    collector.away = False
    assert send() is SpanExportResult.SUCCESS
    said = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert [record.getMessage().partition(":")[0] for record in said] == [
        "nobody takes our spans at http",
        "spans are taken again",
    ]
    assert vars(said[1])["dropped"] == 5


def test_who_ends_while_the_collector_is_away_does_not_try_each_batch(
    collector: Collector, begin: Callable[[str, float], SpanTracing]
) -> None:
    exporter = begin(collector.endpoint, 1)._exporter
    collector.away = True
    assert exporter.export([]) is SpanExportResult.FAILURE
    exporter.closing = True
    assert exporter.export([]) is SpanExportResult.FAILURE
    assert collector.asked == 1
