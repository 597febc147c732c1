"""Resolve names. Arguments: the names. Standard output: JSON, for each name "A", "AAAA" and "from".

It queries the servers in /etc/resolv.conf, to see what a CA sees: getent reads /etc/hosts first, where a host named
like its site finds itself as 127.0.1.1. For the same reason it queries the servers behind systemd-resolved. Only a
name that DNS does not know is looked up in /etc/hosts (see "from"), without loopback addresses. "from" is empty if no
server answered.
"""

import ipaddress
import json
import re
import secrets
import socket
import struct
import sys
from pathlib import Path

TYPES = {"A": 1, "AAAA": 28}
STUBS = ("127.0.0.53", "127.0.0.54")
SECONDS, TRIES = 3.0, 2


def servers(
    files: tuple[str, ...] = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"),
) -> list[str]:
    """Return the name servers of this host."""
    found: list[str] = []
    for file in files:
        if Path(file).exists():
            found += re.findall(r"^\s*nameserver\s+(\S+)", Path(file).read_text(errors="replace"), re.M)
        if found and not set(found) & set(STUBS):
            break
    return [each for each in found if each not in STUBS] or found


def question(name: str, kind: int, number: int) -> bytes:
    """Return a recursive DNS query for records of one type."""
    labels = b"".join(bytes([len(part)]) + part for part in name.encode("ascii").split(b".") if part)
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)


def skip_name(message: bytes, place: int) -> int:
    """Return the position after a name in a message."""
    while length := message[place]:
        if length & 0xC0:
            return place + 2
        place += length + 1
    return place + 1


def addresses(message: bytes, kind: int) -> list[str]:
    """Return the addresses in a response, also those behind CNAMEs."""
    _, _, questions, answers = struct.unpack(">4H", message[:8])
    place, found = 12, []
    for _ in range(questions):
        place = skip_name(message, place) + 4
    for _ in range(answers):
        place = skip_name(message, place)
        what, _, _, length = struct.unpack(">2HIH", message[place : place + 10])
        if what == kind:
            found.append(str(ipaddress.ip_address(message[place + 10 : place + 10 + length])))
        place += 10 + length
    return found


def exchange(server: str, asked: bytes, stream: bool = False) -> bytes:
    """Send a query to a server and return the response; over TCP if it was truncated."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as connection:
        connection.settimeout(SECONDS)
        connection.connect(socket.getaddrinfo(server, 53, family)[0][4])
        connection.sendall(struct.pack(">H", len(asked)) + asked if stream else asked)
        if stream:
            with connection.makefile("rb") as reader:
                return reader.read(struct.unpack(">H", reader.read(2))[0])
        while True:
            answer = connection.recv(65535)
            if answer[:2] == asked[:2]:
                break
    return exchange(server, asked, stream=True) if answer[2] & 0x02 else answer


def ask(name: str, kind: int) -> "list[str] | None":
    """Return the addresses of a name; an empty list if it has none, None if no server answered."""
    for server in servers() * TRIES:
        try:
            answer = exchange(server, question(name, kind, secrets.randbelow(65536)))
            # 0: no error, 3: no such name. On any other code, try the next server.
            if answer[3] & 0x0F in (0, 3):
                return sorted(set(addresses(answer, kind)))
        except (OSError, ValueError, IndexError, struct.error):
            continue
    return None


def in_hosts(name: str, file: str = "/etc/hosts") -> "dict[str, list[str]]":
    """Return the addresses of a name in /etc/hosts, without loopback addresses."""
    found: dict[str, list[str]] = {"A": [], "AAAA": []}
    for line in Path(file).read_text(errors="replace").splitlines() if Path(file).exists() else []:
        parts = line.partition("#")[0].lower().split()
        if name in parts[1:]:
            try:
                address = ipaddress.ip_address(parts[0])
            except ValueError:
                continue
            if not address.is_loopback:
                found["AAAA" if address.version == 6 else "A"].append(str(address))
    return found


def look_up(name: str) -> "dict[str, object]":
    """Return the addresses of a name, and their source."""
    found = {kind: ask(name, number) for kind, number in TYPES.items()}
    if any(found.values()):
        return {**{kind: addresses or [] for kind, addresses in found.items()}, "from": "DNS"}
    known = in_hosts(name)
    if any(known.values()):
        return {**known, "from": "/etc/hosts"}
    return {"A": [], "AAAA": [], "from": "" if None in found.values() else "DNS"}


if __name__ == "__main__":
    print(json.dumps({name: look_up(name) for name in sys.argv[1:]}))
