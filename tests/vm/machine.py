"""A machine of its own under qemu, and the small internet it stands in.

The internet is a network namespace: a router that advertises an IPv6 prefix, a way out to Debian's mirror, and every
port of the machine in reach. Whatever is started here ends with this process, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import ROOT

STATE = ROOT / ".testbed" / "vm"
KEY = ROOT / ".cache" / "vm" / "id_ed25519"
HOST_KEYS = ROOT / ".cache" / "vm" / "host_ed25519"
KNOWN_HOSTS = STATE / "known_hosts"
CONSOLE = STATE / "console.log"

# Addresses for documentation (RFC 5737, RFC 3849), so that they are nobody's.
GATEWAY, ADDRESS, PREFIX = "192.0.2.1", "192.0.2.2", 24
GATEWAY6, NETWORK6 = "2001:db8:1::1", "2001:db8:1::"
MAC = "52:54:00:be:47:01"
# What SLAAC makes of the MAC.
ADDRESS6 = "2001:db8:1:0:5054:ff:febe:4701"
INTERFACE = "ens3"
RESOLVER = "10.0.2.3"
# A route learned from the router is gone after this long unless the next advertisement is heard.
ROUTER_LIFETIME_SECONDS = 30
# What the site runs in containers has scenarios of its own; here it is the host's turn.
PROVISION = [
    *["ansible-playbook", "ansible/provision.yml", "-i", "tests/vm/inventory"],
    *["--skip-tags", "environment,traefik,stack,monitoring_containers"],
]
BOOT_SECONDS = 600
SHUTDOWN_SECONDS = 240
MEMORY_MB = 4096


class VmError(Exception):
    """The machine cannot go on; the message says what was seen."""


def ending_with_us(*command: str) -> list[str]:
    """Return the command so that the kernel ends it when this process is gone, however that happened."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


