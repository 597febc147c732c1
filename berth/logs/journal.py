"""Reads the journal after a cursor, and detects entries that were dropped since."""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from berth.logs.events import Assembler, Entry, Event, say

FIELDS = (
    "MESSAGE,PRIORITY,SYSLOG_FACILITY,SYSLOG_IDENTIFIER,_HOSTNAME,_SYSTEMD_UNIT,_COMM,_PID,"
    "CONTAINER_ID,CONTAINER_NAME,IMAGE_NAME,CONTAINER_PARTIAL_ID,CONTAINER_PARTIAL_LAST"
)
# Limits of a batch: entries, bytes, seconds; and how much longer to wait for an incomplete event.
ENTRIES, BYTES, SECONDS = 500, 1024 * 1024, 1.0
WHOLE_SECONDS, LINE_SECONDS = 1.0, 0.1
# The shippers' own lines are not shipped: each refusal would cause the next one.
OWN_UNIT = "berth-log-shipping@"

_NUMBER = re.compile(r"s=(?P<series>[0-9a-f]+);i=(?P<number>[0-9a-f]+)")

JOURNALCTL = ("journalctl", "--quiet", "--all", "--output=json", f"--output-fields={FIELDS}")


class JournalEndedError(Exception):
    """journalctl exited; the restarted program continues from the stored position."""


@dataclass(frozen=True)
class Place:
    """The last entry that the log server has acknowledged, and how many lines it has refused for good so far."""

    cursor: str
    refused: int = 0

    @classmethod
    def read(cls, path: Path) -> Place:
        """Return what `keep` wrote; earlier versions wrote the cursor alone."""
        cursor, _, refused = path.read_text().partition("\n")
        return cls(cursor, int(refused or 0))

    def keep(self, path: Path) -> None:
        """Write it atomically, so that a kill or a power loss leaves the old content or the new."""
        fresh = path.with_suffix(".new")
        with fresh.open("w") as file:
            file.write(f"{self.cursor}\n{self.refused}\n")
            # `berth metrics` reads it as another user.
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


def time_of(cursor: str) -> str:
    found = re.search(r";t=([0-9a-f]+)", cursor)
    seconds = int(found[1], 16) / 1_000_000 if found else 0
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def missing_between(cursor: str, following: str) -> int:
    """Return how many entries the journal has dropped between these two: entries are numbered."""
    before, after = _NUMBER.match(cursor), _NUMBER.match(following)
    if not before or not after or before["series"] != after["series"]:
        return 0
    return max(0, int(after["number"], 16) - int(before["number"], 16) - 1)


def beginning() -> str:
    """Return the cursor of a new shipper: an hour ago, so that the first start of the site is included."""
    while True:
        rows, into = os.pipe()
        process = subprocess.Popen([*JOURNALCTL, "--no-pager", "--since=-1h"], stdout=into)
        os.close(into)
        with open(rows, "rb") as file:
            row = file.readline()
        process.kill()
        process.wait()
        if row:
            return str(json.loads(row)["__CURSOR"])
        time.sleep(1)


class Journal:
    """Entries after a cursor, as batches; `cursor` is then the last one of the batch."""

    def __init__(self, cursor: str) -> None:
        self.cursor = cursor
        command = [*JOURNALCTL, "--follow", "--no-tail", "--boot=all", f"--after-cursor={cursor}"]
        self._file, into = os.pipe()
        self._process = subprocess.Popen(command, stdout=into)
        os.close(into)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._file, selectors.EVENT_READ)
        self._rows: list[bytes] = []
        self._rest = b""

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._selector.close()
        os.close(self._file)

    def batch(self) -> list[Event]:
        """Wait for entries and return their events."""
        assembler, count, size, cursor = Assembler(), 0, 0, self.cursor
        began = 0.0
        while True:
            now = time.monotonic()
            if count:
                late = now - began - SECONDS
                full = count >= ENTRIES or size >= BYTES
                if (full or late >= 0) and (assembler.whole(LINE_SECONDS) or late >= WHOLE_SECONDS):
                    break
            entry = self._next(0.05 if count else 5.0)
            if entry is None:
                continue
            if count_missing := missing_between(cursor, entry["__CURSOR"]):
                say(
                    f"The journal reached its limit before the log server had all: {count_missing} entries"
                    f" from {time_of(cursor)} to {time_of(entry['__CURSOR'])} were not shipped."
                )
            cursor = entry["__CURSOR"]
            if entry.get("_SYSTEMD_UNIT", "") and str(entry["_SYSTEMD_UNIT"]).startswith(OWN_UNIT):
                if not count:
                    self.cursor = cursor
                continue
            if not count:
                began = now
            count += 1
            size += len(entry.get("MESSAGE") or "")
            assembler.add(entry)
        self.cursor = cursor
        return assembler.events

    def _next(self, seconds: float) -> Entry | None:
        if not self._rows:
            if not self._selector.select(seconds):
                return None
            read = os.read(self._file, 1024 * 1024)
            if not read:
                raise JournalEndedError(f"journalctl ended with {self._process.wait()}")
            *rows, self._rest = (self._rest + read).split(b"\n")
            self._rows = rows[::-1]
            if not self._rows:
                return None
        return dict(json.loads(self._rows.pop()))
