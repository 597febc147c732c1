#!/usr/bin/env python3
"""The application on a laptop: docker-compose.dev.yml with the images available on this machine.

usage: dev.py up | down

`up` writes a .env with new keys if there is none, adds keys that an older one
lacks, pulls or builds the images as the demo does, starts everything, waits until
it is healthy and prints the addresses. `down` stops it and keeps its data.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
ENV = ROOT / ".env"
IMAGES_ENV = ROOT / ".cache" / "images.env"
PROJECT = os.environ.get("COMPOSE_PROJECT_NAME") or "berth-dev"
COMPOSE = ["docker", "compose", "-f", "docker-compose.dev.yml"]
# The DER prefix of every public key on P-256.
P_256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
# Folders that containers read, under other user ids.
READ = ("services", "frontend")


class DevError(Exception):
    """It cannot start; the message says how to fix it."""


def value(name: str) -> str:
    """Return a variable's value from the environment or .env; empty if it is not set."""
    found = re.findall(rf"^\s*(?:export\s+)?{name}\s*[=:]\s*(.*?)\s*$", ENV.read_text(), re.MULTILINE)
    return os.environ.get(name) or (found[-1].strip("'\"") if found else "")


def private_key() -> str:
    """Generate the key that signs access tokens, with openssl: a laptop's Python has no library for it."""
    return openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-outform", "DER")


def public_key(private: str) -> str:
    """Return the public key of a private key; raise DevError if it is not one."""
    try:
        public = openssl("pkey", "-inform", "DER", "-pubout", "-outform", "DER", given=base64.b64decode(private))
        if base64.b64decode(public).startswith(P_256):
            return public
    except (ValueError, subprocess.CalledProcessError):
        pass
    raise DevError("In .env, JWT_PRIVATE_KEY is no EC private key on P-256. Remove the line, and a new key is added.")


def openssl(*words: str, given: bytes = b"") -> str:
    """Return the output of openssl in base64."""
    done = subprocess.run(["openssl", *words], input=given, capture_output=True, check=True)
    return base64.b64encode(done.stdout).decode()


def settle_env() -> None:
    """Create .env if there is none, and add missing keys to an existing one."""
    if not ENV.exists():
        private = private_key()
        ENV.touch(mode=0o600)
        ENV.write_text(
            "# Created by `make dev`. All variables with their meaning: .env.example\n"
            f"JWT_PRIVATE_KEY='{private}'\n"
            f"JWT_PUBLIC_KEYS='{public_key(private)}'\n"
            f"JWT_SECRET_KEY='{secrets.token_hex(32)}'\n"
        )
        print("  created .env with new keys")
        return
    key = value("JWT_SECRET_KEY")
    if len(key) < 32:
        wrong = f"has {len(key)} characters, but needs at least 32" if key else "is missing"
        raise DevError(f"In .env, JWT_SECRET_KEY {wrong}. Write this line: JWT_SECRET_KEY='{secrets.token_hex(32)}'")
    settle_key_pair()


