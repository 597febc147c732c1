"""The status as one screen for people: problems first, and times that can be read."""

from __future__ import annotations

import re
import textwrap
from datetime import UTC, datetime
from typing import Any

from berth.release.expected import INVENTORY, WELL, playbook

WIDTH = 100
# 40 with Ansible's own output around it.
LINES = 32
LABEL, DORA_LABEL = 14, 17
# Lines of history that stay, however many problems there are.
SHORTEST_HISTORY = 1

PLAIN, RED, YELLOW, GREEN, BOLD = "", "1;31", "33", "32", "1"
Line = tuple[str, str]


def ago(seconds: float) -> str:
    """Say how long ago something was, as roughly as a person would."""
    return "just now" if seconds < 60 else f"{lasting(seconds)} ago"


def lasting(seconds: float) -> str:
    """Say how long something took, as roughly as a person would."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes:.0f} min"
    if minutes < 48 * 60:
        return f"{minutes / 60:.0f} h"
    return f"{minutes / 1440:.0f} days"


def at(moment: str) -> str:
    """Return a moment as people write it: 2026-11-29 02:14 UTC."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def since(moment: str, now: datetime) -> str:
    """Return a moment, and how long ago it was."""
    return f"{at(moment)}, {_ago(moment, now)}"


def _ago(moment: str, now: datetime) -> str:
    return ago((now - datetime.fromisoformat(moment)).total_seconds())


def text(known: dict[str, Any], coloured: bool, inventory: str = INVENTORY, now: datetime | None = None) -> str:
    """Return the screen."""
    lines = [(line.replace(INVENTORY, inventory), colour) for line, colour in fitted(known, now or datetime.now(UTC))]
    return "\n".join(f"\x1b[{colour}m{line}\x1b[0m" if coloured and colour else line for line, colour in lines)


def fitted(known: dict[str, Any], now: datetime) -> list[Line]:
    """Return as many lines as fit: the history is cut first, then the list of problems."""
    top, wrong, rest = _top(known, now), _wrong(known), _rest(known, now)
    history = _history(known)
    room = LINES - len(top) - len(rest) - len(wrong)
    history = history[: max(room, SHORTEST_HISTORY)]
    room = LINES - len(top) - len(rest) - len(history)
    if len(wrong) > room:
        wrong = [*wrong[: room - 1], ("  ... and more: sudo berth status --json", RED)]
    return top + wrong + rest + history


def _row(label: str, text: str, colour: str = PLAIN, most: int = 3, width: int = LABEL) -> list[Line]:
    """Return a labelled row, wrapped; of a long one its first lines."""
    body = textwrap.wrap(text, WIDTH - width, max_lines=most, placeholder=" ...", break_on_hyphens=False) or [""]
    return [(f"{label if number == 0 else '':<{width}}{line}", colour) for number, line in enumerate(body)]


# --- the parts ---


def _top(known: dict[str, Any], now: datetime) -> list[Line]:
    release, _, colour = known["live"].partition(" ")
    live = f"release {release} ({colour})" if colour else "no release is live"
    when = f", live since {since(known['since'], now)}" if colour and known["since"] else ""
    lines = _row(known["site"], f"  {live}{when}".strip(), BOLD) if len(known["site"]) < LABEL else []
    lines = lines or [(f"{known['site']}: {live}{when}"[:WIDTH], BOLD)]
    run = known["run"]
    if not run:
        lines += _row("lock", "free")
    else:
        state = "running" if run["running"] else "INTERRUPTED"
        without = ", its controller disconnected" if run["running"] and run["alone"] else ""
        row = f"{run['what']}: {state}{without}, phase {run['phase']}, since {since(run['since'], now)}"
        lines += _row("lock", row, YELLOW if run["running"] else RED)
    if known["maintenance"]:
        closed = known["maintenance_since"]
        began = f", since {since(closed['since'], now)}" if "since" in closed else ""
        lines += _row("maintenance", f"ON, by {closed.get('by', 'an operator')}{began}. Open it:", YELLOW)
        lines += _row("", playbook("maintenance", "-e", "maintenance=off"))
    else:
        lines += _row("maintenance", "off")
    return lines


