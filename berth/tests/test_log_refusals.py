"""What a log server refuses is found to the line, whatever is cut off: nothing else is lost, or repeated for ever."""

from __future__ import annotations

import gzip
import importlib.machinery
import importlib.util
import json
import os
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import berth.logs.command as program
from berth.logs.batches import Batches, NeverError, NotNowError, Refusal
from berth.logs.events import Event, Line, Rules, line_of
from berth.logs.journal import Place
from berth.logs.servers import Elasticsearch, Loki
from berth.tests.certificates import write_certificate
from berth.tests.cut_off import CutOff, Killed
from tests.support import ROOT

RULES = Rules(re.compile("x"))
POISON = "poison"


def entry(number: int, text: str) -> dict[str, str]:
    return {
        "__CURSOR": f"s=1;i={number:x}",
        "__REALTIME_TIMESTAMP": str(1_790_000_000_000_000 + number),
        "MESSAGE": text,
    }


def lines(*texts: str) -> list[Line]:
    return [line_of(Event(entry(number, text), [text]), RULES) for number, text in enumerate(texts)]


def numbered(count: int, *poisoned: int) -> list[Line]:
    return lines(*(f"{POISON if number in poisoned else 'line'} {number}" for number in range(count)))


def texts(found: list[Refusal]) -> list[str]:
    return [one.line.text for one in found]


# --- a server over HTTPS on this machine -------------------------------------------------------------------


