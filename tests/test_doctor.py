"""The doctor: each mistake is a line that says what was seen and what to do; and nothing else is."""
# A table of mistakes reads best with one a line.
# ruff: noqa: E501

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from berth_doctor import asked, controller, host, judge, outside, table

ROOT = Path(__file__).parents[1]
Facts = dict[str, Any]
SITE, ADDRESS, ADDRESS6, ELSEWHERE = "www.shop.net", "203.0.113.7", "2001:db8::7", "198.51.100.9"


def healthy() -> Facts:
    """A site in service, as the doctor sees it."""
    return {
        "values": {
            "address": ADDRESS,
            "ssh_port": 22,
            "first_login": "root",
            "admins": [{"name": "ada", "ssh_keys": ["ssh-ed25519 AAAA ada@laptop"]}],
            "domain": SITE,
            "aliases": ["shop.net"],
            "public_addresses": [ADDRESS, ADDRESS6, "fe80::1%eth0", "172.17.0.1"],
            "own_address": ADDRESS,
            "acme_directory": "https://acme-v02.api.letsencrypt.org/directory",
            "staging": False,
            "minimum_disk_mb": 6000,
            "docker_minimum_disk_mb": 4000,
            "stack_disk_free_gib": 4,
            "minimum_memory_mb": 1500,
            "timezone": "Etc/UTC",
            "docker_source": "debian",
            "transport": "archive",
            "mongo_local": True,
            "mongo_image": "mongo:8.0",
            "image_prefix": "localhost/berth",
            "smtp_host": "smtp.mail.net",
            "smtp_port": 587,
            "smtp_security": "starttls",
            "smtp_username": "shop",
            "mail_from": "Shop <no-reply@shop.net>",
            "operator_mail": "ada@shop.net",
            "environment_problems": [],
            "backup_problems": [],
            "backup_settings": [{"name": "store", "repository": "rest:https://backup.shop.net/"}],
            "traces_endpoint": "https://traces.shop.net/v1/traces",
        },
        "errors": {},
        "unread": {},
        "reached": {"ok": True, "user": "ada", "tried": [{"ok": True, "user": "ada", "why": ""}]},
        "offset": 0.0,
        "host": {
            "system": {
                "id": "debian",
                "name": "Debian GNU/Linux 13 (trixie)",
                "version": "13",
                "systemd": True,
                "architecture": "x86_64",
                "flags": ["sse2", "avx"],
                "container": "",
                "root": True,
            },
            "memory_mb": 4000,
            "disks": {path: {"free_mb": 30000, "inodes_free_percent": 90} for path in ("/", "/var/lib/docker")},
            "clock": {"synchronized": True},
            "zone": True,
            "firewall": {"berth": True, "others": []},
            "listeners": {"80": ["docker-proxy"], "443": ["docker-proxy"]},
            "updates": {"reboot": False},
            "provisioned": True,
            "archives": {"deb.example.org": {"ok": True, "said": "it answers"}},
            "acme": {"ok": True, "said": "it answers", "identities": ["letsencrypt.org"], "offset": 0.4},
            "limits": {"ok": True, "last": ""},
            "certificate": {"ok": True, "issuer": "C = US, O = Let's Encrypt, CN = E7", "days": 60.0, "names": [SITE, "shop.net"]},
            "smtp": {"ok": True, "step": "recipient", "said": ""},
            "backups": {"store": {"ok": True, "opened": True, "said": ""}},
            "registry": {"ok": True, "status": 200, "said": "HTTP 200", "anonymous": False},
            "log_servers": {"loki": {"ok": True, "said": "HTTP 204"}},
            "traces": {"ok": True, "status": 200, "said": "HTTP 200"},
            "web": {"vault_monitoring_webhook_url": {"ok": True, "said": "it answers"}},
        },
        "outside": {
            "dns": {name: {"A": [ADDRESS], "AAAA": [ADDRESS6]} for name in (SITE, "shop.net")},
            "caa": {
                SITE: {"at": "shop.net", "records": [{"critical": False, "tag": "issue", "value": "letsencrypt.org"}]},
                "shop.net": {"at": "", "records": []},
            },
            "server": [ADDRESS],
            "ports": {
                ADDRESS: {"22": "open", "80": "open", "443": "open", "6379": "filtered", "27017": "filtered"},
                ADDRESS6: {"80": "open", "443": "open"},
            },
        },
        "controller": {
            "inventory": "inventories/production",
            "key": {"file": "/home/ada/.ssh/id_ed25519", "exists": True, "mode": 0o600, "agent": False},
            "vault": {"encrypted": ["vault.yml"], "password_file": ".vault-password", "exists": True, "mode": 0o600},
            "images": {
                "ok": True,
                "said": "",
                "inspected": json.dumps([{"Architecture": "amd64"}]),
                "absent": [],
                "stand_ins": [],
            },
        },
    }  # fmt: skip


