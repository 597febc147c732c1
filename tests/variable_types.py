"""Which variables hold numbers and booleans, and where an expression would take the text of one for its value.

`-e name=900` is text, and an inventory may hold "900" as well. Text compares, adds and negates unlike the number it
spells, so each use casts (`| int`, `| float`, `| bool`). A name that merely passes a variable on (`_x: "{{ base_y }}"`)
counts as one with its type.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2 import nodes

from tests.support import ROOT

YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TYPES = {"int": "number", "float": "number", "bool": "boolean"}
CASTS = {"int", "float", "bool"}
# What they return is made of what they are given, uncast.
PASSING = {
    "combine",
    "d",
    "default",
    "difference",
    "first",
    "flatten",
    "intersect",
    "last",
    "list",
    "reject",
    "rejectattr",
}
PASSING |= {"reverse", "select", "selectattr", "sort", "union", "unique"}
# A number becomes the same text, whether it was text before or not. A boolean does not: True, true, yes.
TEXT = {"hash", "join", "quote", "regex_replace", "regex_search", "string", "trim"}
# What writes a type down, or what looks like it.
WRITING = {"hash", "string", "to_json", "to_nice_json", "to_nice_yaml", "to_yaml"}
# Passed on whole though keys within are typed, and why that does no harm.
HARMLESS = {
    "berth_admins": "provision.yml looks for < in it; base_admins is the same to the role that makes them",
    "monitoring_scrapes": "berth-metrics writes the port into an address, as text",
}
CONDITIONS = {"when", "that", "until", "failed_when", "changed_when", "break_when"}
# Where a mapping's keys name variables.
VARIABLES = {"vars", "set_fact", "ansible.builtin.set_fact"}


@dataclass
class Declared:
    """What is known of variables: their kind, and that of keys in the structures among them."""

    # name -> number or boolean
    names: dict[str, str] = field(default_factory=dict)
    # A list or dict that holds some -> their kind, or "records" for one of dicts whose keys are typed.
    structures: dict[str, str] = field(default_factory=dict)
    # role -> key -> kind, of such as {port: 587, internal: true}
    keys: dict[str, dict[str, str]] = field(default_factory=dict)

    def keys_of(self, role: str) -> dict[str, str]:
        """Return the typed keys that a role may speak of: its own; outside of roles, all."""
        return self.keys[role] if role else {key: kind for keys in self.keys.values() for key, kind in keys.items()}


def read_yaml(path: Path) -> Any:
    """Return what a YAML file says, in a tenth of the time that yaml.safe_load takes."""
    return yaml.load(path.read_text(), YAML)  # noqa: S506  # a safe loader


@cache
def declared() -> Declared:
    """Read the argument specs of all roles, and what is declared beside them."""
    specs = {
        role.name: read_yaml(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
        for role in sorted((ROOT / "roles").iterdir())
    }
    specs[""] = read_yaml(ROOT / "ansible/variables.yml")["options"]
    every = {name: option for options in specs.values() for name, option in options.items()}
    found = Declared()
    for role, options in specs.items():
        found.keys[role] = {}
        for name, option in options.items():
            told = every[option["like"]] if "like" in option else option
            keys = _typed_keys(told.get("options", {}))
            found.keys[role] |= keys
            if told.get("type") in TYPES:
                found.names[name] = TYPES[told["type"]]
            elif told.get("elements") in TYPES:
                found.structures[name] = TYPES[told["elements"]]
            elif keys and name not in HARMLESS:
                found.structures[name] = "records"
    return found


def _typed_keys(options: dict[str, Any]) -> dict[str, str]:
    keys = {name: TYPES[option["type"]] for name, option in options.items() if option.get("type") in TYPES}
    for option in options.values():
        keys |= _typed_keys(option.get("options", {}))
    return keys


def parse(text: str) -> nodes.Template:
    """Return a template's syntax tree."""
    with warnings.catch_warnings():
        # Ansible takes "\\s" in a text for what it says.
        warnings.simplefilter("ignore", DeprecationWarning)
        return jinja2.Environment().parse(text)  # noqa: S701  # nothing is rendered


@dataclass(frozen=True)
class Source:
    """One text that Ansible templates."""

    path: Path
    line: int
    text: str
    # A condition without braces.
    bare: bool = False
    # The variable that it is the whole value of.
    defines: str = ""
    # What it stands behind, in YAML.
    key: str = ""

    @property
    def role(self) -> str:
        """Return the name of the role that it is part of, or nothing."""
        return self.path.relative_to(ROOT).parts[1] if self.path.is_relative_to(ROOT / "roles") else ""

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @cached_property
    def tree(self) -> nodes.Template:
        """Return its syntax tree."""
        return parse(f"{{{{ {self.text} }}}}" if self.bare else self.text)

    @property
    def value(self) -> nodes.Expr | None:
        """Return the expression, where the text is nothing else, so that its type is kept."""
        body = self.tree.body
        if len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1:
            only = body[0].nodes[0]
            return None if isinstance(only, nodes.TemplateData) else only
        return None


