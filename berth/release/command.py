"""berth release, status, rollback, maintenance and upgrade.

The answer is one JSON object on standard output.

berth release begin --by NAME [--verb rollback] [--force] [--break-lock] [--unsigned WHY] [--committed TIME]
                                    [--emergency] [RELEASE]
                                    TIME: of the newest commit of the released sources, in ISO 8601
berth release start RUN             start the run; returns once traffic is switched
berth release finish RUN            the check from outside passed; returns at the end of the watch
berth release undo RUN --reason WHY
berth release run RUN               used by start, in a unit of its own: gates, switch, watch, drain
berth release settle                finish or undo an interrupted run
berth maintenance on|off [--by NAME] [--allow ADDRESS]... [--force]
berth upgrade --by NAME --seconds N SERVICE=IMAGE...
berth release upgrade-run RUN       used by upgrade, in a unit of its own
berth rollback [--force] [--unsigned WHY] [--json] [RELEASE]
                                    to the previous release, or to RELEASE; prints a sentence
berth status [--json] [--colour auto|always|never] [--inventory NAME]
                                    a screen; with --json the object
berth status --dora [--days N] [--json]
                                    how often releases go live, how soon after their commit, and how many fail
Exit status 1: refused or failed; the object has the reason, the culprit (a container or a program), and its last lines.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
from datetime import datetime
from typing import Any

from berth.host import clock
from berth.host.refused import Refused
from berth.release import screen
from berth.release.dora import DAYS, dora
from berth.release.expected import INVENTORY
from berth.release.host import Host
from berth.release.maintenance import Maintenance
from berth.release.recovery import Recovery
from berth.release.release import Release
from berth.release.settings import Settings, stuck
from berth.release.status import status
from berth.release.upgrade import Upgrade


def arguments_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="berth", usage=__doc__)
    verbs = parser.add_subparsers(dest="command", required=True)
    begin = verbs.add_parser("begin")
    begin.add_argument("--by", required=True)
    begin.add_argument("--verb", choices=["release", "rollback"], default="release")
    begin.add_argument("--force", action="store_true")
    begin.add_argument("--break-lock", action="store_true")
    begin.add_argument("--unsigned", default="", metavar="WHY", help="release it without a valid signature")
    begin.add_argument("--committed", type=moment, default="")
    begin.add_argument("--emergency", action="store_const", const="yes", default="", help="without watch and drain")
    begin.add_argument("release", nargs="?", default="")
    for name in ("start", "run", "finish", "undo"):
        verb = verbs.add_parser(name)
        verb.add_argument("run")
    verbs.choices["undo"].add_argument("--reason", required=True)
    rollback = verbs.add_parser("rollback")
    rollback.add_argument("--by", default=caller())
    rollback.add_argument("--force", action="store_true", help="even if that release was itself rolled back")
    rollback.add_argument("--unsigned", default="", metavar="WHY", help="though it has no valid signature")
    rollback.add_argument("--json", action="store_true")
    rollback.add_argument("release", nargs="?", default="")
    maintenance = verbs.add_parser("maintenance")
    maintenance.add_argument("state", choices=["on", "off"])
    maintenance.add_argument("--allow", action="append", default=[])
    maintenance.add_argument("--by", default=caller())
    maintenance.add_argument("--force", action="store_true", help="open even if services are down")
    maintenance.add_argument("--guarded", action="store_true", help="the caller holds the lock")
    upgrade = verbs.add_parser("upgrade")
    upgrade.add_argument("--by", required=True)
    upgrade.add_argument("--seconds", type=int, required=True)
    upgrade.add_argument("images", nargs="+")
    upgrade_run = verbs.add_parser("upgrade-run")
    upgrade_run.add_argument("run")
    upgrade_run.add_argument("--seconds", type=int, required=True)
    verbs.add_parser("settle").add_argument("--guarded", action="store_true", help="the caller holds the lock")
    shown = verbs.add_parser("status")
    shown.add_argument("--json", action="store_true")
    shown.add_argument("--colour", choices=["auto", "always", "never"], default="auto")
    # As the suggested commands name it.
    shown.add_argument("--inventory", default=INVENTORY)
    shown.add_argument("--dora", action="store_true")
    shown.add_argument("--days", type=days, default=DAYS)
    # How long databases may take to become healthy in an upgrade that is settled after an interruption.
    parser.set_defaults(seconds=180)
    return parser.parse_args(argv)


def moment(text: str) -> str:
    """Return a moment as the history has it; empty where it is none: no release fails for a statistic."""
    try:
        return clock.moment(datetime.fromisoformat(text).timestamp())
    except (ValueError, ArithmeticError, OSError):
        return ""


def days(text: str) -> int:
    """Return a number of days. Raises ValueError for what is none."""
    count = int(text)
    if not 1 <= count <= 3660:
        raise ValueError(text)
    return count


def caller() -> str:
    """Name the person who typed the command, also through sudo."""
    return f"{os.environ.get('SUDO_USER') or 'root'}@{socket.gethostname()}"


def do(args: argparse.Namespace) -> dict[str, Any]:
    settings = Settings.read()
    try:
        return answer_of(args, settings)
    except OSError as error:
        raise stuck(settings, error) from error


def answer_of(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    host = Host.of(settings)
    recovery = Recovery(host)
    release, maintenance, upgrade = Release(host, recovery), Maintenance(host), Upgrade(host, recovery, args.seconds)
    match args.command:
        case "begin":
            known = {"unsigned": args.unsigned, "committed": args.committed, "emergency": args.emergency}
            return release.begin(args.verb, args.release, args.by, args.force, args.break_lock, **known)
        case "start":
            return release.start(args.run)
        case "run":
            return release.run(args.run)
        case "finish":
            return release.finish(args.run)
        case "undo":
            return release.undo(args.run, args.reason)
        case "rollback":
            return release.roll_back(args.release, args.by, args.force, args.unsigned)
        case "settle":
            return recovery.settle(args.guarded)
        case "maintenance":
            if args.state == "on":
                return maintenance.enable(args.allow, args.by, args.guarded)
            return maintenance.disable(args.force, args.guarded)
        case "upgrade":
            return upgrade.upgrade(args.by, dict(image.split("=", 1) for image in args.images))
        case "upgrade-run":
            return upgrade.run(args.run)
        case _ if args.dora:
            return {"site": settings.domain, **dora(host.history.releases(), clock.time(), args.days)}
        case _:
            return status(host)


def formatted(answer: dict[str, Any], args: argparse.Namespace) -> str:
    """Return the answer as JSON; status and rollback as text for people, except with --json."""
    if args.command not in ("status", "rollback") or args.json:
        return json.dumps(answer)
    if args.command == "rollback":
        state = "is live already" if "already" in answer else f"is live again after {answer['seconds']:.0f} s"
        note = f" {answer['note']}" if answer.get("note") else ""
        return f"Release {answer['release']} {state}.{note} Details: sudo berth status"
    if args.dora:
        return screen.dora(answer)
    coloured = args.colour == "always" or (
        args.colour == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    )
    return screen.text(answer, coloured, args.inventory)


def refusal(answer: dict[str, Any], args: argparse.Namespace) -> str:
    """Return the refusal: as JSON; for people's commands, as text."""
    if args.command not in ("status", "rollback") or args.json:
        return json.dumps(answer)
    return "\n".join([answer["reason"], *(f"  {line}" for line in answer["lines"])])


def main(arguments: list[str]) -> int:
    # The caller may disconnect; the run goes on to its end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    args = arguments_of(arguments)
    try:
        answer, code = do(args), 0
    except Refused as refused:
        answer, code = refused.answer, 1
    try:
        print(formatted(answer, args) if code == 0 else refusal(answer, args), flush=True)
    except BrokenPipeError:
        return 1
    return code
