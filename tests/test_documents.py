"""What the documents tell their reader to type can be typed, and what they link to is there."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from berth.__main__ import COMMANDS
from berth.backup.command import arguments
from berth.logs import show
from berth.once import command as once
from berth.release.command import arguments_of
from tests.documents import ASSIGNMENT, PAGES, Command, commands, heads, is_run_on_the_healthy_site, listed
from tests.readme.commands import FAST
from tests.readme.commands import LONG as README_LONG
from tests.support import ROOT

EDGE = "roles/traefik/files/docker-compose.edge.yml"
SPECS = [
    ROOT / "ansible/variables.yml",
    *ROOT.glob("roles/*/meta/argument_specs.yml"),
]
# Inside the databases' containers.
IN_A_CONTAINER = {"mongosh", "redis-cli", "redis-check-aof"}
# What a provisioned host has, by who brings it: Debian, and the roles (chrony: not in a container).
DEBIAN = {
    *{"apt-get", "awk", "cat", "cd", "cp", "cut", "date", "df", "dmesg", "du", "echo", "findmnt", "free", "getent"},
    *{"grep", "head", "journalctl", "ls", "openssl", "ps", "sed", "sh", "sort", "systemctl", "tail", "top", "vmstat"},
}
ROLES = {
    "berth",
    "chronyc",
    "curl",
    "docker",
    "dockerd",
    "fail2ban-client",
    "jq",
}
ON_A_HOST = DEBIAN | ROLES | IN_A_CONTAINER
ON_A_CONTROLLER = {
    *{"$EDITOR", "ansible", "ansible-doc", "ansible-galaxy", "ansible-playbook", "ansible-vault", "cat", "cd", "chmod"},
    *{"curl", "docker", "export", "git", "pytest"},
    *{".venv/bin/python", "make", "molecule", "openssl", "python3", "source", "ssh", "ssh-keygen", "ssh-keyscan"},
}
# A fresh server, a rescue system, the server that keeps backups.
ELSEWHERE = {"apt-get", "echo", "lsblk", "mount", "restic", "ssh-keygen", "umount"}
# What cannot be undone takes earlier releases, stopped containers, data or evidence with it.
FORBIDDEN = [
    r"image prune.*(--all|-a\b)",
    r"system prune",
    r"container prune",
    r"volume (rm|prune)",
    r"network prune",
    r"\bdown\b.*(-v\b|--volumes)",
    r"docker rm\b",
    r"\brm -\w*r",
    r"\bmkfs|\bdd ",
    r"dropDatabase|FLUSHALL|FLUSHDB",
    r"reset --hard|clean -f",
    r"vacuum-(time|files)",
    r"\|\| true",
]
# Inline code that names a command and is not to be typed.
MENTIONED = {
    "berth run",
    "berth console",
    "make molecule ROLE=<role>",
    "docker compose up -d",
    "docker image prune --all",
    "docker system prune",
    "docker volume prune",
    "sudo apt",
    "source .venv/bin/activate",
    "make test-vm SCAN=1",
    "make test-fast integration",
    "git checkout v0.2.0",
    "git tag -s v0.3.0",
    "pytest -q berth/tests/test_releases.py",
    "pytest -q tests/test_documents.py",
    "pytest -q tests/test_papers.py",
    "pytest -m integration tests/monitoring",
}


def each(where: str | None = None) -> list[object]:
    """Return the commands, or those typed at one place, as parameters of a test."""
    chosen = {command.text: command for command in commands() if where in (None, command.where)}
    return [pytest.param(one, id=f"{Path(one.page).stem}-{one.line}") for one in chosen.values()]


def session(page: str) -> str:
    return "\n".join(command.text for command in commands() if command.page == page)


def test_there_are_commands_on_most_pages() -> None:
    assert len(commands()) > 200
    assert {command.where for command in commands()} >= {"controller", "host"}


@pytest.mark.parametrize("command", each())
def test_it_is_a_command_of_programs_that_are_there(command: Command) -> None:
    parsed = subprocess.run(["bash", "-n"], input=command.text, capture_output=True, text=True, check=False)
    assert parsed.stderr == ""
    there = {"host": ON_A_HOST, "controller": ON_A_CONTROLLER}.get(command.where, ELSEWHERE)
    assert heads(command.text) - there == set()
    # "<name>" would be read from a file of that name.
    assert not re.search(r"<\w", re.sub(r"'[^']*'", "", command.text))
    if "docker exec" not in command.text and "docker run" not in command.text:
        assert not heads(command.text) & IN_A_CONTAINER
    for pattern in FORBIDDEN:
        assert not re.search(pattern, command.text), f"{pattern} takes away what a rollback needs"


@pytest.mark.parametrize("command", each("host"))
def test_its_variables_are_set_before_it(command: Command) -> None:
    outside_quotes = re.sub(r"'[^']*'", "", command.text)
    before = session(command.page).split(command.text)[0]
    for name in re.findall(r"\$\{?([a-z]\w*)", outside_quotes):
        assert re.search(rf"^{name}=", before, re.MULTILINE), f"{name} is set by no command before it"


@functools.cache
def containers(compose: str) -> set[str]:
    """Return the services of a compose file, which may be a template."""
    return set(re.findall(r"^  (\w+):", (ROOT / compose).read_text(), re.MULTILINE))


@functools.cache
def roles() -> str:
    """Return the names and texts of the roles' files."""
    files = [
        path
        for path in ROOT.glob("roles/*/*/**/*")
        if path.suffix in {".yml", ".py", ".j2", ".service", ".timer", ".target"}
    ]
    return "\n".join(f"{path}\n{path.read_text()}" for path in files)


