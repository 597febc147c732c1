"""A new environment in a few answers: asked at a terminal or taken from -e, written once, and never overwritten."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from shared import keys
from tests.terminal import on_terminal

ROOT = Path(__file__).resolve().parents[1]
ENOUGH_SECONDS = 120


def plugin() -> Any:
    spec = util.spec_from_file_location("new_environment", ROOT / "ansible/plugins/filter/new_environment.py")
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NEW = plugin()
RIGHT = {"env": "production", "host": "203.0.113.7", "domain": "www.x-shop.net", "mail": "ada@x-shop.net", "smtp": ""}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's home, with a key of theirs."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir(mode=0o700)
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada@laptop", "-f", str(home / ".ssh/id_ed25519")]
    subprocess.run(make, check=True)
    return home / ".ssh/id_ed25519.pub"


def fresh(folder: Path) -> Path:
    """What the playbook reads, in a folder with a blank in its name."""
    root = folder / "our site"
    for name in ("ansible", "inventories", "berth"):
        shutil.copytree(ROOT / name, root / name, symlinks=True)
    for name in ("ansible.cfg", "docker-compose.prod.yml"):
        shutil.copy(ROOT / name, root)
    (root / "services/shared").mkdir(parents=True)
    for name in ("rules.py", "keys.py"):
        shutil.copy(ROOT / "services/shared" / name, root / "services/shared")
    # As in a fresh clone, whatever stands in this one.
    shutil.copy(ROOT / "ansible/files/environment/hosts.yml", root / "inventories/production")
    shutil.copy(ROOT / "ansible/files/environment/main.yml", root / "inventories/production/group_vars/all")
    return root


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As somebody has just cloned it."""
    return fresh(tmp_path)


@pytest.fixture(scope="module")
def first_made(tmp_path_factory: pytest.TempPathFactory, key: Path) -> tuple[Path, str]:
    """Production, made at a terminal, and what was seen there."""
    root = fresh(tmp_path_factory.mktemp("made"))
    code, screen = run(root, key, "\n203.0.113.7\nwww.x-shop.net\nada@x-shop.net\nsmtp.x-shop.net\n\n")
    assert code == 0, screen
    return root, screen


@pytest.fixture
def made(first_made: tuple[Path, str], tmp_path: Path) -> Path:
    """A clone in which production has been made."""
    return Path(shutil.copytree(first_made[0], tmp_path / "our site", symlinks=True))


def run(clone: Path, own_key: Path, typed: str = "", **extra: str) -> tuple[int | None, str]:
    """Run the playbook at a terminal and type what is asked for, line by line; return its status and the screen."""
    words = [word for name, value in extra.items() for word in ("-e", f"{name}='{value}'")]
    environment = {**os.environ, "HOME": str(own_key.parents[1]), "ANSIBLE_CONFIG": str(clone / "ansible.cfg")}
    environment["ANSIBLE_FORCE_COLOR"] = "false"
    command = ["ansible-playbook", "ansible/new_environment.yml", *words]
    question = rb"\[Prompt for [^\n]*\n[^\n]*:\s*$"
    seen = on_terminal(command, clone, ENOUGH_SECONDS, typed, environment, question=question)
    return seen.status, seen.line


def hosts(clone: Path, env: str = "production") -> dict[str, Any]:
    found = yaml.safe_load((clone / f"inventories/{env}/hosts.yml").read_text())
    return dict(found["berth"]["hosts"][env])


def settings(clone: Path, env: str = "production") -> dict[str, Any]:
    return dict(yaml.safe_load((clone / f"inventories/{env}/group_vars/all/main.yml").read_text()))


def secrets(clone: Path, env: str = "production") -> dict[str, Any]:
    password = VaultSecret((clone / ".vault-password").read_bytes().strip())
    text = (clone / f"inventories/{env}/group_vars/all/vault.yml").read_bytes()
    return dict(yaml.safe_load(VaultLib([("default", password)]).decrypt(text)))


def test_what_is_asked_at_a_terminal_is_written_and_the_next_command_is_named(
    first_made: tuple[Path, str], made: Path, key: Path
) -> None:
    assert hosts(made) == {"ansible_host": "203.0.113.7", "berth_first_login": "root"}
    written = settings(made)
    assert written["berth_domain"] == "www.x-shop.net"
    assert (written["berth_operator_mail"], written["berth_smtp_host"]) == ("ada@x-shop.net", "smtp.x-shop.net")
    assert written["berth_mail_from"] == "no-reply@www.x-shop.net"
    assert written["berth_admins"] == [{"name": "ada", "ssh_keys": [key.read_text().strip()]}]
    assert set(secrets(made)) >= {"vault_jwt_secret_key", "vault_mongo_root_password", "vault_backup_password"}
    assert keys.private_key_problem(secrets(made)["vault_jwt_private_key"]) == ""
    assert re.fullmatch(r"[0-9a-f]{64}", secrets(made)["vault_jwt_secret_key"])
    assert len(secrets(made)["vault_mongo_keyfile"]) == 512
    assert secrets(made)["vault_jwt_previous_keys"] == ""
    assert (made / ".vault-password").stat().st_mode & 0o777 == 0o600
    assert "Next: ansible-playbook ansible/doctor.yml -i inventories/production" in first_made[1]
    assert "Vault password (" not in first_made[1]


def test_another_environment_is_made_without_a_question_and_takes_nothing_of_production(made: Path, key: Path) -> None:
    before = hosts(made)
    second = {"env": "second", "host": "203.0.113.8", "domain": "second.x-shop.net", "mail": "b@x.net", "smtp": "m.x"}
    code, screen = run(made, key, **second, key=str(key))
    assert code == 0, screen
    assert "public name" not in screen
    assert hosts(made, "second")["ansible_host"] == "203.0.113.8"
    assert settings(made, "second")["berth_domain"] == "second.x-shop.net"
    for name in ("vault_jwt_secret_key", "vault_jwt_private_key"):
        assert secrets(made, "second")[name] != secrets(made)[name]
    assert hosts(made) == before


