"""A service behind the edge, under gunicorn as in production, that writes what its server told it.

One JSON line for each request, when its head is there, and one for each that the server could not parse. A path that
ends with /early is answered before its body has come.
"""

import json
from typing import Any

from shared.worker import Protocol

_refuse = Protocol.send_400_response


def _refuse_and_tell(self: Protocol, msg: str) -> None:
    print(json.dumps({"malformed": msg}), flush=True)
    _refuse(self, msg)


Protocol.send_400_response = _refuse_and_tell  # type: ignore[method-assign]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for done in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{done}.complete"})
        return
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    target = scope["raw_path"].decode("latin-1")
    seen = {"method": scope["method"], "target": target, "headers": headers, "from": scope["client"][1]}
    print(json.dumps({"seen": seen}), flush=True)
    while not target.endswith("/early"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body"):
            break
    body = json.dumps({"target": target, "mark": headers.get("x-mark", "")}).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
