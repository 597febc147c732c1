"""Secrets change under load: no request fails, nobody is signed out, and the former values are refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.site.test_releases import live, load, requests
from tests.support import PLAIN, ROOT, Visitor

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def rotate(secret: str, **variables: object) -> tuple[int, str]:
    """Run the playbook as an operator does, with where the demo keeps its vault."""
    folder = ROOT / ".testbed/site"
    own = {"secret": secret, "rotate_vault_file": f"{folder}/vault.yml", "release_watch_seconds": 5}
    own |= {"rotate_vault_password_file": f"{folder}/vault-password", "stack_drain_seconds": 2, **variables}
    command = ["ansible-playbook", "ansible/rotate.yml", "-i", "inventories/demo", "-e", json.dumps(own)]
    done = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False, timeout=600)
    print(done.stdout + done.stderr)
    return done.returncode, done.stdout + done.stderr


def env(vps: Host) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z0-9_]+)='(.*)'$", vps.check_output("cat /opt/berth/.env"), re.MULTILINE))


def refused(vps: Host, former: dict[str, str]) -> set[str]:
    told = json.dumps(former)
    return set(json.loads(vps.check_output("printf %%s %s | berth secrets refused", told)).values())


def test_passwords_of_databases_change_under_load(
    http: httpx.Client, visitor: Visitor, testbed: dict[str, Any], vps: Host
) -> None:
    before, former = live(http), env(vps)
    header = visitor.sign_in()
    with load(testbed, visitor) as counted:
        code, said = rotate("databases,database_admins")
    assert code == 0, said
    assert (counted["failed"], counted["closed"]) == (0, 0), counted["errors"]
    assert "the former values are refused" in said
    # The same release, started anew.
    assert live(http)[0] == before[0]
    assert live(http)[1] != before[1]
    now = env(vps)
    names = [name for name in former if re.fullmatch(r"(MONGO|REDIS)_\w+_PASSWORD", name)]
    assert len(names) >= 5
    assert not [name for name in names if former[name] == now[name]]
    assert refused(vps, {name.lower(): former[name] for name in names}) == {"refused"}
    assert refused(vps, {name.lower(): now[name] for name in names}) == {"accepted"}
    # A signed-in user stays signed in, by token and by cookie.
    assert http.get("/api/users/me", headers=header).status_code == 200
    assert http.post("/api/auth/refresh").status_code == 200
    ages = vps.check_output("berth secrets ages")
    assert re.search(r" 0 days +mongo_root_password", ages)
    assert vps.check_output("berth status --json | grep -c '\"problems\": \\[\\]'") == "1"


def test_token_keys_change_under_load_and_nobody_is_signed_out(
    http: httpx.Client, visitor: Visitor, testbed: dict[str, Any], vps: Host
) -> None:
    former = env(vps)["JWT_PUBLIC_KEYS"]
    header = visitor.sign_in()
    # With tokens that are younger than what the play waits, here a minute.
    plan = {"email": visitor.email, "password": visitor.password, "sign_in_seconds": 20}
    with requests(testbed, **plan) as counted:
        code, said = rotate("token_keys", rotate_token_minutes=1)
    assert code == 0, said
    assert (counted["failed"], counted["closed"]) == (0, 0), counted["errors"]
    assert former not in env(vps)["JWT_PUBLIC_KEYS"]
    # Its key was forgotten before this one expired, and the session goes on by its cookie.
    assert http.get("/api/users/me", headers=header).status_code == 401
    token = http.post("/api/auth/refresh").raise_for_status().json()["access_token"]
    assert http.get("/api/users/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_in_an_emergency_a_former_password_is_refused_within_a_minute(http: httpx.Client, vps: Host) -> None:
    former = env(vps)["REDIS_AUTH_SERVICE_PASSWORD"]
    began = time.time()
    code, said = rotate("vault_redis_auth_service_password", rotate_emergency=True, stack_drain_seconds=60)
    assert code == 0, said
    assert refused(vps, {"redis_auth_service_password": former}) == {"refused"}
    assert time.time() - began < 60
    assert http.get("/api/users/openapi.json").status_code == 200


def test_a_rotation_that_is_cut_off_is_finished_by_the_next_run_of_site_yml(
    http: httpx.Client, visitor: Visitor, vps: Host
) -> None:
    former = env(vps)["MONGO_AUTH_SERVICE_PASSWORD"]
    # MongoDB is away when it should take the new password, and so does the play end half-way.
    vps.check_output("docker pause berth-mongo-1")
    try:
        code, said = rotate("vault_mongo_auth_service_password")
    finally:
        vps.check_output("docker unpause berth-mongo-1")
    assert code != 0
    assert "MongoDB did not take its new passwords" in said
    assert env(vps)["MONGO_AUTH_SERVICE_PASSWORD"] != former
    visitor.sign_in()
    done = subprocess.run(
        ["ansible-playbook", "site.yml", "-i", "inventories/demo", "-e", f"release={live(http)[0]}"],
        cwd=ROOT,
        env=PLAIN,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert refused(vps, {"mongo_auth_service_password": former}) == {"refused"}
    visitor.sign_in()


def test_the_passwords_of_backups_and_dashboards_change(vps: Host) -> None:
    code, said = rotate("backup_password,monitoring_login")
    assert code == 0, said
    assert "restic key remove" in said
    vps.check_output("systemctl start berth-backup.service")
    ages = vps.check_output("berth secrets ages")
    assert re.search(r" 0 days +backup_password", ages)
    assert re.search(r" 0 days +monitoring_login", ages)


def test_a_value_that_somebody_else_gives_reaches_what_reads_it(http: httpx.Client, vps: Host, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("what-the-provider-gave\n")
    code, said = rotate("vault_smtp_password", rotate_value_file=str(tmp_path / "new"))
    assert code == 0, said
    assert "what-the-provider-gave" not in said
    for service in ("celery_worker", "monitoring"):
        assert vps.check_output(f"cat /run/berth/secrets/{service}/smtp_password") == "what-the-provider-gave"
    colour = live(http)[1]
    inside = vps.check_output(f"docker exec berth-{colour}-celery_worker-1 cat /run/secrets/smtp_password")
    assert inside == "what-the-provider-gave"


def test_the_ssh_key_of_an_administrator_changes(testbed: dict[str, Any], tmp_path: Path, vps: Host) -> None:
    # An inventory as an operator has it, with the key itself.
    own, other = tmp_path / "own", tmp_path / "other"
    shutil.copytree(ROOT / "inventories/demo", tmp_path / "demo")
    settings = tmp_path / "demo/group_vars/all/main.yml"
    for key in (own, other):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    first = Path(testbed["ansible_ssh_private_key_file"])
    key_of = "{{ lookup('ansible.builtin.file', testbed.ansible_ssh_private_key_file ~ '.pub') }}"
    former = first.with_suffix(".pub").read_text().strip()
    assert key_of in settings.read_text()
    settings.write_text(settings.read_text().replace(key_of, former))

    def change(new: Path, using: Path) -> tuple[int, str]:
        known = {"secret": "ssh_key", "rotate_public_key": f"{new}.pub"}
        hosts = (ROOT / "inventories/demo/hosts.yml").read_text()
        (tmp_path / "demo/hosts.yml").write_text(
            hosts.replace("{{ testbed.ansible_ssh_private_key_file }}", str(using))
        )
        command = ["ansible-playbook", "ansible/rotate.yml", "-i", str(tmp_path / "demo"), "-e", json.dumps(known)]
        done = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False, timeout=300)
        return done.returncode, done.stdout + done.stderr

    # A key whose private part is not here does not log in, and the former one stays.
    other.unlink()
    code, said = change(other, first)
    assert code != 0
    assert "The former one is still valid" in said
    keys = "/home/admin/.ssh/authorized_keys"
    assert former.split()[1] in vps.check_output(f"cat {keys}")
    assert other.with_suffix(".pub").read_text().split()[1] not in vps.check_output(f"cat {keys}")

    try:
        code, said = change(own, first)
        assert code == 0, said
        assert former.split()[1] not in vps.check_output(f"cat {keys}")
        assert own.with_suffix(".pub").read_text().strip() in settings.read_text()
        assert former not in settings.read_text()
    finally:
        code, said = change(first, own)
    assert code == 0, said


def test_what_cannot_be_rotated_is_named_before_anything_changes(vps: Host) -> None:
    before = env(vps)
    for secret, why in (
        ("nothing", "write one of databases, database_admins"),
        ("vault_mongo_keyfile", "this one has one member"),
        ("vault_shop_key", "No new value of vault_shop_key was given"),
    ):
        code, said = rotate(secret, rotate_value_file="/dev/null")
        assert code != 0
        assert why in " ".join(said.split())
        assert "changed=0" in said
    assert env(vps) == before
