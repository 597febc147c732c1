"""The routes of a release at the edge, made of its description.

A document for Traefik's file provider. The names of Traefik services end with the colour, so that the edge has metrics
for each colour; a service limits requests in flight over all its routes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from berth.host.live import Live
from berth.release.settings import Settings
from berth.stack.description import Description, Limit, Service

# Only requests through a trusted proxy still have it when the edge matches routes.
_FORWARDED = "HeaderRegexp(`X-Forwarded-For`, `.`)"
_TRACED = "HeaderRegexp(`Traceparent`, `.`)"


@dataclass(frozen=True)
class Audience:
    """For whom routes are: everybody, or those who fulfil a condition, who come first then."""

    # Part of the names, so that several files can be in force at once.
    name: str = ""
    condition: str = ""
    # 0: by the length of the rules, among themselves and with an owner's own files beside them.
    priority: int = 0


EVERYBODY = Audience()


@dataclass(frozen=True)
class _Clients:
    """Clients that connect by themselves, or visitors behind a trusted proxy, who are counted differently."""

    name: str
    rule: str
    # Middlewares of services whose clients are limited in their rate, and of all services.
    rate: list[str]
    service: list[str]


@dataclass(frozen=True)
class _Path:
    """A path prefix, and a limit of its own. An empty prefix is every path."""

    service: Service
    prefix: str
    limit: Limit | None = None


@dataclass(frozen=True)
class _Case:
    """Requests that are routed alike but for one thing: its part of names and rules, and its middleware."""

    name: str = ""
    rule: str = ""
    middleware: str = ""


def routes(
    description: Description, settings: Settings, live: Live, shown: str, audience: Audience = EVERYBODY
) -> dict[str, Any]:
    """Return the routes to a colour. Answers name the release only to clients that fulfil the rule `shown`."""
    paths, clients = _paths(description), _clients(settings)
    # Without this, the edge would continue any trace that a client sends.
    traces = [_Case(), _Case("-own-trace", _TRACED, "own-trace")] if settings.traces else [_Case()]
    viewers = [_Case(), _Case("-shown", shown, "release")]
    routers: dict[str, Any] = {}
    for rank, path in enumerate(paths):
        for client in clients:
            for nth, cases in enumerate((trace, viewer) for viewer in viewers for trace in traces):
                name, router = _router(settings, live, audience, path, client, cases)
                if audience.priority:
                    router["priority"] = audience.priority + nth * len(paths) + rank
                routers[name] = router
    http = {
        "routers": routers,
        "services": {
            f"{one.name}{client.name}{audience.name}-{live.colour}": {
                "middlewares": client.service,
                "loadBalancer": {"servers": [{"url": _url(one, live)}]},
            }
            for one in description.services
            if one.routes
            for client in clients
        },
        "middlewares": dict(_middlewares(settings, live, audience, paths, clients)),
    }
    return {"http": http}


def maintenance(description: Description, settings: Settings, live: Live) -> dict[str, Any]:
    """Return the routes of the closed site: 503 for everybody, with the page that a service of the release has."""
    headers = {"Retry-After": str(settings.maintenance_retry_after), "Cache-Control": "no-store"}
    middlewares: dict[str, Any] = {"maintenance": {"headers": {"customResponseHeaders": headers}}}
    # Without a server the edge answers 503 by itself.
    services: dict[str, Any] = {"maintenance": {"loadBalancer": {"servers": []}}}
    host = f"Host(`{settings.domain}`)"
    routers = {
        "maintenance": {"rule": host, "priority": 10001, "middlewares": ["maintenance"], "service": "maintenance"}
    }
    if page := next((one for one in description.services if one.maintenance), None):
        services["maintenance-page"] = {"loadBalancer": {"servers": [{"url": _url(page, live)}]}}
        # Programs get a document where people get the page.
        others = [
            f"PathPrefix(`{path}`)" for path, name in description.routes.items() if name != page.name and path != "/"
        ]
        if others:
            rule = f"{host} && ({' || '.join(others)})"
            routers["maintenance-document"] = {**routers["maintenance"], "rule": rule, "priority": 10002}
        for (name, router), query in zip(routers.items(), page.maintenance, strict=False):
            errors = {"status": ["503"], "service": "maintenance-page", "query": query}
            middlewares[f"{name}-page"] = {"errors": errors}
            router["middlewares"] = ["maintenance", f"{name}-page"]
    return {"http": {"routers": routers, "services": services, "middlewares": middlewares}}


def _paths(description: Description) -> list[_Path]:
    """Return each prefix once, the shortest first; a limit on a whole route takes the route's place."""
    found: dict[str, _Path] = {}
    for service in description.services:
        for route in service.routes:
            prefix = "" if route == "/" else route
            found[prefix] = _Path(service, prefix)
    for service in description.services:
        for limit in service.limits:
            found[limit.path] = _Path(service, limit.path, limit)
    return sorted(found.values(), key=lambda path: len(path.prefix))


