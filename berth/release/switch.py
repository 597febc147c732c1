"""Whom the edge leads visitors to: switched, confirmed, rolled back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace

from berth.host import clock
from berth.host.live import Live
from berth.host.lock import Run
from berth.host.refused import Refused
from berth.release import engine
from berth.release.engine import Side
from berth.release.gates import Candidate
from berth.release.host import Host
from berth.release.probe import ProbeFailed

# So many rounds of answers in a row, and the edge has read the new routes.
CONFIRMATIONS = 3
# A round of them has seconds, not the time of a whole visit.
ROUND_SECONDS = 5
PATHS = ("/", "/api/auth/openapi.json", "/api/users/openapi.json")


def switch_traffic(host: Host, candidate: Candidate) -> None:
    """Switch traffic to the candidate. Raises Refused where the edge does not show it."""
    with host.lock.step("switch"):
        # In this order: whenever the host goes down in between, the colour that the edge leads to comes back.
        candidate.side.set_restart("unless-stopped")
        host.lock.note(switched=clock.time())
        host.edge.switch(candidate.target)
        confirm(host, candidate.target)
        if candidate.live:
            # Should the host restart now, the old colour would start as well: in nobody's way.
            with suppress(Refused):
                Side(host.settings, candidate.live.release, candidate.live.colour).set_restart("no")


def confirm(host: Host, live: Live) -> None:
    """Ask as everybody does, until every path is answered by this release several times in a row.

    Raises Refused where that is not so within `confirm_seconds`.
    """
    seconds = host.settings.confirm_seconds

    def look() -> None:
        # Each time on a connection of its own.
        with closing(replace(host.account.visit(live), seconds=ROUND_SECONDS)) as visitor:
            for path in PATHS:
                status, _ = visitor.ask("GET", path)
                if status >= 400:
                    raise ProbeFailed(f"{path} gave {status}.")

    if problem := look_repeatedly(look, seconds):
        raise Refused(f"The edge did not show {live.signature} within {seconds} s: {problem}")


def look_repeatedly(look: Callable[[], None], seconds: float) -> str:
    """Look until all is well several times in a row. Return what ProbeFailed last says when the time is over."""
    deadline, row = clock.monotonic() + seconds, 0
    while row < CONFIRMATIONS:
        try:
            look()
            row += 1
        except ProbeFailed as failed:
            row = 0
            if clock.monotonic() > deadline:
                return str(failed)
            clock.sleep(0.2)
    return ""


def roll_back(host: Host, run: Run) -> None:
    """Switch traffic back to what was live before this run; to nothing, if nothing was."""
    if not run.live:
        host.edge.clear_route()
        return
    old = Live(**run.live)
    side = Side(host.settings, old.release, old.colour)
    if engine.not_healthy(old.colour):
        side.start(host.settings.healthy_seconds)
    # Visitors do not stay on a bad release because of what only the next boot needs.
    with suppress(Refused):
        side.set_restart("unless-stopped")
    host.edge.switch_back(old)
    confirm(host, old)
    side.set_restart("unless-stopped")
