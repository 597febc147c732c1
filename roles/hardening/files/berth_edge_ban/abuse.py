"""What of the edge's access log is abuse: refused sign-ins and floods, and nothing that a foreign page can cause.

A page of somebody else's can make its visitor's browser send requests here, as many as it likes. The browser says so in
Sec-Fetch-Site, which no page can change, and names the page in Origin. Such requests are not counted: a ban would shut
out the visitor, and everybody behind the same address, for what he did not do.

Anybody can write these headers himself. He is not banned, and the limits of the edge hold him all the same. There is no
higher limit for him: whatever he can reach, a page can make a browser reach too.
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
    """Return as what an entry of the access log counts."""
    status = request.get("DownstreamStatus")
    if status not in (UNAUTHORIZED, TOO_MANY) or is_foreign(request):
        return None
    if request.get("RequestMethod") == "POST" and _path(str(request.get("RequestPath", ""))) == sign_in:
        return SIGN_IN
    return FLOOD if status == TOO_MANY else None


def is_foreign(request: Mapping[str, Any]) -> bool:
    """Say whether a page of another origin caused this request, as far as its browser says."""
    site = request.get("request_Sec-Fetch-Site")
    if site is not None and site not in _OWN:
        return True
    origin = request.get("request_Origin")
    # Browsers from before Sec-Fetch-Site name the origin of every POST from elsewhere; "null" is not ours either.
    return origin is not None and _host(str(origin)) != str(request.get("RequestHost", "")).lower()


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _path(text: str) -> str:
    """Return the path that the service sees, however it is written."""
    return "/" + posixpath.normpath(unquote(text.partition("?")[0])).lstrip("/")
