"""No request reaches a service that the edge did not count, and nobody gets the answer to another one's request.

A real edge with the configuration that the roles write; behind it, gunicorn with the worker of our services. Each row
sends one hostile request, and others' requests follow it on the connections that the edge keeps to the service.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from berth.host.live import Live
from berth.release.edge import Edge
from tests.edge.bed import SITE, Bed, docker, settings_of_releases, static_configuration, write_rules
from tests.edge.hostile import HTTP1, HTTP2, Pieces, length, request, two
from tests.support import ROOT, poll

pytestmark = pytest.mark.integration

BED = Bed(f"berth-smuggling-{os.getpid()}", "172.31.252", "fd00:31:252", {"edge": 2, "back": 3, "naive": 4})
NUMBERS = itertools.count(1)
# An answer comes within milliseconds; who gets none at all is not waited for longer than this.
ANSWER_SECONDS = 0.5
SILENCE_SECONDS = 0.05
VISITOR_SECONDS = 5
LOG_SECONDS = 5
VISITS = 4


@dataclass
class Front:
    """What clients connect to, and the logs of what it counted and of what the service behind it was told."""

    port: int
    certificate: Path
    counts: Path
    is_told: Path

    def connect(self, protocol: str = "http/1.1") -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.set_alpn_protocols([protocol])
        plain = socket.create_connection(("127.0.0.1", self.port), VISITOR_SECONDS)
        return context.wrap_socket(plain, server_hostname=SITE)

    def visit(self, mark: str) -> dict[str, Any]:
        """Ask as another client; return the answer."""
        with self.connect() as connection:
            connection.sendall(request(f"X-Mark: {mark}", "Connection: close", method="GET", target=path_of(mark)))
            answer = HTTPResponse(connection)
            answer.begin()
            return {"status": answer.status, **json.loads(answer.read() or b"{}")}

    def logs(self) -> Logs:
        return Logs(lines_of(self.counts), lines_of(self.is_told))


@dataclass
class Logs:
    counted: list[dict[str, Any]]
    told: list[dict[str, Any]]

    def since(self, before: Logs) -> Logs:
        return Logs(self.counted[len(before.counted) :], self.told[len(before.told) :])

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        return Counter((line["RequestMethod"], line["RequestPath"]) for line in self.counted if "RequestPath" in line)

    @property
    def seen(self) -> list[dict[str, Any]]:
        return [line["seen"] for line in self.told if "seen" in line]

    @property
    def uncounted(self) -> Counter[tuple[str, str]]:
        return Counter((line["method"], line["target"].partition("?")[0]) for line in self.seen) - self.requests


def lines_of(log: Path) -> list[dict[str, Any]]:
    whole = log.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def path_of(mark: str) -> str:
    return f"/api/users/{mark}"


def hear(connection: ssl.SSLSocket, seconds: float) -> bytes:
    """Return what comes until the other side is silent or gone."""
    heard = b""
    connection.settimeout(seconds)
    with suppress(OSError):
        while some := connection.recv(65536):
            heard += some
            connection.settimeout(SILENCE_SECONDS)
    return heard


def wrong(front: Front, pieces: Pieces, protocol: str = "http/1.1") -> list[str]:
    """Send a hostile request; return what is wrong with others' answers and with what the service was told."""
    row = f"{next(NUMBERS):04d}"
    before, found, heard = front.logs(), [], b""
    visits = [f"visit-{row}-{number}" for number in range(VISITS)]

    def visit(mark: str) -> None:
        try:
            answer = front.visit(mark)
        except (OSError, HTTPException, ValueError) as error:
            found.append(f"{mark} got no answer: {error!r}")
            return
        if answer != {"status": 200, "target": path_of(mark), "mark": mark}:
            found.append(f"{mark} got {answer}")

    with front.connect(protocol) as hostile:
        for piece in pieces:
            with suppress(OSError):
                hostile.sendall(piece.replace(b"MARK", row.encode()))
            heard += hear(hostile, ANSWER_SECONDS)
        for mark in visits[: VISITS // 2]:
            visit(mark)
        heard += hear(hostile, SILENCE_SECONDS)
    for mark in visits[VISITS // 2 :]:
        visit(mark)
    if b"visit-" in heard:
        found.append(f"the attacker heard {heard!r}")
    deadline = time.monotonic() + LOG_SECONDS
    while True:
        logs = front.logs().since(before)
        there = {path for _, path in logs.requests} & {each["target"] for each in logs.seen}
        missing = {path_of(mark) for mark in visits} - there
        if not (missing or logs.uncounted) or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return found + wrong_in(logs, visits)


def wrong_in(logs: Logs, visits: list[str]) -> list[str]:
    found = [f"not counted by the edge: {one}" for one in logs.uncounted]
    found += [f"the service could not parse: {line}" for line in logs.told if "malformed" in line]
    for each in logs.seen:
        named = {*each["headers"]} & {"x-smuggled", "x-absorb"}
        if named or "/smuggled" in each["target"] or each["headers"].get("host") != SITE:
            found.append(f"the service was told: {each}")
    times = Counter(each["target"] for each in logs.seen)
    return found + [
        f"{mark} reached the service {times[path_of(mark)]} times" for mark in visits if times[path_of(mark)] != 1
    ]


def sampled(tricks: Iterable[str]) -> list[Any]:
    """Return all, of which `make test` tries each fourth and those that once worked; the others are `long`."""
    marks = [[] if not number % 4 or "upgrade" in trick else [pytest.mark.long] for number, trick in enumerate(tricks)]
    return [pytest.param(trick, marks=mark) for trick, mark in zip(tricks, marks, strict=True)]


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The network, and the folder with the certificate and the edge's rules."""
    root = tmp_path_factory.mktemp("berth")
    settings = settings_of_releases(root, rate_middlewares=["rate-limit"], middlewares=["in-flight", "in-flight-all"])
    write_rules(settings)
    (root / "traefik.yml").write_text(static_configuration())
    with BED.network(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "chown", lambda *_: None)
        Edge(settings).switch(Live("1.0", "blue", "f"))
        yield settings.edge / "dynamic"


@contextmanager
def front(who: str, behind: str, dynamic: Path) -> Iterator[Front]:
    """Follow the logs of what answers clients and of what is behind it; wait for an answer."""
    published = docker("port", f"{BED.name}-{who}", "443/tcp").splitlines()[0]
    logs = [dynamic.parent / f"{name}.log" for name in (who, behind)]
    with ExitStack() as followed:
        for log in logs:
            file = followed.enter_context(log.open("wb"))
            words = ["docker", "logs", "--follow", f"{BED.name}-{log.stem}"]
            follower = followed.enter_context(subprocess.Popen(words, stdout=file, stderr=file))
            followed.callback(follower.terminate)
        site = Front(int(published.rpartition(":")[2]), dynamic / "cert.pem", *logs)

        def answers() -> bool | None:
            with suppress(OSError, HTTPException, ValueError):
                return site.visit("first")["status"] == 200 or None
            return None

        poll(answers, 60, f"an answer; the logs: {logs}")
        yield site


@pytest.fixture(scope="module")
def edge(dynamic: Path) -> Iterator[Front]:
    chosen = dict(line.split("=", 1) for line in (ROOT / ".cache/images.env").read_text().splitlines())
    own = [
        "--env=SERVICE=auth_service",
        "--env=PYTHONPATH=/app:/told",
        "--env=PROMETHEUS_MULTIPROC_DIR=/dev/shm/metrics",
    ]
    own += [f"--volume={ROOT}/tests/edge/told.py:/told/told.py:ro", "--entrypoint=python3", "--no-healthcheck"]
    own += [f"--network-alias={service}-blue" for service in ("auth_service", "user_service", "frontend")]
    # The ports of all our services, so that it hears what the edge sends to any.
    server = ("-m", "gunicorn", "--config", "python:shared.gunicorn_conf", "--bind=:8000", "--bind=:8080", "told:app")
    BED.start("back", "AUTH_SERVICE_IMAGE", f"auth_service:{chosen['RELEASE']}", *own, command=server)
    BED.start_edge("edge", dynamic.parent.parent / "traefik.yml", dynamic, "--publish=127.0.0.1::443")
    with front("edge", "back", dynamic) as site:
        yield site


@pytest.fixture(scope="module")
def naive(dynamic: Path) -> Iterator[Front]:
    own = [f"--volume={ROOT}/tests/edge/naive.py:/naive.py:ro", f"--volume={dynamic}:/dynamic:ro"]
    own += ["--publish=127.0.0.1::443"]
    BED.start("naive", "PYTHON_IMAGE", "python:3.13", *own, command=("python3", "/naive.py"))
    with front("naive", "naive", dynamic) as site:
        yield site


@pytest.mark.parametrize(
    ("pieces", "protocol"), [((request(length(b"x"), body=b"x"),), "http/1.1"), (two(body=b"x"), "h2")]
)
def test_clients_share_a_connection_to_the_service_and_each_request_reaches_it_once(
    edge: Front, pieces: Pieces, protocol: str
) -> None:
    before = edge.logs()
    assert wrong(edge, pieces, protocol) == []
    told = [each for each in edge.logs().since(before).seen if not each["target"].endswith("/first")]
    assert len(told) == VISITS + 1
    assert len({each["from"] for each in told}) == 1


@pytest.mark.parametrize("trick", sampled(HTTP1))
def test_no_request_is_smuggled_past_the_edge(edge: Front, trick: str) -> None:
    assert wrong(edge, HTTP1[trick]) == []


@pytest.mark.parametrize("trick", sampled(HTTP2))
def test_no_request_is_smuggled_from_http2_into_http1(edge: Front, trick: str) -> None:
    assert wrong(edge, HTTP2[trick], "h2") == []


# What is seen of a proxy and a service that read these differently.
CAUGHT = {
    "CL.TE, plain": "told: {'method': 'GET', 'target': '/smuggled-",
    "length two, the first 0": "not counted by the edge: ('GET', '/smuggled-",
    "0.CL, a GET whose body does not come": "'target': '/api/users/hostile-",
}


@pytest.mark.parametrize("trick", CAUGHT)
def test_a_proxy_and_a_service_that_disagree_are_noticed(naive: Front, trick: str) -> None:
    found = wrong(naive, HTTP1[trick])
    assert any(CAUGHT[trick] in each for each in found), found
