"""Secrets in OpenBao, AWS Secrets Manager, SOPS and behind a command: written, read, and each way in which that fails.

The servers are real: OpenBao's own, and moto's for AWS.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from tests.support import PLAIN, ROOT, copy_of_the_project, poll
from tests.terminal import on_terminal

pytestmark = pytest.mark.integration
SECONDS = 120
BIN = ROOT / ".venv/bin"
AWS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
NEW = ("ansible-playbook", "ansible/new_environment.yml", "-e", "env=production")
RIGHT = {"host": "192.0.2.1", "domain": "www.x-shop.net", "mail": "ada@x-shop.net", "smtp": "smtp.x-shop.net"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(url: str) -> bool | None:
    """Return whether something answers there, whatever it says; none for nothing."""
    try:
        return httpx.get(url, timeout=5).status_code > 0
    except httpx.HTTPError:
        return None


@dataclass
class Site:
    """A clone in which production gets its secrets from a manager."""

    clone: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def main(self) -> Path:
        return self.clone / "inventories/production/group_vars/all/main.yml"

    def managed_by(self, setting: dict[str, Any]) -> None:
        line = f"berth_secret_manager: {json.dumps(setting)}"
        text, count = re.subn(r"^berth_secret_manager: .*$", lambda _: line, self.main.read_text(), flags=re.MULTILINE)
        assert count == 1
        self.main.write_text(text)

    def play(self, *words: str, **environ: str) -> tuple[int | None, str]:
        """Run a command at a terminal; return its status and what a person reads, without line breaks."""
        given = {**PLAIN, "HOME": str(self.clone.parent), "ANSIBLE_CONFIG": str(self.clone / "ansible.cfg")}
        given |= {**self.environ, **environ}
        seen = on_terminal([*words], self.clone, SECONDS, environment=given)
        return seen.status, seen.line

    def make(self) -> str:
        words = [word for name, value in RIGHT.items() for word in ("-e", f"{name}={value}")]
        key = ["-e", f"key={self.clone.parent}/.ssh/id_ed25519.pub"]
        code, screen = self.play(
            "ansible-playbook", "ansible/new_environment.yml", "-e", "env=production", *words, *key
        )
        assert code == 0, screen
        return screen

    def preflight(self, **environ: str) -> tuple[int | None, str]:
        return self.play("ansible-playbook", "ansible/preflight.yml", "-i", "inventories/production", **environ)

    def refused(self, sentence: str, **environ: str) -> None:
        """Each playbook refuses with this sentence, before it contacts a host."""
        code, screen = self.preflight(**environ)
        assert code != 0, screen
        assert sentence in screen
        assert "Traceback" not in screen

    def value(self, name: str) -> str:
        """Return what a role would get."""
        ask = ["ansible", "-i", "inventories/production", "all", "-c", "local", "-m", "ansible.builtin.debug", "-a"]
        environ = {**PLAIN, "ANSIBLE_CONFIG": str(self.clone / "ansible.cfg"), **self.environ}
        environ |= {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline", "HOME": str(self.clone.parent)}
        ask = [*ask, f"msg=<{{{{ {name} }}}}>"]
        done = subprocess.run(ask, cwd=self.clone, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.partition("<")[2].rpartition(">")[0]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    clone = tmp_path / "our site"
    clone.mkdir()
    copy_of_the_project(clone)
    for name in ("hosts.yml", "main.yml"):
        there = clone / "inventories/production" / ("" if name == "hosts.yml" else "group_vars/all")
        shutil.copy(ROOT / "ansible/files/environment" / name, there)
    (tmp_path / ".ssh").mkdir(mode=0o700)
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada@laptop", "-f", str(tmp_path / ".ssh/id_ed25519")]
    subprocess.run(key, check=True)
    return Site(clone)


@dataclass(frozen=True)
class Bao:
    """A server of OpenBao, in memory, and its program."""

    url: str
    token: str

    def __call__(self, *words: str) -> str:
        environ = {**os.environ, "BAO_ADDR": self.url, "BAO_TOKEN": self.token}
        done = subprocess.run([BIN / "bao", *words], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def secrets(self) -> dict[str, Any]:
        return dict(json.loads(self("kv", "get", "-format=json", "secret/berth/production"))["data"]["data"])


@pytest.fixture
def bao() -> Iterator[Bao]:
    port = free_port()
    url, token = f"http://127.0.0.1:{port}", "test-root-token"
    command = [f"{BIN}/bao", "server", "-dev", f"-dev-listen-address=127.0.0.1:{port}"]
    # Otherwise it writes its token into the home directory.
    command += [f"-dev-root-token-id={token}", "-dev-no-store-token"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            poll(lambda: answers(f"{url}/v1/sys/health"), SECONDS, "OpenBao did not start")
            yield Bao(url, token)
        finally:
            server.terminate()


@dataclass(frozen=True)
class Moto:
    """moto's stand-in for AWS."""

    url: str

    def call(self, method: str, **arguments: Any) -> Any:
        import boto3

        client = boto3.client(
            "secretsmanager",
            region_name="eu-central-1",
            endpoint_url=self.url,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        return getattr(client, method)(**arguments)

    def secrets(self) -> dict[str, Any]:
        return dict(json.loads(self.call("get_secret_value", SecretId="berth/production")["SecretString"]))


@pytest.fixture
def moto() -> Iterator[Moto]:
    port = free_port()
    command = [f"{BIN}/moto_server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            poll(lambda: answers(f"http://127.0.0.1:{port}/"), SECONDS, "moto did not start")
            yield Moto(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()


def age_key(folder: Path) -> tuple[Path, str]:
    """Make a key of age; return its file and its public key."""
    file = folder / "age.txt"
    subprocess.run(["age-keygen", "-o", str(file)], capture_output=True, check=True)
    return file, next(line.rpartition(" ")[2] for line in file.read_text().splitlines() if "public key" in line)


def nowhere_in_clear(site: Site, secret: str) -> None:
    """No file of the clone, of its owner's home, or of Ansible's holds the secret."""
    found = [
        str(file)
        for file in site.clone.parent.rglob("*")
        if file.is_file() and not file.is_symlink() and secret.encode() in file.read_bytes()
    ]
    assert found == []


def test_openbao_gets_the_secrets_of_a_new_environment_and_gives_them_to_playbooks(site: Site, bao: Bao) -> None:
    site.environ = {"BAO_TOKEN": bao.token}
    site.managed_by({"type": "hashi_vault", "url": bao.url, "path": "berth/production"})
    site.refused("No secret is there. ansible/new_environment.yml generates all secrets and writes them there")

    said = site.make()
    assert f"Secrets: berth_secret_manager (hashi_vault, {bao.url}, berth/production)" in said
    assert "Vault password" not in said
    written = bao.secrets()
    assert set(written) >= {"vault_mongo_root_password", "vault_jwt_private_key", "vault_backup_password"}
    assert site.value("vault_backup_password") == written["vault_backup_password"]
    assert site.preflight()[0] == 0
    assert not (site.clone / ".vault-password").exists()
    assert not (site.main.parent / "vault.yml").exists()
    nowhere_in_clear(site, written["vault_backup_password"])

    assert "(nothing new)" in site.make()
    assert bao.secrets() == written
    bao("kv", "patch", "secret/berth/production", "vault_smtp_password={{ not a template }}")
    assert site.value("vault_smtp_password") == "{{ not a template }}"


def test_openbao_refuses_in_a_sentence(site: Site, bao: Bao) -> None:
    setting = {"type": "hashi_vault", "url": bao.url, "path": "berth/production"}
    site.managed_by(setting)
    bao("kv", "put", "secret/berth/production", "vault_backup_password=x")
    site.refused("No Vault Token specified or discovered. Sign in (bao login, or vault login), or set VAULT_TOKEN")

    short = json.loads(bao("token", "create", "-ttl=1s", "-format=json"))["auth"]["client_token"]
    lookup = [BIN / "bao", "token", "lookup", short]
    environ = {**os.environ, "BAO_ADDR": bao.url, "BAO_TOKEN": bao.token}
    poll(
        lambda: subprocess.run(lookup, env=environ, capture_output=True, check=False).returncode or None,
        SECONDS,
        "the token did not expire",
    )
    site.refused("The token has expired or is unknown: sign in again", BAO_TOKEN=short)
    weak = json.loads(bao("token", "create", "-policy=default", "-format=json"))["auth"]["client_token"]
    site.refused("The token has no policy to read it", VAULT_TOKEN=weak)

    site.environ = {"BAO_TOKEN": bao.token}
    site.managed_by(setting | {"ca_crt": "x"})
    site.refused("it has an unknown key ca_crt")
    site.managed_by({"type": "hashi_vault"})
    site.refused("of type hashi_vault lacks path")
    site.managed_by({"type": "vault"})
    site.refused("has the type 'vault', but must have one of: hashi_vault, aws, sops, command")
    bao("kv", "put", "secret/berth/production", "password=x")
    site.managed_by(setting)
    site.refused("holds password: every name in it has to begin with vault_")
    bao("operator", "seal")
    site.refused("Unseal the server: bao operator unseal")
    site.managed_by(setting | {"url": f"http://127.0.0.1:{free_port()}"})
    site.refused("Connection refused. It cannot be reached from here: check url and network")


def test_secrets_of_a_vault_file_move_to_the_manager_and_no_name_counts_twice(site: Site, bao: Bao) -> None:
    site.environ = {"BAO_TOKEN": bao.token}
    site.make()
    file = site.main.parent / "vault.yml"
    before = site.value("vault_backup_password")
    site.managed_by({"type": "hashi_vault", "url": bao.url, "path": "berth/production"})
    assert f"The secret manager has its secrets now; remove {file}" in site.make()
    assert bao.secrets()["vault_backup_password"] == before
    site.refused("vault.yml as well as in berth_secret_manager")
    file.unlink()
    (site.clone / ".vault-password").unlink()
    assert site.preflight()[0] == 0
    assert site.value("vault_backup_password") == before


def test_aws_gets_and_gives_the_secrets_and_refuses_in_a_sentence(site: Site, moto: Moto) -> None:
    setting = {"type": "aws", "name": "berth/production", "region": "eu-central-1", "endpoint_url": moto.url}
    site.managed_by(setting)
    site.refused("No credentials: sign in (aws sso login)", AWS_EC2_METADATA_DISABLED="true")
    site.environ = AWS
    site.refused("There is no such secret. ansible/new_environment.yml generates all secrets")
    site.make()
    written = moto.secrets()
    assert site.value("vault_backup_password") == written["vault_backup_password"]
    assert site.preflight()[0] == 0
    nowhere_in_clear(site, written["vault_backup_password"])
    assert "(nothing new)" in site.make()
    assert moto.secrets() == written

    moto.call("put_secret_value", SecretId="berth/production", SecretString="no json: [")
    site.refused("its content is neither YAML nor JSON")
    moto.call("delete_secret", SecretId="berth/production")
    site.refused("Cancel its deletion: aws secretsmanager restore-secret")
    site.managed_by(setting | {"endpoint_url": f"http://127.0.0.1:{free_port()}"})
    site.refused("It cannot be reached from here: check region, endpoint_url and network")


def test_sops_gets_and_gives_the_secrets_and_refuses_in_a_sentence(site: Site, tmp_path: Path) -> None:
    key, public = age_key(tmp_path)
    (tmp_path / "keys").mkdir()
    key = key.rename(tmp_path / "keys" / key.name)
    site.managed_by({"type": "sops", "file": "secrets.sops.yml", "age": [public]})
    site.refused("secrets.sops.yml does not exist. ansible/new_environment.yml generates all secrets")
    site.environ = {"SOPS_AGE_KEY_FILE": str(key)}
    site.make()
    file = site.clone / "inventories/production/secrets.sops.yml"
    plain = subprocess.run(
        [BIN / "sops", "decrypt", file], env={**os.environ, **site.environ}, capture_output=True, text=True, check=True
    ).stdout
    written = yaml.safe_load(plain)
    assert site.value("vault_backup_password") == written["vault_backup_password"]
    code, screen = site.preflight()
    assert code == 0
    assert "WARNING" not in screen
    nowhere_in_clear(site, written["vault_backup_password"])
    assert "(nothing new)" in site.make()

    site.environ = {}
    site.refused("No key here decrypts it: set SOPS_AGE_KEY_FILE")
    site.refused("The program sops is not installed, or not in PATH", PATH=without_sops(tmp_path))
    site.environ = {"SOPS_AGE_KEY_FILE": str(key)}
    file.write_text(
        file.read_text().replace("type:str]", "type:str]", 1).replace("vault_jwt_secret_key", "vault_other", 1)
    )
    site.refused("The file was changed after its encryption")
    file.write_text("vault_backup_password: x\n")
    site.refused("It is not encrypted: sops encrypt --in-place")


def without_sops(folder: Path) -> str:
    """Return a PATH with all programs but this one."""
    there = folder / "bin"
    there.mkdir()
    for place in reversed(os.environ["PATH"].split(":")):
        for program in Path(place).glob("*"):
            if program.name != "sops":
                (there / program.name).unlink(missing_ok=True)
                (there / program.name).symlink_to(program)
    return str(there)


def test_any_command_gives_and_gets_the_secrets(site: Site, tmp_path: Path) -> None:
    store = tmp_path / "store.json"
    read = f"sh -c 'cat {store} 2>/dev/null || true'"
    site.managed_by({"type": "command", "read": read})
    given = [word for name, value in RIGHT.items() for word in ("-e", f"{name}={value}")]
    code, screen = site.play(*NEW, *given, "-e", f"key={tmp_path}/.ssh/id_ed25519.pub")
    assert code != 0
    assert "has no command `write`" in screen
    assert "vault_mongo_root_password" in screen

    site.managed_by({"type": "command", "read": read, "write": ["sh", "-c", f"umask 077; cat > {store}"]})
    site.make()
    assert site.value("vault_backup_password") == json.loads(store.read_text())["vault_backup_password"]
    assert site.preflight()[0] == 0
    site.managed_by({"type": "command", "read": "sh -c 'echo the store is locked >&2; exit 3'"})
    site.refused("the store is locked")
    site.refused("its exit status is 3")


def test_the_doctor_names_what_a_secret_manager_lacks(site: Site) -> None:
    site.make()
    (site.main.parent / "vault.yml").unlink()
    site.managed_by({"type": "hashi_vault", "url": f"http://127.0.0.1:{free_port()}", "path": "berth/production"})
    code, screen = site.play(
        "ansible-playbook", "ansible/doctor.yml", "-i", "inventories/production", BAO_TOKEN="x", ANSIBLE_TIMEOUT="2"
    )
    assert code != 0
    assert "Connection refused. It cannot be reached from here: check url and network" in screen
