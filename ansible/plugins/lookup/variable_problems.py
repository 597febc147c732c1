"""Check names and types of the variables in inventory and command line.

Declared variables are the options of the roles (roles/*/meta/argument_specs.yml) and those in ansible/variables.yml.
Ansible's own check converts silently ("a,b" becomes a list, a mapping text), so types are compared here.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible.context as ansible_context
import yaml
from ansible.errors import AnsibleUndefinedVariable
from ansible.parsing.splitter import parse_kv
from ansible.utils.vars import load_extra_vars

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ansible.plugins.lookup import LookupBase  # type: ignore[attr-defined]  # not the folder here
from berth.host.refused import Refused  # found at the root
from berth.stack import databases
from berth.stack import needs as stack_needs

ROOT = Path(__file__).resolve().parents[3]

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # another ansible-core: messages then have no file and line
    Origin = None

DOCUMENTATION = """
name: variable_problems
short_description: Return a sentence for each problem of the current host's variables
description: Takes no terms. Finds unknown names with one of our prefixes, and values of another type than declared.
options: {}
"""

# Besides the roles' prefixes: a name with one of these is one of ours, or a mistake.
PREFIXES = ("berth_", "maintenance_", "release_", "restore_")
SECRET = re.compile(r"^vault_|passw|secret|token|key|credential|headers|_uri$|webhook|deadman|ping_url", re.IGNORECASE)
# Known only inside a role or after gathering facts.
KNOWN_LATER = re.compile(r"^(ansible_\w+|hostvars|role_path|role_name)$")
# Added by Ansible itself or by ansible/preflight.yml.
NOT_OURS = re.compile(
    r"^(_|ansible_|mitogen_|preflight_|inventory_|role_|playbook_dir$|play_hosts$|group_names$|groups$|hostvars$|omit$|vars$|environment$)"
)
WORD = re.compile(r"[A-Za-z_]\w*")
DECRYPTION = re.compile("decryption failed|no vault secrets", re.IGNORECASE)
UNDEFINED = re.compile(r"'([A-Za-z_]\w*)' is undefined")
# The texts that the filter `bool` knows; it takes any other text, even "y", for false.
TRUTH = {"yes", "no", "true", "false", "on", "off", "1", "0"}
MEANT = {
    "str": "text",
    "path": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
}
NONE = {"str": '""', "path": '""', "list": "[]", "dict": "{}"}

Spec = Mapping[str, Any]


@functools.cache
def declared(app: Path = ROOT) -> dict[str, Spec]:
    """Return name -> spec of every declared variable, as in an argument spec; `like` is resolved.

    Args:
        app: the application's folder; its compose file names secrets.

    Raises:
        Refused: there is no such file, or its labels are wrong.
    """
    found: dict[str, Spec] = {}
    for file in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        for entry in yaml.load(file.read_text(), yaml.CSafeLoader)["argument_specs"].values():
            found |= entry.get("options") or {}
    own = yaml.load((ROOT / "ansible/variables.yml").read_text(), yaml.CSafeLoader)["options"]
    for name, spec in own.items():
        found[name] = {**found[spec["like"]], **spec} if "like" in spec else spec
    for name in secrets(app):
        found.setdefault(f"vault_{name}", {"type": "str", "description": f"Secret {name} of the application."})
        # Until the compose file named them.
        found.setdefault(f"environment_{name}", {"renamed_to": f"vault_{name}"})
    return found


def secrets(app: Path) -> list[str]:
    """Return the secrets that the compose file names. Raises Refused where it is not valid."""
    try:
        text = (app / stack_needs.COMPOSE_FILE).read_text(encoding="utf-8")
        described = yaml.load(text, yaml.CSafeLoader)
        databases.read(described)
        return stack_needs.read(described).variables
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise Refused(f"{app} is no application (berth_app): {stack_needs.COMPOSE_FILE}: {error}") from None


@functools.cache
def prefixes() -> tuple[str, ...]:
    """Return the prefixes of our variables: the roles' names, and those for owners and operators."""
    return (*PREFIXES, *(f"{role.name}_" for role in sorted((ROOT / "roles").iterdir()) if role.is_dir()))


