"""The one place that makes Redis clients."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
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
        # Connections that were open before a restart of Redis are dead: the second try makes a new one.
        retry=Retry(ConstantBackoff(0.05), 2),
    )
    return Redis(connection_pool=pool)
