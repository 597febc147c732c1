"""The papers of the project agree: one version everywhere, its changes, and what operators have to do for them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from berth import __version__
from tests.support import ROOT

NOTES = [sys.executable, str(ROOT / "docs/release_notes.py")]
# restic 0.17, which backups need, is in Debian since trixie.
PLATFORMS = {"backup": ["trixie"]}


def read(name: str) -> str:
    return (ROOT / name).read_text()


def released() -> list[tuple[str, str]]:
    """Return the versions of the changelog with their dates, newest first."""
    return re.findall(r"(?m)^## (\d\S*)(?: - (\S+))?$", read("CHANGELOG.md"))


def notes(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NOTES, *words], capture_output=True, text=True, check=False, timeout=30)


# --- one version ---


def test_one_version_stands_everywhere() -> None:
    readme = re.search(r"(?m)^Version (\S+) \(", read("README.md"))
    assert readme
    assert {
        "pyproject.toml": tomllib.loads(read("pyproject.toml"))["project"]["version"],
        "collection/galaxy.yml": yaml.safe_load(read("collection/galaxy.yml"))["version"],
        "README.md": readme[1],
        "CHANGELOG.md": released()[0][0],
    } == dict.fromkeys(["pyproject.toml", "collection/galaxy.yml", "README.md", "CHANGELOG.md"], __version__)
    # As galaxy and the comparison on the host want it.
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_changelog_has_unreleased_on_top_and_versions_in_order() -> None:
    headings = re.findall(r"(?m)^## (.+)$", read("CHANGELOG.md"))
    assert headings[0] == "Unreleased"
    numbers = [tuple(map(int, version.split("."))) for version, _ in released()]
    assert len(numbers) == len(headings) - 1
    assert numbers == sorted(numbers, reverse=True)
    dates = [date for _, date in released() if date]
    assert dates == sorted(dates, reverse=True)
    kinds = re.findall(r"(?m)^### (.+)$", read("CHANGELOG.md"))
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("version", [version for version, _ in released()])
def test_a_version_with_breaking_changes_says_what_operators_have_to_do(version: str) -> None:
    changes = notes(version).stdout
    if re.search(r"(?m)^### (Changed|Removed)$", changes):
        heading = f"## Breaking changes of {version}\n"
        assert heading in read("docs/upgrading.md")
        rows = re.findall(r"(?m)^\| [^|]+ \| [^|]+ \|$", read("docs/upgrading.md").split(heading)[1].split("\n## ")[0])
        # The first is the head of the table.
        assert len(rows) > 1


def test_every_variable_that_the_changelog_removes_is_refused_or_explained() -> None:
    told = read("docs/upgrading.md") + read("ansible/variables.yml")
    removed = re.findall(r"(?ms)^### Removed$(.*?)(?=^##|\Z)", read("CHANGELOG.md"))
    names = {name for text in removed for name in re.findall(r"`([a-z]+_\w+)`", text)}
    assert names
    assert {name for name in names if name not in told} == set()


# --- notes of a version ---


def test_the_notes_are_those_of_the_newest_version_or_of_the_one_that_is_named() -> None:
    newest = notes()
    assert newest.returncode == 0, newest.stderr
    assert newest.stdout == notes(__version__).stdout == notes(f"v{__version__}").stdout == notes("").stdout
    assert "### Added" in newest.stdout
    assert "## " not in re.sub(r"(?m)^### ", "", newest.stdout)
    assert notes("0.1.0").stdout == "What there was before this changelog. It has no tag.\n"


def test_an_unknown_version_is_refused_with_those_that_there_are() -> None:
    said = notes("9.9.9")
    assert (said.returncode, said.stdout) == (2, "")
    listed = ", ".join(["Unreleased", *(version for version, _ in released())])
    assert said.stderr == f"CHANGELOG.md has no version 9.9.9. It has: {listed}\n"


# --- roles and collection ---


@pytest.mark.parametrize("role", sorted(path.name for path in (ROOT / "roles").iterdir()))
def test_roles_agree_about_licence_platforms_and_ansible(role: str) -> None:
    info = yaml.safe_load(read(f"roles/{role}/meta/main.yml"))["galaxy_info"]
    galaxy, runtime = (yaml.safe_load(read(f"collection/{name}")) for name in ("galaxy.yml", "meta/runtime.yml"))
    assert [info["license"]] == galaxy["license"]
    assert [info["author"]] == galaxy["authors"]
    assert f">={info['min_ansible_version']}.0" == runtime["requires_ansible"]
    assert info["platforms"] == [{"name": "Debian", "versions": PLATFORMS.get(role, ["bookworm", "trixie"])}]


def test_the_collection_asks_for_what_its_roles_use_in_the_versions_of_the_playbooks() -> None:
    versions = {one["name"]: one["version"] for one in yaml.safe_load(read("ansible/requirements.yml"))["collections"]}
    texts = "\n".join(
        path.read_text() for folder in ("tasks", "handlers", "vars") for path in ROOT.glob(f"roles/*/{folder}/**/*.yml")
    )
    used = set(re.findall(r"\b(ansible\.posix|community\.[a-z]+)\.[a-z]", texts))
    wanted = yaml.safe_load(read("collection/galaxy.yml"))["dependencies"]
    assert wanted == {name: versions[name] for name in used}


# --- what GitHub and pre-commit read ---


def test_a_reporter_of_a_vulnerability_is_led_away_from_public_issues() -> None:
    assert yaml.safe_load(read(".github/ISSUE_TEMPLATE/config.yml")) == {"blank_issues_enabled": False}
    assert "**Report a vulnerability**" in read("SECURITY.md")
    assert "SECURITY.md" in read(".github/ISSUE_TEMPLATE/bug.yml")
    major, minor, _ = __version__.split(".")
    assert f"such as {major}.{minor}.x" in read("SECURITY.md")


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_a_form_of_an_issue_has_fields_with_names_of_their_own(form: str) -> None:
    """The keys that GitHub requires: it shows no form that lacks one."""
    text = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{form}.yml"))
    assert {"name", "description", "body"} <= text.keys()
    fields = [one for one in text["body"] if one["type"] != "markdown"]
    names = [one["id"] for one in fields]
    assert sorted(names) == sorted(set(names))
    assert all(one["attributes"]["label"] for one in fields)


def test_hooks_are_local_and_run_linters_that_make_lint_runs() -> None:
    [only] = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert only["repo"] == "local"
    assert {hook["language"] for hook in only["hooks"]} == {"system"}
    linters = re.findall(r"(?ms)^lint:.*?\n\n", read("Makefile"))[0]
    entries = {hook["id"]: hook["entry"].removeprefix(".venv/bin/").split()[0] for hook in only["hooks"]}
    assert entries.pop("papers") == "pytest"
    assert [entry for entry in entries.values() if entry not in linters] == []
