"""The closed site: a page for everybody but operators."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from berth_release import clock, engine, switch
from berth_release.edge import Live
from berth_release.host import Host
from berth_release.lock import describe
from berth_release.probe import ProbeFailed, Visit
from berth_release.settings import ReleaseRefused

FORCE = "To open it all the same: -e maintenance_force=true"


@dataclass(frozen=True)
class Maintenance:
    host: Host

    def enable(self, addresses: list[str], by: str = "", held: bool = False) -> dict[str, Any]:
        """Close the site to everybody but operators and those addresses. With `held` the caller holds the lock."""
        edge = self.host.edge
        with self.host.lock.held(by_caller=held):
            live = edge.live()
            if live is None:
                raise ReleaseRefused("Nothing is live, so there is nothing to close: the edge answers 503 already.")
            same = bool(edge.maintenance_key()) and edge.maintenance_addresses() == addresses
            if not same:
                self.close(live, addresses, by)
            return {"changed": not same, "header": edge.pass_header(), "addresses": addresses}

    def disable(self, force: bool = False, held: bool = False) -> dict[str, Any]:
        """Open the site, unless visitors would meet what is down; with `force` even then."""
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
        """Show the maintenance page; ask until the edge does so several times in a row.

        Raises ReleaseRefused, with the site open as before, where it does not within `confirm_seconds`.
        """
        edge, settings = self.host.edge, self.host.settings
        key = edge.maintenance_key()
        edge.close(live, key or secrets.token_urlsafe(32), addresses, by)
        deadline, row = clock.monotonic() + settings.confirm_seconds, 0
        while row < switch.CONFIRMATIONS:
            row = row + 1 if self._is_shown() else 0
            if row == 0:
                if clock.monotonic() > deadline:
                    if not key:
                        edge.open()
                    raise ReleaseRefused(
                        f"The edge did not show the maintenance page within {settings.confirm_seconds} s, "
                        "so nothing was begun."
                    )
                clock.sleep(0.2)

    def _is_shown(self) -> bool:
        visitor = Visit(self.host.settings.domain, self.host.settings.address, seconds=switch.ROUND_SECONDS)
        try:
            return visitor.ask("GET", "/api/users/me")[0] == 503
        except ProbeFailed:
            return False
        finally:
            visitor.close()

    def _refuse_to_open(self, live: Live | None, held: bool) -> None:
        """Keep the page where visitors would meet errors behind it."""
        if not held and (run := self.host.lock.current()):
            raise ReleaseRefused(f"{describe(run)} and is not finished, so the site stays closed. {FORCE}")
        if live and (down := engine.not_healthy(live.colour)):
            raise ReleaseRefused(
                f"{', '.join(down)}: the site stays closed, since visitors would meet errors. Start what is down "
                f"(docker start NAME), or release {live.release} again. {FORCE}"
            )
