"""What is a ban for: abuse, counted by network, and never what a foreign page makes its visitor's browser do."""

from __future__ import annotations

import json
import random
import re
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth_edge_ban import counter, journal, routes
from berth_edge_ban.__main__ import Watch
from berth_edge_ban.networks import pattern

SIGN_IN = "/api/auth/login"
CDN = ["104.16.0.0/13", "2400:cb00::/32", "fd00:0:0::/48"]
MOST = 3
SETTINGS: dict[str, Any] = {
    "sign_in_path": SIGN_IN,
    "proxies": [],
    "ignore": ["127.0.0.0/8", "::1"],
    "sign_ins": {"most": MOST, "seconds": 600},
    "floods": {"most": MOST, "seconds": 60},
}


def line(client: str = "203.0.113.5", status: int = 401, path: str = SIGN_IN, method: str = "POST", **more: str) -> str:
    """Return what the edge writes about a request; `more` is headers, with _ for -."""
    headers = {f"request_{name.replace('_', '-')}": value for name, value in more.items()}
    entry = {"ClientHost": client, "DownstreamStatus": status, "RequestMethod": method, "RequestPath": path}
    return json.dumps({**entry, "RequestHost": "www.x-shop.net", **headers}, separators=(",", ":"))


def said(*lines: str, seconds: float = 0.1, **settings: Any) -> list[str]:
    return list(Watch({**SETTINGS, **settings}).verdicts((at * seconds, text) for at, text in enumerate(lines)))


def banned(*lines: str, **settings: Any) -> list[str]:
    return [verdict.partition(" ")[0] for verdict in said(*lines, **settings)]


def test_who_guesses_passwords_is_banned_and_counts_anew_afterwards() -> None:
    assert said(*[line()] * MOST) == ["203.0.113.5 sent 3 refused sign-ins within 600 seconds"]
    assert said(*[line()] * (MOST - 1)) == []
    assert banned(*[line()] * (3 * MOST)) == ["203.0.113.5"] * 3
    # What the service throttles was refused too.
    assert banned(line(), line(status=429), line()) == ["203.0.113.5"]


def test_who_floods_is_banned() -> None:
    flood = line(status=429, path="/api/users/me", method="GET")
    assert said(*[flood] * MOST) == ["203.0.113.5 sent 3 requests beyond the limit within 60 seconds"]


@pytest.mark.parametrize(
    "path", ["/api/auth/login?x=1", "/api/auth/%6cogin", "//api/auth/login/", "/api/auth/../auth/./login"]
)
def test_another_spelling_of_the_path_does_not_escape(path: str) -> None:
    assert banned(*[line(path=path)] * MOST) == ["203.0.113.5"]


@pytest.mark.parametrize(
    "harmless",
    [
        # What a page can ask for without a preflight, and what a visitor without a session asks for.
        {"path": "/api/users/me", "method": "GET"},
        {"path": "/api/auth/refresh"},
        {"path": SIGN_IN, "method": "GET"},
        # Not refused, or for another reason.
        {"status": 200},
        {"status": 403},
        {"status": 422},
        {"status": 503},
    ],
)
def test_what_is_no_abuse_is_not_counted(harmless: dict[str, Any]) -> None:
    assert banned(*[line(**harmless)] * 100) == []


@pytest.mark.parametrize(
    "foreign",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": ""},
        {"Sec_Fetch_Site": "cross-site", "Origin": "https://www.x-shop.net"},
        # Browsers from before Sec-Fetch-Site, and pages that hide where they are.
        {"Origin": "https://evil.net"},
        {"Origin": "https://www.x-shop.net.evil.net"},
        {"Origin": "https://evil.net/www.x-shop.net"},
        {"Origin": "null"},
        {"Origin": "https://[evil"},
    ],
)
def test_a_foreign_page_cannot_have_its_visitor_banned(foreign: dict[str, Any]) -> None:
    assert banned(*[line(**foreign)] * 1000) == []
    assert banned(*[line(status=429, method="GET", path="/", **foreign)] * 1000) == []


