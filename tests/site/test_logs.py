"""Every line reaches the log servers outside, once, whatever happens on the way."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.support import Visitor, new_account, poll

ACKNOWLEDGED = ("loki", "elasticsearch", "relp")
ARRIVAL_SECONDS = 60
SLOW_SECONDS = 5


@pytest.fixture
def received(outside: Host) -> Callable[..., list[dict[str, Any]]]:
    def ask(pattern: str, *servers: str) -> list[dict[str, Any]]:
        printed = outside.check_output("log-lines %s " + " ".join(servers), pattern)
        return [json.loads(row) for row in printed.splitlines()]

    return ask


def test_a_request_can_be_followed_through_edge_service_and_worker(
    http: httpx.Client, vps: Host, received: Callable[..., list[dict[str, Any]]]
) -> None:
    request = f"test-{secrets.token_hex(8)}"
    answer = http.post("/api/auth/register", json=new_account(), headers={"X-Request-Id": request})
    assert (answer.status_code, answer.headers["x-request-id"]) == (202, request)

    def services() -> set[str] | None:
        found = {line["labels"]["service"].rstrip("ab") for line in received(request, "loki")}
        return found if {"traefik_", "auth_service", "celery_worker"} <= found else None

    poll(services, ARRIVAL_SECONDS, "lines of traefik, auth_service and celery_worker about one request")
    # On the host itself, as ansible/logs.yml asks.
    rows = vps.check_output("journalctl --quiet --since=-10min --grep=%s --output=json", request).splitlines()
    names = {json.loads(row).get("CONTAINER_NAME", "") for row in rows}
    assert {name.split("-")[-2].rstrip("ab") for name in names if name} >= {"traefik_", "auth_service", "celery_worker"}


def test_no_line_is_lost_or_doubled_while_the_log_servers_are_away_and_a_shipper_is_killed(
    vps: Host, outside: Host, away: Callable[[bool], None]
) -> None:
    mark, written = secrets.token_hex(6), 1200
    image = vps.check_output(
        "docker inspect --format '{{.Config.Image}}' $(docker ps -q -f name=auth_service | head -1)"
    )
    program = (
        "import sys, time\n"
        f"for number in range({written}):\n"
        f"    print('{mark}', number, 'password=canary-{mark}', flush=True)\n"
        "    time.sleep(0.01)\n"
    )
    container = f"berth-load-{mark}-1"
    vps.check_output(
        "docker run --detach --rm --log-driver journald --name %s --entrypoint python3 %s -c %s",
        container,
        image,
        program,
    )

    def arrived() -> dict[str, dict[str, int]]:
        return dict(json.loads(outside.check_output("log-lines --count %s", f"^{mark} ")))

    poll(lambda: arrived()["loki"]["lines"] > 0 or None, ARRIVAL_SECONDS, "the first lines")
    away(True)
    vps.check_output("systemctl kill --signal=KILL 'berth-log-shipping@*'")
    poll(
        lambda: True if vps.run("docker inspect %s", container).rc else None,
        ARRIVAL_SECONDS,
        "a container that writes on while nobody takes its lines",
    )
    away(False)

    def all_there() -> bool | None:
        counts = arrived()
        whole = all(counts[server]["lines"] == written for server in ACKNOWLEDGED)
        # What was in its socket is lost.
        return True if whole and counts["syslog"]["lines"] > written / 2 else None

    poll(
        all_there,
        ARRIVAL_SECONDS,
        f"{written} lines at each server that acknowledges, and most of them at the other",
    )
    counts = arrived()
    # These two know a line again. RELP may have those twice that were under way when the shipper was killed.
    assert counts["loki"]["doubled"] == counts["elasticsearch"]["doubled"] == 0, counts
    # 1: it looked, and found nothing.
    assert outside.run("grep -l canary-%s /srv/logs/*.jsonl", mark).rc == 1, "a secret left the host"


@contextmanager
def hanging_journal(vps: Host) -> Iterator[None]:
    """It has its sockets and reads nothing, as with a disk that does not answer."""
    vps.check_output("systemctl kill --signal=STOP systemd-journald")
    try:
        yield
    finally:
        vps.check_output("systemctl kill --signal=CONT systemd-journald")


@pytest.mark.long
def test_nobody_waits_for_a_journal_that_hangs(vps: Host, visitor: Visitor) -> None:
    bearer = visitor.sign_in()
    container = f"berth-load-{secrets.token_hex(6)}-1"
    image = vps.check_output(
        "docker inspect --format '{{.Config.Image}}' $(docker ps -q -f name=auth_service | head -1)"
    )
    # More than the sockets and pipes between the container and the journal hold.
    program = (
        "import pathlib, time\n"
        "for number in range(20000): print('a line that waits for the journal', number, 'x' * 100)\n"
        "pathlib.Path('/dev/shm/said').touch()\n"
        "time.sleep(300)\n"
    )
    run = "docker run --detach --log-driver journald --name %s --entrypoint python3 %s -c %s"
    try:
        with hanging_journal(vps):
            vps.check_output(run, container, image, program)
            # Its end would wait for the last of its lines.
            said = vps.run(
                "timeout 20 sh -c 'until docker exec %s test -e /dev/shm/said; do sleep 0.2; done'", container
            )
            assert said.rc == 0, "it waits for the journal"
            # Each leaves a line at the edge and at the service.
            for _ in range(100):
                answer = visitor.http.get("/api/users/me", headers=bearer)
                assert answer.status_code == 200
                assert answer.elapsed.total_seconds() < SLOW_SECONDS
    finally:
        vps.check_output("docker rm --force %s", container)


def test_the_log_servers_refused_nothing(outside: Host) -> None:
    assert outside.run("cat /srv/logs/refused.jsonl").stdout == ""


def test_a_shipper_says_up_to_when_it_has_shipped(vps: Host) -> None:
    def up_to_date() -> bool | None:
        status = vps.check_output("systemctl show --property=StatusText --value 'berth-log-shipping@*'").split("\n")
        said = [line for line in status if line]
        return True if len(said) == 4 and all(line.startswith("Shipped up to 2") for line in said) else None

    poll(up_to_date, ARRIVAL_SECONDS, "four shippers that have shipped")