def _of_yaml(
    path: Path, node: yaml.Node | None, names_variables: bool, key: str = "", defines: str = ""
) -> Iterator[Source]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _of_yaml(path, value, name.value in VARIABLES, name.value, name.value if names_variables else "")
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _of_yaml(path, value, False, key)
    elif isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        bare = key in CONDITIONS
        if bare or "{{" in node.value or "{%" in node.value:
            yield Source(path, node.start_mark.line + 1, node.value.strip(), bare, defines, key)


@cache
def sources() -> tuple[Source, ...]:
    """Return all that Ansible templates in playbooks, roles and inventories."""
    return tuple(_sources())


def _sources() -> Iterator[Source]:
    for path in sorted([ROOT / "site.yml", *ROOT.glob("ansible/**/*.yml"), *ROOT.glob("inventories/**/*.yml")]):
        if path.name != "vault.yml" and not path.is_symlink():
            yield from _of_yaml(path, yaml.compose(path.read_text(), YAML), "group_vars" in path.parts)
    for role in sorted((ROOT / "roles").iterdir()):
        for part in ("defaults", "handlers", "meta", "tasks", "vars"):
            for path in sorted((role / part).rglob("*.yml")):
                yield from _of_yaml(path, yaml.compose(path.read_text(), YAML), part in ("defaults", "vars"))
        for path in sorted((role / "templates").rglob("*")):
            if path.is_file():
                yield Source(path, 1, path.read_text())


