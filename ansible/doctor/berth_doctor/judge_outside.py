"""Judge the host from outside: login, DNS, CAA, ports."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from berth_doctor.asked import is_open, names
from berth_doctor.lines import MAIN, Facts, Line, ok, short, skipped, warning, wrong

# Host of the ACME directory -> the name in CAA records, for directories without caaIdentities.
AUTHORITIES = {
    "letsencrypt.org": "letsencrypt.org",
    "pki.goog": "pki.goog",
    "zerossl.com": "sectigo.com",
    "buypass.com": "buypass.com",
}


def login(facts: Facts) -> Iterator[Line]:
    reached, values = facts["reached"], facts["values"]
    if is_open(values.get("address")):
        yield skipped("ssh", "SSH login", "the server's address is not set")
        return
    if not reached.get("ok"):
        tried = "; ".join(f"{one['user']}: {short(one['why'])}" for one in reached["tried"])
        yield wrong("ssh", "SSH login", f"no login at {values.get('address')} ({tried})", _login_remedy(tried))
        return
    who = f"as {reached['user']} by key"
    if reached["user"] == values.get("first_login") and len(reached["tried"]) > 1:
        who += ", the provider's account: the first run creates the administrators"
    yield ok("ssh", "SSH login", who)
    host = facts.get("host")
    if not host:
        yield wrong(
            "root",
            "Root through sudo",
            short(facts.get("host_error", "no facts from the host")),
            f"Give {reached['user']} sudo without a password, and install python3.",
        )
    elif not host["system"]["root"]:
        yield wrong(
            "root",
            "Root through sudo",
            f"{reached['user']} does not become root",
            f"Give {reached['user']} sudo without a password.",
        )
    else:
        yield ok("root", "Root through sudo", "without a password")


def _login_remedy(tried: str) -> str:
    if "remote_user" in tried:
        return f"Write berth_admins in {MAIN} as the example does: a list of names with their ssh_keys."
    if re.search(r"host key|REMOTE HOST IDENTIFICATION", tried, re.I):
        return (
            "Compare the key's fingerprint with the one in the provider's console, then accept it: ssh <address>. A "
            "reinstalled server has a new key: first ssh-keygen -R <address>."
        )
    if re.search(r"resolve|not known|name or service", tried, re.I):
        return "Correct ansible_host in hosts.yml: an address, or a name that the controller's DNS knows."
    if re.search(r"refused", tried, re.I):
        return "Nothing listens on that port: is the server running, and is ansible_port right?"
    if re.search(r"timed? ?out|no route|unreachable", tried, re.I) and not re.search(r"denied|incorrect", tried, re.I):
        return "Is the server running, is ansible_host right, and does the provider's firewall allow port 22 from here?"
    return (
        "Add your public key to the provider's account (berth_first_login) in the provider's console. This must work: "
        "ssh <account>@<address> true"
    )


def dns(facts: Facts) -> Iterator[Line]:
    """Judge whether every name points to this host only."""
    outside = facts.get("outside")
    if not names(facts["values"]):
        yield skipped("dns", "DNS", "the domain is not set")
        return
    if not outside:
        yield skipped("dns", "DNS", "not checked from outside")
        return
    ours = own_addresses(facts)
    for name in names(facts["values"]):
        found = outside["dns"][name]
        if found.get("error"):
            yield wrong(
                "dns",
                f"DNS {name}",
                found["error"],
                "Try again later; if it persists, correct the zone's name servers.",
            )
            continue
        if not found["A"] and not found["AAAA"]:
            yield wrong(
                "dns",
                f"DNS {name}",
                "no A record and no AAAA record",
                f"Create an A record for {name} with the server's address at your DNS provider.",
            )
            continue
        for kind in ("A", "AAAA"):
            yield from _records(facts, name, kind, found[kind], ours)


def own_addresses(facts: Facts) -> list[str]:
    """Return the host's addresses; those of the inventory if there is no login.

    traefik_public_addresses with IPv4 only, because of NAT, says nothing about IPv6: the host's own are added.
    """
    values = facts["values"]
    told = [_plain(one) for one in values.get("public_addresses") or (facts.get("outside") or {}).get("server") or []]
    if not any(":" in one for one in told):
        told += [_plain(one) for one in values.get("own_addresses") or [] if ":" in one]
    return told


def _plain(address: str) -> str:
    return str(ipaddress.ip_address(address.partition("%")[0]))


def _is_in(address: str, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(ipaddress.ip_address(_plain(address)) in network for network in networks)


def _records(facts: Facts, name: str, kind: str, found: list[str], ours: list[str]) -> Iterator[Line]:
    subject = f"DNS {name} {kind}"
    if not found:
        if kind == "AAAA" and any(_is_global6(one) for one in ours):
            yield ok("dns", subject, "none, although the host has IPv6: visitors cannot use IPv6")
        return
    if not facts["values"].get("public_addresses") and not any((":" in one) == (kind == "AAAA") for one in ours):
        yield skipped("dns", subject, f"{', '.join(found)}; the host's own addresses are not known")
        return
    proxies = [ipaddress.ip_network(one) for one in facts["values"].get("trusted_proxies") or []]
    elsewhere = [one for one in found if _plain(one) not in ours and not _is_in(one, proxies)]
    if not elsewhere:
        yield ok("dns", subject, ", ".join(found))
        return
    remedy = (
        f"Correct the {kind} record at your DNS provider"
        + (" or remove it: authorities and browsers prefer IPv6" if kind == "AAAA" else "")
        + ". Behind NAT, name the public addresses in traefik_public_addresses; behind a CDN or a load balancer, name "
        "its networks in berth_trusted_proxies."
    )
    mine = ", ".join(_shown(facts, kind, ours)) or "it has none"
    seen = f"points to {', '.join(elsewhere)}, which is not this host ({mine})"
    # Several hosts may share a name, the owner may have turned this check into a warning, and proxies may have other
    # addresses for visitors than those from which they connect.
    lenient = bool(proxies) or len(elsewhere) < len(found) or facts["values"].get("domain_check", "fail") != "fail"
    yield (warning if lenient else wrong)("dns", subject, seen, remedy)


def _shown(facts: Facts, kind: str, ours: list[str]) -> list[str]:
    """Return the addresses to show: the configured ones if they are the host's."""
    mine = [ipaddress.ip_address(one) for one in ours if (":" in one) == (kind == "AAAA")]
    mine = [one for one in mine if not one.is_link_local and not one.is_loopback]
    known = [facts["values"].get("own_address"), facts["values"].get("address")]
    return [str(one) for one in mine if str(one) in known] or [str(one) for one in mine][:2]


