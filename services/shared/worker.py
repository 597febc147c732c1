"""The gunicorn worker of our services."""

from typing import Any

import httptools  # noqa: F401  # a missing one must stop the start, not halve the speed
import uvloop  # noqa: F401  # likewise
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]  # ships no types

from shared.marks import MALFORMED


class Protocol(HttpToolsProtocol):
    """uvicorn's, which answers 400 by itself to what it cannot read, and says whose request that was.

    A request for another protocol, which no service speaks, is answered as any other and is the last of its connection.
    """

    upgrade = False

    def data_received(self, data: bytes) -> None:
        # The parser takes such a request to have no body, whatever its length says, and would read the body as requests
        # that no proxy has counted.
        if not self.upgrade:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.upgrade = True
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and self.cycle.more_body:
            self.cycle.scope[MALFORMED] = True  # type: ignore[literal-required]  # a server may add keys
        super().send_400_response(msg)


class Worker(UvicornWorker):  # type: ignore[misc]
    """uvicorn on uvloop and httptools, by name: "auto" would fall back silently."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  # the base class wants a plain attribute
        "loop": "uvloop",
        "http": Protocol,
        "ws": "none",
        "lifespan": "on",
        # One log line per request is written, by shared.http.
        "access_log": False,
        "server_header": False,
        # The client's address is read where it is needed; rewriting the scope would cost every request.
        "proxy_headers": False,
    }
