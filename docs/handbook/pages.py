"""Hooks of mkdocs.yml: what the site needs so that pages read the same there and in the checkout.

A link out of docs/ leads to a page that shows the file; a folder in the navigation stands for its pages; a diagram is
the picture that diagrams.py made of it; a block of commands can be copied without its prompt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify  # type: ignore[import-untyped]  # it brings no types

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Files outside docs/ that pages link to.
SOURCE = "source"
PICTURES = {".png", ".svg"}
# Code first: what looks like a link there is none.
_LINK = re.compile(r"(?ms)^ *```.*?^ *```$|``[^`]+``|`[^`\n]*`|(?<=\]\()(?!\w+:|[#/])([^)#\s]+)")
DIAGRAM = re.compile(r"(?ms)^```mermaid\n(.*?)^```$")
_CONSOLE = re.compile(r"(?ms)^( *)```console\n(.*?)^ *```$")
# A table of five columns or more.
_WIDE = re.compile(r"^\|(?:[^|\n]*\|){5,}$", re.MULTILINE)
_PROMPT = re.compile(r"^ *(\w+[$#]) ", re.MULTILINE)
PROMPTS = {
    "controller$": "on the controller",
    "host$": "on the server",
    "console#": "in the provider's console, as root",
    "rescue#": "in the provider's rescue system, as root",
    "store$": "on the server of the backup repository",
}


def place(path: Path) -> str:
    """Return where the site has a file or a folder of the project, relative to docs/."""
    if path.is_dir():
        path /= "README.md" if (path / "README.md").is_file() else "index.md"
    inside = path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
    if path.is_relative_to(DOCS):
        return inside
    return f"{SOURCE}/{inside}" if path.suffix in {".md", *PICTURES} else f"{SOURCE}/{inside}.md"


def linked(path: Path) -> Iterator[Path]:
    """Return what a page links to, in this project."""
    for found in _LINK.finditer(path.read_text()):
        if found[1]:
            yield Path(os.path.normpath(path.parent / found[1]))


def beyond(pages: list[Path]) -> list[Path]:
    """Return what pages need that MkDocs does not find in docs/: other files, and lists of a folder's pages."""
    known, found = set(pages), []
    waiting = [target for page in pages for target in linked(page)]
    while waiting:
        target = waiting.pop()
        target = target / "README.md" if (target / "README.md").is_file() else target
        if target in known or not target.exists():
            continue
        known.add(target)
        if target.is_dir() or not target.is_relative_to(DOCS):
            found.append(target)
        if target.is_dir():
            waiting += target.glob("*.md")
        elif target.suffix == ".md":
            waiting += linked(target)
    return sorted(found)


def shown(path: Path) -> str:
    """Return the page that shows a file or a folder."""
    name = path.relative_to(ROOT)
    if path.suffix == ".md":
        return path.read_text()
    if path.is_dir():
        return f"# {name}\n\n" + "".join(f"- [{page.stem}]({page.name})\n" for page in sorted(path.glob("*.md")))
    language = {".py": "python", ".yml": "yaml"}.get(path.suffix, "text")
    head = f"---\nsearch: {{exclude: true}}\n---\n# {path.name}\n\n`{name}`\n"
    return f"{head}\n~~~~~~{language}\n{path.read_text()}~~~~~~\n"


def origin(uri: str) -> Path:
    """Return the file of the project that a page of the site shows."""
    return ROOT / uri.removeprefix(f"{SOURCE}/") if uri.startswith(f"{SOURCE}/") else DOCS / uri


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a folder's pages where the navigation names the folder, and drop pages that are not there yet."""
    # Anchors as the forges make them. Not in mkdocs.yml: its tag is unknown to linters of YAML.
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    config.nav = [entry for entry in map(_expanded, config.nav or []) if entry]
    return config


def _expanded(entry: Any) -> Any:
    if isinstance(entry, dict):
        [(title, value)] = entry.items()
        value = _expanded(value)
        return {title: value} if value else None
    if isinstance(entry, list):
        return [one for each in entry if (one := _expanded(each))]
    if entry.endswith("/"):
        pages = sorted((DOCS / entry).glob("*.md"), key=lambda page: (page.name != "README.md", page.name))
        return [page.relative_to(DOCS).as_posix() for page in pages]
    return entry if (DOCS / entry).is_file() else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to outside docs/."""
    for path in beyond([origin(file.src_uri) for file in files.documentation_pages()]):
        if path.suffix in PICTURES:
            files.append(File.generated(config, place(path), abs_src_path=str(path)))
        else:
            files.append(File.generated(config, place(path), content=shown(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # MkDocs' own
    """Make a page of the checkout one of the site."""
    uri = page.file.src_uri
    path = origin(uri)
    if not path.is_file():
        return markdown

    def relative(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(path.parent / found[1])) if found[1] else path
        if not found[1] or not target.exists():
            return found[0]
        return os.path.relpath(place(target), os.path.dirname(uri) or ".")

    if DIAGRAM.search(markdown) or _WIDE.search(markdown):
        # They get the width of the table of contents; the pages have a line of contents of their own.
        page.meta["hide"] = ["toc"]
    here = os.path.relpath(".", os.path.dirname(uri) or ".")
    markdown = _CONSOLE.sub(_copied, _LINK.sub(relative, markdown))
    return DIAGRAM.sub(lambda found: _picture(found[1], here), markdown)


def name_of(diagram: str) -> str:
    """Return the picture of a diagram, relative to docs/; named by its content, so that an old one is never shown."""
    return f"images/diagrams/{sha256(diagram.encode()).hexdigest()[:16]}.svg"


def _picture(diagram: str, here: str) -> str:
    name = name_of(diagram)
    if not (DOCS / name).is_file():
        raise PluginError(f"A diagram was changed, and {name} is missing. `make handbook` draws it.")
    return f"[![Diagram]({here}/{name})]({here}/{name}){{ .diagram }}"


def _copied(found: re.Match[str]) -> str:
    """Name the place of commands above them, where it is one, and leave the prompt out of what is copied."""
    prompts = set(_PROMPT.findall(found[2]))
    if len(prompts) != 1:
        return found[0]
    indent, title = found[1], PROMPTS[prompts.pop()]
    commands = _PROMPT.sub(indent, found[2])
    return f'{indent}``` {{ .bash title="{title}" }}\n{commands}{indent}```'