def _is_global6(address: str) -> bool:
    return ":" in address and ipaddress.ip_address(address).is_global


def caa(facts: Facts) -> Iterator[Line]:
    """Judge whether CAA records allow the authority to issue for every name."""
    outside = facts.get("outside")
    if not outside:
        return
    authority = authority_of(facts)
    for name in names(facts["values"]):
        found, subject = outside["caa"][name], f"CAA {name}"
        if found.get("error"):
            yield wrong(
                "caa",
                subject,
                found["error"],
                "An authority that cannot look up CAA issues nothing: correct the zone's name servers.",
            )
            continue
        records = found["records"]
        issue = [one["value"].split(";")[0].strip().lower() for one in records if one["tag"] == "issue"]
        strange = [
            one["tag"] for one in records if one["critical"] and one["tag"] not in ("issue", "issuewild", "iodef")
        ]
        if strange:
            yield wrong(
                "caa",
                subject,
                f"{found['at']} requires {', '.join(strange)}, which authorities may not know",
                "Remove that record, or its flag 128.",
            )
        elif not issue:
            yield ok("caa", subject, "no record: every authority may issue")
        elif not authority:
            yield warning(
                "caa",
                subject,
                f"{found['at']} allows only {', '.join(filter(None, issue)) or 'nobody'} to issue",
                f"Make sure that {facts['values'].get('acme_directory')} is among them.",
            )
        elif set(issue) & set(authority):
            yield ok("caa", subject, f"{found['at']} allows {', '.join(sorted(set(issue) & set(authority)))}")
        else:
            yield wrong(
                "caa",
                subject,
                f"{found['at']} allows only {', '.join(filter(None, issue)) or 'nobody'} to issue",
                f'Add at your DNS provider: {found["at"]} CAA 0 issue "{authority[0]}"',
            )


