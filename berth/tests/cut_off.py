"""A world in memory whose every change is a step at which a program can be cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """The program, or the host, is gone."""


class CutOff:
    """Raises `fault` at the step of this number: instead of its change, or after it."""

    def __init__(self, fails_at: int = -1, fault: Callable[[], BaseException] = Killed, after: bool = False) -> None:
        self.steps, self.fails_at, self.fault, self.after = 0, fails_at, fault, after

    def step(self, change: Callable[[], Any]) -> Any:
        here = self.steps == self.fails_at
        self.steps += 1
        if here and not self.after:
            raise self.fault()
        done = change()
        self.look()
        if here:
            raise self.fault()
        return done

    def look(self) -> None:
        """Assert or note what has to hold after every step."""
