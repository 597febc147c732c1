"""What the operator of somebody else's application does and is told."""

from __future__ import annotations

import json
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.foreign.conftest import live, play, sign
from tests.support import poll

ASK = "curl -fsS -K /opt/berth/monitoring/login/curl -g %s"


def prometheus(vps: Host, path: str) -> Any:
    return json.loads(vps.check_output(ASK, f"http://127.0.0.1:9090/api/v1/{path}"))["data"]


def firing(vps: Host) -> set[tuple[str, str]]:
    """Return alert and service of those that fire."""
    alerts = [one for one in prometheus(vps, "alerts")["alerts"] if one["state"] == "firing"]
    return {(one["labels"]["alertname"], one["labels"].get("service", "")) for one in alerts}


def test_logs_are_those_of_its_services(http: httpx.Client, vps: Host) -> None:
    sign(http, "Grace")
    seen = lambda: "counted the words of" in vps.check_output("berth logs --service worker --since -5min") or None  # noqa: E731
    poll(seen, 20, "a line of the worker")
    assert "listening on 8080" in vps.check_output("berth logs --service web --since -2h")
    assert "database system is ready" in vps.check_output("berth logs --service postgres --since -2h")


def test_its_services_are_scraped_and_its_panels_are_served(vps: Host) -> None:
    def up() -> bool | None:
        found = prometheus(vps, "targets?state=active")["activeTargets"]
        return {"web", "worker"} <= {one["labels"]["job"] for one in found if one["health"] == "up"} or None

    poll(up, 60, "web and worker as targets")
    assert prometheus(vps, "query?query=guestbook_entries_waiting")["result"]
    assert "guestbook" in vps.check_output("ls /opt/berth/monitoring/config/prometheus/consoles")


@pytest.mark.timeout(400)
def test_its_alert_and_that_of_a_missing_service_fire_and_end(http: httpx.Client, vps: Host) -> None:
    [worker] = vps.check_output("docker ps --quiet --filter label=com.docker.compose.service=worker").split()
    vps.check_output("docker stop %s", worker)
    try:
        sign(http, "Nobody counts me")
        wanted = {("EntriesWaiting", "worker"), ("ServiceDown", "worker")}
        poll(lambda: wanted <= firing(vps) or None, 150, "the alerts")
    finally:
        vps.check_output("docker start %s", worker)
    poll(lambda: not wanted & firing(vps) or None, 60, "the end of the alerts")


@pytest.mark.timeout(400)
def test_a_database_that_is_down_is_told_by_name_and_comes_back(http: httpx.Client, vps: Host) -> None:
    vps.check_output("docker stop berth-postgres-1")
    try:
        assert http.get("/api/entries").status_code == 500
        poll(lambda: ("DatabaseDown", "postgres") in firing(vps) or None, 60, "the alert DatabaseDown")
        assert "container postgres is Exited" in vps.check_output("berth status")
    finally:
        vps.check_output("docker start berth-postgres-1")
    poll(lambda: http.get("/api/entries").status_code == 200 or None, 60, "the entries")
    poll(lambda: ("DatabaseDown", "postgres") not in firing(vps) or None, 60, "the end of the alert")


def test_a_command_runs_as_its_service_with_its_secrets(vps: Host) -> None:
    done = vps.run("berth run --service worker -- python3 worker.py digest")
    assert done.rc == 0, done.stderr
    assert "digest: " in done.stdout
    code, said = play("run", service="web", command="node migrate.js")
    assert code == 0, said


def test_its_job_is_scheduled_and_runs(vps: Host) -> None:
    assert "berth-job-digest.timer" in vps.check_output("systemctl list-timers --no-pager")
    vps.check_output("systemctl start berth-job-digest")
    assert "digest: " in vps.check_output("journalctl --since -5min --output=cat | grep digest:")
    assert vps.check_output("docker exec berth-postgres-1 psql -U app -d app -tAc 'SELECT count(*) FROM days'") == "1"


def test_its_hook_has_run(http: httpx.Client, vps: Host) -> None:
    assert vps.check_output("tail -n 1 /var/log/guestbook-releases").split()[0]
    assert f"{live(http)} " in vps.check_output("cat /var/log/guestbook-releases")


def test_secrets_are_files_of_their_service_alone(vps: Host) -> None:
    for service, uid in (("web", 10020), ("worker", 10021), ("postgres", 999)):
        folder = vps.file(f"/run/berth/secrets/{service}")
        assert (folder.uid, folder.mode) == (uid, 0o500)
        assert [vps.file(one).mode for one in (f"{folder.path}/postgres_password",)] == [0o400]
    password = vps.check_output("cat /run/berth/secrets/web/postgres_password")
    assert password not in vps.check_output("docker inspect $(docker ps -q)")
