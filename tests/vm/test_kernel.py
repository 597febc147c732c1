"""What only a kernel of its own can show of the role hardening: settings, modules, audit, AppArmor, mounts, boot."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from tests.support import ROOT, poll

ROLE = ROOT / "roles" / "hardening"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())


def test_every_kernel_setting_is_in_force(vm: Host) -> None:
    """Read each back. What systemd says last about a name counts, and an asterisk stands for every interface."""
    wanted: dict[str, str] = {}
    for line in vm.check_output("cat /etc/sysctl.d/60-berth-*.conf").splitlines():
        if line.strip() and not line.startswith("#"):
            key, value = line.split("=", 1)
            wanted[key.strip().lstrip("-")] = " ".join(value.split())
    assert len(wanted) > 60
    said = vm.check_output("sysctl --all 2>/dev/null").splitlines()
    found = {key.strip(): " ".join(value.split()) for key, _, value in (line.partition("=") for line in said)}
    wrong = {}
    for key, value in wanted.items():
        names = [name for name in fnmatch.filter(found, key) if name == key or name not in wanted]
        assert names, f"the kernel knows no {key}"
        wrong.update({name: (found[name], value) for name in names if found[name] != value})
    assert not wrong, f"(found, wanted): {wrong}"


def test_refused_modules_do_not_load(vm: Host) -> None:
    refused = " ".join(map(shlex.quote, DEFAULTS["hardening_modules_refused"]))
    report = vm.check_output(
        f"for module in {refused}; do if modprobe $module 2>/dev/null; then loaded=yes; else loaded=no; fi; "
        'echo "$module $loaded $(modinfo --field=filename $module 2>/dev/null | head -n 1)"; done'
    )
    lines = [line.split(" ") for line in report.splitlines()]
    assert [module for module, loaded, _ in lines if loaded == "yes"] == []
    # The proof would be empty on a kernel that has none of them.
    there = [module for module, _, file in lines if file.endswith((".ko", ".ko.xz", ".ko.zst"))]
    assert len(there) >= 5, report
    listed = vm.check_output("lsmod")
    assert [module for module in there if re.search(rf"^{module.replace('-', '_')}\s", listed, re.MULTILINE)] == []


def test_a_program_cannot_have_one_loaded_for_it_either(vm: Host) -> None:
    """Opening a socket of a protocol or mounting a file system makes the kernel ask for its module."""
    vm.run("python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, 132)'")
    vm.run("truncate --size=1M /root/empty && mount -t squashfs -o loop /root/empty /mnt; rm -f /root/empty")
    assert not re.search(r"^(sctp|squashfs)\s", vm.check_output("lsmod"), re.MULTILINE)


def test_every_audit_rule_is_loaded_and_stays(vm: Host) -> None:
    assert vm.service("auditd").is_running
    written = [
        line
        for line in vm.check_output("cat /etc/audit/rules.d/60-berth.rules").splitlines()
        if re.match(r"-[aw] ", line)
    ]
    loaded = vm.check_output("auditctl -l").splitlines()
    assert len(loaded) == len(written) > 50
    status = dict(line.split(maxsplit=1) for line in vm.check_output("auditctl -s").splitlines() if " " in line)
    assert status["enabled"] == "2"
    # ssh would take auditctl's own 255 for a broken connection.
    assert vm.run("auditctl -D || exit 1").rc == 1
    assert status["lost"] == "0"


def test_a_watched_event_is_recorded_with_who_did_it(vm: Host) -> None:
    vm.check_output("touch /etc/sudoers.d/.probe && rm /etc/sudoers.d/.probe")

    def recorded() -> str | None:
        said = vm.run("ausearch --input-logs --key scope --start recent --interpret").stdout
        return said if "/etc/sudoers.d/.probe" in said else None

    assert " auid=admin " in poll(recorded, 60, "the trail of a change below /etc/sudoers.d")


def test_an_access_that_was_refused_is_recorded(vm: Host) -> None:
    vm.run("sudo --user=admin cat /etc/shadow")

    def recorded() -> bool | None:
        said = vm.run("ausearch --input-logs --key access --start recent --interpret").stdout
        return True if "/etc/shadow" in said else None

    poll(recorded, 60, "the trail of a refused look into /etc/shadow")


def test_apparmor_enforces_its_profiles(vm: Host) -> None:
    assert vm.check_output("cat /sys/module/apparmor/parameters/enabled") == "Y"
    profiles = json.loads(vm.check_output("aa-status --json"))["profiles"]
    assert [name for name, mode in profiles.items() if mode == "complain"] == []
    assert sum(mode == "enforce" for mode in profiles.values()) >= 5
    assert profiles["docker-default"] == "enforce"


def test_the_kernel_was_started_with_what_was_asked_for(vm: Host) -> None:
    started_with = vm.check_output("cat /proc/cmdline").split()
    assert [word for word in DEFAULTS["hardening_grub_cmdline"] if word not in started_with] == []


def test_editing_a_boot_entry_asks_for_a_password_and_starting_one_does_not(vm: Host) -> None:
    menu = vm.check_output("cat /boot/grub/grub.cfg")
    assert "password_pbkdf2 " in menu
    assert [line for line in re.findall(r"^menuentry .*$", menu, re.MULTILINE) if "--unrestricted" not in line] == []
    assert vm.file("/boot/grub/grub.cfg").mode & 0o077 == 0


@pytest.mark.parametrize("path", ["/tmp", "/var/tmp", "/dev/shm", "/var/log", "/var/log/audit"])  # noqa: S108
def test_no_program_runs_from_a_place_that_everybody_writes(vm: Host, path: str) -> None:
    options = vm.check_output("findmnt --noheadings --output OPTIONS --target %s", path).split(",")
    assert {"nosuid", "nodev", "noexec"} <= set(options)
    assert (
        vm.run("cp /bin/true %s/probe; %s/probe; result=$?; rm -f %s/probe; exit $result", path, path, path).rc == 126
    )


def test_a_stranger_on_the_host_sees_only_his_own_processes(vm: Host) -> None:
    assert vm.check_output("sudo --user=nobody ps -e -o user= | sort --unique") == "nobody"


def test_a_crash_leaves_no_memory_behind(vm: Host) -> None:
    vm.run("cd /root && sh -c 'kill -SEGV $$'")
    assert vm.run("ls /root/core* /var/lib/systemd/coredump/*").rc != 0
    assert vm.check_output("sudo --user=admin sh -c 'ulimit -Hc'") == "0"


def test_processes_are_accounted_for(vm: Host) -> None:
    vm.check_output("uptime")
    assert "uptime" in vm.check_output("lastcomm uptime")
