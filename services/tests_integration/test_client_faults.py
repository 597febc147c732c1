"""What a client can do to a service by itself, over a plain socket, and what the service accounts for it.

Nothing of it may be a status of 500 or more: releases are judged and alerts fire on those.
"""

import contextlib
import os
import re
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest

from tests_integration.conftest import TOKEN_SECRETS, Program, poll

pytestmark = pytest.mark.integration

LOGIN = "POST /api/auth/login HTTP/1.1\r\nHost: site\r\nContent-Type: application/json\r\n"
BODY = b'{"email": "a@b.invalid", "password": "wrong"}'


@dataclass
class Service:
    program: Program
    port: int

    def accounted(self) -> Counter[str]:
        """Return status -> requests, of all workers."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text
        found: Counter[str] = Counter()
        for line in text.splitlines():
            if (match := re.match(r'http_requests_total\{.*status="(.+)"\} (\S+)', line)) and '"/metrics"' not in line:
                found[match[1]] += int(float(match[2]))
        return found

    def seconds(self, route: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text
        found = re.findall(rf'http_request_duration_seconds_sum\{{method="\w+",route="{route}"\}} (\S+)', text)
        return sum(map(float, found))

    def lost(self) -> int:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text
        return sum(int(float(each)) for each in re.findall(r"^worker_processes_lost_total (\S+)", text, re.M))

    def connect(self) -> socket.socket:
        connection = socket.socket()
        # Small, so that an answer that nobody reads has to wait.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def workers(self) -> list[int]:
        return [
            int(each)
            for task in Path(f"/proc/{self.program.process.pid}/task").iterdir()
            for each in (task / "children").read_text().split()
        ]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("hasty")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "SERVICE": "auth_service",
        "ENVIRONMENT": "dev",
        "BIND": f"127.0.0.1:{port}",
        "WEB_CONCURRENCY": "2",
        **TOKEN_SECRETS["auth_service"],
        # Nobody is there: no request below gets as far.
        "MONGO_URI": "mongodb://127.0.0.1:1/auth_db",
        "REDIS_URI": "redis://127.0.0.1:1/0",
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
    }
    arguments = ["-m", "gunicorn", "--config", "python:shared.gunicorn_conf", "tests_integration.hasty:app"]
    started = Service(Program(folder / "log", arguments, environment), port)
    started.program.start()

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        return False

    try:
        poll(answers, 60, f"the service; see {folder}")
        yield started
    finally:
        started.program.kill()


def reset(connection: socket.socket) -> None:
    """End a connection by a reset instead of by its end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def send(connection: socket.socket, head: str, body: bytes = b"") -> None:
    connection.sendall(head.encode() + b"\r\n" + body)


