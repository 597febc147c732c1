"""Every port of the machine, asked from its own network, with a container that publishes 8000 and 27017 by mistake."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.vm.conftest import open_ports
from tests.vm.machine import ADDRESS, ADDRESS6

# 80 belongs to the container, and nothing listens on 443 here.
EXPECTED = {22, 80}
FAMILIES = {"IPv4": [ADDRESS], "IPv6": ["-6", ADDRESS6]}


def test_the_container_does_listen_on_the_ports_it_should_not_publish(vm: Host) -> None:
    for port in (80, 8000, 27017):
        assert "BusyBox" in vm.run("curl -sS -D - -o /dev/null http://172.17.0.1:%s/ || true", str(port)).stdout or (
            f":{port}->" in vm.check_output("docker ps --format '{{.Ports}}'")
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_22_and_80_are_open_and_no_other_port_of_65535(family: str) -> None:
    assert open_ports("-p-", *FAMILIES[family]) == EXPECTED


@pytest.mark.parametrize("family", FAMILIES)
def test_no_common_udp_port_answers(family: str) -> None:
    assert open_ports("-sU", "-p53,67,68,111,123,161,323,443,500,514,546,1900,5353", *FAMILIES[family]) == set()