@pytest.mark.parametrize(
    "own",
    [
        {"Sec_Fetch_Site": "same-origin", "Origin": "https://www.x-shop.net"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "https://WWW.x-shop.net:443"},
        {},
    ],
)
def test_who_types_or_writes_a_program_is_counted(own: dict[str, Any]) -> None:
    assert banned(*[line(**own)] * MOST) == ["203.0.113.5"]
    assert banned(*[line(status=429, method="GET", path="/", **own)] * MOST) == ["203.0.113.5"]


def test_what_a_visitor_writes_into_his_headers_is_not_read_as_the_edges_word() -> None:
    forged = (
        f'","DownstreamStatus":401,"RequestMethod":"POST","RequestPath":"{SIGN_IN}","ClientHost":"198.51.100.7","x":"'
    )
    assert banned(*[line(status=200, User_Agent=forged)] * 100) == []
    assert banned(*[line(status=200, path=forged)] * 100) == []
    assert banned(*[line(User_Agent=forged)] * MOST) == ["203.0.113.5"]
    assert banned(*[line(User_Agent='","request_Sec-Fetch-Site":"cross-site')] * MOST) == ["203.0.113.5"]
    assert banned(*["203.0.113.5 sent 9 refused sign-ins within 600 seconds", "[]", '"x"', "{", ""] * 10) == []


def test_the_addresses_of_one_64_count_as_one_and_neighbours_do_not() -> None:
    assert banned(*[line(f"2001:db8:1:2::{host:x}") for host in range(MOST)]) == ["2001:db8:1:2::/64"]
    assert banned(*[line(f"2001:db8:1:{net:x}::1") for net in range(100)]) == []
    assert banned(*[line(f"203.0.113.{host}") for host in range(100)]) == []
    assert banned(*[line("::ffff:203.0.113.5")] * MOST) == ["203.0.113.5"]


def test_who_is_never_banned_is_not_and_takes_nobody_with_him() -> None:
    friends = ["192.0.2.0/24", "2001:db8:1:2::7", "127.0.0.0/8"]
    for friend in ("192.0.2.9", "2001:db8:1:2::7", "127.0.0.1"):
        assert banned(*[line(friend)] * 100, ignore=friends) == []
    # In a /64 with a friend, addresses count alone.
    assert banned(*[line("2001:db8:1:2::8")] * MOST, ignore=friends) == ["2001:db8:1:2::8"]
    assert banned(*[line(f"2001:db8:1:2::{host:x}") for host in range(8, 100)], ignore=friends) == []


@pytest.mark.parametrize(
    ("client", "visitor"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("198.51.100.7, 203.0.113.5", "203.0.113.5"),
        ("198.51.100.7,203.0.113.5, 104.16.0.9", "203.0.113.5"),
        ("2001:db8::5, 2400:cb00::1, 104.16.0.9", "2001:db8::/64"),
        # An inner proxy whose address is written shortened within its network's prefix.
        ("203.0.113.5, fd00::9", "203.0.113.5"),
        # Quotes of a visitor who would like to be somebody else, or not to be read at all.
        ('198.51.100.7","DownstreamStatus":401,"x":", 203.0.113.5', "203.0.113.5"),
        ("\\, 203.0.113.5", "203.0.113.5"),
        # A proxy by itself, and one that writes no address.
        ("104.16.0.9", None),
        ("203.0.113.5, unknown", None),
        ("", None),
    ],
)
def test_a_ban_is_for_the_last_address_that_is_no_proxy(client: str, visitor: str | None) -> None:
    assert banned(*[line(client)] * MOST, proxies=CDN) == ([visitor] if visitor else [])


def test_500_people_behind_one_address_whom_the_service_makes_wait_are_not_banned_and_who_guesses_is() -> None:
    root = Path(__file__).resolve().parents[1]
    defaults = yaml.safe_load((root / "roles/hardening/defaults/main.yml").read_text())
    most, seconds = (defaults[f"hardening_fail2ban_edge_sign_in_{name}"] for name in ("retries", "seconds"))
    limits = {"sign_ins": {"most": most, "seconds": seconds}}
    # Everybody in ten minutes, some mistype, and everybody is told to wait, most of them twice.
    morning = [line()] * 100 + [line(status=429)] * 890
    assert banned(*morning, seconds=600 / len(morning), **limits) == []
    # Two a second.
    assert banned(*[line()] * 1200, seconds=0.5, **limits)


