#!/usr/bin/env python3
"""Make sure that a Docker engine with compose and buildx is running on this machine.

A usable engine is used as it is. If there is none and the user is root on Debian
12 or 13, engine and plugins are installed from Debian's packages and started, by
systemd or, without an init system, directly.

Exit status 0: the engine answers. 1: it does not, and the last line says how to
fix it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ENGINE_PACKAGES = ["docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd"]
HELPER_PACKAGES = ["iptables", "ca-certificates", "procps"]
START_TIMEOUT_SECONDS = 60
# Older compose lacks start_interval in health checks; older engines do not support it.
OLDEST_ENGINE = (25, 0)
OLDEST_COMPOSE = (2, 20)
ENGINE_LOG = Path("/var/log/berth-dockerd.log")
APT_SOURCE = Path("/etc/apt/sources.list.d/berth-engine.sources")
APT_PIN = Path("/etc/apt/preferences.d/berth-engine")


class EngineError(Exception):
    """There is no usable engine; the message says how to fix it."""


def ask(*command: str) -> str | None:
    """Return a command's output; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def version_of(text: str | None) -> tuple[int, int]:
    """Return (major, minor) of the first version number in a text, (0, 0) without one."""
    found = re.search(r"(\d+)\.(\d+)", text or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def engine_version() -> tuple[int, int]:
    return version_of(ask("docker", "version", "--format", "{{.Server.Version}}"))


def words_of_docker() -> str:
    """Return docker's message if no engine answers this user; empty without docker, or if one answers."""
    if not shutil.which("docker"):
        return ""
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False
    )
    return f" Docker says: {done.stderr.strip()}" if done.returncode else ""


def plugins_present() -> bool:
    compose = version_of(ask("docker", "compose", "version", "--short"))
    return compose >= OLDEST_COMPOSE and ask("docker", "buildx", "version") is not None


def debian_release() -> str | None:
    """Return Debian's major release, or None on another system."""
    try:
        fields = dict(
            line.rstrip().split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
        )
    except OSError:
        return None
    if fields.get("ID", "").strip('"') != "debian":
        return None
    return fields.get("VERSION_ID", "").strip('"') or None


def mirror_of_this_machine() -> str:
    """Return the Debian mirror in this machine's apt sources."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for source in sources:
        if not source.is_file() or source == APT_SOURCE:
            continue
        text = source.read_text()
        for uri in re.findall(r"^(?:URIs:|deb\s+(?:\[[^]]*\]\s+)?)\s*(\S+)", text, re.MULTILINE):
            if re.search(r"/debian/?$", uri):
                return str(uri.rstrip("/"))
    raise EngineError(
        "There is no Debian mirror in /etc/apt: install docker.io, docker-compose and docker-buildx "
        "of Debian 13 by hand, then run this again."
    )


def apt_get(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise EngineError(f"apt-get {' '.join(arguments)} failed:\n{done.stdout[-2000:]}")


def install(release: str) -> None:
    """Install engine, compose and buildx; on Debian 12 exactly these five packages come from Debian 13."""
    if release == "12":
        APT_SOURCE.write_text(
            f"Types: deb\nURIs: {mirror_of_this_machine()}\nSuites: trixie\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        APT_PIN.write_text(
            "Explanation: Debian 12 has no compose v2; only the engine comes from Debian 13\n"
            "Package: *\nPin: release n=trixie\nPin-Priority: -10\n\n"
            f"Package: {' '.join(ENGINE_PACKAGES)}\nPin: release n=trixie\nPin-Priority: 990\n"
        )
    policy = Path("/usr/sbin/policy-rc.d")
    # Without an init system, starting the service would fail the installation.
    held = not policy.exists() and not Path("/run/systemd/system").is_dir()
    if held:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        apt_get("update")
        apt_get("install", "--yes", "--no-install-recommends", *ENGINE_PACKAGES, *HELPER_PACKAGES)
    finally:
        if held:
            policy.unlink()


def start() -> None:
    """Start the engine and wait until it answers."""
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker"], check=False)
    else:
        for stale in ("/var/run/docker.pid", "/run/docker.pid"):
            Path(stale).unlink(missing_ok=True)
        with ENGINE_LOG.open("ab") as log:
            subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not ask("docker", "version", "--format", "{{.Server.Version}}"):
        if time.monotonic() > deadline:
            last = ENGINE_LOG.read_text(errors="replace")[-1500:] if ENGINE_LOG.exists() else ""
            raise EngineError(
                f"The Docker engine did not answer within {START_TIMEOUT_SECONDS} s. Its last lines:\n{last}"
            )
        time.sleep(0.5)


def ensure() -> str:
    """Return the engine's version; install and start it if needed and allowed.

    Raises:
        EngineError: there is no usable engine, and it cannot be installed.
    """
    if engine_version() >= OLDEST_ENGINE and plugins_present():
        return f"{ask('docker', 'version', '--format', '{{.Server.Version}}')}"
    release = debian_release()
    # apt's own user must be able to read these files.
    os.umask(0o022)
    if os.geteuid() != 0 or release not in {"12", "13"}:
        raise EngineError(
            "No usable Docker engine (25 or newer, with compose v2.20 or newer and buildx) answers this user. Install "
            "and start Docker, or run this as root on Debian 12 or 13, where it installs Debian's packages."
            + words_of_docker()
        )
    if not (shutil.which("dockerd") and plugins_present()):
        print("  installing the Docker engine, compose and buildx from Debian's packages", flush=True)
        install(release)
    if engine_version() == (0, 0):
        print("  starting the Docker engine", flush=True)
        start()
    if engine_version() < OLDEST_ENGINE or not plugins_present():
        raise EngineError(
            "The running Docker engine is older than 25, or compose v2.20 or buildx is missing: "
            "upgrade it, or stop it and run this again."
        )
    return f"{ask('docker', 'version', '--format', '{{.Server.Version}}')}"


if __name__ == "__main__":
    try:
        print(f"  Docker engine {ensure()} answers")
    except EngineError as error:
        sys.exit(f"engine: {error}")