@functools.cache
def options() -> dict[str, dict[str, object]]:
    """Return every variable that Berth knows."""
    found: dict[str, dict[str, object]] = {}
    for path in SPECS:
        text = yaml.safe_load(path.read_text())
        found |= text.get("options", {})
        for entry in text.get("argument_specs", {}).values():
            found |= entry.get("options", {})
    return found


@pytest.mark.parametrize("command", each("controller"))
def test_its_playbook_is_there_and_takes_its_variables(command: Command) -> None:
    words = shlex.split(command.text, comments=True)
    if words[0] != "ansible-playbook":
        return
    playbook = next(word for word in words if word.endswith(".yml"))
    assert (ROOT / playbook).is_file()
    given = [words[number + 1] for number, word in enumerate(words) if word == "-e"]
    for name in (re.match(r"[\w]+", word.removeprefix('{"')) for word in given):
        assert name
        if name[0].startswith("ansible_"):
            continue
        option = options()[name[0]]
        assert Path(playbook).stem in option.get("playbooks", [Path(playbook).stem]), name[0]  # type: ignore[operator]
    for tag in [words[number + 1] for number, word in enumerate(words) if word == "--tags"]:
        assert f"tags: {tag}\n" in (ROOT / "ansible/provision.yml").read_text()


@pytest.mark.parametrize("command", each("host"))
def test_its_verb_and_options_are_those_of_our_programs(command: Command) -> None:
    for text in re.findall(r"(?:sudo |^|\()berth ([a-z].*)", command.text):
        words = shlex.split(text.split("|")[0].split(">")[0])
        module, own = COMMANDS[words[0]]
        words = words if own else words[1:]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                if module == "berth.backup.command":
                    arguments().parse_args(words)
                elif module == "berth.release.command":
                    arguments_of(words)
                elif module == "berth.once.command":
                    once.arguments_of(words)
                elif module == "berth.logs.show":
                    show.arguments_of(words)
            except SystemExit:
                pytest.fail(f"berth does not know {text}: {said.getvalue()}")


@pytest.mark.parametrize("command", each("host"))
def test_what_it_names_is_in_the_roles(command: Command) -> None:
    services = containers("docker-compose.prod.yml") | containers(EDGE)
    watching = containers("roles/monitoring/templates/compose.yml.j2")
    names = set(re.findall(r"\bberth-[\w$-]+-(?:1|\$\w+)\b", re.sub(r"\$\(.*?\)", "$edge", command.text)))
    for name in names:
        found = re.fullmatch(r"berth-((?:blue|green|monitoring)-)?([\w$]+)-1", name)
        assert found, name
        known = watching if found[1] == "monitoring-" else services
        assert "$" in found[2] or found[2] in known, name
    for service in re.findall(r"compose\.service=(\w+)", command.text):
        assert service in services
    for unit in re.findall(r"(?:-u |systemctl [\w= -]*?|list-timers ')(berth-[a-z-]+)", command.text):
        assert re.search(rf"(^|/){unit}[@.]|^ *{unit}:|--unit={unit}\b|{unit}\.service", roles(), re.MULTILINE), unit


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_command_hides_in_a_table_or_a_sentence(page: Path) -> None:
    """`|` in a table is written `\\|`, and copied so; what stands in a sentence is run by no test."""
    prose = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
    programs = (ON_A_HOST | ON_A_CONTROLLER) - {"cat", "date", "docker"}
    hidden = [
        code
        for code in re.findall(r"`([^`\n]+)`", prose)
        if re.match(rf"(sudo |[A-Z_]+=\S+ )*({'|'.join(map(re.escape, programs))}|docker \w+) ", code)
        and code not in MENTIONED
    ]
    # A word of the Makefile stands for itself: `make help` lists them.
    assert [code for code in hidden if not re.fullmatch(r"make [\w-]+", code)] == []


