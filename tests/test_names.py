"""What is right is let through, and what is wrong is refused with a sentence that says what to do."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from celery_worker.settings import WorkerSettings
from tests.support import ROOT
from tests.test_env_contract import good


def load(path: str) -> ModuleType:
    spec = util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


names = load("roles/traefik/filter_plugins/names.py")
look_up = load("roles/traefik/files/names_lead_where.py")
rules = load("ansible/plugins/filter/rules.py")
environment = load("roles/environment/filter_plugins/environment.py")
cpu = load("roles/stack/filter_plugins/cpu.py")

HOST = ["203.0.113.7", "2001:4860:4860::7"]


def says(a: list[str], aaaa: list[str], public: list[str] = HOST, own: list[str] = HOST, source: str = "DNS") -> str:
    return "\n".join(names.names_problems({"www.x.net": {"A": a, "AAAA": aaaa, "from": source}}, public, own))


# --- Names ---


def test_a_name_that_leads_here_is_accepted_with_or_without_ipv6() -> None:
    assert says(["203.0.113.7"], []) == ""
    assert says(["203.0.113.7"], ["2001:4860:4860:0:0:0:0:7"]) == ""
    assert says([], ["2001:4860:4860::7"]) == ""


def test_an_aaaa_record_of_another_machine_is_refused_though_the_a_record_is_right() -> None:
    said = says(["203.0.113.7"], ["2001:4860:4860::9"])
    assert "The AAAA record of www.x.net points to 2001:4860:4860::9" in said
    assert "Remove this record, or point it to 2001:4860:4860::7." in said


def test_an_aaaa_record_of_a_host_without_ipv6_has_to_go() -> None:
    said = says(["203.0.113.7"], ["2001:4860:4860::9"], HOST[:1], [*HOST[:1], "fe80::1", "fd62:6572:7468:ff::1"])
    assert said.endswith("Remove this record: this host has no public IPv6 address.")


def test_every_alias_is_asked_for_and_named() -> None:
    right, wrong = ({"A": [each], "AAAA": [], "from": "DNS"} for each in ("203.0.113.7", "203.0.113.9"))
    assert names.names_problems({"www.x.net": right, "x.net": wrong}, HOST, HOST) == [
        "The A record of x.net points to 203.0.113.9, not to this host. Correct the DNS record."
    ]


def test_a_name_may_lead_to_the_proxies_in_front() -> None:
    cdn = ["104.16.0.0/13", "2400:cb00::/32"]
    records = {"A": ["104.17.1.2"], "AAAA": ["2400:cb00::5"], "from": ["192.0.2.53"]}
    assert names.names_problems({"www.x.net": records}, HOST, HOST, cdn) == []
    [said] = names.names_problems({"www.x.net": {**records, "A": ["198.51.100.9"]}}, HOST, HOST, cdn)
    assert "198.51.100.9, not to this host" in said
    [said] = names.names_problems({"www.x.net": {**records, "A": [], "AAAA": []}}, HOST, HOST, cdn)
    assert " does not resolve: " in said


def test_public_addresses_behind_translation_do_not_disown_the_hosts_own_ipv6() -> None:
    assert says(["198.51.100.1"], ["2001:4860:4860::7"], ["198.51.100.1"], ["10.0.0.2", "2001:4860:4860::7"]) == ""


def test_a_name_without_a_record_and_a_silent_server_are_told_apart() -> None:
    assert "neither an A nor an AAAA record" in says([], [])
    assert "no DNS server of this host answers" in says([], [], source="")


@pytest.mark.parametrize(
    ("domain", "aliases", "said"),
    [
        ("x.net", ["www.x.net", "xn--mller-kva.de"], []),
        ("", [], ["is missing"]),
        ("X.net", [], ["has capital letters: write x.net"]),
        ("x.net", ["x.net"], ["is the site's own name"]),
        ("x.net", ["www.x.net", "www.x.net"], ["number 2 is there twice"]),
        ("x.net", ["*.x.net", "www.x.net."], ["has a wildcard", "ends with a dot"]),
        ("www.example.com", [], ["is still an example"]),
    ],
)
def test_the_sites_names_are_names_each_once(domain: str, aliases: list[str], said: list[str]) -> None:
    problems = rules.site_names_problems(domain, aliases, ("berth_domain", "traefik_domain_aliases"))
    assert len(problems) == len(said)
    assert all(part in problem for part, problem in zip(said, problems, strict=True))


# --- DNS ---


class NameServer:
    """A DNS server on a port of its own, whose datagrams are cut off once it is asked to."""

    records: ClassVar = {
        ("www.x.net", 1): ["203.0.113.7"],
        ("www.x.net", 28): ["2001:db8::7"],
        ("v4.x.net", 1): ["203.0.113.8"],
    }

    def __init__(self) -> None:
        self.truncates = False
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.port = self.udp.getsockname()[1]
        self.tcp = socket.create_server(("127.0.0.1", self.port))
        for serve in (self.datagrams, self.streams):
            threading.Thread(target=serve, daemon=True).start()

    def answer(self, asked: bytes) -> bytes:
        place, labels = 12, []
        while length := asked[place]:
            labels.append(asked[place + 1 : place + 1 + length].decode())
            place += 1 + length
        kind = struct.unpack(">H", asked[place + 1 : place + 3])[0]
        name = ".".join(labels)
        found = self.records.get((name, kind), [])
        known = any(name == other for other, _ in self.records)
        alias = b"\xc0\x0c" + struct.pack(">2HIH", 5, 1, 60, 2) + b"\xc0\x0c"
        packed = [socket.inet_pton(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in found]
        rows = [b"\xc0\x0c" + struct.pack(">2HIH", kind, 1, 60, len(each)) + each for each in packed]
        head = asked[:2] + struct.pack(">5H", 0x8180 | (0 if known else 3), 1, len(rows) + 1, 0, 0)
        return head + asked[12 : place + 5] + alias + b"".join(rows)

    def datagrams(self) -> None:
        while True:
            asked, client = self.udp.recvfrom(4096)
            answer = self.answer(asked)
            if self.truncates:
                answer = answer[:2] + bytes([answer[2] | 0x02]) + answer[3:12]
            self.udp.sendto(answer, client)

    def streams(self) -> None:
        while True:
            connection, _ = self.tcp.accept()
            with connection:
                answer = self.answer(connection.recv(4096)[2:])
                connection.sendall(struct.pack(">H", len(answer)) + answer)


@pytest.fixture(scope="module")
def name_server() -> NameServer:
    return NameServer()


@pytest.fixture
def dns(name_server: NameServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The look-up asks this server, and reads an /etc/hosts of the test's own, whose path is given."""
    hosts = tmp_path / "hosts"
    resolve, in_hosts = socket.getaddrinfo, look_up.in_hosts
    monkeypatch.setattr(look_up, "servers", lambda: ["127.0.0.1"])
    monkeypatch.setattr(look_up, "in_hosts", lambda name: in_hosts(name, str(hosts)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, _, family: resolve(host, name_server.port, family))
    yield hosts
    name_server.truncates = False


def test_a_host_that_is_named_like_its_site_is_asked_for_in_dns(dns: Path) -> None:
    dns.write_text("127.0.0.1 localhost\n127.0.1.1 www.x.net www\n")
    assert look_up.look_up("www.x.net") == {"A": ["203.0.113.7"], "AAAA": ["2001:db8::7"], "from": "DNS"}


def test_a_name_that_only_etc_hosts_knows_is_still_known_but_not_as_the_loopback_interface(dns: Path) -> None:
    dns.write_text("127.0.1.1 shop.lan\n10.0.0.7 shop.lan # here\nfd00::7 SHOP.lan\n")
    assert look_up.look_up("shop.lan") == {"A": ["10.0.0.7"], "AAAA": ["fd00::7"], "from": "/etc/hosts"}
    dns.write_text("127.0.1.1 shop.lan\n")
    assert look_up.look_up("shop.lan") == {"A": [], "AAAA": [], "from": "DNS"}


@pytest.mark.usefixtures("dns")
def test_a_name_with_ipv4_alone_has_no_aaaa() -> None:
    assert look_up.look_up("v4.x.net") == {"A": ["203.0.113.8"], "AAAA": [], "from": "DNS"}


@pytest.mark.usefixtures("dns")
def test_an_answer_that_does_not_fit_into_a_datagram_comes_over_tcp(name_server: NameServer) -> None:
    name_server.truncates = True
    assert look_up.look_up("www.x.net")["A"] == ["203.0.113.7"]


@pytest.mark.usefixtures("dns")
def test_a_server_that_is_away_is_not_a_name_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_up, "servers", lambda: ["127.0.0.2"])
    assert look_up.look_up("www.x.net") == {"A": [], "AAAA": [], "from": ""}


