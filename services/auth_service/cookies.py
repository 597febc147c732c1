"""The refresh token's cookie, and which requests may use it.

Two names for a while: `__Host-refresh_token`, which a browser takes from this very host alone and over https alone, and
`refresh_token`, which is all that the release before knows.
"""

from fastapi import Request, Response

from auth_service.settings import AuthSettings
from shared.errors import ServiceError

OLD_NAME = "refresh_token"
NAME = f"__Host-{OLD_NAME}"
OLD_PATH = "/api/auth"


class CrossSite(ServiceError):
    status = 403
    code = "cross_site"


def refuse_cross_site(request: Request, settings: AuthSettings) -> None:
    """Refuse what another site's page makes a browser ask. A program that is no browser sends neither header."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    if (origin is not None and origin.lower() != settings.origin) or site not in (None, "same-origin", "none"):
        raise CrossSite("This can only be asked by a page of this site.")


def refresh_tokens(request: Request) -> tuple[str, str]:
    """The refresh token, and what came under the old name beside it. Two values under one name are none."""
    found: dict[str, set[str]] = {NAME: set(), OLD_NAME: set()}
    count = dict.fromkeys(found, 0)
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name in found and value:
                count[name] += 1
                found[name].add(value)
    new, old = (found[name].pop() if count[name] == 1 else "" for name in (NAME, OLD_NAME))
    if count[NAME]:
        return new, old if new else ""
    return old, old


def set_cookies(response: Response, token: str, settings: AuthSettings) -> None:
    for name, path in _names(settings).items():
        response.set_cookie(
            name,
            token,
            max_age=settings.refresh_token_seconds,
            path=path,
            httponly=True,
            secure=settings.is_https,
            samesite="strict",
        )


def delete_cookies(response: Response, settings: AuthSettings) -> None:
    for name, path in _names(settings).items():
        response.delete_cookie(name, path=path, httponly=True, secure=settings.is_https, samesite="strict")


def _names(settings: AuthSettings) -> dict[str, str]:
    return {**({NAME: "/"} if settings.is_https else {}), OLD_NAME: OLD_PATH}
