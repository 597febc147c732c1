"""What is missing or wrong is named before anything changes, and never leaves half a file behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support import ROOT

STATE = Path(os.environ.get("BERTH_TESTBED", ROOT / ".testbed" / "site")).resolve()

# What is found together is named together: each play takes its time. The rules themselves are tested without a host.
BAD = {
    "nothing filled in": (
        [
            "berth_domain=",
            '{"environment_secrets": {}}',
            "berth_smtp_host=",
            '{"vault_smtp_password": "it\'s"}',
        ],
        [
            *(
                "berth_domain",
                "vault_jwt_private_key",
                "vault_jwt_secret_key",
                "berth_smtp_host",
                "vault_smtp_password",
            ),
            "ansible/new_environment.yml",
        ],
    ),
    "the example's values": (
        [
            "berth_domain=not_a_domain",
            '{"environment_secrets": {"jwt_private_key": "replace-me", "jwt_secret_key": "replace-me"}}',
        ],
        ["berth_domain", "vault_jwt_private_key", "vault_jwt_secret_key"],
    ),
    "a domain that leads elsewhere": (["berth_domain=mail.berth.test"], ["mail.berth.test"]),
    "an unreachable authority": (
        ["traefik_acme_directory=https://nowhere.berth.test:9/dir"],
        ["traefik_acme_directory"],
    ),
    "a disk too small": (['{"docker_minimum_disk_mb": 900000000}'], ["docker_minimum_disk_mb"]),
    "a release that cannot be a tag": (['{"release": "v 1"}'], ["release"]),
    "a release nobody built": (["release=never-built"], ["never-built"]),
    "stand-in images": (['{"stack_stand_in_images": false}'], ["make images IMAGES=registry"]),
}
RARE = {
    "the example's values",
    "an unreachable authority",
    "a release that cannot be a tag",
    "stand-in images",
}
CASES = [pytest.param(*case, id=name, marks=[pytest.mark.long] if name in RARE else []) for name, case in BAD.items()]


def play(*arguments: str, state: Path = STATE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ansible-playbook", "site.yml", "-i", "inventories/demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "BERTH_TESTBED": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Return what the operator reads, on one line, once it is sure that nothing was changed."""
    assert done.returncode != 0
    assert not re.search(r"changed=[1-9]", done.stdout), "something was changed before the refusal"
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def environment_stays(vps: Host) -> object:
    """The .env of the host is the same file, to the byte, after the refusal."""
    before = vps.check_output("sha256sum /opt/berth/.env")
    yield
    assert vps.check_output("sha256sum /opt/berth/.env") == before


@pytest.mark.usefixtures("environment_stays")
@pytest.mark.parametrize(("values", "named"), CASES)
def test_it_is_named_before_anything_changes(values: list[str], named: list[str]) -> None:
    said = refusal(play(*(part for value in values for part in ("-e", value))))
    assert [name for name in named if name not in said] == [], said


@pytest.mark.usefixtures("environment_stays")
def test_a_wrong_vault_password_is_called_that(tmp_path: Path) -> None:
    for name in ("connection.json", "logs.json", "vault.yml"):
        shutil.copy(STATE / name, tmp_path)
    (tmp_path / "vault-password").write_text("not the password\n")
    assert "Decryption failed" in refusal(play(state=tmp_path))


def test_a_port_taken_by_another_program_is_named_with_the_program(vps: Host) -> None:
    try:
        vps.check_output("systemd-run --unit squatter --collect python3 -m http.server 80")
        vps.check_output("timeout 20 sh -c 'until ss -Hltn sport = :80 | grep -q .; do :; done'")
        said = refusal(play())
        assert "python3" in said
        assert "80" in said
    finally:
        vps.run("systemctl stop squatter")


def test_a_host_that_is_not_debian_is_refused(vps: Host) -> None:
    vps.check_output("cp -a /usr/lib/os-release /root/os-release.kept")
    try:
        vps.check_output("printf 'ID=fedora\\nNAME=Fedora\\nVERSION_ID=44\\n' > /usr/lib/os-release")
        vps.check_output("mv /etc/debian_version /root/debian_version.kept")
        assert "Debian" in refusal(play())
    finally:
        vps.check_output("cp -a /root/os-release.kept /usr/lib/os-release")
        vps.check_output("mv /root/debian_version.kept /etc/debian_version")


@pytest.mark.long
def test_a_full_disk_leaves_the_environment_whole(vps: Host) -> None:
    """The values change, there is no room to write them: the old file stays, whole."""
    before = vps.check_output("sha256sum /opt/berth/.env")
    unit = "/etc/systemd/system/berth-secrets.service"
    vps.check_output(f"cp -a {unit} /root/unit.kept")
    vps.check_output(
        "mkdir -p /mnt/small && mount -t tmpfs -o size=96k tmpfs /mnt/small && cp -a /opt/berth/.env /mnt/small/"
    )
    try:
        vps.check_output("sh -c 'dd if=/dev/zero of=/mnt/small/filler bs=1k 2>/dev/null || :'")
        done = play("--tags", "environment", "-e", "environment_root=/mnt/small", "-e", "environment_log_level=DEBUG")
        assert done.returncode != 0
        assert vps.check_output("sha256sum < /mnt/small/.env").split()[0] == before.split()[0]
    finally:
        vps.check_output("umount /mnt/small")
        # The unit has learnt of the other folder.
        vps.check_output(f"mv /root/unit.kept {unit} && systemctl daemon-reload && systemctl restart berth-secrets")
