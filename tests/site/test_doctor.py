"""The doctor on the provisioned site: nothing wrong and nothing changed; each mistake really made is a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.support import Mailbox, operate, playbook, poll

Lines = list[dict[str, str]]
# What nobody but an operator's run writes while the site is in service.
STILL = "/etc /usr /boot /root /home /srv /opt/berth/.env /opt/berth/traefik /var/lib/dpkg"


def doctor(tmp_path: Path, **variables: Any) -> tuple[int, str, Lines]:
    """Run it; return its status, what an operator reads, and its lines."""
    file = tmp_path / "lines.json"
    status, said = operate(playbook("doctor", doctor_json=str(file), **variables))
    assert file.exists(), said
    return status, said, [line for lines in json.loads(file.read_text())["hosts"].values() for line in lines]


def wrong(lines: Lines) -> dict[str, str]:
    """Return what was seen that is wrong, by check."""
    found: dict[str, str] = {}
    for line in lines:
        if line["status"] == "wrong":
            found[line["check"]] = found.get(line["check"], "") + f" {line['subject']}: {line['seen']}"
            assert line["remedy"], line
    return found


def test_a_healthy_site_has_nothing_wrong_and_stays_as_it_is(
    tmp_path: Path, vps: Host, mailbox: Mailbox, testbed: dict[str, str]
) -> None:
    vps.check_output("touch /run/before-the-doctor")
    status, said, lines = doctor(tmp_path, doctor_mail=f"doctor@{testbed['site']}")
    assert status == 0, said
    assert [line for line in lines if line["status"] not in ("ok", "skipped")] == []
    seen = {line["check"] for line in lines if line["status"] == "ok"}
    assert {"ssh", "dns", "ports", "acme", "certificate", "limits", "smtp", "backups", "logs", "traces"} <= seen
    assert f"[{testbed['site']}] Test mail of the doctor" in poll(
        lambda: [mail["subject"] for mail in mailbox.mails() if "Test mail" in mail["subject"]] or None, 20, "test mail"
    )
    assert "changed=0" in said
    # Beside the folder in which Ansible itself works.
    newer = "-newer /run/before-the-doctor -o -cnewer /run/before-the-doctor"
    assert vps.run(f"find {STILL} -name .ansible -prune -o \\( {newer} \\) -print").stdout == ""


@pytest.fixture
def liar(outside: Host, testbed: dict[str, str]) -> Iterator[str]:
    """A DNS server by which the site's AAAA record leads elsewhere, and another authority may issue alone."""
    zone, site = testbed["zone"], testbed["site"]
    records = [
        f"--address=/{site}/{testbed['vps_address']}",
        f"--address=/{site}/fd77:dead::1",
        f"--address=/mail.{zone}/{testbed['outside_address']}",
        f"--local=/{zone}/",
        # 0 issue "sectigo.com"
        f"--dns-rr={zone},257,000569737375657365637469676f2e636f6d",
    ]
    command = "dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --user=root --port=5353 --pid-file=/run/liar.pid "
    outside.check_output(command + " ".join(records))
    yield "127.0.0.1#5353"
    outside.check_output("sh -c 'kill $(cat /run/liar.pid)'")


@pytest.fixture
def firewall_of_the_provider(vps: Host, testbed: dict[str, str]) -> Iterator[None]:
    """Drops what comes to port 443 from the internet, before the host's own rules see it."""
    vps.check_output("nft add table inet provider")
    vps.check_output("nft 'add chain inet provider way { type filter hook prerouting priority -400; policy accept; }'")
    vps.check_output(f"nft add rule inet provider way ip saddr {testbed['outside_address']} tcp dport 443 drop")
    yield
    vps.check_output("nft delete table inet provider")


@pytest.fixture
def open_database(vps: Host) -> Iterator[None]:
    """Somebody listens where Redis does, and a rule lets everybody in."""
    vps.check_output("nft insert rule inet berth input tcp dport 6379 accept")
    vps.check_output("systemd-run --unit squatter --collect python3 -m http.server 6379")
    vps.check_output("timeout 20 sh -c 'until ss -Hltn sport = :6379 | grep -q .; do :; done'")
    yield
    vps.run("systemctl stop squatter")
    vps.check_output("systemctl reload nftables")


