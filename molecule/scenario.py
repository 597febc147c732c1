#!/usr/bin/env python3
"""`molecule test` in a folder, which ends with what failed: scenario.py [FOLDER]

Molecule removes the machines after a failure, so that its reason stands some
hundred lines before the end, where whoever reads only the end does not find it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

# Colours, and the frame that molecule draws around what its commands say.
FRAME = re.compile(r"\x1b\[[0-9;]*m|^\s*│ ?", re.MULTILINE)
TASK = re.compile("(TASK|PLAY|RUNNING HANDLER) ")
REPORT = re.compile("=+ (FAILURES|ERRORS)|CRITICAL Idempotence")
# A report may quote plays, so only molecule itself ends one.
END = re.compile(r"\s*└─ Return code|WARNING +\S+ ➜")
REASON_LINES = 40
TOTAL_LINES = 120


def failures(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield what each failed task, pytest or the second run says; the failures that a play foresees are none."""
    block: list[str] = []
    for line in [*lines, "└─ Return code"]:
        report = bool(block and REPORT.match(block[0]))
        if not END.match(line) and (report or not (TASK.match(line) or REPORT.match(line))):
            block.append(line)
            continue
        foreseen = any(one.startswith("...ignoring") for one in block)
        if report:
            yield block
        elif any(re.match("(fatal|failed): ", one) for one in block) and not foreseen:
            yield block[:REASON_LINES]
        block = [line]


def main(folder: str) -> int:
    said: list[str] = []
    wide = {"COLUMNS": "160", **os.environ}
    with subprocess.Popen(
        ["molecule", "test"], cwd=folder, env=wide, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        for line in run.stdout or []:
            sys.stdout.write(line)
            sys.stdout.flush()
            said.append(FRAME.sub("", FRAME.sub("", line)).rstrip())
    if run.returncode:
        print(f"\n== molecule test in {folder} failed:")
        print("\n".join([line for block in failures(said) for line in block if line][-TOTAL_LINES:]))
    return run.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
