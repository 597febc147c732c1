"""The handbook (mkdocs.yml) is built without a warning, fetches nothing, and agrees with what it is written from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.handbook import variables
from tests.documents import commands_of
from tests.support import ROOT, copy_of_the_project

# What a page loads by itself, unlike a link that a reader may follow.
LOADED = re.compile(r"""<(?:script|img|iframe)[^>]*\bsrc="([^"]+)"|<link[^>]*\bhref="([^"]+)"|url\(["']?([^"')]+)""")
# Of several rows of an evidence page.
SUMS = {"23,338", "3,887", "9,390", "9,588", "30,000", "12"}
README = ROOT / "README.md"
RUSSIAN = ROOT / "README.ru.md"


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the handbook as `make handbook` does, into a folder."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The handbook, built strictly."""
    folder = tmp_path_factory.mktemp("handbook")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 150
    loaded = {next(filter(None, found)) for page in pages for found in LOADED.findall(page.read_text())}
    assert [one for one in loaded if re.match(r"(\w+:)?//", one)] == []


def test_a_link_out_of_docs_shows_the_file_and_links_on(site: Path) -> None:
    security = (site / "security.html").read_text()
    assert 'href="source/tests/test_lockout.py.html"' in security
    assert "test_a_connection_that_is_no_login_is_refused" in (site / "source/tests/test_lockout.py.html").read_text()
    role = (site / "source/roles/traefik/index.html").read_text()
    assert re.search(r'href="\.\./\.\./\.\./[\w/-]+\.html', role)


def test_diagrams_are_pictures_and_commands_are_copied_without_their_prompt(site: Path) -> None:
    architecture = (site / "architecture.html").read_text()
    assert "sequenceDiagram" not in architecture
    pictures = re.findall(r'src="(images/diagrams/\w+\.svg)"', architecture)
    assert len(pictures) == 3
    assert all((site / picture).read_text().startswith("<svg ") for picture in pictures)
    rollback = (site / "operations/rollback.html").read_text()
    assert '<span class="filename">on the controller</span>' in rollback
    assert "controller$" not in rollback


def test_a_link_to_nowhere_stops_the_build(tmp_path: Path) -> None:
    copy_of_the_project(tmp_path / "project")
    page = tmp_path / "project/docs/faq.md"
    page.write_text(f"{page.read_text()}\n[nowhere](../roles/none/README.md), [neither](operations.md#none)\n")
    done = build(tmp_path / "project", tmp_path / "site")
    assert done.returncode == 1
    assert "roles/none/README.md" in done.stderr
    assert "operations.md#none" in done.stderr


def test_the_page_of_variables_is_what_the_roles_declare() -> None:
    assert variables.PAGE.read_text() == variables.page(), "make handbook writes docs/variables.md"


def test_the_page_of_variables_has_each_with_its_default_and_keys() -> None:
    page = variables.PAGE.read_text()
    for role in variables.roles():
        assert [name for name in role.options if f"| `{name}` |" not in page] == []
    assert "| `traefik_client_requests` | int | `100` |" in page
    assert "| `backup_password` | str | `vault_backup_password`, else `''` |" in page
    assert "`ssh_keys` (list of str): All public keys of the account" in page
    assert "| `vault_jwt_private_key` | p256 | auth_service |" in page


def prompts(page: Path) -> list[tuple[str, str]]:
    """Return the commands of a page, each with the place where it is typed."""
    return [(command.where, command.text) for command in commands_of(page)]


def test_both_readmes_have_the_same_commands_and_lead_to_the_same_pages() -> None:
    assert prompts(RUSSIAN) == prompts(README)
    links = [set(re.findall(r"\]\(([^)]+)\)", page.read_text())) for page in (README, RUSSIAN)]
    assert links[0] - {"README.ru.md"} == links[1] - {"README.md"}
    assert "README.ru.md" in links[0]
    assert "README.md" in links[1]


def test_each_test_that_the_page_on_asvs_names_is_there() -> None:
    text = (ROOT / "docs/asvs.md").read_text()
    found = re.findall(
        r"\]\((\.\./[^)]+/test_\w+\.py|\.\./[^)]+\.test\.tsx)\)((?:,? (?:`test_\w+`|\"[^\"]+\"))+)", text
    )
    named = [(path, one or other) for path, names in found for one, other in re.findall(r"`(\w+)`|\"([^\"]+)\"", names)]
    assert {name for _, name in named} >= set(re.findall(r"`(test_\w+)`", text))
    for path, name in named:
        source = (ROOT / "docs" / path).read_text()
        assert f"def {name}(" in source or f"test('{name}'" in source, f"{path} has no {name}"


def test_the_summary_of_asvs_counts_its_rows() -> None:
    """A row may stand for several items: `6.5.1 to 6.5.8`, `6.7.1, 6.7.2`."""
    text = (ROOT / "docs/asvs.md").read_text()
    for chapter, *numbers in re.findall(r"^\| (V[67]) [^|]+\| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE):
        rows = re.findall(rf"^\| ({chapter[1]}\.[^|]+) \| \d \| [^|]+ \| ([^|]+) \|", text, re.MULTILINE)
        counted = dict.fromkeys(("met", "**not met**", "not applicable"), 0)
        for items, state in rows:
            last = [int(item.rpartition(".")[2]) for item in re.split(r" to |, ", items)]
            counted[state] += last[-1] - last[0] + 1
        assert [int(number) for number in numbers] == list(counted.values())


def test_a_figure_is_that_of_its_source() -> None:
    sources = [*(ROOT / "docs/evidence").glob("*.md"), variables.PAGE]
    known = set(re.findall(r"[\d,.]*\d", "\n".join(page.read_text() for page in sources)))
    told = (ROOT / "docs/figures.md").read_text().split("## Not measured")[0]
    for figure, value in re.findall(r"^\| ([^|]+) \| ([^|]+) \|", told, re.MULTILINE):
        numbers = {number for number in re.findall(r"\d[\d,.]*\d", value) if number not in SUMS}
        assert {number for number in numbers if not {number, number.replace(",", "")} & known} == set(), figure
