"""Turns journal entries into what a log server gets: complete events, with labels, secrets masked."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1
from typing import Any

Entry = dict[str, Any]

# Loki takes lines of up to 256 KiB.
TEXT_LIMIT = 240 * 1024
# More lines than any traceback has.
EVENT_LINES = 500

# The first group, if any, is kept.
_SECRETS = [
    re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]+"),  # a JWT
    re.compile(r"(://)[^\s/@\"':]*:[^\s/@\"']+(?=@)"),  # user:password in an address
    re.compile(r"(?i)((?:set-)?cookie[\\\"']*\s*[:=]\s*[\\\"'\[]*)[^\"'\\\]}]+"),
    re.compile(r"(?i)(authorization[\\\"']*\s*[:=]\s*[\\\"'\[]*)[^\"'\\\],;}]+"),
    re.compile(r"(?i)(\b(?:bearer|basic|apikey)\s+)[\w.~+/=-]{8,}"),
    re.compile(
        r"(?i)((?:token|passw(?:or)?d|passphrase|secret|api[_-]?key|private[_-]?key)\w*[\\\"']*\s*[=:]\s*[\\\"'\[]*)"
        r"[^\s\"'\\&,;}\]]+"
    ),
    re.compile(r"(?i)(--(?:token|password|passphrase|secret)\s+)\S+"),
]
# Most lines have none of these words, so the expressions above are skipped.
_SUSPICIOUS = re.compile(r"(?i)eyJ|://|cookie|auth|bearer|basic|token|passw|passphrase|secret|key")

_PRIORITIES = ["critical", "critical", "critical", "error", "warning", "info", "info", "debug"]
_SEVERITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_LEVELS = [
    (re.compile(r"emerg|alert|crit|fatal|panic|f$"), "critical"),
    (re.compile(r"err|e$"), "error"),
    (re.compile(r"warn|w$"), "warning"),
    (re.compile(r"notice|info|log|i$"), "info"),
    (re.compile(r"debug|trace|d[1-5]?$"), "debug"),
]
# nginx and others write the level in brackets, to either stream; PostgreSQL before a colon and two spaces.
_IN_TEXT = re.compile(
    r"\[(emerg|alert|crit|error|warn|notice|info|debug)\]"
    r"|(?<!\S)(DEBUG[1-5]|INFO|NOTICE|LOG|WARNING|ERROR|FATAL|PANIC):  "
)
_UNIT = re.compile(r"(?P<service>[^@]+)(?:@.*)?\.service")

_TRACEBACK = "Traceback (most recent call last):"
# Lines that continue the one before: Java, JavaScript and Go tracebacks, and indented lines.
_CONTINUES = re.compile(r"\s|$|Caused by:|Suppressed:|goroutine \d|During handling of|The above exception was")
# Another traceback follows these lines.
_CHAINED = re.compile(r"During handling of the above exception|The above exception was the direct cause")


@dataclass(frozen=True)
class Rules:
    """What differs between hosts."""

    container: re.Pattern[str]
    secrets: tuple[re.Pattern[str], ...] = ()


@dataclass
class Event:
    """One log event, of one line or several."""

    entry: Entry
    lines: list[str]
    seen: float = 0.0
    # A traceback whose last line is still to come.
    unfinished: bool = False
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        text = "\n".join(self.lines).rstrip("\n")
        if len(text.encode(errors="replace")) > TEXT_LIMIT:
            text = text.encode(errors="replace")[:TEXT_LIMIT].decode(errors="ignore") + " [cut off here]"
        return text


def say(text: str) -> None:
    """Report to the operator, in the journal."""
    print(text, file=sys.stderr, flush=True)


def field_text(value: Any) -> str:
    """Return a field of journalctl's JSON: binary data is a list of bytes there, a repeated field a list."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(byte, int) for byte in value):
        return bytes(value).decode(errors="replace")
    return field_text(value[0]) if isinstance(value, list) and value else ""


