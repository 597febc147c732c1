"""The routes of every service that only machines ask: does it live, can it serve, how much."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import Protocol

from fastapi import APIRouter, Request
from starlette.responses import Response

from shared import metrics
from shared.errors import Unavailable

logger = logging.getLogger("health")
router = APIRouter(include_in_schema=False)

SECONDS_LIMIT = 3


class Check(Protocol):
    def __call__(self) -> Awaitable[object]: ...


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, str]:
    """Everything this service needs answers."""
    checks: Mapping[str, Check] = request.app.state.checks
    answers = await asyncio.gather(*(_answers(name, check) for name, check in checks.items()))
    away = [name for name, fine in zip(checks, answers, strict=True) if not fine]
    if away:
        raise Unavailable(f"Not available: {', '.join(away)}.")
    return {"status": "ready", **dict.fromkeys(checks, "ok")}


@router.get("/metrics")
async def prometheus() -> Response:
    content, media_type = metrics.render()
    return Response(content, headers={"content-type": media_type})


async def _answers(name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(SECONDS_LIMIT):
            await check()
    # Whatever kept it from answering, the service is not ready; the log says why.
    except Exception as error:
        logger.warning("%s does not answer: %.200s", name, error)
        return False
    return True
