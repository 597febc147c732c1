#!/usr/bin/env python3
"""The application on a laptop: docker-compose.dev.yml on images that this machine can have.

usage: dev.py up | down

`up` writes a .env with keys of its own where there is none, adds those that an
older one lacks, pulls or builds the images as the demo does, starts everything,
waits until it is healthy and says where it is. `down` stops it and keeps its data.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENV = ROOT / ".env"
IMAGES_ENV = ROOT / ".cache" / "images.env"
PROJECT = os.environ.get("COMPOSE_PROJECT_NAME") or "berth-dev"
COMPOSE = ["docker", "compose", "-f", "docker-compose.dev.yml"]
PORTS = (5173, 8001, 8002, 1080, 1025, 27017, 6379)
# How every public key on P-256 begins in DER.
P_256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
# What the containers read from this folder, as users of their own.
READ = ("services", "frontend")


class DevError(Exception):
    """It cannot start; the message says what the user can do."""


def value(name: str) -> str:
    """Return a variable's value, from the environment or from .env; empty where there is none."""
    found = re.findall(rf"^\s*(?:export\s+)?{name}\s*[=:]\s*(.*?)\s*$", ENV.read_text(), re.MULTILINE)
    return os.environ.get(name) or (found[-1].strip("'\"") if found else "")


def private_key() -> str:
    """Make the key that signs access tokens. With openssl, since a laptop's Python has no library for it."""
    return openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-outform", "DER")


def public_key(private: str) -> str:
    """Return the public key of a private one, or raise DevError where it is none."""
    try:
        public = openssl("pkey", "-inform", "DER", "-pubout", "-outform", "DER", given=base64.b64decode(private))
        if base64.b64decode(public).startswith(P_256):
            return public
    except (ValueError, subprocess.CalledProcessError):
        pass
    raise DevError("In .env, JWT_PRIVATE_KEY is no EC private key on P-256. Remove its line: a new one is added then.")


def openssl(*words: str, given: bytes = b"") -> str:
    """Return what openssl writes, in base64."""
    done = subprocess.run(["openssl", *words], input=given, capture_output=True, check=True)
    return base64.b64encode(done.stdout).decode()


def settle_env() -> None:
    """Make .env where there is none, and add to one that is there the keys that it lacks."""
    if not ENV.exists():
        private = private_key()
        ENV.touch(mode=0o600)
        ENV.write_text(
            "# Made by `make dev`. What else can stand here, and what it means: .env.example\n"
            f"JWT_PRIVATE_KEY='{private}'\n"
            f"JWT_PUBLIC_KEYS='{public_key(private)}'\n"
            f"JWT_SECRET_KEY='{secrets.token_hex(32)}'\n"
        )
        print("  wrote .env with keys of its own")
        return
    key = value("JWT_SECRET_KEY")
    if len(key) < 32:
        wrong = f"has {len(key)} characters, and needs 32 or more" if key else "is missing"
        raise DevError(f"In .env, JWT_SECRET_KEY {wrong}. Write this line: JWT_SECRET_KEY='{secrets.token_hex(32)}'")
    settle_key_pair()


def settle_key_pair() -> None:
    """Complete the pair of keys in a .env that was written before there was one."""
    private, public = value("JWT_PRIVATE_KEY"), value("JWT_PUBLIC_KEYS")
    added = {}
    if not private:
        added["JWT_PRIVATE_KEY"] = private = private_key()
    current = public_key(private)
    if added or not public:
        added["JWT_PUBLIC_KEYS"] = ",".join(filter(None, [current, public]))
    elif current not in [each.strip() for each in public.split(",")]:
        raise DevError(
            "In .env, JWT_PUBLIC_KEYS does not hold the public key of JWT_PRIVATE_KEY. Remove its line: it is added."
        )
    if added:
        text = ENV.read_text()
        lines = "".join(f"{name}='{content}'\n" for name, content in added.items())
        ENV.write_text(f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{lines}")
        print(f"  added {' and '.join(added)} to .env, which was written before access tokens were signed with them")


def stop_for_unreadable_sources() -> None:
    """A clone made under a strict umask is for its owner only, and the containers' users are others."""
    # Where git answers nothing, images/build.py says why.
    listed = subprocess.run(["git", "ls-files", "-z", *READ], cwd=ROOT, capture_output=True, text=True, check=False)
    files = [Path(name) for name in listed.stdout.split("\0") if name]
    for path in dict.fromkeys(part for file in files for part in (*reversed(file.parents[:-1]), file)):
        here = ROOT / path
        if here.exists() and not here.stat().st_mode & (0o001 if here.is_dir() else 0o004):
            raise DevError(
                f"The containers cannot read {path}, since only you can. Run: chmod -R go+rX {' '.join(READ)}"
            )


def owners() -> set[str]:
    """Return the folders of the checkouts whose containers run under the project's name."""
    folder = '{{.Label "com.docker.compose.project.working_dir"}}'
    listed = ["docker", "ps", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format", folder]
    return set(subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines())


def stop_for_others() -> None:
    """Stop where another checkout or another program holds what this one needs."""
    running = owners()
    for other in running - {str(ROOT)}:
        raise DevError(f"{other} has this running already. Run `make dev-down` there first.")
    if running:
        return
    taken = []
    for port in PORTS:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                taken.append(str(port))
    if taken:
        raise DevError(f"Taken on this machine: port {', '.join(taken)}. Stop what listens there, then run this again.")


def images() -> dict[str, str]:
    """Provide the images; return the names that compose has to be told."""
    subprocess.run([sys.executable, "images/engine.py"], cwd=ROOT, check=True)
    build = [sys.executable, "images/build.py", "--env-out", str(IMAGES_ENV), "dev"]
    subprocess.run(build, cwd=ROOT, check=True)
    chosen = dict(line.split("=", 1) for line in IMAGES_ENV.read_text().splitlines() if "=" in line)
    # Official ones are the compose file's own defaults, which .env may change.
    return {name: chosen[name] for name in chosen if chosen["IMAGES_MODE"] == "packages" or name == "MAILDEV_IMAGE"}


def up() -> None:
    settle_env()
    stop_for_unreadable_sources()
    chosen = images()
    stop_for_others()
    subprocess.run(
        [*COMPOSE, "up", "--build", "--detach", "--wait"], cwd=ROOT, env={**os.environ, **chosen}, check=True
    )
    print("""
It runs, and reloads whatever you save.

  Front end        http://localhost:5173
  auth_service     http://localhost:8002/api/auth/docs
  user_service     http://localhost:8001/api/users/docs
  Mailbox          http://localhost:1080
  MongoDB, Redis   localhost:27017, localhost:6379
  Logs             docker compose -f docker-compose.dev.yml logs -f
  Stop             make dev-down
""")


def down() -> None:
    # Compose asks for the keys even to stop.
    environment = {"JWT_PRIVATE_KEY": "-", "JWT_PUBLIC_KEYS": "-", "JWT_SECRET_KEY": "-", **os.environ}
    subprocess.run([*COMPOSE, "--profile", "*", "down"], cwd=ROOT, env=environment, check=True)
    print("It is stopped; its data stays. Remove that with: docker volume rm berth-dev_mongo_data berth-dev_redis_data")


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
        sys.exit(f"dev: `{command}` ended with {error.returncode}; see above.")
    except FileNotFoundError as error:
        sys.exit(f"dev: {error.filename} is missing on this machine.")
