"""berth backup, restore, rebuild and drill: one verb a call; the answer is JSON on standard output."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from berth.backup import check, drill, metrics, own_unit, rebuild, rekey, restore
from berth.backup.oplog import by_itself
from berth.backup.records import Busy, Records
from berth.backup.restic import Store
from berth.backup.run import run, say
from berth.backup.settings import Settings
from berth.host.clock import now
from berth.host.refused import Failed, Refused

HISTORY_LINES = 5
# An increment that fails as the one before did, of which a mail went out; the unit takes this as success.
TOLD = 75


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="berth backup", description="Encrypted backups of this host.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("run", help="back up everything now")
    one.add_argument("--reason", default="by hand")
    one.add_argument("--tag", default="", help="a further tag on every snapshot")
    one.add_argument("--target", default="", help="only to this target")
    verbs.add_parser("oplog", help="back up what MongoDB changed since")
    for verb, said in (
        ("list", "the runs on the stores"),
        ("check", "read what is there"),
        ("forget", "thin out old runs"),
    ):
        verbs.add_parser(verb, help=said).add_argument("--target", default="")
    restore.add_arguments(verbs)
    rebuild.add_arguments(verbs)
    drill.add_arguments(verbs)
    one = verbs.add_parser("rekey", help="let the new password open the repositories, and the one before no more")
    # In the unit that does it.
    one.add_argument("--run-id", default="")
    one = verbs.add_parser("restic", help="restic itself, with a target's repository and credentials")
    one.add_argument("target")
    one.add_argument("arguments", nargs=argparse.REMAINDER)
    verbs.add_parser("status", help="what is known, without asking a store")
    verbs.add_parser("init", help="make a repository anew although it had backups").add_argument("target")
    return parser


def status(records: Records) -> dict[str, Any]:
    state = records.state()
    return {
        "targets": {
            name: {
                "run": known.get("run", "none yet"),
                "ended": known.get("ended", ""),
                "age_hours": round((time.time() - known["success_at"]) / 3600, 1) if "success_at" in known else None,
                "changes_until": known.get("position", ""),
                "problems": [
                    known[key] for key in ("reason", "oplog_reason", "check_reason", "forget_reason") if known.get(key)
                ],
                "bytes": known.get("parts", {}),
            }
            for name, known in state["targets"].items()
        },
        "missing": state.get("missing", []),
        "running": records.holder("run"),
        "history": records.history(HISTORY_LINES),
    }


def make_anew(settings: Settings, records: Records, name: str) -> dict[str, Any]:
    store = Store(settings, settings.target(name))
    if store.exists():
        raise Refused(f"Target {name} has a repository, which opens: there is nothing to make.")
    store.init()
    with records.changing() as state:
        state["targets"][name] = {}
    return {"verb": "init", "target": name}


def become_restic(settings: Settings, name: str, arguments: list[str]) -> NoReturn:
    store = Store(settings, settings.target(name))
    if settings.previous_password:
        # Finds out which of the two opens it.
        store.exists()
    os.execvpe("restic", store.command(*arguments), store.environment)  # noqa: S606  # found in PATH like every program here


def answer(given: argparse.Namespace, settings: Settings, records: Records) -> dict[str, Any]:
    if given.verb == "run":
        return run(settings, records, given.reason, given.tag, settings.chosen(given.target))
    if given.verb == "oplog":
        return by_itself(settings, records)
    if given.verb == "list":
        return check.listing(settings, settings.chosen(given.target))
    if given.verb == "check":
        with records.locked("check", settings.wait_seconds):
            return check.check(settings, records, settings.chosen(given.target))
    if given.verb == "forget":
        return check.forget(settings, records, settings.chosen(given.target))
    if given.verb == "rekey":
        return rekey.rekey(settings, records, given.run_id)
    if given.verb == "restore":
        return restore.restore(settings, records, given)
    if given.verb == "settle":
        return restore.settle(settings, records, given.guarded)
    if given.verb == "rebuild":
        return rebuild.rebuild(settings, records, given)
    if given.verb == "drill":
        return drill.drill(settings, records, given)
    if given.verb == "restic":
        become_restic(settings, given.target, given.arguments)
    if given.verb == "init":
        return make_anew(settings, records, given.target)
    return status(records)


def was_told(records: Records, verb: str, reason: str, minutes: int) -> bool:
    """Tell whether the operator heard of this already: an increment every five minutes is not worth as many mails."""
    if verb != "oplog":
        return False
    with records.changing() as state:
        before = state.get("oplog_told_at", 0.0) if reason else 0.0
        again = time.time() - before < minutes * 60
        state["oplog_told_at"] = before if again or not reason else time.time()
        return again


def ended(_number: int, _frame: FrameType | None) -> None:
    raise Refused("It was ended from outside, by a shutdown or an operator.")


def in_words(error: OSError) -> str:
    """Put a failure of the system into one sentence."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"The disk is full{where}: make room, then berth backup run."
    return f"{error.strerror or error}{where}."


def tell(document: dict[str, Any]) -> None:
    """Print the answer. Whoever asked may have gone; what was done is done all the same."""
    with suppress(OSError):
        print(json.dumps(document), flush=True)


def main(words: list[str]) -> int:
    given = arguments().parse_args(words)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, ended)
    code = 0
    try:
        settings = Settings.read()
        records = Records(settings)
        reason, lines = "", []
        try:
            said = answer(given, settings, records)
        except Refused as why:
            own = bool(getattr(given, "run_id", "")) and not isinstance(why, Failed)
            quiet = own or (given.verb == "run" and isinstance(why, Busy))
            reason, lines, code = why.reason, why.lines, own_unit.REFUSED if quiet else 1
        except OSError as error:
            reason, code = in_words(error), 1
        if given.verb == "run":
            metrics.ping(settings, well=not reason)
        if given.verb in ("run", "oplog", "check", "forget", "restore"):
            if was_told(records, given.verb, reason, settings.oplog_told_minutes):
                code = TOLD
            metrics.publish(settings, records)
        if code:
            raise Refused(reason, lines=lines)
    except Refused as why:
        say(why.reason)
        for line in why.lines:
            say(f"  {line}")
        tell({"at": now(), "reason": why.reason, "lines": why.lines})
        return code or 1
    except OSError as error:
        say(in_words(error))
        tell({"at": now(), "reason": in_words(error), "lines": []})
        return 1
    tell(said)
    return 0