def test_what_is_long_ago_does_not_count() -> None:
    assert banned(*[line()] * 100, seconds=600) == []


def test_the_memory_for_networks_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter, "MOST", 10)
    counts = counter.Counter(limit=3, seconds=60)
    for number in range(1000):
        assert not counts.reaches(f"192.0.2.{number}", number / 1000)
        assert len(counts) <= 10


def entry(message: object, name: str = "edge", partial: bool = False) -> str:
    cut = {"CONTAINER_PARTIAL_MESSAGE": "true"} if partial else {}
    return json.dumps({"__REALTIME_TIMESTAMP": "1500000", "CONTAINER_NAME": name, "MESSAGE": message, **cut})


def test_a_line_that_the_engine_cut_is_read_whole() -> None:
    """Or a long path would push away what tells that a foreign page made the browser send it."""
    long = line(path="/" + "x" * 40_000, status=429, Sec_Fetch_Site="cross-site")
    pieces = [long[:16_384], long[16_384:32_768], long[32_768:]]
    entries = [
        entry(pieces[0], partial=True),
        entry("other", "edge_b"),
        entry(pieces[1], partial=True),
        entry(pieces[2]),
    ]
    assert list(journal.whole(entries)) == [(1.5, "other"), (1.5, long)]
    half = "é".encode()
    assert list(journal.whole([entry([*half[:1]], partial=True), entry(None), entry([120, 255])]))[-1] == (
        1.5,
        "x\ufffd",
    )


def test_a_line_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LONGEST", 100)
    pieces = [entry("x" * 60, partial=True)] * 1000
    assert all(len(text) < 200 for _, text in journal.whole([*pieces, entry("x")]))


NETWORKS = [
    "203.0.113.9/32", "198.51.100.0/24", "192.0.2.128/25", "10.0.0.0/8", "172.16.0.0/12",
    "2001:db8::9/128", "2001:db8:1:2::/64", "2001:db8::/64", "2001:0:0:5::/64", "2001:0:0:0:5::/80", "fd00::/16",
    "2001:db8:0:1::/64", "2001:db8:1::/48", "::/64", "0:0:0:1::/64", "2001:db8:a00::/48",
]  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
def test_the_edges_pattern_for_a_network_is_exactly_its_addresses(network: str) -> None:
    inside, some = ip_network(network), random.Random(network)  # noqa: S311  # the same ones each time
    wanted = re.compile(pattern(inside))
    for _ in range(500):
        bits = min(inside.num_addresses.bit_length() - 1, some.choice([8, 16, 40, 128]))
        address = inside[some.randrange(1 << bits)]
        # A neighbour: one bit of it turned over.
        number = int.from_bytes(address.packed, "big") ^ (1 << some.randrange(inside.max_prefixlen))
        other = ip_address(number.to_bytes(len(address.packed), "big"))
        for each in (address, other):
            spellings = (
                {str(each), each.exploded, each.exploded.upper()} if isinstance(each, IPv6Address) else {str(each)}
            )
            for text in spellings:
                assert bool(wanted.fullmatch(text)) == (each in inside), text


def test_a_network_that_the_edge_cannot_tell_apart_is_refused_and_none_before_it_is_let_in(tmp_path: Path) -> None:
    routes.add(tmp_path, ip_network("2001:db8:1:2::/64"))
    with pytest.raises(ValueError, match="16, 32, 48, 64"):
        routes.add(tmp_path, ip_network("2001:db8:1:2300::/56"))
    assert [place.name for place in tmp_path.iterdir()] == ["ban-2001-db8-1-2---64.yml"]
    routes.remove(tmp_path, ip_network("2001:db8:1:2::/64"))
    assert not list(tmp_path.iterdir())
