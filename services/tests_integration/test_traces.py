"""One sign-up is one trace, with nothing in it that is nobody's business."""

import json
import secrets
from typing import Any

import httpx2 as httpx
import pytest

from shared.tests.collector import Collector
from tests_integration.conftest import Mailbox, Site, is_ready, poll

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery staple"
EDGE = {"trace": secrets.token_hex(16), "span": secrets.token_hex(8)}


def test_a_sign_up_is_one_trace_from_the_edge_to_the_mail(
    site: Site, mailbox: Mailbox, collector: Collector, address: str
) -> None:
    headers = {"traceparent": f"00-{EDGE['trace']}-{EDGE['span']}-01", "X-Request-Id": f"sign-up-{EDGE['span']}"}
    account = {"email": address, "password": PASSWORD, "name": "Ada"}
    answer = httpx.post(f"{site.auth}/api/auth/register", json=account, headers=headers, timeout=30)
    assert answer.status_code == 202
    token = mailbox.link_to(address)
    link = {"token": token, "password": PASSWORD}
    verified = httpx.post(f"{site.auth}/api/auth/verify?token={token}", json=link, timeout=30)
    assert verified.status_code == 200

    wanted = {
        ("auth_service", "server", None),
        ("auth_service", "client", "redis"),
        ("auth_service", "client", "mongodb"),
        ("auth_service", "producer", None),
        ("celery_worker", "consumer", None),
        ("celery_worker", "client", "mongodb"),
    }

    # Each process sends its own when its batch is due, so wait for all of them and for what they hang on.
    def missing() -> tuple[set[tuple[Any, ...]], list[str]]:
        spans = [span for span in collector.spans if span["trace"] == EDGE["trace"]]
        told = {(span["service"], span["kind"], span["attributes"].get("db.system.name")) for span in spans}
        ids = {span["span"] for span in spans} | {EDGE["span"]}
        return wanted - told, [span["name"] for span in spans if span["parent"] not in ids]

    poll(lambda: missing() == (set(), []), 60, "a span of each kind, each hanging on another", missing)
    names = {span["name"] for span in collector.spans if span["trace"] == EDGE["trace"]}
    assert "run/mail.send_verification" in names
    for secret in (PASSWORD, address, token, address.partition("@")[0]):
        assert secret not in json.dumps(collector.spans)
    for program in ("auth_service", "worker"):

        def about(program: str = program) -> list[str]:
            written = site.programs[program].log.read_text().splitlines()
            return [line for line in written if headers["X-Request-Id"] in line]

        lines = poll(about, 30, f"lines of {program} about the request")
        assert {json.loads(line)["trace_id"] for line in lines} == {EDGE["trace"]}, lines


def test_what_nobody_asked_for_is_no_trace(site: Site, collector: Collector) -> None:
    assert httpx.get(f"{site.auth}/readyz", timeout=10).status_code == 200
    # The verification above began one here, as no edge had decided.
    begun = {span["name"] for span in collector.spans if not span["parent"]}
    assert {name.split()[0] for name in begun} <= {"GET", "POST", "PATCH", "PUT", "DELETE"}, begun
    assert not any(part in name for name in begun for part in ("readyz", "healthz", "metrics"))


def test_spans_leave_before_their_process_ends(site: Site, collector: Collector) -> None:
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{EDGE['span']}-01"}
    assert httpx.get(f"{site.auth}/api/auth/me", headers=headers, timeout=30).status_code == 401
    # Sooner than a batch would be sent anyway.
    assert site.programs["auth_service"].stop() == 0
    site.programs["auth_service"].start()
    assert [span["name"] for span in collector.spans if span["trace"] == trace] == ["GET /api/auth/me"]
    poll(lambda: is_ready(site.auth), 60, "auth_service once more")
