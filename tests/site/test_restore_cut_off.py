"""A restore that loses its controller, its program or its host ends done or as before, and says so."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.site.test_release_faults import RUN, in_phase, kill, lose_power, reached
from tests.site.test_releases import live
from tests.site.test_restore import berth_backup, emails, mongo, register
from tests.support import Mailbox, begin, playbook, poll

pytestmark = pytest.mark.timeout(600)

END_SECONDS = 240
SERVICES = {"auth_service", "user_service", "celery_worker", "beat", "frontend"}


@pytest.fixture(scope="module")
def saved(vps: Host) -> str:
    """A run on both repositories."""
    vps.check_output("systemctl start berth-backup.service")
    return str(berth_backup(vps, "status")[1]["targets"]["bucket"]["run"])


@pytest.fixture
def late(http: httpx.Client, saved: str) -> str:
    """An account that the run does not know."""
    assert saved
    return register(http)["email"]


def start(site: str, run: str, **variables: object) -> subprocess.Popen[str]:
    return begin(playbook("restore", confirm=site, restore_run=run, **variables))


def ended(vps: Host, http: httpx.Client) -> dict[str, Any]:
    """Wait until nothing is under way; what was live serves again. Return the restore's line of the history."""
    poll(lambda: vps.run(f"test -e {RUN}").rc or None, END_SECONDS, "the end of the restore")
    _, colour = live(http)
    names = set(vps.check_output("docker ps --format '{{.Names}}'").split())
    assert {f"berth-{colour}-{name}-1" for name in SERVICES} <= names
    poll(lambda: http.get("/api/users/openapi.json").status_code == 200 or None, 60, "the site")
    staged = 'admin.getSiblingDB("auth_db").getCollectionNames().filter((one) => one.startsWith("berth_restore"))'
    assert mongo(vps, staged) == []
    assert vps.check_output("docker ps --all --quiet --filter label=berth.scratch") == ""
    lines = [json.loads(line) for line in vps.check_output("cat /var/lib/berth-backup/history.jsonl").splitlines()]
    return dict([line for line in lines if line["verb"] == "restore"][-1])


def test_a_restore_whose_controller_goes_away_is_done_and_holds_the_one_lock(
    vps: Host, http: httpx.Client, testbed: dict[str, str], saved: str, late: str, mailbox: Mailbox
) -> None:
    mails = len(mailbox.about("berth-restore.service failed"))
    controller = start(testbed["site"], saved)
    reached(vps, in_phase("preparing"))
    kill(controller)
    # Whoever comes meanwhile is refused, and told whose turn it is.
    done = vps.run("berth release begin --by bob@laptop 9.9")
    assert done.rc == 1
    assert "has been running restore everything since" in json.loads(done.stdout)["reason"]
    code, said = berth_backup(vps, "restore", saved, "--by=bob@laptop")
    assert code == 1
    assert "has been running restore everything since" in said["reason"]

    line = ended(vps, http)
    assert line["result"] == "done"
    assert "-e restore_run=" in line["safety_copy"]
    assert late not in emails(vps)
    assert len(mailbox.about("berth-restore.service failed")) == mails


@pytest.mark.long
@pytest.mark.parametrize(
    ("phase", "result"),
    [("filling", "as before"), ("swapping", "done"), ("closing", "as before")],
)
def test_a_restore_whose_program_is_killed_is_settled_at_once(
    vps: Host, http: httpx.Client, testbed: dict[str, str], saved: str, late: str, phase: str, result: str
) -> None:
    controller = start(testbed["site"], saved, restore_database="auth_db")
    reached(vps, in_phase(phase), "systemctl kill --signal=KILL berth-restore.service")
    said, _ = controller.communicate(timeout=END_SECONDS)
    assert ended(vps, http)["result"] == result
    assert (late in emails(vps)) == (result == "as before")
    assert ("Everything is as it was before" in said) == (result == "as before"), said[-2000:]
    assert (controller.returncode == 0) == (result == "done")


@pytest.mark.long
@pytest.mark.parametrize(("phase", "result"), [("filling", "as before"), ("swapping", "done")])
def test_a_host_that_loses_its_power_in_a_restore_settles_it_when_it_is_back(
    vps: Host, http: httpx.Client, testbed: dict[str, str], saved: str, late: str, phase: str, result: str
) -> None:
    controller = start(testbed["site"], saved)
    reached(vps, in_phase(phase))
    lose_power(http, vps, testbed, controller)
    assert ended(vps, http)["result"] == result
    assert (late in emails(vps)) == (result == "as before")


def test_what_is_refused_mails_nobody_and_leaves_no_unit_behind(vps: Host, mailbox: Mailbox) -> None:
    mails = len(mailbox.about("berth-restore.service failed"))
    code, said = berth_backup(vps, "restore", "20010101T000000Z-none", "--by=ada@laptop")
    assert code == 1
    assert "There is no run 20010101T000000Z-none" in said["reason"]
    assert vps.run(f"test -e {RUN}").rc != 0
    assert vps.run("systemctl is-failed berth-restore.service").rc != 0
    assert len(mailbox.about("berth-restore.service failed")) == mails
