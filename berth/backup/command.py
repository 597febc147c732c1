"""berth backup, restore, rebuild and drill: one verb per call; the answer is JSON on standard output."""

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
from berth.backup.records import Busy, Records, Stopped
from berth.backup.restic import Store
from berth.backup.run import run, say
from berth.backup.settings import Settings
from berth.host.clock import now
from berth.host.refused import Failed, Refused

HISTORY_LINES = 5
# An increment that still fails, after a mail was sent, or a drill that was stopped; the unit counts this as success.
TOLD = 75


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="berth backup", description="Encrypted backups of this host.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run", help="back up everything now")
    verb.add_argument("--reason", default="by hand")
    verb.add_argument("--tag", default="", help="a further tag on every snapshot")
    verb.add_argument("--target", default="", help="only to this target")
    verbs.add_parser("oplog", help="back up MongoDB's changes since the last run or increment")
    for name, purpose in (
        ("list", "list the runs on each target"),
        ("check", "check each repository and read its newest run"),
        ("forget", "apply the retention policy: forget and prune old runs"),
    ):
        verbs.add_parser(name, help=purpose).add_argument("--target", default="")
    restore.add_arguments(verbs)
    rebuild.add_arguments(verbs)
    drill.add_arguments(verbs)
    verb = verbs.add_parser("rekey", help="add the new password to each repository, and remove the previous one")
    # In the unit that does it.
    verb.add_argument("--run-id", default="")
    verb = verbs.add_parser("restic", help="run restic with a target's repository and credentials")
    verb.add_argument("target")
    verb.add_argument("arguments", nargs=argparse.REMAINDER)
    verbs.add_parser("status", help="show the recorded state, without connecting to a target")
    verbs.add_parser("init", help="create a new repository where one with backups is missing").add_argument("target")
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
        raise Refused(f"Target {name} already has a repository that opens, so none was created.")
    store.init()
    with records.changing() as state:
        state["targets"][name] = {}
    return {"verb": "init", "target": name}


def become_restic(settings: Settings, name: str, arguments: list[str]) -> NoReturn:
    store = Store(settings, settings.target(name))
    if settings.previous_password:
        # Chooses the one of the two that opens it.
        store.exists()
    os.execvpe("restic", store.command(*arguments), store.environment)  # noqa: S606  # found in PATH like every program here


def answer(args: argparse.Namespace, settings: Settings, records: Records) -> dict[str, Any]:
    if args.verb == "run":
        return run(settings, records, args.reason, args.tag, settings.chosen(args.target))
    if args.verb == "oplog":
        return by_itself(settings, records)
    if args.verb == "list":
        return check.listing(settings, settings.chosen(args.target))
    if args.verb == "check":
        with records.locked("check", settings.wait_seconds):
            return check.check(settings, records, settings.chosen(args.target))
    if args.verb == "forget":
        return check.forget(settings, records, settings.chosen(args.target))
    if args.verb == "rekey":
        return rekey.rekey(settings, records, args.run_id)
    if args.verb == "restore":
        return restore.restore(settings, records, args)
    if args.verb == "settle":
        return restore.settle(settings, records, args.guarded)
    if args.verb == "rebuild":
        return rebuild.rebuild(settings, records, args)
    if args.verb == "drill":
        return drill.drill(settings, records, args)
    if args.verb == "restic":
        become_restic(settings, args.target, args.arguments)
    if args.verb == "init":
        return make_anew(settings, records, args.target)
    return status(records)


def was_told(records: Records, verb: str, reason: str, minutes: int) -> bool:
    """Tell whether a mail about this was sent already: increments run every few minutes."""
    if verb != "oplog":
        return False
    with records.changing() as state:
        before = state.get("oplog_told_at", 0.0) if reason else 0.0
        again = time.time() - before < minutes * 60
        state["oplog_told_at"] = before if again or not reason else time.time()
        return again


def ended(_number: int, _frame: FrameType | None) -> None:
    raise Stopped("It was stopped by SIGTERM: a shutdown, systemctl stop, or a restore that stops a drill.")


def in_words(error: OSError) -> str:
    """Describe a system error in one sentence."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"The disk is full{where}: free some space, then run: berth backup run"
    return f"{error.strerror or error}{where}."


def tell(document: dict[str, Any]) -> None:
    """Print the answer. The caller may have disconnected."""
    with suppress(OSError):
        print(json.dumps(document), flush=True)


def main(argv: list[str]) -> int:
    args = arguments().parse_args(argv)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, ended)
    code = 0
    try:
        settings = Settings.read()
        records = Records(settings)
        reason, lines = "", []
        try:
            result = answer(args, settings, records)
        except Refused as why:
            own = bool(getattr(args, "run_id", "")) and not isinstance(why, Failed)
            quiet = own or (args.verb in ("run", "drill") and isinstance(why, Busy))
            reason, lines, code = why.reason, why.lines, own_unit.REFUSED if quiet else 1
            if args.verb == "drill" and isinstance(why, Stopped):
                code = TOLD
        except OSError as error:
            reason, code = in_words(error), 1
        if args.verb == "run":
            metrics.ping(settings, well=not reason)
        if args.verb in ("run", "oplog", "check", "forget", "restore"):
            if was_told(records, args.verb, reason, settings.oplog_told_minutes):
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
    tell(result)
    return 0
