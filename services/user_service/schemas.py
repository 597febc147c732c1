"""What crosses the wire of user_service."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Shown in pages: no control characters, but a biography may have lines and tabs.
Name = Annotated[str, Field(max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["Ada Lovelace"])]
Bio = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]


class Profile(BaseModel):
    id: str
    email: str
    name: str
    bio: str
    updated_at: datetime


class ProfileChange(BaseModel):
    """Fields that are left out stay as they are."""

    # A misspelt field is refused instead of ignored.
    model_config = ConfigDict(extra="forbid")

    name: Name = ""
    bio: Bio = ""