class LogServer(ThreadingHTTPServer):
    """Takes the lines of a request unless `refuses` names a status for it, or it is longer than `reads`."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.refuses: Callable[[list[str]], int] = lambda _: 0
        self.reads = 1 << 30
        self.requests: list[int] = []
        self.taken: list[str] = []
        self.refusal = "<html>\n no\n</html>"


class Handler(BaseHTTPRequestHandler):
    server: LogServer
    protocol_version = "HTTP/1.1"
    # An answer is one write; of two, the second waits for the acknowledgement of the first.
    wbufsize = -1

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        if length > self.server.reads:
            self.close_connection = True
            self.reply(413, "too large")
            return
        rows = gzip.decompress(self.rfile.read(length)).decode()
        if self.path == "/_bulk":
            found = [json.loads(row)["message"] for row in rows.splitlines()[1::2]]
        else:
            found = [text for stream in json.loads(rows)["streams"] for _, text in stream["values"]]
        self.server.requests.append(len(found))
        if status := self.server.refuses(found):
            self.reply(status, self.server.refusal)
        else:
            self.server.taken += found
            self.reply(200, json.dumps({"items": [{"create": {"status": 201}} for _ in found]}))

    def reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def log_server(certificate: Path) -> Iterator[LogServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with LogServer(context) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=[Loki, Elasticsearch])
def destination(
    request: pytest.FixtureRequest, log_server: LogServer, certificate: Path
) -> Iterator[Loki | Elasticsearch]:
    url = f"https://localhost:{log_server.server_port}"
    client = request.param({"url": url, "ca": certificate.read_text(), "index": "logs"})
    yield client
    client.close()


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_line_is_refused_and_every_other_one_arrives_once_and_in_order(
    destination: Loki | Elasticsearch, log_server: LogServer, status: int
) -> None:
    log_server.refuses = lambda found: status if any(POISON in text for text in found) else 0
    for guilty in (0, 37, 99):
        log_server.taken.clear()
        refusals = destination.deliver(numbered(100, guilty))
        assert texts(refusals) == [f"{POISON} {guilty}"]
        assert refusals[0].why == f"{status} <html> no </html>"
        assert log_server.taken == [f"line {number}" for number in range(100) if number != guilty]
    log_server.requests.clear()
    destination.deliver(numbered(100))
    assert log_server.requests == [100]


def test_a_client_certificate_that_has_expired_is_no_fault_of_a_line(
    destination: Loki | Elasticsearch, log_server: LogServer
) -> None:
    """nginx answers 400 to it, with this title."""
    log_server.refusal = "<html><head><title>400 The SSL certificate error</title></head></html>"
    log_server.refuses = lambda _: 400
    with pytest.raises(NotNowError, match="400 The SSL certificate error"):
        destination.deliver(numbered(3))


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_what_may_pass_drops_no_line(destination: Loki | Elasticsearch, log_server: LogServer, status: int) -> None:
    log_server.refuses = lambda _: status
    with pytest.raises(NotNowError, match=f"HTTP {status} <html> no </html>"):
        destination.deliver(numbered(3))
    log_server.refuses = lambda _: 0
    assert destination.deliver(numbered(3)) == []
    assert log_server.taken == ["line 0", "line 1", "line 2"]


def test_a_server_that_is_not_there_is_waited_for(certificate: Path) -> None:
    with pytest.raises(NotNowError, match="ConnectionRefusedError"):
        Loki({"url": "https://localhost:1", "ca": certificate.read_text()}).deliver(numbered(1))


def at_most(thousand: int) -> Callable[[list[str]], int]:
    return lambda found: 413 if sum(map(len, found)) > thousand * 1000 else 0


def test_a_server_that_takes_less_at_once_gets_it_in_pieces_and_is_asked_too_much_only_once(
    destination: Loki | Elasticsearch, log_server: LogServer
) -> None:
    log_server.refuses = at_most(200)
    sent = lines(*(f"{number:01000}" for number in range(500)))
    assert destination.deliver(sent) == []
    assert log_server.taken == [line.text for line in sent]
    log_server.requests.clear()
    assert destination.deliver(sent) == []
    assert max(log_server.requests) <= 200
    assert len(log_server.requests) <= 500 / 100


def test_a_line_too_large_by_itself_makes_no_later_request_small(
    destination: Loki | Elasticsearch, log_server: LogServer
) -> None:
    log_server.refuses = at_most(100)
    huge = "x" * 200_000
    assert texts(destination.deliver(lines("before", huge, "after"))) == [huge]
    assert log_server.taken == ["before", "after"]
    log_server.requests.clear()
    destination.deliver(lines(*(f"{number:01000}" for number in range(60))))
    assert log_server.requests == [60]


def test_a_server_that_closes_while_a_large_request_is_on_its_way_is_understood(
    destination: Loki | Elasticsearch, log_server: LogServer
) -> None:
    """As nginx does it; read as a connection that broke, the same request would come again for ever."""
    log_server.reads = 10_000
    # What compresses well would fit.
    large = lines("first", *(secrets.token_hex(120_000) for _ in range(8)), "last")
    assert len(destination.deliver(large)) == 8
    assert log_server.taken == ["first", "last"]


def test_documents_that_the_bulk_api_refuses_one_by_one_are_told(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Elasticsearch({"url": "https://localhost:1", "ca": certificate.read_text(), "index": "logs"})
    items = [{"create": {"status": 201}}, {"create": {"status": 400, "error": {"type": "mapper_parsing_exception"}}}]
    monkeypatch.setattr(client, "post", lambda *_: json.dumps({"items": items}).encode())
    [refusal] = client.deliver(numbered(2))
    assert refusal.line.text == "line 1"
    assert "mapper_parsing_exception" in refusal.why


def test_a_recorder_of_the_test_bed_that_vanishes_serves_nobody_who_was_in_the_middle_of_the_handshake(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = importlib.machinery.SourceFileLoader("log_server_of_refusals", str(ROOT / "images/outside/log-server"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    (tmp_path / "token").write_text("token")
    monkeypatch.setattr(module, "KEYS", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    taken: list[bytes] = []

    def answers(exchange: Any, body: bytes) -> None:
        taken.append(body)
        exchange.answer(204)

    recorder = module.Recorder(0, module.Files(), context, answers)
    thread = threading.Thread(target=recorder.serve_forever, args=(0.01,))
    thread.start()
    trusting = ssl.create_default_context(cafile=str(certificate))
    port = recorder.server_address[1]
    with socket.create_connection(("127.0.0.1", port)) as early:
        client = Loki({"url": f"https://localhost:{port}", "ca": certificate.read_text(), "token": "token"})
        # The one that came earlier is accepted by now.
        assert client.deliver(numbered(1)) == []
        recorder.vanish()
        thread.join()
        with suppress(OSError), trusting.wrap_socket(early, server_hostname="localhost") as secure:
            secure.sendall(b"POST / HTTP/1.1\r\nAuthorization: token\r\nContent-Length: 2\r\n\r\n{}")
            assert secure.recv(100) == b""
        client.close()
    assert len(taken) == 1


# --- what is cut off ---------------------------------------------------------------------------------------


class Recorder(CutOff):
    """A log server in memory that knows a line again, as Loki and Elasticsearch do. Each request is a step."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.taken: list[str] = []
        self.doubled = 0

    def send(self, sent: list[Line]) -> list[Refusal]:
        def take() -> list[Refusal]:
            if any(POISON in line.text for line in sent):
                raise NeverError(400, "no")
            self.doubled += sum(line.text in self.taken for line in sent)
            self.taken += [line.text for line in sent if line.text not in self.taken]
            return []

        return list(self.step(take))


