"""Ask an HTTPS site without a pause, as several kinds of client do, and count what failed. Nothing is tried twice.

usage: load.py --name SITE --address IP [--address IP] --seconds N

Clients of HTTP/1.1 with a fresh connection for each request, with one that is kept, and of HTTP/2 with one that is
kept; reads, writes, slow answers and long streams. SIGTERM ends it sooner. A kept connection that the server ended
before the next request was sent is replaced, as every client does; one that ends after that is a failure. HTTP/2 lets
a server that is leaving refuse a request unread, which every client then sends elsewhere: counted apart ("resent").

Standard output: one JSON object. longest_gap_ms is the longest time without a quick answer, slowest_quick_ms the
longest wait for one.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import signal
import ssl
import struct
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

READ_TIMEOUT = 30
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED_OR_PRIORITY = 1, 1, 4, 0x28
# HPACK: index 8 of the static table is ":status: 200".
STATUS_200 = 0x88


class FailedError(Exception):
    """A request that was sent and not answered with 200."""


class RefusedError(Exception):
    """A request that the server says it has not read (HTTP/2)."""


@dataclass
class Tally:
    """What happened."""

    began: float = field(default_factory=time.monotonic)
    answered: collections.Counter[str] = field(default_factory=collections.Counter)
    failed: list[str] = field(default_factory=list)
    resent: int = 0
    last_answer: float = field(default_factory=time.monotonic)
    longest_gap: float = 0.0
    slowest_quick: float = 0.0

    def answer(self, kind: str) -> None:
        self.answered[kind] += 1

    def answer_quick(self, kind: str, took: float) -> None:
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - self.last_answer)
        self.last_answer = now
        self.slowest_quick = max(self.slowest_quick, took)
        self.answer(kind)

    def fail(self, kind: str, error: BaseException) -> None:
        at = time.monotonic() - self.began
        self.failed.append(f"{at:.3f} s, {kind}: {type(error).__name__} {error}".strip())


@dataclass
class Client(ABC):
    """Somebody with an address and a habit."""

    name: str
    address: str
    tally: Tally
    context: ssl.SSLContext
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(self.address, 443, ssl=self.context, server_hostname=self.name), READ_TIMEOUT
        )
        self.reader, self.writer = reader, writer
        return reader, writer

    def hang_up(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    @abstractmethod
    async def request(self, method: str, path: str, body: bytes) -> None:
        """Send one request and read its whole answer."""


class Http1(Client):
    """HTTP/1.1: one connection that is kept for as long as the server wishes."""

    async def request(self, method: str, path: str, body: bytes) -> None:
        reader, writer = self.reader, self.writer
        if reader is None or writer is None or reader.at_eof():
            self.hang_up()
            reader, writer = await self.connect()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.name}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if " 200 " not in answer.partition("\r\n")[0]:
            raise FailedError(answer.partition("\r\n")[0])
        if "transfer-encoding: chunked" in answer:
            while length := int(await reader.readline(), 16):
                await reader.readexactly(length + 2)
            await reader.readline()
        else:
            await reader.readexactly(int(answer.partition("content-length: ")[2].partition("\r\n")[0]))
        if "connection: close" in answer:
            self.hang_up()


class Http1Fresh(Http1):
    """HTTP/1.1: a new connection for each request."""

    async def request(self, method: str, path: str, body: bytes) -> None:
        await super().request(method, path, body)
        self.hang_up()


class Http2(Client):
    """HTTP/2: one connection, one request after the other."""

    stream: int = 1

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    async def read_frame(self, reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
        head = await reader.readexactly(9)
        return head[3], head[4], struct.unpack(">I", head[5:])[0], await reader.readexactly(int.from_bytes(head[:3]))

    def header(self, name: str, value: str) -> bytes:
        """Return a header as HPACK writes it without its tables."""
        return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    def is_told_to_leave(self, reader: asyncio.StreamReader) -> bool:
        # The one look into the stream's own buffer: a GOAWAY that came since the last answer, without waiting for one.
        waiting = bytes(reader._buffer)  # type: ignore[attr-defined]
        return len(waiting) >= 9 and waiting[3] == GOAWAY

    async def request(self, method: str, path: str, body: bytes) -> None:
        reader, writer = self.reader, self.writer
        if reader is None or writer is None or reader.at_eof() or self.is_told_to_leave(reader):
            self.hang_up()
            reader, writer = await self.connect()
            chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            if chosen != "h2":
                raise FailedError(f"the server chose {chosen}")
            self.stream = 1
            writer.write(HTTP2_PREFACE + self.frame(SETTINGS, 0, 0, b""))
        stream, self.stream = self.stream, self.stream + 2
        fields = {":method": method, ":scheme": "https", ":authority": self.name, ":path": path}
        fields["content-length"] = str(len(body))
        block = b"".join(self.header(name, value) for name, value in fields.items())
        writer.write(self.frame(HEADERS, END_HEADERS | (0 if body else END_STREAM), stream, block))
        if body:
            writer.write(self.frame(DATA, END_STREAM, stream, body))
        leaving = False
        while True:
            kind, flags, number, payload = await self.read_frame(reader)
            if kind == SETTINGS and not flags & ACK:
                writer.write(self.frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                writer.write(self.frame(PING, ACK, 0, payload))
            elif kind == GOAWAY:
                leaving = True
                if struct.unpack(">I", payload[:4])[0] < stream:
                    self.hang_up()
                    raise RefusedError
            elif kind == RST_STREAM and number == stream:
                raise FailedError(f"RST_STREAM {payload.hex()}")
            elif kind == HEADERS and number == stream:
                if flags & PADDED_OR_PRIORITY:
                    raise FailedError("unexpected padding")
                # A change of the table's size may come first.
                status = next(byte for byte in payload if byte & 0xE0 != 0x20)
                if status != STATUS_200:
                    raise FailedError(f"status is not 200: {payload[:8].hex()}")
            elif kind == DATA and payload:
                credit = struct.pack(">I", len(payload))
                writer.write(self.frame(WINDOW_UPDATE, 0, 0, credit))
            if kind in {DATA, HEADERS} and number == stream and flags & END_STREAM:
                break
        if leaving:
            self.hang_up()


async def habit(client: Client, label: str, method: str, path: str, pause: float, over: asyncio.Event) -> None:
    """Ask again and again, with a pause between, until it is over."""
    body = b"x" * 2000 if method == "POST" else b""
    while not over.is_set():
        kind, began = f"{label} {method} {path}", time.monotonic()
        try:
            await asyncio.wait_for(client.request(method, path, body), READ_TIMEOUT)
            if path == "/":
                client.tally.answer_quick(kind, time.monotonic() - began)
            else:
                client.tally.answer(kind)
        except RefusedError:
            client.tally.resent += 1
            continue
        except (FailedError, OSError, EOFError, TimeoutError, ValueError) as error:
            client.tally.fail(kind, error)
            client.hang_up()
            await asyncio.sleep(0.1)
        await asyncio.sleep(pause)


async def run(name: str, addresses: list[str], seconds: float) -> Tally:
    tally, over = Tally(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.call_later(seconds, over.set)
    # Whose certificate it is was asked elsewhere.
    context1, context2 = (ssl._create_unverified_context() for _ in range(2))  # noqa: S323
    context2.set_alpn_protocols(["h2"])
    kinds: list[tuple[type[Client], ssl.SSLContext, str, int, float]] = [
        (Http1Fresh, context1, "http/1.1 fresh", 4, 0.08),
        (Http1, context1, "http/1.1 kept", 8, 0.08),
        (Http2, context2, "http/2 kept", 4, 0.08),
    ]
    tasks = []
    for address in addresses:
        for kind, context, label, count, pause in kinds:
            for number in range(count):
                method = "POST" if number % 4 == 1 else "GET"
                tasks.append(habit(kind(name, address, tally, context), label, method, "/", pause, over))
            # A connection that rests longer than most, a slow answer, and a stream.
            tasks.append(habit(kind(name, address, tally, context), label, "GET", "/", 3, over))
            tasks.append(habit(kind(name, address, tally, context), label, "GET", "/slow/3", 0, over))
            tasks.append(habit(kind(name, address, tally, context), label, "GET", "/stream/5", 0, over))
    clients = [asyncio.create_task(task) for task in tasks]
    await asyncio.gather(*clients)
    return tally


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--name", required=True)
    options.add_argument("--address", required=True, action="append")
    options.add_argument("--seconds", required=True, type=float)
    chosen = options.parse_args()
    tally = asyncio.run(run(chosen.name, chosen.address, chosen.seconds))
    answered = sum(tally.answered.values())
    print(
        json.dumps(
            {
                "seconds": round(time.monotonic() - tally.began, 1),
                "answered": answered,
                "failed": len(tally.failed),
                "resent": tally.resent,
                "longest_gap_ms": round(tally.longest_gap * 1000),
                "slowest_quick_ms": round(tally.slowest_quick * 1000),
                "failures": tally.failed[:20],
                "kinds": dict(sorted(tally.answered.items())),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
