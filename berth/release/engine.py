"""What Docker is asked and told about releases."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from berth.host import clock, commands, files, system
from berth.host.commands import LAST_LINES, last_lines
from berth.host.live import COLOURS, Live
from berth.host.refused import Refused
from berth.host.system import Container
from berth.release.settings import Settings
from berth.stack.description import JOB, PROFILE, Description
from berth.stack.kept import ANY_COLOUR, Kept, compose

# So long Docker may fail to list containers until that is a failure: it says nothing of those it does not list.
LISTED_SECONDS = 10
# Where a service reads its secrets.
SECRETS = "/run/secrets"
# The edge reaches services on this network, by name and colour.
EDGE_NETWORK = "berth_edge"
# What Docker calls a container that will not become healthy by itself. One under trial is not restarted.
ENDED = ("exited", "dead", "unhealthy")


def is_there(path: Path) -> bool:
    """Tell whether a file or folder exists."""
    return path.exists()


def digests(folder: Path) -> list[str]:
    """Return the name and SHA-256 digest of each file in a folder; none where there is no such folder."""
    files_there = sorted(one for one in folder.iterdir() if one.is_file()) if folder.is_dir() else []
    return [f"{one.name} {hashlib.sha256(one.read_bytes()).hexdigest()}" for one in files_there]


@dataclass(frozen=True)
class Side:
    """One colour with one release on it."""

    settings: Settings
    release: str
    colour: str

    @classmethod
    def on(cls, settings: Settings, live: Live) -> Side:
        return cls(settings, live.release, live.colour)

    @property
    def project(self) -> str:
        return f"berth-{self.colour}"

    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    @property
    def kept(self) -> Kept:
        return self.settings.kept(self.release)

    @property
    def known(self) -> Description:
        """Return what is known of its services."""
        return self.kept.known

    def containers(self) -> list[Container]:
        """Return the containers of the release; what somebody started beside them is none."""
        return [one for one in containers([self.colour]) if self.known.has(one.service)]

    def places(self) -> list[Place]:
        return _places({one.name: one.service for one in self.containers()})

    @property
    def images(self) -> dict[str, str]:
        """Return image -> a service that runs it. Raises Refused where the compose file is not valid."""
        found = self.kept.description.images(self.kept.prefix, self.release)
        if not found:
            wanted = f"{self.kept.prefix}/<name>:{self.release}"
            raise Refused(f"docker-compose.prod.yml of release {self.release} has no service with an image {wanted}.")
        return found

    def compose(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run compose for this side."""
        command, environment = self._composed(*arguments)
        return commands.run(*command, seconds=seconds, **environment)

    def _composed(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Return the command and its environment. Until a side is live its containers do not restart."""
        command = compose(self.settings.root, self.kept.compose_file, self.project)
        chosen = {**self.kept.environment, "COLOUR": self.colour, "RESTART_POLICY": "no"}
        return [*command, f"--profile={PROFILE}", *arguments], chosen

    def inspect_images(self) -> list[dict[str, Any]]:
        """Describe the release's images, or name those that are not here."""
        done = commands.run("docker", "image", "inspect", *self.images)
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        present = {name for image in found for name in image["RepoTags"] or []}
        missing = [name for name in self.images if name not in present]
        if missing:
            raise Refused(f"The host lacks {', '.join(missing)}, so release {self.release} is not complete.")
        return found

    def require_mounts(self) -> None:
        """Refuse a service whose folders or secrets are not on the host: it is new, or reads another secret."""
        for name, service in self.kept.config["services"].items():
            if not {PROFILE, JOB} & {*(service.get("profiles") or ())}:
                continue
            for mount in service.get("volumes") or ():
                if mount.get("type") != "bind":
                    continue
                source = Path(mount["source"])
                secrets = self.known.get(name).secrets if mount["target"] == SECRETS else ()
                lacks = [str(one) for one in (source, *(source / file for file in secrets)) if not is_there(one)]
                if lacks:
                    raise Refused(
                        f"Service {name} of release {self.release} needs {lacks[0]}, which this host lacks."
                        " Provisioning writes the secrets of a new service:"
                        f" ansible-playbook site.yml -i inventories/<env> -e release={self.release}"
                    )

    def require_reachable(self) -> None:
        """Refuse a routed service that the edge would not find."""
        config = self.kept.config
        edge = [key for key, network in (config.get("networks") or {}).items() if network.get("name") == EDGE_NETWORK]
        for one in self.known.services:
            joined = config["services"][one.name].get("networks") or {}
            aliases = [alias for key in edge for alias in (joined.get(key) or {}).get("aliases") or ()]
            if one.routes and f"{one.name}-{ANY_COLOUR}" not in aliases:
                raise Refused(
                    f"docker-compose.prod.yml: service {one.name} has a route, and the edge would not find it. Add to "
                    f'its networks: {{edge: {{aliases: ["{one.name}-${{COLOUR}}"]}}}}, where edge is the external '
                    f"network {EDGE_NETWORK}.",
                    "compose",
                )

    def fingerprint(self) -> str:
        """Name what would run: the images' content and every setting. The same name means nothing to do."""
        ids = sorted(image["Id"] for image in self.inspect_images())
        return hashlib.sha256("\n".join([self.kept.started_with, *self._secrets(), *ids]).encode()).hexdigest()[:16]

    def _secrets(self) -> list[str]:
        """Return a digest of each file of secrets: services read them when they start."""
        found = []
        for name, service in sorted(self.kept.config["services"].items()):
            if not {PROFILE, JOB} & {*(service.get("profiles") or ())}:
                continue
            for mount in service.get("volumes") or ():
                if mount.get("type") == "bind" and mount["target"] == SECRETS:
                    found += [f"{name} {digest}" for digest in digests(Path(mount["source"]))]
        return found

    def schema_steps(self) -> dict[str, list[str]]:
        """Return service -> command for each image that has a label berth.schema."""
        found = {}
        for image in self.inspect_images():
            command = (image["Config"].get("Labels") or {}).get("berth.schema", "")
            service = next(name for tag, name in self.images.items() if tag in image["RepoTags"])
            if command:
                found[service] = shlex.split(command)
        return found

    def run_once(self, service: str, command: list[str], seconds: float) -> None:
        """Run a command in a container of its own, with the service's image, secrets and networks."""
        name = f"{self.project}-{service}-schema"
        done = self.compose(
            *("run", "--rm", "--no-deps", "-T", "--name", name, "--entrypoint", command[0], service, *command[1:]),
            seconds=seconds,
        )
        if done.returncode:
            commands.run("docker", "rm", "--force", name)
            raise Refused(
                f"The schema step of {service} failed ({shlex.join(command)}); the live release has not been touched.",
                name,
                last_lines(done),
            )

    def start(self, seconds: int) -> None:
        """Start every container and wait until all are healthy, or name the first that cannot become it any more."""
        began = alone_since = clock.monotonic()
        # Compose will start these again; another that ends has failed.
        ended = {container.name for container in self.containers() if container.health in ENDED}
        command, environment = self._composed("up", "--detach", "--no-build", "--pull=never", "--remove-orphans")
        with commands.Background(command, environment) as up:
            while True:
                code = up.returncode()
                done = code is not None
                found = self.containers()
                if code == 0 and found and all(one.health == "healthy" for one in found):
                    return
                failed = [one for one in found if one.health in ENDED and (done or one.name not in ended)]
                # What the machine can do, the others have shown by then.
                if sum(one.health not in ("healthy", "created") for one in found) != 1:
                    alone_since = clock.monotonic()
                late = clock.monotonic() - began > seconds or clock.monotonic() - alone_since > seconds / 2
                if failed or late or code:
                    break
                clock.sleep(0.5)
            lines = up.lines()
        # One that was only created waits for another that is not healthy.
        ill = failed or [one for one in found if one.health not in ("healthy", "created")]
        if not ill:
            raise Refused(f"Release {self.release} did not become healthy: compose failed.", "compose", lines)
        culprit = ill[0].name
        state = f"{culprit} is {ill[0].health} after {round(clock.monotonic() - began)} s"
        raise Refused(
            f"Release {self.release} did not become healthy: {state}.",
            culprit,
            logs(culprit, LAST_LINES).splitlines() + health(culprit),
        )

    def set_restart(self, policy: str) -> None:
        """Say whether its containers start with the host. Raises Refused where Docker does not take it."""
        names = [container.name for container in self.containers()]
        done = commands.run("docker", "update", f"--restart={policy}", *names)
        if done.returncode:
            raise Refused(f"Docker did not set the restart policy of {', '.join(names)}.", "docker", last_lines(done))

    def execute(self, service: str, *command: str, seconds: float, given: str = "") -> subprocess.CompletedProcess[str]:
        interactive = ("docker", "exec", "--interactive", self.container(service))
        return commands.run(*interactive, *command, seconds=seconds, given=given)

    def keep_logs(self) -> None:
        folder = self.kept.folder / clock.now().replace(":", "")
        folder.mkdir(parents=True, exist_ok=True)
        for container in containers([self.colour]):
            files.write(folder / f"{container.name}.log", logs(container.name, 5000))

    def not_healthy(self) -> list[str]:
        """Describe which services it lacks: empty where it is whole."""
        found = {one.service: one for one in self.containers()}
        wanted = dict.fromkeys([*self.known.names, *found])
        states = {name: found[name].health if name in found else "missing" for name in wanted}
        if not states:
            return [f"release {self.release} has no container"]
        return [f"{name} is {state}" for name, state in states.items() if state != "healthy"]

    def discard(self) -> None:
        """Remove at once what only requests would keep busy, where nobody was led there.

        A program that has hardly begun does not hear yet that it is to stop, and its grace period would pass in vain.
        What has no route may hold a task or a lock: it is stopped in good order.
        """
        names = [one.name for one in self.containers() if self.known.get(one.service).routes]
        if names:
            commands.run("docker", "rm", "--force", *names)


def containers(colours: Iterable[str] = COLOURS) -> list[Container]:
    """Return the containers of these colours that belong to a service and are not there for one command only."""
    projects = [f"berth-{colour}" for colour in colours]
    found = system.containers(_listed(*system.LIST_CONTAINERS))
    return [one for one in found if one.project in projects]


def started(names: Iterable[str]) -> float:
    """Return when the first of these containers started, in seconds since the epoch. Raises Refused."""
    moments = _listed("docker", "inspect", "--format={{.State.StartedAt}}", *names).split()
    return min(datetime.fromisoformat(one).timestamp() for one in moments)


def names() -> set[str]:
    """Return the names of all containers, running or not."""
    return set(_listed("docker", "ps", "--all", "--format={{.Names}}").split())


def _listed(*command: str) -> str:
    """Ask Docker again where it fails; raise Refused where it goes on doing so."""
    deadline = clock.monotonic() + LISTED_SECONDS
    while (done := commands.run(*command)).returncode:
        if clock.monotonic() > deadline:
            raise Refused(f"Docker does not answer: {done.stderr.strip()}")
        clock.sleep(1)
    return done.stdout


def logs(name: str, lines: int) -> str:
    done = commands.run("docker", "logs", "--tail", str(lines), name)
    return done.stdout + done.stderr


def health(name: str) -> list[str]:
    """Return what a container's health check said last."""
    state = json.loads(commands.run("docker", "inspect", "--format={{json .State}}", name).stdout or "{}")
    outputs = [entry["Output"].strip() for entry in state.get("Health", {}).get("Log") or []]
    return [f"health check: {outputs[-1]}"] if outputs and outputs[-1] else []


def stop_colour(colour: str) -> None:
    """Stop in good order, each service with the grace period it was started with, and remove what is left."""
    # Labels say all that is needed, so this works too when the compose file of that release is gone.
    commands.run("docker", "compose", f"--project-name=berth-{colour}", "down", "--remove-orphans", seconds=300)


@dataclass(frozen=True)
class Place:
    """Where a running container is reached from this host, past the edge."""

    name: str
    service: str
    address: str
    # Another one after each start.
    began: str


def edges() -> list[Place]:
    """Return the edges that run: one, or two while one is replaced."""
    known = ("--filter=label=com.docker.compose.project=berth", "--filter=name=traefik")
    return _places(dict.fromkeys(_listed("docker", "ps", *known, "--format={{.Names}}").split(), "traefik"))


def _places(names: dict[str, str]) -> list[Place]:
    if not names:
        return []
    found = []
    for one in json.loads(commands.run("docker", "inspect", *names).stdout or "[]"):
        name = one["Name"].lstrip("/")
        networks = one["NetworkSettings"]["Networks"].values()
        address = next((network["IPAddress"] for network in networks if network["IPAddress"]), "")
        began = f"{one['State']['StartedAt']} {one['RestartCount']}"
        if name in names and one["State"]["Running"]:
            found.append(Place(name, names[name], address, began))
    return found
