"""Stands in for the programs of a pipeline's job that are slow or reach another machine, under their names on PATH.

It refuses what the real program would refuse, leaves what the next command needs, and writes down each call. Its folder
is in STAND_INS. There, `log` has a line of JSON for each call; `failing` an exit status and the part of a command line
that ends with it; `changed` the number of tasks that a dry run would change on each host.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(os.environ.get("STAND_INS", "."))
RELEASE = "0123456789ab"
LOCAL = "localhost/berth"
# What this job's Docker engine has.
ENGINE = Path(".cache/engine")
ARCHIVED = Path(".cache/attestations") / f"{RELEASE}.intoto.jsonl"
SECRETS = (
    *("SIGNING_KEY", "REGISTRY_USERNAME", "REGISTRY_PASSWORD"),
    *("SSH_PRIVATE_KEY", "SSH_KNOWN_HOSTS", "ANSIBLE_VAULT_PASSWORD"),
)
PURLS = ("pkg:deb/debian/openssl@3.5.4-1?arch=amd64&distro=debian-13", "pkg:pypi/fastapi@0.121.0", "pkg:npm/vite@8.3.8")
VAULT = "ANSIBLE_VAULT_IDENTITY_LIST"


def require(true: object, why: str) -> None:
    if not true:
        sys.exit(f"stand-in: {why}")


def real(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program itself, wherever it is behind the stand-ins on PATH."""
    path = ":".join(place for place in os.environ["PATH"].split(":") if Path(place) != FOLDER / "bin")
    command = ["env", f"PATH={path}", name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def on_engine() -> set[str]:
    return set(ENGINE.read_text().split()) if ENGINE.exists() else set()


def add_to_engine(*names: str) -> None:
    ENGINE.parent.mkdir(exist_ok=True)
    ENGINE.write_text("\n".join(sorted(on_engine() | set(names))))


def make(arguments: list[str]) -> None:
    """`make venv` leaves the programs of the virtual environment; other targets have to be there."""
    done = real("make", "--dry-run", *arguments)
    require(done.returncode == 0, done.stderr)
    if arguments == ["venv"]:
        Path(".venv/bin").mkdir(parents=True)
        for name in ("python", "ansible-playbook"):
            Path(".venv/bin", name).symlink_to(Path(__file__).resolve())


def python(arguments: list[str]) -> None:
    program, *rest = arguments
    require(Path(program).parent == Path("images"), f"{program} is no program of images/")
    {"build.py": build, "engine.py": lambda _: None, "vulnerabilities.py": examine}[Path(program).name](rest)


def options() -> argparse.ArgumentParser:
    """Return the options of images/build.py that pipelines use."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("targets", nargs="+", choices=["app", "platform"])
    parser.add_argument("--images", choices=["registry"], required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--sbom", type=Path)
    parser.add_argument("--sign", choices=["production"])
    parser.add_argument("--push", action="store_true")
    parser.add_argument("--save", type=Path)
    return parser


def build(arguments: list[str]) -> None:
    if arguments == ["release"]:
        print(RELEASE)
        return
    order = options().parse_args(arguments)
    for target in order.targets:
        add_to_engine(f"{order.prefix}/{target}:{RELEASE}")
    if order.sbom:
        order.sbom.mkdir()
        text = json.dumps({"components": [{"purl": purl} for purl in PURLS]})
        (order.sbom / "auth_service.cdx.json").write_text(text)
    if order.sign:
        require(os.environ.get("SIGNING_KEY"), "there is no key to sign with")
        ARCHIVED.parent.mkdir()
        ARCHIVED.write_text("{}\n")
    if order.save:
        order.save.write_text(" ".join(f"{order.prefix}/{target}:{RELEASE}" for target in order.targets))
    if order.push:
        require(order.prefix != LOCAL, "a push needs a registry")
        require(os.environ.get("REGISTRY_PASSWORD"), "the registry refuses the login")


def examine(arguments: list[str]) -> None:
    require(arguments[:2] == ["--ignore-unfixed", "--osv"], "usage")
    folder, sboms = Path(arguments[2]), arguments[3:]
    require(sboms and all(Path(one).is_file() for one in sboms), "there are no SBOMs")
    for ecosystem in ("Debian", "PyPI", "npm"):
        require(list((folder / ecosystem).glob("*.json")), f"there are no vulnerabilities of {ecosystem}")


def docker(arguments: list[str]) -> None:
    match arguments:
        case ["load", "--quiet", "--input", archive]:
            add_to_engine(*Path(archive).read_text().split())
        case _:
            require(False, f"unexpected: docker {arguments}")


def ansible_playbook(arguments: list[str]) -> None:
    playbook = next(word for word in arguments if word.endswith(".yml"))
    inventory = Path(arguments[arguments.index("-i") + 1])
    require(Path(playbook).is_file(), f"there is no {playbook}")
    require((inventory / "hosts.yml").is_file(), f"there is no {inventory}")
    if VAULT in os.environ:
        done = subprocess.run([os.environ[VAULT].partition("@")[2]], capture_output=True, text=True, check=False)
        require(done.returncode == 0 and done.stdout.strip(), done.stderr)
    if playbook == "site.yml" and os.environ.get("IMAGE_PREFIX", LOCAL) == LOCAL and VAULT in os.environ:
        wanted = {f"{LOCAL}/{target}:{RELEASE}" for target in ("app", "platform")}
        require(wanted <= on_engine(), "the controller lacks images")
    if playbook == "site.yml" and "--check" not in arguments:
        require(ARCHIVED.is_file(), "there is no statement, so the host refuses the images")
        require(f"release={RELEASE}" in arguments, "no release is named")
    changed = FOLDER / "changed"
    print("PLAY RECAP *****")
    for line in changed.read_text().splitlines() if changed.exists() else [f"{inventory.name} 0"]:
        host, _, number = line.partition(" ")
        print(f"{host:<20} : ok=12   changed={number}    unreachable=0    failed=0    skipped=3")


def curl(arguments: list[str]) -> None:
    require({"--fail", "--location"} <= set(arguments), "an error page would be taken for data")
    require(arguments[arguments.index("--proto") + 1] == "=https", "it is not only https that is allowed")
    with zipfile.ZipFile(arguments[arguments.index("--output") + 1], "w") as archive:
        archive.writestr("DSA-1-1.json", "{}")


def sudo(arguments: list[str]) -> None:
    require(os.access(arguments[0], os.X_OK), f"{arguments[0]} is no program")


def keys_of_the_agent() -> list[str]:
    """Return the fingerprints of the keys that a command could log in with."""
    if "SSH_AUTH_SOCK" not in os.environ:
        return []
    return [line.split()[1] for line in real("ssh-add", "-l").stdout.splitlines()]


def known_hosts() -> str:
    """Return the host keys that Ansible is told to trust, if it refuses all others."""
    options = os.environ.get("ANSIBLE_SSH_COMMON_ARGS", "")
    files = [word.partition("=")[2] for word in options.split() if word.startswith("UserKnownHostsFile=")]
    return Path(files[0]).read_text() if files and "StrictHostKeyChecking=yes" in options else ""


def main() -> None:
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    call = {
        "command": " ".join([name, *arguments]),
        "secrets": {secret: os.environ[secret] for secret in SECRETS if secret in os.environ},
        "keys": keys_of_the_agent(),
        "known_hosts": known_hosts(),
    }
    with (FOLDER / "log").open("a") as log:
        log.write(json.dumps(call) + "\n")
    failing = FOLDER / "failing"
    for line in failing.read_text().splitlines() if failing.exists() else []:
        status, _, part = line.partition(" ")
        if part in call["command"]:
            print(f"stand-in: {part} fails", file=sys.stderr)
            sys.exit(int(status))
    PROGRAMS[name](arguments)


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "ansible-playbook": ansible_playbook,
    "apt-get": lambda _: None,
    "curl": curl,
    "docker": docker,
    "make": make,
    "python": python,
    "sudo": sudo,
}


if __name__ == "__main__":
    main()
