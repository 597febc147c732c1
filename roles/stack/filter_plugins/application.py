"""A release's images, and how they are built, as the compose file says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "files"))

import application  # found there


def application_images(text: str) -> list[str]:
    """Return the names of a release's images, without prefix and tag."""
    try:
        return application.images(text)
    except application.ApplicationError as error:
        raise AnsibleFilterError(str(error)) from None


def application_platform(text: str, values: dict[str, Any]) -> dict[str, str]:
    """Return service -> image of the services that outlive releases."""
    try:
        return application.platform(text, {name: str(value) for name, value in values.items()})
    except application.ApplicationError as error:
        raise AnsibleFilterError(str(error)) from None


def application_bake(text: str, prefix: str, release: str, common: dict[str, Any]) -> dict[str, Any]:
    """Return a bake file that builds a release: a target for each image, each with what is common to all."""
    try:
        found = application.builds(text)
    except application.ApplicationError as error:
        raise AnsibleFilterError(str(error)) from None
    targets = {
        one.name: {
            **common,
            "context": one.context,
            "dockerfile": one.dockerfile,
            **({"target": one.target} if one.target else {}),
            "tags": [f"{prefix}/{one.name}:{release}"],
        }
        for one in found
    }
    return {"group": {"default": {"targets": list(targets)}}, "target": targets}


class FilterModule:
    """Filters of role stack."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {
            "application_images": application_images,
            "application_platform": application_platform,
            "application_bake": application_bake,
        }
