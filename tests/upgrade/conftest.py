"""A host that the release of Berth before this one provisioned; the test bed's folder is .testbed/upgrade."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.site.conftest import authority, client, http, mailbox, names, outside, vps, way_in
from tests.support import PLAIN, ROOT

__all__ = ["authority", "client", "http", "mailbox", "names", "outside", "vps", "way_in"]

HERE = Path(__file__).parent
STATE = Path(os.environ.get("BERTH_TESTBED", ROOT / ".testbed" / "upgrade")).resolve()
PLAY_SECONDS = 1500
# The last commit of 0.1.0, which has no tag.
FIRST = "5bab5d7584bc8fabd4ee5b48c7f2abc2457f6fbd"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.hosts)
            item.add_marker(pytest.mark.timeout(3 * PLAY_SECONDS))


def play(project: Path, *arguments: str, **variables: object) -> tuple[int, str]:
    """Run a playbook of one version of Berth; return its status and what an operator reads, without line breaks."""
    done = subprocess.run(
        ["ansible-playbook", *arguments, "-e", json.dumps(variables)],
        cwd=project,
        env={**PLAIN, "ANSIBLE_CONFIG": str(project / "ansible.cfg"), "BERTH_TESTBED": str(STATE)},
        capture_output=True,
        text=True,
        timeout=PLAY_SECONDS,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def version_before() -> str:
    """Return the newest tag before this commit, or the last commit of the version that has none."""
    if asked := os.environ.get("BERTH_UPGRADE_FROM", ""):
        return asked
    described = ["git", "describe", "--tags", "--abbrev=0", "--match=v*", "HEAD^"]
    done = subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or FIRST


@pytest.fixture(scope="session")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the version before, with its images built."""
    project = tmp_path_factory.mktemp("former") / "berth"
    for command in (
        ["git", "clone", "--quiet", str(ROOT), str(project)],
        ["git", "-C", str(project), "checkout", "--quiet", version_before()],
    ):
        subprocess.run(command, check=True)
    (project / ".venv").symlink_to(ROOT / ".venv")
    build = ["python3", "images/build.py", "--images", "packages", "--env-out", ".cache/images.env", "all"]
    done = subprocess.run(build, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture(scope="session")
def testbed(former: Path) -> Iterator[dict[str, str]]:
    """The host, after site.yml of the version before."""
    secrets = {"vault_file": f"{STATE}/vault.yml", "vault_password_file": f"{STATE}/vault-password"}
    try:
        for arguments, variables in (
            (["molecule/shared/create.yml"], {}),
            (["ansible/new_environment.yml"], {"env": "demo", **secrets}),
            (["site.yml", "-i", "inventories/demo"], {}),
        ):
            code, said = play(former, *arguments, **variables)
            assert code == 0, said[-3000:]
        yield dict(yaml.safe_load((STATE / "connection.yml").read_text()))
    finally:
        play(ROOT, "molecule/shared/destroy.yml")