def _wrong(known: dict[str, Any]) -> list[Line]:
    """Return the problems, each with its fix below; those with the same fix are grouped."""
    together: dict[str, tuple[list[str], list[str]]] = {}
    for one in known["red"]:
        restart = re.fullmatch(r"(sudo (?:systemctl|docker) restart) (\S+)", one["fix"])
        what, names = together.setdefault(restart[1] if restart else one["fix"], ([], []))
        what.append(one["what"])
        names += [restart[2]] if restart else []
    if not together:
        return [("healthy: everything that should be running is running", GREEN)]
    lines: list[Line] = [("PROBLEMS", RED)]
    for fix, (what, names) in together.items():
        sentences = textwrap.wrap(_shorter(what), WIDTH - 2, max_lines=3, placeholder=" ...", break_on_hyphens=False)
        lines += [(f"  {line}", RED) for line in sentences]
        command = " ".join([fix, *dict.fromkeys(names)])
        lines += [(f"    {line}", PLAIN) for line in textwrap.wrap(command, WIDTH - 4, break_on_hyphens=False)]
    return lines


def _shorter(sentences: list[str]) -> str:
    """Say "container mongo is MISSING", "container redis is MISSING" as "container mongo, redis: MISSING"."""
    groups: dict[tuple[str, str], list[str]] = {}
    for sentence in sentences:
        parts = re.fullmatch(r"(container|unit|network|nftables table|secrets in) (.+) (?:is|are) (\w+)", sentence)
        kind, name, state = parts.groups() if parts else ("", sentence, "")
        groups.setdefault((kind, state), []).append(name)
    row = [
        f"{kind} {', '.join(names)}: {state}" if kind else "; ".join(names) for (kind, state), names in groups.items()
    ]
    return "; ".join(row)


def _rest(known: dict[str, Any], now: datetime) -> list[Line]:
    lines = _services(known["services"])
    certificate = known["certificate"]
    if "problem" in certificate:
        lines += _row("certificate", f"none: {certificate['problem']}", RED, 1)
    else:
        names = dict(re.findall(r"\b(CN|O) ?= ?([^,]+)", certificate["issuer"]))
        issuer = ", ".join(names[name] for name in ("O", "CN") if name in names)
        left = f"{at(certificate['until'])}, {certificate['days_left']:.0f} days left"
        lines += _row("certificate", f"valid until {left} ({issuer})", PLAIN, 1)
    lines += _row("disk", f"{known['disk_free_gib']} GiB free ({known['disk_free_percent']} %)")
    lines += _row(
        "timers", ", ".join(_timer(name, ended, now) for name, ended in known["timers"].items()) or "none", PLAIN, 3
    )
    lines += _backups(known["backups"], now)
    waiting = known["security_updates"]
    lines += _row("updates", f"{waiting} security update{'' if waiting == 1 else 's'} pending")
    if known["rolled_back"]:
        rolled = ", ".join(known["rolled_back"])
        lines += _row("rolled back", f"{rolled}: to release again, -e release_force=true", PLAIN, 1)
    return lines


def _services(services: dict[str, str]) -> list[Line]:
    """Group containers by project and state: healthy: green one, green two."""
    if not services:
        return _row("services", "none", RED)
    groups: dict[str, list[str]] = {}
    for name, state in sorted(services.items()):
        short = re.sub(r"-\d+$", "", name).removeprefix("berth-").replace("-", " ", 1)
        groups.setdefault(state, []).append(short)
    order = sorted(groups, key=lambda state: state in WELL)
    lines: list[Line] = []
    for state in order:
        row = f"{state}: {', '.join(groups[state])}"
        lines += _row("services" if not lines else "", row, PLAIN if state in WELL else RED, 3)
    return lines[:5]


def _timer(service: str, ended: dict[str, str], now: datetime) -> str:
    name = service.removeprefix("berth-").removesuffix(".service")
    if ended["result"] == "running":
        return f"{name} running"
    if not ended["at"]:
        return f"{name} never ran"
    well = "" if ended["result"] == "success" else " FAILED"
    return f"{name}{well} {_ago(ended['at'], now)}"


def _backups(backups: dict[str, Any], now: datetime) -> list[Line]:
    targets = backups.get("targets", {})
    if not targets:
        return _row("backups", "none: backup_targets is empty", YELLOW)
    lines: list[Line] = []
    for name, target in targets.items():
        row = f"{name}: none yet"
        if target["ended"]:
            row = f"{name}: {since(target['ended'], now)}, {size(sum(_bytes(target['bytes'])))}"
        if target["changes_until"]:
            row += f", changes until {_position(target['changes_until'])}"
        lines += _row("" if lines else "backups", row, RED if target["problems"] else PLAIN, 1)
    return lines[:4]


