"""The API's description as a page without scripts, so that it works under the site's strict policy."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse


def docs_router(path: str) -> APIRouter:
    """A route that shows what openapi.json says."""
    router = APIRouter(include_in_schema=False)

    @router.get(path)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(render(request.app.openapi(), str(request.app.openapi_url)))

    return router


def render(schema: dict[str, Any], source: str) -> str:
    title = escape(schema["info"]["title"])
    operations = "\n".join(
        _operation(path, method, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title></head>\n'
        f'<body>\n<h1>{title}</h1>\n<p>For programs: <a href="{escape(source)}">openapi.json</a></p>\n'
        f"{operations}\n</body>\n</html>\n"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    takes = f"<p>Takes <code>{escape(body['$ref'].rsplit('/', 1)[-1])}</code></p>\n" if "$ref" in body else ""
    answers = "".join(
        f"<dt>{escape(status)}</dt><dd>{escape(answer['description'])}</dd>"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>\n"
        f"<p>{escape(operation.get('description', ''))}</p>\n{takes}<dl>{answers}</dl>"
    )
