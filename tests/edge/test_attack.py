"""While one address attacks the edge, a visitor from another one loses no request, and memory stays within its limit.

A real edge with the configuration that the roles write and the memory that the compose file gives it. The firewall's
limits, which come before it, are not there: what holds here holds without them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.host.live import Live
from berth.release.edge import Edge
from tests.edge.bed import SITE, Bed, docker, settings_of_releases, static_configuration, write_rules
from tests.support import ROOT, poll

pytestmark = pytest.mark.integration

BED = Bed(
    f"berth-attack-{os.getpid()}",
    "172.31.253",
    "fd00:31:253",
    {"edge": 2, "back": 3, "attacker": 10, "visitor": 20},
)
SECONDS = 25
DEFAULTS = yaml.safe_load((ROOT / "roles/traefik/defaults/main.yml").read_text())
# As the services do it: a whole body in time, or 408. But under /api/auth/ it waits longer than any attack here.
BACK = """
import asyncio
async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\\r\\n")[0] or 0)
            status, patience = b"200 OK", 3 if "/api/users/" in head else 60
            try:
                await asyncio.wait_for(reader.readexactly(length), patience)
            except TimeoutError:
                status = b"408 Request Timeout"
            writer.write(b"HTTP/1.1 " + status + b"\\r\\nContent-Length: 3\\r\\n\\r\\nok\\n")
            await writer.drain()
            if status[0] != 50:
                break
    except (OSError, EOFError):
        pass
    finally:
        writer.close()
async def main():
    servers = [await asyncio.start_server(serve, "", port, backlog=1024) for port in (8000, 8080)]
    await asyncio.gather(*(server.serve_forever() for server in servers))
asyncio.run(main())
"""


@dataclass(frozen=True)
class Attacked:
    limit: int

    def run(self, who: str, attack: str, *options: str, path: str = "/") -> dict[str, Any]:
        command = ["python3", "/clients.py", attack, f"--url=https://{SITE}{path}", f"--address={BED.ipv4('edge')}"]
        said = docker("exec", f"{BED.name}-{who}", *command, f"--seconds={SECONDS}", *options)
        return dict(json.loads(said))

    def memory(self) -> int:
        """Return what the edge holds now, without the files that the kernel could drop."""
        process = docker("inspect", "--format={{.State.Pid}}", f"{BED.name}-edge").strip()
        found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.M)
        assert found
        return int(found[1]) * 1024

    def most_memory(self, meanwhile: list[Future[dict[str, Any]]]) -> int:
        most = self.memory()
        while wait(meanwhile, timeout=0.2).not_done:
            most = max(most, self.memory())
        return most

    def logged(self, what: str) -> list[str]:
        return [line for line in docker("logs", f"{BED.name}-edge").splitlines() if what in line]

    def restarts(self) -> str:
        return docker("inspect", "--format={{.RestartCount}} {{.State.OOMKilled}}", f"{BED.name}-edge").strip()


def default_of(text: str) -> str:
    """Return what a variable of the compose file is where nobody sets it."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attacked]:
    compose = yaml.safe_load((ROOT / "roles/traefik/files/docker-compose.edge.yml").read_text())["services"][
        "traefik_a"
    ]
    memory = default_of(compose["mem_limit"])
    own = [f"--env={name}={default_of(value)}" for name, value in compose.get("environment", {}).items()]
    settings = settings_of_releases(
        tmp_path, rate_middlewares=["rate-limit"], middlewares=["in-flight", "in-flight-all"]
    )
    write_rules(settings)
    (tmp_path / "traefik.yml").write_text(static_configuration())
    dynamic = settings.edge / "dynamic"
    program = f"--volume={ROOT}/tests/attack/clients.py:/clients.py:ro"
    services = [f"--network-alias={service}-blue" for service in ("auth_service", "user_service", "frontend")]
    with BED.network(), ThreadPoolExecutor() as at_once:
        begun = [
            at_once.submit(BED.start, "back", "PYTHON_IMAGE", "python:3.13", *services, command=("python3", "-c", BACK))
        ]
        for who in ("attacker", "visitor"):
            sleeping = ["--init", "--entrypoint=sleep", program]
            begun.append(
                at_once.submit(BED.start, who, "OUTSIDE_IMAGE", "outside:trixie", *sleeping, command=("infinity",))
            )
        limits = [f"--memory={memory}", f"--memory-swap={memory}", "--cpus=1", "--restart=always"]
        begun.append(at_once.submit(BED.start_edge, "edge", tmp_path / "traefik.yml", dynamic, *limits, *own))
        for each in begun:
            each.result()
        monkeypatch.setattr(os, "chown", lambda *_: None)
        Edge(settings).switch(Live("1.0", "blue", "f"))
        curl = ["curl", "--silent", "--insecure", "--fail", "--resolve", f"{SITE}:443:{BED.ipv4('edge')}"]
        words = ["docker", "exec", f"{BED.name}-visitor", *curl, f"https://{SITE}/"]
        poll(lambda: subprocess.run(words, check=False, capture_output=True).stdout or None, 30, "an answer")
        yield Attacked(int(memory.removesuffix("m")) * 1024**2)


