"""Reads what OTLP over HTTP brings, as the recorder of the outside host and the services' tests need it.

Checked: the message is an ExportTraceServiceRequest without fields that the schema does not know; a resource names its
service; ids have their length and are not zero; a span has a name, a kind, and ends after it began; no attribute is
there twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

MEDIA_TYPE = "application/x-protobuf"
TAKEN = ExportTraceServiceResponse().SerializeToString()


class NotOtlpError(ValueError):
    """The request breaks the protocol; the message says where."""


def require(holds: object, why: str) -> None:
    if not holds:
        raise NotOtlpError(why)


def read_spans(body: bytes) -> list[dict[str, Any]]:
    """Return the spans of a request, flat, and each with the name of its service."""
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise NotOtlpError(f"not an ExportTraceServiceRequest: {error}") from error
    _require_known(request)
    found = []
    for part in request.resource_spans:
        resource = _attributes(part.resource.attributes)
        require(resource.get("service.name"), f"a resource without service.name: {resource}")
        for scope in part.scope_spans:
            found += [_span(span, resource) for span in scope.spans]
    return found


def _span(span: Span, resource: dict[str, Any]) -> dict[str, Any]:
    require(len(span.trace_id) == 16 and any(span.trace_id), f"trace_id {span.trace_id.hex()!r}")
    require(len(span.span_id) == 8 and any(span.span_id), f"span_id {span.span_id.hex()!r}")
    require(len(span.parent_span_id) in (0, 8), f"parent_span_id {span.parent_span_id.hex()!r}")
    require(span.name, "a span without a name")
    require(span.kind in Span.SpanKind.values() and span.kind, f"kind {span.kind} of span {span.name!r}")
    require(0 < span.start_time_unix_nano <= span.end_time_unix_nano, f"span {span.name!r} ends before it began")
    return {
        "service": resource["service.name"],
        "resource": resource,
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": _attributes(span.attributes),
        "events": [{"name": each.name, "attributes": _attributes(each.attributes)} for each in span.events],
        "links": [each.trace_id.hex() for each in span.links],
        "failed": span.status.code == span.status.STATUS_CODE_ERROR,
        "message": span.status.message,
    }


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        require(pair.key and pair.key not in found, f"attribute {pair.key!r} is empty or there twice")
        found[pair.key] = _value(pair.value)
    return found


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind).hex() if kind == "bytes_value" else getattr(value, kind) if kind else None


def _require_known(message: Message) -> None:
    require(not len(UnknownFieldSet(message)), f"{type(message).__name__} has fields that the schema does not know")
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                _require_known(each)