def lines(facts: Facts) -> list[dict[str, str]]:
    return judge.judge(facts)


def fresh(facts: Facts) -> None:
    """The same server before the first run."""
    facts["reached"] = {
        "ok": True,
        "user": "root",
        "tried": [{"ok": False, "user": "ada", "why": "Permission denied"}, {"ok": True, "user": "root", "why": ""}],
    }
    facts["host"] |= {
        "provisioned": False,
        "listeners": {},
        "firewall": {"berth": False, "others": []},
        "clock": {"synchronized": True},
        "limits": {"ok": None, "said": ""},
        "certificate": {"ok": False, "said": "Connection refused"},
        "backups": {"store": {"ok": True, "opened": False, "said": "the storage answers: HTTP 404"}},
    }
    for states in facts["outside"]["ports"].values():
        states.update({port: "refused" for port in states if port != "22"})


def test_a_site_in_service_has_nothing_wrong() -> None:
    assert [line for line in lines(healthy()) if line["status"] != "ok"] == []


def test_a_fresh_server_has_nothing_wrong_and_says_what_is_not_there_yet() -> None:
    facts = healthy()
    fresh(facts)
    found = lines(facts)
    assert [line for line in found if line["status"] in ("wrong", "warning")] == []
    assert {line["check"] for line in found if line["status"] == "skipped"} == {"limits", "certificate"}
    assert any("nothing listens yet" in line["seen"] for line in found)


def put(path: str, value: Any) -> Callable[[Facts], None]:
    """Return what sets one fact; the path's parts are joined by slashes."""

    def change(facts: Facts) -> None:
        *parts, last = path.split("/")
        for part in parts:
            facts = facts[part]
        facts[last] = value

    return change


def both(*changes: Callable[[Facts], None]) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        for one in changes:
            one(facts)

    return change


def refused_by_the_authority(facts: Facts) -> None:
    facts["host"]["limits"]["last"] = (
        "unable to generate a certificate: acme: error: 429 :: urn:ietf:params:acme:error:rateLimited :: too many "
        "certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after 2026-12-01 "
        "10:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/"
    )


def nobody(why: str) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        facts["reached"] = {"ok": False, "tried": [{"ok": False, "user": user, "why": why} for user in ("ada", "root")]}
        facts["host"] = None

    return change


CAA_OTHER = {"at": "shop.net", "records": [{"critical": False, "tag": "issue", "value": "pki.goog"}]}
CAA_NOBODY = {"at": "shop.net", "records": [{"critical": False, "tag": "issue", "value": ";"}]}
CAA_STRANGE = {"at": SITE, "records": [{"critical": True, "tag": "tbs", "value": "x"}]}
DECRYPTION = "Decryption failed (no vault secrets were found that could decrypt)."
KEYLESS = {"file": "", "own": [], "agent": False}

