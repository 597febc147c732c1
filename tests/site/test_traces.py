"""One request is one trace outside, from the edge to the mail; and the site does not depend on who collects them."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.support import Mailbox, new_account, poll

ARRIVAL_SECONDS = 60
FOREIGN = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def lines(vps: Host) -> Callable[[str], list[dict[str, Any]]]:
    """Ask the journal as ansible/logs.yml does."""

    def ask(pattern: str) -> list[dict[str, Any]]:
        printed = vps.run("journalctl --quiet --since=-10min --grep=%s --output=json", pattern).stdout
        rows = [json.loads(row) for row in printed.splitlines()]
        return [
            {**json.loads(row["MESSAGE"]), "container": row["CONTAINER_NAME"]}
            for row in rows
            if "CONTAINER_NAME" in row and str(row["MESSAGE"]).startswith("{")
        ]

    return ask


def spans_of(outside: Host, trace: str) -> list[dict[str, Any]]:
    return [json.loads(row) for row in outside.check_output("spans --json %s", trace).splitlines()]


def test_a_sign_up_is_one_trace_and_says_nothing_that_is_secret(
    http: httpx.Client, outside: Host, mailbox: Mailbox, lines: Callable[[str], list[dict[str, Any]]]
) -> None:
    request, account = f"test-{secrets.token_hex(8)}", new_account()
    answer = http.post("/api/auth/register", json=account, headers={"X-Request-Id": request})
    assert answer.status_code == 202
    token = mailbox.link_for(account["email"]).split("token=")[1]
    link = {"token": token, "password": account["password"]}
    assert http.post(f"/api/auth/verify?token={token}", json=link).status_code == 200

    def logged() -> list[dict[str, Any]] | None:
        found = lines(request)
        containers = " ".join(line["container"] for line in found)
        return found if all(name in containers for name in ("traefik", "auth_service", "celery_worker")) else None

    found = poll(logged, ARRIVAL_SECONDS, "lines of the edge, auth_service and the worker about one request")
    [trace] = {line.get("trace_id") for line in found}
    assert trace

    wanted = {
        ("edge", "server", None),
        ("auth_service", "server", None),
        ("auth_service", "client", "redis"),
        ("auth_service", "client", "mongodb"),
        ("auth_service", "producer", None),
        ("celery_worker", "consumer", None),
    }

    # Each process sends its own when its batch is due. One beginning, and each other span hangs on one that is there.
    def whole() -> list[dict[str, Any]] | None:
        spans = spans_of(outside, trace)
        told = {(span["service"], span["kind"], span["attributes"].get("db.system.name")) for span in spans}
        ids = {span["span"] for span in spans}
        begins = [span["service"] for span in spans if span["parent"] not in ids]
        return spans if told >= wanted and begins == ["edge"] else None

    spans = poll(whole, ARRIVAL_SECONDS, f"all spans of edge, auth_service and worker in trace {trace}")
    assert {span["service"] for span in spans if span["name"] == "run/mail.send_verification"} == {"celery_worker"}
    for secret in (account["password"], account["email"], token):
        # 1: it looked, and found nothing.
        assert outside.run("grep -F -e %s /srv/logs/traces.jsonl", secret).rc == 1, "a secret left the host"


def test_a_stranger_does_not_choose_the_trace(
    http: httpx.Client, outside: Host, lines: Callable[[str], list[dict[str, Any]]]
) -> None:
    request = f"test-{secrets.token_hex(8)}"
    strange = {"traceparent": f"00-{FOREIGN}-b7ad6b7169203331-01", "baggage": "said=by-a-stranger"}
    answer = http.post("/api/auth/register", json=new_account(), headers={"X-Request-Id": request, **strange})
    assert answer.status_code == 202
    found = poll(
        lambda: [line for line in lines(request) if "celery_worker" in line["container"]] or None,
        ARRIVAL_SECONDS,
        "the worker's lines about it",
    )
    own = found[0]["trace_id"]
    poll(lambda: spans_of(outside, own) or None, ARRIVAL_SECONDS, f"the trace {own} that it got instead")
    assert outside.run("grep -e %s -e by-a-stranger /srv/logs/traces.jsonl", FOREIGN).rc == 1


def test_a_collector_that_is_away_holds_up_no_request_and_is_worth_one_line(
    http: httpx.Client, vps: Host, away: Callable[[bool], None]
) -> None:
    began = vps.check_output("date +%s")

    def said(text: str) -> list[str]:
        rows = vps.run(
            "journalctl --quiet --since=@%s --grep=%s --output=cat CONTAINER_NAME=%s", began, text, auth
        ).stdout.splitlines()
        return [row for row in rows if text in row]

    auth = vps.check_output("docker ps --format '{{.Names}}' --filter name=auth_service")
    away(True)
    took: list[float] = []

    def gave_up() -> bool | None:
        for _ in range(10):
            start = time.monotonic()
            assert http.get("/api/auth/docs").status_code == 200
            took.append(time.monotonic() - start)
        return True if said("nobody takes our spans") else None

    poll(gave_up, ARRIVAL_SECONDS, "a line that says that nobody takes spans")
    # Shorter than what a batch is given.
    assert max(took) < 3, f"one of {len(took)} requests took {max(took):.1f} s"
    away(False)

    def taken() -> bool | None:
        assert http.get("/api/auth/docs").status_code == 200
        return True if said("spans are taken again") else None

    poll(taken, ARRIVAL_SECONDS, "a line that says that spans are taken again")
    # Each of the service's processes says it once.
    assert len(said("nobody takes our spans")) <= 2


def test_only_the_edge_knows_the_token(vps: Host) -> None:
    assert vps.check_output("stat -c '%a %u' /opt/berth/traefik/dynamic/traces.yml") == "400 10000"
    [token] = re.findall(
        r'"Authorization": "Bearer (\w+)"', vps.check_output("cat /opt/berth/traefik/dynamic/traces.yml")
    )
    assert vps.run("docker inspect $(docker ps -q) | grep -F %s", token).rc == 1
    assert vps.run("grep -rF %s /opt/berth/.env /run/berth/secrets", token).rc == 1


def test_what_the_collector_was_sent_is_otlp(outside: Host) -> None:
    assert outside.run("grep /v1/traces /srv/logs/refused.jsonl").rc != 0
