"""What a pipeline does with a release, with the real commands, on a host: `make test-hosts`.

tests/test_pipelines.py runs the jobs themselves, with stand-ins for these commands.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.hosts.test_two_hosts import PLAY_SECONDS, STATE, live, play
from tests.site.test_releases import build
from tests.support import ROOT

BED = "pipelines"
INVENTORIES = ("-i", "inventories/demo", "-i", "tests/hosts/pipelines.yml")
QUICK = {"release_watch_seconds": 5, "stack_drain_seconds": 2}

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(4 * PLAY_SECONDS)]


def run(*command: str, **environment: str) -> tuple[int, str]:
    """Run a command of a pipeline; return its status and what it printed, on one line."""
    known = {
        **os.environ,
        "ANSIBLE_FORCE_COLOR": "false",
        "BERTH_TESTBED": str(STATE / BED),
        "BERTH_TESTBED_SITE": f"{BED}.berth.test",
        **environment,
    }
    done = subprocess.run(
        command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=PLAY_SECONDS, check=False
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def over_ssh(*command: str, **variables: object) -> tuple[int, str]:
    """The same with the key of the bed in an agent, as in a job that releases."""
    place = STATE / BED
    secrets = {
        "SSH_PRIVATE_KEY": (place / "id_ed25519").read_text(),
        "SSH_KNOWN_HOSTS": (place / "known_hosts").read_text(),
        "ANSIBLE_VAULT_PASSWORD": (place / "vault-password").read_text().strip(),
        "ANSIBLE_VAULT_IDENTITY_LIST": "pipeline@.ci/vault-password",
    }
    more = ["-e", json.dumps({**QUICK, **variables})]
    return run(".ci/ssh.sh", *command, *INVENTORIES, *more, **secrets)


def program(*command: str, **environment: str) -> tuple[int, str]:
    return run(sys.executable, *command, **environment)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A key pair that signs releases."""
    path = str(tmp_path_factory.mktemp("keys") / "signing.pem")
    make = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path]
    subprocess.run(make, check=True, capture_output=True)
    public = subprocess.check_output(["openssl", "pkey", "-in", path, "-pubout"], text=True)
    return Path(path).read_text(), public


@pytest.fixture(scope="module")
def sboms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the build lists in each image."""
    folder = tmp_path_factory.mktemp("sbom")
    code, said = program("images/build.py", "app", "--sbom", str(folder))
    assert code == 0, said[-2000:]
    return sorted(folder.glob("*.cdx.json"))


@pytest.fixture(scope="module")
def environment(keys: tuple[str, str]) -> Iterator[str]:
    """An environment whose hosts trust the key; its name."""
    inventory = ROOT / "inventories" / BED
    folder = inventory / "group_vars/all"
    folder.mkdir(parents=True)
    (folder / "main.yml").write_text(yaml.safe_dump({"berth_signing_keys": [keys[1]]}))
    try:
        yield BED
    finally:
        shutil.rmtree(inventory)


@pytest.fixture(scope="module")
def released(keys: tuple[str, str], environment: str, sboms: list[Path]) -> Iterator[str]:
    """A host that starts only signed releases, with one; its name."""
    assert sboms
    try:
        code, said = play("molecule/shared/create.yml", bed=BED)
        assert code == 0, said[-2000:]
        files = {"env": "demo", "vault_file": f"{STATE}/{BED}/vault.yml"}
        files["vault_password_file"] = f"{STATE}/{BED}/vault-password"
        code, said = play("ansible/new_environment.yml", "-e", json.dumps(files), bed=BED)
        assert code == 0, said[-2000:]
        code, said = program("images/build.py", "all", "--sign", environment, SIGNING_KEY=keys[0])
        assert code == 0, said[-2000:]
        code, release = program("images/build.py", "release")
        assert code == 0, release
        code, said = over_ssh("ansible-playbook", "site.yml", berth_signing_keys=[keys[1]], release=release.strip())
        assert code == 0, said[-3000:]
        yield release.strip()
    finally:
        play("molecule/shared/destroy.yml", bed=BED)


def advisory(folder: Path, ecosystem: str, name: str, version: str) -> None:
    """Write one vulnerability as an OSV export has it."""
    affected = {"package": {"ecosystem": ecosystem, "name": name}, "versions": [version]}
    place = folder / ecosystem.partition(":")[0]
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"id": f"TEST-{name}", "modified": "2026-01-01T00:00:00Z", "affected": [affected]})
    (place / f"TEST-{name}.json").write_text(text)


def test_the_gate_passes_finds_and_fails_without_data(sboms: list[Path], tmp_path: Path) -> None:
    examine = ["images/vulnerabilities.py", "--osv"]
    (tmp_path / "empty").mkdir()
    assert program(*examine, str(tmp_path / "empty"), *map(str, sboms))[0] == 2
    for ecosystem in ("Debian:13", "PyPI", "npm"):
        advisory(tmp_path / "osv", ecosystem, "no-such-package", "1.0")
    code, said = program(*examine, str(tmp_path / "osv"), *map(str, sboms))
    assert code == 0, said
    found = re.search(r'"pkg:pypi/([\w.-]+)@([^"?]+)', "".join(one.read_text() for one in sboms))
    assert found
    advisory(tmp_path / "osv", "PyPI", found[1], found[2])
    code, said = program(*examine, str(tmp_path / "osv"), *map(str, sboms))
    assert code == 1
    assert f"TEST-{found[1]}" in said


def test_a_signed_release_is_live_and_the_host_is_as_the_repository_says(released: str, keys: tuple[str, str]) -> None:
    assert live(BED) == released
    wanted = {"berth_signing_keys": [keys[1]], "release": released}
    code, said = over_ssh(".ci/drift.sh", **wanted)
    assert code == 0, said[-3000:]
    assert "No drift: vps as the repository says." in said
    on_host = ["docker", "exec", f"berth-{BED}-vps", "chmod"]
    subprocess.run([*on_host, "0700", "/opt/berth"], check=True)
    code, said = over_ssh(".ci/drift.sh", **wanted)
    subprocess.run([*on_host, "0755", "/opt/berth"], check=True)
    assert code == 1
    assert "Drift: tasks that would change something, which are above: vps (" in said


def test_what_is_not_signed_is_refused_and_a_rollback_returns_to_what_is(released: str, keys: tuple[str, str]) -> None:
    other = build(f"{released}-next", released)
    wanted = {"berth_signing_keys": [keys[1]]}
    code, _ = over_ssh("ansible-playbook", "ansible/release.yml", **wanted, release=other)
    assert code != 0
    assert live(BED) == released
    reason = {"release_unsigned": "a drill of the tests"}
    code, said = over_ssh("ansible-playbook", "ansible/release.yml", **wanted, release=other, **reason)
    assert code == 0, said[-3000:]
    assert live(BED) == other
    code, said = over_ssh("ansible-playbook", "ansible/rollback.yml", **wanted)
    assert code == 0, said[-3000:]
    assert live(BED) == released
