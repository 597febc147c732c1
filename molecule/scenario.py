#!/usr/bin/env python3
"""Run `molecule test` in a folder, and print the failures again at the end: scenario.py [FOLDER [SCENARIO]]

After a failure molecule removes the machines, which prints some hundred lines after
the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

# Colours, and molecule's frame around the output of its commands.
FRAME = re.compile(r"\x1b\[[0-9;]*m|^\s*│ ?", re.MULTILINE)
TASK = re.compile("(TASK|PLAY|RUNNING HANDLER) ")
REPORT = re.compile("=+ (FAILURES|ERRORS)|CRITICAL Idempotence")
# A report may quote plays, so only molecule itself ends one.
END = re.compile(r"\s*└─ Return code|WARNING +\S+ ➜")
REASON_LINES = 40
TOTAL_LINES = 120


def failures(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the output of each failed task, of pytest and of the idempotence run; without ignored failures."""
    block: list[str] = []
    for line in [*lines, "└─ Return code"]:
        report = bool(block and REPORT.match(block[0]))
        if not END.match(line) and (report or not (TASK.match(line) or REPORT.match(line))):
            block.append(line)
            continue
        ignored = any(one.startswith("...ignoring") for one in block)
        if report:
            yield block
        elif any(re.match("(fatal|failed): ", one) for one in block) and not ignored:
            yield block[:REASON_LINES]
        block = [line]


def main(folder: str = ".", scenario: str = "default") -> int:
    output: list[str] = []
    wide = {"COLUMNS": "160", **os.environ}
    command = ["molecule", "test", "--scenario-name", scenario]
    with subprocess.Popen(
        command, cwd=folder, env=wide, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        for line in run.stdout or []:
            sys.stdout.write(line)
            sys.stdout.flush()
            output.append(FRAME.sub("", FRAME.sub("", line)).rstrip())
    if run.returncode:
        print(f"\n== molecule test in {folder} failed:")
        print("\n".join([line for block in failures(output) for line in block if line][-TOTAL_LINES:]))
    return run.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
