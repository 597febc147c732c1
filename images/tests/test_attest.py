"""Signed statements: who signs, with which key, and that a host accepts what is signed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import attest
from berth.supply.identity import identity
from berth.supply.statement import STATEMENT, Statement

WEB: dict[str, Any] = {
    "Id": "sha256:1",
    "Os": "linux",
    "Architecture": "amd64",
    "RootFS": {"Layers": ["sha256:a"]},
    "Config": {"User": "10001"},
}


def pem(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    text: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return text.decode()


KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(attest.KEY_VARIABLE, raising=False)
    folder = tmp_path / "inventories/production/group_vars/all"
    folder.mkdir(parents=True)
    (folder / "main.yml").write_text(yaml.safe_dump({"berth_signing_keys": [attest.public_key(KEY) + "\n"]}))
    (folder / "vault.yml").write_text(yaml.safe_dump({attest.VAULT_VARIABLE: pem(KEY)}))
    (tmp_path / "inventories/production/hosts.yml").write_text("berth: {hosts: {production: }}")
    return tmp_path


def test_the_key_is_that_of_the_vault(project: Path) -> None:
    assert attest.public_key(attest.private_key("production", project)) == attest.public_key(KEY)


def test_the_key_is_that_of_the_secret_manager(project: Path) -> None:
    folder = project / "inventories/production/group_vars/all"
    (folder / "vault.yml").rename(project / "elsewhere.yml")
    with (folder / "main.yml").open("a") as main:
        main.write(f"berth_secret_manager: {{type: command, read: [cat, {project}/elsewhere.yml]}}\n")
    plugins = Path(attest.__file__).parents[1] / "ansible/plugins/vars"
    (project / "ansible.cfg").write_text(
        f"[defaults]\nvars_plugins = {plugins}\nvars_plugins_enabled = secret_manager, host_group_vars\n"
    )
    assert attest.public_key(attest.private_key("production", project)) == attest.public_key(KEY)


def test_a_pipeline_gives_the_key_in_its_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "inventories/production/group_vars/all/vault.yml").unlink()
    monkeypatch.setenv(attest.KEY_VARIABLE, pem(KEY))
    assert attest.public_key(attest.private_key("production", project)) == attest.public_key(KEY)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("no key", "is no private key"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "must be an ECDSA key on the curve P-256"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "berth_signing_keys does not list this key"),
    ],
)
def test_a_key_that_hosts_would_refuse_is_refused_before_the_build(
    project: Path, monkeypatch: pytest.MonkeyPatch, key: str, sentence: str
) -> None:
    monkeypatch.setenv(attest.KEY_VARIABLE, key)
    with pytest.raises(attest.AttestError, match=sentence) as raised:
        attest.private_key("production", project)
    assert "PRIVATE" not in str(raised.value)


def test_without_a_key_it_says_how_to_make_one(project: Path) -> None:
    (project / "inventories/production/group_vars/all/vault.yml").write_text("{}")
    with pytest.raises(attest.AttestError, match="To make one: ansible-playbook"):
        attest.private_key("production", project)
    with pytest.raises(attest.AttestError, match="does not exist"):
        attest.private_key("staging", project)


def test_a_host_accepts_what_was_signed_and_nothing_else(tmp_path: Path) -> None:
    place = attest.write_statement("1.0", {"x/web:1.0": WEB}, {"release": "1.0"}, {"debian": "sha256:2"}, KEY, tmp_path)
    text = place.read_text()
    read = Statement.read(text, [attest.public_key(KEY)], "release 1.0")
    assert read.images == {"x/web:1.0": identity(WEB)}
    said = json.loads(base64.b64decode(json.loads(text)["payload"]))
    assert (said["_type"], said["predicateType"]) == (STATEMENT, attest.PREDICATE)
    assert said["subject"][0]["digest"]["sha256"] == "1"
    dependencies = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [one["name"] for one in dependencies] == ["source", "debian"]
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    ("variables", "builder"),
    [
        ({}, "urn:berth:own-machine"),
        ({"CI_JOB_URL": "https://git.example/j/1"}, "https://git.example/j/1"),
        (
            {"GITHUB_SERVER_URL": "https://git.example", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"},
            "https://git.example/a/b/actions/runs/7",
        ),
    ],
)
def test_the_statement_names_who_built(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], builder: str
) -> None:
    for name in ("CI_JOB_URL", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert attest.statement({}, {}, {})["predicate"]["runDetails"]["builder"]["id"] == builder
