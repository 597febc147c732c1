"""Where the edge routes traffic: switch, confirm, roll back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace

from berth.host import clock
from berth.host.live import Live
from berth.host.lock import Run
from berth.host.refused import Refused
from berth.release.engine import Side
from berth.release.gates import Candidate
from berth.release.host import Host
from berth.release.probe import ProbeFailed

# After so many good rounds in a row the edge has loaded the new routes.
CONFIRMATIONS = 3
# Time limit of one round, shorter than that of a whole visit.
ROUND_SECONDS = 5


def switch_traffic(host: Host, candidate: Candidate) -> None:
    """Switch traffic to the candidate. Raises Refused where the edge does not route to it."""
    with host.lock.step("switch"):
        # In this order: whenever the host goes down in between, the colour that gets traffic starts again at boot.
        candidate.side.set_restart("unless-stopped")
        host.lock.note(switched=clock.time())
        candidate.side.kept.write_services()
        host.edge.switch(candidate.target)
        confirm(host, candidate.target)
        if candidate.live:
            # If this fails, a reboot would start the old colour as well, which does no harm.
            with suppress(Refused):
                Side.on(host.settings, candidate.live).set_restart("no")


def confirm(host: Host, live: Live) -> None:
    """Send requests like any visitor, until this release answers every path several times in a row.

    Raises Refused where that takes longer than `confirm_seconds`.
    """
    seconds = host.settings.confirm_seconds

    def look() -> None:
        # A new connection each time.
        with closing(replace(host.smoke.visit(live), seconds=ROUND_SECONDS)) as visitor:
            visitor.once()

    if problem := look_repeatedly(look, seconds):
        raise Refused(f"The edge did not route to release {live.signature} within {seconds} s: {problem}")


def look_repeatedly(look: Callable[[], None], seconds: float) -> str:
    """Look until it succeeds several times in a row. On a timeout, return the last failure."""
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
    side = Side.on(host.settings, old)
    if side.not_healthy():
        side.start(host.settings.healthy_seconds)
    # A failure here must not keep visitors on a bad release: it matters at the next boot only.
    with suppress(Refused):
        side.set_restart("unless-stopped")
    host.edge.switch_back(old)
    confirm(host, old)
    side.set_restart("unless-stopped")
