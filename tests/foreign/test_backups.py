"""Backups of a database that Berth knows by two labels alone: made, tried every night, and brought back."""

from __future__ import annotations

import json
import shlex
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.foreign.conftest import play, sign, signed
from tests.support import poll

pytestmark = pytest.mark.timeout(600)


def backup(vps: Host, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = vps.run(shlex.join(["berth", "backup", *arguments]))
    return done.rc, json.loads(done.stdout.splitlines()[-1])


def run(vps: Host) -> str:
    """Back up as the timer does; return the run's name. The first one by itself may be under way."""
    poll(lambda: vps.run("systemctl start berth-backup.service").rc == 0 or None, 120, "a backup")
    return str(backup(vps, "status")[1]["targets"]["bucket"]["run"])


def test_a_run_has_the_database_on_each_target(http: httpx.Client, vps: Host) -> None:
    sign(http, "In the backup")
    name = run(vps)
    for target in ("store", "bucket"):
        text = vps.check_output(
            "berth backup restic %s -q --no-lock dump --tag part:manifest latest /manifest.json", target
        )
        found = json.loads(text)
        assert found["run"] == name
        assert {"files", "postgres"} == set(found["parts"])
        assert found["parts"]["postgres"]["bytes"] > 1000


def test_a_drill_restores_the_database_and_asks_the_application(http: httpx.Client, vps: Host) -> None:
    assert http.get("/").status_code == 200
    run(vps)
    code, said = backup(vps, "drill")
    assert code == 0, said
    # Of the drill nothing is left.
    assert "drill" not in vps.check_output("docker ps --all --format '{{.Names}}'")


def test_a_restore_of_everything_brings_the_older_state_back(
    http: httpx.Client, vps: Host, testbed: dict[str, str]
) -> None:
    sign(http, "Before")
    name = run(vps)
    sign(http, "After")

    code, said = play("restore", restore_run=name)
    assert code == 0, said
    assert "This was a dry run: nothing was changed." in said
    assert signed(http)[:2] == ["After", "Before"]

    code, said = play("restore", restore_run=name, confirm=testbed["site"])
    assert code == 0, said
    assert signed(http)[0] == "Before"
    # The services write again.
    entry = sign(http, "Since then", "two words")
    words = poll(lambda: http.get(f"/api/entries/{entry['id']}").json()["words"], 30, "the words of an entry")
    assert words == 2
