#!/usr/bin/env python3
"""Pull or build every image that Berth runs.

There are two modes. `registry` pulls the official images that production uses.
`packages` builds stand-ins for them from Debian, PyPI and npm packages, for
machines that cannot reach an image registry. `auto` detects which of the two
works on this machine, and reports it.

Our own images (`app`) and the test bed (`testbed`) are built in both modes, on
the bases of the chosen mode. `--push` pushes our own images to the registry in
`--prefix`. Exit status 0: all requested images exist. 1: one could not be
provided, and the last line says why.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
# A host that builds a release itself gets the same archive of the sources.
sys.path.insert(0, str(PROJECT / "roles" / "stack" / "files"))

# attest.py needs cryptography, which comes with Ansible; only --sign and --sbom import it.
if TYPE_CHECKING:
    import attest

try:
    import application
    import source_archive
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}. Run this in the virtual environment: make venv && source .venv/bin/activate")

DEFAULT_PREFIX = "localhost/berth"
MODES = ("auto", "registry", "packages")
GROUPS = ("bases", "platform", "app", "testbed")
# Databases of other applications: built or pulled only when asked for.
FURTHER = ("postgres",)
# Images for docker-compose.dev.yml, and the bases of the application.
DEV = ("python", "node", "redis", "mongo-standin", "maildev")

# Small, and pulled by the engine, so that the engine's proxy and mirror settings are tested.
PROBE_IMAGE = "hello-world"
PROBE_SECONDS = 8

SUITE = "trixie"
OLDEST_BASE = timedelta(days=30)
EXTRA_CAS = Path("/usr/local/share/ca-certificates")
SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"
LOG_TAIL_LINES = 40
# Options of `git ls-files`: tracked and untracked files, without ignored ones.
AS_THEY_ARE = ("--cached", "--others", "--exclude-standard")


class BuildError(Exception):
    """An image cannot be provided; the message says why."""


@dataclass(frozen=True)
class Image:
    """One image: its name here, its name in production, and its bases."""

    name: str
    tag: str
    group: str
    needs: tuple[str, ...] = ()
    official: str = ""
    # The folder of its Dockerfile, if it is one target of several; otherwise its own name.
    folder: str = ""
    # False if no package contains the program, so that only a registry has it.
    packaged: bool = True

    @property
    def variable(self) -> str:
        """The build argument and environment variable with this image's name."""
        return f"{self.name.removesuffix('-standin').upper()}_IMAGE"


# In build order.
THIRD_PARTY = (
    Image("debian", SUITE, "bases", official=f"debian:{SUITE}-slim"),
    Image("python", "3.13", "bases", ("debian",), "python:3.13-slim-trixie"),
    Image("node", "24", "bases", ("debian", "python"), "node:24-trixie-slim"),
    Image("nginx", "1", "bases", ("debian",), "nginx:1.28-trixie"),
    Image("redis", "8", "platform", ("debian",), "redis:8.2"),
    Image("mongo-standin", "8", "platform", ("python", "node"), "mongo:8.0"),
    Image("traefik", "3", "platform", ("python",), "traefik:v3.7"),
    Image("prometheus", "2", "platform", ("debian",), "prom/prometheus:v2.53.5", "monitoring"),
    Image("alertmanager", "0", "platform", ("debian",), "prom/alertmanager:v0.28.1", "monitoring"),
    Image("node_exporter", "1", "platform", ("debian",), "prom/node-exporter:v1.9.1", "monitoring"),
    Image("blackbox_exporter", "0", "platform", ("debian",), "prom/blackbox-exporter:v0.26.0", "monitoring"),
    Image("redis_exporter", "1", "platform", ("debian",), "oliver006/redis_exporter:v1.69.0-alpine", "monitoring"),
    Image("grafana", "12", "platform", official="grafana/grafana:12.0.2", packaged=False),
    Image("postgres", "17", "postgres", ("debian",), "postgres:17"),
    Image("maildev", "3", "testbed", ("node",)),
    Image("pebble", "2", "testbed", ("debian",)),
    Image("registry", "2", "testbed", ("debian",)),
    Image("promtool", "2", "testbed", ("debian",), folder="monitoring"),
    Image("vps", SUITE, "testbed", ("debian",)),
    Image("outside", SUITE, "testbed", ("python", "maildev", "pebble")),
)
# What Dockerfiles of an application may stand on; each is a build argument, PYTHON_IMAGE and so on.
APP_BASES = ("python", "node", "nginx")
BY_NAME = {image.name: image for image in THIRD_PARTY}


