"""Backups of the whole site: made by themselves, in both stores, without a secret shown, and whole through faults."""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.support import Mailbox, operate, playbook, poll

UNIT_SECONDS = 120


def listed(vps: Host) -> dict[str, list[dict[str, Any]]]:
    return dict(json.loads(vps.check_output("berth backup list")))


def runs(vps: Host) -> dict[str, list[str]]:
    """Return the names of the runs on each target."""
    return {target: [one["run"] for one in found] for target, found in listed(vps).items()}


def manifest(vps: Host, target: str) -> dict[str, Any]:
    """Return the manifest of the newest run on a target."""
    text = vps.check_output(
        "berth backup restic %s -q --no-lock dump --tag part:manifest latest /manifest.json", target
    )
    return dict(json.loads(text))


def mongo(vps: Host, script: str) -> str:
    """Run a script in the database's shell, as root; its password is read where it lies."""
    sign_in = (
        'const server = new Mongo("mongodb://127.0.0.1:27017/?directConnection=true");'
        'server.getDB("admin").auth("root", fs.readFileSync("/run/secrets/mongo_root_password", "utf8").trim());'
    )
    asked = f"const fs = require('fs'); {sign_in} {script}"
    return str(vps.check_output("docker exec berth-mongo-1 mongosh --quiet --norc --nodb --eval %s", asked))


def state(vps: Host) -> dict[str, Any]:
    return dict(json.loads(vps.check_output("cat /var/lib/berth-backup/state.json"))["targets"])


@pytest.fixture(scope="module")
def backed_up(vps: Host) -> None:
    """A run by the timer's own unit; the first one by itself, which may be under way, goes before."""
    poll(lambda: True if vps.run("systemctl start berth-backup.service").rc == 0 else None, UNIT_SECONDS, "a backup")


@pytest.fixture
def store_away(vps: Host, testbed: dict[str, str]) -> Iterator[None]:
    """The store that only takes cannot be reached."""
    where = f"ip daddr {testbed['outside_address']} tcp dport 8000"
    vps.check_output(
        "nft %s", "table inet away { chain out { type filter hook output priority 0; " + where + " reject; }; }"
    )
    yield
    vps.run("nft delete table inet away")


@pytest.mark.usefixtures("backed_up")
def test_each_store_has_a_run_that_says_what_is_in_it(vps: Host, http: httpx.Client) -> None:
    release = http.get("/").headers["x-berth-release"].split()[0]
    assert all(runs(vps).values())
    for target in ("store", "bucket"):
        found = manifest(vps, target)
        assert (found["target"], found["reason"]) == (target, "scheduled")
        assert found["release"]["release"] == release
        assert {"mongo", "redis", "files"} == set(found["parts"])
        assert found["versions"]["restic"].startswith("0.18")
        assert found["versions"]["redis"].startswith("8.")
        users = found["mongo"]["collections"]["auth_db.users"]
        assert users["documents"] > 0
        assert len(users["checksum"]) == 64
    both = [manifest(vps, target) for target in ("store", "bucket")]
    assert both[0]["mongo"] == both[1]["mongo"]
    assert [one["parts"]["redis"]["sha256"] for one in both] == [both[0]["parts"]["redis"]["sha256"]] * 2
    certificates = vps.check_output("berth backup restic bucket -q --no-lock ls --recursive --tag part:files latest")
    assert re.search(r"/opt/berth/traefik/acme/[ab]/\S+\.json", certificates)


@pytest.mark.usefixtures("backed_up")
def test_no_log_and_no_other_account_sees_a_secret(vps: Host) -> None:
    known = json.loads(vps.check_output("cat /opt/berth/backup/secrets.json"))
    secrets = [known["password"], *(v for one in known["environment"].values() for v in one.values() if len(v) > 8)]
    assert len(secrets) == 3
    journal = vps.check_output("journalctl --no-pager --unit='berth-*'")
    assert not [secret for secret in secrets if secret in journal]
    assert vps.check_output("stat --format=%a /opt/berth/backup /opt/berth/backup/secrets.json").split() == [
        "700",
        "600",
    ]
    # The dump's password is read inside the container; no file of the dump stays anywhere.
    assert vps.run("ls /tmp/*.archive /var/tmp/*.archive /tmp/*.rdb").rc != 0


@pytest.mark.usefixtures("backed_up")
def test_whoever_steals_the_host_cannot_erase_history(vps: Host) -> None:
    before = runs(vps)["store"]
    thief = vps.run("berth backup restic store -q forget $(berth backup restic store list snapshots -q)")
    assert "403" in thief.stderr
    assert runs(vps)["store"] == before
    assert "store" not in json.loads(vps.check_output("berth backup forget"))["snapshots"]


