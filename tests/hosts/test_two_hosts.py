"""Two whole hosts in one inventory: `make test-hosts`, beside `make test` since it provisions both."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.site.test_releases import build
from tests.support import ROOT

NAMES = ("hosts", "hosts-second")
STATE = ROOT / ".testbed"
PLAY_SECONDS = 1500

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(2 * PLAY_SECONDS)]


def play(*arguments: str, bed: str = NAMES[0]) -> tuple[int, str]:
    """Run a playbook; return its status and what an operator reads, without the line breaks of YAML."""
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "false",
        "BERTH_TESTBED": str(STATE / bed),
        "BERTH_TESTBED_SITE": f"{bed}.berth.test",
    }
    done = subprocess.run(
        ["ansible-playbook", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PLAY_SECONDS,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def both(playbook: str, **variables: object) -> tuple[int, str]:
    """Run a playbook of an operator's on both hosts."""
    quick = {"release_watch_seconds": 5, "stack_drain_seconds": 2, **variables}
    return play(playbook, "-i", "inventories/demo", "-i", "tests/hosts/second.yml", "-e", json.dumps(quick))


def live(bed: str) -> str:
    """Return which release answers whoever comes to the site of this host."""
    key = subprocess.check_output(
        ["docker", "exec", f"berth-{bed}-vps", "cat", "/opt/berth/releases/release-key"], text=True
    )
    asked = [
        "docker",
        "exec",
        f"berth-{bed}-outside",
        "curl",
        "-sk",
        f"-HX-Berth-Release-Key: {key}",
        "-o/dev/null",
        "-w%header{x-berth-release} %{http_code}",
    ]
    said = subprocess.run([*asked, f"https://{bed}.berth.test/"], check=True, capture_output=True, text=True).stdout
    release, _, status = said.split()
    assert status == "200"
    return release


def on_second(*command: str) -> str:
    run = ["docker", "exec", f"berth-{NAMES[1]}-vps", *command]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def first() -> Iterator[str]:
    """Both hosts, bare before, after one run of site.yml; the release that is live."""
    try:
        for bed in NAMES:
            code, said = play("molecule/shared/create.yml", bed=bed)
            assert code == 0, said[-2000:]
            files = {"env": "demo", "vault_file": f"{STATE}/{bed}/vault.yml"}
            files["vault_password_file"] = f"{STATE}/{bed}/vault-password"
            code, said = play("ansible/new_environment.yml", "-e", json.dumps(files), bed=bed)
            assert code == 0, said[-2000:]
        code, said = both("site.yml")
        assert code == 0, said[-3000:]
        yield live(NAMES[0])
    finally:
        for bed in NAMES:
            play("molecule/shared/destroy.yml", bed=bed)


def test_one_run_makes_both_and_a_second_run_changes_nothing(first: str) -> None:
    assert [live(bed) for bed in NAMES] == [first, first]
    code, said = both("site.yml")
    assert code == 0, said[-3000:]
    recap = said.rpartition("PLAY RECAP")[2]
    assert re.findall(r"(vps\S*) : ok=\d+ changed=(\d+)", recap) == [("vps", "0"), ("vps-second", "0")]


def test_a_release_and_the_way_back_reach_one_host_after_the_other(first: str) -> None:
    other = build(f"{first}-both", first)
    code, said = both("ansible/release.yml", release=other)
    assert code == 0, said[-3000:]
    assert said.index("[vps]") < said.index("[vps-second]")
    assert [live(bed) for bed in NAMES] == [other, other]
    code, said = both("ansible/rollback.yml")
    assert code == 0, said[-3000:]
    assert [live(bed) for bed in NAMES] == [first, first]


def test_where_the_second_refuses_the_first_keeps_the_release_and_the_next_run_finishes(first: str) -> None:
    other = build(f"{first}-later", first)
    # A program of a release holds this as long as it runs.
    guard = ["docker", "exec", f"berth-{NAMES[1]}-vps", "flock", "/opt/berth/releases/guard", "sleep", "600"]
    with subprocess.Popen(guard) as busy:
        try:
            code, said = both("ansible/release.yml", release=other)
        finally:
            on_second("pkill", "--full", "sleep 600")
            busy.wait()
    assert code != 0
    assert "and it is still running. Wait until it is done: sudo berth status" in said
    assert [live(bed) for bed in NAMES] == [other, first]
    code, said = both("ansible/release.yml", release=other)
    assert code == 0, said[-3000:]
    assert [live(bed) for bed in NAMES] == [other, other]
