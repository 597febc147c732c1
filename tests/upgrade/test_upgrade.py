"""From one version of Berth to the next: site.yml of this one, on a host of the one before, under load."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
from testinfra.host import Host

from tests.site.test_releases import live, load
from tests.site.test_restore import newest
from tests.support import ROOT, Mailbox, join
from tests.upgrade.conftest import play

DEMO = ("-i", "inventories/demo")


def changed(said: str) -> int:
    [(_, count)] = re.findall(r"\b(vps) : ok=\d+ changed=(\d+)", said.rpartition("PLAY RECAP")[2])
    return int(count)


def test_site_yml_takes_over_a_host_of_the_version_before(
    former: Path,
    http: httpx.Client,
    client: Callable[[], httpx.Client],
    mailbox: Mailbox,
    testbed: dict[str, str],
    vps: Host,
) -> None:
    """No request fails, accounts stay, a second run changes nothing, and the old backup can be restored."""
    before, _ = live(http)
    owner = join(http, mailbox)
    code, said = play(former, "ansible/backup.yml", *DEMO, backup="now")
    assert code == 0, said[-3000:]
    made = newest(vps, "store")["run"]

    with load(testbed, owner) as counted:
        code, said = play(ROOT, "site.yml", *DEMO)
    assert code == 0, said[-3000:]
    assert counted["failed"] == 0, counted["errors"]
    assert counted["requests"] > 500
    # Versions with the same sources of the application have the same release, and nothing to roll back to.
    newer = live(http)[0] != before
    assert owner.sign_in()
    code, said = play(ROOT, "site.yml", *DEMO)
    assert code == 0, said[-3000:]
    assert changed(said) == 0, said[-3000:]
    # The version after may not be replaced by the one before.
    assert vps.check_output("cat /etc/berth/version").strip() != ""

    with client() as other:
        later = join(other, mailbox)
    code, said = play(ROOT, "ansible/restore.yml", *DEMO, restore_run=made, confirm=testbed["site"])
    assert code == 0, said[-3000:]
    assert owner.sign_in()
    answer = http.post("/api/auth/login", json={"email": later.email, "password": later.password})
    assert answer.status_code == 401
    if newer:
        # Back to the release of before, whose images and compose file the host has kept.
        code, said = play(ROOT, "ansible/rollback.yml", *DEMO)
        assert code == 0, said[-3000:]
        assert live(http)[0] == before
        assert owner.sign_in()