@pytest.mark.long
@pytest.mark.usefixtures("backed_up")
def test_what_changed_is_saved_and_a_store_that_was_away_gets_it_when_it_is_back(
    vps: Host, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("store_away")
    mongo(vps, 'server.getDB("backup_test").notes.insertOne({text: "kept"})')
    refused = vps.run("berth backup oplog")
    assert refused.rc in (1, 75)
    assert "Target store (rest:" in json.loads(refused.stdout)["reason"]
    assert state(vps)["store"]["position"] != state(vps)["bucket"]["position"]
    metrics = vps.check_output("cat /var/lib/berth/metrics/berth_backup.prom")
    assert 'berth_backup_oplog_result{target="store"} 0' in metrics
    assert 'berth_backup_oplog_result{target="bucket"} 1' in metrics

    vps.check_output("nft delete table inet away")
    vps.check_output("berth backup oplog")
    assert state(vps)["store"]["position"] == state(vps)["bucket"]["position"]
    assert listed(vps)["store"][-1]["until"] == state(vps)["store"]["position"]


@pytest.mark.long
@pytest.mark.usefixtures("backed_up")
def test_an_oplog_that_has_rolled_over_leads_to_a_new_run(vps: Host) -> None:
    before = runs(vps)["bucket"][-1]
    vps.check_output(
        'sed -i \'s/"position": "[0-9.]*"/"position": "1000000000.1"/\' /var/lib/berth-backup/state.json && '
        'sed -i \'s/"attempt_at": [0-9.]*/"attempt_at": 0/\' /var/lib/berth-backup/state.json'
    )
    vps.check_output("berth backup oplog")
    # The timer's own increment may have come first, and be at it still.
    poll(lambda: runs(vps)["bucket"][-1] > before or None, 120, "a new run")
    assert manifest(vps, "store")["reason"] == "nothing to continue"


@pytest.mark.long
@pytest.mark.usefixtures("backed_up")
def test_a_database_that_is_restarted_during_a_backup_costs_nothing_but_that_run(
    vps: Host, mailbox: Mailbox, testbed: dict[str, str]
) -> None:
    operator = f"operator@{testbed['site']}"
    told = mailbox.count_for(operator)
    before = runs(vps)
    # Other tests may have used up this hour's mails about the unit.
    vps.check_output("systemctl reset-failed 'berth-failure-mail@berth-backup*'")
    # So that the dump takes a while.
    many = 'Array.from({length: 1000}, (_, n) => ({n, text: "x".repeat(4000)}))'
    mongo(vps, f'for (let n = 0; n < 5; n++) server.getDB("backup_test").many.insertMany({many})')
    vps.check_output("systemctl start --no-block berth-backup.service")
    poll(lambda: vps.run("pgrep --full '[m]ongodump --config'").rc == 0 or None, 60, "the dump to begin")
    vps.check_output("docker restart --time 1 berth-mongo-1")
    ended = "systemctl show --property=ActiveState --value berth-backup"
    poll(lambda: vps.check_output(ended) != "activating" or None, UNIT_SECONDS, "the run to end")
    if vps.check_output("systemctl show --property=Result --value berth-backup") != "success":
        assert runs(vps) == before
        poll(lambda: mailbox.count_for(operator) > told or None, 60, "a mail to the operator")
    healthy = "docker inspect --format '{{.State.Health.Status}}' berth-mongo-1"
    poll(lambda: vps.check_output(healthy) == "healthy" or None, 120, "the database to be healthy")
    assert vps.run("pgrep --full '[m]ongodump --config'").rc != 0
    vps.check_output("systemctl start berth-backup.service")
    # An increment may have one for as long as it takes.
    locks = "berth backup restic bucket list locks --no-lock -q"
    poll(lambda: vps.check_output(locks) == "" or None, 60, "no lock to be left")


@pytest.mark.usefixtures("backed_up")
def test_a_manual_backup_says_who_asked_for_it(vps: Host) -> None:
    status, said = operate(playbook("backup"))
    assert status == 0, said
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    for target, found in listed(vps).items():
        assert found[-1]["reason"] == manifest(vps, target)["reason"] == f"manual by {who}"
    assert json.loads(vps.check_output("berth backup status"))["history"][-1]["why"] == f"manual by {who}"
    # Nothing of it is left that an alert could be about.
    assert vps.check_output("systemctl list-units --all --no-legend 'berth-backup@*'") == ""


@pytest.mark.long
@pytest.mark.usefixtures("backed_up")
def test_a_collection_that_vanished_is_told(vps: Host) -> None:
    mongo(vps, 'server.getDB("backup_test").gone.insertOne({a: 1})')
    vps.check_output("systemctl start berth-backup.service")
    mongo(vps, 'server.getDB("backup_test").dropDatabase()')
    assert vps.run("systemctl start berth-backup.service").rc != 0
    assert "backup_test.gone, which was in the previous run, is missing in MongoDB" in vps.check_output(
        "berth backup status"
    )
    # Committed all the same, and not told twice.
    assert "backup_test.gone" not in manifest(vps, "bucket")["mongo"]["collections"]
    mongo(vps, 'server.getDB("backup_test").notes.insertOne({text: "between two runs"})')
    vps.check_output("systemctl start berth-backup.service")
    vps.check_output("systemctl start berth-backup-check.service")
    # No moment lies between two runs: the one before is led up to where this one begins.
    vps.check_output("berth backup oplog")
    assert listed(vps)["bucket"][-2]["until"] == manifest(vps, "bucket")["mongo"]["oplog"]["last"]
