"""What `make molecule` and `make site` say last when they fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PLAYED = """\
\x1b[36mINFO\x1b[0m converge
  \x1b[2m│\x1b[0m TASK [Try to log in]
  \x1b[2m│\x1b[0m fatal: [vps]: UNREACHABLE! =>
  \x1b[2m│\x1b[0m ...ignoring
  \x1b[2m│\x1b[0m TASK [Ask for room]
  \x1b[2m│\x1b[0m fatal: [vps]: FAILED! =>
  \x1b[2m│\x1b[0m     msg: The disk is full.
  \x1b[2m│\x1b[0m PLAY RECAP ****
  \x1b[2m│\x1b[0m vps : ok=2
  \x1b[2m└─ Return code: 2 ──\x1b[0m
"""
TESTED = """\
  │ test_one.py F
  │ ==== FAILURES ====
  │ TASK [Ask for room]
  │ WARNING  root: slow
  │ E   assert 1 == 2
  │ FAILED test_one.py
  └─ Return code: 1 ──
INFO destroyed
"""
CHANGED = """\
\x1b[31mCRITICAL\x1b[0m Idempotence test failed because of the following tasks:
*  => base : Write a file
\x1b[33mWARNING \x1b[0m default ➜ idempotence: An error occurred. Cleaning up.
"""


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (PLAYED, "TASK [Ask for room]\nfatal: [vps]: FAILED! =>\n    msg: The disk is full.\n"),
        (
            TESTED,
            "==== FAILURES ====\nTASK [Ask for room]\nWARNING  root: slow\nE   assert 1 == 2\nFAILED test_one.py\n",
        ),
        (CHANGED, "CRITICAL Idempotence test failed because of the following tasks:\n*  => base : Write a file\n"),
    ],
    ids=["task", "pytest", "second run"],
)
def test_a_scenario_that_fails_ends_with_the_reason(tmp_path: Path, said: str, wanted: str) -> None:
    (tmp_path / "said").write_text(said)
    stand_in = tmp_path / "molecule"
    stand_in.write_text(f"#!/bin/sh\ncat {tmp_path}/said\nexit 3\n")
    stand_in.chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / "molecule/scenario.py", tmp_path],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout.endswith(f"== molecule test in {tmp_path} failed:\n{wanted}")
