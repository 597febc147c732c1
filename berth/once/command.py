"""berth run, console, job and jobs.

berth run [--service NAME] [--seconds N] [--by NAME] -- COMMAND...
    run a command in a new container of a service of the live release; exit status and output are its own.
    124: it did not end within --seconds; 125: it was not run, and the sentence on standard error says why
berth console SERVICE [COMMAND...]
    a shell (sh), or another command, with the terminal; it ends with the session
berth job NAME
    run a job of the live release now, as its timer does; exit status as of berth run
berth jobs
    schedule the jobs of the live release, as berth-jobs.service does
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from berth.host.commands import LATE
from berth.host.refused import Refused
from berth.once.container import Once
from berth.release import jobs
from berth.release.command import caller
from berth.release.host import Host
from berth.release.settings import Settings

# As docker itself, where a command is not run.
NOT_RUN = 125


def arguments_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="berth", usage=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("--service", default="", help="without it the only one")
    run.add_argument("--seconds", type=int, default=0, help="stopped after so long")
    run.add_argument("--by", default=caller())
    run.add_argument("command", nargs=argparse.REMAINDER)
    console = verbs.add_parser("console")
    console.add_argument("service")
    console.add_argument("command", nargs=argparse.REMAINDER)
    console.set_defaults(by=caller())
    verbs.add_parser("job").add_argument("service")
    verbs.add_parser("jobs")
    return parser.parse_args(argv)


def do(args: argparse.Namespace) -> int:
    settings = Settings.read()
    host = Host.of(settings)
    if args.verb == "jobs":
        for name, schedule in jobs.write(settings, host.edge.live()).items():
            print(f"{name}: {schedule}")
        return 0
    once = Once(host)
    if args.verb == "job":
        return told(once.job(args.service), settings.command_seconds)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if args.verb == "console":
        if not sys.stdin.isatty():
            raise Refused("A console needs a terminal. To run a command without one: sudo berth run")
        # The container's side of the terminal makes of Ctrl-C what it is there.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGHUP, ended)
        return once.console(args.service, command, args.by)
    # The caller may disconnect; the command goes on to its end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, ended)
    seconds = args.seconds or settings.command_seconds
    return told(once.run(args.service, command, args.by, seconds), seconds)


def told(code: int, seconds: int) -> int:
    if code == LATE:
        print(f"It was stopped: it did not end within {seconds} s.", file=sys.stderr)
    return code


def ended(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main(arguments: list[str]) -> int:
    args = arguments_of(arguments)
    signal.signal(signal.SIGTERM, ended)
    try:
        return do(args)
    except (Refused, OSError) as error:
        reason = error.reason if isinstance(error, Refused) else f"This host cannot go on: {error}."
        print(reason, *(error.lines if isinstance(error, Refused) else []), sep=os.linesep, file=sys.stderr)
        return NOT_RUN
