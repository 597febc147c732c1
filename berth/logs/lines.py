"""Formats the output of `journalctl --output=json` for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

# Already in the line, or the same in every line of the query.
KNOWN = ("time", "level", "logger", "message", "msg", "service", "release", "colour", "request_id", "span_id")
COLOURS = {"WARNING": "33", "WARN": "33", "ERROR": "31", "CRITICAL": "1;31", "FATAL": "1;31"}


def text_of(field: Any) -> str:
    """Return a journal field as text that a terminal can show.

    journalctl writes a field with invalid UTF-8 or control characters as a list of bytes, and a field that occurs
    twice as a list of its values (systemd.io/JOURNAL_EXPORT_FORMATS, "Journal JSON Format").
    """
    if field is None:
        return ""
    if isinstance(field, list):
        if field and all(isinstance(value, int) for value in field):
            field = bytes(field).decode("utf-8", "backslashreplace")
        else:
            return " ".join(map(text_of, field))
    return "".join(one if one.isprintable() or one == "\t" else one.encode("unicode_escape").decode() for one in field)


def journal_lines(rows: Iterable[str], coloured: bool = False) -> list[str]:
    """Return a line with time (UTC), service, level and message for each row of a container, sorted by time.

    Args:
        rows: the output of journalctl, one JSON object a line, with CONTAINER_NAME and MESSAGE.
        coloured: whether to colour warnings and errors.
    """
    entries = sorted(
        (row for row in map(json.loads, rows) if "CONTAINER_NAME" in row),
        key=lambda row: int(row["__REALTIME_TIMESTAMP"]),
    )
    services = [service_of(text_of(row["CONTAINER_NAME"])) for row in entries]
    width = max(map(len, services), default=0)
    return [line_of(row, f"{service:<{width}}", coloured) for row, service in zip(entries, services, strict=True)]


def service_of(container: str) -> str:
    """Return berth-green-shop-1 as shop/green, berth-mongo-1 as mongo, and others as they are.

    A command beside the live release, berth-run-shop-0a1b2c3d, is shop/run; a job, berth-job-report, is report/job.
    """
    if job := re.fullmatch(r"berth-job-(.+)", container):
        return f"{job[1]}/job"
    if found := re.fullmatch(r"berth-(blue|green)-(.+)-\d+|berth-(run)-(.+)-[0-9a-f]{8}", container):
        return f"{found[2] or found[4]}/{found[1] or found[3]}"
    found = re.fullmatch(r"berth-([\w.-]+)-\d+", container)
    return found[1] if found else container


def line_of(row: dict[str, Any], service: str, coloured: bool) -> str:
    """Return an entry of a container as a line; a traceback as further ones."""
    message = text_of(row.get("MESSAGE"))
    level, said, more = _read(message)
    time = f"{datetime.fromtimestamp(int(row['__REALTIME_TIMESTAMP']) / 1e6, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    line = "\n    ".join([f"{time} {service} {level:<8} {text_of(said)}".rstrip(), *map(text_of, more)])
    colour = COLOURS.get(level, "") if coloured else ""
    return f"\x1b[{colour}m{line}\x1b[0m" if colour else line


def _read(message: str) -> tuple[str, str, list[str]]:
    """Return level, message and further lines of a JSON log line; the text of any other line."""
    try:
        fields = json.loads(message)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return "-", message, []
    if "RequestMethod" in fields:
        return _access(fields)
    said = next((str(fields[name]) for name in ("message", "msg") if name in fields), "")
    rest = {name: value for name, value in fields.items() if name not in KNOWN}
    more = [line for name in ("exception", "stack") for line in str(rest.pop(name, "")).splitlines()]
    return str(fields.get("level", "-")).upper(), " ".join([said, *_pairs(rest)]), more


def _access(fields: dict[str, Any]) -> tuple[str, str, list[str]]:
    """Format an entry of the edge's access log."""
    status = int(fields.get("DownstreamStatus") or 0)
    level = "ERROR" if status >= 500 else "WARNING" if status >= 400 else "INFO"
    request = f"{fields['RequestMethod']} {fields.get('RequestHost', '')}{fields.get('RequestPath', '')} {status}"
    rest = {"from": fields.get("ClientHost"), "trace_id": fields.get("TraceId")}
    took = f"in {fields['Duration'] / 1e6:.0f} ms" if isinstance(fields.get("Duration"), int | float) else ""
    return level, " ".join([request, took, *_pairs({name: value for name, value in rest.items() if value})]), []


def _pairs(fields: dict[str, Any]) -> list[str]:
    return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items()]
