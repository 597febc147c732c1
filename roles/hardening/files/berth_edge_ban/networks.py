"""Which network a visitor counts as: an IPv4 address, or an IPv6 /64, which belongs to one customer."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
PREFIX6 = 64
_GROUP = "[0-9a-f]{1,4}"


def visitor(hops: str, proxies: Sequence[Network]) -> Address | None:
    """Return the last hop that is not a trusted proxy: the visitor may have forged the hops before it.

    None if that is not an address, or if all hops are proxies.
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
    """Return the network that is counted and banned for this address, or None if it is never banned.

    In a /64 that overlaps a network that is never banned, single addresses are counted and banned.
    """
    if any(address in one for one in spared):
        return None
    if isinstance(address, IPv6Address):
        wide = ip_network((address, PREFIX6), strict=False)
        if not any(wide.overlaps(one) for one in spared if one.version == wide.version):
            return wide
    return ip_network(address)


def text(one: Network) -> str:
    """Return it as fail2ban writes it: a single address without a prefix length."""
    return str(one.network_address if one.prefixlen == one.max_prefixlen else one)


def pattern(banned: Network) -> str:
    """Return a regular expression (RE2) that matches every address of this network in all common spellings.

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
        raise ValueError(f"{banned}: the edge blocks IPv6 networks of 16, 32, 48, 64, 80, 96, 112 or 128 bits only")
    groups = [int(group, 16) for group in banned.network_address.exploded.split(":")][:count]
    return f"(?i:{'|'.join(_spellings(groups))})"


def _spellings(groups: list[int]) -> list[str]:
    """Return a pattern for each place in which zeros can be left out (RFC 5952, and the long form beside it)."""
    count, written = len(groups), [f"0{{0,{4 - len(f'{group:x}')}}}{group:x}" for group in groups]
    free = 8 - count
    # No zeros left out in the prefix; any spelling after it.
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