@contextlib.contextmanager
def running(what: str, log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside us, its words in a file, and end it at the end."""
    with log.open("wb") as words:
        process = subprocess.Popen(ending_with_us(*command), stdin=subprocess.DEVNULL, stdout=words, stderr=words)
    try:
        yield process
        if process.poll() not in (None, 0):
            raise VmError(f"{what} ended with {process.returncode}:\n{log.read_text(errors='replace')[-1500:]}")
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@dataclass
class Internet:
    """A network namespace, held open by a process of ours."""

    holder: int

    def inside(self, *command: str) -> list[str]:
        """Return the command as it runs in the namespace."""
        return ["nsenter", f"--target={self.holder}", "--net", "--", *command]

    def run(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run(
            self.inside(*command), input=stdin, capture_output=True, text=True, timeout=30, check=False
        )
        if done.returncode:
            raise VmError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def internet() -> Iterator[Internet]:
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # It says "ready" once it is in a namespace of its own.
        ready = STATE / "namespace.log"
        holder = stack.enter_context(
            running("the namespace", ready, "unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity")
        )
        wait_for("a network namespace", ready, "ready", holder)
        net = Internet(holder.pid)
        slirp = STATE / "slirp4netns.log"
        way_out = stack.enter_context(
            running("slirp4netns", slirp, "slirp4netns", "--configure", "--mtu=1500", str(holder.pid), "out0")
        )
        wait_for("a way out", slirp, "received tapfd", way_out)
        for command in (
            "ip link set lo up",
            "ip tuntap add dev vm0 mode tap",
            f"ip address add {GATEWAY}/{PREFIX} dev vm0",
            f"ip address add {GATEWAY6}/64 dev vm0 nodad",
            "ip link set vm0 up",
            "sysctl --quiet --write net.ipv4.ip_forward=1",
        ):
            net.run(*command.split())
        net.run(
            *("nft", "--file", "-"),
            stdin="table ip out {\n chain out {\n  type nat hook postrouting priority srcnat;\n"
            '  oifname "out0" masquerade\n }\n}\n',
        )
        router = STATE / "router.log"
        stack.enter_context(
            running(
                "the IPv6 router",
                router,
                *net.inside("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-"),
                *("--user=root", "--port=0", "--interface=vm0", "--enable-ra"),
                f"--dhcp-range={NETWORK6},ra-only,64,infinite",
                f"--ra-param=vm0,10,{ROUTER_LIFETIME_SECONDS}",
            )
        )
        yield net


def wait_for(what: str, log: Path, word: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while word not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise VmError(f"{what} could not be had:\n{log.read_text(errors='replace')[-1500:]}")
        time.sleep(0.05)


def console_tail(lines: int = 25) -> str:
    said = CONSOLE.read_text(errors="replace").splitlines() if CONSOLE.exists() else []
    return "\n".join(line.rstrip() for line in said[-lines:]) or "(nothing)"


@dataclass
class Machine:
    """The running machine, asked over SSH."""

    net: Internet
    process: subprocess.Popen[bytes]
    options: list[str] = field(default_factory=list)

    def login(self, user: str) -> list[str]:
        """Return the command that runs, as this user, what comes after it."""
        options = [f'-oUserKnownHostsFile="{KNOWN_HOSTS}"', "-oBatchMode=yes", "-oConnectTimeout=60", "-i", str(KEY)]
        return self.net.inside("ssh", *options, f"{user}@{ADDRESS}")

    def ssh(self, command: str, user: str = "root", seconds: float = 120) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self.login(user), command],
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess([], 255, "", f"no answer within {seconds:.0f} s")

    def must(self, command: str, user: str = "root", seconds: float = 300) -> str:
        done = self.ssh(command, user, seconds)
        if done.returncode:
            raise VmError(f"On the machine, `{command}` failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def boot_id(self, user: str) -> str:
        return self.ssh("cat /proc/sys/kernel/random/boot_id", user, 15).stdout.strip()

    def wait_for_boot(self, user: str = "root", other_than: str = "") -> str:
        """Wait until another boot than the named one answers over SSH; return its id."""
        deadline = time.monotonic() + BOOT_SECONDS
        while (found := self.boot_id(user)) in {"", other_than}:
            if self.process.poll() is not None:
                raise VmError(f"qemu ended with {self.process.returncode} during the boot.")
            if time.monotonic() > deadline:
                raise VmError(f"No login as {user} within {BOOT_SECONDS} s.")
            time.sleep(2)
        return found

    def power_off(self) -> None:
        """Shut down in good order and wait for qemu to end."""
        self.ssh("systemctl poweroff")
        try:
            self.process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            raise VmError(f"No shutdown within {SHUTDOWN_SECONDS} s.") from None


@contextlib.contextmanager
def machine(net: Internet, disk: Path, keep: bool) -> Iterator[Machine]:
    """Start the machine; what it writes to its disk stays only with `keep`."""
    KNOWN_HOSTS.write_text(f"{ADDRESS} {HOST_KEYS.with_suffix('.pub').read_text()}")
    CONSOLE.unlink(missing_ok=True)
    command = [
        *["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"],
        *["-machine", "pc", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
        *["-smp", str(min(os.cpu_count() or 1, 4)), "-m", str(MEMORY_MB)],
        *["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,discard=unmap"],
        *["-netdev", "tap,id=net,ifname=vm0,script=no,downscript=no"],
        *["-device", f"virtio-net-pci,netdev=net,mac={MAC},addr=3,romfile="],
        *["-device", "virtio-rng-pci", "-serial", f"file:{CONSOLE}"],
        *([] if keep else ["-snapshot"]),
    ]
    log = STATE / "qemu.log"
    # The disk's changes are a file without a name, on the disk of this checkout rather than in memory.
    with running("qemu", log, *net.inside("env", f"TMPDIR={STATE}", *command)) as process:
        yield Machine(net, process)


def stop_on_signals() -> None:
    """Let a request to end run the clean-up, as an interruption from the keyboard does."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
