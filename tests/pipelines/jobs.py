"""The jobs of .github/workflows and .gitlab-ci.yml, and a machine that runs them as GitHub and GitLab do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT, copy_of_the_project

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
GITLAB = ROOT / ".gitlab-ci.yml"
STAND_INS = ("make", "docker", "curl", "sudo", "apt-get")
EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
JOB_SECONDS = 120


class _Loader(yaml.SafeLoader):
    """YAML in which `on` is a word."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first not in "oO"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parsed(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text(), _Loader)  # noqa: S506  # a SafeLoader
    return found


@dataclass(frozen=True)
class Step:
    """One script of a job, or one action."""

    script: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    action: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What a job runs, after which jobs, and in which environment, whose secrets it gets."""

    name: str
    steps: list[Step]
    needs: list[str] = field(default_factory=list)
    environment: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    by_hand: bool = False


@dataclass(frozen=True)
class Event:
    """What starts a pipeline: its variables, as each of the two names them."""

    workflow: str
    gitlab: dict[str, str]
    inputs: dict[str, str] = field(default_factory=dict)
    prefix: str = ""


def jobs_of_github(event: Event) -> list[Job]:
    """Return the jobs of a workflow, in their order."""
    workflow = parsed(ROOT / ".github/workflows" / f"{event.workflow}.yml")
    shared = workflow.get("env", {})
    started = event.gitlab["CI_PIPELINE_SOURCE"].replace("merge_request_event", "pull_request")
    return [
        Job(
            name,
            [
                Step(step.get("run", ""), step.get("env", {}), step.get("uses", ""), step.get("with", {}))
                for step in job["steps"]
            ],
            job.get("needs", []),
            job.get("environment", ""),
            {**shared, **job.get("env", {})},
        )
        for name, job in workflow["jobs"].items()
        if job.get("if") in (None, f"github.event_name == '{started}'")
    ]


def jobs_of_gitlab(event: Event) -> list[Job]:
    """Return the jobs that GitLab would add to a pipeline, in the order of their stages."""
    text = parsed(GITLAB)
    shared = {name: str(_value(value)) for name, value in text["variables"].items()}
    shared |= {"CI_DEFAULT_BRANCH": "main", **event.gitlab}
    if not any(holds(rule["if"], shared) for rule in text["workflow"]["rules"]):
        return []
    jobs = []
    for name, job in text.items():
        if "script" not in job:
            continue
        job = text.get(job.get("extends"), {}) | job
        rules = [rule for rule in job["rules"] if holds(rule["if"], shared)]
        if rules:
            own = {key: str(value) for key, value in job.get("variables", {}).items()}
            script = "\n".join([*text["default"]["before_script"], *job["script"]])
            kept = [Step(action="keep", inputs=job["artifacts"])] if "artifacts" in job else []
            fetched = [Step(action="fetch")] if "needs" in job else []
            place = expanded(job.get("environment", {}).get("name", ""), shared)
            steps = [*fetched, Step(script), *kept]
            by_hand = rules[0].get("when") == "manual" and rules[0].get("allow_failure") is False
            jobs.append(Job(name, steps, job.get("needs", []), place, shared | own, by_hand))
    return sorted(jobs, key=lambda job: text["stages"].index((text[job.name])["stage"]))


def _value(given: Any) -> Any:
    return given["value"] if isinstance(given, dict) else given


def expanded(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda found: variables.get(found[1], ""), text)


def holds(condition: str, variables: Mapping[str, str]) -> bool:
    """Tell whether a rule of GitLab applies: names, words and patterns, joined by &&."""
    return all(_clause(part.split(), variables) for part in condition.split(" && "))


def _clause(words: list[str], variables: Mapping[str, str]) -> bool:
    value = expanded(words[0], variables)
    match words[1:]:
        case []:
            return value != ""
        case ["==", right]:
            return value == expanded(right.strip('"'), variables)
        case ["=~", pattern]:
            return re.search(pattern.strip("/"), value) is not None
    raise AssertionError(f"a rule that this test cannot read: {words}")


def replaced(text: str, event: Event, secrets: Mapping[str, str]) -> str:
    """Return a text with GitHub's expressions replaced by their values; what is not set is empty."""
    known = {f"secrets.{name}": value for name, value in secrets.items()}
    known |= {f"inputs.{name}": value for name, value in event.inputs.items()}
    known |= {"vars.IMAGE_PREFIX": event.prefix}

    def value(found: re.Match[str]) -> str:
        words = [word.strip() for word in found[1].split("||")]
        values = [word[1:-1] if word.startswith("'") else known.get(word, "") for word in words]
        return next((value for value in values if value), "")

    return EXPRESSION.sub(value, text)


@dataclass(frozen=True)
class Ran:
    """What a job did: its exit status, what it printed, and each call of a stand-in."""

    status: int
    text: str
    calls: list[dict[str, Any]]

    @property
    def commands(self) -> list[str]:
        return [call["command"] for call in self.calls]


