"""A line of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

# values (of the inventory), errors (values that could not be read), unread (files that could not be read), reached,
# host, outside, offset, controller. A missing key means that it was not checked; its subject is skipped.
Facts = dict[str, Any]
Status = Literal["ok", "warning", "wrong", "skipped"]

# The files that the operator edits.
MAIN = "group_vars/all/main.yml"
VAULT = "group_vars/all/vault.yml"
# The kernel's name of an architecture -> Docker's.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "amd64": "amd64"}


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    check: str
    subject: str
    status: Status
    seen: str
    remedy: str = ""


def ok(check: str, subject: str, seen: str) -> Line:
    return Line(check, subject, "ok", seen)


def wrong(check: str, subject: str, seen: str, remedy: str) -> Line:
    return Line(check, subject, "wrong", seen, remedy)


def warning(check: str, subject: str, seen: str, remedy: str) -> Line:
    return Line(check, subject, "warning", seen, remedy)


def skipped(check: str, subject: str, seen: str) -> Line:
    return Line(check, subject, "skipped", seen)


def short(text: str) -> str:
    """Return a message on one line, cut at 300 characters."""
    return " ".join(str(text).split())[:300]
