"""Where the edge leads: files in its watched folder, renamed into place."""

from __future__ import annotations

import json
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from berth.host import files
from berth.host.clock import now
from berth.host.live import Live, read_live
from berth.host.refused import Refused
from berth.release.routes import EVERYBODY, Audience, maintenance, routes
from berth.release.settings import Settings

# The edge runs as this group; what only it and root may read holds a secret.
EDGE_GROUP = 10000
TRIAL_HEADER = "X-Berth-Trial"
OPERATOR_HEADER = "X-Berth-Operator"
# With this host's key in it, answers say which release they are of.
RELEASE_HEADER = "X-Berth-Release-Key"


class Edge:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watched = settings.edge / "dynamic"
        # Drafts must be on the same file system, and where the edge does not look.
        self._next = settings.edge / "next"
        self._former_routes = settings.releases / "routes.yml"

    def live(self) -> Live | None:
        return read_live(self._watched / "release.yml")

    def routes(self, live: Live, audience: Audience = EVERYBODY) -> str:
        """Return the routes to a colour, as a file for the edge. Raises Refused where its compose file is not valid."""
        description = self._settings.kept(live.release).description
        shown = f"Header(`{RELEASE_HEADER}`, `{self.release_key()}`)"
        if not description.routes and self._former_routes.exists():
            return f"{live.mark}{self._former(live, shown, audience)}"
        return f"{live.mark}{_document(routes(description, self._settings, live, shown, audience))}"

    def _former(self, live: Live, shown: str, audience: Audience) -> str:
        """Return the routes to a release whose compose file has no labels, from what earlier versions wrote for it."""
        text = self._former_routes.read_text()
        for place, value in {
            "@NAME@": audience.name,
            "@AND@": f"({audience.condition}) && " if audience.condition else "",
            "@SHOWN@": shown,
            "@RELEASE@": live.release,
            "@COLOUR@": live.colour,
        }.items():
            text = text.replace(place, value)
        priority = audience.priority
        return re.sub(r"@PRIORITY\+(\d+)@", lambda found: str(priority and priority + int(found[1])), text)

    def release_key(self) -> str:
        """Return the secret by which operators see the release; made here, and a lost one is replaced."""
        place = self._settings.releases / "release-key"
        if not place.exists():
            files.write(place, secrets.token_urlsafe(32), 0o600)
        return place.read_text()

    def release_header(self) -> dict[str, str]:
        return {RELEASE_HEADER: self.release_key()}

    def leads_to(self, live: Live) -> bool:
        """Tell whether the routes are, to the letter, what they would be if written now."""
        try:
            return self._text("release.yml") == self.routes(live)
        except Refused:
            return False

    def switch(self, live: Live) -> None:
        """Switch traffic to this colour, that of operators during maintenance too."""
        # What is rolled back to is a second name of the file, so that it needs no room on the disk.
        back = self._next / "release.back"
        back.unlink(missing_ok=True)
        if self.live():
            back.hardlink_to(self._watched / "release.yml")
        self._draft("release.yml", self.routes(live)).rename(self._watched / "release.yml")
        if key := self.maintenance_key():
            self.close(live, key, self.maintenance_addresses())

    def switch_back(self, live: Live) -> None:
        """Switch traffic to where it went before the last switch."""
        back = self._next / "release.back"
        if back.exists() and back.read_text().startswith(live.mark):
            back.rename(self._watched / "release.yml")
            # Operators on a closed site follow if the disk lets them; everybody else has already gone back.
            if key := self.maintenance_key():
                with suppress(OSError):
                    self.close(live, key, self.maintenance_addresses())
        else:
            self.switch(live)

    def clear_route(self) -> None:
        """Switch traffic to nothing, after a first release that failed: the edge answers 503 by itself, as before."""
        (self._watched / "release.yml").unlink(missing_ok=True)

    def enable_trial(self, live: Live) -> dict[str, str]:
        """Route requests that have a secret header to this colour; return that header."""
        key = secrets.token_urlsafe(32)
        condition = f"Header(`{TRIAL_HEADER}`, `{key}`)"
        text = self.routes(live, Audience("-trial", condition, 30000))
        draft = self._draft("trial.yml", text, 0o640, EDGE_GROUP)
        draft.rename(self._watched / draft.name)
        return {TRIAL_HEADER: key}

    def end_trial(self) -> None:
        (self._watched / "trial.yml").unlink(missing_ok=True)

    def close(self, live: Live, key: str, addresses: list[str], by: str = "") -> None:
        """Show the maintenance page to everybody but operators; who closed it first is kept."""
        before = self._operators()
        known = {"by": before.get("by") or by, "since": before.get("since") or now()}
        allowed = [f"Header(`{OPERATOR_HEADER}`, `{key}`)", *map(_comes_from, addresses)]
        try:
            text = self.routes(live, Audience("-operator", " || ".join(allowed), 20000))
        except Refused:
            # A site is closed although nobody knows the routes of what is live; operators see the page, too.
            text = f"{live.mark}{{}}\n"
        operators = json.dumps({"key": key, "addresses": addresses, **known})
        description = self._settings.kept(live.release).known
        page = _document(maintenance(description, self._settings, live))
        # Both are written before either is put in place: a full disk leaves operators where they were.
        drafts = [self._draft("operator.yml", f"# {operators}\n{text}", 0o640, EDGE_GROUP)]
        drafts.append(self._draft("maintenance.yml", page))
        for draft in drafts:
            draft.rename(self._watched / draft.name)

    def open(self) -> None:
        for name in ("maintenance.yml", "operator.yml"):
            (self._watched / name).unlink(missing_ok=True)

    def maintenance_key(self) -> str:
        """Return the secret that operators show while the site is closed; empty while it is open."""
        return str(self._operators().get("key", ""))

    def maintenance_since(self) -> dict[str, str]:
        """Return who closed the site and since when; nothing while it is open."""
        found = self._operators()
        return {name: str(found[name]) for name in ("by", "since") if found.get(name)}

    def maintenance_addresses(self) -> list[str]:
        return list(self._operators().get("addresses", []))

    def pass_header(self) -> dict[str, str]:
        key = self.maintenance_key()
        return {OPERATOR_HEADER: key} if key else {}

    def _operators(self) -> dict[str, Any]:
        """Return what was written of operators; nothing where visitors do not see the page, whatever was cut off."""
        if not self._text("maintenance.yml"):
            return {}
        first = self._text("operator.yml").partition("\n")[0]
        return dict(json.loads(first.removeprefix("# "))) if first else {}

    def _text(self, name: str) -> str:
        try:
            return (self._watched / name).read_text()
        except FileNotFoundError:
            return ""

    def _draft(self, name: str, text: str, mode: int = 0o644, group: int = 0) -> Path:
        """Write it where the edge does not look; the caller renames it into the watched folder."""
        draft: Path = self._next / name
        files.write(draft, text, mode, group)
        return draft


def _document(content: dict[str, Any]) -> str:
    """Return a file for the edge, which reads JSON as YAML."""
    return f"{json.dumps(content, indent=1)}\n"


def _comes_from(address: str) -> str:
    """Return the rule for clients from an address or a network, or from that address through a trusted proxy."""
    rule = f"ClientIP(`{address}`)"
    if "/" in address:
        return rule
    # The last hop: that one the proxy wrote. Of anybody else the edge has thrown the header away.
    return f"{rule} || HeaderRegexp(`X-Forwarded-For`, `(^|[ ,]){address.replace('.', '[.]')}$`)"