@functools.cache
def tracked() -> list[Path]:
    """Return the files of the project, those that git does not know yet included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in (ROOT / name for name in sorted(set(listed.splitlines()))) if path.is_file()]


def markdown() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


@functools.cache
def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and Forgejo make them."""
    prose = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[tuple[str, str]]:
    """Return the relative links of a page: path (empty: the page itself) and anchor."""
    prose = re.sub(r"(?ms)^ *```.*?^ *```$|``[^`]+``|`[^`\n]*`", "", page.read_text())
    return re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", prose)


@pytest.mark.parametrize("page", markdown(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_a_page_and_a_heading_that_are_there(page: Path) -> None:
    for path, anchor in links(page):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in slugs(target), f"{path}#{anchor}"


def test_a_document_that_a_message_or_a_comment_names_is_there() -> None:
    """In code, playbooks and templates; a decision may be named by its number, without the rest of its name."""
    suffixes = {".py", ".yml", ".yaml", ".j2", ".js", ".ts", ".tsx", ".sh", ".txt", ".toml", ".cfg", ".example", ""}
    wrong = []
    for path in (path for path in tracked() if path.suffix in suffixes):
        for name in re.findall(r"(?<![\w/.-])docs/[\w./-]*[\w]", path.read_text(errors="replace")):
            by_number = re.fullmatch(r"docs/decisions/\d{4}", name) and list(ROOT.glob(f"{name}-*.md"))
            if not (ROOT / name).exists() and not by_number:
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert wrong == []


def test_every_document_is_linked_from_another() -> None:
    linked = {(page.parent / path).resolve() for page in markdown() for path, _ in links(page) if path}
    # A link to a folder shows the pages in it.
    assert [
        str(page.relative_to(ROOT)) for page in markdown() if not {page, page.parent} & linked and page.parent != ROOT
    ] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs/operations").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_of_a_verb_begins_with_its_table_of_contents(page: Path) -> None:
    text = page.read_text()
    contents = re.findall(r"\[([^]]+)\]\(#[\w-]+\)", re.findall(r"^Contents: .*$", text, re.MULTILINE)[0])
    assert contents == re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert text.index("Contents: ") < text.index("\n## ")


def test_the_first_page_of_an_operator_has_the_four_commands_and_leads_to_every_other() -> None:
    page = ROOT / "docs/operations.md"
    first = page.read_text().split("## Disasters")[0]
    assert [shlex.split(command)[1] for command in re.findall(r"^controller\$ (.*)$", first, re.MULTILINE)] == [
        f"ansible/{name}.yml" for name in ("status", "rollback", "maintenance", "restore")
    ]
    linked = {(page.parent / path).resolve() for path, _ in links(page)}
    assert set((ROOT / "docs/operations").glob("*.md")) | set((ROOT / "docs/disasters").glob("*.md")) <= linked


def test_the_drawing_names_what_stays_every_network_and_only_services_that_there_are() -> None:
    drawing = re.findall(r"(?ms)^```mermaid$(.*?)^```$", (ROOT / "docs/architecture.md").read_text())[0]
    profiles: dict[str, str] = {}
    names: set[str] = set()
    for file in ("docker-compose.prod.yml", EDGE):
        production = yaml.safe_load((ROOT / file).read_text())
        profiles |= {name: service["profiles"][0] for name, service in production["services"].items()}
        names |= {network["name"] for network in production["networks"].values()}
    names |= {name for name, profile in profiles.items() if profile == "platform"}
    assert [name for name in sorted(names) if name not in drawing] == []
    # An application that has been given more services need not draw them.
    drawn = re.search(r"(?ms)^ *subgraph release\[.*?$(.*?)^ *end$", drawing)
    assert drawn
    assert drawn[1].split()
    assert [name for name in drawn[1].split() if profiles.get(name) != "release"] == []


def test_every_command_is_run_or_says_why_not() -> None:
    """Those of the host by the site's test, unless listed; those of the controller are listed, or the README's."""
    known = {text for those in listed().values() for text in those} | FAST | README_LONG
    forgotten = [
        command
        for command in commands()
        if not is_run_on_the_healthy_site(command) and command.text not in known and not ASSIGNMENT.match(command.text)
    ]
    assert forgotten == []


def test_the_list_names_nothing_twice_and_nothing_that_is_not_documented() -> None:
    texts = [text for those in listed().values() for text in those]
    assert sorted(texts) == sorted(set(texts))
    assert set(texts) | FAST | README_LONG <= {command.text for command in commands()}
    assert not set(texts) & (FAST | README_LONG)
    for text, test in listed()["elsewhere"].items():
        path, _, function = test.partition("::")
        assert (ROOT / path).is_file(), text
        assert not function or f"def {function}(" in (ROOT / path).read_text(), text


def test_no_message_advises_what_a_rollback_cannot_undo() -> None:
    files = [
        path
        for folder in ("roles", "ansible")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yml", ".j2"}
    ]
    found = [
        path for path in files if re.search(r"(image|volume|system) prune (-a|--all)|system prune", path.read_text())
    ]
    assert found == []
