"""The closed site: a page for everybody but operators."""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from berth.host.live import Live
from berth.host.lock import describe
from berth.host.refused import Refused
from berth.release import switch
from berth.release.engine import Side
from berth.release.host import Host
from berth.release.probe import ProbeFailed, Visit

FORCE = "To open it anyway: -e maintenance_force=true"


@dataclass(frozen=True)
class Maintenance:
    host: Host

    def enable(self, addresses: list[str], by: str = "", held: bool = False) -> dict[str, Any]:
        """Close the site to everybody but operators and those addresses. With `held` the caller holds the lock."""
        edge = self.host.edge
        with self.host.lock.held(by_caller=held):
            live = edge.live()
            if live is None:
                raise Refused("No release is live, so there is nothing to close: the edge answers 503 already.")
            same = bool(edge.maintenance_key()) and edge.maintenance_addresses() == addresses
            if not same:
                self.close(live, addresses, by)
            return {"changed": not same, "header": edge.pass_header(), "addresses": addresses}

    def disable(self, force: bool = False, held: bool = False) -> dict[str, Any]:
        """Open the site, unless the live release is unhealthy; with `force` even then."""
        with self.host.lock.held(by_caller=held):
            closed = bool(self.host.edge.maintenance_key())
            live = self.host.edge.live()
            if closed and not force:
                self._refuse_to_open(live, held)
            self.host.edge.open()
            if closed and live:
                switch.confirm(self.host, live)
            return {"changed": closed}

    def close(self, live: Live, addresses: list[str], by: str = "") -> None:
        """Show the maintenance page; return once the edge has served it several times in a row.

        Raises Refused, with the site open as before, where it does not within `confirm_seconds`.
        """
        edge, settings = self.host.edge, self.host.settings
        key = edge.maintenance_key()
        edge.close(live, key or secrets.token_urlsafe(32), addresses, by)
        if switch.look_repeatedly(self._look_at_page, settings.confirm_seconds):
            if not key:
                edge.open()
            raise Refused(
                f"The edge did not show the maintenance page within {settings.confirm_seconds} s. Nothing was changed."
            )

    def _look_at_page(self) -> None:
        settings = self.host.settings
        with closing(Visit(settings.domain, settings.address, seconds=switch.ROUND_SECONDS)) as visitor:
            if visitor.ask("/")[0] != 503:
                raise ProbeFailed("The site is open.")

    def _refuse_to_open(self, live: Live | None, held: bool) -> None:
        """Keep the page where visitors would get errors without it."""
        if not held and (run := self.host.lock.current()):
            raise Refused(f"{describe(run)} and is not finished, so the site stays closed. {FORCE}")
        if live and (down := Side.on(self.host.settings, live).not_healthy()):
            raise Refused(
                f"{', '.join(down)}: the site stays closed, since visitors would get errors. Start the container "
                f"(docker start NAME), or release {live.release} again. {FORCE}"
            )
