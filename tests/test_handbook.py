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