@pytest.fixture
def other_system(vps: Host) -> Iterator[None]:
    vps.check_output("cp -a /usr/lib/os-release /root/os-release.kept")
    vps.check_output("printf 'ID=fedora\\nPRETTY_NAME=\"Fedora 44\"\\nVERSION_ID=44\\n' > /usr/lib/os-release")
    yield
    vps.check_output("mv /root/os-release.kept /usr/lib/os-release")


@pytest.mark.usefixtures("firewall_of_the_provider", "open_database", "other_system")
def test_mistakes_around_a_host_are_named_in_one_run(
    tmp_path: Path, testbed: dict[str, str], liar: str, away: Callable[[bool], None]
) -> None:
    away(True)
    store = f"store.{testbed['zone']}"
    status, said, lines = doctor(
        tmp_path,
        doctor_resolvers=[liar],
        traefik_domain_aliases=[f"mail.{testbed['zone']}"],
        berth_smtp_port=1,
        base_minimum_disk_mb=900_000_000,
        base_minimum_memory_mb=90_000_000,
        base_timezone="Mars/Base",
        traefik_acme_staging=True,
        backup_password="another password than the repository's",
        backup_targets=[
            {
                "name": "store",
                "repository": f"rest:http://{store}:8000/berth",
                "environment": {"RESTIC_REST_USERNAME": "berth", "RESTIC_REST_PASSWORD": "not-its-password"},
            },
            {
                "name": "bucket",
                "repository": f"s3:http://{store}:9000/berth",
                "environment": {"AWS_ACCESS_KEY_ID": "berth", "AWS_SECRET_ACCESS_KEY": testbed["store_password"]},
            },
        ],
        vault_monitoring_webhook_url=f"https://{store}:1/a-secret-in-a-path",
    )
    assert status != 0
    found = wrong(lines)
    expected = {
        "system": "Fedora 44",
        "dns": f"mail.{testbed['zone']} A: points to {testbed['outside_address']}",
        "caa": "allows only sectigo.com to issue",
        "ports": f"Port 443 of {testbed['vps_address']}: filtered on the way",
        "memory": "90000000 MB are required",
        "disk": "base_minimum_disk_mb",
        "clock": "Mars/Base",
        "acme": "acme-staging-v02.api.letsencrypt.org",
        "certificate": f"not for mail.{testbed['zone']}",
        "smtp": "mail.berth.test:1, connecting",
        "backups": "Backup target bucket: ",
        "logs": "Log server loki: Connection refused",
        "traces": "Connection refused",
        "web": "vault_monitoring_webhook_url: ",
    }
    assert {check: text for check, text in expected.items() if text not in found.get(check, "")} == {}, found
    assert "AAAA: points to fd77:dead::1" in found["dns"]
    assert "6379 open to the internet past the firewall" in found["ports"]
    assert "does not open with vault_backup_password" in found["backups"]
    assert "Backup target store" in found["backups"]
    assert "staging" in {line["check"] for line in lines if line["status"] == "warning"}
    assert "changed=0" in said
    for secret in (testbed["store_password"], "not-its-password", "a-secret-in-a-path", "another password than"):
        assert secret not in said + json.dumps(lines)


def test_where_nobody_gets_in_the_rest_is_still_seen(tmp_path: Path) -> None:
    status, said, lines = doctor(
        tmp_path,
        ansible_ssh_private_key_file=str(tmp_path / "no-such-key"),
        demo_vault_password="not the password",
        # The connection of the test before is still open.
        ansible_ssh_args="-o ControlMaster=no -o ControlPath=none",
    )
    assert status != 0
    found = wrong(lines)
    assert set(found) == {"key", "ssh", "vault"}, found
    assert "does not exist" in found["key"]
    ok = {line["check"] for line in lines if line["status"] == "ok"}
    assert {"inventory", "dns", "ports", "images"} <= ok
    assert "UNREACHABLE" not in said