def test_systemd_resolved_which_reads_etc_hosts_is_passed_over_for_the_servers_behind_it(tmp_path: Path) -> None:
    stub, behind = tmp_path / "stub", tmp_path / "behind"
    stub.write_text("nameserver 127.0.0.53\nsearch lan\n")
    behind.write_text("nameserver 192.0.2.53\nnameserver 2001:db8::53\n")
    assert look_up.servers((str(stub), str(behind))) == ["192.0.2.53", "2001:db8::53"]
    assert look_up.servers((str(behind), str(stub))) == ["192.0.2.53", "2001:db8::53"]
    assert look_up.servers((str(stub), str(tmp_path / "none"))) == ["127.0.0.53"]


# --- Values that services and Ansible read ---

VALUES: list[tuple[str, str]] = [
    *(
        ("SMTP_HOST", each)
        for each in ("smtp.x.net", "SMTP.x.net", "fd00::7", "smtp.x.net:587", "smtp://x.net", " x.net")
    ),
    *(("SMTP_PORT", each) for each in ("587", "0", "70000")),
    *(
        ("MAIL_FROM", each)
        for each in (
            "a@b.c",
            "Berth <a@b.c>",
            "Berth <a@b.c>, x@y.z",
            "no at sign",
            "B <<a@b.c>>",
            "Berth, Inc. <a@b.c>",
        )
    ),
    *(
        ("TRACES_ENDPOINT", each)
        for each in ("https://c.x.net:4318/v1/traces", "c.x.net:4318", "https://c.x.net/?key=1")
    ),
]


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_what_preflight_accepts_a_service_starts_with_and_the_other_way_round(name: str, value: str) -> None:
    given: dict[str, Any] = {"mongo_uri": "mongodb://mongo", "redis_uri": "redis://redis", "environment": "dev"}
    problems = environment.environment_problems(good() | {name: value})
    try:
        WorkerSettings.model_validate(given | {name.lower(): value})
        starts = True
    except ValidationError:
        starts = False
    assert starts == (not problems), problems