# What is wrong, the check whose line says so, how bad it is, what it says, and what its remedy says.
MISTAKES: dict[str, tuple[Callable[[Facts], None], str, str, str, str]] = {
    "the example's domain": (put("values/domain", "<www.your-company.net>"), "inventory", "wrong", "berth_domain", "Fill in"),
    "the example's address": (put("values/address", "<address of the server>"), "inventory", "wrong", "ansible_host", "hosts.yml"),
    "the example's sender": (put("values/mail_from", "<Your site no-reply@your-company.net>"), "inventory", "wrong", "berth_mail_from", "Fill in"),
    "the example's admin": (put("values/admins", [{"name": "<ada>"}]), "inventory", "wrong", "berth_admins", "Fill in"),
    "no mail server": (put("values/smtp_host", ""), "inventory", "wrong", "missing: berth_smtp_host", "Fill in"),
    "a file that is no YAML": (put("unread", {"main.yml": "YAML parsing failed: line 3"}), "inventory", "wrong", "main.yml", "Correct"),
    "an undefined secret": (put("errors", {"backup_targets": "'vault_bucket' is undefined"}), "inventory", "wrong", "vault_bucket", "vault.yml"),
    "a variable that nobody reads": (put("values/variable_problems", ["berth_domian is not known: berth_domain?"]), "inventory", "wrong", "berth_domian", "corrected"),
    "another vault password": (put("unread", {"vault.yml": DECRYPTION}), "vault", "wrong", "does not open vault.yml", "password"),
    "no vault password": (
        both(put("unread", {"vault.yml": DECRYPTION}), put("controller/vault/exists", False)), "vault", "wrong", "there is no .vault-password", "copy"),
    "a value that does not decrypt": (put("errors", {"smtp_password": DECRYPTION}), "vault", "wrong", "the secrets", "password"),
    "a vault password for all to read": (put("controller/vault/mode", 0o644), "vault", "warning", "0644", "chmod 0600"),
    "a secret that is an example": (
        put("values/environment_problems", ["environment_jwt_secret_key (in this project: vault_jwt_secret_key in vault.yml) is still an example. Make one."]),
        "secrets", "wrong", "vault_jwt_secret_key", "Make one"),
    "no secrets": (
        put("values/environment_problems", [f"x (in this project: vault_{name} in vault.yml) is missing. Make one." for name in "abc"]),
        "secrets", "wrong", "vault_a, vault_b, vault_c", "new_environment.yml"),
    "a backup without a password": (put("values/backup_problems", ["backup_password is missing"]), "secrets", "wrong", "backup_password", "vault.yml"),
    "a key that is not there": (put("controller/key/exists", False), "key", "wrong", "does not exist", "ssh-keygen"),
    "a key for all to read": (put("controller/key/mode", 0o644), "key", "wrong", "0644", "chmod 0600"),
    "no key at all": (both(nobody("Permission denied"), put("controller/key", KEYLESS)), "key", "wrong", "no key in ~/.ssh", "ssh-keygen"),
    "images not built": (put("controller/images/absent", ["localhost/berth/frontend:1"]), "images", "wrong", "localhost/berth/frontend:1", "make images"),
    "stand-in images": (put("controller/images/stand_ins", ["a:1"]), "images", "wrong", "a:1", "IMAGES=registry"),
    "images of another architecture": (put("host/system/architecture", "aarch64"), "images", "wrong", "amd64, the host is arm64", "linux/arm64"),
    "no Docker on the controller": (put("controller/images", {"ok": False, "said": "no socket"}), "images", "wrong", "no socket", "registry"),
    "a key that the server does not know": (nobody("Permission denied (publickey)"), "ssh", "wrong", "publickey", "berth_first_login"),
    "a server that is off": (nobody("Connection timed out"), "ssh", "wrong", "timed out", "provider's firewall"),
    "another SSH port": (nobody("Connection refused"), "ssh", "wrong", "refused", "ansible_port"),
    "admins of another form": (nobody("Error processing keyword 'remote_user'"), "ssh", "wrong", "remote_user", "berth_admins"),
    "nobody who looks from outside": (both(put("outside", None), put("outside_error", "no such host")), "ports", "wrong", "no such host", "stack_outside_from"),
    "another host key": (nobody("Host key checking is enabled"), "ssh", "wrong", "Host key", "ssh-keygen -R"),
    "a name that is none": (nobody("Could not resolve hostname"), "ssh", "wrong", "resolve", "ansible_host"),
    "sudo that asks for a password": (both(put("host", None), put("host_error", "sudo: a password is required")), "root", "wrong", "password", "sudo"),
    "A leads elsewhere": (put(f"outside/dns/{SITE}/A", [ELSEWHERE]), "dns", "wrong", ELSEWHERE, "A record"),
    "AAAA leads elsewhere": (put(f"outside/dns/{SITE}/AAAA", ["2001:db8::9"]), "dns", "wrong", "2001:db8::9", "remove it"),
    "one of two addresses leads elsewhere": (put(f"outside/dns/{SITE}/A", [ADDRESS, ELSEWHERE]), "dns", "warning", ELSEWHERE, "A record"),
    "a name that leads nowhere": (put("outside/dns/shop.net", {"A": [], "AAAA": []}), "dns", "wrong", "no A record", "Create an A record"),
    "name servers that fail": (put("outside/dns/shop.net", {"error": "SERVFAIL"}), "dns", "wrong", "SERVFAIL", "name servers"),
    "CAA for another authority": (put(f"outside/caa/{SITE}", CAA_OTHER), "caa", "wrong", "only pki.goog", '0 issue "letsencrypt.org"'),
    "CAA for nobody": (put(f"outside/caa/{SITE}", CAA_NOBODY), "caa", "wrong", "only nobody", '0 issue "letsencrypt.org"'),
    "CAA that authorities do not know": (put(f"outside/caa/{SITE}", CAA_STRANGE), "caa", "wrong", "tbs", "Remove"),
    "name servers that fail at CAA": (put(f"outside/caa/{SITE}", {"error": "SERVFAIL"}), "caa", "wrong", "SERVFAIL", "name servers"),
    "the provider's firewall": (put(f"outside/ports/{ADDRESS}/80", "filtered"), "ports", "wrong", "on the way", "Allow 80/tcp"),
    "the provider's firewall, for IPv6": (put(f"outside/ports/{ADDRESS6}/443", "filtered"), "ports", "wrong", "on the way", "Allow 443/tcp"),
    "a firewall of the host": (
        both(fresh, put(f"outside/ports/{ADDRESS}/443", "filtered"), put("host/firewall/others", ["ip filter"])), "ports", "wrong", "ip filter", "Allow port 443"),
    "another web server": (both(fresh, put(f"outside/ports/{ADDRESS}/80", "open"), put("host/listeners", {"80": ["apache2"]})), "ports", "wrong", "apache2", "systemctl"),
    "an edge that is down": (both(put(f"outside/ports/{ADDRESS}/443", "refused"), put("host/listeners", {})), "ports", "wrong", "nothing answers", "status.yml"),
    "a database on the internet": (put(f"outside/ports/{ADDRESS}/27017", "open"), "ports", "wrong", "27017", "nft list ruleset"),
    "a database on the internet, before the first run": (both(fresh, put(f"outside/ports/{ADDRESS}/6379", "open")), "ports", "warning", "6379", "closes"),
    "another system": (put("host/system", healthy()["host"]["system"] | {"id": "ubuntu", "name": "Ubuntu 24.04", "version": "24.04"}), "system", "wrong", "Ubuntu", "Debian 13"),
    "an old Debian": (put("host/system/version", "11"), "system", "wrong", "Debian", "Debian 13"),
    "Debian 12": (put("host/system/version", "12"), "system", "wrong", "compose", "docker_packages_source"),
    "Debian 12 with Docker's packages": (both(put("host/system/version", "12"), put("values/docker_source", "docker")), "system", "warning", "tests run on Debian 13", "upgrade"),
    "no systemd": (put("host/system/systemd", False), "system", "wrong", "not started by systemd", "systemd"),
    "a CPU without AVX": (put("host/system/flags", ["sse2"]), "cpu", "wrong", "without avx", "CPU model"),
    "another architecture": (put("host/system/architecture", "riscv64"), "cpu", "wrong", "riscv64", "x86_64"),
    "little memory": (put("host/memory_mb", 900), "memory", "wrong", "900 MB", "base_minimum_memory_mb"),
    "little disk": (lambda facts: facts["host"]["disks"]["/"].update(free_mb=100), "disk", "wrong", "base_minimum_disk_mb", "Free some space"),
    "little disk for Docker": (lambda facts: facts["host"]["disks"]["/var/lib/docker"].update(free_mb=4050), "disk", "wrong", "stack_disk_free_gib", "Free some space"),
    "few inodes": (lambda facts: facts["host"]["disks"]["/"].update(inodes_free_percent=1), "disk", "wrong", "inodes", "du --inodes"),
    "a clock that is wrong": (both(put("offset", 400.0), put("host/acme/offset", 400.0)), "clock", "wrong", "400 s ahead", "chrony"),
    "a clock that is wrong, without an authority": (both(put("offset", -90.0), put("host/acme", {"ok": False, "said": "no"})), "clock", "wrong", "90 s behind", "chrony"),
    "a controller's clock that is wrong": (put("offset", -90.0), "clock", "warning", "controller's is 90 s ahead", "controller's clock"),
    "nobody sets the clock": (put("host/clock/synchronized", False), "clock", "warning", "no time server", "chrony"),
    "a time zone that is none": (both(put("host/zone", False), put("values/timezone", "Mars/Base")), "clock", "wrong", "Mars/Base", "base_timezone"),
    "a restart that is due": (put("host/updates/reboot", True), "updates", "warning", "reboot", "base_upgrades_reboot"),
    "a container that is gone": (
        put("host/missing", [{"what": "container mongo is missing", "fix": "ansible-playbook ansible/upgrade_data.yml -i inventories/<env>"}]),
        "missing", "wrong", "container mongo is missing", "upgrade_data.yml -i inventories/production"),
    "a unit that is gone": (put("host/missing", [{"what": "berth-edge.service is not enabled", "fix": ""}]), "missing", "wrong", "berth-edge.service", "status.yml"),
    "no way to the packages": (put("host/archives/deb.example.org", {"ok": False, "said": "timed out"}), "archives", "wrong", "timed out", "DNS"),
    "no way to the authority": (put("host/acme", {"ok": False, "said": "timed out"}), "acme", "wrong", "timed out", "traefik_acme_directory"),
    "staging": (put("values/staging", True), "staging", "warning", "no browser trusts", "traefik_acme_staging"),
    "too many certificates": (refused_by_the_authority, "limits", "wrong", "too many", "Wait until 2026-12-01 10:00:00 UTC"),
    "Traefik's own certificate": (put("host/certificate/issuer", "CN=TRAEFIK DEFAULT CERT"), "certificate", "wrong", "Traefik's own", "acme"),
    "a certificate that is not renewed": (put("host/certificate/days", 15.0), "certificate", "warning", "15 days", "CertificateExpiresSoon"),
    "a certificate at its end": (put("host/certificate/days", 3.0), "certificate", "wrong", "3 days", "CertificateExpiresSoon"),
    "a certificate without an alias": (put("host/certificate/names", [SITE]), "certificate", "wrong", "not for shop.net", "site.yml"),
    "no way to the mail server": (put("host/smtp", {"ok": False, "step": "connecting", "said": "timed out"}), "smtp", "wrong", "timed out", "block outgoing mail"),
    "another name in the mail server's certificate": (put("host/smtp", {"ok": False, "step": "STARTTLS", "said": "mismatch"}), "smtp", "wrong", "STARTTLS", "berth_smtp_security"),
    "another mail password": (put("host/smtp", {"ok": False, "step": "login", "said": "535 no", "code": 535}), "smtp", "wrong", "535", "vault_smtp_password"),
    "a sender that is refused": (put("host/smtp", {"ok": False, "step": "sender", "said": "553 no", "code": 553}), "smtp", "wrong", "553", "berth_mail_from"),
    "greylisting": (put("host/smtp", {"ok": False, "step": "recipient", "said": "451 later", "code": 451}), "smtp", "warning", "451", "berth_operator_mail"),
    "no backups": (both(put("values/backup_settings", []), put("host/backups", {})), "backups", "warning", "no backups", "Name a backup target"),
    "another backup password": (put("host/backups/store", {"ok": False, "password": True, "said": "does not open"}), "backups", "wrong", "does not open", "password"),
    "other credentials of the store": (put("host/backups/store", {"ok": False, "status": 401, "said": "refuses (401)"}), "backups", "wrong", "401", "credentials"),
    "a store that is away": (put("host/backups/store", {"ok": False, "said": "timed out"}), "backups", "wrong", "timed out", "address"),
    "another registry password": (put("host/registry", {"ok": False, "status": 401, "said": "", "anonymous": False}), "registry", "wrong", "refuses the login", "vault_registry_password"),
    "no registry password": (put("host/registry", {"ok": False, "status": 401, "said": "", "anonymous": True}), "registry", "wrong", "asks for a login", "berth_registry_username"),
    "no way to the registry": (put("host/registry", {"ok": False, "said": "timed out"}), "registry", "wrong", "timed out", "berth_image_prefix"),
    "a log server that is away": (put("host/log_servers/loki", {"ok": False, "said": "Connection refused"}), "logs", "wrong", "refused", "berth_log_servers"),
    "another token of a log server": (put("host/log_servers/loki", {"ok": False, "status": 401, "said": "HTTP 401"}), "logs", "wrong", "401", "token"),
    "another path of the collector": (put("host/traces", {"ok": False, "status": 404, "said": "HTTP 404"}), "traces", "wrong", "404", "berth_traces_endpoint"),
    "a webhook that is away": (put("host/web/vault_monitoring_webhook_url", {"ok": False, "said": "no"}), "web", "wrong", "no", "vault_monitoring_webhook_url"),
}  # fmt: skip