@dataclass(frozen=True)
class Order:
    """How to provide the requested images."""

    mode: str
    prefix: str
    # Their platform, such as linux/amd64, and whether it is not that of this machine's engine.
    platform: str
    foreign: bool = False
    fresh: bool = False

    @property
    def platform_options(self) -> list[str]:
        """Docker's options for a platform other than its own."""
        return [f"--platform={self.platform}"] if self.foreign else []


# --- planning -----------------------------------------------------------------


def reference(image: Image, mode: str, prefix: str) -> str:
    """Return an image's name in a mode; empty if the mode cannot provide it."""
    if mode == "packages" and not image.packaged:
        return ""
    if mode == "registry" and image.official:
        return image.official
    return f"{prefix}/{image.name}:{image.tag}"


def wanted(targets: Iterable[str], mode: str) -> list[Image]:
    """Return the third-party images that the targets need, in build order.

    An official image stands on nothing of ours, so what it would be built from is left out.
    """
    asked = set(targets)
    groups = set(GROUPS) if "all" in asked else asked
    names: set[str] = set()

    def add(name: str) -> None:
        image = BY_NAME[name]
        if mode == "packages" and not image.packaged:
            return
        names.add(name)
        if mode == "packages" or not image.official:
            for need in image.needs:
                add(need)

    for image in THIRD_PARTY:
        # Registry mode pulls a base only if another image needs it.
        if image.group in groups and not (mode == "registry" and image.name == "debian"):
            add(image.name)
    if "dev" in groups:
        for name in DEV:
            add(name)
    if "app" in groups:
        for base in APP_BASES:
            add(base)
    return [image for image in THIRD_PARTY if image.name in names]


def release_of(files: Iterable[tuple[str, bytes]]) -> str:
    """Return a release name that depends only on paths and contents."""
    digest = hashlib.sha256()
    for path, content in sorted(files):
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def registry_of(prefix: str) -> str:
    """Return the registry in a prefix of image names, as docker reads it."""
    first = prefix.partition("/")[0]
    return first if first == "localhost" or re.search("[.:]", first) else "docker.io"


def order_for(images: str, why: str, prefix: str, asked: str, own: str, fresh: bool) -> Order:
    """Return how to provide the images, for the requested platform or else the engine's own.

    Raises:
        BuildError: packages of another architecture cannot be installed on this machine.
    """
    platform = asked or own
    # An engine may report linux/arm64 as linux/arm64/v8.
    foreign = platform.split("/")[:2] != own.split("/")[:2]
    if foreign and images == "packages":
        raise BuildError(
            f"Images for {platform} need official base images (IMAGES=registry), but this machine ({own}) builds from "
            f"packages: {why}. Build where a registry can be reached, or on a machine of that architecture."
        )
    return Order(images, prefix, platform, foreign, fresh)


def environment_lines(mode: str, prefix: str, release: str) -> str:
    """Return the chosen names as KEY=VALUE lines."""
    values = {"IMAGES_MODE": mode, "IMAGE_PREFIX": prefix, "RELEASE": release}
    values |= {image.variable: reference(image, mode, prefix) for image in THIRD_PARTY}
    return "".join(f"{key}={value}\n" for key, value in values.items())


