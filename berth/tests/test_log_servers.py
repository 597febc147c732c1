"""RELP and syslog as a server on this machine meets them: what counts as shipped, and what comes again."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from berth.logs import servers
from berth.logs.batches import NotNowError
from berth.logs.events import Event, Line, Rules, line_of
from berth.logs.servers import SERVERS, Elasticsearch, Loki, Relp, Settings, SyslogTls, syslog_message
from berth.tests.certificates import write_certificate
from tests.support import poll

RULES = Rules(re.compile("x"))
# A test that is wrong must not wait for ever.
WAIT = 20
# What a server does with one connection: it reads and writes, and hangs up when it returns.
Conversation = Callable[[BinaryIO], None]
AnyServer = Loki | Elasticsearch | Relp | SyslogTls


def line(number: int, text: str) -> Line:
    entry = {
        "__CURSOR": f"s=1;i={number:x}",
        "__REALTIME_TIMESTAMP": str(1_790_000_000_000_000 + number),
        "MESSAGE": text,
        "_HOSTNAME": "vps",
    }
    return line_of(Event(entry, [text]), RULES)


LINES = [line(number, f"line {number}") for number in range(5)]


def text_of(message: bytes) -> str:
    """What was said, without the head and the labels of syslog."""
    return message.partition(b'"] ')[2].decode()


@dataclass
class Listener:
    """A server that has one conversation after the other, each on a connection of its own."""

    port: int
    ended: list[str] = field(default_factory=list)


@contextmanager
def listening(context: ssl.SSLContext | None, *conversations: Conversation) -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(WAIT)
        listener = Listener(door.getsockname()[1])

        def serve() -> None:
            for conversation in conversations:
                # A client that is refused, or goes away, ends its own conversation only.
                with suppress(OSError, EOFError), ExitStack() as stack:
                    peer = stack.enter_context(door.accept()[0])
                    peer.settimeout(WAIT)
                    if context:
                        peer = stack.enter_context(context.wrap_socket(peer, server_side=True))
                    conversation(cast(BinaryIO, stack.enter_context(peer.makefile("rwb", 0))))
                listener.ended.append(conversation.__name__)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener
        finally:
            thread.join()


@pytest.fixture(autouse=True)
def no_waiting_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tests of refusals need it."""
    monkeypatch.setattr(servers, "REFUSAL_SECONDS", 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def client(kind: str, listener: Listener, trusted: Path, **more: str) -> AnyServer:
    settings: Settings = {
        "host": "localhost",
        "port": listener.port,
        "url": f"https://localhost:{listener.port}",
        "index": "logs",
        "ca": trusted.read_text(),
        **more,
    }
    return SERVERS[kind](settings)


# --- RELP ---


def exactly(peer: BinaryIO, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = peer.read(count - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def until_space(peer: BinaryIO) -> bytes:
    found = b""
    while (byte := exactly(peer, 1)) != b" ":
        found += byte
    return found


@dataclass
class Rsyslog:
    """Takes RELP; `answers` may say something else of a frame than 200, or hang up by raising EOFError."""

    answers: Callable[[int, bytes, bytes], bytes | None] = lambda *_: None
    frames: list[tuple[int, bytes, bytes]] = field(default_factory=list)

    def __call__(self, peer: BinaryIO) -> None:
        while True:
            number, command, length = int(until_space(peer)), until_space(peer), int(until_space(peer))
            data = exactly(peer, length)
            assert exactly(peer, 1) == b"\n"
            self.frames.append((number, command, data))
            answer = self.answers(number, command, data)
            peer.write(b"%d rsp 6 200 OK\n" % number if answer is None else answer)

    @property
    def __name__(self) -> str:
        return "rsyslog"

    @property
    def texts(self) -> list[str]:
        return [text_of(data) for _, command, data in self.frames if command == b"syslog"]


def test_each_line_is_a_frame_that_relp_answers(certificate: Path) -> None:
    rsyslog = Rsyslog()
    with listening(serving(certificate), rsyslog) as listener:
        shipper = client("relp", listener, certificate)
        assert shipper.deliver(LINES[:3]) == []
        assert shipper.deliver(LINES[3:]) == []
        shipper.close()
    assert [number for number, _, _ in rsyslog.frames] == [1, 2, 3, 4, 5, 6]
    number, command, offer = rsyslog.frames[0]
    assert (number, command) == (1, b"open")
    assert b"relp_version=0\n" in offer
    assert b"commands=syslog" in offer
    assert [data for _, _, data in rsyslog.frames[1:]] == [syslog_message(each) for each in LINES]


def test_after_a_hang_up_only_what_relp_did_not_answer_comes_again_on_a_new_session(certificate: Path) -> None:
    def hang_up_at_the_third(*frame: int | bytes) -> None:
        if frame[0] == 4:
            raise EOFError

    first, second = Rsyslog(hang_up_at_the_third), Rsyslog()
    with listening(serving(certificate), first, second) as listener:
        shipper = client("relp", listener, certificate)
        with pytest.raises(NotNowError):
            shipper.deliver(LINES)
        assert shipper.deliver(LINES) == []
        shipper.close()
    assert first.texts == ["line 0", "line 1", "line 2"]
    assert second.texts == ["line 2", "line 3", "line 4"]
    assert [command for _, command, _ in second.frames] == [b"open", *[b"syslog"] * 3]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"3 rsp 13 500 disk full\n", "the server answered 500 disk full"),
        (b"0 serverclose 0\n", "the server closed the session"),
        (b"3 rsp 6 200 OKX", "a frame is longer than its length field"),
        (b"x rsp 6 200 OK\n", "invalid literal for int"),
        (b"3 rsp 0\n", "the server answered "),
    ],
    ids=["refused", "closed", "too long", "no number", "says nothing"],
)
def test_a_line_that_relp_does_not_answer_well_counts_as_not_shipped(
    certificate: Path, answer: bytes, why: str
) -> None:
    first, second = Rsyslog(lambda number, *_: answer if number == 3 else None), Rsyslog()
    with listening(serving(certificate), first, second) as listener:
        shipper = client("relp", listener, certificate)
        with pytest.raises(NotNowError, match=why):
            shipper.deliver(LINES)
        assert shipper.deliver(LINES) == []
        shipper.close()
    # The first was answered before.
    assert second.texts == [f"line {number}" for number in range(1, 5)]


