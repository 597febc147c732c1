"""What the application adds to the monitoring: the alerts and dashboards that its compose file names in x-berth."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

ROLE = Path(__file__).resolve().parents[1]
# Of x-berth; role environment reads the secrets.
KEYS = ("alerts", "dashboards", "secrets")
SEVERITIES = ("critical", "warning", "info")
# Label `needs` of an alert: while this is down, no mail is sent about the alert.
NEEDS = ("service", "databases")
UNITS = ("short", "s", "bytes", "percent", "Bps", "days")
_ALERT = re.compile(r"[A-Za-z_]\w*")
_PAGE = re.compile(r"[a-z0-9][a-z0-9_-]*")


class ApplicationError(Exception):
    """A file of the application is not as it should be; the message says what to do."""


def application(compose_file: str) -> dict[str, Any]:
    """Return the text of the application's rules, its dashboards, and what is wrong with them.

    compose_file: its path on the controller; files are named relative to its folder. Empty: there is no application.
    """
    return dict(_application(compose_file))


# Several templates of one task ask.
@lru_cache
def _application(compose_file: str) -> dict[str, Any]:
    found: dict[str, Any] = {"rules_file": "", "rules": "", "dashboards": [], "problems": []}
    if not compose_file:
        return found
    compose = Path(compose_file)
    try:
        named = _named(compose)
    except ApplicationError as error:
        return {**found, "problems": [str(error)]}
    for key, read in (("alerts", _rules), ("dashboards", _dashboards)):
        name = named.get(key)
        if name is None:
            continue
        try:
            place = _place(compose, key, name)
            found |= read(place, name)
        except ApplicationError as error:
            found["problems"].append(str(error))
    return found


def _named(compose: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(compose.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ApplicationError(
            f"monitoring_compose_file is {compose}, which cannot be read: {error}. Name the compose file, or leave it"
            " empty."
        ) from None
    named = (document if isinstance(document, dict) else {}).get("x-berth") or {}
    if not isinstance(named, dict):
        raise ApplicationError(f"{compose.name}: x-berth holds keys and values, such as alerts: monitoring/alerts.yml.")
    for key in named:
        if key not in KEYS:
            raise ApplicationError(f"{compose.name}: x-berth has {key}. Known keys: {', '.join(KEYS)}.")
    return named


def _place(compose: Path, key: str, name: Any) -> Path:
    place = compose.parent / str(name)
    inside = isinstance(name, str) and place.resolve().is_relative_to(compose.parent.resolve())
    if not inside or not place.is_file():
        raise ApplicationError(
            f"{compose.name}: x-berth.{key} is {name}: name a file, relative to the folder of {compose.name}."
        )
    return place


def _read(place: Path, name: str) -> Any:
    try:
        return yaml.safe_load(place.read_text())
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ApplicationError(f"{name} is not YAML: {error}") from None


def _rules(place: Path, name: str) -> dict[str, Any]:
    document = _read(place, name)
    try:
        rules = [rule for group in document["groups"] for rule in group["rules"]]
        alerts = [rule for rule in rules if "record" not in rule]
        names = [str(alert["alert"]) for alert in alerts]
    except (TypeError, KeyError):
        raise ApplicationError(
            f"{name} holds no rules of Prometheus: groups, each with name and rules; a rule has alert or record."
        ) from None
    own = {found for file in (ROLE / "files/rules").glob("*.yml") for found in _named_in(file, "      - alert: ")}
    for number, (alert, rule) in enumerate(zip(names, alerts, strict=True)):
        if alert in own:
            raise ApplicationError(f"{name}: the alert {alert} is one of Berth's own. Give yours another name.")
        if alert in names[:number] or not _ALERT.fullmatch(alert):
            raise ApplicationError(f"{name}: the alert {alert} needs a name of its own, of letters, digits and _.")
        labels = rule.get("labels") or {}
        if labels.get("severity") not in SEVERITIES:
            raise ApplicationError(
                f"{name}: the alert {alert} needs a label severity: critical, warning, or info, which is not mailed."
            )
        needs = str(labels.get("needs", "")).split()
        if not set(needs) <= set(NEEDS):
            raise ApplicationError(f"{name}: label needs of the alert {alert} may be {', '.join(NEEDS)}, or both.")
        if not (rule.get("annotations") or {}).get("summary"):
            raise ApplicationError(f"{name}: the alert {alert} needs an annotation summary, the sentence of its mail.")
    return {"rules_file": name, "rules": place.read_text()}


def _dashboards(place: Path, name: str) -> dict[str, Any]:
    found = _read(place, name)
    own = _named_in(ROLE / "vars/main/dashboards.yml", "  - name: ")
    try:
        pages = [str(one["name"]) for one in found]
        panels = [(one["title"], panel) for one in found for panel in one["panels"]]
        broken = [title for title, panel in panels if not {"title", "unit", "expr", "by"} <= set(panel)]
        units = [panel.get("unit") for _, panel in panels if panel.get("unit") not in UNITS]
    except (TypeError, KeyError):
        raise ApplicationError(f"{name} is a list of dashboards, each with name, title and panels.") from None
    for number, page in enumerate(pages):
        if page in own:
            raise ApplicationError(f"{name}: the dashboard {page} is one of Berth's own. Give yours another name.")
        if page in pages[:number] or not _PAGE.fullmatch(page):
            raise ApplicationError(f"{name}: the dashboard {page} needs a name of its own, of a-z, 0-9, _ and -.")
    if broken:
        raise ApplicationError(f"{name}: each panel of the dashboard {broken[0]} needs title, unit, expr and by.")
    if units:
        raise ApplicationError(f"{name}: {units[0]} is no unit of a panel; there are {', '.join(UNITS)}.")
    return {"dashboards": found}


def _named_in(file: Path, before: str) -> set[str]:
    """Return the names in one of the role's own files, without the time that it takes to read as YAML."""
    return set(re.findall(rf"^{re.escape(before)}(\w+)$", file.read_text(), re.MULTILINE))


class FilterModule:
    """The filter monitoring_application."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {"monitoring_application": application}