def half(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Content-Length: {len(BODY)}\r\n", BODY[:10])


def bad_chunk(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Transfer-Encoding: chunked\r\n", b"5\r\n" + BODY[:5] + b"\r\nnothing\r\n")
    assert connection.recv(12) == b"HTTP/1.1 400"


def bad_chunk_later(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Transfer-Encoding: chunked\r\n", b"5\r\n" + BODY[:5] + b"\r\n")
    time.sleep(0.1)  # a client's own pace
    connection.sendall(b"nothing\r\n")
    assert connection.recv(12) == b"HTTP/1.1 400"


def reset_in_mid_body(connection: socket.socket) -> None:
    half(connection)
    reset(connection)


def end_in_mid_body(connection: socket.socket) -> None:
    half(connection)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(12) == b""


def end_in_mid_chunk(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Transfer-Encoding: chunked\r\n", b"5\r\n" + BODY[:2])
    connection.close()


def stalled_body(connection: socket.socket) -> None:
    half(connection)
    assert connection.recv(12) == b"HTTP/1.1 408"
    rest = connection.makefile("rb").read().lower()
    assert b'"code": "request_timeout"' in rest
    assert b"connection: close" in rest


def trickled_body(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Content-Length: 5000\r\n")
    with contextlib.suppress(OSError):
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.05)  # a client's own pace
    assert connection.recv(12) == b"HTTP/1.1 408"


def too_large(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Content-Length: 999999\r\n", BODY)
    assert connection.recv(12) == b"HTTP/1.1 413"


def too_large_in_chunks(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Transfer-Encoding: chunked\r\n", (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 17)
    assert connection.recv(12) == b"HTTP/1.1 413"


def bad_content_length(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Content-Length: many\r\n", BODY)
    assert connection.recv(12) == b"HTTP/1.1 400"


def short_content_length(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Content-Length: 10\r\n", BODY)
    assert connection.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 422")


def wrong_content_type(connection: socket.socket) -> None:
    head = LOGIN.replace("application/json", "text/plain")
    send(connection, f"{head}Content-Length: {len(BODY)}\r\n", BODY)
    assert connection.recv(12) == b"HTTP/1.1 422"


def no_headers(connection: socket.socket) -> None:
    connection.sendall(b"POST /api/auth/login HTTP/1.1\r\nHost: si")
    reset(connection)


def no_http(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 400"


def leaves_while_answered(connection: socket.socket) -> None:
    send(connection, "GET /long HTTP/1.1\r\nHost: site\r\n")
    assert connection.recv(12) == b"HTTP/1.1 200"
    reset(connection)


def leaves_before_answered(connection: socket.socket) -> None:
    send(connection, "GET /api/auth/openapi.json HTTP/1.1\r\nHost: site\r\n")
    reset(connection)


def does_not_read(connection: socket.socket) -> None:
    send(connection, "GET /long HTTP/1.1\r\nHost: site\r\n")
    time.sleep(1.5)  # a client's own pace


def two_lengths(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 400"


def asks_for_a_websocket(connection: socket.socket) -> None:
    send(connection, "GET /healthz HTTP/1.1\r\nHost: site\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    assert connection.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 400")


def asks_for_more_and_leaves(connection: socket.socket) -> None:
    send(connection, f"{LOGIN}Content-Length: {len(BODY)}\r\n".replace("json", "text"), BODY)
    send(connection, f"{LOGIN}Content-Length: {len(BODY)}\r\n", BODY[:3])
    reset(connection)


# What a client does -> what is accounted; None: nothing, or what it would have been answered.
FAULTS: dict[Callable[[socket.socket], None], str | None] = {
    bad_chunk: "400",
    bad_chunk_later: "400",
    reset_in_mid_body: "499",
    end_in_mid_body: "499",
    end_in_mid_chunk: "499",
    stalled_body: "408",
    trickled_body: "408",
    too_large: "413",
    too_large_in_chunks: "413",
    bad_content_length: None,
    short_content_length: None,
    wrong_content_type: "422",
    no_headers: None,
    no_http: None,
    leaves_while_answered: "200",
    leaves_before_answered: None,
    does_not_read: "200",
    two_lengths: None,
    asks_for_a_websocket: None,
    asks_for_more_and_leaves: None,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_a_client_does_alone_is_never_accounted_as_the_services_fault(
    service: Service, fault: Callable[[socket.socket], None]
) -> None:
    before, expected = service.accounted(), FAULTS[fault]
    for _ in range(3):
        with service.connect() as connection:
            fault(connection)

    def accounted() -> Counter[str]:
        return service.accounted() - before

    if expected:
        poll(lambda: accounted()[expected] >= 3, 10, f"three times {expected}", accounted)
    poll(lambda: no_request_is_open(service), 10, "an end of these requests")
    assert not [status for status in accounted() if status >= "500"], accounted()


def no_request_is_open(service: Service) -> bool:
    """Tell whether the service has closed all connections but those that this asks with."""
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    mine = f":{service.port:04X}"
    # 01 is an established connection.
    return not [line for line in table if line.split()[1].endswith(mine) and line.split()[3] == "01"]


def test_waiting_for_a_client_makes_no_request_slow(service: Service) -> None:
    before = service.seconds("/api/auth/login")
    with service.connect() as connection:
        stalled_body(connection)
    assert service.seconds("/api/auth/login") - before < 0.5


def test_a_service_that_is_slow_itself_is_at_fault(service: Service) -> None:
    before = service.accounted()
    answer = httpx.get(f"http://127.0.0.1:{service.port}/slow", timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (503, "timeout")
    assert (service.accounted() - before)["503"] == 1


def test_an_answer_that_breaks_in_the_middle_is_the_services_fault_though_it_began_well(service: Service) -> None:
    before = service.accounted()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{service.port}/broken", timeout=20)
    assert service.accounted() - before == {"500": 1}


def test_a_worker_process_that_crashes_is_counted_and_one_that_is_replaced_is_not(service: Service) -> None:
    assert service.lost() == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{service.port}/crash", timeout=20)
    poll(lambda: service.lost() == 1, 20, "the lost worker")
    before = poll(lambda: workers if len(workers := service.workers()) == 2 else None, 20, "two workers")
    os.kill(service.program.process.pid, signal.SIGHUP)
    poll(lambda: len(workers := service.workers()) == 2 and not set(workers) & set(before), 40, "new workers")
    assert service.lost() == 1


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_the_body_of_a_request_for_another_protocol_is_not_read_as_the_next_request(
    service: Service, protocol: str
) -> None:
    body = b"GET /metrics HTTP/1.1\r\nHost: site\r\n\r\n"
    upgrade = f"Connection: upgrade\r\nUpgrade: {protocol}\r\nContent-Length: {len(body)}\r\n"
    with service.connect() as connection:
        send(connection, f"GET /healthz HTTP/1.1\r\nHost: site\r\n{upgrade}")
        answers = connection.recv(65536)
        # It may be cut off meanwhile.
        with contextlib.suppress(OSError):
            connection.sendall(body)
            while some := connection.recv(65536):
                answers += some
    assert answers.startswith(b"HTTP/1.1 200")
    assert answers.count(b"HTTP/1.1") == 1