def test_a_server_that_opens_no_session_gets_no_line(certificate: Path) -> None:
    rsyslog = Rsyslog(lambda *_: b"1 rsp 14 500 no version\n")
    with listening(serving(certificate), rsyslog) as listener:
        shipper = client("relp", listener, certificate)
        with pytest.raises(NotNowError, match="the server answered 500 no version"):
            shipper.deliver(LINES)
    assert rsyslog.texts == []


def test_answers_of_relp_in_any_order_and_in_pieces_are_understood(certificate: Path) -> None:
    waiting: list[int] = []

    def all_at_the_end(number: int, command: bytes, _: bytes) -> bytes | None:
        if command == b"open":
            return None
        waiting.append(number)
        return b"".join(b"%d rsp 6 200 OK\n" % each for each in reversed(waiting)) if len(waiting) == 5 else b""

    class Slowly:
        def __init__(self, peer: BinaryIO) -> None:
            self.read = peer.read
            self._peer = peer

        def write(self, text: bytes) -> None:
            for byte in text:
                self._peer.write(bytes([byte]))

    rsyslog = Rsyslog(all_at_the_end)

    def in_pieces(peer: BinaryIO) -> None:
        rsyslog(Slowly(peer))  # type: ignore[arg-type]  # reads and writes

    with listening(serving(certificate), in_pieces) as listener:
        shipper = client("relp", listener, certificate)
        assert shipper.deliver(LINES) == []
        shipper.close()
    assert waiting == [2, 3, 4, 5, 6]


ODD = ["two\n\tlines", "nul \0 and \x7f", "käse 🧀", "half a pair \ud83d", "9 looks like a frame\n1 open 0\n", ""]


def read_syslog(peer: BinaryIO, count: int) -> list[bytes]:
    """Read as many messages of RFC 5425."""
    return [exactly(peer, int(until_space(peer))) for _ in range(count)]


