"""Throwaway databases on the live ones' images, with secrets of their own, on an isolated network."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import shutil
import string
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from berth import secrets as stack_secrets
from berth.backup import restore_engine as engine
from berth.backup.parts import container_of
from berth.backup.restore_choice import Run
from berth.backup.run import say
from berth.backup.settings import Settings
from berth.host import commands
from berth.host.mongosh import SHELL
from berth.host.refused import Refused
from berth.stack.databases import Database
from berth.stack.description import Service
from berth.stack.needs import Needs

# Secrets never touch a disk.
SECRETS = Path("/run/berth-scratch")
READY_SECONDS = 120
CHECK_SECONDS = 30
LABEL = "berth.scratch"
_HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--restart=no")
_MAKE_KEY_PAIR = """
set -e
key=$(openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256)
echo "$key"
echo "$key" | openssl pkey -pubout
"""


class Scratch:
    """A context manager: everything is removed at its end, and leftovers of an earlier one at its beginning."""

    def __init__(self, settings: Settings, purpose: str) -> None:
        self._settings = settings
        self.name = f"berth-{purpose}"
        self.mongo = f"{self.name}-mongo"
        self.redis = f"{self.name}-redis"
        self._secrets = SECRETS / purpose

    def __enter__(self) -> Self:
        self.remove()
        self._secrets.mkdir(parents=True, mode=0o711)
        draft = self._secrets / ".env"
        draft.touch(mode=0o600)
        draft.write_text(_with_other_secrets((self._settings.root / ".env").read_text()))
        made = commands.run_bytes("berth", "secrets", "write", str(draft), str(self._secrets))
        engine.must(made, "Secrets for the throwaway containers could not be created")
        self._docker("network", "create", "--internal", f"--label={LABEL}={self.name}", self.name)
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove every trace."""
        mine = f"--filter=label={LABEL}={self.name}"
        for kind, listing, removal in (
            ("container", ("ps", "--all", "--quiet", mine), ("rm", "--force", "--volumes")),
            ("network", ("network", "ls", "--quiet", mine), ("network", "rm")),
            ("volume", ("volume", "ls", "--quiet", mine), ("volume", "rm", "--force")),
        ):
            found = engine.must(engine.docker(*listing), "Docker does not answer").split()
            if found:
                engine.must(engine.docker(*removal, *found), f"The {kind} of {self.name} could not be removed")
        shutil.rmtree(self._secrets, ignore_errors=True)

    def start_mongo(self) -> None:
        """Start an empty database with the setup of the live one: a replica set of one, with the services' accounts."""
        live = engine.inspect(self._settings.mongo)
        self._run(
            self.mongo,
            "mongo",
            *("--user=999:999", "--tmpfs=/tmp:size=64m", "--tmpfs=/data/configdb:size=1m,uid=999,gid=999"),
            *self._limits(live),
            *("--env=HOME=/tmp", "--env=MONGO_INITDB_ROOT_USERNAME=root"),
            "--env=MONGO_INITDB_ROOT_PASSWORD_FILE=/run/secrets/mongo_root_password",
            f"--volume={self._settings.root}/mongo:/etc/berth:ro",
            image=live["Config"]["Image"],
            command=("mongod", "--replSet", "rs0", "--keyFile", "/run/secrets/mongo_keyfile", "--bind_ip_all"),
        )
        setup = ("exec", self.mongo, *SHELL, "/etc/berth/mongo-init.js")
        self._await(setup, "The throwaway database did not start")

    def start_redis(self, snapshot: Iterable[bytes]) -> int:
        """Start a Redis on a snapshot; return how many keys it holds."""
        live = engine.inspect(self._settings.redis)
        image = live["Config"]["Image"]
        self._docker("volume", "create", f"--label={LABEL}={self.name}", self.redis)
        engine.fill_redis(image, self.redis, snapshot)
        self._run(
            self.redis,
            "redis",
            *("--user=999:999", "--tmpfs=/tmp:size=16m", f"--volume={self.redis}:/data"),
            *self._limits(live),
            image=image,
            command=("redis-server", "--dir", "/data", "--aclfile", "/run/secrets/users.acl", "--appendonly", "yes"),
        )
        ask = 'REDISCLI_AUTH="$(cat /run/secrets/redis_admin_password)" redis-cli --user admin dbsize'
        keys = self._await(
            ("exec", self.redis, "sh", "-c", f"{ask} | grep -x '[0-9]*'"), "Redis did not load its snapshot"
        )
        return int(keys)

    def start_database(self, database: Database, dump: Iterable[bytes]) -> None:
        """Start an empty database as the live one is started, and restore a dump into it."""
        live = engine.inspect(container_of(database))
        if (live["Config"].get("Healthcheck") or {}).get("Test", ["NONE"])[0] == "NONE":
            raise Refused(
                f"Service {database.name} has no health check, which tells when a throwaway database is ready: add "
                "healthcheck to it in docker-compose.prod.yml."
            )
        name = f"{self.name}-{database.name}"
        self._run(
            name,
            database.name,
            *_as_live(live),
            *self._limits(live),
            image=live["Config"]["Image"],
            command=(*(live["Config"]["Entrypoint"] or ())[1:], *(live["Config"]["Cmd"] or ())),
            hardened=(),
        )
        engine.await_healthy(name)
        say(f"Restoring {database.name} into a throwaway database")
        engine.restore_database(name, database, dump)

    def check(self, service: Service, live: str, secret: str) -> str:
        """Start a service of the live release on these databases and run its check, which is not to make an account.

        Return what it says of a success. Raises Refused where it fails.
        """
        about = engine.inspect(live)
        kept = about["Config"]["Env"]
        name = f"{self.name}-check"
        self._run(
            name,
            service.name,
            *(f"--user={service.user}", "--tmpfs=/tmp:size=16m,mode=1777"),
            *self._limits(about),
            *(f"--env={one}" for one in kept),
            image=about["Config"]["Image"],
        )
        engine.await_healthy(name)
        plan = {"url": f"http://127.0.0.1:{service.port}", "address": "", "headers": {}, "release": ""}
        document = json.dumps(plan | {"seconds": CHECK_SECONDS, "secret": secret, "restored": True})
        call = ("docker", "exec", "--interactive", name, *service.check)
        done = commands.run_bytes(*call, seconds=2 * CHECK_SECONDS, given=document.encode())
        words = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
        if done.returncode:
            raise Refused(f"{service.name} fails its check on the restored data: {words[0]}")
        self._docker("rm", "--force", "--volumes", name)
        return words[0]

    def load(self, run: Run) -> int:
        """Restore a run with its increments, up to the requested point in time."""
        return engine.restore(self.mongo, run.archive(), "--drop", "--oplogReplay", "--numParallelCollections=1")

    def _run(
        self,
        name: str,
        alias: str,
        *options: str,
        image: str,
        command: tuple[str, ...] = (),
        hardened: tuple[str, ...] = _HARDENED,
    ) -> None:
        known = ("--detach", f"--name={name}", f"--label={LABEL}={self.name}", "--log-driver=json-file")
        network = [f"--network={self.name}", f"--network-alias={alias}"]
        if (self._secrets / alias).exists():
            network.append(f"--volume={self._secrets / alias}:/run/secrets:ro")
        self._docker("run", *known, *network, *hardened, *options, image, *command)

    def _limits(self, live: dict[str, Any]) -> tuple[str, ...]:
        limits = live["HostConfig"]
        return (f"--memory={limits['Memory']}b", f"--memory-swap={limits['Memory']}b", "--pids-limit=512", "--cpus=1")

    def _docker(self, *arguments: str) -> str:
        return engine.must(engine.docker(*arguments), f"Setting up {self.name} in Docker failed")

    def _await(self, arguments: tuple[str, ...], problem: str) -> str:
        deadline = time.monotonic() + READY_SECONDS
        while (done := engine.docker(*arguments)).returncode:
            if time.monotonic() > deadline:
                engine.must(done, problem)
            time.sleep(0.5)
        return done.stdout.decode().strip()


