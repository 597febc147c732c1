"""HTTP in, HTTP out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.errors import Unauthenticated, problem_responses
from user_service.schemas import Profile, ProfileChange
from user_service.service import Profiles

PREFIX = "/api/users"

router = APIRouter(prefix=PREFIX, responses=problem_responses(401, 503))


async def _profiles(request: Request) -> Profiles:
    profiles: Profiles = request.app.state.profiles
    return profiles


async def _access_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))],
) -> str:
    if credentials is None:
        raise Unauthenticated("Send an access token as `Authorization: Bearer ...`.")
    return credentials.credentials


Rules = Annotated[Profiles, Depends(_profiles)]
AccessToken = Annotated[str, Depends(_access_token)]


@router.get("/me")
async def read_me(token: AccessToken, profiles: Rules) -> Profile:
    """The profile of whoever holds the access token."""
    return await profiles.mine(token)


@router.patch("/me", responses=problem_responses(400, 413, 422))
async def change_me(change: ProfileChange, token: AccessToken, profiles: Rules) -> Profile:
    """Change the fields that are sent; the others stay."""
    return await profiles.change(token, change)
