"""The disk of a fresh Debian 13 server, as a provider hands it out: Debian's packages, started by GRUB; kept in .cache.

Nothing is mounted and no loop device is needed: mke2fs fills the file system, and GRUB's first stages go where its own
installer would put them. The installer itself runs in the machine's first boot (see `finish` in run.py).
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from build import SUITE, mirrors_of_this_machine  # images/build.py
from tests.support import ROOT
from tests.vm.machine import ADDRESS, GATEWAY, HOST_KEYS, INTERFACE, KEY, PREFIX, RESOLVER, VmError

CACHE = ROOT / ".cache" / "vm"
DISK_BYTES = 24 * 1024**3
PARTITION_START = 1024**2
SECTOR = 512
# Older ones lack security updates, and their lists of packages name what the mirror has no more.
OLDEST_SECONDS = 7 * 86400
PACKAGES = [
    # busybox is what the tests' container consists of; its package makes a new initrd, which would take minutes later.
    *["busybox-static"],
    *["apparmor", "ca-certificates", "dbus", "e2fsprogs", "grub-pc", "ifupdown", "init", "iproute2", "kmod", "less"],
    *["libpam-systemd", "linux-image-cloud-amd64", "netbase", "openssh-server", "procps", "python3", "python3-apt"],
    *["sudo", "systemd-sysv", "tzdata", "zstd"],
]
# What the roles install is at hand, as on the VPS of the other scenarios; and what only a kernel of its own can use.
AT_HAND = ROOT / "images" / "vps" / "packages-at-hand"
AT_HAND_TOO = ["acct", "apparmor-utils", "audispd-plugins", "python3-systemd", "sysstat"]

FILES = {
    "etc/hostname": "fresh\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 fresh\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/resolv.conf": f"nameserver {RESOLVER}\n",
    "etc/fstab": "LABEL=root / ext4 errors=remount-ro 0 1\n",
    # IPv6 comes from the router's advertisements, through the kernel: the way that a host which forwards for containers
    # easily loses.
    "etc/network/interfaces": (
        f"auto lo\niface lo inet loopback\n\nauto {INTERFACE}\niface {INTERFACE} inet static\n"
        f"  address {ADDRESS}/{PREFIX}\n  gateway {GATEWAY}\niface {INTERFACE} inet6 auto\n"
    ),
    "etc/apt/apt.conf.d/90server": 'Acquire::Languages "none";\nAcquire::Retries "3";\n',
    # Without systemd.ssh_auto=no each reload of systemd complains on the console that qemu has no vsock.
    "etc/default/grub.d/10-console.cfg": (
        "GRUB_TIMEOUT=0\nGRUB_TERMINAL=serial\n"
        'GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 systemd.ssh_auto=no"\n'
    ),
    # Only until update-grub has run.
    "boot/grub/grub.cfg": (
        "linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200\ninitrd /initrd.img\nboot\n"
    ),
}
GRUB_HOOK = (
    'chroot "$1" sh -ec "'
    "mkdir -p /boot/grub; cp -r /usr/lib/grub/i386-pc /boot/grub/; "
    "grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2"
    '"'
)


def disk() -> Path:
    """Return where the disk of this description is, or would be."""
    description = repr((PACKAGES, AT_HAND.read_text(), AT_HAND_TOO, FILES, GRUB_HOOK, DISK_BYTES))
    return CACHE / f"debian-{SUITE}-{hashlib.sha256(description.encode()).hexdigest()[:12]}.raw"


def fresh_enough(path: Path) -> bool:
    return path.exists() and time.time() - path.stat().st_mtime < OLDEST_SECONDS


def must(what: str, *command: str | Path) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise VmError(f"{what} failed:\n{done.stdout[-3000:]}")


def make(path: Path) -> None:
    """Make the disk: a file system with Debian in it, behind a partition table and GRUB's first stages."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob("debian-*.raw"):
        old.unlink()
    for key in (KEY, HOST_KEYS):
        key.unlink(missing_ok=True)
        key.with_suffix(".pub").unlink(missing_ok=True)
        must("ssh-keygen", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", key)
    at_hand = [line for line in AT_HAND.read_text().split("\n") if line and not line.startswith("#")]
    with tempfile.TemporaryDirectory(prefix="disk-", dir=CACHE) as scratch:
        files = Path(scratch, "files")
        for name, text in FILES.items():
            target = files / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        keys = files / "etc/ssh"
        keys.mkdir()
        for part in ("", ".pub"):
            shutil.copy(f"{HOST_KEYS}{part}", keys / f"ssh_host_ed25519_key{part}")
        door = files / "root/.ssh"
        door.mkdir(parents=True, mode=0o700)
        os.chmod(files / "root", 0o700)
        shutil.copy(KEY.with_suffix(".pub"), door / "authorized_keys")
        root = Path(scratch, "root")
        must(
            "mmdebstrap",
            *("mmdebstrap", "--variant=minbase", "--format=directory", "--skip=cleanup/apt"),
            f"--include={','.join(PACKAGES)}",
            '--essential-hook=echo "grub-pc grub-pc/install_devices_empty boolean true" '
            '| chroot "$1" debconf-set-selections',
            '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*',
            f"--customize-hook=sync-in {shlex.quote(str(files))} /",
            f"--customize-hook={GRUB_HOOK}",
            '--customize-hook=chroot "$1" apt-get install --yes --no-install-recommends --download-only '
            + " ".join([*at_hand, *AT_HAND_TOO]),
            *(SUITE, str(root)),
            *mirrors_of_this_machine(),
        )
        write(root, Path(scratch, "disk"))
        Path(scratch, "disk").rename(path)


def write(root: Path, target: Path) -> None:
    """Write partition table, boot loader and file system into the file `target`."""
    grub = root / "boot/grub/i386-pc"
    boot, core = (root / "usr/lib/grub/i386-pc/boot.img").read_bytes(), (grub / "core.img").read_bytes()
    if len(core) > PARTITION_START - SECTOR:
        raise VmError("GRUB's core image does not fit before the first partition.")
    first, sectors = PARTITION_START // SECTOR, (DISK_BYTES - PARTITION_START) // SECTOR
    entry = b"\x80\xfe\xff\xff\x83\xfe\xff\xff" + first.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    with target.open("wb") as file:
        file.write(boot[:440] + b"brth\x00\x00" + entry + bytes(48) + b"\x55\xaa" + core)
        file.truncate(DISK_BYTES)
    must(
        "mke2fs",
        *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", root, "-E", f"offset={PARTITION_START}"),
        *(target, f"{(DISK_BYTES - PARTITION_START) // 1024}k"),
    )
