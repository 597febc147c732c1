"""promtool's own judgement of the rules: are they valid, and does each fire when it must and only then."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROLE = Path(__file__).resolve().parents[2] / "roles/monitoring"

pytestmark = pytest.mark.integration


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    image = os.environ.get("PROMTOOL_IMAGE", "localhost/berth/promtool:2")
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--tmpfs=/tmp:mode=1777",
        f"--volume={ROLE}:/role:ro",
        "--workdir=/role/tests",
        image,
    ]
    return subprocess.run([*command, *words], capture_output=True, text=True, check=False)


def test_the_rules_are_valid() -> None:
    done = promtool(
        "check",
        "rules",
        "--lint-fatal",
        *sorted(f"../files/rules/{file.name}" for file in (ROLE / "files/rules").glob("*.yml")),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("tests", sorted((ROLE / "tests").glob("*.yml")), ids=lambda tests: tests.stem)
def test_each_rule_fires_when_it_must_and_only_then(tests: Path) -> None:
    done = promtool("test", "rules", tests.name)
    assert done.returncode == 0, done.stdout + done.stderr
