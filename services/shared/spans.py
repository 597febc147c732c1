"""Traces with OpenTelemetry. Imported by shared.tracing, and only where they are on."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, Status, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from shared.settings import CommonSettings
from shared.tracing import Tracing

logger = logging.getLogger("traces")

# How long a span waits for company, and how many may wait: beyond, the oldest are dropped.
BATCH_SECONDS = 2
QUEUE_LENGTH = 2048
# For one batch, with all its attempts.
SEND_SECONDS = 3

# What a span may say; whatever else a library writes on it does not leave. A query string may hold a token, an
# exception's text the address that a mail server refused, a database's error the key that was there already. The log
# has these, masked.
ATTRIBUTES = frozenset(
    {
        *("http.request.method", "http.route", "http.response.status_code", "error.type"),
        *("db.system.name", "db.namespace", "db.collection.name", "db.operation.name", "db.query.text"),
        *("server.address", "server.port", "network.peer.address", "network.peer.port"),
        *("celery.action", "celery.task_name", "celery.state", "celery.retries"),
        *("messaging.message.id", "messaging.system", "messaging.operation.type"),
    }
)


class SpanTracing(Tracing):
    """Spans of requests, of calls to Redis and MongoDB, and of tasks, sent to a collector by a thread of their own."""

    def __init__(self, service: str, settings: CommonSettings) -> None:
        resource = {"service.name": service, "service.version": settings.release, "berth.colour": settings.colour}
        # Both say for each batch what we say once.
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._exporter = Exporter(settings.traces_endpoint)
        self._provider = TracerProvider(
            sampler=ParentBased(FromRequests(settings.traces_ratio)),
            resource=Resource({name: value for name, value in resource.items() if value}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(self._exporter, max_queue_size=QUEUE_LENGTH, schedule_delay_millis=BATCH_SECONDS * 1000)
        )
        self._tracer = self._provider.get_tracer("berth")
        # Not baggage: whatever a caller puts there would travel on to Redis and to whomever we call.
        propagate.set_global_textmap(TraceContextTextMapPropagator())
        # Database spans by the names that OpenTelemetry has settled on, as FastAPI and the edge do it.
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "database,http")
        RedisInstrumentor().instrument(tracer_provider=self._provider)
        PymongoInstrumentor().instrument(tracer_provider=self._provider)

    def trace_tasks(self) -> None:
        """Trace the tasks that this process runs."""
        # Only a worker has the package.
        from opentelemetry.instrumentation.celery import CeleryInstrumentor

        instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]
        instrumentor.instrument(tracer_provider=self._provider)

    def fastapi(self, quiet: frozenset[str]) -> dict[str, Any]:
        return {
            **super().fastapi(quiet),
            "tracing": True,
            "tracer_provider": self._provider,
            "operation_spans": False,
            "exclude": lambda scope: scope.get("path") in quiet,
        }

    def ids(self) -> dict[str, str]:
        context = trace.get_current_span().get_span_context()
        # The id of a trace that is not recorded leads nowhere.
        if not context.trace_flags.sampled:
            return {}
        return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}

    @contextmanager
    def sending(self, task: str) -> Iterator[None]:
        # Celery's instrumentation never ends the span of a task that only the worker knows.
        attributes = {"celery.action": "apply_async", "celery.task_name": task}
        with self._tracer.start_as_current_span(f"apply_async/{task}", kind=SpanKind.PRODUCER, attributes=attributes):
            yield

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    def close(self) -> None:
        self._exporter.closing = True
        self._provider.shutdown()


class FromRequests(Sampler):
    """A trace begins with a request, at the edge or here; nothing else begins one.

    Otherwise each question about health, each look into the queue and each heartbeat would be a trace of its own.
    """

    def __init__(self, ratio: float) -> None:
        self._requests = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if kind is not SpanKind.SERVER:
            return SamplingResult(Decision.DROP)
        return self._requests.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"FromRequests{{{self._requests.get_description()}}}"


class Exporter(OTLPSpanExporter):
    """Sends spans without what must not leave, and says once when nobody takes them."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint=endpoint, timeout=SEND_SECONDS)
        self.closing = False
        self._lost = 0
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        # Who is about to end does not wait for each batch.
        if self.closing and self._away:
            return SpanExportResult.FAILURE
        result = super().export([lean(span) for span in spans])
        if result is not SpanExportResult.SUCCESS:
            if not self._away:
                logger.warning("nobody takes our spans at %s: they are dropped until somebody does", self._endpoint)
            self._away = True
            self._lost += len(spans)
        elif self._away:
            logger.info("spans are taken again", extra={"dropped": self._lost})
            self._away, self._lost = False, 0
        return result


def lean(span: ReadableSpan) -> ReadableSpan:
    """Return a span with the attributes that may leave."""
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_pick(span.attributes, ATTRIBUTES),
        events=[Event(each.name, _pick(each.attributes, {"exception.type"}), each.timestamp) for each in span.events],
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def _pick(attributes: Mapping[str, Any] | None, names: frozenset[str] | set[str]) -> dict[str, Any]:
    return {name: value for name, value in (attributes or {}).items() if name in names}
