"""Counts events of each network within a time window."""

from __future__ import annotations

# 200 bytes each. Beyond this the oldest is dropped, so that no number of addresses exhausts memory.
MOST = 50_000


class Counter:
    """A network's window starts at its first event; when it has passed, the count starts at 0 again."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        # In the order in which the windows started: all have the same length.
        self._counts: dict[str, tuple[float, int]] = {}

    def reaches(self, network: str, now: float) -> bool:
        """Count one event; tell whether it reached the limit, which also resets the count."""
        self._forget(now)
        began, count = self._counts.get(network, (now, 0))
        if count + 1 >= self._limit:
            self._counts.pop(network, None)
            return True
        self._counts[network] = (began, count + 1)
        return False

    def __len__(self) -> int:
        return len(self._counts)

    def _forget(self, now: float) -> None:
        while self._counts:
            first = next(iter(self._counts))
            if len(self._counts) < MOST and now - self._counts[first][0] < self._seconds:
                break
            del self._counts[first]