class Reader:
    """Finds uncast uses in what one role says."""

    def __init__(self, known: Declared, role: str) -> None:
        self.known = known
        self.keys = known.keys_of(role)

    def scalar(self, node: nodes.Node) -> dict[str, str]:
        """Return the typed variables that the expression may be, uncast, with their kinds."""
        match node:
            case nodes.Name() if node.name in self.known.names:
                return {node.name: self.known.names[node.name]}
            case nodes.Getattr(node=nodes.Name(name=name)) if name.startswith("_"):
                # What a role keeps to itself is no record of an owner's.
                return {}
            case nodes.Getattr() if node.attr in self.keys:
                return {f".{node.attr}": self.keys[node.attr]}
            case nodes.Getitem(arg=nodes.Const(value=str() as key)) if key in self.keys:
                return {f".{key}": self.keys[key]}
            case nodes.Filter(name="first" | "last", node=nodes.Node() as inner):
                return {name: kind for name, kind in self.inside(inner).items() if kind != "records"}
            case nodes.Filter(name="default" | "d", node=nodes.Node() as inner):
                return self._each([inner, *node.args], self.scalar)
            case nodes.CondExpr():
                return self._each([node.expr1, node.expr2 or nodes.Const(None)], self.scalar)
        return {}

    def inside(self, node: nodes.Node) -> dict[str, str]:
        """Return the typed variables that a list or dict may hold, uncast."""
        match node:
            case nodes.Name() if node.name in self.known.structures:
                return {node.name: self.known.structures[node.name]}
            case nodes.List() | nodes.Tuple() | nodes.Dict():
                values = [item.value if isinstance(item, nodes.Pair) else item for item in node.items]
                return self._each(values, self.scalar) | self._each(values, self.inside)
            case nodes.Filter(name="map", args=[nodes.Const(value=name)]) if name in CASTS:
                return {}
            case nodes.Filter(name="map", kwargs=[nodes.Keyword(key="attribute")]):
                attribute = _constant([node.kwargs[0].value])
                return {f".{attribute}": self.keys[attribute]} if attribute in self.keys else {}
            case nodes.Filter(name=name, node=nodes.Node() as inner) if name in PASSING:
                return self._each([inner, *node.args], self.inside)
            case nodes.Add():
                return self.inside(node.left) | self.inside(node.right)
            case nodes.CondExpr():
                return self._each([node.expr1, node.expr2 or nodes.Const(None)], self.inside)
        return {}

    def any(self, node: nodes.Node, records: bool = False) -> dict[str, str]:
        """Return what the expression may be or hold; lists of records only where they are asked for."""
        inside = {name: kind for name, kind in self.inside(node).items() if records or kind != "records"}
        return self.scalar(node) | inside

    @staticmethod
    def _each(found: list[nodes.Expr], read: Any) -> dict[str, str]:
        return {name: kind for node in found for name, kind in read(node).items()}

    def uncast(self, node: nodes.Node) -> Iterator[str]:
        """Yield the uses within that text would change, as name and what is done with it."""
        yield from (f"{name} {use}" for name, use in self._uses(node))
        for child in node.iter_child_nodes():
            yield from self.uncast(child)

    def _uses(self, node: nodes.Node) -> Iterator[tuple[str, str]]:
        match node:
            case nodes.Compare():
                for part in (node.expr, *(operand.expr for operand in node.ops)):
                    yield from ((name, "is compared") for name in self.any(part))
            case nodes.And() | nodes.Or():
                yield from ((name, "is tested") for part in (node.left, node.right) for name in self.scalar(part))
            case nodes.Concat():
                yield from ((name, "becomes text") for part in node.nodes for name in self._booleans(part))
            case nodes.BinExpr():
                yield from (
                    (name, "is calculated with") for part in (node.left, node.right) for name in self.scalar(part)
                )
            case nodes.Not():
                yield from ((name, "is tested") for name in self.scalar(node.node))
            case nodes.UnaryExpr():
                yield from ((name, "is calculated with") for name in self.scalar(node.node))
            case nodes.CondExpr() | nodes.If():
                yield from ((name, "is tested") for name in self.scalar(node.test))
            case nodes.For():
                yield from ((name, "is tested") for name in (self.scalar(node.test) if node.test else ()))
                yield from ((name, "is gone through") for name in self.any(node.iter))
            case nodes.Assign():
                yield from ((name, "is set") for name in self.any(node.node))
            case nodes.Test() if node.name not in ("defined", "undefined"):
                yield from ((name, "is tested") for name in self.any(node.node))
            case nodes.Call():
                parts = [*node.args, *(keyword.value for keyword in node.kwargs)]
                yield from ((name, "is an argument") for part in parts for name in self.any(part))
            case nodes.Getitem():
                yield from ((name, "is an index") for name in self.scalar(node.arg))
            case nodes.Slice():
                parts = [part for part in (node.start, node.stop, node.step) if part]
                yield from ((name, "is an index") for part in parts for name in self.scalar(part))
            case nodes.Filter():
                yield from self._filtered(node)
            case nodes.Output():
                yield from ((name, "becomes text") for part in node.nodes for name in self._booleans(part))

    def _booleans(self, node: nodes.Node) -> list[str]:
        return [name for name, kind in self.scalar(node).items() if kind == "boolean"]

    def _filtered(self, node: nodes.Filter) -> Iterator[tuple[str, str]]:
        if node.name in ("selectattr", "rejectattr") and len(node.args) == 1 and _constant(node.args) in self.keys:
            yield f".{_constant(node.args)}", "is tested"
        # default(..., true) replaces what is false.
        if node.name in ("d", "default") and len(node.args) > 1 and node.node:
            yield from ((name, "is tested") for name in self.scalar(node.node))
        if node.name in CASTS | PASSING or (node.name == "map" and _constant(node.args[:1]) in CASTS):
            return
        parts = [*([node.node] if node.node else []), *node.args, *(keyword.value for keyword in node.kwargs)]
        for part in parts:
            for name, kind in self.any(part, records=node.name in WRITING).items():
                if node.name not in TEXT or kind != "number":
                    yield name, f"goes through {node.name}"


def _constant(arguments: list[nodes.Expr]) -> Any:
    return arguments[0].value if arguments and isinstance(arguments[0], nodes.Const) else ""


@cache
def known_types() -> Declared:
    """Return what is declared, and the variables whose whole value passes such a one on."""
    known, found = deepcopy(declared()), sources()
    while True:
        before = len(known.names) + len(known.structures)
        for source in found:
            value = source.value if source.defines else None
            if value is None:
                continue
            reader = Reader(known, source.role)
            for kinds, of in ((reader.scalar(value), known.names), (reader.inside(value), known.structures)):
                for kind in kinds.values():
                    of.setdefault(source.defines, kind)
        if len(known.names) + len(known.structures) == before:
            return known


def uncast() -> list[str]:
    """Say, one line each, where a number or boolean is used as if it could not be text."""
    known, said = known_types(), []
    for source in sources():
        reader, tree = Reader(known, source.role), source.tree
        value = source.value
        body = [value] if value is not None else tree.body
        uses = {use for part in body for use in reader.uncast(part)}
        if value is not None and source.bare:
            uses |= {f"{name} is tested" for name in reader.scalar(value)}
        elif value is not None and not source.defines:
            uses |= {f"{name} is passed on" for name in reader.any(value, records=source.key != "loop")}
        said += [f"{source}: {use}" for use in sorted(uses)]
    return said
