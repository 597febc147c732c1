"""Which images a release of the application has, and what each is built from, as its compose file says.

An image belongs to a release if its name is `${IMAGE_PREFIX}/<name>:${RELEASE}`. Several services may run one image;
the first that says how it is built counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

COMPOSE_FILE = "docker-compose.prod.yml"
# ${NAME}, ${NAME:-default}
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}")
_OWN = re.compile(r"\$\{IMAGE_PREFIX\b[^}]*\}/([\w./-]+):\$\{RELEASE\b[^}]*\}")


class ApplicationError(Exception):
    """The compose file does not say it well; the message names service and key."""


@dataclass(frozen=True)
class Built:
    """How one image is built: a folder of the project, and a Dockerfile in it."""

    name: str
    context: str
    dockerfile: str = "Dockerfile"
    target: str = ""


def images(text: str) -> list[str]:
    """Return the names of a release's images, without prefix and tag.

    Raises:
        ApplicationError: the file is not a compose file.
    """
    return list(dict.fromkeys(name for name, _, _ in _services(text)))


def builds(text: str) -> list[Built]:
    """Return how the images are built, for those of which the file says it.

    Raises:
        ApplicationError: the file is not a compose file, or a context is not a folder of the project.
    """
    found: dict[str, Built] = {}
    for name, service, build in _services(text):
        if build is None or name in found:
            continue
        given = build if isinstance(build, dict) else {"context": build}
        context = str(given.get("context") or ".")
        if context.startswith(("/", "~")) or ".." in PurePosixPath(context).parts or "://" in context:
            raise ApplicationError(
                f"{COMPOSE_FILE}: build.context of service {service} is {context}: name a folder of the project."
            )
        folder = str(PurePosixPath(context))
        found[name] = Built(name, folder, str(given.get("dockerfile") or "Dockerfile"), str(given.get("target") or ""))
    return list(found.values())


def folders(text: str) -> list[str]:
    """Return the folders that images are built from: a release is named after their content."""
    return sorted({one.context for one in builds(text)})


def platform(text: str, values: dict[str, str]) -> dict[str, str]:
    """Return service -> image of the services that outlive releases (profile platform).

    Args:
        text: the compose file.
        values: the variables that images are named by, such as MONGO_IMAGE.

    Raises:
        ApplicationError: the file is not a compose file, or an image is not named.
    """
    found = {}
    for name, service in _all(text).items():
        if "platform" not in (service.get("profiles") or ()):
            continue
        image = _VARIABLE.sub(lambda one: values.get(one[1]) or one[2] or "", str(service.get("image") or ""))
        if not image:
            raise ApplicationError(f"{COMPOSE_FILE}: service {name} of profile platform names no image.")
        found[name] = image
    return found


def _all(text: str) -> dict[str, Any]:
    """Return every service."""
    try:
        return {name: service or {} for name, service in yaml.safe_load(text)["services"].items()}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ApplicationError(f"{COMPOSE_FILE} is not a compose file: {error}") from None


def _services(text: str) -> list[tuple[str, str, Any]]:
    """Return image, service and build section of each service that runs an image of the release."""
    found = []
    for name, service in _all(text).items():
        if own := _OWN.fullmatch(str((service or {}).get("image", ""))):
            found.append((own[1], name, service.get("build")))
    return found
