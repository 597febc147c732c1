"""The edge's routes to a release, as its labels describe them."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from berth.host.live import Live
from berth.release.routes import Audience, maintenance, routes
from berth.release.settings import Settings
from berth.stack.description import Description, read

BLUE = Live("1.4", "blue")
SHOWN = "Header(`X-Key`, `k`)"
PROXIED = "HeaderRegexp(`X-Forwarded-For`, `.`)"
SHOP = {
    "shop": {"route": "/shop/, /cart/", "port": "8000", "limits": "/shop/pay 2 60, /cart/ 9 90"},
    "pages": {
        "route": "/",
        "port": "80",
        "cookies": "false",
        "rate_limit": "false",
        "upgrade": "true",
        "maintenance": "/closed.html /closed.json",
    },
    "worker": {"writes": "true"},
}


def described(services: dict[str, dict[str, str]]) -> Description:
    return read(
        {
            "services": {
                name: {
                    "image": f"x/{name}:1",
                    "profiles": ["release"],
                    "labels": {f"berth.{key}": value for key, value in labels.items()},
                }
                for name, labels in services.items()
            }
        }
    )


@pytest.fixture
def settings() -> Settings:
    numbers: dict[str, Any] = {one.name: 1 for one in fields(Settings) if one.default is one.default_factory is MISSING}
    known = {**numbers, "domain": "site.test", "root": Path("/opt/berth")}
    return Settings(**known, rate_middlewares=["rate"], middlewares=["in-flight"])


def routed(settings: Settings, audience: Audience = Audience()) -> dict[str, Any]:  # noqa: B008  # frozen
    return dict(routes(described(SHOP), settings, BLUE, SHOWN, audience)["http"])


def test_each_route_leads_to_its_service_and_a_worker_to_nothing(settings: Settings) -> None:
    http = routed(settings)
    plain = {name: one for name, one in http["routers"].items() if SHOWN not in one["rule"]}
    assert {one["rule"]: one["service"] for one in plain.values()} == {
        "Host(`site.test`)": "pages-blue",
        "Host(`site.test`) && PathPrefix(`/shop/`)": "shop-blue",
        "Host(`site.test`) && PathPrefix(`/cart/`)": "shop-blue",
        "Host(`site.test`) && PathPrefix(`/shop/pay`)": "shop-blue",
    }
    assert http["services"] == {
        "shop-blue": {
            "middlewares": ["in-flight"],
            "loadBalancer": {"servers": [{"url": "http://shop-blue:8000"}]},
        },
        "pages-blue": {"middlewares": ["in-flight"], "loadBalancer": {"servers": [{"url": "http://pages-blue:80"}]}},
    }


def test_cookies_and_limits_are_as_the_labels_say(settings: Settings) -> None:
    http = routed(settings)
    by_rule = {one["rule"].removeprefix("Host(`site.test`)"): one["middlewares"] for one in http["routers"].values()}
    assert by_rule[""] == ["no-cookies"]
    assert by_rule[" && PathPrefix(`/shop/`)"] == ["no-upgrade", "rate"]
    assert by_rule[" && PathPrefix(`/shop/pay`)"] == ["no-upgrade", "rate", "limit-shop-pay"]
    # A limit on a whole route.
    assert by_rule[" && PathPrefix(`/cart/`)"] == ["no-upgrade", "rate", "limit-cart"]
    assert http["middlewares"]["no-upgrade"] == {"headers": {"customRequestHeaders": {"Upgrade": ""}}}
    assert http["middlewares"]["limit-shop-pay"]["rateLimit"] == {
        "average": 2,
        "burst": 60,
        "sourceCriterion": {"ipStrategy": {"ipv6Subnet": 64}},
    }
    assert {name for one in http["routers"].values() for name in one["middlewares"]} <= {*http["middlewares"], "rate"}


def test_the_release_is_shown_only_to_whoever_has_the_key(settings: Settings) -> None:
    http = routed(settings)
    shown = {name for name, one in http["routers"].items() if "release" in one["middlewares"]}
    assert shown == {name for name, one in http["routers"].items() if one["rule"].endswith(SHOWN)}
    assert len(shown) == len(http["routers"]) / 2
    assert http["middlewares"]["release"]["headers"]["customResponseHeaders"] == {"X-Berth-Release": "1.4 blue"}


def test_the_longest_prefix_comes_first_for_an_audience_with_a_priority_of_its_own(settings: Settings) -> None:
    http = routed(replace(settings, traces=True), Audience("-trial", "Header(`T`, `s`)", 30000))
    assert all(one["rule"].startswith("(Header(`T`, `s`)) && ") for one in http["routers"].values())
    assert len({one["priority"] for one in http["routers"].values()}) == len(http["routers"])

    def priority(rule: str) -> int:
        head = "(Header(`T`, `s`)) && Host(`site.test`)"
        return int(next(one["priority"] for one in http["routers"].values() if one["rule"] == head + rule))

    traced = " && HeaderRegexp(`Traceparent`, `.`)"
    assert 30000 <= priority("") < priority(" && PathPrefix(`/shop/`)") < priority(" && PathPrefix(`/shop/pay`)")
    # On every path, clients with the key see the release, and the trace context of a client is dropped.
    assert priority(f"{traced}") > priority(" && PathPrefix(`/shop/pay`)")
    assert priority(f" && {SHOWN}") > priority(f" && PathPrefix(`/shop/pay`){traced}")
    assert {name.endswith(("-trial", "-blue")) for name in (*http["middlewares"], *http["services"])} == {True}


def test_visitors_behind_a_proxy_are_counted_each(settings: Settings) -> None:
    proxied = replace(
        settings, trusted_proxies=["203.0.113.9"], rate_proxied_middlewares=["rate-p"], proxied_middlewares=["flight-p"]
    )
    http = routed(proxied)
    for one in http["routers"].values():
        behind = f"!{PROXIED}" not in one["rule"]
        assert PROXIED in one["rule"]
        assert one["service"].endswith("-proxied-blue") is behind
        assert ("rate" in one["middlewares"]) is ("pages" not in one["service"] and not behind)
    assert http["services"]["shop-proxied-blue"]["middlewares"] == ["flight-p"]
    limit = http["middlewares"]["limit-cart-proxied"]["rateLimit"]["sourceCriterion"]["ipStrategy"]
    assert limit == {"ipv6Subnet": 64, "excludedIPs": ["203.0.113.9"]}


def test_a_closed_site_shows_the_page_and_programs_get_the_document(settings: Settings) -> None:
    http = maintenance(described(SHOP), settings, BLUE)["http"]
    page, document = http["routers"]["maintenance"], http["routers"]["maintenance-document"]
    assert document["rule"] == "Host(`site.test`) && (PathPrefix(`/shop/`) || PathPrefix(`/cart/`))"
    assert document["priority"] > page["priority"]
    for router, path in ((page, "/closed.html"), (document, "/closed.json")):
        [errors] = [http["middlewares"][name]["errors"] for name in router["middlewares"] if name != "maintenance"]
        assert errors == {"status": ["503"], "service": "maintenance-page", "query": path}
    assert http["services"]["maintenance"] == {"loadBalancer": {"servers": []}}
    assert http["services"]["maintenance-page"]["loadBalancer"]["servers"] == [{"url": "http://pages-blue:80"}]


def test_an_application_without_a_page_is_closed_all_the_same(settings: Settings) -> None:
    http = maintenance(described({"app": {"route": "/", "port": "80"}}), settings, BLUE)["http"]
    assert http["routers"]["maintenance"]["middlewares"] == ["maintenance"]
    assert list(http["services"]) == ["maintenance"]
    headers = http["middlewares"]["maintenance"]["headers"]["customResponseHeaders"]
    assert headers == {"Retry-After": "120", "Cache-Control": "no-store"}
