"""Behind a proxy the visitor counts, and a stranger counts under his own address, whatever he writes into his headers.

A real edge with the configuration that the roles write; a proxy and two strangers, each a container of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.requests import Request

from auth_service.routes import _client_address
from auth_service.settings import AuthSettings
from berth.host.live import Live
from berth.release.edge import Edge
from berth_edge_ban.__main__ import Watch
from berth_edge_ban.__main__ import main as berth_edge_ban
from shared import keys
from tests.edge.bed import SITE, Bed, docker, settings_of_releases, static_configuration, write_rules
from tests.support import poll

pytestmark = pytest.mark.integration

BED = Bed(
    f"berth-visitors-{os.getpid()}",
    "172.31.254",
    "fd00:31:254",
    {"edge": 2, "balanced": 3, "back": 4, "proxy": 10, "stranger": 20, "neighbour": 21},
)
NAME = BED.name
IPV4 = {who: BED.ipv4(who) for who in BED.places}
IPV6 = {who: BED.ipv6(who) for who in BED.places}
EDGE, EDGE6, BALANCED, STRANGER = IPV4["edge"], IPV6["edge"], IPV4["balanced"], IPV4["stranger"]
PROXIES = ["172.31.254.8/29", IPV6["proxy"], "198.18.0.0/24"]
LIVE = Live("1.0", "blue", "f")
BURST = 5
SIGN_IN = "/api/auth/login"
SECURITY_TXT = "https://company.test/security.txt"
# Shows what a service behind the edge is told; 401 for a sign-in.
BACK = """
import http.server, json, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(200 if self.command == "GET" else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
servers = [http.server.ThreadingHTTPServer(("", port), Handler) for port in (8000, 8080)]
threading.Thread(target=servers[0].serve_forever).start()
servers[1].serve_forever()
"""


@dataclass(frozen=True)
class Site:
    edge: Edge
    dynamic: Path

    def ask(
        self, who: str, hops: str = "", path: str = "/", edge: str = EDGE, options: tuple[str, ...] = ()
    ) -> tuple[str, str]:
        """Return status and Cache-Control of an answer, and its body."""
        place = f"[{edge}]" if ":" in edge else edge
        words = ["curl", "--silent", "--insecure", "--resolve", f"{SITE}:443:{place}", *options]
        words += ["--header", f"X-Forwarded-For: {hops}"] if hops else []
        words += ["--write-out", "\\n%{http_code} %header{cache-control}", f"https://{SITE}{path}"]
        # As long as nobody listens, curl ends with an error.
        done = subprocess.run(["docker", "exec", f"{NAME}-{who}", *words], capture_output=True, text=True, check=False)
        body, _, state = done.stdout.rpartition("\n")
        return state.strip(), body

    def becomes(self, state: str, who: str, hops: str = "", edge: str = EDGE) -> None:
        """Wait until the edge, which reads its files anew, answers so."""
        answers: Callable[[], bool | None] = lambda: True if self.ask(who, hops, edge=edge)[0] == state else None  # noqa: E731
        poll(answers, 30, f"{state} for {who} {hops}")

    def told(self, who: str, hops: str = "", edge: str = EDGE, options: tuple[str, ...] = ()) -> dict[str, str]:
        """Return the headers that a service is told."""
        return dict(json.loads(self.ask(who, hops, edge=edge, options=options)[1]))

    def limited(self, who: str, *visitors: str) -> int:
        """Ask for the API once for each of these, without a pause; return how many requests were too many."""
        words = ["curl"]
        for hops in visitors:
            words += [
                "--silent",
                "--insecure",
                "--resolve",
                f"{SITE}:443:{EDGE}",
                "--header",
                f"X-Forwarded-For: {hops}",
            ]
            words += [
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}\\n",
                f"https://{SITE}/api/auth/me",
                "--next",
            ]
        return docker("exec", f"{NAME}-{who}", *words[:-1]).split().count("429")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("berth")
    settings = settings_of_releases(
        root,
        rate_middlewares=["rate-limit"],
        rate_proxied_middlewares=["rate-limit-proxied"],
        middlewares=["in-flight", "in-flight-all"],
        proxied_middlewares=["in-flight-proxied", "in-flight-all"],
        trusted_proxies=PROXIES,
    )
    dynamic = settings.edge / "dynamic"
    traefik = {
        "traefik_trusted_proxies": PROXIES,
        "traefik_security_txt": SECURITY_TXT,
        "traefik_rate_limit_average": 1,
        "traefik_rate_limit_burst": BURST,
    }
    write_rules(settings, **traefik)
    for name, protocol in (("edge", False), ("balanced", True)):
        (root / f"{name}.yml").write_text(static_configuration(**traefik, traefik_proxy_protocol=protocol))
    with BED.network(), ThreadPoolExecutor() as at_once:
        services = [f"--network-alias={service}-blue" for service in ("auth_service", "user_service", "frontend")]
        begun = [
            at_once.submit(BED.start, "back", "PYTHON_IMAGE", "python:3.13", *services, command=("python3", "-c", BACK))
        ]
        for who in ("proxy", "stranger", "neighbour"):
            own = ["--init", "--entrypoint=sleep"]
            begun.append(at_once.submit(BED.start, who, "OUTSIDE_IMAGE", "outside:trixie", *own, command=("infinity",)))
        for name in ("edge", "balanced"):
            begun.append(at_once.submit(BED.start_edge, name, root / f"{name}.yml", dynamic))
        for each in begun:
            each.result()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "chown", lambda *_: None)
            up = Site(Edge(settings), dynamic)
            up.edge.switch(LIVE)
            for address in (EDGE, BALANCED):
                up.becomes("200", "neighbour", edge=address)
            yield up


def counted_by_auth_service(told: dict[str, str]) -> str:
    """Return the address that the sign-in throttle counts."""
    secret = SecretStr("0123456789abcdef0123456789abcdef")
    private_key = keys.new_private_key()
    settings = AuthSettings(
        environment="dev",
        mongo_uri=secret,
        redis_uri=secret,
        jwt_private_key=SecretStr(private_key),
        jwt_public_keys=[keys.public_key(private_key)],
        jwt_secret_key=secret,
        trusted_proxies=[ip_network(proxy) for proxy in PROXIES],
    )
    headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]
    return _client_address(Request({"type": "http", "headers": headers}), settings)


CLAIMS = {
    "X-Real-Ip": "192.0.2.66",
    "X_Forwarded_For": "192.0.2.66",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Port": "1",
    "Forwarded": "for=192.0.2.66",
    "CF-Connecting-IP": "192.0.2.66",
    "True-Client-IP": "192.0.2.66",
}
FALSE = tuple(word for name, value in CLAIMS.items() for word in ("--header", f"{name}: {value}"))


@pytest.mark.parametrize(("edge", "address"), [(EDGE, STRANGER), (EDGE6, IPV6["stranger"]), (BALANCED, STRANGER)])
def test_what_a_stranger_writes_about_himself_reaches_no_service(site: Site, edge: str, address: str) -> None:
    told = site.told("stranger", "192.0.2.66, 203.0.113.5", edge, FALSE)
    assert told["X-Forwarded-For"] == told["X-Real-Ip"] == address
    assert (told["X-Forwarded-Proto"], told["X-Forwarded-Host"], told["X-Forwarded-Port"]) == ("https", SITE, "443")
    assert counted_by_auth_service(told) == address
    # Nothing of ours reads these.
    false = {name for name, value in told.items() if "192.0.2.66" in value}
    assert false <= {"Forwarded", "Cf-Connecting-Ip", "True-Client-Ip"}


@pytest.mark.parametrize("edge", [EDGE, EDGE6])
def test_a_proxys_visitor_is_counted_whatever_he_writes_before_himself(site: Site, edge: str) -> None:
    for hops in ("203.0.113.5", "192.0.2.66, 203.0.113.5", "192.0.2.66, 203.0.113.5, 198.18.0.7"):
        assert counted_by_auth_service(site.told("proxy", hops, edge, FALSE)) == "203.0.113.5"


def test_visitors_of_one_proxy_have_a_limit_each_and_none_escapes_his(site: Site) -> None:
    assert site.limited("proxy", *(f"192.0.2.{claim}, 203.0.113.5" for claim in range(2 * BURST))) >= BURST - 2
    assert site.limited("proxy", *["203.0.113.6"] * BURST) == 0
    assert site.limited("proxy", *["203.0.113.5, 203.0.113.7, 198.18.0.7"] * BURST) == 0


def test_a_stranger_has_one_limit_whoever_he_claims_to_be_and_leaves_others_theirs(site: Site) -> None:
    assert site.limited("stranger", *(f"203.0.113.{claim}" for claim in range(2 * BURST))) >= BURST - 2
    assert site.limited("neighbour", *["203.0.113.1"] * BURST) == 0
    assert site.limited("proxy", *["203.0.113.1"] * BURST) == 0


def test_the_access_log_tells_whom_a_ban_is_for_and_what_a_foreign_page_caused(site: Site) -> None:
    guess = ("--request", "POST", "--data", "{}")
    asked = [
        ("stranger", "203.0.113.30", ()),
        ("proxy", '192.0.2.66", 203.0.113.31', ()),
        ("proxy", "203.0.113.32, 198.18.0.7", ("--header", "Sec-Fetch-Site: same-origin")),
        ("proxy", "2001:db8:1:2::3", ("--header", f"Origin: https://{SITE}")),
        ("proxy", "203.0.113.33", ("--header", "Sec-Fetch-Site: cross-site")),
        ("proxy", "203.0.113.34", ("--header", "Origin: https://evil.test")),
    ]
    for who, hops, options in asked:
        assert site.ask(who, hops, f"{SIGN_IN}?{who}", options=(*guess, *options))[0][:3] in ("401", "429")
    once = {"most": 1, "seconds": 60}
    settings = {"sign_in_path": SIGN_IN, "proxies": PROXIES, "ignore": [], "sign_ins": once, "floods": once}
    lines = ((0.0, line) for line in docker("logs", f"{NAME}-edge").splitlines() if SIGN_IN in line)
    found = [verdict.partition(" ")[0] for verdict in Watch(settings).verdicts(lines)]
    assert found == [STRANGER, "203.0.113.31", "203.0.113.32", "2001:db8:1:2::/64"]


def ban(site: Site, tmp_path: Path, *words: str) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"directory": str(site.dynamic)}))
    assert berth_edge_ban([str(settings), *words]) == 0


def test_who_is_banned_is_shut_out_behind_a_proxy_too_and_nobody_else_is(site: Site, tmp_path: Path) -> None:
    for banned in ("203.0.113.9", "2001:db8::/64", STRANGER):
        ban(site, tmp_path, "add", banned)
    site.becomes("403 no-store", "stranger", "203.0.113.5")
    for hops in ("192.0.2.66, 203.0.113.9", "203.0.113.9, 198.18.0.7", "192.0.2.66, 2001:db8::9", "2001:db8::1:2:3:4"):
        assert site.ask("proxy", hops, "/api/auth/me")[0] == "403 no-store"
    for hops in ("203.0.113.90", "203.0.113.5", "2001:db8:0:1::9"):
        assert site.ask("proxy", hops)[0] == "200"
    # The word of who is no proxy counts for nothing here either.
    assert site.ask("neighbour", "203.0.113.9")[0] == "200"
    ban(site, tmp_path, "remove", STRANGER)
    for address in (EDGE, BALANCED):
        site.becomes("200", "stranger", edge=address)
    assert site.ask("proxy", "203.0.113.9")[0] == "403 no-store"
    ban(site, tmp_path, "clear")
    assert not list(site.dynamic.glob("ban-*"))


def test_behind_a_proxy_operators_alone_see_the_closed_site(site: Site) -> None:
    site.edge.close(LIVE, "the-operators-key", ["203.0.113.40"])
    try:
        site.becomes("503 no-store", "neighbour")
        assert site.ask("proxy", "192.0.2.66, 203.0.113.40")[0] == "200"
        # Others can only write his address before their own.
        assert site.ask("proxy", "203.0.113.40, 203.0.113.41")[0] == "503 no-store"
        assert site.ask("stranger", "203.0.113.40")[0] == "503 no-store"
    finally:
        site.edge.open()
        # Each of the two reads its files when it comes to it.
        for address in (EDGE, BALANCED):
            site.becomes("200", "neighbour", edge=address)


def test_the_release_is_shown_to_operators_alone(site: Site) -> None:
    shown = "%header{x-berth-release}"

    def release(key: str) -> str:
        options = ("--header", f"X-Berth-Release-Key: {key}", "--write-out", f"\\n{shown}")
        words = ["curl", "--silent", "--insecure", "--resolve", f"{SITE}:443:{EDGE}", *options]
        return docker(
            "exec", f"{NAME}-neighbour", *words, "--output", "/dev/null", f"https://{SITE}/api/auth/me"
        ).strip()

    assert release(site.edge.release_key()) == LIVE.signature
    assert release("guessed") == ""


def test_security_txt_is_where_the_operator_says(site: Site) -> None:
    state, said = site.ask("stranger", path="/.well-known/security.txt", options=("--include",))
    assert state.startswith("302")
    assert f"location: {SECURITY_TXT}" in said.lower()


def test_cookies_reach_auth_service_and_no_other(site: Site) -> None:
    for path, sees in {"/api/auth/me": True, "/api/users/": False, "/": False}.items():
        body = site.ask("neighbour", path=path, options=("--cookie", "refresh_token=secret"))[1]
        assert ("refresh_token=secret" in body) == sees


def test_sign_ins_of_one_client_have_a_limit_of_their_own(site: Site) -> None:
    words = ["curl", "--silent", "--insecure", "--resolve", f"{SITE}:443:{EDGE}", "--write-out", "%{http_code}\\n"]
    words += ["--output", "/dev/null", f"https://{SITE}/api/auth/password/?[1-40]"]
    assert docker("exec", f"{NAME}-neighbour", *words).split().count("429") >= 15
    assert site.ask("stranger", path="/api/auth/password/")[0] == "200"


def test_by_the_proxy_protocol_a_load_balancer_says_who_the_visitor_is_and_nobody_else_can(site: Site) -> None:
    visitor = ("--haproxy-clientip", "203.0.113.50")
    told = site.told("proxy", "192.0.2.66", BALANCED, visitor)
    assert told["X-Forwarded-For"] == told["X-Real-Ip"] == "203.0.113.50"
    assert counted_by_auth_service(told) == "203.0.113.50"
    # Its health checks come without.
    assert site.ask("proxy", edge=BALANCED)[0] == "200"
    assert site.told("stranger", "192.0.2.66", BALANCED, visitor)["X-Forwarded-For"] == STRANGER
