"""What berth_logs makes of entries of the journal, and that the recorders would take it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from berth.logs.batches import NotNowError
from berth.logs.events import Assembler, Event, Line, Rules, line_of, lines_of, mask
from berth.logs.journal import missing_between
from berth.logs.servers import Elasticsearch, Loki, syslog_message

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = yaml.safe_load((ROOT / "roles/log_shipping/defaults/main.yml").read_text())
RULES = Rules(re.compile(DEFAULTS["log_shipping_container_pattern"]), (re.compile("4111[0-9]{12}"),))


def entry(message: str, **fields: str) -> dict[str, Any]:
    number = len(entry.__dict__.setdefault("made", []))
    entry.__dict__["made"].append(number)
    return {
        "__CURSOR": f"s=1;i={number:x};b=2;m=3;t=6611071c59925;x=4",
        "__REALTIME_TIMESTAMP": str(1_790_000_000_000_000 + number),
        "_HOSTNAME": "vps",
        "PRIORITY": "6",
        "_PID": "42",
        "MESSAGE": message,
        **fields,
    }


def texts(*entries: dict[str, Any]) -> list[str]:
    assembler = Assembler()
    for each in entries:
        assembler.add(each)
    return [line.text for line in lines_of(assembler.events, RULES)]


def line(message: str, **fields: str) -> Line:
    return line_of(Event(entry(message, **fields), [message]), RULES)


@pytest.mark.parametrize(
    ("text", "secret", "kept"),
    [
        ("Authorization: Bearer abcdefghijkl, next", "abcdefghijkl", "next"),
        ('{"headers": {"cookie": "session=s3cret; theme=dark"}, "status": 200}', "s3cret", '"status": 200'),
        ("Set-Cookie: refresh=s3cret; HttpOnly", "s3cret", "Set-Cookie"),
        ("redis://auth:s3cret@redis:6379/0 is away", "s3cret", "redis:6379/0 is away"),
        ("COMMAND=/usr/bin/restic --password s3cret snapshots", "s3cret", "snapshots"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl here", "c2lnbmF0dXJl", "here"),
        ("X-Api-Key: s3cret", "s3cret", "X-Api-Key"),
        ("card 4111111111111111 declined", "4111111111111111", "declined"),
    ],
)
def test_a_secret_does_not_leave(text: str, secret: str, kept: str) -> None:
    masked = mask(text, RULES)
    assert secret not in masked
    assert kept in masked


def test_ordinary_text_leaves_as_it_is() -> None:
    text = "see https://example.com/a?b=c: author of 3 tokens, key 7 pressed, passwords are long"
    assert mask(text, RULES) == text


def test_a_traceback_is_one_event_even_between_the_lines_of_another_container() -> None:
    one, other = {"CONTAINER_ID": "1"}, {"CONTAINER_ID": "2"}
    assert texts(
        entry("before", **one),
        entry("Traceback (most recent call last):", **one),
        entry('  File "x.py", line 1, in <module>', **one),
        entry("ordinary", **other),
        entry("ValueError: first", **one),
        entry("", **one),
        entry("During handling of the above exception, another exception occurred:", **one),
        entry("", **one),
        entry("Traceback (most recent call last):", **one),
        entry('  File "y.py", line 2, in <module>', **one),
        entry("KeyError: 'second'", **one),
        entry("after", **one),
    ) == [
        "before",
        'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nValueError: first\n\n'
        "During handling of the above exception, another exception occurred:\n\n"
        "Traceback (most recent call last):\n  File \"y.py\", line 2, in <module>\nKeyError: 'second'",
        "ordinary",
        "after",
    ]


def test_a_stack_of_java_is_one_event() -> None:
    stack = [
        "java.lang.IllegalStateException: no",
        "\tat a.B.c(B.java:1)",
        "Caused by: java.io.IOException",
        "\t... 3 more",
    ]
    assert texts(*(entry(row) for row in stack), entry("next")) == ["\n".join(stack), "next"]


def test_lines_of_json_are_never_joined() -> None:
    rows = ['{"message": "one"}', '{"message": "two"}']
    assert texts(*map(entry, rows)) == rows


def test_what_only_looks_like_json_is_shipped_as_text() -> None:
    for text in ('{"level": "ERROR", "message": "cut of', "{{ template }}", "{}}"):
        shipped = line(text)
        assert (shipped.text, shipped.document, shipped.labels["level"]) == (text, None, "info")


def test_a_line_in_pieces_is_whole_again() -> None:
    piece = {"CONTAINER_PARTIAL_ID": "a"}
    assembler = Assembler()
    assembler.add(entry("long ", **piece))
    assert not assembler.whole(0)
    assembler.add(entry("line", CONTAINER_PARTIAL_LAST="true", **piece))
    assert assembler.whole(0)
    assert [each.text for each in assembler.events] == ["long line"]


def test_an_unfinished_traceback_is_waited_for() -> None:
    assembler = Assembler()
    assembler.add(entry("Traceback (most recent call last):"))
    assembler.add(entry("  File ..."))
    assert not assembler.whole(0)
    assembler.add(entry("ValueError"))
    assert assembler.whole(0)


def test_entries_that_the_journal_has_dropped_are_counted() -> None:
    assert missing_between("s=ab;i=fe;b=1;m=2;t=3;x=4", "s=ab;i=ff;b=1;m=2;t=3;x=4") == 0
    assert missing_between("s=ab;i=fe;b=1;m=2;t=3;x=4", "s=ab;i=102;b=1;m=2;t=3;x=4") == 3
    assert missing_between("s=ab;i=fe;b=1;m=2;t=3;x=4", "s=cd;i=102;b=1;m=2;t=3;x=4") == 0


@pytest.mark.parametrize(
    ("message", "fields", "labels"),
    [
        (
            '{"level": "WARNING", "message": "slow"}',
            {"CONTAINER_NAME": "berth-blue-auth_service-1", "IMAGE_NAME": "localhost:5000/berth/auth_service:1.4.0"},
            {"service": "auth_service", "colour": "blue", "release": "1.4.0", "level": "warning"},
        ),
        (
            "2026/11/25 [error] 7#7: no such file",
            {"CONTAINER_NAME": "berth-green-frontend-1", "IMAGE_NAME": "localhost:5000/berth/frontend"},
            {"service": "frontend", "colour": "green", "level": "error"},
        ),
        (
            '{"s": "I", "msg": "ready"}',
            {"CONTAINER_NAME": "berth-mongo-1", "PRIORITY": "3"},
            {"service": "mongo", "level": "info"},
        ),
        (
            "2026-11-30 17:13:26.355 UTC [1] LOG:  starting PostgreSQL",
            {"CONTAINER_NAME": "berth-postgres-1", "PRIORITY": "3"},
            {"service": "postgres", "level": "info"},
        ),
        (
            "2026-11-30 17:13:26.355 UTC [99] FATAL:  password authentication failed",
            {"CONTAINER_NAME": "berth-postgres-1", "PRIORITY": "3"},
            {"service": "postgres", "level": "critical"},
        ),
        ("done", {"CONTAINER_NAME": "somebody_elses"}, {"service": "somebody_elses", "level": "info"}),
        ("in", {"_SYSTEMD_UNIT": "ssh@3-10.0.0.1:22-10.0.0.2:9.service"}, {"service": "ssh", "level": "info"}),
        ("up", {"SYSLOG_IDENTIFIER": "kernel", "PRIORITY": "4"}, {"service": "kernel", "level": "warning"}),
    ],
)
def test_a_line_is_labelled(message: str, fields: dict[str, str], labels: dict[str, str]) -> None:
    assert line(message, **fields).labels == {"host": "vps", **labels}


def test_an_event_that_is_read_again_with_further_lines_is_another_one() -> None:
    """A server that has the first of them would take the whole for known, and keep no more."""
    first = entry("panic: out of memory")
    again = line_of(Event(first, ["panic: out of memory"]), RULES)
    assert line_of(Event(first, ["panic: out of memory"]), RULES).id == again.id
    assert line_of(Event(first, ["panic: out of memory", "goroutine 1"]), RULES).id != again.id


def test_syslog_carries_labels_as_structured_data() -> None:
    sent = syslog_message(line("it's 5 o'clock", CONTAINER_NAME="berth-blue-web-1", IMAGE_NAME="web:2", PRIORITY="4"))
    assert re.fullmatch(
        rb"<28>1 2026-\d\d-\d\dT[\d:]{8}\.\d{6}Z vps web 42 - "
        rb'\[berth@32473 colour="blue" release="2" level="warning"\] it\'s 5 o\'clock',
        sent,
    )


# --- what the recorders of the test bed say to it ----------------------------------------------------------


@pytest.fixture(scope="module")
def recorder() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("log_server", str(ROOT / "images/outside/log-server"))
    spec = importlib.util.spec_from_loader("log_server", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Posted(Exception):  # noqa: N818  # no error: the request, instead of a network
    pass


def posted(server: Loki | Elasticsearch, lines: list[Line], monkeypatch: pytest.MonkeyPatch) -> bytes:
    def keep(path: str, body: bytes) -> bytes:
        raise Posted(path, body)

    monkeypatch.setattr(server, "post", keep)
    with pytest.raises(Posted) as caught:
        server.deliver(lines)
    return bytes(caught.value.args[1])


LINES = [line("plain é"), line('{"level": "ERROR", "message": "json", "n": 1}', CONTAINER_NAME="berth-blue-web-1")]


def test_a_push_is_what_loki_documents(recorder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = recorder.check_loki(posted(Loki({"url": "https://loki.test"}), LINES, monkeypatch))
    assert [each["line"] for each in taken] == [each.text for each in LINES]
    assert taken[1]["labels"]["level"] == "error"


def test_a_bulk_request_is_what_elasticsearch_documents(recorder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Elasticsearch({"url": "https://search.test", "index": "logs-berth-test"})
    taken = recorder.check_bulk(posted(server, LINES, monkeypatch))
    assert [(index, identity) for index, identity, _ in taken] == [("logs-berth-test", each.id) for each in LINES]
    assert (taken[1][2]["message"], taken[1][2]["fields"]) == ("json", {"level": "ERROR", "n": 1})


@pytest.mark.parametrize("passing", [401, 403, 429, 503])
def test_a_document_that_is_refused_for_now_makes_the_batch_come_again(
    monkeypatch: pytest.MonkeyPatch, passing: int
) -> None:
    server = Elasticsearch({"url": "https://search.test", "index": "logs-berth-test"})
    statuses = [409, passing]
    answer = {"errors": True, "items": [{"create": {"status": status}} for status in statuses]}
    monkeypatch.setattr(server, "post", lambda *_: json.dumps(answer).encode())
    with pytest.raises(NotNowError, match="1 of 2 documents have to be sent again"):
        server.deliver(LINES)
    statuses[1] = 201
    answer["items"] = [{"create": {"status": status}} for status in statuses]
    server.deliver(LINES)


@pytest.mark.parametrize(
    "body",
    [
        {"streams": [{"stream": {}, "values": [["1790000000000000000", "no label"]]}]},
        {"streams": [{"stream": {"a-b": "c"}, "values": [["1790000000000000000", "no such name"]]}]},
        {"streams": [{"stream": {"a": "b"}, "values": [[1790000000000000000, "no string"]]}]},
        {"streams": [{"stream": {"a": "b"}, "values": [["1790000000", "seconds"]]}]},
    ],
)
def test_the_recorder_refuses_what_loki_would(recorder: ModuleType, body: dict[str, Any]) -> None:
    with pytest.raises(recorder.SchemaError):
        recorder.check_loki(json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"create": {"_index": "logs"}}\n{"@timestamp": "2026-11-25T00:00:00Z"}',
        b'{"create": {"_index": "Logs"}}\n{"@timestamp": "2026-11-25T00:00:00Z"}\n',
        b'{"index": {"_index": "logs"}}\n{"@timestamp": "2026-11-25T00:00:00Z"}\n',
        b'{"create": {"_index": "logs"}}\n{"message": "no time"}\n',
    ],
)
def test_the_recorder_refuses_what_elasticsearch_would(recorder: ModuleType, body: bytes) -> None:
    with pytest.raises(recorder.SchemaError):
        recorder.check_bulk(body)
