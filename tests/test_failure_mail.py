"""The mail about a failed unit leaves whatever the sender is called and whatever the unit wrote: roles/base."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT, rendered

INVENTORY = ROOT / "inventories/production"


UNIT = "berth-backup.service"
BEGAN = 1795919400_000000  # 2026-11-29 02:30:00 UTC
SYSTEMD = {"UNIT": UNIT, "INVOCATION_ID": "b"}


def wrote(*lines: str | bytes, run: str = "b") -> list[dict[str, Any]]:
    """Return these lines as the journal has them; what is no text is a list of numbers there."""
    return [
        {"_SYSTEMD_UNIT": UNIT, "_SYSTEMD_INVOCATION_ID": run, "MESSAGE": list(one) if isinstance(one, bytes) else one}
        for one in lines
    ]


def failed(*lines: str | bytes, status: str = "1") -> list[dict[str, Any]]:
    return [
        {**SYSTEMD, "MESSAGE": f"Starting {UNIT}..."},
        *wrote(*lines),
        {**SYSTEMD, "MESSAGE": "Main process exited.", "EXIT_CODE": "exited", "EXIT_STATUS": status},
        {**SYSTEMD, "MESSAGE": "Failed with result 'exit-code'.", "UNIT_RESULT": "exit-code"},
    ]


def sent(
    folder: Path, journal: list[dict[str, Any]], sender: str = "root <root@host.example.com>", unit: str = UNIT
) -> EmailMessage | None:
    """Render the program, run it with a journal that has this of the unit, and return what sendmail got."""
    program = folder / "berth-failure-mail"
    values = {
        "base_mail_from": sender,
        "base_mail_to": "you@example.com",
        "ansible_inventory_sources": [str(INVENTORY)],
    }
    program.write_text(
        rendered("base", "usr/local/libexec/berth-failure-mail", role_path=str(ROOT / "roles/base"), **values)
    )
    timed = [
        {**entry, "__REALTIME_TIMESTAMP": str(BEGAN + number * 10_000_000)} for number, entry in enumerate(journal)
    ]
    (folder / "journal").write_text("".join(json.dumps(entry) + "\n" for entry in timed))
    does = {
        "systemctl": "echo Back up databases and files",
        "journalctl": f"[ \"$*\" = --sync ] || cat '{folder}/journal'",
        "sendmail": f"cat > '{folder}/mail'",
    }
    for name, line in does.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(program), unit],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    mail = folder / "mail"
    return message_from_bytes(mail.read_bytes(), policy=default) if mail.exists() else None


def told(folder: Path, journal: list[dict[str, Any]], unit: str = UNIT) -> str:
    mail = sent(folder, journal, unit=unit)
    assert mail
    return str(mail.get_content())


@pytest.mark.parametrize(
    ("sender", "name"),
    [
        ("root <root@host.example.com>", "root"),
        ("root@host.example.com", ""),
        ("Your $ite <root@host.example.com>", "Your $ite"),
        ('"Joe\'s `id` \\\\ $(id), & {Söhne} %d" <root@host.example.com>', "Joe's `id` \\ $(id), & {Söhne} %d"),
        ("ショップ 🛥 <root@host.example.com>", "ショップ 🛥"),
    ],
)
def test_the_sender_arrives_as_it_is_written(tmp_path: Path, sender: str, name: str) -> None:
    mail = sent(tmp_path, failed("last words"), sender)
    assert mail
    [address] = mail["From"].addresses
    assert (address.display_name, address.addr_spec) == (name, "root@host.example.com")
    assert mail["To"] == "you@example.com"
    assert mail["Subject"].startswith("berth-backup.service failed on ")
    assert "last words" in mail.get_content()


@pytest.mark.parametrize("sender", ["root@host.example.com", '"Joe\'s $hop \\"x\\"" <root@host.example.com>'])
def test_configuration_files_take_the_address_alone(sender: str) -> None:
    values = {"base_mail_from": sender, "base_mail_to": "you@example.com", "base_mail_host": "smtp.example.com"}
    assert "\nfrom root@host.example.com\n" in rendered("base", "etc/msmtprc", **values)
    assert 'Sender "root@host.example.com";' in rendered("base", "etc/apt/apt.conf.d/60berth-upgrades", **values)


def test_what_the_unit_wrote_is_told_even_when_it_is_no_text(tmp_path: Path) -> None:
    lines = failed(b"disk \xff full", "END", ".", "last: ä")
    assert told(tmp_path, lines).endswith("Its last lines:\ndisk \\xff full\nEND\n.\nlast: ä\n")


def test_the_mail_says_why_which_run_and_what_to_type_next_and_where(tmp_path: Path) -> None:
    answer = json.dumps({"at": "x", "reason": "Target bucket does not answer.", "lines": ["dial tcp"]})
    assert told(tmp_path, failed("mongo: 12 bytes", answer, "  dial tcp")).splitlines()[:5] == [
        f"{UNIT} failed on {socket.gethostname()}. Its task: Back up databases and files.",
        "",
        "Reason: Target bucket does not answer.",
        "Run:    from 2026-11-29 02:30:00 UTC to 2026-11-29 02:30:50 UTC; exit status 1, result exit-code",
        "Next:   on the controller: ansible-playbook ansible/backup.yml -i inventories/production",
    ]


def test_where_a_program_gives_no_reason_its_last_line_does(tmp_path: Path) -> None:
    assert "\nReason: no space left\n" in told(tmp_path, failed("reading", "no space left", " "))
    assert "\nReason: it printed nothing\n" in told(tmp_path, failed())
    assert "it has no entries in the journal" in told(tmp_path, [])


def test_what_an_earlier_run_wrote_is_not_told(tmp_path: Path) -> None:
    before = wrote('{"reason": "yesterday"}', run="a")
    assert "yesterday" not in told(tmp_path, [*before, *failed("today")])


def test_of_a_request_that_was_refused_nobody_is_told_by_mail(tmp_path: Path) -> None:
    refused = json.dumps(
        {"reason": "ada@laptop has been running restore everything since 02:00. Wait until it is done."}
    )
    assert sent(tmp_path, failed(refused, status="3")) is None


@pytest.mark.parametrize(
    ("line", "status"), [('{"reason": "The disk is full."}', "1"), ("AIDE found differences", "3")]
)
def test_of_what_failed_the_operator_is_told_whatever_its_status(tmp_path: Path, line: str, status: str) -> None:
    assert sent(tmp_path, failed(line, status=status))


def test_an_instance_is_named_in_the_command(tmp_path: Path) -> None:
    assert "Next:   on the host: sudo journalctl -u other@x.service -n 100\n" in told(
        tmp_path, failed("x"), "other@x.service"
    )
    assert "ansible/backup.yml" in told(tmp_path, failed("x"), "berth-backup@ada@laptop.service")


def test_every_unit_that_is_installed_or_told_of_has_a_next_command() -> None:
    known = yaml.safe_load((ROOT / "roles/base/vars/main.yml").read_text())["_base_mail_next"]
    listed = subprocess.run(["git", "ls-files", "roles"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = re.findall(
        r"^roles/\w+/(?:files|templates)/.*?([\w@-]+)\.(?:service|timer)(?:\.j2)?$", listed, re.MULTILINE
    )
    # One template for all of them.
    text = (ROOT / "roles/backup/vars/main.yml").read_text()
    backups = [*yaml.safe_load(text)["_backup_units"], *re.findall(r"'(berth-[a-z-]+@)\.service'", text)]
    # Made for a while.
    sources = [
        path.read_text()
        for folder in ("berth", "roles/firewall", "roles/hardening")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".yml")
    ]
    transient = re.findall(r"(?:--unit=|launch\(\s*\"|\bUNIT = \")(berth-[a-z-]+)", "\n".join(sources))
    assert {"berth-release", "berth-restore", "berth-backup-rekey"} <= set(transient)
    mailed = yaml.safe_load((ROOT / "roles/base/defaults/main.yml").read_text())["base_mail_units"]
    # A mail that cannot be sent is not told by mail.
    wanted = {*files, *backups, *transient, *mailed} - {"berth-failure-mail@"}
    assert wanted - set(known) == set()
    assert set(known) - wanted == set()
    assert {entry["where"] for entry in known.values()} == {"the host", "the controller"}
