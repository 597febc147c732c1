"""The shipper as its unit starts it: the journal on one side, a log server on the other, and nothing lost in between.

journalctl is a program of the test, as there is no journal here; it shows entries, also in pieces, and then ends.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import berth.logs.command as program
from berth.logs import journal
from berth.logs.events import Event
from berth.logs.journal import Journal, JournalEndedError, Place, beginning
from berth.logs.servers import SERVERS, Loki
from berth.tests.certificates import write_certificate
from berth.tests.test_log_refusals import LogServer

# Shows what follows --after-cursor, or all of it; follows until `until` is in the file `place`.
JOURNALCTL = """\
#!{python} -I
import json, pathlib, sys, time
rows = [row for row in pathlib.Path({rows!r}).read_text().split("\\n") if row]
asked = dict(word.partition("=")[::2] for word in sys.argv[1:])
after = asked.get("--after-cursor")
cursors = [json.loads(row)["__CURSOR"] for row in rows]
for row in rows[cursors.index(after) + 1 if after in cursors else 0 :]:
    for piece in row[: len(row) // 2], row[len(row) // 2 :] + "\\n":
        sys.stdout.write(piece)
        sys.stdout.flush()
place = pathlib.Path({place!r})
while "--follow" in asked and not (place.exists() and {until!r} in place.read_text()):
    time.sleep(0.01)
sys.exit(3)
"""


def cursor(number: int) -> str:
    return f"s=1;i={number:x};b=2;m=3;t={1_790_000_000_000_000 + number:x};x=4"


def entry(number: int, message: Any, **fields: Any) -> dict[str, Any]:
    return {
        "__CURSOR": cursor(number),
        "__REALTIME_TIMESTAMP": str(1_790_000_000_000_000 + number),
        "_HOSTNAME": "vps",
        "MESSAGE": message,
        **fields,
    }


@dataclass
class Host:
    """Where the shipper runs: a journal, a folder for its place, a system manager that listens."""

    folder: Path
    told: list[str] = field(default_factory=list)

    @property
    def place(self) -> Path:
        return self.folder / "loki"

    def write(self, *entries: dict[str, Any]) -> None:
        """Have the journal hold these entries; journalctl ends when the place of the last is kept."""
        (self.folder / "rows").write_text("\n".join(map(json.dumps, entries)))
        text = JOURNALCTL.format(
            python=sys.executable,
            rows=str(self.folder / "rows"),
            place=str(self.place),
            until=entries[-1]["__CURSOR"] if entries else "",
        )
        (self.folder / "journalctl").write_text(text)
        (self.folder / "journalctl").chmod(0o755)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    # A batch is not waited for longer than its entries take to come.
    monkeypatch.setattr(journal, "SECONDS", 0.2)
    monkeypatch.setattr(journal, "LINE_SECONDS", 0)
    made = Host(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))

        def listen() -> None:
            while word := manager.recv(4096):
                made.told.append(word.decode())

        thread = threading.Thread(target=listen)
        thread.start()
        yield made
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.connect(str(tmp_path / "notify"))
            last.send(b"")
        thread.join()


@pytest.fixture
def log_server(tmp_path: Path) -> Iterator[LogServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write_certificate(tmp_path / "server.pem"))
    with LogServer(context) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ship(host: Host, log_server: LogServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Run the program until the journal ends."""
    settings = {
        "type": "loki",
        "url": f"https://localhost:{log_server.server_port}",
        "ca": (host.folder / "server.pem").read_text(),
        "container_pattern": "x",
        "mask": ["4111[0-9]{12}"],
    }

    def run() -> None:
        made = Loki(settings)
        monkeypatch.setitem(SERVERS, "loki", lambda _: made)
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(settings)))
        with pytest.raises(JournalEndedError, match="journalctl ended with 3"):
            program.main(["loki"])
        # Its process would end here.
        made.close()

    return run


def test_without_a_name_it_says_how_it_is_used() -> None:
    with pytest.raises(SystemExit, match="usage: berth ship NAME"):
        program.main([])


def test_lines_are_shipped_and_their_place_is_kept_only_after_the_server_has_them(
    host: Host, log_server: LogServer, ship: Callable[[], None]
) -> None:
    kept = list[str]()

    def look(_: list[str]) -> int:
        kept.append(Place.read(host.place).cursor)
        return 0

    log_server.refuses = look
    host.write(*(entry(number, f"line {number}, card 4111111111111111") for number in range(4)))
    ship()
    # It begins behind the first entry of the last hour.
    assert log_server.taken == [f"line {number}, card ***" for number in (1, 2, 3)]
    assert kept[0] == cursor(0)
    assert Place.read(host.place) == Place(cursor(3))
    # systemctl status shows it.
    assert host.told[0] == "READY=1"
    assert host.told[-1] == "STATUS=Shipped up to 2026-09-21 14:13:20 UTC"
    # Started again, it goes on behind its place.
    host.write(*(entry(number, f"line {number}") for number in range(6)))
    log_server.taken.clear()
    ship()
    assert log_server.taken == ["line 4", "line 5"]


