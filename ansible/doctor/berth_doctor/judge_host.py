"""Judge the host: system, CPU, memory, disks, clock, updates."""

from __future__ import annotations

import re
from collections.abc import Iterator

from berth_doctor.lines import ARCHITECTURES, Facts, Line, ok, short, skipped, warning, wrong

CLOCK_WARNING, CLOCK_WRONG = 2.0, 30.0
INODES_WRONG, INODES_WARNING = 2, 10


def system(host: Facts, facts: Facts) -> Iterator[Line]:
    found, source = host["system"], facts["values"].get("docker_source")
    major = found["version"].split(".")[0]
    number = int(major) if major.isdigit() else 0
    if found["id"] != "debian" or number < 12 or not found["systemd"]:
        without = "" if found["systemd"] else ", not started by systemd"
        yield wrong(
            "system", "System", f"{found['name']}{without}", "Reinstall the server with Debian 13, started by systemd."
        )
    elif number == 12 and source != "docker":
        yield wrong(
            "system",
            "System",
            f"{found['name']}, whose own packages have no compose v2",
            "Reinstall it with Debian 13, or set docker_packages_source to docker.",
        )
    elif number == 12:
        yield warning("system", "System", f"{found['name']}; tests run on Debian 13", "Plan its upgrade.")
    else:
        yield ok(
            "system",
            "System",
            f"{found['name']}, systemd" + (f", in a container ({found['container']})" * bool(found["container"])),
        )


def cpu(host: Facts, facts: Facts) -> Iterator[Line]:
    """Judge whether the CPU can run the images, above all MongoDB's."""
    found, values = host["system"], facts["values"]
    machine, flags = ARCHITECTURES.get(found["architecture"]), found["flags"]
    if not machine:
        yield wrong(
            "cpu", "CPU", found["architecture"], "Images exist for x86_64 and aarch64 only: choose such a server."
        )
        return
    image = str(values.get("mongo_image") or "")
    version = re.search(r"mongo:(\d+)", image)
    lacking = {"amd64": "avx", "arm64": "atomics"}[machine]
    if values.get("mongo_local") and version and int(version[1]) >= 5 and flags and lacking not in flags:
        yield wrong(
            "cpu",
            "CPU",
            f"{found['architecture']} without {lacking}, which {image} needs: it would crash with SIGILL",
            "Choose another CPU model in the provider's console (host passthrough), or a managed database "
            "(vault_mongo_uri).",
        )
    else:
        yield ok("cpu", "CPU", found["architecture"] + (f" with {lacking}" if lacking in flags else ""))


def memory(host: Facts, facts: Facts) -> Iterator[Line]:
    least = int(facts["values"].get("minimum_memory_mb") or 0)
    if host["memory_mb"] < least:
        yield wrong(
            "memory",
            "Memory",
            f"{host['memory_mb']} MB, and {least} MB are required",
            "Choose a larger server, or lower base_minimum_memory_mb if you are sure.",
        )
    else:
        yield ok("memory", "Memory", f"{host['memory_mb']} MB")


def disk(host: Facts, facts: Facts) -> Iterator[Line]:
    values = facts["values"]
    least = {
        "/": ("base_minimum_disk_mb", int(values.get("minimum_disk_mb") or 0)),
        "/var/lib/docker": max(
            ("docker_minimum_disk_mb", int(values.get("docker_minimum_disk_mb") or 0)),
            ("stack_disk_free_gib", 1024 * int(values.get("stack_disk_free_gib") or 0)),
            key=lambda one: one[1],
        ),
    }
    for path, found in host["disks"].items():
        variable, asked = least[path]
        subject = f"Disk {path}"
        if found["free_mb"] < asked:
            yield wrong(
                "disk",
                subject,
                f"{found['free_mb']} MB free, and {variable} requires {asked} MB",
                "Free some space (docs/runbooks/DiskFull.md), enlarge the disk, or lower the variable.",
            )
        elif found["inodes_free_percent"] < INODES_WARNING:
            line = wrong if found["inodes_free_percent"] < INODES_WRONG else warning
            yield line(
                "disk",
                subject,
                f"only {found['inodes_free_percent']} % of its inodes are free",
                "Find the directory with too many small files: du --inodes --max-depth=3 / | sort -n | tail",
            )
        else:
            yield ok("disk", subject, f"{found['free_mb'] / 1024:.1f} GiB free")


def clock(host: Facts, facts: Facts) -> Iterator[Line]:
    """Judge the clock, by the ACME authority's where it can be reached: certificates and tokens need the right time."""
    judge = (host.get("acme") or {}).get("offset")
    offset = facts.get("offset")
    if offset is None:
        yield skipped("clock", "Clock", "not compared")
        return
    # Dates in HTTP headers have whole seconds, and are as old as the response.
    far = abs(judge) > CLOCK_WRONG if judge is not None else abs(offset) > CLOCK_WRONG
    install = (
        "site.yml installs chrony" if not host.get("provisioned") else "systemctl restart chrony, then chronyc tracking"
    )
    if far:
        against = "the ACME authority's" if judge is not None else "the controller's"
        off = judge if judge is not None else offset
        yield wrong(
            "clock",
            "Clock",
            f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} {against}",
            f"Set it now (date --set=...), or enable the provider's guest agent; {install}.",
        )
    elif abs(offset) > CLOCK_WRONG:
        yield warning(
            "clock",
            "Clock",
            f"right on the host; the controller's is {abs(offset):.0f} s {'behind' if offset > 0 else 'ahead'}",
            "Set the controller's clock: what it signs gets its time.",
        )
    elif abs(offset) > CLOCK_WARNING:
        yield warning(
            "clock",
            "Clock",
            f"{abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} the controller's",
            f"{install}.",
        )
    elif host["clock"]["synchronized"] is False and not host["system"]["container"]:
        yield warning("clock", "Clock", "right, but not synchronised: no time server", f"{install}.")
    else:
        yield ok(
            "clock",
            "Clock",
            "as the controller's"
            + (", set by the machine outside" if host["system"]["container"] else ", synchronised"),
        )
    if not host["zone"]:
        yield wrong(
            "clock",
            "Time zone",
            f"unknown to the host: {facts['values'].get('timezone')}",
            "Set base_timezone to a name of `timedatectl list-timezones`.",
        )


def updates(host: Facts, _: Facts) -> Iterator[Line]:
    if host["updates"]["reboot"]:
        yield warning(
            "updates",
            "Updates",
            "an update requires a reboot",
            "Reboot the server at a quiet hour, or let base_upgrades_reboot do it.",
        )


def missing(host: Facts, facts: Facts) -> Iterator[Line]:
    """Judge missing components; fill in the inventory, which the host does not know, in its remedies."""
    inventory = (facts.get("controller") or {}).get("inventory") or "inventories/<env>"
    for one in host.get("missing") or []:
        fix = str(one.get("fix") or "ansible-playbook ansible/status.yml -i inventories/<env>")
        yield wrong("missing", "Missing", short(one.get("what", "")), fix.replace("inventories/<env>", inventory))
