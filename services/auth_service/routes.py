"""HTTP in, HTTP out."""

from ipaddress import ip_address
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from auth_service.cookies import OLD_NAME, delete_cookies, refresh_tokens, refuse_cross_site, set_cookies
from auth_service.limits import network_of
from auth_service.schemas import (
    Accepted,
    AccessToken,
    Credentials,
    MailRequest,
    Me,
    PasswordChange,
    PasswordReset,
    Registered,
    Registration,
    VerificationToken,
    Verified,
)
from auth_service.service import Auth
from auth_service.sessions import SignedIn
from auth_service.settings import AuthSettings
from shared.errors import Unauthenticated, problem_responses
from shared.tokens import SessionRevoked

PREFIX = "/api/auth"

router = APIRouter(prefix=PREFIX, responses=problem_responses(503))
_BODY = (400, 413, 422)


async def _auth(request: Request) -> Auth:
    auth: Auth = request.app.state.auth
    return auth


async def _settings(request: Request) -> AuthSettings:
    settings: AuthSettings = request.app.state.settings
    return settings


async def _own_page(request: Request, settings: Annotated[AuthSettings, Depends(_settings)]) -> None:
    refuse_cross_site(request, settings)


async def _network(request: Request, settings: Annotated[AuthSettings, Depends(_settings)]) -> str:
    return network_of(_client_address(request, settings))


async def _bearer(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))],
) -> str:
    if credentials is None:
        raise Unauthenticated("Send an access token as `Authorization: Bearer ...`.")
    return credentials.credentials


async def _refresh_tokens(
    request: Request,
    # For OpenAPI's sake: the header itself is read, where a name may stand twice.
    _cookie: Annotated[str | None, Security(APIKeyCookie(name=OLD_NAME, auto_error=False))],
) -> tuple[str, str]:
    return refresh_tokens(request)


Rules = Annotated[Auth, Depends(_auth)]
Settings = Annotated[AuthSettings, Depends(_settings)]
Network = Annotated[str, Depends(_network)]
Bearer = Annotated[str, Depends(_bearer)]
RefreshTokens = Annotated[tuple[str, str], Depends(_refresh_tokens)]
OWN_PAGE = [Depends(_own_page)]


@router.post("/register", status_code=202, responses=problem_responses(*_BODY, 429))
async def register(new: Registration, network: Network, after: BackgroundTasks, auth: Rules) -> Registered:
    """Ask for an account. The answer is the same whether the address has one or not; the mail says what is next."""
    after.add_task(await auth.register(new, network))
    return Registered(email=new.email)


@router.post("/verify", responses=problem_responses(*_BODY))
async def verify(body: VerificationToken, auth: Rules) -> Verified:
    """Verify the address that the link was sent to, with the password that was chosen at that sign-up."""
    user = await auth.verify(body.token, body.password)
    return Verified(email=user.email, verified=user.verified)


@router.post("/verification", status_code=202, responses=problem_responses(*_BODY))
async def resend_verification(body: MailRequest, network: Network, after: BackgroundTasks, auth: Rules) -> Accepted:
    """Send the link again. The answer is the same whether the address has an account or not."""
    after.add_task(await auth.resend_verification(body.email, network))
    return Accepted()


@router.post("/password/forgotten", status_code=202, responses=problem_responses(*_BODY))
async def forgotten_password(body: MailRequest, network: Network, after: BackgroundTasks, auth: Rules) -> Accepted:
    """Send a link to choose a new password. The answer is the same whether the address has an account or not."""
    after.add_task(await auth.forgotten(body.email, network))
    return Accepted()


@router.post("/password/reset", responses=problem_responses(*_BODY))
async def reset_password(body: PasswordReset, network: Network, after: BackgroundTasks, auth: Rules) -> Verified:
    """Choose a new password with the link that was sent. It works once, and ends every session."""
    user, work = await auth.reset(body.token, body.password, network)
    after.add_task(work)
    return Verified(email=user.email, verified=user.verified)


@router.post(
    "/password/change", status_code=204, dependencies=OWN_PAGE, responses=problem_responses(*_BODY, 401, 403, 429)
)
async def change_password(
    body: PasswordChange, token: Bearer, network: Network, after: BackgroundTasks, auth: Rules
) -> None:
    """Change the password, and end every other session."""
    after.add_task(await auth.change_password(token, body.current, body.new, network))


@router.post("/login", dependencies=OWN_PAGE, responses=problem_responses(*_BODY, 401, 403, 429))
async def login(
    credentials: Credentials, network: Network, response: Response, auth: Rules, settings: Settings
) -> AccessToken:
    """Start a session: an access token in the answer, a refresh token in a cookie."""
    signed_in = await auth.sign_in(credentials.email, credentials.password, network)
    return _hand_over(signed_in, response, settings)


@router.post("/refresh", dependencies=OWN_PAGE, responses=problem_responses(401, 403))
async def refresh(tokens: RefreshTokens, response: Response, auth: Rules, settings: Settings) -> AccessToken:
    """Swap the refresh cookie for a new one and get a new access token."""
    if not tokens[0]:
        raise SessionRevoked("There is no session to refresh. Please sign in.")
    return _hand_over(await auth.sessions.refresh(*tokens), response, settings)


@router.post("/logout", status_code=204, dependencies=OWN_PAGE, responses=problem_responses(403))
async def logout(tokens: RefreshTokens, response: Response, auth: Rules, settings: Settings) -> None:
    """End the session and clear the cookie."""
    await auth.sessions.sign_out(*tokens)
    delete_cookies(response, settings)


@router.get("/me", responses=problem_responses(401))
async def me(token: Bearer, auth: Rules) -> Me:
    """Whom the access token speaks for. Only verified addresses get one."""
    claims = await auth.sessions.identify(token)
    return Me(id=claims.sub, email=claims.email, verified=True)


def _hand_over(signed_in: SignedIn, response: Response, settings: AuthSettings) -> AccessToken:
    set_cookies(response, signed_in.refresh_token, settings)
    return AccessToken(access_token=signed_in.access_token, expires_in=settings.access_token_seconds)


def _client_address(request: Request, settings: AuthSettings) -> str:
    """The last hop of X-Forwarded-For that is no proxy of ours: the hops before it the visitor may have written."""
    hops = [hop.strip() for hop in request.headers.get("x-forwarded-for", "").split(",")]
    while len(hops) > 1 and _is_ours(hops[-1], settings):
        hops.pop()
    return hops[-1] or (request.client.host if request.client else "unknown")


def _is_ours(hop: str, settings: AuthSettings) -> bool:
    try:
        address = ip_address(hop)
    except ValueError:
        return False
    return any(address in network for network in settings.trusted_proxies)