def away() -> NotNowError:
    return NotNowError("it is away")


def test_a_server_that_goes_away_at_any_request_of_the_search_gets_each_line_once() -> None:
    sent = numbered(40, 3, 29)
    whole = Recorder()
    Batches(whole.send).deliver(sent)
    for number in range(whole.steps):
        recorder = Recorder(number, away)
        batches = Batches(recorder.send)
        with pytest.raises(NotNowError):
            batches.deliver(sent)
        assert texts(batches.deliver(sent)) == [f"{POISON} 3", f"{POISON} 29"]
        assert sorted(recorder.taken) == sorted(line.text for line in sent if POISON not in line.text)
        assert recorder.doubled == 0
        # What is known of a batch is forgotten with it.
        assert texts(batches.deliver(sent[:4])) == [f"{POISON} 3"]


def test_where_every_line_is_refused_the_search_ends() -> None:
    recorder = Recorder()
    assert len(Batches(recorder.send).deliver(numbered(64, *range(64)))) == 64
    assert recorder.steps == 2 * 64 - 1


class Ended(BaseException):
    """The journal has no more."""


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Recorder], Place]:
    """Ship twelve lines, the fifth and the tenth of them poisoned, in batches of four; return the place at the end."""
    rows = [entry(number, line.text) for number, line in enumerate(numbered(12, 4, 9))]

    class Journal:
        def __init__(self, cursor: str) -> None:
            self.cursor = cursor

        def __enter__(self) -> Journal:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def batch(self) -> list[Event]:
            after = int(self.cursor.partition("i=")[2] or "-1", 16) + 1
            found = rows[after : after + 4]
            if not found:
                raise Ended
            self.cursor = found[-1]["__CURSOR"]
            return [Event(row, [row["MESSAGE"]]) for row in found]

    monkeypatch.setattr(program, "Journal", Journal)
    monkeypatch.setattr(program, "beginning", lambda: "")
    keep = Place.keep

    def run(recorder: Recorder) -> Place:
        file = tmp_path / "place"
        monkeypatch.setattr(Place, "keep", lambda place, path: recorder.step(lambda: keep(place, path)))

        class Server:
            deliver = Batches(recorder.send).deliver

            def close(self) -> None:
                pass

        with pytest.raises((Ended, Killed)):
            program.Shipper(Server(), RULES, file).run()
        if not file.exists():
            return Place("")
        return Place.read(file)

    return run


@pytest.mark.parametrize("after", [False, True], ids=["before a step", "after a step"])
def test_a_power_cut_at_any_step_loses_no_line_counts_each_refusal_once_and_repeats_one_batch_at_most(
    ship: Callable[[Recorder], Place], tmp_path: Path, after: bool
) -> None:
    whole = Recorder()
    assert ship(whole) == Place("s=1;i=b", refused=2)
    for number in range(whole.steps):
        (tmp_path / "place").unlink(missing_ok=True)
        recorder = Recorder(number, Killed, after)
        ship(recorder)
        assert ship(recorder) == Place("s=1;i=b", refused=2)
        assert recorder.taken == [f"line {one}" for one in range(12) if one not in (4, 9)]
        assert recorder.doubled <= 4


def test_of_many_refused_lines_one_is_told_at_once_and_the_rest_by_number(
    ship: Callable[[Recorder], Place], capsys: pytest.CaptureFixture[str]
) -> None:
    ship(Recorder())
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("Lines that the log server refused for good: 1. They stay in the journal. The last one: ")
    assert said.endswith(", 2026-09-21T14:13:20.000004Z, 8 characters: 400 no")


@pytest.fixture
def unit_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("unit_umask")
def test_a_place_is_read_by_others_and_from_before_lines_were_counted(tmp_path: Path) -> None:
    (tmp_path / "place").write_text("s=1;i=2")
    assert Place.read(tmp_path / "place") == Place("s=1;i=2", 0)
    Place("s=1;i=3", 7).keep(tmp_path / "place")
    assert Place.read(tmp_path / "place") == Place("s=1;i=3", 7)
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o644
