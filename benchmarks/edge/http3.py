"""Ask an HTTPS site over HTTP/3 on connections that are kept, and count what is lost when an edge is replaced.

usage: http3.py --name SITE --address IP --seconds N

Half of the clients do as browsers: told `Alt-Svc: clear`, they ask nothing more on that connection. The other half stay
on it whatever they are told, which is the worst that a client can do. Nothing is tried twice. A connection that the
server ended before the next request was sent is replaced, as every client does; one that ends after that is a failure.

Standard output: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import ssl
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, cast

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent, StreamReset

ANSWER_TIMEOUT = 30


class Connection(QuicConnectionProtocol):
    """One connection to the edge, with one request at a time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._http: H3Connection | None = None
        self._answer: asyncio.Future[dict[str, str]] | None = None
        self._headers: dict[str, str] = {}
        self.ended = ""

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
        elif isinstance(event, ConnectionTerminated):
            self.ended = f"closed with {event.error_code:#x} {event.reason_phrase}".strip()
            self._fail(self.ended)
        elif isinstance(event, StreamReset):
            self._fail(f"stream reset with {event.error_code:#x}")
        if self._http:
            for one in self._http.handle_event(event):
                self._heard(one)

    def _heard(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self._headers = {name.decode(): value.decode() for name, value in event.headers}
        if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended and self._answer:
            self._answer.set_result(self._headers)
            self._answer = None

    def _fail(self, why: str) -> None:
        if self._answer:
            self._answer.set_exception(ConnectionError(why))
            self._answer = None

    async def get(self, name: str, path: str) -> dict[str, str]:
        if self._http is None:
            raise ConnectionError("no HTTP/3 was agreed upon")
        self._answer = answer = asyncio.get_running_loop().create_future()
        request = {":method": "GET", ":scheme": "https", ":authority": name, ":path": path}
        headers = [(key.encode(), value.encode()) for key, value in request.items()]
        self._http.send_headers(self._quic.get_next_available_stream_id(), headers, end_stream=True)
        self.transmit()
        return await asyncio.wait_for(answer, ANSWER_TIMEOUT)


@dataclass
class Tally:
    began: float = field(default_factory=time.monotonic)
    answered: collections.Counter[str] = field(default_factory=collections.Counter)
    connections: collections.Counter[str] = field(default_factory=collections.Counter)
    failed: list[str] = field(default_factory=list)


async def habit(
    where: argparse.Namespace, tally: Tally, path: str, pause: float, leaves: bool, over: asyncio.Event
) -> None:
    """Ask for a path again and again, on one connection as long as there is one."""
    kind = f"{'leaves' if leaves else 'stays'} {path}"
    quic = QuicConfiguration(alpn_protocols=H3_ALPN, server_name=where.name, verify_mode=ssl.CERT_NONE)
    while not over.is_set():
        try:
            async with AsyncExitStack() as stack:
                connecting = connect(where.address, 443, configuration=quic, create_protocol=Connection)
                entered = await asyncio.wait_for(stack.enter_async_context(connecting), ANSWER_TIMEOUT)
                connection = cast(Connection, entered)
                tally.connections[kind] += 1
                while not over.is_set() and not connection.ended:
                    headers = await connection.get(where.name, path)
                    if headers[":status"] != "200":
                        raise ConnectionError(f"status {headers[':status']}")
                    tally.answered[kind] += 1
                    if leaves and headers.get("alt-svc") == "clear":
                        break
                    await asyncio.sleep(pause)
        except (ConnectionError, TimeoutError) as error:
            tally.failed.append(f"{time.monotonic() - tally.began:.1f} s, {kind}: {error or type(error).__name__}")
            await asyncio.sleep(0.2)


async def ask(where: argparse.Namespace) -> Tally:
    tally, over = Tally(), asyncio.Event()
    asyncio.get_running_loop().call_later(where.seconds, over.set)
    habits = [
        habit(where, tally, path, pause, leaves, over)
        for leaves in (True, False)
        for path, pause, count in (("/", 0.1, 4), ("/", 3, 4), ("/slow/3", 0, 2))
        for _ in range(count)
    ]
    await asyncio.gather(*habits)
    return tally


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--name", required=True)
    options.add_argument("--address", required=True)
    options.add_argument("--seconds", required=True, type=float)
    tally = asyncio.run(ask(options.parse_args()))
    counted = {"answered": tally.answered, "connections": tally.connections, "failed": tally.failed}
    print(json.dumps({"requests": tally.answered.total(), "lost": len(tally.failed), **counted}, indent=1))


if __name__ == "__main__":
    main()