def authority_of(facts: Facts) -> list[str]:
    """Return the ACME authority's names in CAA records; empty if they are not known."""
    told = ((facts.get("host") or {}).get("acme") or {}).get("identities") or []
    directory = str(facts["values"].get("acme_directory") or "")
    host = re.sub(r"^https?://([^/:]+).*$", r"\1", directory)
    return [one.lower() for one in told] or [who for end, who in AUTHORITIES.items() if host.endswith(end)]


def ports(facts: Facts) -> Iterator[Line]:
    """Judge whether 80 and 443, and no other port, are open from outside on every address of the site's names."""
    outside, values = facts.get("outside"), facts["values"]
    if is_open(values.get("address")):
        yield skipped("ports", "Ports from outside", "the server's address is not set")
        return
    if not outside:
        yield wrong(
            "ports",
            "Ports from outside",
            f"not checked: {short(facts.get('outside_error', ''))}",
            "Correct stack_outside_from: localhost, or a host of the inventory with python3.",
        )
        return
    ours = own_addresses(facts)
    for address, states in sorted(outside["ports"].items()):
        if address in outside["server"] or not ours or _plain(address) in ours:
            yield from _address(facts, address, states)
    if not outside["server"]:
        yield wrong(
            "ports",
            "Ports from outside",
            f"{values.get('address')} is neither an address nor a known name",
            "Correct ansible_host in hosts.yml.",
        )


def _address(facts: Facts, address: str, states: dict[str, str]) -> Iterator[Line]:
    ssh = str(facts["values"].get("ssh_port") or 22)
    if all(state == "unreachable" for state in states.values()) and ":" in address:
        yield skipped("ports", f"Ports of {address}", "there is no IPv6 where the check runs")
        return
    for port in (ssh, "80", "443"):
        if port in states:
            yield _port(facts, f"Port {port} of {address}", port, states[port])
    closed = {port: state for port, state in states.items() if port not in (ssh, "80", "443")}
    public = [port for port, state in closed.items() if state == "open"]
    subject = f"Other ports of {address}"
    if not closed:
        return
    if not public:
        yield ok("ports", subject, "databases, Docker and dashboards are closed")
    elif (facts.get("host") or {}).get("firewall", {}).get("berth"):
        yield wrong(
            "ports",
            subject,
            f"{', '.join(public)} open to the internet past the firewall",
            "site.yml --tags firewall restores the rules. Find out what changed them: nft list ruleset",
        )
    else:
        yield warning(
            "ports",
            subject,
            f"{', '.join(public)} open to the internet",
            "site.yml closes them; until then, stop the programs that listen there.",
        )


def _port(facts: Facts, subject: str, port: str, state: str) -> Line:
    host = facts.get("host") or {}
    listens = port in host.get("listeners", {})
    if state == "open":
        others = [one for one in host.get("listeners", {}).get(port, []) if one not in ("docker-proxy", "dockerd")]
        if port in ("80", "443") and others:
            return wrong(
                "ports",
                subject,
                f"taken by {', '.join(others)}",
                "The edge needs this port: systemctl disable --now <that program>",
            )
        return ok("ports", subject, "open")
    if state == "refused":
        if port in ("80", "443") and not host.get("provisioned") and not listens:
            return ok("ports", subject, "reaches the host, where nothing listens yet")
        if port in ("80", "443"):
            return wrong(
                "ports",
                subject,
                "reaches the host, where nothing answers",
                "The edge is not running: ansible/status.yml says why; site.yml starts it.",
            )
        return wrong("ports", subject, "reaches the host, where nothing listens", "Is ansible_port the port of sshd?")
    if state == "unreachable":
        return wrong("ports", subject, "no route to this address", "Correct the address, or ask the provider.")
    if others := host.get("firewall", {}).get("others"):
        return wrong(
            "ports",
            subject,
            f"filtered by the host's own rules ({', '.join(others)})",
            f"Allow port {port} in these rules, or remove them: site.yml installs its own. If it is still filtered, "
            f"allow {port}/tcp in the provider's firewall, too.",
        )
    if host and (host["firewall"]["berth"] or not host["firewall"]["others"]):
        return wrong(
            "ports",
            subject,
            "filtered on the way, not by the host",
            f"Allow {port}/tcp to the server in the provider's firewall.",
        )
    return wrong(
        "ports",
        subject,
        "filtered: no answer",
        f"Is the address right and the server running? Then allow {port}/tcp in the provider's firewall.",
    )
