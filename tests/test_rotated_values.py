"""Which values ansible/rotate.yml changes, in which order, and how the vault file reads afterwards."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.plugins.loader import lookup_loader

from shared import keys
from tests.support import ROOT, ansible_loader


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"ansible/plugins/filter/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rotation = load("rotation")
COMPOSE = (ROOT / "docker-compose.prod.yml").read_text()
KEY = keys.new_private_key()
CURRENT = {name: f"old-{name}" for name in rotation.rotation_names(COMPOSE)} | {
    "vault_jwt_private_key": KEY,
    "vault_jwt_previous_keys": "",
    "vault_jwt_previous_secret_keys": "older",
    "vault_smtp_password": "old",
    "vault_mongo_uri": "",
    "vault_redis_uri": "",
}


def plan(wanted: str, **more: Any) -> dict[str, Any]:
    return dict(rotation.rotation_plan(wanted, COMPOSE, {**CURRENT, **more.pop("current", {})}, **more))


def test_databases_change_every_account_of_a_service_in_one_phase() -> None:
    found = plan("databases")
    [phase] = found["phases"]
    assert set(phase["changes"]) == {name for name in CURRENT if name.endswith("_service_password") or "celery" in name}
    assert all(len(value) == 48 and value.isalnum() for value in phase["changes"].values())
    assert len({*phase["changes"].values()}) == len(phase["changes"])
    assert found["former"] == {name.removeprefix("vault_"): CURRENT[name] for name in phase["changes"]}


def test_a_key_verifies_before_it_signs_and_is_forgotten_last() -> None:
    announce, use, forget = plan("token_keys")["phases"]
    new = use["changes"]["vault_jwt_private_key"]
    assert new != KEY
    assert announce["changes"] == {
        "vault_jwt_previous_keys": new,
        "vault_jwt_previous_secret_keys": f"{use['changes']['vault_jwt_secret_key']},older",
    }
    assert use["changes"]["vault_jwt_previous_keys"] == KEY
    assert use["changes"]["vault_jwt_previous_secret_keys"] == f"{CURRENT['vault_jwt_secret_key']},older"
    assert use["wait"]
    assert set(forget["changes"].values()) == {""}
    assert forget["changes"].keys() == announce["changes"].keys()


def test_in_an_emergency_a_key_is_forgotten_at_once() -> None:
    [phase] = plan("token_keys", emergency=True)["phases"]
    assert phase["changes"]["vault_jwt_previous_keys"] == phase["changes"]["vault_jwt_previous_secret_keys"] == ""


def test_the_backups_keep_the_former_password_until_each_repository_has_the_new_one() -> None:
    [phase] = plan("backup_password")["phases"]
    assert phase["changes"]["vault_backup_previous_password"] == CURRENT["vault_backup_password"]
    assert phase["changes"]["vault_backup_password"] not in ("", CURRENT["vault_backup_password"])


def test_what_somebody_else_gives_is_asked_for_and_read_by_its_roles() -> None:
    found = plan("vault_smtp_password")
    assert (found["given"], found["roles"]) == ("vault_smtp_password", ["base", "monitoring"])
    [phase] = rotation.rotation_given(found, "typed")["phases"]
    assert phase["changes"] == {"vault_smtp_password": "typed"}


@pytest.mark.parametrize(
    ("wanted", "current", "says"),
    [
        ("database", {}, "write one of databases, database_admins, token_keys"),
        ("vault_mongo_keyfile", {}, "this one has one member"),
        (
            "databases",
            {"vault_redis_auth_service_password": ""},
            "vault_redis_auth_service_password is empty or missing",
        ),
        ("databases,vault_smtp_password", {}, "rotate it alone"),
        ("databases", {"vault_mongo_uri": "mongodb://x", "vault_redis_uri": "redis://x"}, "run elsewhere"),
        ("vault_traces_headers", {"vault_traces_headers": {"Authorization": "x"}}, "is no text"),
    ],
)
def test_what_cannot_be_rotated_is_a_sentence(wanted: str, current: dict[str, str], says: str) -> None:
    assert says in plan(wanted, current=current)["problem"]


def test_a_secret_of_a_database_of_the_application_is_changed_there_first() -> None:
    compose = COMPOSE.replace(
        "services:\n",
        "services:\n  shop-db: {profiles: [platform], user: '10009:10009', labels: {berth.secrets: shop_db}}\n",
        1,
    )
    found = rotation.rotation_plan("vault_shop_db", compose, {**CURRENT, "vault_shop_db": "old"})
    assert "is read by shop-db, which no release replaces" in found["problem"]


def test_a_given_value_that_env_cannot_hold_is_refused() -> None:
    for value in ("it's", "a\\b", "a\nb"):
        assert "has a quote" in rotation.rotation_given(plan("vault_smtp_password"), value)["problem"]


def test_a_value_from_another_place_than_the_vault_file_is_named() -> None:
    text = "vault_a: one\nvault_b: !unsafe 'x{{y'\n"
    assert (
        rotation.vault_problem(text, {"vault_a": "new", "vault_b": "new"}, {"vault_a": "one", "vault_b": "x{{y"}) == ""
    )
    for changes in ({"vault_c": "new"}, {"vault_a": "new"}):
        problem = rotation.vault_problem(text, changes, {"vault_c": "from elsewhere", "vault_a": "from elsewhere"})
        assert "comes from another place" in problem
    assert rotation.vault_changed(text, {"vault_a": "two"}) == text.replace("one", "'two'")


@pytest.mark.parametrize(
    "text",
    [
        "# ours\nvault_a: 'one'  # until May\n\nvault_b: two\n",
        'vault_b: two\nvault_a: "one"\n',
        "vault_b: two\nvault_a: >-\n  one\n  more\n# end\n",
        "vault_b: two\n",
        "{vault_a: one, vault_b: two}\n",
        "vault_b: two\nvault_a: &one one\nvault_c: *one\n",
    ],
)
def test_a_vault_file_keeps_its_other_values_and_what_comments_it_can(text: str) -> None:
    value = "it's 'new': # {x}"
    changed = rotation.vault_changed(text, {"vault_a": value})
    assert yaml.safe_load(changed) == {**yaml.safe_load(text), "vault_a": value}
    if "{" not in text and "&" not in text:
        assert all(line in changed for line in text.splitlines() if line.startswith("#") and "until" not in line)


def test_a_vault_file_is_encrypted_again_with_its_own_or_a_new_password(tmp_path: Path) -> None:
    file, opener = tmp_path / "vault.yml", tmp_path / "password"
    opener.write_text("before\n")
    before = VaultLib([("default", VaultSecret(b"before"))])
    after = VaultLib([("default", VaultSecret(b"after"))])
    file.write_bytes(before.encrypt(b"# ours\nvault_a: one\n"))
    lookup = lookup_loader.get("changed_vault", loader=ansible_loader())
    [text] = lookup.run([str(file), {"vault_a": "two"}], password_file=str(opener))
    assert before.decrypt(text.encode()) == b"# ours\nvault_a: 'two'\n"
    [text] = lookup.run([str(file), {}], password_file=str(opener), new_password="after")
    assert yaml.safe_load(after.decrypt(text.encode())) == {"vault_a": "one"}
    file.write_bytes(before.encrypt(b"vault_a: one\nvault_b: {secret\n"))
    with pytest.raises(Exception, match="cannot be read as YAML") as error:
        lookup.run([str(file), {"vault_a": "two"}], password_file=str(opener))
    assert "{secret" not in str(error.value)
    file.write_bytes(before.encrypt(b"vault_a: one\n"))
    with pytest.raises(Exception, match="comes from another place"):
        lookup.run([str(file), {"vault_a": "two"}], password_file=str(opener), current={"vault_a": "else"})
    opener.write_text("wrong\n")
    with pytest.raises(Exception, match="does not open"):
        lookup.run([str(file), {}], password_file=str(opener))
    file.write_text("vault_a: one\n")
    with pytest.raises(Exception, match=r"is not encrypted\. Encrypt it first: ansible-vault encrypt"):
        lookup.run([str(file), {}], password_file=str(opener))


ADMIN = {"name": "ada", "ssh_keys": ["ssh-ed25519 AAAAold ada@laptop"]}


@pytest.mark.parametrize(
    ("admin", "new", "settings", "says"),
    [
        (ADMIN, "ssh-ed25519 AAAAnew ada@desk", "x: ssh-ed25519 AAAAold ada@laptop", ""),
        ({"name": ""}, "ssh-ed25519 AAAAnew", "", "no such administrator"),
        (ADMIN, "", "", "Name the file of the new public key"),
        (ADMIN, "-----BEGIN OPENSSH PRIVATE KEY-----", "", "Name the file of the new public key"),
        (ADMIN, "ssh-ed25519 AAAAnew", "x: other", "does not have the former key as it is"),
    ],
)
def test_an_ssh_key_changes_only_where_both_are_known(
    admin: dict[str, Any], new: str, settings: str, says: str
) -> None:
    former = ADMIN["ssh_keys"][0]
    problem = rotation.rotation_key_problem(settings, admin, new, former, "main.yml")
    assert says in problem
    assert bool(says) == bool(problem)
