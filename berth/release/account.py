"""The probe account, and the visits of smoke tests."""

from __future__ import annotations

import json
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

# Nobody can own an address under .invalid, so nobody else can verify this account. Each host's own has a part that
# nobody can guess, either: wrong passwords would lock it, and every release would fail. Earlier versions used the
# first one.
FIRST_EMAIL = "release-probe@berth.invalid"
OWN_EMAIL = "release-probe-{}@berth.invalid"


class ProbeAccount:
    def __init__(self, settings: Settings, edge: Edge) -> None:
        self._settings = settings
        self._edge = edge
        self._email = settings.releases / "probe_email"
        self._password = settings.releases / "probe"

    def plan(self, live: Live, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Describe a visit to this release over the published port, as probe.Visit takes it.

        Without `headers` it passes the maintenance page, as operators do.
        """
        headers = self._edge.pass_header() if headers is None else headers
        return {
            "domain": self._settings.domain,
            "address": self._settings.address,
            "headers": headers | self._edge.release_header(),
            "email": self.email,
            "password": self.password,
            "release": live.signature,
            "seconds": self._settings.smoke_seconds,
        }

    def visit(self, live: Live, headers: dict[str, str] | None = None) -> Visit:
        return Visit(**self.plan(live, headers))

    def look(self, live: Live) -> None:
        """Smoke-test a live release. It takes three failures, as from outside; a refusal under load is none.

        Raises ProbeFailed with the first one.
        """
        first: ProbeFailed | None = None
        for _ in range(TRIES):
            with closing(self.visit(live)) as visitor:
                try:
                    visitor.everything()
                except Busy:
                    return
                except ProbeFailed as failed:
                    first = first or failed
                    clock.sleep(1)
                else:
                    return
        if first:
            raise first

    @property
    def is_made(self) -> bool:
        """Tell whether it has an address of its own."""
        return self._email.exists()

    @property
    def email(self) -> str:
        return self._email.read_text() if self.is_made else FIRST_EMAIL

    @property
    def password(self) -> str:
        """Generated here: only this host needs it, and a lost one is replaced."""
        if not self._password.exists():
            files.write(self._password, secrets.token_urlsafe(32), 0o600)
        return self._password.read_text()

    def make(self, side: Side) -> str:
        """Create the account, and return its address. Until then visits use the previous one.

        Raises ProbeFailed where the release's auth_service does not create it.
        """
        email = self.email if self.is_made else OWN_EMAIL.format(secrets.token_hex(8))
        document = json.dumps({"email": email, "password": self.password})
        done = side.execute("auth_service", "python3", "-m", "auth_service.probe", seconds=30, given=document)
        if done.returncode:
            output = " ".join(last_lines(done)[-2:])
            raise ProbeFailed(f"auth_service did not create the probe account: {output}", "auth_service")
        files.write(self._email, email, 0o600)
        return email
