"""The services' own counters: requests, failures and latency.

Not those of the edge, which count it as a failure of the service, too, when a client resets its connection or sends no
body. Nothing that a client can cause alone counts against a release.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from berth.host import clock
from berth.release.engine import Place
from berth.stack.description import Description

SECONDS = 3
# The edge's own port for metrics; not published.
EDGE_PORT = 8082
# Probes of machines, and this program's own requests that see which release answers.
UNJUDGED = re.compile(r"/(healthz|readyz|metrics)|.*/openapi\.json")
# Refused under load: answered with 503, counted separately.
OVERLOAD = "overload"
_SAMPLE = re.compile(r"^(\w+?)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
COUNTER = "http_requests_total"
# Answered with this, a request has its work still before it, and no status says how that ended.
ACCEPTED = "202"
# How the names of counters of such work end.
LATE_FAILURES = "work_after_answer_failures_total"


@dataclass
class Counted:
    """Requests of one kind, or of several."""

    requests: float = 0
    failed: float = 0
    refused: float = 0
    # Spent on them, without the time that their clients kept the service waiting.
    seconds: float = 0
    # Upper end in seconds -> requests at most that slow.
    buckets: dict[float, float] = field(default_factory=dict)

    def plus(self, more: Counted, sign: int = 1) -> Counted:
        ends = {*self.buckets, *more.buckets}
        return Counted(
            self.requests + sign * more.requests,
            self.failed + sign * more.failed,
            self.refused + sign * more.refused,
            self.seconds + sign * more.seconds,
            {end: self.buckets.get(end, 0) + sign * more.buckets.get(end, 0) for end in ends},
        )

    @property
    def failed_percent(self) -> float:
        return 100 * self.failed / self.requests if self.requests else 0.0

    def quantile_ms(self, part: float) -> float:
        """Return a quantile, interpolated within its bucket as Prometheus does."""
        total = self.buckets.get(float("inf"), 0)
        start = below = 0.0
        for end, count in sorted(self.buckets.items()):
            if count >= part * total:
                if end == float("inf"):
                    return start * 1000
                return (start + (end - start) * (part * total - below) / max(count - below, 1)) * 1000
            start, below = end, count
        return 0.0


@dataclass
class Service:
    """What one service counted."""

    # Method and route -> requests.
    routes: dict[str, Counted] = field(default_factory=dict)
    # Processes that crashed. The requests that they held are counted nowhere else.
    lost: float = 0
    # Requests whose work was done after the answer, and how often such work failed.
    accepted: float = 0
    late_failures: float = 0

    @property
    def total(self) -> Counted:
        return summed(self.routes.values())

    @property
    def late_failed_percent(self) -> float:
        # A mail about a changed password follows another answer than 202.
        return 100 * self.late_failures / max(self.accepted, self.late_failures, 1)

    def since(self, before: Service) -> Service:
        # A lower count means that it was restarted and counts from zero.
        if self.total.requests < before.total.requests:
            return self
        none = Counted()
        routes = {name: found.plus(before.routes.get(name, none), -1) for name, found in self.routes.items()}
        return Service(
            routes,
            self.lost - before.lost,
            self.accepted - before.accepted,
            self.late_failures - before.late_failures,
        )


@dataclass
class Seen:
    """One look at a colour, or what happened between two looks."""

    # When it was, or how long in between.
    at: float = 0
    # The services that count.
    services: dict[str, Service] = field(default_factory=dict)
    # Container -> when it was started, and how often again.
    began: dict[str, str] = field(default_factory=dict)
    # What does not answer, and how; dead where nothing listens on the port.
    silent: dict[str, str] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    # Seconds that the edge has used of a processor.
    edge: float = 0

    def since(self, before: Seen) -> Seen:
        none = Service()
        services = {name: found.since(before.services.get(name, none)) for name, found in self.services.items()}
        at = self.at - before.at if before.at else 0
        # Another edge counts from zero.
        edge = self.edge - before.edge if self.edge >= before.edge else self.edge
        return Seen(at, services, self.began, self.silent, self.dead, edge)

    def plain(self) -> dict[str, Any]:
        """Return what is recorded as JSON. Other versions find none of the names they know in it."""
        services = {
            name: {**vars(service), "routes": {route: vars(found) for route, found in service.routes.items()}}
            for name, service in self.services.items()
        }
        return {"at": self.at, "services": services, "began": self.began, "edge": self.edge}

    @classmethod
    def read(cls, values: dict[str, Any]) -> Seen:
        """Read what `plain` wrote; JSON keys are always text."""
        services = {}
        for name, service in values.get("services", {}).items():
            routes = {}
            for route, found in service["routes"].items():
                buckets = {float(end): count for end, count in found["buckets"].items()}
                routes[route] = Counted(**{**found, "buckets": buckets})
            # The program before this one did not write down the last two.
            late = service.get("accepted", 0), service.get("late_failures", 0)
            services[name] = Service(routes, service["lost"], *late)
        return cls(values.get("at", 0), services, values.get("began", {}), edge=values.get("edge", 0))


def summed(parts: Iterable[Counted]) -> Counted:
    total = Counted()
    for part in parts:
        total = total.plus(part)
    return total


def parse(text: str) -> Service:
    """Parse the metrics of a service."""
    found = Service()
    for name, labels, value in _SAMPLE.findall(text):
        if name == "worker_processes_lost_total":
            found.lost += float(value)
            continue
        if name.endswith(LATE_FAILURES):
            found.late_failures += float(value)
            continue
        known = dict(_LABEL.findall(labels))
        route = known.get("route", "")
        if not name.startswith("http_request") or not route or UNJUDGED.fullmatch(route):
            continue
        counted = found.routes.setdefault(f"{known.get('method', '')} {route}", Counted())
        if name == COUNTER:
            counted.requests += float(value)
            counted.failed += float(value) if re.fullmatch(r"5\d\d", known["status"]) else 0
            counted.refused += float(value) if known["status"] == OVERLOAD else 0
            found.accepted += float(value) if known["status"] == ACCEPTED else 0
        elif name == "http_request_duration_seconds_sum":
            counted.seconds += float(value)
        elif name == "http_request_duration_seconds_bucket":
            end = float(known["le"].replace("+Inf", "inf"))
            counted.buckets[end] = counted.buckets.get(end, 0) + float(value)
    return found


def look(places: list[Place], stack: Description, edges: list[Place]) -> Seen:
    """Read the counters of every service with a port that has some, past the edge; of another, request anything."""
    seen = Seen(clock.time(), began={place.name: place.began for place in places})
    for edge in edges:
        # An edge that does not answer says nothing about the release.
        with suppress(OSError, http.client.HTTPException):
            _, text = fetch(edge.address, EDGE_PORT, "/metrics")
            seen.edge += sum(map(float, re.findall(r"^process_cpu_seconds_total (\S+)", text, re.MULTILINE)))
    for place in places:
        service = stack.get(place.service)
        port, path = service.metrics or (service.port, "/")
        if not service.port:
            continue
        try:
            status, text = fetch(place.address, port, path)
            if service.metrics and status == 200 and COUNTER in text:
                seen.services[place.service] = parse(text)
            elif status >= (400 if service.metrics else 500):
                seen.silent[place.service] = f"answers {path} with {status}"
        except ConnectionRefusedError:
            seen.dead[place.service] = f"does not listen on port {port}"
        except (OSError, http.client.HTTPException) as error:
            seen.silent[place.service] = f"does not answer: {type(error).__name__}"
    return seen


def fetch(address: str, port: int, path: str) -> tuple[int, str]:
    """Send one request past the edge; return status and text. Raises OSError or HTTPException without an answer."""
    connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()
