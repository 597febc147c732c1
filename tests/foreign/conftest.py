"""An application that is not the sample, on a host of its own: molecule/foreign provisions it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.site.conftest import authority, client, http, names, outside, testbed, vps, way_in
from tests.support import ROOT, operate, playbook

__all__ = ["authority", "client", "http", "names", "outside", "testbed", "vps", "way_in"]

HERE = Path(__file__).parent
STATE = Path(os.environ.get("BERTH_TESTBED", ROOT / ".testbed" / "foreign")).resolve()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.site)


def play(verb: str, **variables: object) -> tuple[int, str]:
    """Run a playbook of an operator's; return its status and what an operator reads."""
    quick = {"release_watch_seconds": 5, "stack_drain_seconds": 2, **variables}
    return operate([*playbook(verb, **quick), "-i", "tests/foreign/inventory"])


def live(http: httpx.Client) -> str:
    """Return the release that answers."""
    return str(http.get("/").raise_for_status().headers["x-berth-release"].split()[0])


@dataclass(frozen=True)
class Application:
    """The clone that releases are built from."""

    folder: Path

    def edit(self, file: str, before: str, after: str) -> None:
        place = self.folder / file
        text = place.read_text()
        assert before in text
        place.write_text(text.replace(before, after))

    def build(self) -> str:
        """Build the images of what is there, as an operator does; return the release's name."""
        for target in ("app", "release"):
            done = subprocess.run(
                [sys.executable, "images/build.py", "--app", self.folder, target],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture
def application() -> Iterator[Application]:
    """The clone, to be changed by a test, and after it as it was."""
    git = ["git", "-C", str(STATE / "application")]
    yield Application(STATE / "application")
    subprocess.run([*git, "checkout", "--quiet", "."], check=True)


def sign(http: httpx.Client, name: str, message: str = "I was here") -> dict[str, Any]:
    answer = http.post("/api/entries", json={"name": name, "message": message})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def signed(http: httpx.Client) -> list[str]:
    """Return who has signed, the newest first."""
    return [str(one["name"]) for one in http.get("/api/entries").raise_for_status().json()]
