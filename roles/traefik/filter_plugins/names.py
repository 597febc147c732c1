"""Checks whether names point to a host."""

from __future__ import annotations

import ipaddress
from typing import Any


def _same(address: str) -> str:
    """Return the canonical spelling of an address."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return address


def _usable(address: str) -> bool:
    """Tell whether an address is public."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_private)


def _of_proxies(address: str, proxies: list[str]) -> bool:
    """Tell whether an address is in one of the proxies' networks."""
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(proxy) for proxy in proxies)


def names_problems(
    found: dict[str, dict[str, Any]], public: list[str], own: list[str], proxies: list[str] | None = None
) -> list[str]:
    """Return a sentence for each DNS record with which the ACME authority would not reach this host.

    found: the output of names_lead_where.py.
    public: the addresses that count as this host.
    own: all addresses of its interfaces. If `public` has IPv4 addresses only, because of NAT, the IPv6 addresses of
        the interfaces count.
    proxies: addresses and networks of the proxies in front of the host, which count, too.

    One right address is enough, separately for IPv4 and IPv6: an authority tries IPv6 first if there is an AAAA record,
    so a right A record does not make up for a wrong AAAA record.
    """
    public4 = {_same(each) for each in public if ":" not in each}
    public6 = {_same(each) for each in public if ":" in each} or {_same(each) for each in own if ":" in each}
    said = []
    for name, records in found.items():
        a, aaaa = ([_same(each) for each in records[kind]] for kind in ("A", "AAAA"))
        if not a and not aaaa:
            said.append(
                f"{name} does not resolve: "
                + (
                    "DNS has neither an A nor an AAAA record. Create one that points to this host."
                    if records["from"]
                    else "no DNS server of this host answers. Check /etc/resolv.conf and outgoing connections."
                )
            )
        if a and not any(each in public4 or _of_proxies(each, proxies or []) for each in a):
            said.append(f"The A record of {name} points to {', '.join(a)}, not to this host. Correct the DNS record.")
        if aaaa and not any(each in public6 or _of_proxies(each, proxies or []) for each in aaaa):
            mine = sorted(each for each in public6 if _usable(each))
            said.append(
                f"The AAAA record of {name} points to {', '.join(aaaa)}, not to this host, and an authority such as"
                " Let's Encrypt tries IPv6 first. Remove this record"
                + (f", or point it to {mine[0]}." if mine else ": this host has no public IPv6 address.")
            )
    return said


class FilterModule:
    """Filters of role traefik."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {"names_problems": names_problems}
