"""What the scanners' reports say: a figure for the table, and what remains to be done."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.etree import ElementTree

XCCDF = "{http://checklists.nist.gov/xccdf/1.2}"
XCCDF_RULE = "xccdf_org.ssgproject.content_rule_"
# What a unit of ours may be exposed to at most (systemd-analyze security, 0 to 10).
UNIT_LIMIT = 4.0


@dataclass(frozen=True)
class Measure:
    """One line of the table, and the items that keep it from being perfect."""

    scanner: str
    name: str
    figure: str
    # (identifier of the scanner, its words)
    remaining: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def lynis(report: str) -> list[Measure]:
    """Read lynis-report.dat."""
    index = re.search(r"^hardening_index=(\d+)", report, re.MULTILINE)
    if not index:
        raise ValueError("lynis-report.dat holds no hardening_index: lynis did not finish")
    found = re.findall(r"^(suggestion|warning)\[\]=([^|]*)\|([^|]*)\|([^|]*)", report, re.MULTILINE)
    listed = {
        kind: [
            (number, f"{text} ({detail})" if detail not in {"", "-"} else text)
            for k, number, text, detail in found
            if k == kind
        ]
        for kind in ("warning", "suggestion")
    }
    return [
        Measure("lynis", "hardening index", index[1]),
        Measure("lynis", "warnings", str(len(listed["warning"])), listed["warning"]),
        Measure("lynis", "suggestions", str(len(listed["suggestion"])), listed["suggestion"]),
    ]


def openscap(results: bytes, name: str) -> Measure:
    """Read the XCCDF results of one profile."""
    root = ElementTree.fromstring(results)  # noqa: S314  # written by oscap a moment ago
    titles = {rule.get("id", ""): rule.findtext(f"{XCCDF}title", "") for rule in root.iter(f"{XCCDF}Rule")}
    score = root.find(f".//{XCCDF}TestResult/{XCCDF}score")
    if score is None or not score.text:
        raise ValueError(f"The results of {name} hold no score: oscap did not finish")
    outcome: dict[str, list[str]] = {}
    for rule in root.iter(f"{XCCDF}rule-result"):
        outcome.setdefault(rule.findtext(f"{XCCDF}result", ""), []).append(rule.get("idref", ""))
    failed = [*outcome.get("fail", []), *outcome.get("error", []), *outcome.get("unknown", [])]
    figure = f"{float(score.text):.1f} ({len(failed)} of {len(failed) + len(outcome.get('pass', []))} fail)"
    return Measure("OpenSCAP", name, figure, [(rule.removeprefix(XCCDF_RULE), titles[rule]) for rule in sorted(failed)])


def docker_bench(log: str) -> Measure:
    """Read docker-bench-security.log.json."""
    document = json.loads(log)
    results = [result for section in document["tests"] for result in section["results"]]
    warned = [result for result in results if result["result"] == "WARN"]
    passed = sum(result["result"] == "PASS" for result in results)
    figure = f"score {document['score']}: {passed} PASS, {len(warned)} WARN"
    remaining = [
        (
            result["id"],
            f"{result['desc']}: {details}" if (details := result.get("details", "").strip()) else result["desc"],
        )
        for result in warned
    ]
    return Measure("docker-bench-security", "score", figure, remaining)


def ssh_audit(output: str) -> Measure:
    """Read what ssh-audit prints."""
    remaining: list[tuple[str, str]] = []
    exchanges: list[str] = []
    subject = ""
    for line in output.splitlines():
        begun = re.match(r"\((kex|key|enc|mac)\) (\S+)", line)
        if begun:
            subject = begun[2]
            if begun[1] == "kex":
                exchanges.append(subject)
        noted = re.search(r"(?:--|`-) \[(fail|warn)\] (.*)", line)
        if noted:
            remaining.append((noted[1], f"{subject}: {noted[2]}"))
    if not exchanges:
        raise ValueError(f"ssh-audit saw no key exchange:\n{output[-500:]}")
    kinds = [kind for kind, _ in remaining]
    figure = f"{kinds.count('fail')} fail, {kinds.count('warn')} warn; prefers {exchanges[0]}"
    return Measure("ssh-audit", "from outside", figure, remaining)


def units(output: str) -> Measure:
    """Read what `systemd-analyze security UNIT...` says of each unit."""
    found = re.findall(r"Overall exposure level for (\S+): (\d+\.\d+)", output)
    exposure = {unit: float(level) for unit, level in found}
    if not exposure:
        return Measure("systemd-analyze", "units we add", "none")
    worst = max(exposure, key=lambda unit: exposure[unit])
    figure = f"{len(exposure)} units, at most {exposure[worst]} ({worst.removesuffix('.service')})"
    remaining = [(unit, str(level)) for unit, level in sorted(exposure.items()) if level > UNIT_LIMIT]
    return Measure("systemd-analyze", "units we add", figure, remaining)


def ports(output: str, name: str, expected: Iterable[int]) -> Measure:
    """Read nmap's greppable output: which ports answered as open."""
    if "# Nmap done" not in output:
        raise ValueError(f"nmap did not finish:\n{output[-500:]}")
    found = sorted(int(port) for port in re.findall(r"(\d+)/open/", output))
    remaining = [(str(port), "open and not one of the site's") for port in found if port not in set(expected)]
    return Measure("nmap", name, ", ".join(map(str, found)) or "none", remaining)


def testssl(log: str) -> Measure:
    """Read testssl.sh's JSON."""
    entries = [
        entry for entry in json.loads(log) if entry["severity"] in {"LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"}
    ]
    known = {entry["id"]: entry["finding"] for entry in json.loads(log)}
    if "overall_grade" not in known:
        raise ValueError("testssl.sh gave no grade: it did not finish")
    figure = f"{known['overall_grade']} ({known['final_score']} of 100)"
    remaining = [(entry["id"], f"{entry['severity']}: {entry['finding']}") for entry in entries]
    return Measure("testssl.sh", "grade", figure, remaining)