def test_a_later_run_asks_nothing_adds_the_secret_that_is_new_and_keeps_the_others(made: Path, key: Path) -> None:
    before = secrets(made)
    code, screen = run(made, key, env="production")
    assert code == 0, screen
    assert "changed=0" in screen

    compose = made / "docker-compose.prod.yml"
    label = "      berth.secrets: jwt_public_keys\n"
    new = label.replace("keys", "keys, orders_key, stripe_key")
    text = compose.read_text().replace(label, new, 1)
    compose.write_text(text.replace("    jwt_secret_key: hex\n", "    jwt_secret_key: hex\n    stripe_key: given\n", 1))
    code, screen = run(made, key, env="production")
    assert code == 0, screen
    assert "To be written there, with ansible-vault edit: vault_stripe_key" in " ".join(screen.split())
    after = secrets(made)
    assert after.pop("vault_stripe_key") == ""
    assert len(after.pop("vault_orders_key")) == 48
    assert after == before


def test_an_older_environment_gets_a_private_key_and_its_releases_keep_theirs(made: Path, key: Path) -> None:
    older = {name: value for name, value in secrets(made).items() if "jwt_private" not in name and "shared" not in name}
    del older["vault_jwt_previous_keys"]
    password = VaultSecret((made / ".vault-password").read_bytes().strip())
    vault = made / "inventories/production/group_vars/all/vault.yml"
    vault.write_bytes(VaultLib([("default", password)]).encrypt(yaml.safe_dump(older), password))
    code, screen = run(made, key, env="production")
    assert code == 0, screen
    after = secrets(made)
    assert keys.private_key_problem(after.pop("vault_jwt_private_key")) == ""
    assert after.pop("vault_jwt_previous_keys") == ""
    assert after == older


def test_what_an_owner_has_filled_in_stays(clone: Path, key: Path) -> None:
    main = clone / "inventories/production/group_vars/all/main.yml"
    main.write_text(main.read_text().replace("<www.your-company.net>", "shop.owner.net"))
    code, screen = run(clone, key, **{**RIGHT, "smtp": "m.x"}, key=str(key), admin="grace")
    assert code == 0, screen
    assert settings(clone)["berth_domain"] == "shop.owner.net"
    assert settings(clone)["berth_admins"][0]["name"] == "grace"


def test_secrets_that_do_not_open_are_a_sentence_and_stay_as_they_are(made: Path, key: Path) -> None:
    vault = made / "inventories/production/group_vars/all/vault.yml"
    before = vault.read_bytes()
    (made / ".vault-password").write_text("another one\n")
    code, screen = run(made, key, env="production")
    assert code != 0
    assert "/.vault-password does not decrypt " in screen
    (made / ".vault-password").unlink()
    code, screen = run(made, key, env="production")
    assert code != 0
    assert "is missing: write its password there" in screen
    assert vault.read_bytes() == before


def test_the_example_and_the_inventory_that_begins_as_one_are_the_same() -> None:
    for example, inventory in (("hosts.yml", "hosts.yml"), ("main.yml", "group_vars/all/main.yml")):
        text = (ROOT / "ansible/files/environment" / example).read_text()
        assert text == (ROOT / "inventories/production" / inventory).read_text()
        assert NEW.open_places(text)
        answers = {**RIGHT, "smtp": "smtp.x.net", "admin": "ada", "key": "ssh-ed25519 AAAA ada@laptop"}
        assert NEW.open_places(NEW.filled(text, answers)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("env", "Production"),
        ("env", "demo"),
        ("env", "../x"),
        ("host", "https://203.0.113.7"),
        ("host", "203.0.113.7:22"),
        ("host", "203.0.113"),
        ("host", "a b"),
        ("domain", "WWW.x.net"),
        ("domain", "https://www.x.net"),
        ("domain", "localhost"),
        ("mail", "ada"),
        ("mail", "a@x.net, b@x.net"),
        ("mail", "Ada <a@x.net>"),
        ("smtp", "smtp.x.net:587"),
        ("smtp", "smtps://x.net"),
        ("admin", "root"),
        ("admin", "Ada"),
    ],
)
def test_an_answer_that_cannot_be_right_is_named(name: str, value: str) -> None:
    [said] = NEW.problems({**RIGHT, name: value})
    assert said.startswith(f"{name} is ")


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::7", "server", "host-1.x.net", "1.server.net"])
def test_a_right_host_is_taken(host: str) -> None:
    assert NEW.problems({**RIGHT, "host": host}) == []


def test_a_private_key_or_anything_else_is_no_key(key: Path, tmp_path: Path) -> None:
    assert NEW.public_key(str(key)) == key.read_text().strip()
    (tmp_path / "text").write_text("hello\n")
    for given, said in (
        (str(key.with_suffix("")), "is a private key"),
        (str(tmp_path / "nothing"), "neither a public key nor a readable file"),
        (str(tmp_path / "text"), "no SSH public key"),
        ("ssh-ed25519 AAAA ada@laptop", "no SSH public key"),
    ):
        with pytest.raises(Exception, match=said):
            NEW.public_key(given)


@pytest.mark.parametrize(
    ("comment", "account"), [("ada@laptop", "ada"), ("", "admin"), ("root@x", "admin"), ("Ada B", "admin")]
)
def test_the_admin_is_called_as_the_key_says(comment: str, account: str) -> None:
    assert NEW.account_of(f"ssh-ed25519 AAAA {comment}".strip()) == account