def _bytes(parts: dict[str, Any]) -> list[float]:
    return [float(one) for one in parts.values() if isinstance(one, int | float)]


def _position(position: str) -> str:
    """Return where MongoDB's changes are saved up to: "<seconds>.<number>", or a moment."""
    seconds = re.match(r"(\d{9,11})\b", position)
    return f"{datetime.fromtimestamp(int(seconds[1]), UTC):%Y-%m-%d %H:%M} UTC" if seconds else position


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _history(known: dict[str, Any]) -> list[Line]:
    """Return the last attempts, the newest first, a line each."""
    lines: list[Line] = []
    for line in reversed(known["history"]):
        step = f"{line['from']} -> {line['to']}" if line["from"] else line["to"]
        took = f", {line['seconds']:.0f} s" if isinstance(line["seconds"], int | float) else ""
        why = f": {line['reason']}" if line["reason"] else ""
        row = f"{at(line['at'])} {line['verb']} {step} {line['result']}{took}, {line['by']}{why}"
        # The reason of the last one may take more than a line.
        lines += _row("" if lines else "history", row, PLAIN, 1 if lines else 3)
    return lines or _row("history", "no release yet")


# --- berth status --dora ---


def dora(known: dict[str, Any]) -> str:
    """Return the metrics of DORA, in at most ten lines."""
    now, count = datetime.fromisoformat(known["until"]), known["deployments"]
    head = f"{known['site']}: DORA metrics of the last {_days(known['days'])}, until {at(known['until'])}"[:WIDTH]
    if not count:
        last = known["last_deployment"]
        ended = f"the last went live {since(last, now)}" if last else "there was none yet"
        return f"{head}\nNo release in {_days(known['days'])}; {ended}."
    rows = {
        "deployments": _deployments(known, now),
        "lead time": _lead_time(known),
        "change failures": _failures(known),
        "time to restore": _restored(known),
    }
    lines = [line for label, row in rows.items() for line, _ in _row(label, row, most=2, width=DORA_LABEL)]
    return "\n".join([head, *lines])


def _days(count: int) -> str:
    return "day" if count == 1 else f"{count} days"


def _deployments(known: dict[str, Any], now: datetime) -> str:
    count, days = known["deployments"], known["days"]
    often = next(
        f"{span * count / days:.2g} a {name}"
        for span, name in ((1, "day"), (7, "week"), (30, "month"))
        if span * count >= days or name == "month"
    )
    young = (now - datetime.fromisoformat(known["history_since"])).total_seconds() < days * 86400
    begins = f"; the history begins {at(known['history_since'])}" if young else ""
    return f"{count} ({often}); the last {_ago(known['last_deployment'], now)}{begins}"


def _lead_time(known: dict[str, Any]) -> str:
    """Return the median from commit to switch, and of how many releases it is."""
    times, unknown = known["lead_times"], known["deployments"] - known["lead_times"]
    if not times:
        return "not known: no release says when its sources were committed (no git clone?)"
    more = f"; of {unknown} more the commit is not known" if unknown else ""
    return f"{lasting(known['lead_time_seconds'])} from commit to live{_median(times)}{more}"


def _failures(known: dict[str, Any]) -> str:
    failures, count = known["failures"], known["deployments"]
    if not failures:
        return f"none of {count}"
    named = ", ".join(f"{one['release']} {one['how']}" for one in reversed(failures))
    return f"{100 * known['change_failure_ratio']:.0f} % ({len(failures)} of {count}): {named}"


def _restored(known: dict[str, Any]) -> str:
    if not known["failures"]:
        return "nothing to restore"
    lasts, waiting = known["time_to_restore_seconds"], known["not_restored"]
    rest = f"{waiting} not restored yet" if waiting else ""
    if lasts is None:
        return rest
    return "; ".join(filter(None, [f"{lasting(lasts)}{_median(len(known['failures']) - waiting)}", rest]))


def _median(count: int) -> str:
    return f", the median of {count}" if count > 1 else ""
