"""Judge outgoing connections: ACME authority, mail server, backup targets, registry, log servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from berth_doctor.asked import names
from berth_doctor.lines import MAIN, Facts, Line, ok, short, skipped, warning, wrong

CERTIFICATE_WRONG_DAYS, CERTIFICATE_WARNING_DAYS = 7, 21


def archives(host: Facts, _: Facts) -> Iterator[Line]:
    for name, found in host.get("archives", {}).items():
        if found["ok"] is False:
            yield wrong(
                "archives",
                f"Packages from {name}",
                found["said"],
                "Check the host's DNS and the provider's outgoing rules, or correct /etc/apt/sources.list.d.",
            )
        else:
            yield ok("archives", f"Packages from {name}", found["said"])


def acme(host: Facts, facts: Facts) -> Iterator[Line]:
    values, found = facts["values"], host.get("acme")
    directory = values.get("acme_directory")
    if not found:
        yield skipped("acme", "ACME authority", "not known until the inventory can be read")
        return
    if found["ok"] is False:
        yield wrong(
            "acme",
            "ACME authority",
            f"{directory}: {found['said']}",
            "Check traefik_acme_directory, the host's DNS and outgoing connections, and traefik_acme_ca_certificate "
            "for a private authority.",
        )
    else:
        yield ok("acme", "ACME authority", f"{directory} answers")
    if values.get("staging") or "staging" in str(directory):
        yield warning(
            "staging",
            "ACME staging",
            "on: no browser trusts its certificates",
            "Fine for tests; remove traefik_acme_staging before visitors come.",
        )
    limits = host.get("limits") or {}
    if limits.get("ok") is None or not host.get("provisioned"):
        yield skipped(
            "limits",
            "ACME limits",
            "no certificate requested by this host yet; requests of other hosts for the same names are not known",
        )
    elif limits["last"]:
        until = re.search(r"retry after ([0-9: UTC-]+)", limits["last"])
        yield wrong(
            "limits",
            "ACME limits",
            "the authority refused within the last week: too many certificates",
            (f"Wait until {until[1].strip()}. " if until else "Wait; the limits count a week. ")
            + "Keep the certificates (they are in backups), and use traefik_acme_staging for tests.",
        )
    else:
        yield ok("limits", "ACME limits", "no refusal within the last week")


def certificate(host: Facts, facts: Facts) -> Iterator[Line]:
    found, values = host.get("certificate"), facts["values"]
    if not found or not host.get("provisioned"):
        yield skipped("certificate", "Certificate", "none yet: the first run requests it")
        return
    if found["ok"] is not True:
        yield wrong(
            "certificate",
            "Certificate",
            f"the edge presents none ({found['said']})",
            "ansible/status.yml says what is running.",
        )
        return
    days, issuer = found["days"], _issuer(found["issuer"])
    lacking = [name for name in names(values) if not any(_covers(one, name) for one in found["names"])]
    if "TRAEFIK DEFAULT CERT" in issuer:
        yield wrong(
            "certificate",
            "Certificate",
            "Traefik's own self-signed one: the authority has issued none",
            "journalctl CONTAINER_NAME=berth-traefik_a-1 --grep=acme says why.",
        )
    elif lacking:
        yield wrong(
            "certificate",
            "Certificate",
            f"not for {', '.join(lacking)}",
            "Run site.yml; the lines on DNS and CAA say what may prevent it.",
        )
    elif days < CERTIFICATE_WARNING_DAYS:
        line = wrong if days < CERTIFICATE_WRONG_DAYS else warning
        yield line(
            "certificate",
            "Certificate",
            f"{days:.0f} days left, of {issuer}: it has not been renewed",
            "docs/runbooks/CertificateExpiresSoon.md; the lines on DNS, CAA and port 80 say what may prevent it.",
        )
    else:
        yield ok("certificate", "Certificate", f"{days:.0f} days left, of {issuer}")


def _issuer(text: str) -> str:
    found = re.search(r"CN\s*=\s*([^,/]+)", text)
    return found[1].strip() if found else text


def _covers(pattern: str, name: str) -> bool:
    return pattern == name or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:])


SMTP_REMEDIES = {
    "connecting": "Check berth_smtp_host, berth_smtp_port and berth_smtp_security "
    "(starttls: 587, tls: 465). Many providers block outgoing mail ports until one asks them.",
    "STARTTLS": "Set berth_smtp_security to what the server speaks (tls on port 465), and berth_smtp_host to the "
    "name in its certificate.",
    "login": "Correct berth_smtp_username, and vault_smtp_password in the vault.",
    "sender": "Set berth_mail_from to an address that this account may send from.",
    "recipient": "Correct berth_operator_mail (or doctor_mail).",
    "mail": "Read the mail server's log.",
}


def mail(host: Facts, facts: Facts) -> Iterator[Line]:
    found, values = host.get("smtp"), facts["values"]
    where = f"{values.get('smtp_host')}:{values.get('smtp_port')}"
    if not found:
        yield skipped("smtp", "Mail", "the mail server is not set")
    elif not found["ok"]:
        # 4xx is temporary; for the recipient it is mostly greylisting.
        line = warning if str(found.get("code", "")).startswith("4") and found["step"] == "recipient" else wrong
        yield line("smtp", "Mail", f"{where}, {found['step']}: {found['said']}", SMTP_REMEDIES[found["step"]])
    else:
        done = ", ".join(
            part
            for part in (
                {"starttls": "STARTTLS", "tls": "TLS"}.get(str(values.get("smtp_security")), "without TLS"),
                "login" if values.get("smtp_username") else "no login",
                "sender accepted",
            )
        )
        yield ok(
            "smtp",
            "Mail",
            f"{where}: {done}" + (f"; a test mail went to {values['mail_to']}" if values.get("mail_to") else ""),
        )


def backups(host: Facts, facts: Facts) -> Iterator[Line]:
    targets = {one["name"]: one["repository"] for one in facts["values"].get("backup_settings") or []}
    if not targets and facts["values"].get("backup_settings") is not None:
        yield warning(
            "backups",
            "Backups",
            "backup_targets is empty: no backups are made",
            f"Name a backup target in {MAIN}: docs/operations/backup.md.",
        )
    for name, found in (host.get("backups") or {}).items():
        subject, where = f"Backup target {name}", targets.get(name, "")
        if found["ok"] is False:
            remedy = (
                "Set the password that the repository was created with, or change it: docs/operations/backup.md."
                if found.get("password")
                else "Correct its credentials in `environment` (the secret is in the vault)."
                if found.get("status") in (401, 403)
                or re.search(
                    r"40[13]|denied|unauthori[sz]ed|credential|InvalidAccessKey|Signature", found["said"], re.I
                )
                else "Check its address in backup_targets, and the host's outgoing connections."
            )
            yield wrong("backups", subject, f"{where}: {short(found['said'])}", remedy)
        elif found["ok"] is None:
            yield ok("backups", subject, found["said"])
        else:
            yield ok(
                "backups",
                subject,
                "opens with its password" if found.get("opened") else "answers and accepts the credentials",
            )


def registry(host: Facts, facts: Facts) -> Iterator[Line]:
    found, prefix = host.get("registry"), facts["values"].get("image_prefix")
    if not found:
        return
    if found["ok"]:
        yield ok(
            "registry",
            "Image registry",
            f"{prefix}: " + ("answers without a login" if found["anonymous"] else "accepts the login"),
        )
    elif found.get("status") in (401, 403):
        yield wrong(
            "registry",
            "Image registry",
            f"{prefix}: " + ("asks for a login" if found["anonymous"] else "refuses the login"),
            "Set berth_registry_username, and vault_registry_password in the vault.",
        )
    else:
        yield wrong(
            "registry",
            "Image registry",
            f"{prefix}: {found['said']}",
            "Check berth_image_prefix, and the host's outgoing connections.",
        )


def log_servers(host: Facts, _: Facts) -> Iterator[Line]:
    for name, found in (host.get("log_servers") or {}).items():
        subject = f"Log server {name}"
        if found["ok"]:
            yield ok("logs", subject, found["said"])
        else:
            yield wrong("logs", subject, found["said"], _credentials(found, "berth_log_servers"))


def traces(host: Facts, facts: Facts) -> Iterator[Line]:
    found = host.get("traces")
    if found and found["ok"]:
        yield ok("traces", "Traces", f"{facts['values']['traces_endpoint']}: {found['said']}")
    elif found:
        yield wrong(
            "traces",
            "Traces",
            f"{facts['values']['traces_endpoint']}: {found['said']}",
            _credentials(found, "berth_traces_endpoint and vault_traces_headers"),
        )


def _credentials(found: dict[str, Any], variable: str) -> str:
    if found.get("status") in (401, 403):
        return f"Correct its token or password in {variable} (the secret is in the vault)."
    return f"Check address and certificates in {variable}, and the host's outgoing connections."


def web(host: Facts, _: Facts) -> Iterator[Line]:
    """Judge the addresses of webhook, dead man's switch and managed databases."""
    for variable, found in (host.get("web") or {}).items():
        if found["ok"] is False:
            yield wrong(
                "web", variable, found["said"], f"Check the address in {variable}, and the host's outgoing connections."
            )
        elif found["ok"]:
            yield ok("web", variable, found["said"])
