"""docs/security.md claims nothing that no test holds: each test it names is there."""

import re
from pathlib import Path

import pytest

DOC = Path(__file__).parent.parent / "docs" / "security.md"
# A link to a file, and the names after it up to the next link or the end of the cell: `a_function` or "a task".
NAMED = re.compile(r"\]\((?P<path>\.\./[^)]+\.(?:py|yml))\)(?P<names>(?: ?,? ?(?:`[^`]+`|\"[^\"]+\"))*)")
CLAIMS = [
    (found["path"], function or task)
    for found in NAMED.finditer(DOC.read_text())
    for function, task in re.findall(r"`([^`]+)`|\"([^\"]+)\"", found["names"])
]


def test_every_row_of_what_is_done_names_a_test() -> None:
    done = DOC.read_text().split("## Left out on purpose")[0].split("## The host")[1]
    rows = [line for line in done.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    assert rows
    assert [row for row in rows if not NAMED.search(row.rsplit("|", 2)[1])] == []


def test_nothing_in_quotes_escapes_this_check() -> None:
    mentioned = re.findall(r"`(test_\w+)`", DOC.read_text())
    assert set(mentioned) == {name for _, name in CLAIMS if name.startswith("test_")}


@pytest.mark.parametrize(("path", "name"), CLAIMS)
def test_a_named_test_exists(path: str, name: str) -> None:
    text = (DOC.parent / path).read_text()
    wanted = rf"def {name}\(" if name.startswith("test_") else rf"- name: {re.escape(name)}$"
    assert re.search(wanted, text, re.MULTILINE), f"{path} has no {name}"