def repository(folder: Path) -> Path:
    """Make a repository of what pipelines read, as it is here, with a tagged release and a later commit."""
    copy_of_the_project(folder / "all")
    origin = folder / "origin"
    unread = ("benchmarks", "berth", "docs", "src", "molecule", "monitoring", "roles", "services", "tests")
    shutil.copytree(folder / "all", origin, ignore=lambda _, names: set(names) & set(unread))
    as_ada = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        [*as_ada, "commit", "--quiet", "--message=Release"],
        ["tag", "v1.4.0"],
        [*as_ada, "commit", "--quiet", "--allow-empty", "--message=Later"],
    ):
        subprocess.run(["git", "-C", str(origin), *command], check=True, capture_output=True)
    return origin


class Runner:
    """Runs jobs, each in a fresh clone, with the secrets of its environment only."""

    def __init__(self, origin: Path, folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
        self.origin = origin
        self.folder = folder
        self.secrets = secrets
        self.kept = folder / "kept"
        program = folder / "stand_in"
        text = (ROOT / "tests/pipelines/stand_in.py").read_text()
        # Isolated from the packages of this environment, which take a while to look through.
        program.write_text(f"#!{sys.executable} -IS\n{text}")
        program.chmod(0o755)
        (folder / "bin").mkdir()
        for name in STAND_INS:
            (folder / "bin" / name).symlink_to(program)

    def fail(self, part: str, status: int = 1) -> None:
        """Make each command that contains this end with a status."""
        (self.folder / "failing").write_text(f"{status} {part}\n")

    def run(self, jobs: list[Job], event: Event) -> dict[str, Ran]:
        """Run the jobs whose needs have passed, one after the other, as if each gate were opened."""
        ran: dict[str, Ran] = {}
        for job in jobs:
            if all(need in ran and ran[need].status == 0 for need in job.needs):
                ran[job.name] = self.run_job(job, event)
        return ran

    def run_job(self, job: Job, event: Event) -> Ran:
        place = self.folder / "jobs" / job.name
        subprocess.run(["git", "clone", "--quiet", str(self.origin), str(place)], check=True)
        (self.folder / "log").unlink(missing_ok=True)
        secrets = self.secrets.get(replaced(job.environment, event, {}), {})
        # GitHub gives a secret to the steps that name it, GitLab to the whole job.
        github = any(step.action.startswith("actions/checkout@") for step in job.steps)
        environment = self.outside() | ({} if github else dict(secrets))
        environment |= {name: replaced(value, event, secrets) for name, value in job.variables.items()}
        text, status = "", 0
        for step in job.steps:
            if step.script:
                own = {name: replaced(value, event, secrets) for name, value in step.environment.items()}
                done = self.shell(step.script, place, environment | own)
                text, status = text + done.stdout, done.returncode
            else:
                self.act(step, place)
            if status:
                break
        log = self.folder / "log"
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return Ran(status, text, calls)

    def outside(self) -> dict[str, str]:
        """Return what a fresh machine has in its environment."""
        system = ":".join(
            dict.fromkeys(str(Path(str(shutil.which(name))).parent) for name in ("git", "bash", "ssh-add"))
        )
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": f"{self.folder}/bin:{system}:/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "STAND_INS": str(self.folder),
        }

    def shell(self, script: str, place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]
        return subprocess.run(
            command,
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=JOB_SECONDS,
            check=False,
        )

    def act(self, step: Step, place: Path) -> None:
        """Do what the three actions do that are used, and what GitLab does with artifacts."""
        action = step.action.partition("@")[0]
        if action in ("actions/upload-artifact", "keep"):
            given = step.inputs.get("path") or step.inputs["paths"]
            names = given.split() if isinstance(given, str) else given
            hidden = step.inputs.get("include-hidden-files") or action == "keep"
            for name in names:
                found = place / name
                if found.exists() and (hidden or not name.startswith(".")):
                    target = self.kept / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (shutil.copytree if found.is_dir() else shutil.copy)(found, target)
        elif action in ("actions/download-artifact", "fetch"):
            self.kept.mkdir(exist_ok=True)
            shutil.copytree(self.kept, place, dirs_exist_ok=True)
        else:
            assert action == "actions/checkout", f"an action that this test does not know: {action}"


def secrets_of(calls: list[dict[str, Any]], part: str) -> set[str]:
    """Return the names of the secrets in the environment of the commands that contain this."""
    return {name for call in calls if part in call["command"] for name in call["secrets"]}


def scripts(workflow: Path) -> dict[str, str]:
    """Return every script of a workflow, by job and step."""
    return {
        f"{name}: {step.get('name')}": step["run"]
        for name, job in parsed(workflow)["jobs"].items()
        for step in job["steps"]
        if "run" in step
    }


def plain_environment() -> dict[str, str]:
    """Return an environment without what a developer has set for Ansible or an agent."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "SSH_", "MAKE"))}
