"""The one place that makes Redis clients."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

CacheError = RedisError
Cache = Redis


def open_cache(uri: str) -> Redis:
    """Open a pool that waits for a free connection instead of opening one for every request at once."""
    pool = BlockingConnectionPool.from_url(
        uri,
        decode_responses=True,
        max_connections=20,
        timeout=2,
        socket_timeout=2,
        socket_connect_timeout=2,
        health_check_interval=15,
    )
    return Redis(connection_pool=pool)
