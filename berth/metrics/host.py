"""What a container with node_exporter cannot see of the host: its file systems, interfaces, units and updates."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from berth.host import commands, system
from berth.metrics.exposition import Metrics

DISKS = {"ext4", "xfs", "btrfs", "f2fs", "zfs", "vfat", "ext3", "ext2"}
# What is in memory can be full like a disk: /run, /tmp, secrets. Not that of one container, session or unit.
MEMORY = "tmpfs"
PRIVATE = ("/dev/", "/run/credentials/", "/run/user/", "/run/docker/", "/var/lib/docker/")


def run(*command: str) -> str:
    done = commands.run(*command)
    # Nothing said for want of an answer would read as nothing wrong.
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
    """Return each disk once, where it is mounted highest, the root whatever it stands on, and what is in memory.

    Of those alone that are seen from here: another place would answer for one that is not.
    """
    found: dict[str, Mount] = {}
    for line in table.splitlines():
        device, place, kind, options = line.split()[:4]
        place = _unescaped(place)
        read_only = "ro" in options.split(",")
        in_memory = kind == MEMORY and not read_only and not f"{place}/".startswith(PRIVATE)
        if (kind in DISKS or place == "/" or in_memory) and place in seen and os.path.isdir(place):
            # All that is in memory says that it stands on "tmpfs".
            which = place if in_memory else device
            if which not in found or len(place) < len(found[which].place):
                found[which] = Mount(device, place, kind, read_only)
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
        metrics.add("node_filesystem_avail_bytes", "Free for everybody.", disk.f_bavail * disk.f_frsize, labels)
        metrics.add("node_filesystem_files", "Files it can hold.", disk.f_files, labels)
        metrics.add("node_filesystem_files_free", "Files it can still take.", disk.f_ffree, labels)
        metrics.add("node_filesystem_readonly", "Whether it refuses writes.", int(mount.read_only), labels)


def boot(metrics: Metrics, first: Path = Path("/proc/1/stat"), kernel: Path = Path("/proc/stat")) -> None:
    """Tell when the host began; where it is a container, its kernel is another machine's and began long before."""
    # The 22nd field, in ticks since the kernel began; the second is a name in brackets, which may hold anything.
    ticks = int(first.read_text().rpartition(")")[2].split()[19])
    began = next(int(line.split()[1]) for line in kernel.read_text().splitlines() if line.startswith("btime "))
    since = began + ticks / os.sysconf("SC_CLK_TCK")
    # The kernel works out its beginning anew when the clock is set; what tells one boot from another does not move.
    labels = {"boot": f"{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}-{ticks}"}
    metrics.add("berth_boot_time_seconds", "When the host was started.", since, labels)


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
    failed = system.first_words(run(*system.LIST_FAILED))
    metrics.add("berth_units_failed", "Units of systemd that failed.", len(failed))
    for name in failed:
        metrics.add("berth_unit_failed", "A unit of systemd that failed.", 1, {"unit": name})
    if watched:
        for name, state in system.units(run(*system.SHOW_UNITS, *watched)).items():
            # Not one that nobody turned on, or that has no place on this kind of machine.
            meant = state["LoadState"] == "loaded" and state["UnitFileState"] in {"enabled", "static"}
            if meant and not (state["ActiveState"] == "inactive" and state["ConditionResult"] == "no"):
                metrics.add("berth_unit_active", "Whether the unit runs.", int(system.is_active(state)), {"unit": name})


def clock(metrics: Metrics) -> None:
    # A container's clock is kept right by the machine outside.
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
    """Count pending upgrades by origin and architecture; with none pending, one count of 0, so that the metric exists."""
    simulated = run("apt-get", "--simulate", "--quiet", "-o", "Dir::Cache::pkgcache=", "upgrade")
    return system.upgrades(simulated) or Counter({("", ""): 0})
