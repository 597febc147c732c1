import json
import logging
import sys

import pytest

from shared.logging import JsonFormatter, mask, request_id


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdefghijkl", "abcdefghijkl"),
        ("redis://auth:s3cret@redis:6379/0", "s3cret"),
        ("mongodb://root:pass%40word@mongo/?x", "pass%40word"),
        ("GET /verify?token=abc_DEF-123 done", "abc_DEF-123"),
        ('{"password": "correct horse"}', "correct"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl here", "c2lnbmF0dXJl"),
    ],
)
def test_a_secret_is_masked(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in mask(text)


def test_ordinary_text_is_left_alone() -> None:
    text = "http://localhost:8000/api answered 200 in 3 ms; see docs://x"
    assert mask(text) == text


def test_a_traceback_stays_on_the_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("name", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    line = JsonFormatter(service="x").format(record)
    assert "\n" not in line
    read = json.loads(line)
    assert (read["message"], read["service"]) == ("failed", "x")
    assert "ValueError: two\nlines" in read["exception"]


def test_a_line_carries_the_request_that_is_being_answered() -> None:
    record = logging.makeLogRecord({"msg": "task sent"})
    known_as = request_id.set("edge-1234")
    try:
        assert json.loads(JsonFormatter().format(record))["request_id"] == "edge-1234"
    finally:
        request_id.reset(known_as)
    assert "request_id" not in json.loads(JsonFormatter().format(record))
