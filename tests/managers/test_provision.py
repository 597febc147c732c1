"""A bare host provisioned with secrets from OpenBao, and the same ones from AWS and SOPS: `make test-managers`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import PLAIN, ROOT
from tests.test_secret_managers import AWS, Bao, Moto, age_key, bao, moto

__all__ = ["bao", "moto"]

BED = ROOT / ".testbed/managers"
ENV = "managed"
FOLDER = ROOT / "inventories" / ENV
PLAY_SECONDS = 1500

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(3 * PLAY_SECONDS)]


def play(*arguments: str, **environ: str) -> tuple[int, str]:
    """Run a playbook; return its status and what an operator reads, without line breaks."""
    known = {**PLAIN, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "BERTH_TESTBED": str(BED), **environ}
    command = ["ansible-playbook", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=PLAY_SECONDS, check=False
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def managed_by(setting: dict[str, Any]) -> None:
    """Write the demo's inventory, with a secret manager in place of its vault file."""
    demo = ROOT / "inventories/demo"
    (FOLDER / "group_vars/all").mkdir(parents=True, exist_ok=True)
    shutil.copy(demo / "hosts.yml", FOLDER)
    text = (demo / "group_vars/all/main.yml").read_text()
    (FOLDER / "group_vars/all/main.yml").write_text(f"{text}\nberth_secret_manager: {json.dumps(setting)}\n")


def new_environment(**environ: str) -> None:
    code, said = play("ansible/new_environment.yml", "-e", f"env={ENV}", **environ)
    assert code == 0, said[-3000:]


def site(**environ: str) -> tuple[int, str]:
    return play("site.yml", "-i", str(FOLDER.relative_to(ROOT)), **environ)


def changed(said: str) -> int:
    return int(re.findall(r"\bvps : ok=\d+ changed=(\d+)", said.rpartition("PLAY RECAP")[2])[0])


@pytest.fixture
def bed() -> Iterator[None]:
    """A bare VPS, and an inventory for it; both removed afterwards."""
    try:
        code, said = play("molecule/shared/create.yml")
        assert code == 0, said[-3000:]
        yield
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
        play("molecule/shared/destroy.yml")


def env_of(host: str = "berth-managers-vps") -> bytes:
    return subprocess.check_output(["docker", "exec", host, "cat", "/opt/berth/.env"])


@pytest.mark.usefixtures("bed")
def test_a_host_gets_its_secrets_from_each_manager(bao: Bao, moto: Moto, tmp_path: Path) -> None:
    """The first run provisions; with the same secrets elsewhere, nothing changes. A missing one changes nothing."""
    managed_by({"type": "hashi_vault", "url": bao.url, "path": "berth/production"})
    new_environment(BAO_TOKEN=bao.token)
    code, said = site(BAO_TOKEN=bao.token)
    assert code == 0, said[-3000:]
    assert changed(said) > 100
    secrets = bao.secrets()
    written = env_of()
    assert secrets["vault_mongo_root_password"].encode() in written

    without = {name: value for name, value in secrets.items() if name != "vault_mongo_root_password"}
    place = tmp_path / "without.json"
    place.write_text(json.dumps(without))
    bao("kv", "put", "secret/berth/production", f"@{place}")
    code, said = site(BAO_TOKEN=bao.token)
    assert code != 0
    assert "vault_mongo_root_password" in said
    assert changed(said) == 0
    assert env_of() == written
    code, said = site(BAO_TOKEN="expired")
    assert code != 0
    assert "The token has expired or is unknown" in said
    assert "PLAY RECAP" not in said

    aws = {"type": "aws", "name": "berth/production", "region": "eu-central-1", "endpoint_url": moto.url}
    managed_by(aws)
    moto.call("create_secret", Name="berth/production", SecretString=json.dumps(secrets))
    code, said = site(**AWS)
    assert code == 0, said[-3000:]
    assert changed(said) == 0, said[-3000:]

    key, public = age_key(tmp_path)
    managed_by({"type": "sops", "file": "secrets.sops.yml", "age": [public]})
    plain = tmp_path / "plain.sops.json"
    plain.write_text(json.dumps(secrets))
    encrypt = ["sops", "encrypt", "--age", public, "--output-type", "yaml", str(plain)]
    encrypted = subprocess.check_output(encrypt, env={**os.environ, "SOPS_AGE_KEY_FILE": str(key)})
    (FOLDER / "secrets.sops.yml").write_bytes(encrypted)
    code, said = site(SOPS_AGE_KEY_FILE=str(key))
    assert code == 0, said[-3000:]
    assert changed(said) == 0, said[-3000:]
    assert env_of() == written