@pytest.mark.parametrize(("mistake", "check", "status", "seen", "remedy"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_a_line_with_its_remedy(
    mistake: Callable[[Facts], None], check: str, status: str, seen: str, remedy: str
) -> None:
    facts = healthy()
    mistake(facts)
    found = [line for line in lines(facts) if line["check"] == check and line["status"] == status]
    assert found, [line for line in lines(facts) if line["status"] != "ok"]
    assert any(seen in line["seen"] and remedy in line["remedy"] for line in found), found


@pytest.mark.parametrize("mistake", [one[0] for one in MISTAKES.values()], ids=MISTAKES)
def test_a_line_that_is_not_right_always_has_a_remedy(mistake: Callable[[Facts], None]) -> None:
    facts = healthy()
    mistake(facts)
    assert all(line["remedy"] for line in lines(facts) if line["status"] in ("wrong", "warning"))


@pytest.mark.parametrize(
    ("program", "lacks"),
    [
        (
            '[ "$*" = "status --json" ] && echo \'{"missing": [{"what": "a", "fix": "b"}]}\'',
            [{"what": "a", "fix": "b"}],
        ),
        # One that does not compare yet, one that knows no --json, one that is refused, and a screen for people.
        ('echo \'{"live": "1.0 blue"}\'', []),
        ("echo usage: berth >&2; exit 2", []),
        ('echo \'{"reason": "Docker does not answer"}\'; exit 1', []),
        ("echo live: 1.0", []),
        ("echo []", []),
        (None, []),
    ],
)
def test_what_the_host_itself_misses_is_asked_of_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, lacks: list[dict[str, str]]
) -> None:
    if program:
        (tmp_path / "berth").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "berth").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert host.missing() == lacks


