"""What each failed rule takes from OpenSCAP's score: a group counts as the mean of its rules, however few they are.

usage: python3 -m tests.scans.costs artifacts/scan/<target>/openscap-<profile>.xml
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.scans.reports import XCCDF, XCCDF_RULE

PASSED = {"pass", "fixed"}
# The kernel's own, which a container has from the machine outside: settings, audit, AppArmor, boot loader, clock.
OUTSIDE = re.compile(r"apparmor_|grub2_|ntp_single_|package_chrony_|service_auditd_|sysctl_(fs|kernel|net_core|vm)_")
LEFT_OUT = {"", "notselected", "notapplicable", "informational", "notchecked"}


def score(item: ElementTree.Element, outcome: dict[str, str]) -> float | None:
    """Return the score of a rule or group, 0 to 100, nothing where none of it was asked (XCCDF 1.2, default model)."""
    if item.tag == f"{XCCDF}Rule":
        found = outcome.get(item.get("id", ""), "")
        return None if found in LEFT_OUT else 100.0 * (found in PASSED)
    total = weights = 0.0
    for part in item:
        if part.tag in {f"{XCCDF}Rule", f"{XCCDF}Group"} and (own := score(part, outcome)) is not None:
            weight = float(part.get("weight", "1"))
            total, weights = total + own * weight, weights + weight
    return total / weights if weights else None


def costs(results: bytes) -> dict[str, float]:
    """Return by how much the score would be higher if a rule that failed had passed, the dearest first."""
    root = ElementTree.fromstring(results)  # noqa: S314  # written by oscap
    benchmark = next(root.iter(f"{XCCDF}Benchmark"))
    outcome = {one.get("idref", ""): one.findtext(f"{XCCDF}result", "") for one in root.iter(f"{XCCDF}rule-result")}
    now = score(benchmark, outcome) or 0.0
    failed = [rule for rule, found in outcome.items() if found not in PASSED | LEFT_OUT]
    gained = {
        rule.removeprefix(XCCDF_RULE): (score(benchmark, {**outcome, rule: "pass"}) or 0.0) - now for rule in failed
    }
    return dict(sorted(gained.items(), key=lambda one: -one[1]))


def set_aside(results: bytes) -> float:
    """Return the score of a container's own part: as if what is the kernel's own, outside, had passed."""
    root = ElementTree.fromstring(results)  # noqa: S314  # written by oscap
    now = float(root.findtext(f".//{XCCDF}TestResult/{XCCDF}score") or 0)
    return now + sum(points for rule, points in costs(results).items() if OUTSIDE.match(rule))


if __name__ == "__main__":
    for rule, points in costs(Path(sys.argv[1]).read_bytes()).items():
        print(f"{points:6.2f}  {rule}{'  (a container cannot have it)' if OUTSIDE.match(rule) else ''}")
