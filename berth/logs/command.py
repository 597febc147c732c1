"""Ship every line of the journal to one log server, in order, without loss.

The journal is the queue: it is on disk, bounded, and its writers never wait for a reader. The last position that the
server has acknowledged is stored in STATE_DIRECTORY after each batch. So nothing is lost when the server is down, this
program or the host restarts, or it is killed at any moment; what was sent and not yet stored is sent again. Only a
journal that reaches its limit before the server is back drops lines, the oldest first: this program then reports how
many. A line that the server refuses for good is skipped, counted, and stays in the journal.

usage: berth ship NAME < SETTINGS, as berth-log-shipping@NAME.service runs it
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from pathlib import Path

from berth.logs.batches import NotNowError, Refusal
from berth.logs.events import Rules, lines_of, say
from berth.logs.journal import Journal, Place, beginning, time_of
from berth.logs.servers import SERVERS, Server

FIRST_WAIT, LONGEST_WAIT = 1.0, 10.0
REMIND_SECONDS = 900.0


def tell_systemd(state: str) -> None:
    """Notify systemd; `systemctl status` shows it."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(address.replace("@", "\0", 1))
            notify.send(state.encode())


class Shipper:
    """Ships the journal to one destination."""

    def __init__(self, server: Server, rules: Rules, file: Path) -> None:
        self._server, self._rules, self._file = server, rules, file
        self._place = Place.read(file) if file.exists() else Place(beginning())
        self._place.keep(file)
        self._away_since = 0.0
        self._reminded = 0.0
        self._refusal_reported_at: float | None = None
        self._refused_unreported = 0

    def run(self) -> None:
        """Ship until the process is stopped."""
        wait = FIRST_WAIT
        while True:
            try:
                with Journal(self._place.cursor) as journal:
                    while True:
                        events = journal.batch()
                        refusals = self._server.deliver(lines_of(events, self._rules))
                        self._shipped(journal.cursor, refusals)
                        wait = FIRST_WAIT
            except NotNowError as error:
                # The journal is closed meanwhile: files that were deleted while open would still use disk space.
                self._away(str(error))
                time.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)

    def _shipped(self, cursor: str, refusals: list[Refusal]) -> None:
        if refusals:
            self._refused(refusals)
        self._place = Place(cursor, self._place.refused + len(refusals))
        self._place.keep(self._file)
        if self._away_since:
            say(f"The log server accepts lines again, after {time.monotonic() - self._away_since:.0f} s.")
            self._away_since = 0.0
        tell_systemd(f"STATUS=Shipped up to {time_of(cursor)}")

    def _refused(self, refusals: list[Refusal]) -> None:
        """Report the last refused line and how many there were, at most once in REMIND_SECONDS."""
        self._refused_unreported += len(refusals)
        now = time.monotonic()
        if self._refusal_reported_at is not None and now - self._refusal_reported_at < REMIND_SECONDS:
            return
        line, why = refusals[-1].line, refusals[-1].why
        say(
            f"Lines that the log server refused for good: {self._refused_unreported}. They stay in the journal. The"
            f" last one: {line.labels['service']}, {line.iso_time}, {len(line.text)} characters: {why}"
        )
        self._refusal_reported_at, self._refused_unreported = now, 0

    def _away(self, why: str) -> None:
        now = time.monotonic()
        if not self._away_since:
            self._away_since = self._reminded = now
            say(f"The log server does not accept lines: {why}. They wait in the journal.")
        elif now - self._reminded > REMIND_SECONDS:
            self._reminded = now
            say(f"The log server has not accepted lines for {(now - self._away_since) / 60:.0f} minutes: {why}.")
        tell_systemd(f"STATUS=Waiting for the log server, shipped up to {time_of(self._place.cursor)}: {why}")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.exit(__doc__)
    [name] = arguments
    settings = json.load(sys.stdin)
    rules = Rules(re.compile(settings["container_pattern"]), tuple(re.compile(one) for one in settings["mask"]))
    shipper = Shipper(SERVERS[settings["type"]](settings), rules, Path(os.environ["STATE_DIRECTORY"], name))
    tell_systemd("READY=1")
    shipper.run()
    return 0
