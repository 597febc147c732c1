"""Check the site's DNS names and ports from outside; change nothing.

Runs on the controller or on the host that stack_outside_from names, with the standard library alone:
    python3 outside.py < JSON: names, caa_names, resolvers, address, site_ports, ssh_port, closed_ports, seconds
Prints JSON: dns, caa, addresses, ports.
"""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
import socket
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

A, CNAME, AAAA, CAA = 1, 5, 28, 257
RCODES = {
    1: "the resolver reports a malformed query (FORMERR)",
    2: "the resolver failed (SERVFAIL)",
    5: "the resolver refuses (REFUSED)",
}
NO_SUCH_NAME = 3


class NoAnswerError(Exception):
    """No resolver answered."""


def resolvers_of_the_system() -> list[str]:
    with contextlib.suppress(OSError):
        lines = Path("/etc/resolv.conf").read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1]
    return []


def question(name: str, kind: int, number: int) -> bytes:
    """Return a recursive DNS query."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode("idna").split(b".") if label)
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def skip_name(message: bytes, at: int) -> int:
    """Return the position after a name in the message."""
    while (length := message[at]) != 0:
        if length >= 0xC0:
            return at + 2
        at += length + 1
    return at + 1


def answers(message: bytes, kind: int) -> list[bytes]:
    """Return the data of the records of this type in the answer.

    Raises:
        NoAnswerError: the resolver reported an error.
    """
    _, flags, questions, records, _, _ = struct.unpack("!6H", message[:12])
    code = flags & 0xF
    if code not in (0, NO_SUCH_NAME):
        raise NoAnswerError(RCODES.get(code, f"the resolver answers with RCODE {code}"))
    at = 12
    for _ in range(questions):
        at = skip_name(message, at) + 4
    found = []
    for _ in range(records):
        at = skip_name(message, at)
        this, _, _, length = struct.unpack("!2HIH", message[at : at + 10])
        at += 10
        if this == kind:
            found.append(message[at : at + length])
        at += length
    return found


def exchange(resolver: str, asked: bytes, seconds: float) -> bytes:
    """Query over UDP, and over TCP if the answer was truncated."""
    address, _, port = resolver.partition("#")
    where = socket.getaddrinfo(address, int(port or 53), type=socket.SOCK_DGRAM)[0]
    with socket.socket(where[0], socket.SOCK_DGRAM) as plain:
        plain.settimeout(seconds)
        plain.connect(where[4])
        plain.send(asked)
        message = plain.recv(4096)
        while message[:2] != asked[:2]:
            message = plain.recv(4096)
    if message[2] & 0x02:
        with socket.create_connection((address, int(port or 53)), timeout=seconds) as stream:
            stream.sendall(struct.pack("!H", len(asked)) + asked)
            file = stream.makefile("rb")
            (length,) = struct.unpack("!H", file.read(2))
            message = file.read(length)
    return message


def ask(name: str, kind: int, resolvers: list[str], seconds: float) -> list[bytes]:
    """Return the records of this type for a name.

    Raises:
        NoAnswerError: no resolver answered.
    """
    why = "there is no resolver in /etc/resolv.conf"
    for resolver in resolvers:
        try:
            return answers(exchange(resolver, question(name, kind, secrets.randbits(16)), seconds), kind)
        except (OSError, IndexError, struct.error) as error:
            why = f"{resolver} does not answer ({error})"
        except (NoAnswerError, UnicodeError) as error:
            why = f"{resolver}: {error}"
    raise NoAnswerError(why)


def addresses_of(name: str, resolvers: list[str], seconds: float) -> dict[str, Any]:
    try:
        return {
            "A": sorted(socket.inet_ntop(socket.AF_INET, data) for data in ask(name, A, resolvers, seconds)),
            "AAAA": sorted(socket.inet_ntop(socket.AF_INET6, data) for data in ask(name, AAAA, resolvers, seconds)),
        }
    except NoAnswerError as error:
        return {"error": str(error)}


def caa_of(name: str, resolvers: list[str], seconds: float) -> dict[str, Any]:
    """Return the CAA records that apply to a name: its own, or those of the closest parent with any (RFC 8659)."""
    labels = name.split(".")
    try:
        for depth in range(len(labels)):
            at = ".".join(labels[depth:])
            if found := ask(at, CAA, resolvers, seconds):
                return {"at": at, "records": [caa_record(data) for data in found]}
    except NoAnswerError as error:
        return {"error": str(error)}
    return {"at": "", "records": []}


def caa_record(data: bytes) -> dict[str, Any]:
    length = data[1]
    tag, value = data[2 : 2 + length], data[2 + length :]
    return {
        "critical": bool(data[0] & 0x80),
        "tag": tag.decode(errors="replace").lower(),
        "value": value.decode(errors="replace"),
    }


def knock(address: str, port: int, seconds: float) -> str:
    """Connect to a port and return its state: open, refused, filtered or unreachable."""
    try:
        with socket.create_connection((address, port), timeout=seconds):
            return "open"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "filtered"
    except OSError as error:
        # A firewall that rejects answers "prohibited".
        if error.errno in (errno.EACCES, errno.EPERM, errno.EHOSTUNREACH) and ":" not in address:
            return "filtered"
        return "unreachable"


def literal(address: str) -> Iterator[str]:
    """Yield the addresses of a host name or address, as the system resolves it."""
    with contextlib.suppress(OSError, UnicodeError):
        for found in socket.getaddrinfo(address, None, type=socket.SOCK_STREAM):
            yield str(found[4][0])


def look(asked: dict[str, Any]) -> dict[str, Any]:
    seconds = float(asked.get("seconds", 5))
    resolvers = asked.get("resolvers") or resolvers_of_the_system()
    names = asked["names"]
    with ThreadPoolExecutor(32) as pool:
        dns = dict(zip(names, pool.map(lambda name: addresses_of(name, resolvers, seconds), names), strict=True))
        caa = dict(zip(names, pool.map(lambda name: caa_of(name, resolvers, seconds), names), strict=True))
        server = sorted(set(literal(asked["address"]))) if asked.get("address") else []
        led = {one for found in dns.values() for kind in ("A", "AAAA") for one in found.get(kind, [])}
        pairs = [(one, port) for one in sorted({*server, *led}) for port in asked["site_ports"]]
        pairs += [(one, asked["ssh_port"]) for one in server]
        pairs += [(one, port) for one in server for port in asked["closed_ports"]]
        pairs = list(dict.fromkeys(pairs))
        states = pool.map(lambda pair: knock(pair[0], pair[1], seconds), pairs)
        ports: dict[str, dict[str, str]] = {}
        for (address, port), state in zip(pairs, states, strict=True):
            ports.setdefault(address, {})[str(port)] = state
    return {"dns": dns, "caa": caa, "server": server, "ports": ports}


if __name__ == "__main__":
    print(json.dumps(look(json.load(sys.stdin))))
