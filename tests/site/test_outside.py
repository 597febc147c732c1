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


def test_the_same_over_ipv6(outside: Host, testbed: dict[str, str]) -> None:
    assert open_ports(outside, "-6", "-p-", testbed["vps_address6"]) == {22, 80, 443}


@pytest.mark.parametrize("port", [27017, 6379, 8000, 8080, 8082, 5555])
def test_a_backend_port_is_closed(outside: Host, testbed: dict[str, str], port: int) -> None:
    assert outside.run("curl -s --connect-timeout 2 telnet://%s:%s", testbed["vps_address"], str(port)).rc != 0


@pytest.mark.parametrize("service", ["mongo", "redis", "auth_service", "user_service"])
def test_what_needs_no_way_out_has_none(vps: Host, testbed: dict[str, str], service: str) -> None:
    pid = vps.check_output(
        "docker inspect -f '{{.State.Pid}}' $(docker ps -qf label=com.docker.compose.service=%s)", service
    )
    attempt = vps.run("nsenter -t %s -n timeout 3 bash -c 'echo > /dev/tcp/%s/1025'", pid, testbed["outside_address"])
    assert attempt.rc != 0


def test_the_worker_reaches_the_mail_server(vps: Host, testbed: dict[str, str]) -> None:
    pid = vps.check_output(
        "docker inspect -f '{{.State.Pid}}' $(docker ps -qf label=com.docker.compose.service=celery_worker)"
    )
    attempt = vps.run("nsenter -t %s -n timeout 3 bash -c 'echo > /dev/tcp/%s/1025'", pid, testbed["outside_address"])
    assert attempt.rc == 0, attempt.stderr
