"""Nothing that was acknowledged is lost when containers or the whole machine restart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.support import Mailbox, Visitor, poll

BACK_SECONDS = 180


def remembered(visitor: Visitor) -> str | None:
    """Return the visitor's bio once the site answers again, through a refresh with the cookie from before."""
    try:
        renewed = visitor.http.post("/api/auth/refresh")
        if renewed.status_code != 200:
            return None
        bearer = {"Authorization": f"Bearer {renewed.json()['access_token']}"}
        profile = visitor.http.get("/api/users/me", headers=bearer)
        return profile.json()["bio"] if profile.status_code == 200 else None
    except httpx.TransportError:
        return None


@pytest.fixture
def settled(visitor: Visitor) -> Visitor:
    """A visitor with something to lose: a profile and a session."""
    answer = visitor.http.patch("/api/users/me", headers=visitor.sign_in(), json={"bio": "was here before"})
    assert answer.status_code == 200
    return visitor


@pytest.mark.long
def test_data_and_session_survive_a_restart_of_every_container(vps: Host, settled: Visitor) -> None:
    vps.check_output("docker restart $(docker ps -q)")
    assert poll(lambda: remembered(settled), BACK_SECONDS, "the site after docker restart") == "was here before"


def test_data_and_session_survive_kill_9_of_the_databases(vps: Host, settled: Visitor) -> None:
    # Redis writes its file to disk each second; what is older than that must survive anything.
    poll(
        lambda: True if "aof_pending_bio_fsync:0" in redis_persistence(vps) else None,
        10,
        "Redis to reach the disk",
    )
    vps.check_output("docker kill -s KILL $(docker ps -qf name=berth-mongo -f name=berth-redis)")
    vps.check_output("docker start $(docker ps -aqf name=berth-mongo -f name=berth-redis)")
    assert poll(lambda: remembered(settled), BACK_SECONDS, "the site after kill -9") == "was here before"


def redis_persistence(vps: Host) -> str:
    said = vps.check_output(
        "docker exec $(docker ps -qf name=berth-redis) sh -c "
        "'REDISCLI_AUTH=$(cat /run/secrets/redis_admin_password) redis-cli --user admin info persistence'"
    )
    return str(said)


def test_data_session_and_certificate_survive_a_restart_of_the_vps(
    vps: Host, settled: Visitor, testbed: dict[str, str], certificate: Callable[[], dict[str, Any]], mailbox: Mailbox
) -> None:
    old = {mail["id"] for mail in mailbox.mails()}
    before = certificate()["serialNumber"]
    begin_a_backup(vps)
    subprocess.run(["docker", "restart", testbed["vps_container"]], check=True, capture_output=True, timeout=180)
    assert poll(lambda: remembered(settled), BACK_SECONDS, "the site after a restart of the VPS") == "was here before"
    assert certificate()["serialNumber"] == before
    ended = vps.check_output(
        "journalctl --no-pager -o cat -u berth-docker-shutdown.service | grep 'asked to end' | tail -n 1"
    )
    assert ended.endswith("still running after 60 s: none"), "the databases were cut off instead of asked to end"
    assert_made_up(vps)

    def told() -> bool | None:
        subjects = {mail["subject"].partition(":")[0] for mail in mailbox.mails() if mail["id"] not in old}
        return True if {"[warning] HostRestarted", "[resolved] HostRestarted"} <= subjects else None

    poll(told, BACK_SECONDS, "mails that the host was restarted, and that this is over")


def begin_a_backup(vps: Host) -> None:
    """Have one stand still in the middle of its dump."""
    vps.check_output("systemctl start --no-block berth-backup.service")
    # Increments run mongodump too, but into no archive.
    dumping = "until pgrep -f '[m]ongodump --config.*--archive' > /dev/null; do sleep 0.02; done"
    vps.check_output("timeout 60 sh -c %s", f"{dumping}; systemctl kill --signal=STOP berth-backup.service")
    begun = json.loads(vps.file("/var/lib/berth-backup/state.json").content_string)["begun"]
    assert begun["reason"] == "scheduled"


def assert_made_up(vps: Host) -> None:
    """Do what the timer does every four minutes: it makes up for the backup that was cut off."""
    vps.check_output("systemctl start berth-backup-oplog.service")
    for target in ("store", "bucket"):
        read = f"berth backup restic {target} -q --no-lock dump --tag part:manifest latest /manifest.json"
        assert json.loads(vps.check_output(read))["reason"] == "the run before was cut off"
        assert vps.check_output(f"berth backup restic {target} -q --no-lock list locks") == ""
