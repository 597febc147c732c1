"""Who is behind a proxy: what is believed, and by whom."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.support import ROOT, rendered

CDN = ["173.245.48.0/20", "104.16.0.0/13", "131.0.72.0/22", "2400:cb00::/32", "2a06:98c0::/29", "2c0f:f248::/32"]


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / "roles" / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


proxies = load("traefik/filter_plugins/proxies.py")


@pytest.mark.parametrize(
    "good", [[], CDN, ["10.0.0.0/8"], ["fd00::/8"], ["203.0.113.9"], ["2001:db8::1"], ["172.28.255.0/24"]]
)
def test_addresses_and_networks_of_proxies_are_accepted(good: list[str]) -> None:
    assert proxies.proxies_problem(good) == ""


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (["0.0.0.0/0"], "0.0.0.0/0 contains visitors, too"),
        (["::/0"], "::/0 contains visitors, too"),
        # The whole in two halves, and IPv4 as a part of IPv6.
        (["128.0.0.0/1", "0.0.0.0/1"], "128.0.0.0/1 contains visitors, too"),
        (["2000::/3"], "2000::/3 contains visitors, too"),
        (["::ffff:0:0/96"], "write them as IPv4"),
        (["::ffff:203.0.113.9"], "write them as IPv4"),
        (["the.cdn"], "the.cdn is no address and no network"),
        (["203.0.113.9/24"], "203.0.113.9/24 has bits beyond its prefix"),
        ([""], "is no address and no network"),
        ("203.0.113.9", "write a list"),
    ],
)
def test_what_would_let_anybody_choose_an_address_is_refused(bad: object, said: str) -> None:
    assert said in proxies.proxies_problem(bad)


def test_the_authority_cannot_ask_through_a_proxy_that_ends_tls() -> None:
    assert "Set it to http-01" in proxies.proxies_problem(CDN, False, "tls-alpn-01")
    assert proxies.proxies_problem(CDN, True, "tls-alpn-01") == ""
    assert proxies.proxies_problem([], False, "tls-alpn-01") == ""


def test_the_proxy_protocol_needs_somebody_who_speaks_it() -> None:
    assert "the list is empty" in proxies.proxies_problem([], True)


def jail(proxies: list[str]) -> str:
    look = {"ssh_port": 22}
    text = rendered(
        "hardening", "etc/fail2ban/jail.local", hardening_fail2ban_edge_proxies=proxies, _hardening_look=look
    )
    return text.partition("[berth-edge]")[2]


def test_no_proxy_is_ever_banned_and_the_edge_shuts_out_who_comes_through_one() -> None:
    assert "ignoreip = 127.0.0.1/8 ::1 192.0.2.0/24 2001:db8::/32\n" in jail(["192.0.2.0/24", "2001:db8::/32"])
    assert "action = %(action_)s\n         berth-edge\n" in jail(["192.0.2.0/24"])
    assert "action" not in jail([])


def static(**values: object) -> dict[str, Any]:
    points = yaml.safe_load(rendered("traefik", "opt/berth/traefik/traefik.yml.j2", **values))["entryPoints"]
    return {name: points[name] for name in ("http", "https")}


def test_without_proxies_nobody_is_believed() -> None:
    for point in static().values():
        assert not {"forwardedHeaders", "proxyProtocol"} & set(point)
    assert static()["https"]["http3"] == {"advertisedPort": 443}


@pytest.mark.parametrize("proxy_protocol", [False, True])
def test_proxies_alone_are_believed_and_http3_is_not_offered_in_their_name(proxy_protocol: bool) -> None:
    for point in static(traefik_trusted_proxies=CDN, traefik_proxy_protocol=proxy_protocol).values():
        assert point["forwardedHeaders"] == {"trustedIPs": CDN}
        assert point.get("proxyProtocol") == ({"trustedIPs": CDN} if proxy_protocol else None)
        assert "http3" not in point


def test_another_list_is_another_configuration_so_the_edge_is_replaced() -> None:
    def configuration(**values: object) -> str:
        return rendered("traefik", "opt/berth/traefik/traefik.env.j2", _traefik_edge="a", **values)

    kinds: list[dict[str, object]] = [
        {},
        {"traefik_trusted_proxies": CDN},
        {"traefik_trusted_proxies": CDN, "traefik_proxy_protocol": True},
    ]
    assert len({configuration(**kind) for kind in kinds}) == len(kinds)