def test_an_unreachable_host_leaves_controller_names_and_ports() -> None:
    facts = healthy()
    nobody("Connection timed out")(facts)
    facts["values"]["public_addresses"] = None
    found = {line["check"]: line["status"] for line in lines(facts)}
    assert (found["inventory"], found["caa"], found["ports"], found["ssh"]) == ("ok", "ok", "ok", "wrong")
    assert found["host"] == "skipped"
    # Of its IPv6 address nobody has told.
    dns = [(line["subject"], line["status"]) for line in lines(facts) if line["check"] == "dns"]
    assert dns[:2] == [(f"DNS {SITE} A", "ok"), (f"DNS {SITE} AAAA", "skipped")]


def test_public_addresses_behind_address_translation_say_nothing_of_ipv6() -> None:
    facts = healthy()
    facts["values"] |= {"public_addresses": [ADDRESS], "own_addresses": ["10.0.0.5", ADDRESS6]}
    assert "wrong" not in {line["status"] for line in lines(facts)}
    facts["outside"]["dns"][SITE]["A"] = ["10.0.0.5"]
    assert "wrong" in {line["status"] for line in lines(facts)}


def test_a_name_may_lead_to_the_proxies_in_front() -> None:
    facts = healthy()
    facts["values"]["trusted_proxies"] = ["198.18.0.0/15"]
    put(f"outside/dns/{SITE}/A", ["198.18.5.7"])(facts)
    assert [line["status"] for line in lines(facts) if line["subject"] == f"DNS {SITE} A"] == ["ok"]
    put(f"outside/dns/{SITE}/A", [ELSEWHERE])(facts)
    assert [line["status"] for line in lines(facts) if line["subject"] == f"DNS {SITE} A"] == ["warning"]


