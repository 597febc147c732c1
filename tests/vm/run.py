"""A Debian 13 machine with a kernel of its own: provisioned by the playbook, restarted, asked if it keeps its word.

usage: python3 -m tests.vm.run [--scan] [pytest arguments]

--scan: afterwards lynis, OpenSCAP and systemd look at it too, which takes an hour; the reports go to artifacts/scan/vm.

Everything is emulated in software, so that it runs where no hardware virtualisation is to be had. The disk is made once
and kept in .cache/vm; what a run writes to it goes with the run. The serial console is in .testbed/vm/console.log.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.scans import machine as scanned
from tests.scans.machine import ScanError
from tests.scans.scan import ARTEFACTS, RULES, Column, keep, table
from tests.scans.scanners import PACKAGES, Target, lynis, openscap, rules, systemd_units
from tests.support import ROOT
from tests.vm import image
from tests.vm.machine import (
    ADDRESS,
    ADDRESS6,
    PROVISION,
    Internet,
    Machine,
    VmError,
    console_tail,
    internet,
    machine,
    stop_on_signals,
)

PROVISION_SECONDS = 1800
TEST_SECONDS = 1800
# lynis asks thousands of small questions.
SCANNER_SECONDS = 3600

# A stack as somebody writes it who forgets that a published port is one for everybody.
CARELESS = """
set -e
mkdir -p /srv/careless
cp /bin/busybox /srv/careless/
cat > /srv/careless/Dockerfile <<'END'
FROM scratch
COPY busybox /busybox
ENTRYPOINT ["/busybox"]
END
cat > /srv/careless/compose.yml <<'END'
name: careless
services:
  web:
    build: .
    image: careless:1
    container_name: careless
    command: httpd -f -p 8080 -h /
    init: true
    restart: always
    mem_limit: 64m
    ports: ["80:8080", "8000:8080", "27017:8080"]
networks:
  default: {enable_ipv6: true}
END
docker compose --file /srv/careless/compose.yml up --build --detach --quiet-pull
"""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what begins and, when it is done, how long it took."""
    print(f"\n== {title}", flush=True)
    began = time.monotonic()
    yield
    print(f"   done in {time.monotonic() - began:.0f} s", flush=True)


def run(net: Internet, seconds: float, *command: str) -> None:
    try:
        done = subprocess.run(net.inside(*command), cwd=ROOT, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise VmError(f"`{' '.join(command)}` was not done within {seconds:.0f} s.") from None
    if done.returncode:
        raise VmError(f"`{' '.join(command)}` ended with {done.returncode}; see above.")


def finish(vm: Machine) -> None:
    """Let Debian's own programs install the boot loader and write its menu: they need a running machine."""
    vm.wait_for_boot()
    vm.must("grub-install /dev/vda && update-grub && ssh-keygen -A")
    vm.power_off()


def disk(net: Internet) -> None:
    path = image.disk()
    if image.fresh_enough(path):
        return
    with step("A disk with Debian 13 (kept for the next runs)"):
        unfinished = path.with_suffix(".unfinished")
        image.make(unfinished)
        with machine(net, unfinished, keep=True) as vm:
            finish(vm)
        unfinished.rename(path)


def scan(vm: Machine) -> None:
    """Let scanners look at the host from within; its kernel is its own, so no rule is forced."""
    artefacts = ARTEFACTS / "vm"
    artefacts.mkdir(parents=True, exist_ok=True)
    stream = rules(RULES, "localhost/berth/debian:trixie")
    host = scanned.Machine("the machine", [*vm.login("admin"), "sudo", "/bin/sh"], SCANNER_SECONDS, quoted=True)
    column = Column("vm")
    with scanned.packages(host, PACKAGES), scanned.folder(host) as work:
        target = Target(host, host, ADDRESS, ADDRESS6, "", "", work, artefacts)
        for name, look in {
            "systemd-analyze": systemd_units,
            "OpenSCAP": lambda target: openscap(target, stream),
            "lynis": lynis,
        }.items():
            began = time.monotonic()
            column.measures += look(target)
            column.seconds[name] = round(time.monotonic() - began)
            print(f"   {name} in {column.seconds[name]} s", flush=True)
            keep(column, artefacts)
    print(f"\n{table([column])}", flush=True)


def main(arguments: list[str]) -> None:
    began = time.monotonic()
    with internet() as net:
        disk(net)
        with machine(net, image.disk(), keep=False) as vm:
            with step("The machine boots"):
                vm.wait_for_boot()
            with step("ansible-playbook ansible/provision.yml: the host"):
                run(net, PROVISION_SECONDS, *PROVISION)
            with step("A container publishes ports by mistake"):
                vm.must(f"sudo sh -c {shlex.quote(CARELESS)}", "admin")
            with step("The machine restarts"):
                before = vm.boot_id("admin")
                vm.ssh("sudo systemctl reboot", "admin")
                vm.wait_for_boot("admin", other_than=before)
            broken = None
            with step("It is asked whether it keeps its word"):
                try:
                    asked = [each for each in arguments if each != "--scan"]
                    run(net, TEST_SECONDS, "pytest", "-q", "tests/vm", *asked)
                except VmError as error:
                    broken = error
            if "--scan" in arguments:
                with step("Other people's scanners look at it"):
                    scan(vm)
            if broken:
                raise broken
    print(f"\nAll tests of the machine passed, {time.monotonic() - began:.0f} s after the start.")


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("vm: this makes a network of its own, which only root can")
    stop_on_signals()
    try:
        main(sys.argv[1:])
    except (VmError, ScanError) as error:
        sys.exit(f"\nvm: {error}\n\nThe console's last lines:\n{console_tail()}")
