"""The commands that the documents tell their reader to type: what they are, where, and which test runs each.

A command stands in a console block behind a prompt that says where. tests/site/test_documents.py runs those of the
host, all of a page in one session; documents.txt lists those that it does not, with who runs it instead or a reason.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("operations.md", "security.md", "architecture.md", "extending.md")),
    ROOT / "docs" / "pipelines.md",
    *(
        page
        for folder in ("operations", "disasters", "runbooks", "evidence")
        for page in sorted((ROOT / "docs" / folder).glob("*.md"))
    ),
    *sorted((ROOT / "monitoring/runbooks").glob("*.md")),
]
# console: a server before its first run; rescue: the provider's rescue system; store: where backups are kept.
PROMPT = re.compile(r"(controller|host|console|rescue|store)([$#]) (.*)")
FENCE = re.compile(r" *```(\w*)$")
REMARK = re.compile(r"\s+# .*")
# Only what it does tells a later one from an earlier one.
ASSIGNMENT = re.compile(r"(\w+)=(\S*|\$\(.*\))$")


@dataclass(frozen=True)
class Command:
    page: str
    line: int
    where: str
    text: str


@functools.cache
def commands() -> list[Command]:
    """Return what stands behind the prompts of all pages, without the remarks behind it."""
    return [command for page in PAGES for command in commands_of(page)]


def commands_of(page: Path) -> list[Command]:
    found: list[Command] = []
    console = fenced = continued = False
    name = str(page.relative_to(ROOT))
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if fence := FENCE.match(line):
            fenced = not fenced
            console = fenced and fence[1] == "console"
            continued = False
        elif console and continued:
            last = found[-1]
            begun = last.text.removesuffix("\\").rstrip()
            found[-1] = Command(name, last.line, last.where, f"{begun} {line.strip()}")
            continued = line.endswith("\\")
        elif console:
            prompt = PROMPT.fullmatch(line.strip())
            assert prompt, f"{name}:{number} says not where it is typed (controller$ or host$): {line}"
            found.append(Command(name, number, prompt[1], REMARK.sub("", prompt[3]).strip()))
            continued = line.endswith("\\")
    return found


@functools.cache
def listed() -> dict[str, dict[str, str]]:
    """Return who runs what, or why nobody does: kind -> command -> test or reason."""
    kinds: dict[str, dict[str, str]] = {}
    command = ""
    for line in (ROOT / "tests/documents.txt").read_text().splitlines():
        if line.startswith("== "):
            kind = kinds.setdefault(line[3:].partition(":")[0], {})
        elif kinds and line.startswith("    "):
            kind[command] = line.strip()
        elif kinds and line:
            assert line not in kind, f"twice: {line}"
            command = line
    return kinds


def is_run_on_the_healthy_site(command: Command) -> bool:
    """Tell whether it is one of the host's, safe and quick."""
    return command.where == "host" and not any(command.text in those for those in listed().values())


def heads(shell: str) -> set[str]:
    """Return the programs that a command calls, those within $(…), pipes and sh -c '…' too."""
    text = shell
    found: set[str] = set()
    for inner in re.findall(r"\$\(([^()]*(?:\([^()]*\)[^()]*)*)\)", text):
        found |= heads(inner)
    for inner in re.findall(r"\bsh -c '([^']*)'", text):
        found |= heads(inner)
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "''", text)
    while "$(" in text:
        shorter = re.sub(r"\$\([^()]*\)", "X", text)
        if shorter == text:
            break
        text = shorter
    for part in re.split(r"\|\|?|&&|;", text):
        words = part.split()
        while words and (words[0] == "sudo" or re.match(r"\w+=", words[0])):
            words.pop(0)
        if words:
            found.add(words[0])
    return found


def count() -> str:
    """Say how many there are, and who runs how many."""
    different = {command.text: command for command in commands()}
    rows = [("on the healthy site", sum(map(is_run_on_the_healthy_site, different.values())))]
    rows += [(kind, len(those)) for kind, those in listed().items()]
    rows += [("in the README's own tests", len(different) - sum(number for _, number in rows))]
    lines = "".join(f"{number:5} {kind}\n" for kind, number in rows)
    return f"{len(commands())} commands on {len(PAGES)} pages, {len(different)} of them different:\n{lines}"


if __name__ == "__main__":
    print(count(), end="")
