"""Counters in Redis. What counts is in limits.py; here is how, in one step each, for all workers together."""

from auth_service.limits import Limit
from shared.clients.cache import Cache

PREFIX = "ratelimit:"

# All or none: KEYS with ARGV (most, seconds) each. Returns the number of the first that is used up, and its seconds.
_TAKE = """
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('get', key) or '0') >= tonumber(ARGV[2 * i - 1]) then
    return {i, redis.call('ttl', key)}
  end
end
for i, key in ipairs(KEYS) do
  redis.call('set', key, 0, 'ex', ARGV[2 * i], 'nx')
  redis.call('incrby', key, 1)
end
return {0, 0}
"""
# What is forgotten meanwhile stays so: a counter without an end would never be.
_GIVE_BACK = """
for _, key in ipairs(KEYS) do
  if redis.call('exists', key) == 1 then redis.call('incrby', key, -1) end
end
"""


class RedisCounters:
    """The counters of production."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def read(self, *keys: str) -> list[tuple[int, int]]:
        """How much each has counted, and in how many seconds that is forgotten."""
        async with self._cache.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.get(PREFIX + key)
                pipeline.ttl(PREFIX + key)
            found = await pipeline.execute()
        return [(int(found[i] or 0), max(int(found[i + 1]), 0)) for i in range(0, len(found), 2)]

    async def add(self, seconds: dict[str, int]) -> dict[str, int]:
        """Count one more of each; the first starts its window, which the next does not prolong."""
        async with self._cache.pipeline(transaction=True) as pipeline:
            for key, window in seconds.items():
                pipeline.set(PREFIX + key, 0, ex=window, nx=True)
                pipeline.incr(PREFIX + key)
            counts = await pipeline.execute()
        return dict(zip(seconds, map(int, counts[1::2]), strict=True))

    async def take(self, limits: list[Limit]) -> tuple[Limit, int] | None:
        """Count one more of each, or of none where one is used up: that one, and its seconds."""
        arguments = [number for limit in limits for number in (limit.most, limit.seconds)]
        keys = [PREFIX + limit.key for limit in limits]
        number, left = await self._cache.eval(_TAKE, len(keys), *keys, *arguments)
        return (limits[number - 1], max(int(left), 1)) if number else None

    async def give_back(self, *keys: str) -> None:
        if keys:
            await self._cache.eval(_GIVE_BACK, len(keys), *(PREFIX + key for key in keys))

    async def claim(self, key: str, seconds: int) -> int:
        """0 for the first who asks, for so many seconds; for the others what is left of them."""
        if await self._cache.set(PREFIX + key, "1", ex=seconds, nx=True):
            return 0
        return max(int(await self._cache.ttl(PREFIX + key)), 1)

    async def remember(self, key: str, seconds: int, *forgotten: str) -> None:
        async with self._cache.pipeline(transaction=True) as pipeline:
            pipeline.set(PREFIX + key, "1", ex=seconds)
            pipeline.delete(*(PREFIX + other for other in forgotten))
            await pipeline.execute()
