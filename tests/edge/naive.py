"""A proxy and a service that disagree about where a request ends, for a test that must notice it.

The proxy counts by Content-Length, the last one, and takes a GET to have no body; the service reads chunks wherever it
finds "chunked", and the first Content-Length otherwise. All clients share one connection to the service. The lines that
both write are those of the edge's access log and of told.py.
"""

import asyncio
import json
import re
import ssl
from contextlib import suppress

SECONDS = 1


async def head_of(reader: asyncio.StreamReader) -> tuple[bytes, str, str]:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head.decode("latin-1").split(" ", 2)
    return head, method, target


def lengths(head: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"(?im)^content-length: *(\d+)", head)] or [0]


class Proxy:
    def __init__(self) -> None:
        self.one_at_a_time = asyncio.Lock()
        self.back: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def forward(self, request: bytes) -> bytes:
        async with self.one_at_a_time:
            self.back = self.back or await asyncio.open_connection("127.0.0.1", 8000)
            reader, writer = self.back
            writer.write(request)
            try:
                async with asyncio.timeout(SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    return head + await reader.readexactly(lengths(head)[0])
            except (TimeoutError, EOFError):
                return b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            while True:
                head, method, target = await head_of(reader)
                body = b"" if method == "GET" else await reader.readexactly(lengths(head)[-1])
                print(json.dumps({"RequestMethod": method, "RequestPath": target}), flush=True)
                writer.write(await self.forward(head + body))
                await writer.drain()
        writer.close()


async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, EOFError):
        while True:
            head, method, target = await head_of(reader)
            given = dict(re.findall(r"(?m)^([^:\r]+): *([^\r]*)\r$", head.decode("latin-1")))
            headers = {name.lower(): value for name, value in given.items()}
            print(json.dumps({"seen": {"method": method, "target": target, "headers": headers, "from": 0}}), flush=True)
            if re.search(rb"(?i)transfer-encoding.*chunked", head):
                while size := int(await reader.readline(), 16):
                    await reader.readexactly(size + 2)
                await reader.readline()
            else:
                await reader.readexactly(lengths(head)[0])
            body = json.dumps({"target": target, "mark": headers.get("x-mark", "")}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
    writer.close()


async def main() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("/dynamic/cert.pem", "/dynamic/key.pem")
    await asyncio.start_server(service, "127.0.0.1", 8000)
    server = await asyncio.start_server(Proxy().serve, "", 443, ssl=context)
    await server.serve_forever()


asyncio.run(main())
