"""What a restart leaves behind: everything is up, in the right order, and what was kept is still there."""

from __future__ import annotations

import json
import re
import subprocess

from testinfra.host import Host

from tests.support import poll
from tests.vm.machine import ADDRESS, ADDRESS6, INTERFACE, KEY, KNOWN_HOSTS, ROUTER_LIFETIME_SECONDS


def test_the_boot_ends_with_no_failed_unit(vm: Host) -> None:
    state = vm.run("systemctl is-system-running --wait").stdout.strip()
    failed = vm.check_output("systemctl --failed --plain --no-legend")
    assert (state, failed) == ("running", ""), vm.check_output(
        "journalctl --boot --priority=err --no-pager | tail -n 30"
    )


def moment(vm: Host, unit: str, event: str) -> int:
    """Return when something happened to a unit, in microseconds since the kernel started."""
    found = vm.check_output("systemctl show --value --property=%sTimestampMonotonic %s", event, unit)
    assert int(found), f"{unit}: no {event}"
    return int(found)


def test_the_firewall_stands_before_the_network_and_before_docker(vm: Host) -> None:
    firewall = moment(vm, "nftables.service", "ActiveEnter")
    assert firewall < moment(vm, "networking.service", "InactiveExit")
    assert firewall < moment(vm, "ssh.service", "InactiveExit")
    assert firewall < moment(vm, "docker.service", "InactiveExit")


def test_docker_added_its_rules_to_ours_and_took_none_away(vm: Host) -> None:
    tables = vm.check_output("nft list tables")
    assert "table inet berth" in tables
    assert "table ip nat" in tables
    assert "policy drop" in vm.check_output("nft list chain inet berth forward")


def test_the_name_and_the_place_are_those_asked_for(vm: Host) -> None:
    assert vm.check_output("hostname") == "vm.example"
    assert vm.check_output("cat /etc/hostname") == "vm.example"
    assert vm.check_output("getent hosts vm.example")
    assert vm.check_output("date +%Z") in {"CET", "CEST"}
    assert vm.check_output("cat /etc/default/locale") == "LANG=C.UTF-8"


def test_the_swap_file_is_in_use(vm: Host) -> None:
    swaps = vm.check_output("swapon --show=NAME,SIZE --noheadings --bytes").split()
    # A page of the file is its header.
    assert swaps == ["/swapfile", str(2048 * 1024**2 - 4096)]
    assert vm.file("/swapfile").mode == 0o600


def test_the_clock_is_set_by_chrony_from_servers_that_prove_who_they_are(vm: Host) -> None:
    assert vm.service("chrony").is_running
    # Those whose name nobody resolves here are listed too.
    sources = vm.check_output("chronyc -N authdata -a").splitlines()
    assert sum(line.split()[1:2] == ["NTS"] for line in sources) == 4, sources


def test_the_journal_remembers_the_boot_before(vm: Host) -> None:
    boots = json.loads(vm.check_output("journalctl --list-boots --output=json"))
    assert len(boots) >= 2
    assert "Reached target" in vm.check_output("journalctl --boot=-1 --identifier=systemd --no-pager")


def test_what_the_kernel_says_is_once_in_the_hosts_own_log(vm: Host) -> None:
    def said(what: str) -> int:
        return int(
            vm.check_output("grep --count %s /var/log/kern.log || [ $? = 1 ]", f"kernel: .*lo: {what} promiscuous mode")
        )

    entered, left = said("entered"), said("left")
    vm.check_output("ip link set dev lo promisc on && ip link set dev lo promisc off")
    poll(lambda: said("left") > left or None, 30, "the kernel's lines in kern.log")
    assert said("entered") == entered + 1


def login(user: str, *options: str) -> subprocess.CompletedProcess[str]:
    known = [f'-oUserKnownHostsFile="{KNOWN_HOSTS}"', "-oConnectTimeout=20", "-oBatchMode=yes", *options]
    return subprocess.run(
        ["ssh", *known, f"{user}@{ADDRESS}", "id -un"], capture_output=True, text=True, timeout=120, check=False
    )


def test_only_a_key_opens_the_door(vm: Host) -> None:
    assert login("admin", "-i", str(KEY), "-oIdentitiesOnly=yes").stdout.strip() == "admin"
    refused = login("admin", "-oIdentityFile=none", "-oPubkeyAuthentication=no")
    assert refused.returncode == 255
    assert "Permission denied (publickey" in refused.stderr
    assert vm.run("sudo --user=nobody sudo --non-interactive true").rc != 0


def test_security_updates_would_install_by_themselves(vm: Host) -> None:
    vm.check_output("apt-get update -qq")
    said = vm.check_output("unattended-upgrade --dry-run --debug 2>&1")
    assert re.search(r"codename=trixie-security", said), said[-2000:]
    assert "No packages found that can be upgraded unattended" in said or "Packages that will be upgraded" in said
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert vm.service(timer).is_running, timer


def test_the_ipv6_route_outlives_its_lifetime_although_docker_makes_the_host_forward(vm: Host) -> None:
    """A host that forwards stops listening to its router unless told otherwise; then the route goes."""
    assert vm.check_output("cat /proc/sys/net/ipv6/conf/all/forwarding") == "1"
    docker_runs_since = moment(vm, "docker.service", "ActiveEnter") / 1e6

    def older_than_its_lifetime() -> bool | None:
        up = float(vm.check_output("cut -d' ' -f1 /proc/uptime"))
        return True if up > docker_runs_since + 2 * ROUTER_LIFETIME_SECONDS else None

    poll(older_than_its_lifetime, 4 * ROUTER_LIFETIME_SECONDS, "the advertised route to grow old")
    route = vm.check_output("ip -6 route show default")
    assert re.match(rf"default via fe80::\S+ dev {INTERFACE} proto ra ", route), route
    assert ADDRESS6 in vm.check_output("ip -6 address show dev %s scope global", INTERFACE)
