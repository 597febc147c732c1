"""The services of a release, as its compose file describes them.

What Berth needs to know beyond compose stands in labels of the service (docs/extending.md). A release that was kept
before there were labels has none: all its services may write, and nothing but their health can be checked.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from berth.host.refused import Refused
from berth.stack import databases, needs

# The compose profiles of a release's services, and of those that run on a schedule.
PROFILE = "release"
JOB = "job"
PREFIX = "berth."
_PATH = re.compile(r"/[\w.~/-]*")
METRICS = re.compile(r"(?::(\d+))?(/[\w./-]*)")
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Limit:
    """The requests of one client to a path: on average in a second, and at once."""

    path: str
    average: int
    burst: int


@dataclass(frozen=True)
class Service:
    """One service of the compose file."""

    name: str
    image: str = ""
    profiles: tuple[str, ...] = ()
    user: str = ""
    # Path prefixes that the edge routes to it.
    routes: tuple[str, ...] = ()
    # 0: it answers no requests over HTTP.
    port: int = 0
    # Whether it gets cookies.
    cookies: bool = True
    # Whether a client may change to another protocol on its connection, such as WebSocket.
    upgrade: bool = False
    # Whether the edge limits the rate of its clients; and further limits, on some paths.
    rate_limit: bool = True
    limits: tuple[Limit, ...] = ()
    # Paths of the page, and of the document for programs, that visitors of the closed site get.
    maintenance: tuple[str, ...] = ()
    # Smoke test, run in its container.
    check: tuple[str, ...] = ()
    # Stopped while data is replaced.
    writes: bool = False
    # Where its counters are read: port and path.
    metrics: tuple[int, str] | None = None
    # When a job runs, as systemd writes calendar events.
    schedule: str = ""
    # Files that it reads in /run/secrets.
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """The services of profile release, and those of profile job."""

    services: tuple[Service, ...] = ()
    jobs: tuple[Service, ...] = ()

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.services]

    @property
    def checks(self) -> list[Service]:
        return [one for one in self.services if one.check]

    @property
    def routes(self) -> dict[str, str]:
        """Return path prefix -> service."""
        return {route: one.name for one in self.services for route in one.routes}

    def get(self, name: str) -> Service:
        """Return a service; of one that is not described, its name."""
        return next((one for one in (*self.services, *self.jobs) if one.name == name), Service(name, writes=True))

    def has(self, name: str) -> bool:
        """Tell whether a service is part of the release; where nothing is known, all are."""
        return not self.services or name in self.names

    def serves(self, path: str) -> str:
        """Return the service that the edge routes a path to; empty where there is none."""
        found = [route for route in self.routes if path.startswith(route)]
        return self.routes[max(found, key=len)] if found else ""

    def images(self, prefix: str, release: str) -> dict[str, str]:
        """Return image -> a service that runs it, of the images made for this release."""
        found: dict[str, str] = {}
        for one in (*self.services, *self.jobs):
            named_after = one.image == f"{prefix}/{one.name}:{release}"
            if named_after or (one.image.startswith(f"{prefix}/") and one.image.endswith(f":{release}")):
                # Of several with one image the one that it is named after.
                found[one.image] = one.name if named_after else found.get(one.image, one.name)
        return found


# Of a release whose compose file cannot be read.
UNKNOWN = Description()


def read(config: dict[str, Any]) -> Description:
    """Read what `docker compose config --format json` prints. Raises Refused where labels contradict each other."""
    every = {name: one or {} for name, one in config.get("services", {}).items()}
    files = needs.read(config).files()
    databases.read(config)
    labelled = any(key.startswith(PREFIX) for one in every.values() for key in one.get("labels") or {})
    services = [_service(name, one, labelled, files.get(name, ())) for name, one in every.items()]
    for one in services:
        _refuse_contradiction(one)
    release = tuple(one for one in services if PROFILE in one.profiles)
    jobs = tuple(one for one in services if JOB in one.profiles)
    _refuse_shared((*release, *jobs))
    return Description(release, jobs)


def _service(name: str, found: dict[str, Any], labelled: bool, secrets: tuple[str, ...]) -> Service:
    values = _values(name, found.get("labels") or {}) if labelled else {"writes": True}
    image, user = str(found.get("image") or ""), str(found.get("user") or "")
    return Service(name, image, tuple(found.get("profiles") or ()), user, secrets=secrets, **values)


def _values(service: str, labels: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, text in labels.items():
        if not key.startswith(PREFIX):
            continue
        if key not in _READERS:
            near = difflib.get_close_matches(key, _READERS, 1, 0)[0]
            raise _refused(service, key, f"is no label that Berth knows. Did you mean {near}?")
        field, parse = _READERS[key]
        try:
            value = parse(str(text).strip())
        except ValueError as error:
            raise _refused(service, key, f'is "{text}": {error}') from None
        if field:
            values[field] = value
    if metrics := values.get("metrics"):
        port, path = metrics
        if not (port or values.get("port")):
            raise _refused(service, "berth.metrics", f'needs a port: set berth.port, or write ":PORT{path}".')
        values["metrics"] = (port or values["port"], path)
    return values


def _refuse_contradiction(one: Service) -> None:
    if JOB in one.profiles and (not one.schedule or PROFILE in one.profiles):
        problem = f"is missing: it is of profile {JOB}." if not one.schedule else f"is not for profile {PROFILE}, too."
        raise _refused(one.name, "berth.schedule", problem)
    if one.schedule and JOB not in one.profiles:
        raise _refused(one.name, "berth.schedule", f"is for services of profile {JOB}.")
    if one.routes and not one.port:
        raise _refused(one.name, "berth.route", "needs a port: set berth.port.")
    if PROFILE not in one.profiles:
        for key, value in (("route", one.routes), ("check", one.check)):
            if value:
                raise _refused(one.name, f"{PREFIX}{key}", f"is for services of profile {PROFILE}.")
    for limit in one.limits:
        if not limit.path.startswith(one.routes):
            raise _refused(one.name, "berth.limits", f"has {limit.path}, which is below none of its routes.")
    if one.maintenance and not one.routes:
        raise _refused(one.name, "berth.maintenance", "needs a route: the edge gets the page from there.")


def _refuse_shared(services: tuple[Service, ...]) -> None:
    """A route leads to one service; a user is that of one image, since secret files belong to users."""
    routes: dict[str, str] = {}
    users: dict[str, Service] = {}
    pages = [one.name for one in services if one.maintenance]
    if len(pages) > 1:
        raise _refused(pages[1], "berth.maintenance", f"is set although {pages[0]} has the page.")
    for one in services:
        for route in one.routes:
            if route in routes:
                raise _refused(one.name, "berth.route", f"is {route}, which is routed to {routes[route]} already.")
            routes[route] = one.name
        uid = one.user.partition(":")[0]
        if not uid:
            continue
        first = users.setdefault(uid, one)
        if first.image != one.image:
            raise _refused(one.name, "user", f"is {uid}, as that of {first.name}: each could read the other's secrets.")


def _refused(service: str, key: str, problem: str) -> Refused:
    return Refused(f"docker-compose.prod.yml: {key} of service {service} {problem}", "compose")


# --- values ---


def _routes(text: str) -> tuple[str, ...]:
    routes = tuple(route.strip() for route in text.split(","))
    for route in routes:
        if not _PATH.fullmatch(route):
            raise ValueError("a path begins with / and has letters, digits, and any of ._~-")
    return routes


def _limits(text: str) -> tuple[Limit, ...]:
    found = [limit.split() for limit in text.split(",")]
    for words in found:
        if (
            len(words) != 3
            or not _PATH.fullmatch(words[0])
            or not all(word.isdigit() and int(word) for word in words[1:])
        ):
            raise ValueError("write PATH AVERAGE BURST, requests in a second and at once; several separated by commas.")
    return tuple(Limit(path, int(average), int(burst)) for path, average, burst in found)


def _page(text: str) -> tuple[str, ...]:
    paths = tuple(text.split())
    if not 1 <= len(paths) <= 2 or not all(_PATH.fullmatch(path) for path in paths):
        raise ValueError("write the path of a page, and that of a document for programs if there is one.")
    return paths


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ValueError("a port is a number from 1 to 65535.")
    return int(text)


def _command(text: str) -> tuple[str, ...]:
    if not (words := tuple(shlex.split(text))):
        raise ValueError("a command is needed.")
    return words


def _boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise ValueError('write "true" or "false".')
    return _BOOLEANS[text]


def _metrics(text: str) -> tuple[int, str]:
    if not (found := METRICS.fullmatch(text)):
        raise ValueError("write a path, or :PORT/PATH.")
    return _port(found[1]) if found[1] else 0, found[2]


def _words(text: str) -> str:
    if not text:
        raise ValueError("a value is needed.")
    return text


def _calendar(text: str) -> str:
    # systemd itself says whether it is one (release/jobs.py): its syntax differs by version.
    return " ".join(_words(text).split())


# Label -> field of the service and how it is read. Those without a field are read elsewhere.
_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "berth.route": ("routes", _routes),
    "berth.port": ("port", _port),
    "berth.cookies": ("cookies", _boolean),
    "berth.upgrade": ("upgrade", _boolean),
    "berth.rate_limit": ("rate_limit", _boolean),
    "berth.limits": ("limits", _limits),
    "berth.maintenance": ("maintenance", _page),
    "berth.check": ("check", _command),
    "berth.writes": ("writes", _boolean),
    "berth.metrics": ("metrics", _metrics),
    "berth.schedule": ("schedule", _calendar),
    # Read in berth/stack/needs.py and databases.py.
    **dict.fromkeys(("berth.mongo", "berth.redis", "berth.secrets", databases.BACKUP, databases.RESTORE), ("", _words)),
}
