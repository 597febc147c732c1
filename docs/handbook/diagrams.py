"""Draws the diagrams of docs/ that are new; `make handbook` runs it.

Forges draw a mermaid block themselves. The site shows a picture of it, so that it needs no script from elsewhere.
mermaid comes from npm, once, into .cache/; Chromium runs it without a network.
"""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from docs.handbook import pages
from tests.support import CHROMIUM, CHROMIUM_ARGUMENTS

VERSION = "11.17.2"
CACHE = pages.ROOT / ".cache"
# A picture in a page has no style sheet, and foreignObject would make it a page of its own.
SETTINGS = {
    "startOnLoad": False,
    "theme": "neutral",
    "htmlLabels": False,
    # Closely set, so that the text is large where a page's width decides about the size.
    "flowchart": {"htmlLabels": False, "nodeSpacing": 40, "rankSpacing": 20, "padding": 8},
    "sequence": {"actorMargin": 20, "messageMargin": 25},
    "fontFamily": "sans-serif",
}


def mermaid() -> str:
    """Return the text of mermaid's script."""
    archive = CACHE / f"mermaid-{VERSION}.tgz"
    if not archive.is_file():
        CACHE.mkdir(exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"mermaid@{VERSION}"], cwd=CACHE, check=True)
    with tarfile.open(archive) as package:
        script = package.extractfile("package/dist/mermaid.min.js")
        assert script  # noqa: S101  # it is a file
        return script.read().decode()


def diagrams() -> dict[Path, str]:
    """Return picture -> diagram, of all pages."""
    texts = [page.read_text() for page in sorted(pages.DOCS.rglob("*.md"))]
    found = [diagram for text in texts for diagram in pages.DIAGRAM.findall(text)]
    return {pages.DOCS / pages.name_of(diagram): diagram for diagram in found}


def drawn(page: Page, diagram: str) -> str:
    """Return a diagram as SVG, of its own width, with a white ground for dark pages."""
    script = "([text, settings]) => { mermaid.initialize(settings); return mermaid.render('diagram', text) }"
    svg: str = page.evaluate(script, [diagram, SETTINGS])["svg"]
    width = svg.split('viewBox="', 1)[1].split()[2]
    svg = svg.replace('width="100%"', f'width="{float(width):.0f}"', 1)
    return svg.replace("<br>", "<br/>").replace('style="', 'style="background-color: white; ', 1) + "\n"


def main() -> None:
    """Draw what is missing, and remove pictures of diagrams that are no more."""
    wanted = diagrams()
    for old in set((pages.DOCS / "images/diagrams").glob("*.svg")) - set(wanted):
        old.unlink()
    missing = {path: text for path, text in wanted.items() if not path.is_file()}
    if missing:
        with sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS).new_page()
            page.add_script_tag(content=mermaid())
            for path, diagram in missing.items():
                path.parent.mkdir(exist_ok=True)
                path.write_text(drawn(page, diagram))
                print(f"docs/{path.relative_to(pages.DOCS)}")


if __name__ == "__main__":
    main()
