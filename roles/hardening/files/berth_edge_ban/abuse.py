"""Which access log entries count as abuse: refused sign-ins and floods, but nothing that another site's page causes.

Another site's page can make its visitor's browser send any number of requests here. The browser marks them with
Sec-Fetch-Site, which no page can change, and names the page in Origin. Marked requests are not counted: a ban would
block the visitor, and everybody behind the same address, for something they did not do.

A client can forge these headers. It is then not banned, but the edge's rate limits still apply. There is no separate,
higher limit for such clients: a page could make a browser reach it, too.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

SIGN_IN, FLOOD = "refused sign-ins", "requests beyond the limit"
UNAUTHORIZED, TOO_MANY = 401, 429
_OWN = {"same-origin", "none"}


def kind(request: Mapping[str, Any], sign_in: str) -> str | None:
    """Return which kind of abuse an access log entry counts as, or None."""
    status = request.get("DownstreamStatus")
    if status not in (UNAUTHORIZED, TOO_MANY) or is_foreign(request):
        return None
    if request.get("RequestMethod") == "POST" and _path(str(request.get("RequestPath", ""))) == sign_in:
        return SIGN_IN
    return FLOOD if status == TOO_MANY else None


def is_foreign(request: Mapping[str, Any]) -> bool:
    """Tell whether a page of another origin caused this request, according to the browser's headers."""
    site = request.get("request_Sec-Fetch-Site")
    if site is not None and site not in _OWN:
        return True
    origin = request.get("request_Origin")
    # Browsers older than Sec-Fetch-Site send Origin with every cross-origin POST; "null" is not our origin either.
    return origin is not None and _host(str(origin)) != str(request.get("RequestHost", "")).lower()


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _path(text: str) -> str:
    """Return the path as the service sees it: decoded and normalised."""
    return "/" + posixpath.normpath(unquote(text.partition("?")[0])).lstrip("/")
