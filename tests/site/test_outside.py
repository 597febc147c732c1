"""What a stranger on the internet reaches, and what the databases reach."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host


def open_ports(outside: Host, *scan: str) -> set[int]:
    report = outside.check_output("nmap -n -Pn --open --max-retries 2 -T4 --min-rate 3000 " + " ".join(scan))
    return {int(port) for port in re.findall(r"^(\d+)/tcp\s+open", report, re.MULTILINE)}


def test_22_80_and_443_are_open_and_no_other_port_of_65535(outside: Host, testbed: dict[str, str]) -> None:
    assert open_ports(outside, "-p-", testbed["vps_address"]) == {22, 80, 443}


@pytest.mark.long
def test_the_same_over_ipv6(outside: Host, testbed: dict[str, str]) -> None:
    assert open_ports(outside, "-6", "-p-", testbed["vps_address6"]) == {22, 80, 443}


@pytest.mark.parametrize("port", [27017, 6379, 8000, 8080, 8082, 4318, 5555, 9090, 9093, 9100])
def test_a_backend_port_is_closed(outside: Host, testbed: dict[str, str], port: int) -> None:
    assert outside.run("curl -s --connect-timeout 2 telnet://%s:%s", testbed["vps_address"], str(port)).rc != 0


def ways(vps: Host, service: str, doors: dict[str, tuple[str, int]]) -> set[str]:
    """Return which of these doors a container of the service gets through."""
    pid = vps.check_output(
        "docker inspect -f '{{.State.Pid}}' $(docker ps -qf label=com.docker.compose.service=%s)", service
    )
    attempts = {
        door: vps.run(f"nsenter -t {pid} -n timeout 3 bash -c 'echo > /dev/tcp/{address}/{port}'")
        for door, (address, port) in doors.items()
    }
    return {door for door, attempt in attempts.items() if attempt.rc == 0}


@pytest.mark.parametrize(
    ("service", "allowed"),
    [
        ("mongo", set()),
        ("redis", set()),
        ("auth_service", set()),
        ("user_service", set()),
        ("frontend", set()),
        ("beat", set()),
        ("celery_worker", {"mail", "DNS"}),
        ("alertmanager", {"mail", "DNS"}),
        ("traefik_a", {"certificates", "traces", "DNS"}),
    ],
)
def test_a_container_gets_out_only_to_what_its_work_needs(
    vps: Host, testbed: dict[str, str], service: str, allowed: set[str]
) -> None:
    """From its own network: mail, authority, collector of traces, the mailbox beside them, and the host itself."""
    pid = vps.check_output(
        "docker inspect -f '{{.State.Pid}}' $(docker ps -qf label=com.docker.compose.service=%s)", service
    )
    own = vps.check_output(f"nsenter -t {pid} -n hostname -I").split()[0]
    gateway = own.rsplit(".", 1)[0] + ".1"
    beside = testbed["outside_address"]
    doors = {
        "mail": (beside, 1025),
        "certificates": (beside, 14000),
        "traces": (beside, 4318),
        "DNS": (beside, 53),
        "the mailbox": (beside, 1080),
        "the host's SSH": (gateway, 22),
        "the host's public address": (testbed["vps_address"], 22),
    }
    assert ways(vps, service, doors) == allowed