def test_while_the_server_is_away_lines_wait_and_the_operator_is_told_once_until_when(
    host: Host,
    log_server: LogServer,
    ship: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(program, "FIRST_WAIT", 0.01)
    away = iter([503, 503, 503])
    places = list[str]()

    def refuse(_: list[str]) -> int:
        places.append(Place.read(host.place).cursor)
        return next(away, 0)

    log_server.refuses = refuse
    host.write(*(entry(number, f"line {number}") for number in range(3)))
    ship()
    assert log_server.taken == ["line 1", "line 2"]
    assert places[:4] == [cursor(0)] * 4
    gone, back = capsys.readouterr().err.splitlines()
    assert gone == "The log server does not accept lines: HTTP 503 <html> no </html>. They wait in the journal."
    assert re.fullmatch(r"The log server accepts lines again, after \d+ s\.", back)
    why = "HTTP 503 <html> no </html>"
    assert f"STATUS=Waiting for the log server, shipped up to 2026-09-21 14:13:20 UTC: {why}" in host.told
    assert host.told[-1].startswith("STATUS=Shipped up to ")


def test_of_a_server_that_stays_away_the_operator_is_reminded(
    host: Host,
    log_server: LogServer,
    ship: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(program, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(program, "REMIND_SECONDS", 0)
    away = iter([429, 429])
    log_server.refuses = lambda _: next(away, 0)
    host.write(entry(0, "first"), entry(1, "second"))
    ship()
    _, again, _ = capsys.readouterr().err.splitlines()
    assert again == "The log server has not accepted lines for 0 minutes: HTTP 429 <html> no </html>."


# --- The journal ---


Read = Callable[[int, int], tuple[list[Event], str]]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read a batch of so many entries after a place, however long they take; return what they say, and their place."""

    def batch(after: int, count: int) -> tuple[list[Event], str]:
        monkeypatch.setattr(journal, "SECONDS", 60)
        monkeypatch.setattr(journal, "ENTRIES", count)
        with Journal(cursor(after)) as opened:
            return opened.batch(), opened.cursor

    return batch


def test_a_shipper_without_a_place_waits_for_the_first_entry(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write()

    def write_meanwhile(_: float) -> None:
        host.write(entry(7, "the first"))

    monkeypatch.setattr("berth.logs.journal.time.sleep", write_meanwhile)
    assert beginning() == cursor(7)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (list(b"GET /\xff\xfe \xc3\xa9"), "GET /\ufffd\ufffd é"),
        (["said twice", "second"], "said twice"),
        ([list(b"twice \xff"), "second"], "twice \ufffd"),
        (None, ""),
        ([], ""),
        ("", ""),
        ("käse\u2028🧀", "käse\u2028🧀"),
        ("x" * 300_000, "x" * 240 * 1024 + " [cut off here]"),
        ("é" * 200_000, "é" * (240 * 1024 // 2) + " [cut off here]"),
    ],
    ids=["no UTF-8", "twice", "twice, no UTF-8", "none", "no values", "empty", "Unicode", "long", "long in UTF-8"],
)
def test_an_entry_is_read_whatever_its_bytes_are(host: Host, read: Read, message: Any, text: str) -> None:
    host.write(entry(1, message), entry(2, "next"))
    events, place = read(0, 2)
    assert [event.text for event in events] == [text, "next"]
    assert place == cursor(2)


def test_what_the_shippers_say_themselves_stays_here(host: Host, read: Read) -> None:
    own = {"_SYSTEMD_UNIT": "berth-log-shipping@loki.service"}
    host.write(entry(1, "refused", **own), entry(2, "a line"), entry(3, "refused", **own), entry(4, "another"))
    events, place = read(0, 2)
    assert [event.text for event in events] == ["a line", "another"]
    assert place == cursor(4)


def test_entries_that_the_journal_dropped_before_they_were_shipped_are_told(
    host: Host, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write(entry(5, "after the gap"))
    assert [event.text for event in read(1, 1)[0]] == ["after the gap"]
    assert capsys.readouterr().err == (
        "The journal reached its limit before the log server had all: 3 entries"
        " from 2026-09-21 14:13:20 UTC to 2026-09-21 14:13:20 UTC were not shipped.\n"
    )


def test_a_batch_is_no_longer_than_its_limit_and_the_next_one_has_the_rest(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SECONDS", 60)
    monkeypatch.setattr(journal, "ENTRIES", 3)
    host.write(*(entry(number, json.dumps({"n": number})) for number in range(1, 7)))
    with Journal(cursor(0)) as opened:
        first, place = opened.batch(), opened.cursor
        second = opened.batch()
    assert ([len(first), len(second)], place) == ([3, 3], cursor(3))


def test_a_traceback_is_in_one_batch_though_its_end_comes_after_the_batch_is_full(host: Host, read: Read) -> None:
    rows = ["before", "Traceback (most recent call last):", '  File "x.py", line 1', "ValueError: no"]
    host.write(*(entry(number, row, _PID="7") for number, row in enumerate(rows, 1)))
    events, place = read(0, 2)
    assert [event.text for event in events] == ["before", "\n".join(rows[1:])]
    assert place == cursor(4)


def test_a_journal_that_ends_is_said(host: Host) -> None:
    host.write(entry(1, "a line"))
    Place(cursor(1)).keep(host.place)
    with Journal(cursor(1)) as opened, pytest.raises(JournalEndedError, match="journalctl ended with 3"):
        opened.batch()
    with suppress(ProcessLookupError):
        os.kill(opened._process.pid, 0)
        pytest.fail("journalctl is left behind")
