"""Berth is for any application: what it consists of does not name the sample's services, databases or paths.

The compose file says them, with labels and x-berth (docs/extending.md).
"""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch

import yaml

from tests.support import ROOT

PRODUCT = ("Makefile", "ansible", "berth", "images", "inventories", "molecule", "roles", "site.yml")
# Tests and scenarios need some application, and use the sample.
TESTS = ("*/tests/*", "roles/*/molecule/*")
SERVICES = {"auth_service", "user_service", "celery_worker", "beat", "frontend", "flower"}
NAMES = re.compile(
    r"auth_service|user_service|celery|\bbeat\b|\bfront_?end\b|flower|\b(auth|user|celery)_db\b|/api/(auth|users)", re.I
)
ALLOWED = {
    "Makefile": "calls the linters and tests of the sample's front end",
    "images/dev.py": "starts the sample on a laptop",
    "molecule/demo.py": "signs up at the sample, so that the demo has an account",
    "roles/hardening/defaults/main.yml": "a path that is counted as sign-ins, which an owner may change",
    "ansible/variables.yml": "names variables that were removed",
    "berth/stack/former.py": "reads the .env of the version before, whose secrets no label describes",
}


def naming() -> dict[str, list[str]]:
    """Return file -> its lines that name the sample."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PRODUCT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    product = [name for name in listed if not any(fnmatch(name, tests) for tests in TESTS) and (ROOT / name).is_file()]
    assert len(product) > 300
    found = {}
    for name in product:
        text = (ROOT / name).read_text(errors="replace")
        if lines := [line.strip() for line in text.splitlines() if NAMES.search(line)]:
            found[name] = lines
    return found


def test_the_product_does_not_name_the_sample() -> None:
    found = naming()
    assert {name: lines for name, lines in found.items() if not any(fnmatch(name, one) for one in ALLOWED)} == {}
    assert [one for one in ALLOWED if not any(fnmatch(name, one) for name in found)] == [], "no exception any more"


def test_each_service_of_the_sample_would_be_found() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.prod.yml").read_text())["services"]
    assert {name for name, one in services.items() if "platform" not in one["profiles"]} == SERVICES
    assert all(NAMES.search(f"service: {name}") for name in SERVICES)
