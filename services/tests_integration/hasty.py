"""auth_service as it runs, but for how long it waits for its clients; and an answer that takes its time."""

import asyncio
import os
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse

import shared.http
from shared.http import Limits

shared.http.LIMITS = Limits(body=1, own=2, answer=1)

from auth_service.main import create_app  # noqa: E402  # what it imports must see the limits

app = create_app()


@app.get("/slow")
async def slow() -> None:
    await asyncio.sleep(60)


@app.get("/crash")
async def crash() -> None:
    os._exit(1)


@app.get("/long")
async def long() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1_000_000
            await asyncio.sleep(0.05)

    return StreamingResponse(pieces())


@app.get("/broken")
async def broken() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise RuntimeError("broken in the middle")

    return StreamingResponse(pieces())