def apt_sources(text: str) -> list[tuple[str, str]]:
    """Return (uri, suite) pairs of an apt source file, one-line or deb822."""
    pairs = []
    for line in re.findall(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+\s+\S+)", text, re.MULTILINE):
        uri, suite = line.split()
        pairs.append((uri, suite))
    for stanza in re.split(r"\n\s*\n", text):
        uris = re.search(r"^URIs:\s*(.+)$", stanza, re.MULTILINE)
        suites = re.search(r"^Suites:\s*(.+)$", stanza, re.MULTILINE)
        if uris and suites:
            pairs += [(uri, suite) for uri in uris[1].split() for suite in suites[1].split()]
    return [(uri.rstrip("/"), suite) for uri, suite in pairs]


def mirrors(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return sources.list lines of the suite, on these mirrors."""
    pairs = list(pairs)
    debian = [uri for uri, suite in pairs if uri.endswith("/debian") and not suite.endswith("-security")]
    security = [uri for uri, suite in pairs if suite.endswith("-security")]
    if not debian:
        raise BuildError(
            "There is no Debian mirror in /etc/apt: packages mode takes packages from the mirror that this machine's "
            "apt uses."
        )
    lines = [f"deb {debian[0]} {suite} main" for suite in (SUITE, f"{SUITE}-updates")]
    if security:
        lines.append(f"deb {security[0]} {SUITE}-security main")
    return lines


def mirrors_of_this_machine() -> list[str]:
    """Return sources.list lines of the suite, on the mirrors of this machine's apt."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return mirrors(pair for file in files if file.is_file() for pair in apt_sources(file.read_text()))


# --- building -----------------------------------------------------------------


def run(*command: str, timeout: float | None = None, stdin: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output. Raises TimeoutExpired."""
    with stdin.open("rb") if stdin else contextlib.nullcontext(subprocess.DEVNULL) as source:
        return subprocess.run(
            command,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )


def must(what: str, *command: str, stdin: Path | None = None) -> str:
    """Return a command's output; on failure print the end of it and raise BuildError."""
    done = run(*command, stdin=stdin)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-LOG_TAIL_LINES:])
        print(tail, file=sys.stderr)
        raise BuildError(f"{what} failed with exit status {done.returncode}; the end of its log is above.")
    return done.stdout


def say(text: str) -> None:
    print(f"  {text}", flush=True)


@contextlib.contextmanager
def timed(text: str) -> Iterator[None]:
    """Print what was done and how long it took."""
    began = time.monotonic()
    yield
    say(f"{text:<58} {time.monotonic() - began:6.1f} s")


def platform_of_engine() -> str:
    """Return the platform of this machine's engine, such as linux/amd64.

    Raises:
        BuildError: docker is not installed, or its engine does not answer this user.
    """
    helps = "As root on Debian, `python3 images/engine.py` installs and starts one."
    if not shutil.which("docker"):
        raise BuildError(f"There is no docker on this machine: install Docker 25 or newer with buildx. {helps}")
    done = run("docker", "version", "--format", "{{.Server.Os}}/{{.Server.Arch}}")
    if done.returncode:
        raise BuildError(f"The Docker engine does not answer: {last_line(done.stdout)} {helps}")
    return last_line(done.stdout)


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def present(name: str, platform: str) -> bool:
    """Return whether an image exists locally for this platform."""
    done = run("docker", "image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", name)
    return done.returncode == 0 and done.stdout.strip().split("/") == platform.split("/")[:2]