def test_whatever_a_line_holds_it_is_one_message_and_the_next_one_is_read(certificate: Path) -> None:
    rsyslog, collected = Rsyslog(), list[bytes]()

    def collector(peer: BinaryIO) -> None:
        collected.extend(read_syslog(peer, len(ODD) + 1))

    lines = [line(number, text) for number, text in enumerate([*ODD, "the next"])]
    with listening(serving(certificate), rsyslog, collector) as listener:
        for kind in ("relp", "syslog_tls"):
            shipper = client(kind, listener, certificate)
            assert shipper.deliver(lines) == []
            shipper.close()
    expected = [text.replace("\ud83d", "?") for text in [*ODD, "the next"]]
    # A line break at the end is none.
    expected[4] = expected[4].rstrip("\n")
    assert rsyslog.texts == expected
    assert [text_of(message) for message in collected] == expected


# --- Syslog over TLS ---


def test_syslog_sends_one_batch_after_the_other_on_one_connection(certificate: Path) -> None:
    taken = list[bytes]()

    def collector(peer: BinaryIO) -> None:
        taken.extend(read_syslog(peer, 5))

    with listening(serving(certificate), collector) as listener:
        shipper = client("syslog_tls", listener, certificate)
        assert shipper.deliver(LINES[:2]) == []
        assert shipper.deliver(LINES[2:]) == []
        shipper.close()
    assert taken == [syslog_message(each) for each in LINES]
    assert listener.ended == ["collector"]


def test_a_syslog_server_that_has_hung_up_is_noticed_before_anything_is_sent_into_the_void(certificate: Path) -> None:
    taken = list[bytes]()

    def one_line(peer: BinaryIO) -> None:
        taken.extend(read_syslog(peer, 1))

    def collector(peer: BinaryIO) -> None:
        taken.extend(read_syslog(peer, 4))

    with listening(serving(certificate), one_line, collector) as listener:
        shipper = client("syslog_tls", listener, certificate)
        assert shipper.deliver(LINES[:1]) == []
        poll(lambda: listener.ended or None, WAIT, "the server to hang up")
        with pytest.raises(NotNowError, match="closed the connection"):
            shipper.deliver(LINES[1:])
        assert shipper.deliver(LINES[1:]) == []
        shipper.close()
    assert taken == [syslog_message(each) for each in LINES]