def test_a_name_that_its_owner_checks_himself_is_no_error() -> None:
    facts = healthy()
    facts["outside"]["dns"][SITE]["A"] = [ELSEWHERE]
    facts["values"]["domain_check"] = "warn"
    assert "wrong" not in {line["status"] for line in lines(facts)}


# --- What is asked ---


def test_an_image_prefix_names_its_registry() -> None:
    def registry(prefix: str) -> tuple[str, str, str]:
        given = {"transport": "registry", "image_prefix": prefix, "own_images": ["web", "jobs"]}
        found = asked.for_host(given)["registry"]
        return found["scheme"], found["host"], found["repository"]

    assert registry("registry.x.net/shop") == ("https", "registry.x.net", "shop/web")
    assert registry("localhost:5000/shop") == ("http", "localhost:5000", "shop/web")
    own = {"own_images": ["web"]}
    assert asked.for_host({"transport": "registry", "image_prefix": "shop", **own})["registry"] is None
    # Of an application whose compose file cannot be read, no image is known.
    assert asked.for_host({"transport": "registry", "image_prefix": "registry.x.net/shop"})["registry"] is None
    assert asked.for_host({"transport": "archive", "image_prefix": "registry.x.net/shop"})["registry"] is None


def test_what_is_not_filled_in_is_not_asked() -> None:
    values = {
        "address": "<address of the server>",
        "domain": "<www.your-company.net>",
        "smtp_host": "<smtp.your-provider.net>",
    }
    questions = asked.for_outside(values)
    assert (questions["names"], questions["address"]) == ([], "")
    assert asked.for_host(values)["smtp"] is None


def test_no_secret_stands_in_an_answer() -> None:
    secrets = asked.secrets({"a": ["hunter22"], "b": {"c": "hunter22-and-more", "d": "ab"}})
    assert host.masked({"x": ["it was hunter22-and-more, ab"]}, secrets) == {"x": ["it was ***, ab"]}


# --- DNS and ports ---


class Resolver(socketserver.ThreadingUDPServer):
    """Answers questions from a list, as a resolver does."""

    allow_reuse_address = True

    def __init__(self, records: dict[tuple[str, int], list[bytes]], code: int = 0) -> None:
        self.records, self.code = records, code
        super().__init__(("127.0.0.1", 0), ResolverAnswer)


class ResolverAnswer(socketserver.BaseRequestHandler):
    server: Resolver

    def handle(self) -> None:
        message, plain = cast(tuple[bytes, socket.socket], self.request)
        end = outside.skip_name(message, 12)
        labels, at = [], 12
        while message[at]:
            labels.append(message[at + 1 : at + 1 + message[at]].decode())
            at += message[at] + 1
        (kind,) = struct.unpack("!H", message[end : end + 2])
        found = self.server.records.get((".".join(labels), kind), [])
        answers = b"".join(b"\xc0\x0c" + struct.pack("!2HIH", kind, 1, 60, len(data)) + data for data in found)
        head = message[:2] + struct.pack("!5H", 0x8180 | self.server.code, 1, len(found), 0, 0)
        plain.sendto(head + message[12 : end + 4] + answers, self.client_address)


