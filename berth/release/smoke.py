"""The smoke test of a release: Berth's own requests to every route, and the checks that the application brings."""

from __future__ import annotations

import json
import re
import secrets
from contextlib import closing
from typing import Any

from berth.host import clock, files
from berth.host.commands import last_lines
from berth.host.live import Live
from berth.release.edge import Edge
from berth.release.engine import Side
from berth.release.probe import TRIES, Busy, ProbeFailed, Visit
from berth.release.settings import Settings
from berth.stack.description import Service

# Where containers on the edge's network reach it: without the host's firewall and NAT, over IPv4 or IPv6.
EDGE = "traefik:443"
# A check ends by itself within the seconds it is told; so much longer takes an engine under load.
SPARE_SECONDS = 15
# Of a release that says nothing of its routes.
UNKNOWN_ROUTES = {"/": ""}


class Smoke:
    def __init__(self, settings: Settings, edge: Edge) -> None:
        self._settings = settings
        self._edge = edge

    def plan(self, live: Live, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Describe a visit to this release over the published port, as probe.Visit takes it.

        Without `headers` it passes the maintenance page, as operators do.
        """
        headers = self._edge.pass_header() if headers is None else headers
        return {
            "domain": self._settings.domain,
            "address": self._settings.address,
            "headers": headers | self._edge.release_header(),
            "paths": Side.on(self._settings, live).known.routes or UNKNOWN_ROUTES,
            "release": live.signature,
            "seconds": self._settings.smoke_seconds,
        }

    def visit(self, live: Live, headers: dict[str, str] | None = None) -> Visit:
        return Visit(**self.plan(live, headers))

    def test(self, live: Live, headers: dict[str, str] | None = None, routed: bool = False) -> dict[str, float]:
        """Smoke-test a release once; return how fast it answers, in milliseconds.

        With `routed` only services that serve requests run their checks. Raises ProbeFailed.
        """
        with closing(self.visit(live, headers)) as visitor:
            found = visitor.speed()
        side = Side.on(self._settings, live)
        for service in side.known.checks:
            if service.routes or not routed:
                found |= self._check(side, live, service, headers)
        return found

    def look(self, live: Live, routed: bool = False) -> None:
        """Smoke-test a live release. It takes three failures, as from outside; a refusal under load is none.

        Raises ProbeFailed with the first one.
        """
        first: ProbeFailed | None = None
        for _ in range(TRIES):
            try:
                self.test(live, routed=routed)
            except Busy:
                return
            except ProbeFailed as failed:
                first = first or failed
                clock.sleep(1)
            else:
                return
        if first:
            raise first

    def _check(self, side: Side, live: Live, service: Service, headers: dict[str, str] | None) -> dict[str, float]:
        """Run a service's check in its container. Raises ProbeFailed with what it says."""
        plan = self.plan(live, headers)
        document = {name: plan[name] for name in ("headers", "release", "seconds")}
        document |= {"url": f"https://{self._settings.domain}", "address": EDGE, "secret": secret(self._settings)}
        seconds = self._settings.smoke_seconds + SPARE_SECONDS
        done = side.execute(service.name, *service.check, seconds=seconds, given=json.dumps(document))
        if done.returncode == 0:
            return milliseconds(done.stdout)
        sentence = said(done.stdout)
        if sentence:
            # It names a path, and with that whose fault it is; else it is its own.
            path = re.search(r"(?<!\S)/[^\s,;:]*", sentence)
            raise ProbeFailed(sentence, side.known.serves(path[0] if path else "") or service.name)
        lines = last_lines(done)
        sentence = f"the check of {service.name} ended with {done.returncode}: {(lines or ['no output'])[-1]}"
        raise ProbeFailed(sentence, service.name, lines)


def secret(settings: Settings) -> str:
    """Return what checks derive their accounts from, so that nobody outside can guess one: random, on this host alone.

    Made here; a lost one is replaced.
    """
    place = settings.releases / "probe"
    if not place.exists():
        files.write(place, secrets.token_urlsafe(32), 0o600)
    return place.read_text()


def said(output: str) -> str:
    """Return the last line of a check's output."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")


def milliseconds(output: str) -> dict[str, float]:
    """Return how long requests took, of a check that tells."""
    try:
        found = json.loads(said(output))["milliseconds"]
        return {str(path): float(took) for path, took in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
