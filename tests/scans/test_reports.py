"""What is read out of the scanners' reports. captured/ holds real ones, cut to a few lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scans import reports
from tests.scans.costs import costs, set_aside
from tests.scans.machine import ScanError
from tests.scans.scan import Column, remaining, table
from tests.scans.scanners import forced

CAPTURED = Path(__file__).parent / "captured"


def captured(name: str) -> str:
    return (CAPTURED / name).read_text()


def test_lynis_gives_its_index_and_each_suggestion_with_its_detail() -> None:
    index, warnings, suggestions = reports.lynis(captured("lynis-report.dat"))
    assert index.figure == "60"
    assert (warnings.figure, warnings.remaining) == ("0", [])
    assert suggestions.figure == "4"
    assert ("SSH-7408", "Consider hardening SSH configuration (X11Forwarding (set YES to NO))") in suggestions.remaining


def test_openscap_counts_only_rules_that_were_answered() -> None:
    measure = reports.openscap(captured("openscap.xml").encode(), "ANSSI BP-028 minimal")
    assert measure.figure == "79.2 (2 of 3 fail)"
    assert measure.remaining == [
        ("accounts_passwords_pam_faillock_deny", "Lock Accounts After Failed Password Attempts"),
        ("package_pam_pwquality_installed", "Install pam_pwquality Package"),
    ]


def test_a_rule_alone_in_its_group_costs_more_than_one_of_many() -> None:
    results = """<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2">
      <Group><Rule id="alone"/></Group>
      <Group><Rule id="one"/><Rule id="other"/><Rule id="unasked"/></Group>
      <TestResult>
        <rule-result idref="alone"><result>fail</result></rule-result>
        <rule-result idref="one"><result>fail</result></rule-result>
        <rule-result idref="other"><result>pass</result></rule-result>
        <rule-result idref="unasked"><result>notapplicable</result></rule-result>
      </TestResult>
    </Benchmark>"""
    assert costs(results.encode()) == {"alone": 50.0, "one": 25.0}


def test_a_container_is_not_blamed_for_the_kernel_outside_and_is_for_all_else() -> None:
    results = """<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2">
      <Group><Rule id="service_auditd_enabled"/></Group>
      <Group><Rule id="sysctl_kernel_kptr_restrict"/><Rule id="sysctl_net_ipv4_tcp_syncookies"/></Group>
      <TestResult>
        <rule-result idref="service_auditd_enabled"><result>fail</result></rule-result>
        <rule-result idref="sysctl_kernel_kptr_restrict"><result>fail</result></rule-result>
        <rule-result idref="sysctl_net_ipv4_tcp_syncookies"><result>fail</result></rule-result>
        <score>0.0</score>
      </TestResult>
    </Benchmark>"""
    assert set_aside(results.encode()) == 75.0


def test_docker_bench_gives_score_and_what_it_warns_of() -> None:
    measure = reports.docker_bench(captured("docker-bench.json"))
    assert measure.figure == "score 28: 1 PASS, 2 WARN"
    assert [number for number, _ in measure.remaining] == ["2.9", "5.9"]
    assert "berth-traefik-1:443" in measure.remaining[1][1]


def test_ssh_audit_gives_each_note_to_its_algorithm() -> None:
    measure = reports.ssh_audit(captured("ssh-audit.txt"))
    assert measure.figure == "1 fail, 2 warn; prefers mlkem768x25519-sha256"
    assert measure.remaining == [
        ("warn", "curve25519-sha256: does not provide protection against post-quantum attacks"),
        ("fail", "hmac-sha1: using broken SHA-1 hash algorithm"),
        ("warn", "hmac-sha1: using encrypt-and-MAC mode"),
    ]


def test_the_worst_unit_is_named_and_one_beyond_the_limit_remains() -> None:
    output = captured("systemd-analyze.txt")
    assert reports.units(output).figure == "3 units, at most 2.3 (berth-docker-shutdown)"
    assert reports.units(output).remaining == []
    exposed = reports.units(output.replace(": 2.3 OK", ": 9.6 UNSAFE"))
    assert exposed.remaining == [("berth-docker-shutdown.service", "9.6")]


def test_open_ports_are_listed_and_those_not_expected_remain() -> None:
    assert reports.ports(captured("nmap.txt"), "TCP", {22, 80}).figure == "22, 80, 443"
    assert [number for number, _ in reports.ports(captured("nmap.txt"), "TCP", {22, 80}).remaining] == ["443"]


def test_testssl_gives_its_grade_and_its_findings() -> None:
    measure = reports.testssl(captured("testssl.json"))
    assert measure.figure == "A+ (96 of 100)"
    assert measure.remaining == [("cert_revocation", "HIGH: Neither CRL nor OCSP URI provided")]


@pytest.mark.parametrize(
    "read",
    [
        lambda: reports.lynis("# Lynis Report\n"),
        lambda: reports.openscap(b"<Benchmark xmlns='http://checklists.nist.gov/xccdf/1.2'/>", "CIS"),
        lambda: reports.ssh_audit("[exception] did not receive banner."),
        lambda: reports.ports("Failed to resolve", "TCP", set()),
        lambda: reports.testssl("[]"),
    ],
    ids=["lynis", "openscap", "ssh-audit", "nmap", "testssl"],
)
def test_a_scanner_that_did_not_finish_gives_no_figure(read: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"not finish|no score|no key exchange|no grade"):
        read()


def test_a_data_stream_that_asks_otherwise_is_not_trusted() -> None:
    assert forced(b"<linux:name>linux-base</linux:name>") == b"<linux:name>dpkg</linux:name>"
    with pytest.raises(ScanError, match="0 times"):
        forced(b"<linux:name>linux-image</linux:name>")


def test_the_table_stands_side_by_side_and_an_item_of_two_profiles_remains_once() -> None:
    bare = Column("bare", [reports.Measure("OpenSCAP", "L1", "65"), reports.Measure("OpenSCAP", "L2", "51")])
    site = Column("site", [reports.Measure("OpenSCAP", "L1", "93", [("rule", "A title")])], {"OpenSCAP": 40})
    site.measures.append(reports.Measure("OpenSCAP", "L2", "85", [("rule", "A title")]))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table([bare, site]).splitlines()]
    assert rows[0] == ["scanner", "measure", "bare", "site", "seconds"]
    assert rows[2:] == [["OpenSCAP", "L1", "65", "93", "- / 40"], ["", "L2", "51", "85", ""]]
    assert "- `rule` A title [L1, L2]" in remaining(site).splitlines()