@contextmanager
def served(server: socketserver.TCPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield str(server.socket.getsockname()[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_names_are_asked_for_addresses_and_for_the_nearest_caa() -> None:
    caa = b"\0\5issueletsencrypt.org"
    records = {
        (SITE, outside.A): [socket.inet_aton(ADDRESS)],
        (SITE, outside.AAAA): [socket.inet_pton(socket.AF_INET6, ADDRESS6)],
        ("shop.net", outside.CAA): [caa],
    }
    with served(Resolver(records)) as port:
        resolvers = [f"127.0.0.1#{port}"]
        assert outside.addresses_of(SITE, resolvers, 2) == {"A": [ADDRESS], "AAAA": [ADDRESS6]}
        assert outside.caa_of(SITE, resolvers, 2) == {
            "at": "shop.net",
            "records": [{"critical": False, "tag": "issue", "value": "letsencrypt.org"}],
        }
        assert outside.caa_of("other.org", resolvers, 2) == {"at": "", "records": []}


def test_a_resolver_that_fails_is_not_a_name_without_addresses() -> None:
    with served(Resolver({}, code=2)) as port:
        assert "SERVFAIL" in outside.addresses_of(SITE, [f"127.0.0.1#{port}"], 2)["error"]
    assert "does not answer" in outside.caa_of(SITE, ["127.0.0.1#9"], 0.2)["error"]


def test_a_port_is_open_or_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert outside.knock("127.0.0.1", port, 2) == "open"
    assert outside.knock("127.0.0.1", port, 2) == "refused"


# --- Whom the host reaches ---


class Recorder(BaseHTTPRequestHandler):
    """Answers from a function of method, path and Authorization."""

    answer: Callable[[str, str, str], tuple[int, dict[str, str], bytes]]

    def handle_any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = type(self).answer(self.command, self.path, self.headers.get("Authorization", ""))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = handle_any  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


def web(answer: Callable[[str, str, str], tuple[int, dict[str, str], bytes]]) -> ThreadingHTTPServer:
    handler = type("Handler", (Recorder,), {"answer": staticmethod(answer)})
    return ThreadingHTTPServer(("127.0.0.1", 0), handler)


LOGIN = "Basic " + base64.b64encode(b"shop:right").decode()


def test_a_registry_takes_a_token_that_a_password_buys() -> None:
    where: dict[str, str] = {}

    def answer(_: str, path: str, login: str) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/token"):
            assert "scope=repository%3Ashop%2Fweb%3Apull" in path
            return (200, {}, b'{"token": "t1"}') if login == LOGIN else (401, {}, b"")
        realm = f'Bearer realm="http://127.0.0.1:{where["port"]}/token",service="r"'
        return (200, {}, b"{}") if login == "Bearer t1" else (401, {"WWW-Authenticate": realm}, b"")

    with served(web(answer)) as port:
        where["port"] = port
        one = {"scheme": "http", "host": f"127.0.0.1:{port}", "repository": "shop/web", "username": "shop"}
        assert host.registry(one | {"password": "right"})["ok"]
        assert host.registry(one | {"password": "wrong"}) == {
            "ok": False, "status": 401, "said": "HTTP 401", "anonymous": False,
        }  # fmt: skip


def test_a_store_is_asked_with_its_credentials_before_restic_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)

    def answer(method: str, path: str, login: str) -> tuple[int, dict[str, str], bytes]:
        assert (method, path) == ("HEAD", "/berth/config")
        return (404, {}, b"") if login == LOGIN else (401, {}, b"")

    with served(web(answer)) as port:
        target = {"repository": f"rest:http://127.0.0.1:{port}/berth", "files": []}
        good = {"RESTIC_REST_USERNAME": "shop", "RESTIC_REST_PASSWORD": "right"}
        assert host.backup(target | {"environment": good})["ok"]
        refused = host.backup(target | {"environment": good | {"RESTIC_REST_PASSWORD": "wrong"}})
        assert (refused["ok"], refused["status"]) == (False, 401)


def test_a_directory_that_is_none_is_no_authority() -> None:
    with served(web(lambda *_: (200, {}, b'{"hello": 1}'))) as port:
        assert not host.acme({"directory": f"http://127.0.0.1:{port}/", "ca": ""})["ok"]


class MailServer(socketserver.StreamRequestHandler):
    """Speaks enough SMTP to refuse a password, a sender, or a recipient."""

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        for raw in self.rfile:
            line = raw.decode().strip().upper()
            said = "250 fine"
            if line.startswith("EHLO"):
                said = "250-mail\r\n250 AUTH PLAIN"
            elif line.startswith("AUTH"):
                token = base64.b64decode(raw.split()[-1]).decode()
                said = "235 fine" if token.endswith("\0right") else "535 no"
            elif line.startswith("MAIL FROM:<STRANGER"):
                said = "553 not you"
            elif line.startswith("DATA"):
                said = "554 no mail was asked for"
            elif line.startswith("QUIT"):
                said = "221 bye"
            self.wfile.write(said.encode() + b"\r\n")


def test_mail_is_tried_up_to_the_recipient_and_none_is_sent() -> None:
    with served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailServer)) as port:
        one = {
            "host": "127.0.0.1", "port": port, "security": "none", "username": "shop", "password": "right",
            "sender": "Shop <no-reply@shop.net>", "operator": "ada@shop.net", "mail_to": "", "domain": SITE,
        }  # fmt: skip
        assert host.smtp(one)["ok"]
        assert host.smtp(one | {"password": "wrong"})["step"] == "login"
        assert host.smtp(one | {"sender": "stranger@shop.net"})["step"] == "sender"
        assert host.smtp(one | {"mail_to": "me@shop.net"}) == {
            "ok": False, "step": "mail", "said": "554 no mail was asked for", "code": 554,
        }  # fmt: skip
    assert host.smtp(one)["step"] == "connecting"


