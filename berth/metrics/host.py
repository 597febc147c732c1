"""Metrics of the host that node_exporter cannot see from its container: file systems, interfaces, units, updates."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from berth.host import commands, system
from berth.metrics.exposition import Metrics

DISKS = {"ext4", "xfs", "btrfs", "f2fs", "zfs", "vfat", "ext3", "ext2"}
# A tmpfs can fill up like a disk: /run, /tmp, secrets. Those of one container, session or unit do not count.
MEMORY = "tmpfs"
PRIVATE = ("/dev/", "/run/credentials/", "/run/user/", "/run/docker/", "/var/lib/docker/")


def run(*command: str) -> str:
    done = commands.run(*command)
    # The empty output of a failed command would look as if nothing were wrong.
    if done.returncode:
        raise OSError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Mount:
    device: str
    place: str
    kind: str
    read_only: bool


def mounts(table: str, seen: set[str]) -> list[Mount]:
    """Return each disk once, at its shortest mount point, the root of any type, and each tmpfs.

    Only mount points in `seen`, those of this process: statvfs on any other would measure the file system below it.
    """
    found: dict[str, Mount] = {}
    for line in table.splitlines():
        device, place, kind, options = line.split()[:4]
        place = _unescaped(place)
        read_only = "ro" in options.split(",")
        in_memory = kind == MEMORY and not read_only and not f"{place}/".startswith(PRIVATE)
        if (kind in DISKS or place == "/" or in_memory) and place in seen and os.path.isdir(place):
            # Every tmpfs has the device name "tmpfs".
            key = place if in_memory else device
            if key not in found or len(place) < len(found[key].place):
                found[key] = Mount(device, place, kind, read_only)
    return list(found.values())


def places(table: str) -> set[str]:
    return {_unescaped(line.split()[1]) for line in table.splitlines()}


def _unescaped(place: str) -> str:
    return place.encode().decode("unicode_escape")


def file_systems(metrics: Metrics, table: str, seen: set[str]) -> None:
    for mount in mounts(table, seen):
        disk = os.statvfs(mount.place)
        labels = {"device": mount.device, "mountpoint": mount.place, "fstype": mount.kind}
        metrics.add("node_filesystem_size_bytes", "Size of the file system.", disk.f_blocks * disk.f_frsize, labels)
        metrics.add(
            "node_filesystem_avail_bytes", "Available to non-root users.", disk.f_bavail * disk.f_frsize, labels
        )
        metrics.add("node_filesystem_files", "Inodes.", disk.f_files, labels)
        metrics.add("node_filesystem_files_free", "Free inodes.", disk.f_ffree, labels)
        metrics.add("node_filesystem_readonly", "Whether it is mounted read-only.", int(mount.read_only), labels)


def boot(metrics: Metrics, first: Path = Path("/proc/1/stat"), kernel: Path = Path("/proc/stat")) -> None:
    """Measure when the host booted: the start of process 1, because a container has another machine's kernel."""
    # The 22nd field, in ticks since the kernel booted. The second is a name in brackets that may contain anything.
    ticks = int(first.read_text().rpartition(")")[2].split()[19])
    began = next(int(line.split()[1]) for line in kernel.read_text().splitlines() if line.startswith("btime "))
    since = began + ticks / os.sysconf("SC_CLK_TCK")
    # The kernel recalculates its boot time when the clock is set; this label stays the same for one boot.
    labels = {"boot": f"{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}-{ticks}"}
    metrics.add("berth_boot_time_seconds", "When the host booted.", since, labels)


def interfaces(metrics: Metrics, table: str) -> None:
    for line in table.splitlines()[2:]:
        name, _, values = line.partition(":")
        numbers = [int(value) for value in values.split()]
        device = name.strip()
        # Interfaces of containers come and go.
        if device == "lo" or device.startswith("veth"):
            continue
        labels = {"device": device}
        metrics.add("node_network_receive_bytes_total", "Bytes received.", numbers[0], labels)
        metrics.add("node_network_receive_errs_total", "Receive errors.", numbers[2], labels)
        metrics.add("node_network_transmit_bytes_total", "Bytes sent.", numbers[8], labels)
        metrics.add("node_network_transmit_errs_total", "Transmit errors.", numbers[10], labels)


def units(metrics: Metrics, watched: list[str]) -> None:
    failed = system.first_words(run(*system.LIST_FAILED))
    metrics.add("berth_units_failed", "Number of failed systemd units.", len(failed))
    for name in failed:
        metrics.add("berth_unit_failed", "A failed systemd unit.", 1, {"unit": name})
    if watched:
        for name, state in system.units(run(*system.SHOW_UNITS, *watched)).items():
            # Leave out units that are not enabled or whose conditions do not hold.
            expected = state["LoadState"] == "loaded" and state["UnitFileState"] in {"enabled", "static"}
            if expected and not (state["ActiveState"] == "inactive" and state["ConditionResult"] == "no"):
                metrics.add(
                    "berth_unit_active", "Whether the unit is active.", int(system.is_active(state)), {"unit": name}
                )


def clock(metrics: Metrics) -> None:
    # A container's clock is that of its host.
    if Path("/run/systemd/container").exists():
        return
    output = run("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
    metrics.add("node_timex_sync_status", "Whether the clock is synchronised to a time server.", int(output == "yes"))


def reboot(metrics: Metrics, flag: Path = Path("/run/reboot-required")) -> None:
    required = flag.exists()
    metrics.add("node_reboot_required", "Whether an update needs a reboot of the host.", int(required))
    if required:
        metrics.add("berth_reboot_required_since_seconds", "Since when a reboot is required.", flag.stat().st_mtime)


def upgrades() -> Counter[tuple[str, str]]:
    """Count pending upgrades by origin and architecture; if there are none, return one count of 0."""
    simulated = run("apt-get", "--simulate", "--quiet", "-o", "Dir::Cache::pkgcache=", "upgrade")
    return system.upgrades(simulated) or Counter({("", ""): 0})
