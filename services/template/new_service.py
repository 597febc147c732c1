"""Write a new HTTP service of the application: its folder, and its blocks in the two compose files.

usage: new_service.py NAME      (make new-service NAME=orders)

Everything is rendered and checked in a folder of its own first. What is refused changes nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
SERVICES = HERE.parent
ROOT = SERVICES.parent
PROD, DEV = ROOT / "docker-compose.prod.yml", ROOT / "docker-compose.dev.yml"
# The numbers below are those of Berth and of the sample.
FIRST_UID = 10010
FIRST_PORT = 8001
# The blocks refer to these.
ANCHORS = {PROD: ("python", "python-environment", "health-rhythm"), DEV: ("web", "web-build", "token-environment")}
LONGEST = 30


class NewServiceError(Exception):
    """Nothing was written; the message says why and what to do."""


def main(name: str) -> None:
    prod, dev = (yaml.safe_load(file.read_text()) for file in (PROD, DEV))
    service = f"{name}_service"
    refuse_name(name, prod, dev)
    from copier import run_copy  # takes a second, which no refusal waits for

    answers = {"name": name, "uid": next_uid(prod), "port": next_port(dev)}
    with tempfile.TemporaryDirectory(prefix="berth-new-service-") as folder:
        place = Path(folder)
        run_copy(str(HERE), place, data=answers, defaults=True, quiet=True)
        rendered = (place / "service").rename(place / service)
        lock = lock_of(rendered / "requirements.in")
        if lock:
            shutil.copyfile(lock, rendered / "requirements.txt")
        complete(rendered)
        texts = {
            PROD: inserted(PROD, service, (place / "compose/prod.yml").read_text()),
            DEV: forwarded(inserted(DEV, service, (place / "compose/dev.yml").read_text()), name),
        }
        shutil.copytree(rendered, SERVICES / service, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    for file, text in texts.items():
        file.write_text(text)
    print(f"Wrote services/{service}/ (user {answers['uid']}) and its blocks in {PROD.name} and {DEV.name}.")
    if not lock:
        print(f"Run make lock: no other service has the packages of services/{service}/requirements.in.")
    print(f"On the laptop: make dev, then http://localhost:{answers['port']}/api/{name}/docs. Next: docs/extending.md")


# --- name and numbers ---


def refuse_name(name: str, prod: dict[str, Any], dev: dict[str, Any]) -> None:
    """Raises NewServiceError where a service cannot be named so."""
    if not name:
        raise NewServiceError("Say what the service is about: make new-service NAME=orders")
    if name.endswith("_service"):
        short = name.removesuffix("_service")
        raise NewServiceError(f"Leave out _service, which is added: make new-service NAME={short}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST:
        raise NewServiceError(
            f"NAME is {name!r}: a name has lower-case letters, digits and single underscores between them, "
            f"begins with a letter, and is at most {LONGEST} characters long, such as orders or order_lines."
        )
    service = f"{name}_service"
    for taken in (name, service):
        if (SERVICES / taken).exists():
            raise NewServiceError(f"services/{taken} is there already: choose another name.")
        for file, stack in ((PROD, prod), (DEV, dev)):
            if taken in stack["services"]:
                raise NewServiceError(f"{file.name} has a service {taken} already: choose another name.")
    for other, labels in [(other, one.get("labels") or {}) for other, one in prod["services"].items()]:
        if f"/api/{name}/" in str(labels.get("berth.route", "")).replace(",", " ").split():
            raise NewServiceError(f"/api/{name}/ is a route of {other} already: choose another name.")
        if labels.get("berth.mongo") == f"{name}_db":
            raise NewServiceError(f"{name}_db is the database of {other} already: choose another name.")


def next_uid(prod: dict[str, Any]) -> int:
    users = [str(one.get("user", "")) for one in prod["services"].values()]
    used = {int(number) for user in users for number in re.findall(r"\d+", user)}
    return next(number for number in range(FIRST_UID, 65534) if number not in used)


def next_port(dev: dict[str, Any]) -> int:
    published = [str(port) for one in dev["services"].values() for port in one.get("ports", [])]
    used = {int(port.split(":")[-2]) for port in published if ":" in port}
    return next(port for port in range(FIRST_PORT, 65536) if port not in used)


# --- the folder ---


def lock_of(wishes: Path) -> Path | None:
    """Return the lock of another service that asks for the same packages, if there is one."""
    for other in sorted(SERVICES.glob("*_service/requirements.in")):
        lock = other.with_suffix(".txt")
        if other.read_text() == wishes.read_text() and lock.is_file():
            return lock
    return None


def complete(rendered: Path) -> None:
    """Sort and format the code, whose order and line ends depend on the name, and write its OpenAPI document."""
    ruff = ["ruff", "--quiet"]
    of_services = ["--config", str(SERVICES / "ruff.toml"), "--config", f'src=["{rendered.parent}", "{SERVICES}"]']
    path = f"{rendered.parent}{os.pathsep}{SERVICES}"
    run(*ruff, "check", "--select=I", "--fix", "--no-cache", *of_services, str(rendered))
    run(*ruff, "format", "--no-cache", *of_services, str(rendered))
    run(sys.executable, str(SERVICES / "openapi.py"), str(rendered), PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")


def run(*command: str, **environment: str) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NewServiceError(f"The template is broken: `{' '.join(command)}` says\n{done.stdout}{done.stderr}")


# --- the compose files ---


def inserted(file: Path, service: str, block: str) -> str:
    """Return a compose file with the block after the last service that is built like it; all other lines stay.

    Raises:
        NewServiceError: the file has not what the block refers to.
    """
    text = file.read_text()
    for anchor in ANCHORS[file]:
        if not re.search(rf"&{anchor}\b", text):
            raise NewServiceError(f"{file.name} has no anchor &{anchor}, which the new service would use. Restore it.")
    lines = text.splitlines(keepends=True)
    end = last_line(file, text)
    new = "".join([*lines[:end], block, *lines[end:]])
    before, after = yaml.safe_load(text), yaml.safe_load(new)
    added = after["services"].pop(service, None)
    if not added or before != after:
        raise NewServiceError(f"{file.name} is written in a way that this program cannot add a service to.")
    return new


def last_line(file: Path, text: str) -> int:
    """Return the line after that of the last service that is built from services/<name>_service/Dockerfile."""
    document: Any = yaml.compose(text)
    stack = next(value for key, value in document.value if key.value == "services")
    services = {str(key.value): int(key.start_mark.line) for key, _ in stack.value}
    names = list(services)
    alike = [name for name in names if name.endswith("_service") and f"dockerfile: {name}/Dockerfile" in text]
    if not alike:
        raise NewServiceError(
            f"{file.name} has no service <name>_service of folder services/ to put the new one behind."
        )
    starts = [*services.values(), int(stack.end_mark.line)]
    end = starts[names.index(alike[-1]) + 1]
    lines = text.splitlines()
    while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return end


def forwarded(text: str, name: str) -> str:
    """Return the laptop's compose file with the route among those that the front end forwards, if there is one."""
    routes = re.compile(r"^( +)API_ROUTES: >-\n(?:\1  .*\n)+", re.MULTILINE)
    return routes.sub(lambda found: f"{found[0]}{found[1]}  /api/{name}=http://{name}_service:8000\n", text, count=1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except NewServiceError as error:
        sys.exit(f"new-service: {error}")
