"""Docker on a kernel of its own, after a restart: cgroup v2, AppArmor, and containers that come back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture(scope="module")
def container(vm: Host) -> dict[str, Any]:
    return dict(json.loads(vm.check_output("docker inspect careless"))[0])


def test_the_container_is_back_in_this_boot(vm: Host, container: dict[str, Any]) -> None:
    assert container["State"]["Running"]
    started = vm.check_output("date --date=%s +%%s", container["State"]["StartedAt"])
    booted = vm.check_output("awk '/^btime/ { print $2 }' /proc/stat")
    assert int(started) >= int(booted)


def test_the_shutdown_before_let_it_end_in_good_order(vm: Host) -> None:
    said = vm.check_output("journalctl --boot=-1 --unit=berth-docker-shutdown --output=cat --no-pager")
    assert "timed out" not in said.lower()
    assert "Deactivated successfully" in said or "Stopped" in said


def test_apparmor_confines_it(vm: Host, container: dict[str, Any]) -> None:
    pid = str(container["State"]["Pid"])
    assert vm.check_output("tr -d '\\000' < /proc/%s/attr/current", pid) == "docker-default (enforce)"


def test_the_kernel_holds_it_to_its_memory(vm: Host, container: dict[str, Any]) -> None:
    pid = str(container["State"]["Pid"])
    group = vm.check_output("cut -d: -f3 /proc/%s/cgroup", pid)
    assert vm.check_output("stat --file-system --format=%T /sys/fs/cgroup") == "cgroup2fs"
    assert vm.check_output("cat /sys/fs/cgroup%s/memory.max", group) == str(64 * 1024**2)


def test_it_gains_no_rights_and_sees_a_seccomp_filter(vm: Host, container: dict[str, Any]) -> None:
    status = vm.check_output("cat /proc/%s/status", str(container["State"]["Pid"]))
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
