"""HTTP in, HTTP out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from auth_service.schemas import (
    Accepted,
    AccessToken,
    Credentials,
    Me,
    Registered,
    Registration,
    VerificationRequest,
    VerificationToken,
    Verified,
)
from auth_service.service import Auth, SignedIn
from auth_service.settings import AuthSettings
from shared.errors import Unauthenticated, problem_responses
from shared.tokens import SessionRevoked

PREFIX = "/api/auth"
COOKIE = "refresh_token"

router = APIRouter(prefix=PREFIX, responses=problem_responses(503))
_BODY = (400, 413, 422)


async def _auth(request: Request) -> Auth:
    auth: Auth = request.app.state.auth
    return auth


async def _settings(request: Request) -> AuthSettings:
    settings: AuthSettings = request.app.state.settings
    return settings


Rules = Annotated[Auth, Depends(_auth)]
Settings = Annotated[AuthSettings, Depends(_settings)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))]
RefreshToken = Annotated[str | None, Security(APIKeyCookie(name=COOKIE, auto_error=False))]


@router.post("/register", status_code=201, responses=problem_responses(*_BODY, 409))
async def register(new: Registration, auth: Rules) -> Registered:
    """Create an account and send a link that verifies its address."""
    return await auth.register(new)


@router.post("/verify", responses=problem_responses(*_BODY))
async def verify(body: VerificationToken, auth: Rules) -> Verified:
    """Verify the address that the link was sent to."""
    user = await auth.verify(body.token)
    return Verified(email=user.email, verified=user.verified)


@router.post("/verification", status_code=202, responses=problem_responses(*_BODY))
async def resend_verification(body: VerificationRequest, auth: Rules) -> Accepted:
    """Send the link again. The answer is the same whether the address has an account or not."""
    await auth.resend_verification(body.email)
    return Accepted()


@router.post("/login", responses=problem_responses(*_BODY, 401, 403, 429))
async def login(
    credentials: Credentials, request: Request, response: Response, auth: Rules, settings: Settings
) -> AccessToken:
    """Start a session: an access token in the answer, a refresh token in a cookie."""
    signed_in = await auth.sign_in(credentials.email, credentials.password, _client_address(request))
    return _hand_over(signed_in, response, settings)


@router.post("/refresh", responses=problem_responses(401))
async def refresh(token: RefreshToken, response: Response, auth: Rules, settings: Settings) -> AccessToken:
    """Swap the refresh cookie for a new one and get a new access token."""
    if not token:
        raise SessionRevoked("There is no session to refresh. Please sign in.")
    return _hand_over(await auth.refresh(token), response, settings)


@router.post("/logout", status_code=204)
async def logout(token: RefreshToken, response: Response, auth: Rules, settings: Settings) -> None:
    """End the session and clear the cookie."""
    if token:
        await auth.sign_out(token)
    response.delete_cookie(COOKIE, path=PREFIX, httponly=True, secure=settings.is_https, samesite="strict")


@router.get("/me", responses=problem_responses(401))
async def me(credentials: Bearer, auth: Rules) -> Me:
    """Whom the access token speaks for. Only verified addresses get one."""
    if credentials is None:
        raise Unauthenticated("Send an access token as `Authorization: Bearer ...`.")
    claims = await auth.identify(credentials.credentials)
    return Me(id=claims.sub, email=claims.email, verified=True)


def _hand_over(signed_in: SignedIn, response: Response, settings: AuthSettings) -> AccessToken:
    response.set_cookie(
        COOKIE,
        signed_in.refresh_token,
        max_age=settings.refresh_token_seconds,
        path=PREFIX,
        httponly=True,
        secure=settings.is_https,
        samesite="strict",
    )
    return AccessToken(access_token=signed_in.access_token, expires_in=settings.access_token_seconds)


def _client_address(request: Request) -> str:
    """The last hop of X-Forwarded-For: our proxy writes that one, the ones before it the client may."""
    forwarded = request.headers.get("x-forwarded-for", "")
    last = forwarded.rpartition(",")[2].strip()
    return last or (request.client.host if request.client else "unknown")
