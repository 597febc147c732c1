"""`docker compose config --format json` without Docker: the project's own compose file, resolved."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from subprocess import CompletedProcess
from typing import Any

import yaml

from tests.support import ROOT

TEXT = (ROOT / "docker-compose.prod.yml").read_text()
# The services of a release; the project may have been given more of them.
RELEASE = tuple(name for name, each in yaml.safe_load(TEXT)["services"].items() if "release" in each["profiles"])
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?+])([^}]*))?\}")


@cache
def without_labels(text: str = TEXT) -> str:
    """Return the compose file as releases before labels kept it."""
    document = yaml.safe_load(text)
    del document["x-berth"]
    for service in document["services"].values():
        service.pop("labels", None)
    return str(yaml.safe_dump(document))


@cache
def with_job(schedule: str, text: str = TEXT) -> str:
    """Return the compose file with a job of the worker's image."""
    document = yaml.safe_load(text)
    job = {**document["services"]["beat"], "profiles": ["job"], "command": ["report"]}
    document["services"]["report"] = {**job, "labels": {"berth.schedule": schedule}}
    document["services"]["report"]["volumes"] = [{"type": "bind", "source": "/srv/reports", "target": "/reports"}]
    return str(yaml.safe_dump(document))


@cache
def resolved(text: str = TEXT, **values: str) -> str:
    """Return the compose file as compose prints it with these variables."""

    def value(found: re.Match[str]) -> str:
        name, sign, word = found.groups()
        if sign == "+":
            return word if values.get(name) else ""
        return values.get(name) or (word if sign == "-" else "")

    document: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, text))
    for one in document["services"].values():
        one["volumes"] = [volume for volume in one.get("volumes", []) if isinstance(volume, dict)]
        if isinstance(one.get("networks"), list):
            one["networks"] = dict.fromkeys(one["networks"])
    more = {key: value for key, value in document.items() if key.startswith("x-berth") or key == "networks"}
    return json.dumps({"name": "berth-any", "services": dict(sorted(document["services"].items())), **more})


def answer(command: list[str], environment: dict[str, Any]) -> tuple[int, str, str]:
    """Answer `docker compose ... config` of a kept compose file."""
    file = next(word.removeprefix("--file=") for word in command if word.startswith("--file="))
    if not os.path.exists(file):
        return 1, "", f"open {file}: no such file or directory"
    with open(file) as opened:
        text = opened.read()
    known = {name: str(environment[name]) for name in ("RELEASE", "COLOUR", "IMAGE_PREFIX") if name in environment}
    return 0, resolved(text, **known), ""


def run(*command: str, **environment: Any) -> CompletedProcess[str]:
    """Take the place of commands.run where only compose files are read."""
    return CompletedProcess(command, *answer(list(command), environment))
