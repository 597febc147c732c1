"""Every port of the machine, asked from its own network, with a container that publishes 8000 and 27017 by mistake."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.vm.conftest import open_ports
from tests.vm.machine import ADDRESS, ADDRESS6

# 80 belongs to the container, and nothing listens on 443 here.
EXPECTED = {22, 80}
FAMILIES = {"IPv4": [ADDRESS], "IPv6": ["-6", ADDRESS6]}


@pytest.mark.parametrize("port", [80, 8000, 27017])
def test_the_container_does_answer_on_the_host_itself(vm: Host, port: int) -> None:
    answer = vm.check_output("curl -sS -o /dev/null -w '%%{http_code}' http://%s:%s/Dockerfile", ADDRESS, str(port))
    assert answer in {"200", "404"}


@pytest.mark.parametrize("family", FAMILIES)
def test_22_and_80_are_open_and_no_other_port_of_65535(family: str) -> None:
    assert open_ports("-p-", *FAMILIES[family]) == EXPECTED


@pytest.mark.parametrize("family", FAMILIES)
def test_no_common_udp_port_answers(family: str) -> None:
    assert open_ports("-sU", "-p53,67,68,111,123,161,323,443,500,514,546,1900,5353", *FAMILIES[family]) == set()
