"""Writes docs/variables.md from the roles' argument specs and defaults; `make handbook` runs it.

A test compares the page with what this would write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from berth.stack import needs

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/variables.md"
HEAD = """# Variables

Every variable that Berth knows. How to set and check them: [variables](operations/variables.md). `make handbook` writes
this page from the roles' argument specifications and defaults. The reason for a default stands above it in the file
that its section links. A default in braces is computed; behind *else* is what counts where nothing is set.
"""
# The longest default that a table shows.
LONGEST = 38
Options = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Role:
    """What a role declares."""

    name: str
    about: str
    options: Options
    defaults: Mapping[str, Any]


def read(path: Path) -> Any:
    """Return what a YAML file says; empty for none."""
    return yaml.safe_load(path.read_text()) if path.is_file() else {}


def roles() -> list[Role]:
    """Return the roles, in alphabetical order."""
    found = []
    for folder in sorted((ROOT / "roles").iterdir()):
        spec = read(folder / "meta/argument_specs.yml")["argument_specs"]["main"]
        defaults = read(folder / "defaults/main.yml") or {}
        found.append(Role(folder.name, spec["short_description"], spec.get("options", {}), defaults))
    return found


def type_of(option: Mapping[str, Any]) -> str:
    """Return the type of an option, as an owner reads it."""
    kind = str(option.get("type", "str"))
    return f"{kind} of {option['elements']}" if "elements" in option else kind


def described(option: Mapping[str, Any]) -> str:
    """Return its description, its choices, and the keys of its dictionaries."""
    parts = [str(option["description"])]
    if "choices" in option:
        parts.append("One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + ".")
    if keys := option.get("options", {}):
        parts.append("Keys: " + "; ".join(_key(name, key) for name, key in keys.items()) + ".")
    return " ".join(parts)


def _key(name: str, option: Mapping[str, Any]) -> str:
    needed = ", required" if option.get("required") else ""
    return f"`{name}` ({type_of(option)}{needed}): {described(option).rstrip('.')}"


def default_of(value: Any) -> str:
    """Return a default as it would be written in YAML; a long one is left to its file."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    if isinstance(value, str) and "{{" in value:
        text = value.strip()
    if owners := re.fullmatch(r"\{\{ (\w+) \| default\(([^()]*)\) }}", text):
        return f"`{owners[1]}`, else `{owners[2]}`"
    return f"`{text}`" if len(text) <= LONGEST else "see its file"


def table(rows: Iterable[tuple[str, ...]], heads: tuple[str, ...]) -> str:
    """Return a table of Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text).replace("|", "\\|")


def of_role(role: Role) -> str:
    """Return a role's section."""
    folder = f"../roles/{role.name}"
    links = f"[README]({folder}/README.md), [defaults]({folder}/defaults/main.yml)"
    defaults = {name: default_of(value) for name, value in role.defaults.items()}
    rows = [
        (f"`{name}`", type_of(option), defaults.get(name, "none"), described(option))
        for name, option in role.options.items()
    ]
    head = f"## Role {role.name}\n\n{role.about}. {links}.\n"
    return f"{head}\n{table(rows, ('variable', 'type', 'default', 'description'))}" if rows else head


def without(name: str, known: list[Role]) -> str:
    """Return what roles take where a variable without a default is not set."""
    texts = "\n".join(str(value) for role in known for value in role.defaults.values())
    if found := re.search(rf"\b{name} \| default\(([^()]*)\)", texts):
        return f"`{found[1]}`"
    return ""


def of_owner(known: list[Role]) -> str:
    """Return the sections of ansible/variables.yml: settings, secrets, extra variables."""
    every = {name: option for role in known for name, option in role.options.items()}
    options = {
        name: {**every.get(option.get("like", ""), {}), **option}
        for name, option in read(ROOT / "ansible/variables.yml")["options"].items()
        if not option.keys() & {"renamed_to", "removed"}
    }
    settings = [name for name in options if name.startswith("berth_")]
    secrets = [name for name in options if name.startswith("vault_") and "playbooks" not in options[name]]
    extra = [name for name in options if name not in {*settings, *secrets}]
    heads = ("variable", "type", "if not set", "description")
    rows = {name: (f"`{name}`", type_of(one), without(name, known), described(one)) for name, one in options.items()}
    played = [(*rows[name][:2], ", ".join(options[name].get("playbooks", ["any"])), rows[name][3]) for name in extra]
    return f"""## Your settings

In `inventories/<env>/group_vars/all/main.yml`. Several roles read them; those of [role berth](#role-berth) as well.

{table((rows[name] for name in settings), heads)}
## Your secrets

In `vault.yml` beside it, encrypted.

{table((rows[name] for name in secrets), heads)}
## Secrets of the application

Those that `docker-compose.prod.yml` of the sample names; another application has [its own](extending.md#secrets).

{table(of_application(), ("variable", "kind", "read by"))}
## On the command line

Extra variables (`-e`).

{table(played, ("variable", "type", "playbooks", "description"))}"""


def of_application() -> list[tuple[str, str, str]]:
    """Return the secrets that the sample's compose file names."""
    found = needs.read(read(ROOT / needs.COMPOSE_FILE))
    return [(f"`vault_{name}`", found.kind(name), _reader(name, found)) for name in found.variables]


def _reader(name: str, found: needs.Needs) -> str:
    readers = [service for service, holder in sorted(found.holders.items()) if name in holder.secrets]
    return ", ".join(readers) or ("services, as public keys" if name not in found.names else "an account of a database")


def page() -> str:
    """Return the whole page."""
    known = roles()
    return "\n".join([HEAD, of_owner(known), *map(of_role, known)])


if __name__ == "__main__":
    PAGE.write_text(page())