def choose(mode: str, platform: str) -> tuple[str, str]:
    """Return (mode, why), deciding `auto` within ten seconds."""
    if mode != "auto":
        return mode, "as requested"
    if all(present(image.official, platform) for image in THIRD_PARTY if image.official and image.group in GROUPS):
        return "registry", "the official images are already on this machine"
    try:
        done = run("docker", "pull", "--quiet", PROBE_IMAGE, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return "packages", f"the engine got no answer from an image registry within {PROBE_SECONDS} s"
    if done.returncode == 0:
        return "registry", "the engine can reach an image registry"
    return "packages", "the engine cannot reach an image registry"


def setting(variable: str, *command: str) -> str:
    """Return a package client's setting: its environment variable, or the client's own configuration."""
    if value := os.environ.get(variable, ""):
        return value
    if not shutil.which(command[0]):
        return ""
    # The client prints warnings to stderr, which are not part of the value.
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def machine_settings(root: Path) -> None:
    """Write this machine's settings of the package clients to files of a root file system."""
    index = setting("PIP_INDEX_URL", sys.executable, "-m", "pip", "config", "get", "global.index-url")
    registry = setting("NPM_CONFIG_REGISTRY", "npm", "config", "get", "registry")
    etc = root / "etc"
    etc.mkdir()
    index_line = f"index-url = {index}\n" if index.startswith("http") else ""
    (etc / "pip.conf").write_text(f"[global]\ncert = {SYSTEM_CAS}\ndisable-pip-version-check = true\n{index_line}")
    registry_line = f"registry={registry}\n" if registry.startswith("http") else ""
    (etc / "npmrc").write_text(f"cafile={SYSTEM_CAS}\n{registry_line}")
    cas = root / EXTRA_CAS.relative_to("/")
    cas.mkdir(parents=True)
    for extra in sorted(EXTRA_CAS.glob("*.crt")):
        shutil.copy(extra, cas)


def fresh_enough(name: str) -> bool:
    """Return whether a base exists and is new enough to have recent security updates."""
    done = run("docker", "image", "inspect", "--format", "{{.Created}}", name)
    if done.returncode:
        return False
    # Go prints nanoseconds, which Python 3.11 cannot parse.
    created = datetime.fromisoformat(re.sub(r"\.\d+", "", done.stdout.strip()).replace("Z", "+00:00"))
    return datetime.now(UTC) - created < OLDEST_BASE


def bootstrap(name: str) -> None:
    """Build the Debian base from this machine's mirror, with its additional CA certificates."""
    if not shutil.which("mmdebstrap"):
        if os.geteuid() or not shutil.which("apt-get"):
            raise BuildError(
                "Packages mode builds its Debian base with mmdebstrap, which needs root on Debian: "
                "run as root there, or use IMAGES=registry."
            )
        must(
            "Installing mmdebstrap",
            *("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"),
            *("install", "--yes", "--no-install-recommends", "mmdebstrap"),
        )
    with tempfile.TemporaryDirectory(prefix="berth-base-") as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        machine_settings(root)
        tarball = Path(scratch, "base.tar")
        must(
            "mmdebstrap",
            "mmdebstrap",
            "--variant=minbase",
            "--include=ca-certificates",
            f"--dpkgopt={HERE / 'debian' / 'dpkg.cfg'}",
            # Only at the end: the base's apt settings would break the bootstrap.
            f"--customize-hook=upload {shlex.quote(str(HERE / 'debian' / 'apt.conf'))} /etc/apt/apt.conf.d/99berth",
            f"--customize-hook=copy-in {root}/etc/pip.conf {root}/etc/npmrc /etc",
            f"--customize-hook=sync-in {root}{EXTRA_CAS} {EXTRA_CAS}",
            '--customize-hook=chroot "$1" update-ca-certificates',
            '--customize-hook=rm -rf "$1"/var/cache/* "$1"/var/log/* "$1"/etc/machine-id',
            SUITE,
            str(tarball),
            *mirrors_of_this_machine(),
        )
        must("docker import", "docker", "import", "--change", 'CMD ["bash"]', "-", name, stdin=tarball)


def provide(image: Image, order: Order) -> None:
    """Pull or build one third-party image, if it is missing or too old."""
    name = reference(image, order.mode, order.prefix)
    if name == image.official:
        if present(name, order.platform):
            say(f"{name} exists")
            return
        with timed(f"{name} pulled"):
            must(f"Pulling {name}", "docker", "pull", "--quiet", *order.platform_options, name)
    elif image.name == "debian":
        if not order.fresh and fresh_enough(name):
            say(f"{name} exists")
            return
        with timed(f"{name} bootstrapped"):
            bootstrap(name)
    else:
        folder = f"images/{image.folder or image.name}"
        with timed(f"{name} built"):
            build(name, folder, "Dockerfile", image.needs, order, target=image.name if image.folder else "")


@contextlib.contextmanager
def context_of(folder: str, root: Path = PROJECT) -> Iterator[Path]:
    """Provide a copy of a folder's files that git lists, without this clone's umask, line ends and other files."""
    with tempfile.TemporaryDirectory(prefix="berth-context-") as scratch:
        copied = Path(scratch, "context")
        directory = root / folder
        source_archive.copy(directory, source_archive.listed(directory, ["."], *AS_THEY_ARE), copied)
        yield copied


def build(
    name: str,
    folder: str,
    dockerfile: str,
    needs: Iterable[str],
    order: Order,
    arguments: Iterable[str] = (),
    target: str = "",
    root: Path = PROJECT,
) -> None:
    """Build an image from a folder on the bases of the mode; Docker's cache is used if nothing changed."""
    stands_on = [(BY_NAME[need], reference(BY_NAME[need], order.mode, order.prefix)) for need in needs]
    bases = [f"{image.variable}={name}" for image, name in stands_on]
    # A Dockerfile that names an official image itself stands on the stand-in, too.
    instead = [
        f"{image.official}=docker-image://{name}" for image, name in stands_on if image.official not in ("", name)
    ]
    with context_of(folder, root) as context:
        if not (context / dockerfile).is_file():
            raise BuildError(f"{folder}/{dockerfile} does not exist, so {name} cannot be built.")
        must(
            f"Building {name}",
            *("docker", "buildx", "build", "--progress=plain"),
            # Attestations contain the time, which would give an unchanged image a new id.
            "--provenance=false",
            "--load",
            *order.platform_options,
            *(f"--build-arg={argument}" for argument in (*bases, *arguments)),
            *(f"--build-context={context}" for context in instead),
            # Images built from packages contain this machine's CA certificates: role stack refuses them for production.
            f"--label=berth.images={order.mode}",
            f"--file={context / dockerfile}",
            *([f"--target={target}"] if target else []),
            f"--tag={name}",
            str(context),
        )


def compose_of(app: Path) -> str:
    """Return the application's compose file. Raises BuildError where it has none."""
    try:
        return (app / application.COMPOSE_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise BuildError(f"{app} is no application: {application.COMPOSE_FILE}: {error.strerror}.") from None


def build_app(app: Path, release: str, order: Order) -> list[str]:
    """Build the application's images; return their names."""
    names = []
    for one in application.builds(compose_of(app)):
        tagged = f"{order.prefix}/{one.name}:{release}"
        with timed(f"{tagged} built"):
            # An argument that no Dockerfile reads changes nothing.
            build(tagged, one.context, one.dockerfile, APP_BASES, order, [f"RELEASE={release}"], one.target, app)
        names.append(tagged)
    return names


@contextlib.contextmanager
def registry_login(registry: str) -> Iterator[list[str]]:
    """Return docker options for the login of REGISTRY_USERNAME and REGISTRY_PASSWORD; none if these are not set.

    Raises:
        BuildError: the registry refuses the login.
    """
    user, password = os.environ.get("REGISTRY_USERNAME", ""), os.environ.get("REGISTRY_PASSWORD", "")
    if not user and not password:
        yield []
        return
    if not (user and password):
        raise BuildError("Set both REGISTRY_USERNAME and REGISTRY_PASSWORD, or neither.")
    with tempfile.TemporaryDirectory(prefix="berth-registry-") as folder:
        options = ["--config", folder]
        if not os.environ.get("DOCKER_HOST"):
            # Another --config has no docker contexts, so name the engine's address.
            where = run("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
            options += ["--host", where.stdout.strip()] if where.returncode == 0 else []
        done = subprocess.run(
            ["docker", *options, "login", "--username", user, "--password-stdin", registry],
            input=password,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            words = last_line(done.stderr).replace(password, "***")
            raise BuildError(f"{registry} refuses the login of REGISTRY_USERNAME and REGISTRY_PASSWORD: {words}")
        yield options


def push(names: Iterable[str], options: list[str]) -> None:
    """Push images to the registry in their names."""
    for name in names:
        with timed(f"{name} pushed"):
            done = run("docker", *options, "push", "--quiet", name)
            if done.returncode:
                raise BuildError(
                    f"{name} was not pushed: {last_line(done.stdout)}. Log in with `docker login {registry_of(name)}`, "
                    "or set REGISTRY_USERNAME and REGISTRY_PASSWORD in the environment."
                )


def signing_key(environment: str) -> attest.Key:
    """Return the private key that the hosts of this environment trust. Raises BuildError where there is none."""
    import attest

    try:
        return attest.private_key(environment)
    except attest.AttestError as error:
        raise BuildError(str(error)) from error


def write_sboms(names: Iterable[str], folder: Path) -> None:
    """Write an SBOM of each image to the folder. Raises BuildError where an image cannot be read."""
    import attest

    try:
        for place in attest.write_sboms(inspected(names), folder):
            say(f"{place} written")
    except attest.AttestError as error:
        raise BuildError(str(error)) from error


def inspected(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return name -> what `docker image inspect` says."""
    return {name: json.loads(must(f"Inspecting {name}", "docker", "image", "inspect", name))[0] for name in names}


def sign(whose: str, names: Iterable[str], bases: Iterable[str], order: Order, key: attest.Key) -> None:
    """Write a signed statement about these images."""
    import attest

    parameters = {"release": whose, "images": order.mode, "platform": order.platform, "prefix": order.prefix}
    known = {name: image["Id"] for name, image in inspected(bases).items()}
    place = attest.write_statement(whose, inspected(names), parameters, known, key)
    say(f"{place.relative_to(PROJECT)} signed")


def save(names: list[str], archive: Path) -> None:
    """Write images to an archive. Raises BuildError where that fails."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with timed(f"{archive} written"):
        must(f"Writing {archive}", "docker", "save", "--output", str(archive), *names)


def check_push(arguments: argparse.Namespace, order: Order) -> None:
    """Refuse a push that cannot work or that would publish this machine's certificates.

    Raises:
        BuildError: the message says what to change.
    """
    if not {"app", "all"} & set(arguments.targets):
        raise BuildError("--push pushes our own images: add the target `app`.")
    if order.prefix == DEFAULT_PREFIX:
        raise BuildError("--push needs a registry: --prefix <registry>/<name>, as in berth_image_prefix.")
    if order.mode == "packages":
        raise BuildError(
            "Images built from packages contain this machine's CA certificates and must not be published: "
            "--push needs IMAGES=registry."
        )


def current_release(app: Path = PROJECT) -> str:
    """Return the release name of the application's current sources, committed or not."""
    compose_of(app)
    folders = source_archive.folders_to_build(app)
    # A deleted file is not listed, which changes the name, too.
    paths = source_archive.listed(app, folders, *AS_THEY_ARE)
    if not paths:
        raise BuildError(
            f"git lists no files in {' and '.join(folders) or 'any folder to build'} of {app}, which the release name"
            " is derived from: it must be a git clone whose docker-compose.prod.yml has build sections."
        )
    return release_of((path, source_archive.content(app / path)) for path in paths)


def arguments_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pull or build the images that Berth runs.")
    parser.add_argument(
        "targets",
        nargs="+",
        choices=[*GROUPS, *FURTHER, "dev", "all", "release"],
        help=f"images to provide; `all` has no {', '.join(FURTHER)}; `release` only prints the release name",
    )
    parser.add_argument(
        "--images",
        choices=MODES,
        default=os.environ.get("IMAGES") or "auto",
        help="where third-party images come from (default: $IMAGES, else auto)",
    )
    parser.add_argument(
        "--platform",
        default=os.environ.get("PLATFORM") or "",
        metavar="linux/ARCH",
        help="what the images are for, such as linux/amd64 (default: $PLATFORM, else what the engine here runs on)",
    )
    parser.add_argument("--prefix", default=DEFAULT_PREFIX, help=f"prefix of local names (default: {DEFAULT_PREFIX})")
    parser.add_argument(
        "--app",
        type=lambda text: Path(text).expanduser().resolve(),
        default=PROJECT,
        metavar="FOLDER",
        help="the application (variable berth_app): a git clone with a docker-compose.prod.yml (default: the sample)",
    )
    parser.add_argument("--fresh", action="store_true", help="make the Debian base anew, and so all that stands on it")
    parser.add_argument(
        "--push",
        action="store_true",
        help="send our own images to the registry of --prefix; the login is docker's own, or $REGISTRY_USERNAME "
        "and $REGISTRY_PASSWORD",
    )
    parser.add_argument(
        "--sign",
        metavar="ENV",
        help="write signed statements about the images to .cache/attestations, for the hosts of inventories/ENV; the "
        "key is $SIGNING_KEY, or vault_signing_key of its vault",
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write our images and the platform's to an archive, for `docker load`"
    )
    parser.add_argument("--sbom", type=Path, metavar="FOLDER", help="write an SBOM of each of our images there")
    parser.add_argument("--env-out", type=Path, metavar="FILE", help="write the chosen names there as KEY=VALUE")
    parsed = parser.parse_args(argv)
    if parsed.images not in MODES:
        parser.error(f"IMAGES is {parsed.images!r}: choose from {', '.join(MODES)}")
    if parsed.platform and not re.fullmatch(r"linux/[a-z0-9]+(/v[0-9]+)?", parsed.platform):
        parser.error(f"PLATFORM is {parsed.platform!r}: write it as docker does, such as linux/amd64 or linux/arm64")
    return parsed


def main(argv: list[str]) -> None:
    arguments = arguments_of(argv)
    if arguments.targets == ["release"]:
        print(current_release(arguments.app))
        return
    release = current_release(arguments.app)
    own = platform_of_engine()
    mode, why = choose(arguments.images, arguments.platform or own)
    say(f"Images: {mode} ({why})" if arguments.images == "auto" else f"Images: {mode}")
    order = order_for(mode, why, arguments.prefix, arguments.platform, own, arguments.fresh)
    images = wanted(arguments.targets, mode)
    if order.foreign:
        say(f"For {order.platform}, without the test bed, which runs on this machine ({own})")
        images = [image for image in images if image.group != "testbed"]
    if mode == "packages" and BY_NAME["mongo-standin"] in images:
        say("MongoDB: SecantusDB stand-in (test and demo only)")
    # Before the builds, which take minutes.
    key = signing_key(arguments.sign) if arguments.sign else None
    with contextlib.ExitStack() as stack:
        if arguments.push:
            check_push(arguments, order)
            options = stack.enter_context(registry_login(registry_of(order.prefix)))
        for image in images:
            provide(image, order)
        third = [reference(image, mode, order.prefix) for image in images if image.group not in ("bases", "testbed")]
        if key:
            sign("platform", third, [], order, key)
        if {"app", "all"} & set(arguments.targets):
            names = build_app(arguments.app, release, order)
            if key:
                bases = [reference(BY_NAME[base], mode, order.prefix) for base in APP_BASES]
                sign(release, names, bases, order, key)
            if arguments.sbom:
                write_sboms(names, arguments.sbom)
            if arguments.push:
                push(names, options)
            third += names
        if arguments.save:
            save(third, arguments.save)
    if arguments.env_out:
        arguments.env_out.parent.mkdir(parents=True, exist_ok=True)
        arguments.env_out.write_text(environment_lines(mode, arguments.prefix, release))


if __name__ == "__main__":
    try:
        # Containers run as other users and must be able to read these files.
        os.umask(0o022)
        main(sys.argv[1:])
    except (BuildError, source_archive.SourcesError, application.ApplicationError) as error:
        sys.exit(f"images: {error}")