def settle_key_pair() -> None:
    """Add the key pair to a .env that is older than it."""
    private, public = value("JWT_PRIVATE_KEY"), value("JWT_PUBLIC_KEYS")
    added = {}
    if not private:
        added["JWT_PRIVATE_KEY"] = private = private_key()
    current = public_key(private)
    if added or not public:
        added["JWT_PUBLIC_KEYS"] = ",".join(filter(None, [current, public]))
    elif current not in [each.strip() for each in public.split(",")]:
        raise DevError(
            "In .env, JWT_PUBLIC_KEYS lacks the public key of JWT_PRIVATE_KEY. Remove the line, and it is added."
        )
    if added:
        text = ENV.read_text()
        lines = "".join(f"{name}='{content}'\n" for name, content in added.items())
        ENV.write_text(f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{lines}")
        print(f"  added {' and '.join(added)} to .env, which is older than these keys")


def stop_for_unreadable_sources() -> None:
    """Stop if the containers' users cannot read the sources, as in a clone made with a strict umask."""
    # If git lists nothing, images/build.py says why.
    listed = subprocess.run(["git", "ls-files", "-z", *READ], cwd=ROOT, capture_output=True, text=True, check=False)
    files = [Path(name) for name in listed.stdout.split("\0") if name]
    for path in dict.fromkeys(part for file in files for part in (*reversed(file.parents[:-1]), file)):
        here = ROOT / path
        if here.exists() and not here.stat().st_mode & (0o001 if here.is_dir() else 0o004):
            raise DevError(f"The containers cannot read {path}. Run: chmod -R go+rX {' '.join(READ)}")


def owners() -> set[str]:
    """Return the checkouts whose containers are running under the project's name."""
    folder = '{{.Label "com.docker.compose.project.working_dir"}}'
    listed = ["docker", "ps", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format", folder]
    return set(subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines())


def services() -> dict[str, Any]:
    """Return the services that are started, as compose reads them."""
    command = [*COMPOSE, "config", "--format", "json"]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    started: dict[str, Any] = json.loads(found.stdout)["services"]
    return started


def ports(service: dict[str, Any]) -> list[int]:
    """Return the ports of this machine on which a service answers."""
    return [int(port["published"]) for port in service.get("ports", [])]


def descriptions(started: dict[str, Any]) -> dict[str, str]:
    """Return the address of each API's description, of what the front end forwards to."""
    routes = dict(route.split("=") for route in started["frontend"]["environment"]["API_ROUTES"].split())
    names = {prefix: str(urlsplit(target).hostname) for prefix, target in routes.items()}
    return {name: f"http://localhost:{ports(started[name])[0]}{prefix}/docs" for prefix, name in names.items()}


def stop_for_others(started: dict[str, Any]) -> None:
    """Stop if another checkout is running, or another program uses a port."""
    running = owners()
    for other in running - {str(ROOT)}:
        raise DevError(f"It is already running from {other}. Run `make dev-down` there first.")
    if running:
        return
    taken = []
    for port in [each for service in started.values() for each in ports(service)]:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                taken.append(str(port))
    if taken:
        raise DevError(f"In use on this machine: port {', '.join(taken)}. Stop what listens there, and run this again.")


def images() -> dict[str, str]:
    """Provide the images; return the variables with their names for compose."""
    subprocess.run([sys.executable, "images/engine.py"], cwd=ROOT, check=True)
    build = [sys.executable, "images/build.py", "--env-out", str(IMAGES_ENV), "dev"]
    subprocess.run(build, cwd=ROOT, check=True)
    chosen = dict(line.split("=", 1) for line in IMAGES_ENV.read_text().splitlines() if "=" in line)
    # Official images are the compose file's defaults, which .env may change.
    return {name: chosen[name] for name in chosen if chosen["IMAGES_MODE"] == "packages" or name == "MAILDEV_IMAGE"}


def up() -> None:
    settle_env()
    stop_for_unreadable_sources()
    chosen = images()
    started = services()
    stop_for_others(started)
    subprocess.run(
        [*COMPOSE, "up", "--build", "--detach", "--wait"], cwd=ROOT, env={**os.environ, **chosen}, check=True
    )
    lines = "".join(f"  {name:<16} {address}\n" for name, address in descriptions(started).items())
    print(f"""
It is running, and reloads on changes.

  Front end        http://localhost:5173
{lines}  Mailbox          http://localhost:1080
  MongoDB, Redis   localhost:27017, localhost:6379
  Logs             docker compose -f docker-compose.dev.yml logs -f
  Stop             make dev-down
""")


def down() -> None:
    # Compose needs the keys even for `down`.
    environment = {"JWT_PRIVATE_KEY": "-", "JWT_PUBLIC_KEYS": "-", "JWT_SECRET_KEY": "-", **os.environ}
    subprocess.run([*COMPOSE, "--profile", "*", "down"], cwd=ROOT, env=environment, check=True)
    print("Stopped; the data is kept. To remove it: docker volume rm berth-dev_mongo_data berth-dev_redis_data")


if __name__ == "__main__":
    verbs = {"up": up, "down": down}
    if len(sys.argv) != 2 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    try:
        verbs[sys.argv[1]]()
    except DevError as error:
        sys.exit(f"dev: {error}")
    except subprocess.CalledProcessError as error:
        command = " ".join(str(part) for part in error.cmd)
        sys.exit(f"dev: `{command}` failed with exit status {error.returncode}; see above.")
    except FileNotFoundError as error:
        sys.exit(f"dev: {error.filename} is missing on this machine.")
