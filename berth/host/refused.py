"""The exceptions of a step that refuses or fails."""

from __future__ import annotations

from typing import Any


class Refused(Exception):  # noqa: N818  # `raise Refused` reads well
    """A step refuses, or fails.

    Args:
        reason: What happened and what to do next, in a sentence or two.
        culprit: The container or the program that is to blame; empty where there is none.
        lines: The last lines of its output.
    """

    def __init__(self, reason: str, culprit: str = "", lines: list[str] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.culprit = culprit
        self.lines = lines or []

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON that playbooks read; `guilty` is the name that earlier versions used."""
        return {"reason": self.reason, "guilty": self.culprit, "lines": self.lines}


class Failed(Refused):
    """A step failed after something was changed; the reason says what the state is now."""