@pytest.mark.parametrize("kind", ["relp", "syslog_tls"])
def test_a_server_whose_machine_takes_nothing_is_not_taken_for_one_that_has_the_lines(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(servers, "SECONDS", 1)
    done = threading.Event()

    def takes_nothing(_: BinaryIO) -> None:
        done.wait(WAIT)

    with listening(serving(certificate), takes_nothing) as listener:
        shipper = client(kind, listener, certificate)
        large = [line(number, "x" * 200_000) for number in range(50)]
        try:
            with pytest.raises(NotNowError, match="TimeoutError"):
                shipper.deliver(large)
        finally:
            done.set()


# --- Who is who ---


def refused(shipper: AnyServer) -> str:
    with pytest.raises(NotNowError) as caught:
        shipper.deliver(LINES)
    shipper.close()
    return str(caught.value)


def never(_: BinaryIO) -> None:
    raise AssertionError("a client that did not trust the server goes on")


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_does_not_prove_its_name_gets_nothing_and_the_reason_is_a_sentence(
    certificate: Path, tmp_path: Path, kind: str
) -> None:
    other = write_certificate(tmp_path / "other.pem")
    expired = write_certificate(tmp_path / "expired.pem", days=-1)
    elsewhere = write_certificate(tmp_path / "elsewhere.pem", name="logs.example.net")
    for shown, trusted, why in [
        (other, certificate, r"CERTIFICATE_VERIFY_FAILED\] certificate verify failed: self.signed certificate"),
        (expired, expired, "certificate verify failed: certificate has expired"),
        (elsewhere, elsewhere, "Hostname mismatch, certificate is not valid for 'localhost'"),
    ]:
        with listening(serving(shown), never) as listener:
            said = refused(client(kind, listener, trusted))
        assert re.search(why, said), said


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_without_tls_gets_nothing(certificate: Path, kind: str) -> None:
    heard = list[bytes]()

    def plain(peer: BinaryIO) -> None:
        heard.append(peer.read(4096))
        peer.write(b"220 mail.example.net\r\n")

    with listening(None, plain) as listener:
        assert "SSLError" in refused(client(kind, listener, certificate))
    # The hello of TLS, with no line in it.
    assert heard[0][:1] == b"\x16"
    assert b"line 0" not in heard[0]


@pytest.mark.parametrize("kind", SERVERS)
def test_nobody_there_is_said_in_a_sentence(certificate: Path, kind: str) -> None:
    assert refused(client(kind, Listener(1), certificate)).startswith("ConnectionRefusedError: ")


@contextmanager
def far_away(listener: Listener, seconds: float) -> Iterator[Listener]:
    """The same server, one of whose words is so long under way."""
    with socket.create_server(("127.0.0.1", 0)) as door, ExitStack() as ends:
        door.settimeout(WAIT)

        def carry(near: socket.socket, far: socket.socket, delay: float) -> None:
            with suppress(OSError):
                while words := near.recv(65536):
                    threading.Event().wait(delay)
                    far.sendall(words)
                far.shutdown(socket.SHUT_WR)

        def relay() -> None:
            near = ends.enter_context(door.accept()[0])
            far = ends.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
            back = threading.Thread(target=carry, args=(far, near, seconds))
            back.start()
            carry(near, far, 0)
            back.join()

        thread = threading.Thread(target=relay)
        thread.start()
        yield Listener(door.getsockname()[1])
        thread.join()


@pytest.mark.parametrize("kind", ["relp", "syslog_tls"])
def test_a_server_far_away_that_asks_for_our_certificate_says_so_before_any_line_counts_as_shipped(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With TLS 1.3 it says so when the client may send already: syslog would lose batch after batch."""
    monkeypatch.setattr(servers, "REFUSAL_SECONDS", 2)
    context = serving(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=write_certificate(tmp_path / "ours.pem", name="vps").read_text())
    with listening(context, never) as listener, far_away(listener, 0.1) as far:
        assert "certificate required" in refused(client(kind, far, certificate))


@pytest.mark.parametrize("kind", ["relp", "syslog_tls"])
def test_a_server_that_asks_for_our_certificate_takes_lines_with_it(
    certificate: Path, tmp_path: Path, kind: str
) -> None:
    ours = write_certificate(tmp_path / "ours.pem", name="vps").read_text()
    context = serving(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=ours)
    taken = list[bytes]()

    def collector(peer: BinaryIO) -> None:
        taken.extend(read_syslog(peer, 5))

    rsyslog = Rsyslog()
    with listening(context, rsyslog if kind == "relp" else collector) as listener:
        shipper = client(kind, listener, certificate, certificate=ours, key=ours)
        assert shipper.deliver(LINES) == []
        shipper.close()
    assert (rsyslog.texts or [text_of(message) for message in taken]) == [each.text for each in LINES]


# --- HTTPS; what is refused is in test_log_refusals.py ---


def head_of(peer: BinaryIO) -> list[bytes]:
    """Read a request up to its body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(peer, 1)
    return head.split(b"\r\n")


@pytest.mark.parametrize(
    ("kind", "settings", "headers"),
    [
        ("loki", {"token": "t0ken", "tenant": "shop"}, [b"Authorization: Bearer t0ken", b"X-Scope-OrgID: shop"]),
        ("loki", {"username": "ada", "password": "s3cret"}, [b"Authorization: Basic YWRhOnMzY3JldA=="]),
        ("elasticsearch", {"token": "t0ken"}, [b"Authorization: ApiKey t0ken"]),
        ("elasticsearch", {"username": "ada", "password": "s3cret"}, [b"Authorization: Basic YWRhOnMzY3JldA=="]),
    ],
)
def test_a_server_is_told_who_we_are_as_it_wants_it(
    certificate: Path, kind: str, settings: dict[str, str], headers: list[bytes]
) -> None:
    asked = list[bytes]()

    def api(peer: BinaryIO) -> None:
        asked.extend(head_of(peer))
        answer = b'{"items": [{"create": {"status": 201}}]}'
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
        # Its request's body is still to be read.
        peer.read(65536)

    with listening(serving(certificate), api) as listener:
        shipper = client(kind, listener, certificate, **settings)
        assert shipper.deliver(LINES[:1]) == []
        shipper.close()
    assert set(headers) <= set(asked)


def test_an_answer_that_is_not_the_bulk_apis_drops_no_line(certificate: Path) -> None:
    """Such as a proxy's page, with a status of success."""

    def proxy(peer: BinaryIO) -> None:
        head_of(peer)
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>no\n")
        peer.read(65536)

    with listening(serving(certificate), proxy) as listener:
        said = refused(client("elasticsearch", listener, certificate))
    assert said.startswith("this is not a response of the bulk API: ")
