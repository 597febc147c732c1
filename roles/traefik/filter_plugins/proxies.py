"""Checks the list of trusted proxies."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_network
from typing import Any

# The shortest allowed prefixes: trusting a large part of the internet would let clients forge their address.
WIDEST = {4: 8, 6: 7}
# IPv4-mapped addresses, which Traefik reads as IPv4 networks.
MAPPED = IPv6Network("::ffff:0:0/96")


def proxies_problem(proxies: Any, proxy_protocol: bool = False, challenge: str = "http-01") -> str:
    """Return the problem of a list of trusted proxies.

    Parameters: the list; whether they use the PROXY protocol; the ACME challenge.
    Returns one sentence that says what to do; empty if the list is valid.
    """
    if not isinstance(proxies, list):
        return f"it is {proxies!r}; write a list, such as [203.0.113.0/24, 2001:db8::/32]."
    for proxy in proxies:
        try:
            network = ip_network(str(proxy))
        except ValueError as error:
            # ipaddress' message for an address with bits beyond the prefix.
            reason = "has bits beyond its prefix" if "host bits" in str(error) else "is no address and no network"
            return f"{proxy} {reason}; write such as 203.0.113.9, 203.0.113.0/24 or 2001:db8::/32."
        if network.prefixlen < WIDEST[network.version]:
            return f"{proxy} contains visitors, too, who could then forge their address. Name the proxies only."
        if isinstance(network, IPv6Network) and network.overlaps(MAPPED):
            return f"{proxy} contains IPv4-mapped addresses; write them as IPv4."
    if proxy_protocol and not proxies:
        return "traefik_proxy_protocol is on and the list is empty; name the addresses the load balancer connects from."
    if proxies and not proxy_protocol and challenge == "tls-alpn-01":
        return (
            "a proxy that terminates TLS answers the authority itself on port 443, so tls-alpn-01"
            " (traefik_acme_challenge) cannot work. Set it to http-01, and let the proxy forward"
            " /.well-known/acme-challenge/ on port 80."
        )
    return ""


class FilterModule:
    """Filters of role traefik."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {"proxies_problem": proxies_problem}
