"""Which network stands for a visitor: his address, or the /64 of IPv6, of which he may use every address."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
PREFIX6 = 64
_GROUP = "[0-9a-f]{1,4}"


def visitor(hops: str, proxies: Sequence[Network]) -> Address | None:
    """Return the last hop that is no proxy of ours: what is before it, the visitor may have written.

    None where that is no address, or where nobody but proxies is named.
    """
    for hop in reversed(hops.split(",")):
        try:
            address = ip_address(hop.strip())
        except ValueError:
            return None
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if not any(address in proxy for proxy in proxies):
            return address
    return None


def network(address: Address, spared: Sequence[Network]) -> Network | None:
    """Return what is counted and banned for this address, or None if it is never banned.

    A /64 in which somebody is never banned is counted and banned by single addresses.
    """
    if any(address in one for one in spared):
        return None
    if isinstance(address, IPv6Address):
        wide = ip_network((address, PREFIX6), strict=False)
        if not any(wide.overlaps(one) for one in spared if one.version == wide.version):
            return wide
    return ip_network(address)


def text(one: Network) -> str:
    """Return it as fail2ban does: a single address without its prefix."""
    return str(one.network_address if one.prefixlen == one.max_prefixlen else one)


def pattern(banned: Network) -> str:
    """Return a regular expression (RE2) for every address of this network, as programs write addresses.

    Raises ValueError for an IPv6 network whose prefix ends within a group of four digits.
    """
    if isinstance(banned, IPv4Network):
        whole, rest = divmod(banned.prefixlen, 8)
        numbers = [str(number) for number in banned.network_address.packed]
        parts = numbers[:whole]
        if rest:
            some = range(int(numbers[whole]), int(numbers[whole]) + (1 << (8 - rest)))
            parts.append(f"(?:{'|'.join(map(str, some))})")
        return "[.]".join(parts + ["[0-9]{1,3}"] * (4 - len(parts)))
    count, rest = divmod(banned.prefixlen, 16)
    if rest or not count:
        raise ValueError(f"{banned}: the edge shuts out IPv6 networks of 16, 32, 48, 64, 80, 96, 112 or 128 bits only")
    groups = [int(group, 16) for group in banned.network_address.exploded.split(":")][:count]
    return f"(?i:{'|'.join(_spellings(groups))})"


def _spellings(groups: list[int]) -> list[str]:
    """Return a pattern for each place in which zeros can be left out (RFC 5952, and the long form beside it)."""
    count, written = len(groups), [f"0{{0,{4 - len(f'{group:x}')}}}{group:x}" for group in groups]
    free = 8 - count
    # Nothing is left out up to here; behind it, anything.
    found = [":".join([*written, "[0-9a-f:]+"] if free else written)]
    for start in range(count):
        for end in range(start + 1, count + 1):
            if any(groups[start:end]):
                break
            head = ":".join(written[:start]) + "::"
            if end < count:
                found.append(head + ":".join([*written[end:], *[_GROUP] * free]))
            elif free:
                found.append(head + f"(?:{_GROUP}(?::{_GROUP}){{0,{free - 1}}})?")
            else:
                found.append(head)
    return found