def test_files_for_ssh_and_restic_leave_nothing() -> None:
    with host.folder_in_memory([{"name": "store.key", "content": "secret"}]) as folder:
        file = Path(folder, "store.key")
        assert (file.read_text(), file.stat().st_mode & 0o777) == ("secret", 0o600)
    assert not Path(folder).exists()


def test_the_program_for_the_host_runs_by_itself_with_its_questions_on_standard_input() -> None:
    questions = asked.for_host({"timezone": "Etc/UTC", "secrets": ["Linux-secret"]})
    source = Path(host.__file__).read_text()
    done = subprocess.run(
        ["python3", "-c", source], input=json.dumps(questions), capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert found["memory_mb"] > 0
    assert set(found["disks"]) == {"/", "/var/lib/docker"}


# --- The controller ---


def test_encrypted_files_are_found_and_an_open_key_is_seen(tmp_path: Path) -> None:
    (tmp_path / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n00\n")
    (tmp_path / "main.yml").write_text("a: 1\n")
    (tmp_path / "key").touch(mode=0o644)
    found = controller.vault(str(tmp_path), str(tmp_path / "missing"))
    assert (found["encrypted"], found["exists"]) == ([str(tmp_path / "vault.yml")], False)
    assert controller.key(str(tmp_path / "key"))["mode"] == 0o644
    assert not controller.key(str(tmp_path / "none"))["exists"]


# --- The table and the playbook ---


def test_the_table_fits_the_terminal() -> None:
    facts = healthy()
    for mistake, *_ in list(MISTAKES.values())[-30:]:
        mistake(facts)
    found = lines(facts)
    for width in (79, 99):
        assert max(len(row) for row, _ in table.rows(found, width)) <= width
    assert table.summary([{"status": "ok"}, {"status": "wrong"}, {"status": "ok"}]) == "2 ok, 1 wrong"


@pytest.fixture
def no_server(tmp_path: Path) -> Callable[..., tuple[int, str, list[dict[str, str]]]]:
    """Run the playbook on an inventory that is the example's, with a vault that another password encrypts."""
    folder = tmp_path / "inventories" / "shop"
    shutil.copytree(ROOT / "inventories" / "production", folder)
    for name in ("images", "services", "frontend"):
        (tmp_path / name).symlink_to(ROOT / name)

    def run(*arguments: str) -> tuple[int, str, list[dict[str, str]]]:
        found = tmp_path / "lines.json"
        done = subprocess.run(
            ["ansible-playbook", "ansible/doctor.yml", "-i", str(folder), "-e", f"doctor_json={found}", *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "password"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        )  # fmt: skip
        lines = [one for host_lines in json.loads(found.read_text())["hosts"].values() for one in host_lines]
        return done.returncode, done.stdout + done.stderr, lines

    (tmp_path / "password").write_text("the right one\n")
    (tmp_path / "password").chmod(0o600)
    vault = folder / "group_vars" / "all" / "vault.yml"
    vault.write_text("vault_smtp_password: hunter2-of-the-shop\n")
    subprocess.run(
        ["ansible-vault", "encrypt", str(vault)], cwd=tmp_path, check=True, capture_output=True,
        env={**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "password")},
    )  # fmt: skip
    (tmp_path / "password").write_text("another one\n")
    return run


def test_before_there_is_a_server_the_table_says_what_to_fill_in(
    no_server: Callable[..., tuple[int, str, list[dict[str, str]]]],
) -> None:
    status, said, found = no_server()
    wrong = {line["check"]: line for line in found if line["status"] == "wrong"}
    assert status != 0, said
    assert "ansible_host" in wrong["inventory"]["seen"]
    assert "does not open" in wrong["vault"]["seen"]
    assert "changed=0" in said
    assert "Traceback" not in said
    # The application's compose file is read without a word.
    assert "WARNING" not in said
