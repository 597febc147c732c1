"""Sends lines in requests that the server accepts, and isolates single lines that it never will.

A server refuses a request as a whole: for one line (400, 422), or for its size (413). Dropping the request would lose
every line beside the refused one; sending it again would never end. So it is halved until the refused line is alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from berth.logs.events import Line

TOO_LARGE = 413
# Statuses of a request that the server will never accept, however often it is sent.
NEVER = frozenset({400, TOO_LARGE, 422})
# A request of this size is not split for being too large. Servers accept a megabyte or more.
LEAST_BYTES = 64 * 1024
# Lines that were accepted or refused in a batch that failed as a whole are not sent again; four batches of them.
REMEMBERED = 2000


class NotNowError(Exception):
    """The server did not accept all of it; the batch has to be sent again."""


class NeverError(Exception):
    """The server will never accept this request as it is."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"{status} {why}".strip())
        self.status = status


@dataclass(frozen=True)
class Refusal:
    """A line that the server will never accept, and its reason."""

    line: Line
    why: str


class Batches:
    """Delivers lines through `send`, which sends them all or raises NotNowError or NeverError.

    `send` returns the lines that the server refused individually.
    """

    def __init__(self, send: Callable[[list[Line]], list[Refusal]]) -> None:
        self._send = send
        # The largest request in bytes of text: half of one that was too large, so at least half of the server's limit.
        self._most: int | None = None
        self._known: dict[str, Refusal | None] = {}

    def deliver(self, lines: list[Line]) -> list[Refusal]:
        """Return the lines that the server has refused for good; it has accepted all others.

        Raises NotNowError. Lines accepted or refused before it are not sent again when the caller retries.
        """
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        waiting = [[line for line in lines if line.id not in self._known]]
        while waiting:
            first = waiting.pop()
            fitting = self._fitting(first)
            if fitting < len(first):
                waiting += [first[fitting:], first[:fitting]]
            elif first:
                waiting += self._halves(first)
        return [refusal for line in lines if (refusal := self._known.pop(line.id, None))]

    def _halves(self, lines: list[Line]) -> list[list[Line]]:
        """Send lines; return the halves to send instead if the server refused them, in reverse order."""
        try:
            refusals = self._send(lines)
        except NeverError as error:
            if len(lines) > 1:
                if error.status == TOO_LARGE:
                    self._most = max(sum(map(_bytes, lines)) // 2, LEAST_BYTES)
                half = len(lines) // 2
                return [lines[half:], lines[:half]]
            refusals = [Refusal(lines[0], str(error))]
        self._known |= {line.id: None for line in lines} | {one.line.id: one for one in refusals}
        return []

    def _fitting(self, lines: list[Line]) -> int:
        """Return how many of these lines fit into a request; one always does."""
        size = 0
        for count, line in enumerate(lines):
            size += _bytes(line)
            if count and self._most is not None and size > self._most:
                return count
        return len(lines)


def _bytes(line: Line) -> int:
    return len(line.text.encode(errors="replace"))
