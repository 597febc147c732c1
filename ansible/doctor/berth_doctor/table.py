"""Formats the table."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

MARKS = {"ok": "ok", "warning": "WARNING", "wrong": "WRONG", "skipped": "skipped"}
COLOURS = {"ok": "green", "warning": "bright yellow", "wrong": "red", "skipped": "cyan"}
MARK_WIDTH = 9
SUBJECT_WIDTH = 30


def rows(lines: list[dict[str, str]], width: int) -> Iterator[tuple[str, str]]:
    """Yield each row of the table with its colour."""
    indent = " " * (MARK_WIDTH + SUBJECT_WIDTH)
    for line in lines:
        subject = line["subject"]
        first = f"{MARKS[line['status']]:{MARK_WIDTH}}"
        if len(subject) < SUBJECT_WIDTH:
            first += f"{subject:{SUBJECT_WIDTH}}"
        else:
            yield first + subject, COLOURS[line["status"]]
            first = indent
        yield from _wrapped(line["seen"], first, indent, width, COLOURS[line["status"]])
        if line["remedy"]:
            yield from _wrapped(line["remedy"], f"{indent[:-3]}-> ", indent, width, COLOURS[line["status"]])


def _wrapped(text: str, first: str, indent: str, width: int, colour: str) -> Iterator[tuple[str, str]]:
    for row in textwrap.wrap(text, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False):
        yield row, colour


def summary(lines: list[dict[str, str]]) -> str:
    """Return the number of lines of each status."""
    counted = Counter(line["status"] for line in lines)
    return ", ".join(f"{counted[status]} {status}" for status in MARKS if counted[status])
