"""The restarted machine, as its administrator and a stranger on its network see it (`make test-vm`, run.py)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support import ROOT, administrator, ssh_config
from tests.vm.machine import ADDRESS, KEY, KNOWN_HOSTS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            # Everything is emulated, many times slower than a machine.
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return administrator(ssh_config(tmp_path_factory.mktemp("ssh"), ADDRESS, KEY, KNOWN_HOSTS))


def open_ports(*scan: str) -> set[int]:
    """Scan with nmap from where these tests run: the machine's own network, with nothing in between."""
    done = subprocess.run(
        ["nmap", "-n", "-Pn", "--open", "--max-retries", "2", "--min-rate", "1500", *scan],
        capture_output=True,
        text=True,
        check=True,
    )
    return {int(port) for port in re.findall(r"^(\d+)/\w+\s+open\s", done.stdout, re.MULTILINE)}


# It is about the role hardening alone.
collect_ignore = [] if (ROOT / "roles" / "hardening").is_dir() else ["test_kernel.py"]
