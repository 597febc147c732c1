"""Other people's scanners, run against one machine: on it as root, and from the outside host beside it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.scans import reports
from tests.scans.costs import set_aside
from tests.scans.machine import Machine, ScanError, without_marker
from tests.scans.reports import Measure

# Names in the data stream of ssg-debian.
PROFILES = {
    "CIS L1 server": "cis_level1_server",
    "CIS L2 server": "cis_level2_server",
    "ANSSI BP-028 minimal": "anssi_bp28_minimal",
    "ANSSI BP-028 intermediary": "anssi_bp28_intermediary",
    "ANSSI BP-028 enhanced": "anssi_bp28_enhanced",
}
OURS = {22, 80, 443}
UDP_PORTS = 100
# What has to be on the machine for a scan, and is removed again.
PACKAGES = ["lynis", "openscap-scanner"]

# Debian 13's own ssg-debian stops at Debian 12, so the rules for 13 come from Debian's next release, in a container of
# their own. A mirror may lag behind the date that such a list is signed for; the signature itself is checked.
FETCH_RULES = r"""
set -e
cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null > /tmp/own || :
mirror=$(sed -n 's/^\(URIs:\|deb\) *\(\[[^]]*\] *\)\?\(http[^ ]*\/debian\/\?\)\( .*\)\?$/\3/p' /tmp/own | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" > /tmp/sid.list
apt="apt-get -qq -o Dir::Etc::sourcelist=/tmp/sid.list -o Dir::Etc::sourceparts=/nonexistent"
apt="$apt -o Acquire::Check-Valid-Until=false"
cd /tmp
$apt update
$apt download ssg-debian
dpkg-deb --extract ssg-debian_*.deb rules
cat rules/usr/share/xml/scap/ssg/content/ssg-debian13-ds.xml
"""


@dataclass(frozen=True)
class Target:
    """A machine to be scanned, what a scanner needs to know of it, and where its raw reports go."""

    vps: Machine
    outside: Machine
    address: str
    address6: str
    site: str
    zone: str
    folder: str
    artefacts: Path

    def keep(self, name: str, content: str) -> str:
        (self.artefacts / name).write_text(content)
        return content


def rules(kept: Path, image: str) -> bytes:
    """Return Debian 13's rules."""
    if not kept.exists():
        done = subprocess.run(
            ["docker", "run", "--rm", "--entrypoint", "/bin/sh", image, "-c", FETCH_RULES],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise ScanError(f"The rules for Debian 13 could not be had:\n{done.stderr.decode()[-2000:]}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(done.stdout)
    return kept.read_bytes()


def forced(stream: bytes) -> bytes:
    """Let the question for a kernel package find one that every Debian has.

    Then no rule is left out on a machine whose kernel comes from outside.
    """
    changed, times = re.subn(rb"(<linux:name>)linux-base(</linux:name>)", rb"\1dpkg\2", stream)
    if times != 1:
        raise ScanError(
            f"The data stream asks {times} times for linux-base, not once: look at it before you trust a score."
        )
    return changed


def lynis(target: Target) -> list[Measure]:
    report = f"{target.folder}/lynis-report.dat"
    log = f"{target.folder}/lynis.log"
    target.vps.attempt(f"lynis audit system --quick --no-colors --quiet --report-file {report} --logfile {log}")
    target.keep("lynis.log", target.vps.run(f"cat {log}"))
    return reports.lynis(target.keep("lynis-report.dat", target.vps.run(f"cat {report}")))


def openscap(target: Target, stream: bytes) -> list[Measure]:
    target.vps.send(stream, f"cat > {target.folder}/rules.xml")
    measures = []
    contained = target.vps.attempt("systemd-detect-virt --quiet --container").returncode == 0
    with without_marker(target.vps):
        for name, profile in PROFILES.items():
            results = f"{target.folder}/{profile}.xml"
            # 2: a rule failed, which is what is being asked.
            done = target.vps.attempt(
                f"oscap xccdf eval --profile {profile} --results {results} {target.folder}/rules.xml"
            )
            if done.returncode not in {0, 2}:
                raise ScanError(f"oscap ended with {done.returncode}:\n{done.stderr[-2000:]}")
            content = target.keep(f"openscap-{profile}.xml", target.vps.run(f"cat {results}"))
            measures.append(reports.openscap(content.encode(), name))
            if contained:
                own = Measure("OpenSCAP", f"{name}, the kernel outside set aside", f"{set_aside(content.encode()):.1f}")
                measures.append(own)
    return measures


def docker_bench(target: Target) -> list[Measure]:
    checkout = os.environ.get("DOCKER_BENCH", "")
    if not checkout:
        return [Measure("docker-bench-security", "score", "not run: DOCKER_BENCH names no checkout")]
    if not (Path(checkout) / "docker-bench-security.sh").is_file():
        raise ScanError(f"DOCKER_BENCH is {checkout!r}, where no docker-bench-security.sh is.")
    if target.vps.attempt("docker version").returncode:
        return [Measure("docker-bench-security", "score", "no Docker here")]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(checkout, "docker-bench", filter=lambda member: None if "/.git" in member.name else member)
    target.vps.send(packed.getvalue(), f"tar -x -C {target.folder}")
    run = f"cd {target.folder}/docker-bench && bash docker-bench-security.sh -b"
    target.keep("docker-bench.txt", target.vps.run(run))
    log = target.vps.run(f"cat {target.folder}/docker-bench/log/docker-bench-security.log.json")
    return [reports.docker_bench(target.keep("docker-bench.json", log))]


def systemd_units(target: Target) -> list[Measure]:
    # What an administrator or a role adds are files there; what comes with a package and is enabled is a link.
    names = target.vps.run("find /etc/systemd/system -maxdepth 1 -type f -name '*.service' -printf '%f\\n'").split()
    # Without a name the tool would list every unit of the machine.
    output = target.vps.run(f"systemd-analyze security --no-pager {' '.join(names)}") if names else ""
    return [reports.units(target.keep("systemd-analyze.txt", output))]


def ports(target: Target) -> list[Measure]:
    measures = []
    fast = "-Pn -n --open --max-retries 2 -oG -"
    for name, scan, address in (
        ("TCP, all 65,535, IPv4", "-sS -p- --min-rate 8000", target.address),
        ("TCP, all 65,535, IPv6", "-6 -sS -p- --min-rate 8000", target.address6),
        (f"UDP, the {UDP_PORTS} commonest, IPv4", f"-sU --top-ports {UDP_PORTS} --min-rate 300", target.address),
        (f"UDP, the {UDP_PORTS} commonest, IPv6", f"-6 -sU --top-ports {UDP_PORTS} --min-rate 300", target.address6),
    ):
        output = target.outside.run(f"nmap {fast} {scan} {address}")
        target.keep(f"nmap-{'6' if ':' in address else '4'}-{name[:3].lower()}.txt", output)
        measures.append(reports.ports(output, f"open {name}", OURS))
    # QUIC answers nobody who does not speak it, and nmap does not.
    # The demo's name leads to loopback wherever it is asked for.
    there = f"--resolve {target.site}:443:{target.address}"
    answer = target.outside.attempt(
        f"curl --silent --insecure --http3-only --max-time 5 {there} https://{target.site}/"
    )
    measures.append(Measure("nmap", "HTTP/3 on UDP 443", "no" if answer.returncode else "answers"))
    return measures


def testssl(target: Target) -> list[Measure]:
    if target.outside.attempt(f"nc -z -w 3 {target.address} 443").returncode:
        return [Measure("testssl.sh", "grade", "no HTTPS here")]
    # All that the grade is made of; what a list of old browsers would negotiate is left out, it takes longest.
    target.outside.run(
        f"curl -fsS --cacert /srv/outside/ca.pem https://acme.{target.zone}:15000/roots/0 > /tmp/testssl-ca.pem\n"
        "rm -f /tmp/testssl.json",
    )
    chosen = "--ip one -p -s -f -P -S -h -U"
    # Its exit status counts its findings.
    files = "--add-ca /tmp/testssl-ca.pem --jsonfile /tmp/testssl.json"
    done = target.outside.attempt(f"testssl --quiet --color 0 --warnings off {files} {chosen} {target.site}")
    target.keep("testssl.txt", done.stdout)
    return [reports.testssl(target.keep("testssl.json", target.outside.run("cat /tmp/testssl.json")))]


def ssh_audit(target: Target) -> list[Measure]:
    # Without its load test, which is an attack. Its exit status counts its findings.
    done = target.outside.attempt(f"ssh-audit --no-colors --skip-rate-test {target.address}")
    return [reports.ssh_audit(target.keep("ssh-audit.txt", done.stdout))]


def scanners(stream: bytes) -> dict[str, Callable[[Target], list[Measure]]]:
    """Return the scanners in the order they run: ssh-audit last, since many connections are what a ban answers."""
    return {
        "lynis": lynis,
        "OpenSCAP": lambda target: openscap(target, stream),
        "docker-bench-security": docker_bench,
        "systemd-analyze": systemd_units,
        "nmap": ports,
        "testssl.sh": testssl,
        "ssh-audit": ssh_audit,
    }
