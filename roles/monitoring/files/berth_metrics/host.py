"""What a container with node_exporter cannot see of the host: its file systems, interfaces, units and updates."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from berth_metrics.exposition import Metrics

DISKS = {"ext4", "xfs", "btrfs", "f2fs", "zfs", "vfat", "ext3", "ext2"}
SECONDS = 60


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.stdout


@dataclass(frozen=True)
class Mount:
    device: str
    place: str
    kind: str
    read_only: bool


def mounts(table: str) -> list[Mount]:
    """Return each disk once, where it is mounted highest; the root whatever it stands on."""
    found: dict[str, Mount] = {}
    for line in table.splitlines():
        device, place, kind, options = line.split()[:4]
        place = place.encode().decode("unicode_escape")
        if (kind in DISKS or place == "/") and os.path.isdir(place):
            mount = Mount(device, place, kind, "ro" in options.split(","))
            if device not in found or len(place) < len(found[device].place):
                found[device] = mount
    return list(found.values())


def file_systems(metrics: Metrics, table: str) -> None:
    for mount in mounts(table):
        disk = os.statvfs(mount.place)
        labels = {"device": mount.device, "mountpoint": mount.place, "fstype": mount.kind}
        metrics.add("node_filesystem_size_bytes", "Size of the file system.", disk.f_blocks * disk.f_frsize, labels)
        metrics.add("node_filesystem_avail_bytes", "Free for everybody.", disk.f_bavail * disk.f_frsize, labels)
        metrics.add("node_filesystem_files", "Files it can hold.", disk.f_files, labels)
        metrics.add("node_filesystem_files_free", "Files it can still take.", disk.f_ffree, labels)
        metrics.add("node_filesystem_readonly", "Whether it refuses writes.", int(mount.read_only), labels)


def interfaces(metrics: Metrics, table: str) -> None:
    for line in table.splitlines()[2:]:
        name, _, values = line.partition(":")
        numbers = [int(value) for value in values.split()]
        device = name.strip()
        # Containers' ends come and go with them.
        if device == "lo" or device.startswith("veth"):
            continue
        labels = {"device": device}
        metrics.add("node_network_receive_bytes_total", "Received.", numbers[0], labels)
        metrics.add("node_network_receive_errs_total", "Received with errors.", numbers[2], labels)
        metrics.add("node_network_transmit_bytes_total", "Sent.", numbers[8], labels)
        metrics.add("node_network_transmit_errs_total", "Not sent for errors.", numbers[10], labels)


def units(metrics: Metrics, watched: list[str]) -> None:
    failed = run("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager").splitlines()
    metrics.add("berth_units_failed", "Units of systemd that failed.", len(failed))
    for line in failed:
        metrics.add("berth_unit_failed", "A unit of systemd that failed.", 1, {"unit": line.split()[0]})
    if watched:
        shown = run("systemctl", "show", "--property=Id,ActiveState,LoadState,ConditionResult,UnitFileState", *watched)
        for block in shown.strip().split("\n\n"):
            state = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            # Not one that nobody turned on, or that has no place on this kind of machine.
            meant = state.get("LoadState") == "loaded" and state["UnitFileState"] in {"enabled", "static"}
            if meant and not (state["ActiveState"] == "inactive" and state["ConditionResult"] == "no"):
                # One that reloads or is at its start does its work, or a moment later another state is seen.
                active = int(state["ActiveState"] in {"active", "reloading", "activating"})
                metrics.add("berth_unit_active", "Whether the unit runs.", active, {"unit": state["Id"]})


def clock(metrics: Metrics) -> None:
    # A container's clock is kept right by the machine outside.
    if Path("/run/systemd/container").exists():
        return
    said = run("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
    if said:
        metrics.add("berth_clock_synchronised", "Whether a time server keeps the clock right.", int(said == "yes"))


def reboot(metrics: Metrics, flag: Path = Path("/run/reboot-required")) -> None:
    wanted = flag.exists()
    metrics.add("berth_reboot_required", "Whether an update waits for a restart of the host.", int(wanted))
    if wanted:
        metrics.add("berth_reboot_required_since_seconds", "Since when.", flag.stat().st_mtime)


def security_updates() -> int:
    said = run("apt-get", "--simulate", "--quiet", "-o", "Dir::Cache::pkgcache=", "upgrade")
    return sum(line.startswith("Inst") and "security" in line.lower() for line in said.splitlines())
