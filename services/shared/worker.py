"""The gunicorn worker of our services."""

from typing import Any

import httptools  # noqa: F401  # a missing one must stop the start, not halve the speed
import uvloop  # noqa: F401  # likewise
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]  # ships no types


class Worker(UvicornWorker):  # type: ignore[misc]
    """uvicorn on uvloop and httptools, by name: "auto" would fall back silently."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  # the base class wants a plain attribute
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "lifespan": "on",
        # One log line per request is written, by shared.http.
        "access_log": False,
        "server_header": False,
        # The client's address is read where it is needed; rewriting the scope would cost every request.
        "proxy_headers": False,
    }