def _clients(settings: Settings) -> list[_Clients]:
    if not settings.trusted_proxies:
        return [_Clients("", "", settings.rate_middlewares, settings.middlewares)]
    return [
        _Clients("", f"!{_FORWARDED}", settings.rate_middlewares, settings.middlewares),
        _Clients("-proxied", _FORWARDED, settings.rate_proxied_middlewares, settings.proxied_middlewares),
    ]


def _router(
    settings: Settings, live: Live, audience: Audience, path: _Path, client: _Clients, cases: Iterable[_Case]
) -> tuple[str, dict[str, Any]]:
    service, end = path.service, audience.name
    first = path.prefix in ("", service.routes[0])
    names = [service.name, "" if first else f"-{_slug(path.prefix)}", client.name, end, *(one.name for one in cases)]
    rules = [f"({audience.condition})" if audience.condition else "", f"Host(`{settings.domain}`)"]
    rules += [f"PathPrefix(`{path.prefix}`)" if path.prefix else "", client.rule, *(one.rule for one in cases)]
    middlewares = [f"{one.middleware}{end}" for one in reversed(list(cases)) if one.middleware]
    middlewares += [] if service.cookies else [f"no-cookies{end}"]
    middlewares += [] if service.upgrade else [f"no-upgrade{end}"]
    middlewares += client.rate if service.rate_limit else []
    middlewares += [f"limit-{_slug(path.prefix)}{client.name}{end}"] if path.limit else []
    router: dict[str, Any] = {
        "rule": " && ".join(filter(None, rules)),
        "middlewares": middlewares,
        "service": f"{service.name}{client.name}{end}-{live.colour}",
    }
    if any(one.rule == _TRACED for one in cases):
        router["observability"] = {"tracing": False}
    return "".join(names), router


def _middlewares(
    settings: Settings, live: Live, audience: Audience, paths: list[_Path], clients: list[_Clients]
) -> Iterator[tuple[str, dict[str, Any]]]:
    end = audience.name
    answer, request = {"X-Berth-Release": live.signature}, {"X-Berth-Release-Key": ""}
    yield f"release{end}", {"headers": {"customResponseHeaders": answer, "customRequestHeaders": request}}
    if any(not path.service.cookies for path in paths):
        # An intruder in such a service sees no session.
        yield f"no-cookies{end}", {"headers": {"customRequestHeaders": {"Cookie": ""}}}
    if any(not path.service.upgrade for path in paths):
        # A service that does not know the protocol may take such a request to have no body, and read the body as the
        # next request, which the edge has not seen (RFC 9110, 7.8; RFC 9112, 11.2).
        yield f"no-upgrade{end}", {"headers": {"customRequestHeaders": {"Upgrade": ""}}}
    if settings.traces:
        context = dict.fromkeys(("Traceparent", "Tracestate", "Baggage"), "")
        yield f"own-trace{end}", {"headers": {"customRequestHeaders": context}}
    for path in paths:
        if not path.limit:
            continue
        for client in clients:
            counted: dict[str, Any] = {"ipv6Subnet": 64}
            if client.name:
                counted["excludedIPs"] = settings.trusted_proxies
            rate = {"average": path.limit.average, "burst": path.limit.burst}
            name = f"limit-{_slug(path.prefix)}{client.name}{end}"
            yield name, {"rateLimit": {**rate, "sourceCriterion": {"ipStrategy": counted}}}


def _url(service: Service, live: Live) -> str:
    return f"http://{service.name}-{live.colour}:{service.port}"


def _slug(path: str) -> str:
    return re.sub(r"[^\w]+", "-", path).strip("-")