class Assembler:
    """Assembles events from entries: joins the pieces of a long line, and the lines of a traceback."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._last: dict[str, Event] = {}
        self._pieces: dict[str, Event] = {}

    def add(self, entry: Entry) -> None:
        text = field_text(entry.get("MESSAGE", ""))
        if identity := entry.get("CONTAINER_PARTIAL_ID"):
            event = self._pieces.get(identity)
            if event is None:
                event = self._pieces[identity] = Event(entry, [])
                self.events.append(event)
            event.lines = ["".join([*event.lines, text])]
            event.seen = time.monotonic()
            if entry.get("CONTAINER_PARTIAL_LAST") == "true":
                del self._pieces[identity]
            return
        # All containers log as one process, the engine.
        source = str(entry.get("CONTAINER_ID") or f"{entry.get('_SYSTEMD_UNIT')} {entry.get('_PID')}")
        source += str(entry.get("PRIORITY"))
        before = self._last.get(source)
        if before and len(before.lines) < EVENT_LINES and (before.unfinished or _CONTINUES.match(text)):
            before.lines.append(text)
            before.seen = time.monotonic()
            if text == _TRACEBACK or _CHAINED.match(text):
                before.unfinished = True
            elif not _CONTINUES.match(text):
                before.unfinished = False
            return
        event = Event(entry, [text], time.monotonic(), text == _TRACEBACK)
        self.events.append(event)
        if text.startswith("{"):
            self._last.pop(source, None)
        else:
            self._last[source] = event

    def whole(self, patience: float) -> bool:
        """Tell whether all events are complete: none is unfinished, or so recent that more lines may follow."""
        now = time.monotonic()
        open_events = [*self._last.values(), *self._pieces.values()]
        return not self._pieces and not any(event.unfinished or now - event.seen < patience for event in open_events)


@lru_cache(maxsize=512)
def _names(container: str, image: str, unit: str, identifier: str, rules: Rules) -> tuple[tuple[str, str], ...]:
    if not container:
        found = _UNIT.fullmatch(unit)
        return (("service", found["service"] if found else identifier or "unknown"),)
    found = rules.container.fullmatch(container)
    if not found:
        return (("service", container),)
    named = {name: value for name, value in found.groupdict().items() if value}
    tag = image.rpartition(":")[2]
    if "colour" in named and tag and "/" not in tag:
        named["release"] = tag
    return tuple(named.items())


def labels(entry: Entry, document: dict[str, Any] | None, text: str, rules: Rules) -> dict[str, str]:
    """Return host, service and level, and of a release's containers colour and release."""
    found = {"host": field_text(entry.get("_HOSTNAME", "")) or "unknown"}
    found |= _names(
        field_text(entry.get("CONTAINER_NAME", "")),
        field_text(entry.get("IMAGE_NAME", "")),
        field_text(entry.get("_SYSTEMD_UNIT", "")),
        field_text(entry.get("SYSLOG_IDENTIFIER", "")) or field_text(entry.get("_COMM", "")),
        rules,
    )
    priority = field_text(entry.get("PRIORITY", ""))
    level = _PRIORITIES[int(priority)] if priority in ("0", "1", "2", "3", "4", "5", "6", "7") else "info"
    # Our services and Traefik say "level", MongoDB says "s".
    named = (document.get("level") or document.get("s")) if document else None
    if document is None and (in_text := _IN_TEXT.search(text, 0, 120)):
        named = in_text[1] or in_text[2]
    if isinstance(named, str):
        level = next((name for pattern, name in _LEVELS if pattern.match(named.lower())), level)
    return {**found, "level": level}


def mask(text: str, rules: Rules) -> str:
    """Mask what looks like a secret."""
    if _SUSPICIOUS.search(text):
        for pattern in _SECRETS:
            text = pattern.sub(r"\1***" if pattern.groups else "***", text)
    for pattern in rules.secrets:
        text = pattern.sub("***", text)
    return text


@dataclass(frozen=True)
class Line:
    """What is sent."""

    id: str
    microseconds: int
    labels: dict[str, str]
    text: str
    document: dict[str, Any] | None
    facility: int
    process: str

    @property
    def iso_time(self) -> str:
        seconds, rest = divmod(self.microseconds, 1_000_000)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:06d}Z"

    @property
    def priority(self) -> int:
        return self.facility * 8 + _SEVERITIES[self.labels["level"]]


def line_of(event: Event, rules: Rules) -> Line:
    entry = event.entry
    text = mask(event.text, rules)
    document = None
    if text.startswith("{"):
        try:
            parsed = json.loads(text)
            document = parsed if isinstance(parsed, dict) else None
        except ValueError:
            pass
    facility = field_text(entry.get("SYSLOG_FACILITY", ""))
    return Line(
        # The cursor is unique, so the server can drop a repeated line. The text is part of it: an event that is read
        # again may have more lines, which would be dropped as known.
        id=sha1(f"{entry['__CURSOR']} {text}".encode(errors="replace"), usedforsecurity=False).hexdigest(),
        microseconds=int(entry["__REALTIME_TIMESTAMP"]),
        labels=labels(entry, document, text, rules),
        text=text,
        document=document,
        facility=int(facility) if facility.isdigit() and int(facility) < 24 else 3,
        process=field_text(entry.get("_PID", "")) or "-",
    )


def lines_of(events: Iterable[Event], rules: Rules) -> list[Line]:
    return [line_of(event, rules) for event in events]
