"""Releases of somebody else's application: nobody notices a good one, nobody sees a bad one."""

from __future__ import annotations

import re

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.foreign.conftest import Application, live, play
from tests.site.test_releases import containers, requests

REQUESTS = {
    "read": ["GET", "/api/entries", None],
    "page": ["GET", "/", None],
    "write": ["POST", "/api/entries", {"name": "Visitor", "message": "during a release"}],
}


@pytest.mark.timeout(600)
def test_a_release_with_a_migration_and_a_rollback_fail_no_request(
    http: httpx.Client, application: Application, testbed: dict[str, str], vps: Host
) -> None:
    first = live(http)
    application.edit("web/pages.js", "<h1>Guest book</h1>", "<h1>Guest book, second edition</h1>")
    (application.folder / "web/migrations/003_mood.sql").write_text("ALTER TABLE entries ADD COLUMN mood text;\n")
    try:
        second = application.build()
    finally:
        (application.folder / "web/migrations/003_mood.sql").unlink()
    assert second != first
    with requests(testbed, requests=REQUESTS) as counted:
        code, said = play("release", release=second, release_force=True)
        assert code == 0, said
        assert live(http) == second
        assert "second edition" in http.get("/").text
        code, said = play("rollback")
        assert code == 0, said
        assert live(http) == first
    assert counted["failed"] == 0, counted["errors"]
    assert counted["requests"] > 300
    assert {one.split()[0] for one in counted["releases"]} == {first, second}
    assert len(containers(vps)) == 1
    assert "mood" in vps.check_output("docker exec berth-postgres-1 psql -U app -d app -c '\\d entries'")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("file", "before", "after", "reason"),
    [
        ("web/pages.js", "<!doctype html>", "${entries.none.at(0)}", r"/ returned 500"),
        (
            "web/server.js",
            "!found || found.length > longest",
            "found.length > longest",
            r"/api/entries took an empty entry",
        ),
        ("worker/worker.py", "stopping = threading.Event()", "raise SystemExit('no')", r"worker-1 is exited .* no"),
    ],
    ids=["its page fails", "its check fails", "its worker ends"],
)
def test_a_bad_release_is_refused_and_the_live_one_untouched(
    http: httpx.Client, application: Application, vps: Host, file: str, before: str, after: str, reason: str
) -> None:
    first = live(http)
    ids = "docker ps --quiet --no-trunc --filter label=com.docker.compose.project | sort"
    running = vps.check_output(ids)
    application.edit(file, before, after)
    code, said = play("release", release=application.build())
    assert code != 0
    assert re.search(reason, said), said[-2000:]
    assert live(http) == first
    assert vps.check_output(ids) == running


def test_a_label_that_berth_does_not_know_is_refused_before_anything_changes(
    http: httpx.Client, application: Application
) -> None:
    first = live(http)
    application.edit("docker-compose.prod.yml", "berth.maintenance:", "berth.maintenence:")
    code, said = play("release", release=first)
    assert code != 0
    assert "Did you mean berth.maintenance?" in said
    assert live(http) == first


def test_the_closed_site_shows_the_application_s_own_page(
    http: httpx.Client, outside: Host, testbed: dict[str, str]
) -> None:
    try:
        code, said = play("maintenance", maintenance="on")
        assert code == 0, said
        page = outside.check_output(f"curl --silent --insecure https://{testbed['site']}/")
        assert "The guest book is closed for a moment" in page
    finally:
        code, said = play("maintenance", maintenance="off")
    assert code == 0, said
    assert http.get("/").status_code == 200
