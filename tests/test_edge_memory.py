"""What the limits of firewall and edge admit fits into the edge's memory: the arithmetic of roles/traefik/README.md."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.support import ROOT

README = (ROOT / "roles/traefik/README.md").read_text()
KIB = {"KiB": 1, "MiB": 1024}


def defaults(role: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text()))


EDGE, FIREWALL, ENVIRONMENT = defaults("traefik"), defaults("firewall"), defaults("environment")
# The services of the compose file that the edge has routes to.
SERVICES = 3
ADMITTED = {
    "TCP connections, `firewall_web_connections`": FIREWALL["firewall_web_connections"],
    "requests in flight, 3 services of `traefik_service_requests`": SERVICES * EDGE["traefik_service_requests"],
    "QUIC connections of one client, `firewall_web_initials`": FIREWALL["firewall_web_initials"],
}


def table() -> dict[str, list[str]]:
    """Return the rows of the table about memory: what, at most, each, MiB."""
    rows = README.partition("| what | at most | each, measured | MiB |\n")[2].partition("\n\n")[0].splitlines()[1:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {name: rest for name, *rest in cells}


def each_mib(row: list[str]) -> float:
    """Return what one of these takes; of several numbers the first, which is the largest."""
    found = re.match(r"([\d.]+) (KiB|MiB)", row[1])
    assert found
    return float(found[1]) * KIB[found[2]] / 1024


def mib(name: str) -> int:
    return int(table()[name][2])


QUIC = next(name for name in ADMITTED if name.startswith("QUIC"))


@pytest.mark.parametrize("name", ADMITTED)
def test_the_table_counts_what_the_defaults_admit(name: str) -> None:
    row = table()[name]
    assert int(row[0]) == ADMITTED[name]
    assert int(row[2]) == round(ADMITTED[name] * each_mib(row))


def test_what_the_limits_admit_fits_into_the_edges_memory() -> None:
    needed = mib("the edge itself") + sum(ADMITTED[name] * each_mib(table()[name]) for name in ADMITTED)
    limit = int(ENVIRONMENT["environment_traefik_memory"].removesuffix("m"))
    assert needed <= limit * 7 / 8
    # The page says the same.
    assert mib("together") == round(needed)
    assert mib("Go collects garbage harder above, `GOMEMLIMIT`") == limit * 7 // 8
    assert mib("the kernel kills the container above, `TRAEFIK_MEMORY`") == limit


def test_without_an_environment_the_compose_file_has_the_same_limits() -> None:
    service = yaml.safe_load((ROOT / "roles/traefik/files/docker-compose.edge.yml").read_text())["services"][
        "traefik_a"
    ]
    limit = ENVIRONMENT["environment_traefik_memory"]
    assert service["mem_limit"] == service["memswap_limit"] == f"${{TRAEFIK_MEMORY:-{limit}}}"
    go = int(limit.removesuffix("m")) * 1024 * 1024 * 7 // 8
    assert service["environment"]["GOMEMLIMIT"] == f"${{TRAEFIK_GOMEMLIMIT:-{go}}}"


def test_one_client_has_a_share_of_what_all_may_hold() -> None:
    assert FIREWALL["firewall_web_client_connections"] < FIREWALL["firewall_web_connections"]
    assert FIREWALL["firewall_web_client_flows"] < FIREWALL["firewall_web_flows"]
    assert EDGE["traefik_client_requests"] < EDGE["traefik_service_requests"]


def test_the_known_gap_of_http3_is_told_as_large_as_it_is() -> None:
    each, client = each_mib(table()[QUIC]), mib(QUIC)
    limit = int(ENVIRONMENT["environment_traefik_memory"].removesuffix("m"))
    itself = mib("the edge itself")
    fit = (limit - itself) // client
    assert f"({itself} + {fit + 1} x {client} = {itself + (fit + 1) * client} MiB)" in README
    assert f"gets 10 more in an hour ({10 * each:.0f} MiB)" in README
    assert (
        f"flows of one client ({FIREWALL['firewall_web_client_flows']}) and of all ({FIREWALL['firewall_web_flows']})"
        in README
    )
    assert f"begin a connection ({FIREWALL['firewall_web_initials']}, and 10 more in an hour)" in README
    # As many streams as QUIC's library admits, which the page and the 2.2 MiB count with.
    assert EDGE["traefik_streams"] == 100
