"""Several hosts in the inventory: one after the other, and no further than the first that refuses."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.site.test_releases import build, command, live
from tests.support import operate


@pytest.fixture
def second(testbed: dict[str, Any], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A host that is no good, after the first one in the inventory: enough to see whether it was reached."""
    run = ["docker", "run", "--detach", "--init", testbed["images"]["VPS_IMAGE"], "sleep", "infinity"]
    container = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    inventory = tmp_path / "second.yml"
    inventory.write_text(
        "berth: {hosts: {zz-second: {ansible_connection: community.docker.docker, "
        f"ansible_host: {container}, ansible_user: root, ansible_python_interpreter: /bin/false}}}}}}\n"
    )
    try:
        yield container, inventory
    finally:
        subprocess.run(["docker", "rm", "--force", container], check=True, capture_output=True)


def touched(container: str) -> str:
    return subprocess.run(["docker", "diff", container], check=True, capture_output=True, text=True).stdout


def release_both(inventory: Path, name: str) -> tuple[int, list[str]]:
    """Return what an operator reads, one part for each host."""
    code, said = operate([*command("release", release=name), "-i", str(inventory)])
    return code, said.split("PLAY [Release]")[1:]


@pytest.mark.long
def test_hosts_are_released_one_after_the_other_and_the_first_that_refuses_ends_it(
    http: httpx.Client, second: tuple[str, Path]
) -> None:
    container, inventory = second
    before = live(http)
    untouched = touched(container)

    bad = build(f"{before[0]}-noschema", before[0], auth_service='LABEL berth.schema="false"')
    code, plays = release_both(inventory, bad)
    assert code != 0
    assert "The schema step of auth_service failed" in plays[0]
    assert len(plays) == 1
    assert touched(container) == untouched
    assert live(http) == before

    # The first one is as it should be, so now it is the second one's turn, which has no Python.
    code, plays = release_both(inventory, before[0])
    assert code != 0
    assert "zz-second" not in plays[0]
    assert "fatal: [zz-second]" in plays[1]
    assert touched(container) != untouched
    assert live(http) == before
