"""Whether names lead to a host, as sentences an operator can act on."""

from __future__ import annotations

import ipaddress
from typing import Any


def _same(address: str) -> str:
    """Return an address as every other spelling of it is written too."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return address


def _usable(address: str) -> bool:
    """Tell whether others could reach a host at an address, as far as the address says."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_private)


def _of_proxies(address: str, proxies: list[str]) -> bool:
    """Tell whether an address is in one of the proxies' networks."""
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(proxy) for proxy in proxies)


def names_problems(
    found: dict[str, dict[str, Any]], public: list[str], own: list[str], proxies: list[str] | None = None
) -> list[str]:
    """Say which names an authority could not ask this host about.

    found: what names_lead_where.py says of each name.
    public: the addresses that count as this host.
    own: all addresses of its interfaces. Who names public addresses of IPv4 only, because of address translation, does
        not thereby say that the host's own IPv6 addresses are not its own.
    proxies: addresses and networks of those in front of the host, which count as it.

    Returns a sentence for each record that leads elsewhere. One of several addresses suffices, within IPv4 and within
    IPv6: an authority tries IPv6 first where there is an AAAA record, and a right A record does not outweigh it.
    """
    public4 = {_same(each) for each in public if ":" not in each}
    public6 = {_same(each) for each in public if ":" in each} or {_same(each) for each in own if ":" in each}
    said = []
    for name, records in found.items():
        a, aaaa = ([_same(each) for each in records[kind]] for kind in ("A", "AAAA"))
        if not a and not aaaa:
            said.append(
                f"{name} leads nowhere: "
                + (
                    "DNS has neither an A nor an AAAA record of it. Make one that leads to this host."
                    if records["from"]
                    else "no DNS server of this host answers. Check /etc/resolv.conf and the way out."
                )
            )
        if a and not any(each in public4 or _of_proxies(each, proxies or []) for each in a):
            said.append(f"The A record of {name} leads to {', '.join(a)}, not to this host. Correct the DNS record.")
        if aaaa and not any(each in public6 or _of_proxies(each, proxies or []) for each in aaaa):
            mine = sorted(each for each in public6 if _usable(each))
            said.append(
                f"The AAAA record of {name} leads to {', '.join(aaaa)}, not to this host, and an authority such as"
                " Let's Encrypt asks over IPv6 first. Remove that record"
                + (f", or let it lead to {mine[0]}." if mine else ": this host has no public IPv6 address.")
            )
    return said


class FilterModule:
    """Filters of role traefik."""

    def filters(self) -> dict[str, object]:
        """Name the filters for Ansible."""
        return {"names_problems": names_problems}
