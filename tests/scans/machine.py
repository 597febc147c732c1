"""A machine of the test bed as root, and how to leave it as it was found."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

# Docker writes this file into every container, and OpenSCAP takes it as the sign of one.
MARKER = "/.dockerenv"
MARKER_ASIDE = "/.dockerenv-during-scan"
# What a scan could leave behind or change, without times; the linker's cache follows the packages by itself.
SNAPSHOT = r"""
dpkg-query --show --showformat='package ${Package} ${Version} ${db:Status-Status}\n'
find / /etc /root -maxdepth 1 -printf 'file %p %M %u:%g\n'
find /etc /root -xdev -type f -not -path /etc/ld.so.cache -printf 'file %p %M %u:%g %s\n'
"""


class ScanError(Exception):
    """A scan cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Machine:
    """A machine, the command that runs a shell there as root, and the seconds that a script may take."""

    name: str
    shell: Sequence[str]
    patience: float = 900
    # Whether the command hands its words to another shell, as ssh does.
    quoted: bool = False

    @classmethod
    def container(cls, name: str) -> Machine:
        return cls(name, ["docker", "exec", "--interactive", name, "/bin/sh"])

    def command(self, script: str) -> list[str]:
        return [*self.shell, "-c", shlex.quote(script) if self.quoted else script]

    def attempt(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script whose exit status the caller judges."""
        return subprocess.run(
            self.command(script),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=self.patience,
            check=False,
        )

    def run(self, script: str) -> str:
        """Return what a script prints."""
        done = self.attempt(script)
        if done.returncode:
            raise ScanError(f"{self.name}: `{script.strip()}` ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout

    def send(self, data: bytes, script: str) -> None:
        """Feed data to a script there."""
        done = subprocess.run(self.command(script), input=data, capture_output=True, check=False)
        if done.returncode:
            raise ScanError(f"{self.name}: `{script}` ended with {done.returncode}:\n{done.stderr.decode()[-2000:]}")


@contextmanager
def packages(machine: Machine, names: Sequence[str]) -> Iterator[None]:
    """Have packages for a while; afterwards exactly those go that came."""
    apt = "DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120"
    listing = "dpkg-query --show --showformat='${Package}\\n'"
    before = set(machine.run(listing).split())
    try:
        machine.run(f"{apt} update && {apt} install --yes --no-install-recommends {' '.join(names)}")
        yield
    finally:
        came = set(machine.run(listing).split()) - before
        if came:
            # Some are essential to a machine that boots from a disk; this one did without.
            machine.run(f"{apt} purge --yes --allow-remove-essential {' '.join(sorted(came))}")


@contextmanager
def folder(machine: Machine) -> Iterator[str]:
    """Have a folder for scanners and their reports, where programs may run; /tmp may forbid that."""
    path = machine.run("mktemp --directory /root/scan.XXXXXX").strip()
    try:
        yield path
    finally:
        machine.run(f"rm -rf {path}")


@contextmanager
def without_marker(machine: Machine) -> Iterator[None]:
    """Hide what tells OpenSCAP that it looks at a container, where almost no rule would apply."""
    machine.run(f"if [ -e {MARKER} ]; then mv {MARKER} {MARKER_ASIDE}; fi")
    try:
        yield
    finally:
        machine.run(f"if [ -e {MARKER_ASIDE} ]; then mv {MARKER_ASIDE} {MARKER}; fi")


def snapshot(machine: Machine) -> set[str]:
    return set(machine.run(SNAPSHOT).splitlines())
