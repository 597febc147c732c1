"""What a visitor of somebody else's application gets through the edge, and what its host does not run."""

from __future__ import annotations

import json
import secrets

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.foreign.conftest import play, sign, signed
from tests.support import poll


def test_an_entry_is_on_the_page_and_its_words_are_counted_in_the_background(http: httpx.Client) -> None:
    name = f"Ada {secrets.token_hex(4)}"
    entry = sign(http, name, "three short words")
    assert signed(http)[0] == name
    assert name in http.get("/").text
    words = poll(lambda: http.get(f"/api/entries/{entry['id']}").json()["words"], 20, "the words of an entry")
    assert words == 3


@pytest.mark.parametrize(
    ("document", "status"),
    [({"name": "Ada"}, 422), ({"name": "x" * 81, "message": "hello"}, 422), ([], 422)],
)
def test_an_entry_that_is_none_is_refused(http: httpx.Client, document: object, status: int) -> None:
    assert http.post("/api/entries", json=document).status_code == status


def test_markup_in_an_entry_is_text(http: httpx.Client) -> None:
    sign(http, "<script>alert(1)</script>")
    assert "<script>alert" not in http.get("/").text


def test_the_host_runs_neither_mongodb_nor_redis(vps: Host) -> None:
    running = vps.check_output("docker ps --all --format '{{.Names}} {{.Image}}'")
    assert "berth-postgres-1" in running
    for word in ("mongo", "redis", "celery"):
        assert word not in running
        assert word not in vps.check_output("docker volume ls --format '{{.Name}}'")
        assert word not in vps.check_output("docker image ls --format '{{.Repository}}'")


def test_the_database_is_reached_by_no_one_outside_its_network(
    vps: Host, testbed: dict[str, str], outside: Host
) -> None:
    assert outside.run(f"nc -z -w 3 {testbed['vps_address']} 5432").rc != 0
    assert "5432" not in vps.check_output("ss -tlnH")


def test_status_misses_nothing(vps: Host) -> None:
    assert json.loads(vps.check_output("berth status --json"))["missing"] == []
    code, said = play("status")
    assert code == 0, said
    assert "MISSING" not in said


def test_doctor_finds_nothing_wrong(http: httpx.Client) -> None:
    assert http.get("/").status_code == 200
    code, said = play("doctor")
    assert code == 0, said
    assert "Mongo" not in said
    assert "Redis" not in said