@pytest.mark.parametrize("http", ["1.1", "2"])
def test_a_body_that_does_not_come_is_answered_408_by_the_service_and_the_edge_passes_it_on(
    site: Attacked, http: str
) -> None:
    # Over HTTP/1.1 Go reads what is left of a body before it answers, so that comes with the edge's own time-out.
    options = [f"--http={http}", "--connections=1", "--rate=1", "--seconds=34"]
    assert set(site.run("attacker", "unfinished", *options, path="/api/users/me")["answers"]) == {"408"}


def test_the_answers_that_one_client_waits_for_are_limited_and_anothers_are_not(site: Attacked) -> None:
    with ThreadPoolExecutor() as at_once:
        options = ["--connections=8", "--rate=60", "--seconds=10"]
        attacked = at_once.submit(site.run, "attacker", "unfinished", *options, path="/api/auth/me")
        visited = site.run("visitor", "unfinished", "--connections=1", "--rate=5", "--seconds=8", path="/api/auth/me")
        said = attacked.result()
    assert set(said["answers"]) == {"429"}
    # Of six hundred. At the end, a refusal may still be on its way.
    assert said["sent"] - said["answers"]["429"] == pytest.approx(int(DEFAULTS["traefik_client_requests"]), rel=0.3)
    assert visited["answers"] == {}


LONG = {
    "a user agent": ("--user-agent", 12_000 * '"'),
    "a request's number": ("--header", "X-Request-Id: " + 12_000 * '"'),
    "a host": ("--header", "Host: " + 12_000 * "a"),
    "a path": ("--request-target", "/" + 12_000 * "&"),
}


def test_nothing_that_a_client_writes_makes_a_long_line_in_the_access_log(site: Attacked) -> None:
    def ask(*options: str) -> str:
        words = ["curl", "--silent", "--insecure", "--resolve", f"{SITE}:443:{BED.ipv4('edge')}", *options]
        words += ["--output", "/dev/null", "--write-out", "%{http_code}", f"https://{SITE}/?{1000 * '%22'}"]
        command = ["docker", "exec", f"{BED.name}-visitor", *words]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout

    assert {what: ask(*options) for what, options in LONG.items()} == dict.fromkeys(LONG, "431")
    assert ask() == "200"
    assert ask("--header", f"Cookie: {20_000 * 'x'}") in ("431", "000")
    line = poll(lambda: site.logged('"DownstreamStatus":200')[-1:] or None, 10, "a line of the access log")[0]
    assert '"RequestPath":"/"' in line
    assert max(map(len, site.logged(""))) < 2000


# The one that ended the edge before it had limits. tests/attack has the others, on a whole site.
UNFINISHED = ["unfinished", "--connections=16", "--rate=200"]


def test_a_visitor_loses_no_request_while_one_address_attacks(site: Attacked) -> None:
    with ThreadPoolExecutor() as at_once:
        attacked = at_once.submit(site.run, "attacker", *UNFINISHED, path="/api/auth/me")
        visiting = at_once.submit(site.run, "visitor", "visit")
        most = site.most_memory([attacked, visiting])
        said, visited = attacked.result(), visiting.result()
    print(f"\nattacker: {said}\nvisitor: {visited}\nedge: {most / 1024**2:.0f} MiB at most")
    assert site.restarts() == "0 false"
    assert set(visited["answers"]) == {"200"}
    assert visited["answers"]["200"] > 5
    assert most < 0.9 * site.limit
