"""How often each network did something within a time."""

from __future__ import annotations

# 200 bytes each. Beyond it the one that began first is forgotten, so that no number of addresses fills the memory.
MOST = 50_000


class Counter:
    """Counts from the first event of a network on, for some seconds; then anew."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        # In the order in which they began: all last equally long.
        self._counts: dict[str, tuple[float, int]] = {}

    def reaches(self, network: str, now: float) -> bool:
        """Count one more; say whether the limit is reached by it. Then it begins anew."""
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