def test_an_unknown_rule_is_an_error_and_an_empty_value_breaks_none() -> None:
    with pytest.raises(KeyError):
        rules.rules_problems([("x", "nonsense", "")])
    assert rules.rules_problems([("x", "https_url", ""), ("y", "host", None), ("z", "address", "a@b.c")]) == []
    assert rules.rules_problems([("traefik_acme_email", "address", "a@b.c,d@e.f")])


def test_what_the_example_leaves_open_is_found_and_no_other_angle_bracket_is() -> None:
    key = "ssh-ed25519 AAAA Ada <ada@x.net>"
    filled = {
        "berth_mail_from": "Berth <a@b.c>",
        "berth_admins": [{"name": "ada", "ssh_keys": [key]}],
        "berth_domain": "",
    }
    assert rules.left_open(filled) == []
    left = {
        "berth_domain": "<www.your-company.net>",
        "berth_admins": [{"name": "ada", "ssh_keys": ["<ssh-ed25519 AAAA>"]}],
    }
    assert rules.left_open(left) == ["berth_domain", "berth_admins"]


# --- Processors ---

MODERN = "processor : 0\nflags\t\t: fpu sse4_2 avx avx2\n"
GENERIC = "processor : 0\nflags\t\t: fpu sse4_2 x2apic\n"
GRAVITON = "Features\t: fp asimd aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs\n"
RASPBERRY = "Features\t: fp asimd evtstrm crc32 cpuid\n"


@pytest.mark.parametrize("image", ["mongo:8.0", "hub.x.net/library/mongo:5", "mirror.x.net/mongo:7.0.5-jammy", "mongo"])
def test_mongodb_from_5_on_is_refused_without_avx(image: str) -> None:
    said = cpu.mongo_cpu_problem(image, "x86_64", GENERIC)
    assert "no AVX" in said
    assert 'CPU type "host"' in said
    assert "vault_mongo_uri" in said
    assert cpu.mongo_cpu_problem(image, "x86_64", MODERN) == ""


@pytest.mark.parametrize(
    "image",
    ["mongo:4.4", "localhost/berth/mongo-standin:8", "x.net/percona-server-mongodb:8", "mongo@sha256:" + "0" * 64],
)
def test_what_is_not_mongodbs_own_build_from_5_on_asks_for_nothing(image: str) -> None:
    assert cpu.mongo_cpu_problem(image, "x86_64", GENERIC) == ""


def test_mongodb_on_arm_asks_for_armv8_2() -> None:
    assert cpu.mongo_cpu_problem("mongo:8.0", "aarch64", GRAVITON) == ""
    assert "older than ARMv8.2-A" in cpu.mongo_cpu_problem("mongo:8.0", "aarch64", RASPBERRY)
