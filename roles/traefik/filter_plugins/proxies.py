"""Whom the edge believes what it says about the visitor's address."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_network
from typing import Any

# A proxy has a network of its own at most. Whoever trusts half of the internet lets anybody choose an address.
WIDEST = {4: 8, 6: 7}
# What Traefik takes for IPv4 networks; the last one, written in full, for all of them.
MAPPED = IPv6Network("::ffff:0:0/96")


def proxies_problem(proxies: Any, proxy_protocol: bool = False, challenge: str = "http-01") -> str:
    """Say what is wrong with the list of trusted proxies.

    Parameters: the list; whether they speak the PROXY protocol; how the authority checks the site's name.
    Returns one sentence that says what to do, or nothing where all is well.
    """
    if not isinstance(proxies, list):
        return f"it is {proxies!r}; write a list, such as [203.0.113.0/24, 2001:db8::/32]."
    for proxy in proxies:
        try:
            network = ip_network(str(proxy))
        except ValueError as error:
            # Its own words for a network whose address goes on behind the prefix.
            reason = "has bits beyond its prefix" if "host bits" in str(error) else "is no address and no network"
            return f"{proxy} {reason}; write such as 203.0.113.9, 203.0.113.0/24 or 2001:db8::/32."
        if network.prefixlen < WIDEST[network.version]:
            return f"{proxy} holds visitors too, who could then choose their address. Name the proxies alone."
        if isinstance(network, IPv6Network) and network.overlaps(MAPPED):
            return f"{proxy} holds IPv4 addresses in the form of IPv6 ones; write them as IPv4."
    if proxy_protocol and not proxies:
        return "traefik_proxy_protocol is on and the list is empty; name the addresses the load balancer connects from."
    if proxies and not proxy_protocol and challenge == "tls-alpn-01":
        return (
            "a proxy that ends TLS answers the authority itself on port 443, so tls-alpn-01 (traefik_acme_challenge)"
            " cannot work. Set it to http-01, and let the proxy pass /.well-known/acme-challenge/ on, on port 80."
        )
    return ""


class FilterModule:
    """Filters of role traefik."""

    def filters(self) -> dict[str, object]:
        """Name the filters for Ansible."""
        return {"proxies_problem": proxies_problem}