def _as_live(live: dict[str, Any]) -> list[str]:
    """Return the options of docker run that make a container like this one, with empty volumes and no way out.

    It drops no capability that the live one has: an official image may begin as root.
    """
    about, host = live["Config"], live["HostConfig"]
    options = ["--restart=no", "--security-opt=no-new-privileges", *(f"--env={one}" for one in about["Env"] or [])]
    options += [f"--user={about['User']}"] if about["User"] else []
    options += [f"--entrypoint={about['Entrypoint'][0]}"] if about["Entrypoint"] else []
    options += ["--read-only"] if host["ReadonlyRootfs"] else []
    options += [f"--cap-drop={one}" for one in host["CapDrop"] or []]
    options += [f"--cap-add={one}" for one in host["CapAdd"] or []]
    options += [f"--tmpfs={path}:{how}" for path, how in (host.get("Tmpfs") or {}).items()]
    options += [f"--shm-size={host['ShmSize']}"] if host.get("ShmSize") else []
    for mount in live["Mounts"]:
        place = mount["Destination"]
        if mount["Type"] == "volume":
            options.append(f"--volume={place}")
        elif mount["Type"] == "bind" and place != "/run/secrets":
            options.append(f"--volume={mount['Source']}:{place}:ro")
    kind, *words = about["Healthcheck"]["Test"]
    options.append(f"--health-cmd={words[0] if kind == 'CMD-SHELL' else shlex.join(words)}")
    return [*options, "--health-interval=2s", "--health-timeout=10s", "--health-retries=60"]


def _with_other_secrets(env: str) -> str:
    """Keep every setting of .env and none of its secrets."""
    wanted = stack_secrets.needs(dict(re.findall(r"^([A-Z][A-Z0-9_]*)='(.*)'$", env, re.MULTILINE)))
    pair = _key_pair()
    made = {name.upper(): _made(wanted, name, pair) for name in wanted.names}
    made |= dict.fromkeys(("SMTP_PASSWORD", "MONGO_URI", "REDIS_URI"), "")
    lines = [line.partition("=") for line in env.splitlines()]
    return "".join(
        f"{name}{equals}" + (f"'{made[name]}'" if name in made else value) + "\n" for name, equals, value in lines
    )


def _made(wanted: Needs, name: str, pair: tuple[str, str]) -> str:
    """Make a secret of the same kind."""
    if wanted.sources(name):
        return pair[1]
    kind = wanted.kind(name)
    if kind in ("p256", "optional"):
        return pair[0] if kind == "p256" else ""
    length = 512 if kind == "keyfile" else 64
    alphabet = string.hexdigits.lower() if kind == "hex" else string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _key_pair() -> tuple[str, str]:
    """Generate a key pair, private and public, in the form of .env."""
    pem = engine.must(commands.run_bytes("sh", "-c", _MAKE_KEY_PAIR), "Keys could not be created")
    # .env has the PEM without its first and last line.
    private, public = re.findall(r"-----BEGIN [A-Z ]+-----([^-]+)-----END", pem)
    return "".join(private.split()), "".join(public.split())
