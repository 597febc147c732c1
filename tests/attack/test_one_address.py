"""What one anonymous address can do: it may be refused, and nobody else notices it.

Each test is one kind of attack that docs/security.md makes a claim about, bounded in time and count.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import pytest
import yaml
from testinfra.host import Host

from tests.site.test_releases import build, live, play
from tests.support import ROOT, Mailbox, Visitor, join, new_account, poll

# Signs with all that its container holds, in every form that might be a key; prints the tokens as a JSON list.
FORGE = """
import json, os, pathlib, sys, time
from jose import jwt
held = [*os.environ.values(), *(file.read_text() for file in pathlib.Path("/run/secrets").rglob("*") if file.is_file())]
keys = {part.strip() for text in held for part in [text, *text.split(","), *text.splitlines()] if len(part) > 15}
now = int(time.time())
claims = {"iss": "berth", "aud": "berth", "sub": sys.argv[1], "email": sys.argv[2], "sid": "0"}
claims |= {"iat": now, "exp": now + 600}
tokens = []
for key in keys:
    for algorithm in ("HS256", "ES256"):
        try:
            tokens.append(jwt.encode(claims, key, algorithm, headers={"kid": sys.argv[3]}))
        except Exception:
            pass
print(json.dumps(tokens))
"""
OWNER_SECONDS = 150
SECONDS = 25
# How long the edge stays at its limits.
HELD_SECONDS = 15
ATTACKS = {
    "unfinished bodies over HTTP/2": ["unfinished", "--connections=16", "--rate=85"],
    "unfinished bodies over HTTP/1.1": ["unfinished", "--http=1.1", "--connections=200"],
    "headers without an end": ["headers", "--connections=200"],
    "requests that are reset at once": ["resets", "--connections=16", "--rate=500"],
}


def run(command: list[str], program: bytes) -> dict[str, Any]:
    """Run a client; return what it counted, or nothing where it was ended before its time."""
    done = subprocess.run(command, input=program, stdout=subprocess.PIPE, check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


@pytest.fixture
def addresses(outside: Host) -> Iterator[list[str]]:
    """Sixty further addresses of the outside host, all in the /64 that a provider gives to one customer."""
    first = outside.check_output("ip -6 -o addr show dev eth0 scope global").split()[3].partition("/")[0]
    prefix = first.rpartition("::")[0]
    made = [f"{prefix}::bad:{number:x}" for number in range(1, 61)]
    for address in made:
        outside.check_output("ip -6 addr add %s/64 dev eth0 nodad", address)
    yield made
    for address in made:
        outside.check_output("ip -6 addr del %s/64 dev eth0", address)


@pytest.fixture
def four_addresses(outside: Host, testbed: dict[str, str]) -> Iterator[list[str]]:
    """Four further addresses of the outside host: four clients."""
    network = testbed["outside_address"].rpartition(".")[0]
    made = [f"{network}.{number}" for number in range(101, 105)]
    for address in made:
        outside.check_output("ip addr add %s/24 dev eth0", address)
    yield made
    for address in made:
        outside.check_output("ip addr del %s/24 dev eth0", address)


@pytest.fixture
def clients(testbed: dict[str, str]) -> Callable[..., list[str]]:
    """Return the command of one of the programs in clients.py: on this machine, or on the outside host."""
    where = [f"--address={testbed['vps_address']}", f"--seconds={SECONDS}"]

    def command(what: str, *options: str, path: str = "/") -> list[str]:
        return [what, f"--url=https://{testbed['site']}{path}", *where, *options]

    return command


@pytest.fixture(autouse=True)
def nobody_banned(vps: Host) -> Iterator[None]:
    yield
    vps.run("fail2ban-client unban --all")


def alarms(mailbox: Mailbox) -> list[str]:
    names = "ErrorRateHigh|LatencyHigh|SiteSlow|SiteDown|Refused"
    return [mail["subject"] for mail in mailbox.mails() if re.search(names, mail["subject"])]


@dataclass(frozen=True)
class RunningEdge:
    """The edge that serves, since when, and how much memory it may have."""

    began: str
    process: str
    limit: int

    @classmethod
    def of(cls, vps: Host) -> RunningEdge:
        name = vps.check_output("docker ps --filter name=traefik --format '{{.Names}}'").split()[0]
        began = vps.check_output("docker inspect --format '{{.Id}} {{.State.StartedAt}} {{.RestartCount}}' %s", name)
        process, limit = vps.check_output(
            "docker inspect --format '{{.State.Pid}} {{.HostConfig.Memory}}' %s", name
        ).split()
        return cls(began, process, int(limit))

    def connections(self, vps: Host) -> int:
        """Return how many TCP connections of clients it holds."""
        return int(
            vps.check_output(
                "nsenter --target=%s --net ss -Htn state established '( sport = :443 )' | wc -l", self.process
            )
        )

    def memory(self, vps: Host) -> int:
        """Return what it holds now, without the files that the kernel could drop."""
        found = re.search(r"^RssAnon:\s+(\d+) kB$", vps.check_output("cat /proc/%s/status", self.process), re.M)
        assert found
        return int(found[1]) * 1024


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_visitor_is_served_while_one_address_attacks(
    attack: str, vps: Host, testbed: dict[str, str], clients: Callable[..., list[str]]
) -> None:
    edge = RunningEdge.of(vps)
    program = (ROOT / "tests/attack/clients.py").read_bytes()
    outside = ["docker", "exec", "--interactive", testbed["outside_container"], "python3", "-"]
    with ThreadPoolExecutor() as at_once:
        attacked = at_once.submit(run, [*outside, *clients(*ATTACKS[attack], path="/api/auth/login")], program)
        visiting = at_once.submit(run, [sys.executable, "-", *clients("visit")], program)
        most = edge.memory(vps)
        while wait([attacked, visiting], timeout=1).not_done:
            most = max(most, edge.memory(vps))
    visited = visiting.result()
    print(f"\n{attack}: {attacked.result()}\nvisitor: {visited}\nedge: {most >> 20} of {edge.limit >> 20} MiB")
    assert RunningEdge.of(vps) == edge
    assert most < edge.limit
    lost = sum(count for status, count in visited["answers"].items() if status != "200")
    assert lost <= 0.01 * visited["sent"], visited
    assert visited["sent"] > SECONDS


def test_the_edge_survives_when_all_limits_of_connections_and_requests_are_reached(
    vps: Host,
    outside: Host,
    http: httpx.Client,
    testbed: dict[str, str],
    four_addresses: list[str],
    clients: Callable[..., list[str]],
) -> None:
    edge = RunningEdge.of(vps)
    limit = int(yaml.safe_load((ROOT / "roles/firewall/defaults/main.yml").read_text())["firewall_web_connections"])
    program = (ROOT / "tests/attack/clients.py").read_bytes()
    command = ["docker", "exec", "--interactive", testbed["outside_container"], "python3", "-"]
    options = ["--connections=700", "--rate=150", "--seconds=180"]
    attacks = [clients("unfinished", *options, f"--source={each}", path="/api/auth/login") for each in four_addresses]
    connections = memory = held = 0
    with ThreadPoolExecutor() as at_once:
        attacked = [at_once.submit(run, [*command, *attack], program) for attack in attacks]
        while wait(attacked, timeout=1).not_done and held < HELD_SECONDS:
            connections, memory = max(connections, edge.connections(vps)), max(memory, edge.memory(vps))
            held += connections > 0.9 * limit
        outside.run("pkill -f 'python3 - unfinished'")
    print(f"\n{connections} connections, edge: {memory >> 20} of {edge.limit >> 20} MiB")
    assert connections > 0.9 * limit
    assert memory < edge.limit
    assert RunningEdge.of(vps) == edge
    poll(lambda: http.get("/").status_code == 200 or None, 60, "the site answers again")


def test_no_client_undoes_a_release_or_pages_the_operator(
    http: httpx.Client, outside: Host, mailbox: Mailbox, testbed: dict[str, str], clients: Callable[..., list[str]]
) -> None:
    before, _ = live(http)
    told = alarms(mailbox)
    program = (ROOT / "tests/attack/clients.py").read_bytes()
    other = build(f"{before}-attacked", before)
    command = ["docker", "exec", "--interactive", testbed["outside_container"], "python3", "-"]
    # It is ended once the release is done.
    faults = clients("faults", "--rate=30", "--seconds=900", path="/api/auth/login")
    with subprocess.Popen([*command, *faults], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attack:
        assert attack.stdin
        attack.stdin.write(program)
        attack.stdin.close()
        try:
            code, said = play("release", release=other, release_watch_seconds=20)
            assert attack.poll() is None, "the attack ended before the release did"
            assert code == 0, said
        finally:
            outside.run("pkill -f 'python3 - faults'")
    try:
        assert live(http)[0] == other
        assert alarms(mailbox) == told
    finally:
        assert play("rollback")[0] == 0
    assert http.get("/").status_code == 200


def test_who_registers_anothers_address_first_gains_nothing(http: httpx.Client, mailbox: Mailbox) -> None:
    owner, attacker = new_account(), new_account()
    attacker["email"] = owner["email"]
    answers = [http.post("/api/auth/register", json=account) for account in (attacker, owner)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()

    # The owner asks for the link again, and tries each that comes, with the only password that she knows.
    def verified() -> bool | None:
        http.post("/api/auth/verification", json={"email": owner["email"]})
        tokens = [link.split("token=")[1] for link in mailbox.links_for(owner["email"])]
        answers = [
            http.post("/api/auth/verify", json={"token": each, "password": owner["password"]}) for each in tokens
        ]
        return True if 200 in {answer.status_code for answer in answers} else None

    poll(verified, OWNER_SECONDS, "a link that works with the owner's password")
    assert http.post("/api/auth/login", json={**owner}).status_code == 200
    assert http.post("/api/auth/login", json={**attacker}).status_code == 401


def test_sign_in_stays_open_while_one_address_registers_what_is_taken(
    visitor: Visitor, outside: Host, testbed: dict[str, str]
) -> None:
    body = json.dumps({"email": visitor.email, "password": secrets.token_urlsafe(16)})
    flood = (
        f"curl --ipv4 --silent --insecure --output /dev/null --rate 40/s --max-time 30 --json '{body}' "
        f"'https://{testbed['site']}/api/auth/register?[1-400]'"
    )
    with subprocess.Popen(["docker", "exec", testbed["outside_container"], "sh", "-c", flood]) as attack:
        answers = []
        for _ in range(20):
            began = time.monotonic()
            answer = visitor.http.post("/api/auth/login", json={"email": visitor.email, "password": visitor.password})
            answers.append((answer.status_code, round(time.monotonic() - began, 2)))
        assert attack.poll() is None, "the attack ended before the visitor did"
        attack.terminate()
    outside.run("pkill curl")
    assert {status for status, _ in answers} == {200}, answers


def test_a_64_guesses_like_one_address_and_the_owner_still_signs_in(
    visitor: Visitor, outside: Host, testbed: dict[str, str], addresses: list[str]
) -> None:
    visitor.sign_in()
    told = []
    for number in range(120):
        body = json.dumps({"email": visitor.email, "password": f"a wrong password {number}"})
        ask = outside.run(
            "curl --ipv6 --silent --insecure --max-time 5 --output /dev/null --write-out '%%{http_code}' "
            "--interface %s --json %s https://%s/api/auth/login",
            addresses[number % len(addresses)],
            body,
            testbed["site"],
        )
        told.append(ask.stdout if ask.rc == 0 else "banned")
        if told[-1] == "banned":
            break
    # Ten guesses in a quarter of an hour; those that were asked at once may be judged at once.
    assert told.count("401") <= 20, told
    assert {"429", "banned"} & set(told), told
    visitor.sign_in()


def test_one_mailbox_gets_five_mails_a_day_under_whatever_tag(
    http: httpx.Client, outside: Host, mailbox: Mailbox, testbed: dict[str, str]
) -> None:
    name = secrets.token_hex(6)
    # As fast as the edge lets one address: the limit there is not what is tried here.
    body = json.dumps({"email": f"{name}+NUMBER@example.com", "password": secrets.token_urlsafe(16)})
    ask = f'curl --ipv4 --silent --insecure --output /dev/null --max-time 5 --json "$body" https://{testbed["site"]}'
    flood = (
        f"for n in $(seq 120); do body=$(echo '{body}' | sed s/NUMBER/$n/); {ask}/api/auth/register; sleep 0.2; done"
    )
    outside.check_output(flood)
    # Someone else's mail is behind them all in the queue.
    join(http, mailbox)
    assert sum(name in to["address"] for mail in mailbox.mails() for to in mail["to"]) <= 5


def test_a_foreign_page_gets_no_visitor_banned(vps: Host, outside: Host, testbed: dict[str, str]) -> None:
    page = (
        "curl --ipv4 --silent --insecure --max-time 5 --output /dev/null --header 'Sec-Fetch-Site: cross-site' "
        "--header 'Origin: https://foreign.example' --header 'Referer: https://foreign.example/'"
    )
    site = f"https://{testbed['site']}"
    assert outside.run(f"{page} '{site}/api/users/me?[1-300]'").rc == 0
    assert outside.run(f"{page} --data email=a '{site}/api/auth/login?[1-100]'").rc == 0
    assert outside.run(f"{page} {site}/").rc == 0
    assert vps.check_output("fail2ban-client get berth-edge banip") == ""


def test_what_user_service_holds_signs_nothing(http: httpx.Client, visitor: Visitor, vps: Host) -> None:
    token = visitor.sign_in()["Authorization"].removeprefix("Bearer ")
    me = http.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"}).json()
    kid = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]
    container = vps.check_output("docker ps --quiet --filter label=com.docker.compose.service=user_service").split()[0]
    forge = ["docker exec %s python3 -c %s %s %s %s", container, FORGE, me["id"], me["email"], kid]
    forged = json.loads(vps.check_output(*forge))
    assert forged, "nothing that might be a key was found: the test has lost its way in"
    for each in forged:
        for path in ("/api/auth/me", "/api/users/me"):
            assert http.get(path, headers={"Authorization": f"Bearer {each}"}).status_code == 401