def distance(one: str, other: str) -> int:
    """Return the edit distance of two names: letters missing, added, replaced, or two swapped."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def near(name: str, names: Iterable[str]) -> str:
    """Return the name that this one is a typo of; empty for none."""
    if len(name) < 5:
        return ""
    allowed = 1 if len(name) < 9 else 2
    found = [(distance(name, one), one) for one in names if len(one) >= 5 and abs(len(one) - len(name)) <= allowed]
    return min(found)[1] if found and min(found)[0] <= allowed else ""


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return "Did you mean ...?" with the closest name; empty if none is close."""
    close = near(name, names) or next(iter(difflib.get_close_matches(name, list(names), 1, 0.75)), "")
    return f" Did you mean {close}?" if close else ""


def words(value: object) -> set[str]:
    """Return all words in the templates of a value, which include the names of other variables."""
    if isinstance(value, str):
        return set(WORD.findall(value)) if "{{" in value or "{%" in value else set()
    if isinstance(value, Mapping):
        return set().union(*map(words, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return set().union(*map(words, value))
    return set()


def reach(name: str, variables: Mapping[str, Any]) -> set[str]:
    """Return the variable and, recursively, all words in the templates of its value."""
    seen: set[str] = set()
    left = {name}
    while left:
        one = left.pop()
        seen.add(one)
        if one in variables:
            left |= words(variables[one]) - seen
    return seen


def given(value: object, secret: bool) -> str:
    """Describe a value; of a secret only its type."""
    if value is None:
        return "empty (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return "a number" if secret else f"the number {value}"
    if isinstance(value, str):
        return "text" if secret else f"the text {str(value)[:60]!r}"
    if isinstance(value, datetime.date):
        return "a date"
    return "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, Sequence) else "something else"


def is_kind(kind: str, value: object) -> bool:
    """Return whether a value has a type, without conversion; numbers and booleans may be text (-e name=value)."""
    text = str(value).strip().lower() if isinstance(value, str) else None
    match kind:
        case "str" | "path":
            return text is not None
        case "int":
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole or bool(re.fullmatch(r"[+-]?\d+", text or ""))
        case "float":
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                return False
            try:
                return math.isfinite(float(value))
            except ValueError:
                return False
        case "bool":
            return isinstance(value, bool) or str(value).lower() in TRUTH
        case "list":
            return isinstance(value, Sequence) and not isinstance(value, str | bytes)
        case "dict":
            return isinstance(value, Mapping)
        case _:
            return True


def hint(kind: str, value: object, path: str, typed: bool) -> str:
    """Return how to write a value of this type."""
    if value is None:
        return f"Write {NONE[kind]} for none." if kind in NONE else "Give it a value, or remove the line."
    if kind in ("str", "path") and isinstance(value, bool | int | float | datetime.date):
        return "Put it in quotes: otherwise YAML reads it as another type."
    if kind == "list" and isinstance(value, str):
        if not value:
            return "Write [] for none."
        return (
            f"""Write -e '{{"{path}": ["...", "..."]}}'."""
            if typed
            else 'Write ["...", "..."], or one item a line after a dash.'
        )
    if kind == "dict" and isinstance(value, str):
        return f"""Write -e '{{"{path}": {{"...": "..."}}}}'.""" if typed else "Write one key: value a line."
    return "Write true or false." if kind == "bool" else ""


def kind_problems(path: str, spec: Spec, value: object, typed: bool = False, secret: bool = False) -> list[str]:
    """Compare a value with its spec.

    Args:
        path: Name of the variable, with the path of a part of it.
        spec: Its argument spec.
        value: The value, without templates.
        typed: Whether it comes from the command line.
        secret: Whether values must not be shown, even if the name is not that of a secret.

    Returns:
        A sentence for each difference.
    """
    kind = spec.get("type", "str")
    secret = secret or bool(SECRET.search(path)) or bool(spec.get("no_log"))
    if not is_kind(kind, value):
        told = f"{path} is {given(value, secret)}, but must be {MEANT[kind]}. {hint(kind, value, path, typed)}"
        return [told.rstrip()]
    if (choices := spec.get("choices")) and str(value) not in map(str, choices):
        return [f"{path} is {given(value, secret)}, but must be one of: {', '.join(map(str, choices))}."]
    if isinstance(value, str):
        return []
    if isinstance(value, Sequence) and "elements" in spec:
        element = {**spec, "type": spec["elements"], "elements": None, "choices": None}
        element = {key: said for key, said in element.items() if said is not None}
        return [
            problem
            for place, one in enumerate(value)
            for problem in kind_problems(f"{path}[{place}]", element, one, typed, secret)
        ]
    if isinstance(value, Mapping) and spec.get("options"):
        return _part_problems(path, spec["options"], value, typed, secret)
    return []


def _part_problems(
    path: str, options: Mapping[str, Spec], value: Mapping[Any, Any], typed: bool, secret: bool
) -> list[str]:
    problems = [
        f"{path} has an unknown key {key}.{suggestion(str(key), options)} Known keys: {', '.join(options)}."
        for key in value
        if key not in options
    ]
    problems += [
        f"{path} lacks {key}: {spec.get('description', '')}"
        for key, spec in options.items()
        if spec.get("required") and key not in value
    ]
    for key, spec in options.items():
        if key in value:
            problems += kind_problems(f"{path}.{key}", spec, value[key], typed, secret)
    return problems


@dataclass(frozen=True)
class Given:
    """The input of a run: the variables of a host, which of them come from -e, and for which playbooks."""

    variables: Mapping[str, Any]
    typed: frozenset[str] = frozenset()
    playbooks: tuple[str, ...] = ()
    own: frozenset[str] = frozenset()
    specs: Mapping[str, Spec] = field(default_factory=declared)

    def where(self, name: str) -> str:
        """Return a variable's name with its origin, if that is known."""
        if name in self.typed:
            return f"{name} (-e)"
        origin = Origin.get_tag(self.variables[name]) if Origin else None
        if origin is None or not origin.path:
            return name
        path = Path(origin.path)
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        return f"{name} ({shown}:{origin.line_num})" if origin.line_num else f"{name} ({shown})"

    def name_problems(self) -> list[str]:
        """Return a sentence for each name that is unknown, old, or for another playbook."""
        written = {name: value for name, value in self.variables.items() if not NOT_OURS.match(name)}
        used = set().union(*map(words, written.values()))
        problems = []
        if "_raw_params" in self.typed:
            problems.append(
                f"The command line (-e) has {given(self.variables.get('_raw_params'), False)} after a blank, which"
                " belongs to no variable. A value with a blank needs its own quotes: -e 'name=\"two words\"'."
            )
        for name in sorted(set(written) - self.own):
            if name in self.specs:
                problems += self._misplaced(name, self.specs[name])
            elif name.startswith(prefixes()):
                begin = next(one for one in prefixes() if name.startswith(one))
                problems.append(
                    f"{self.where(name)} is no variable of Berth.{suggestion(name, self.specs)} If it is your own,"
                    f" rename it so that it does not begin with {begin}, or list it in berth_own_variables."
                )
            # A name that another value reads is no typo.
            elif (name in self.typed or name not in used) and (close := near(name, self.specs)):
                problems.append(
                    f"{self.where(name)} is no variable of Berth. Did you mean {close}?"
                    " If it is one of your own, list it in berth_own_variables."
                )
        return problems

    def _misplaced(self, name: str, spec: Spec) -> list[str]:
        if "renamed_to" in spec:
            return [f"{self.where(name)} is now called {spec['renamed_to']}: rename it."]
        if "removed" in spec:
            return [f"{self.where(name)} is not used any more: {spec['removed']} Remove it."]
        if spec.get("typed") and name not in self.typed:
            return [f"{self.where(name)} belongs on the command line (-e), not in an inventory."]
        takers = spec.get("playbooks")
        if takers is None or name not in self.typed or not self.playbooks or set(self.playbooks) & set(takers):
            return []
        named = " and ".join(f"{one}.yml" for one in self.playbooks)
        return [f"{self.where(name)} is not read by {named}: it is for {', '.join(f'{one}.yml' for one in takers)}."]


def template_problem(error: BaseException, reached: set[str], specs: Mapping[str, Spec]) -> str:
    """Explain why a value cannot be evaluated, without showing a secret that it reads.

    Args:
        error: The error of templating.
        reached: All words that the value depends on.
        specs: The declared variables.

    Returns:
        The end of a sentence; empty if the value is known only inside a role or on the host.
    """
    said = str(error)
    missing = UNDEFINED.search(said)
    later = isinstance(error, AnsibleUndefinedVariable) and any(map(KNOWN_LATER.match, reached))
    if later or (missing and missing[1] in specs):
        return ""
    if missing:
        return f"{missing[1]} is not defined."
    if DECRYPTION.search(said):
        return "Decryption failed. Is it the right vault password (.vault-password)?"
    if any(map(SECRET.search, reached)):
        return (
            f"{type(error).__name__}, whose message may contain a secret."
            " If {{ or {% is part of a value, write !unsafe before it."
        )
    return " ".join(said.split())[:300]


def former_link(folder: Path) -> str:
    """Return what to do about the link that an environment of an earlier version has; empty for none."""
    link = folder / "00-common.yml"
    if not link.is_symlink():
        return ""
    shown = link.relative_to(ROOT) if link.is_relative_to(ROOT) else link
    return f"{shown} is not needed any more: the defaults of the roles read your variables. Remove it: rm {shown}"


def behind_the_command(given: Iterable[str]) -> set[str]:
    """Return what Ansible takes for variables in -e command="a --b=c d", of which lookup typed_command reads all."""
    texts = [str(one) for one in given]
    parsed = [(set(parse_kv(text)), text.startswith("command=")) for text in texts if "=" in text]
    return set().union(*(names for names, ours in parsed if ours)) - {"command"}.union(
        *(names for names, ours in parsed if not ours)
    )


_said: dict[str, list[str]] = {}


class LookupModule(LookupBase):  # type: ignore[misc]
    """Used in a play as lookup('variable_problems')."""

    def run(self, _terms: list[str], variables: Mapping[str, Any] | None = None, **_kwargs: Any) -> list[str]:
        """Return a sentence for each problem of the current host's variables.

        Args:
            variables: All variables of the host, not templated.
        """
        known = variables or {}
        # A task evaluates it twice, for its condition and its message.
        host = str(known.get("inventory_hostname"))
        if host not in _said:
            _said[host] = self._problems(known)
        return _said[host]

    def _problems(self, known: Mapping[str, Any]) -> list[str]:
        try:
            specs = declared(self._app(known))
        except Refused as problem:
            return [str(problem)]
        given = ansible_context.CLIARGS.get("extra_vars", ())
        behind = behind_the_command(given) if self._playbooks() == ("run",) else set()
        known = {name: value for name, value in known.items() if name not in behind}
        typed = frozenset(load_extra_vars(self._loader)) - behind
        if said := former_link(Path(str(known.get("inventory_dir") or "."))):
            return [said]
        problems: list[str] = []
        unknown: dict[str, list[str]] = {}
        own: frozenset[str] = frozenset()
        for name in (one for one in known if one in specs and not {"renamed_to", "removed"} & specs[one].keys()):
            run = Given(known, typed, specs=specs)
            try:
                value = self._templar.template(known[name])
            # Any error of a template, a lookup or the vault becomes a sentence about the variable.
            except Exception as error:
                if why := template_problem(error, reach(name, known), specs):
                    unknown.setdefault(why, []).append(run.where(name))
                continue
            found = kind_problems(name, specs[name], value, name in typed)
            problems += [
                run.where(name) + one.removeprefix(name) if one.startswith(f"{name} ") else one for one in found
            ]
            if name == "berth_own_variables" and not found:
                own = frozenset(value)
        names = Given(known, typed, self._playbooks(), own, specs).name_problems()
        untold = [f"{', '.join(each)} cannot be evaluated: {why}" for why, each in unknown.items()]
        return [*names, *untold, *problems]

    def _app(self, known: Mapping[str, Any]) -> Path:
        """Return the application's folder. Raises Refused where the variable is not valid."""
        if "berth_app" not in known:
            return ROOT
        try:
            value = self._templar.template(known["berth_app"])
        # Any error of a template.
        except Exception as error:
            raise Refused(f"berth_app cannot be evaluated: {error}") from None
        if not isinstance(value, str) or not Path(value).is_absolute():
            raise Refused(
                f"berth_app is {given(value, False)}, but must be the path of a folder, from / on or as"
                ' "{{ inventory_dir }}/../../../my-app".'
            )
        return Path(value)

    @staticmethod
    def _playbooks() -> tuple[str, ...]:
        """Return the started playbooks if all are ours; none if another playbook imports ours."""
        asked = [Path(one).resolve() for one in ansible_context.CLIARGS.get("args", ())]
        ours = all(one.parent in (ROOT, ROOT / "ansible") and one.stem != "preflight" for one in asked)
        return tuple(one.stem for one in asked) if ours else ()
