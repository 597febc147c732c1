"""berth logs: what services log, readable by eye.

berth logs [-f] [--service NAME] [--since TIME] [--lines N]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator

from berth.host import commands
from berth.logs.lines import line_of, service_of, text_of

JOURNALCTL = ("journalctl", "--quiet", "--all", "--no-pager", "--output=json")
FIELDS = "--output-fields=MESSAGE,CONTAINER_NAME"


def arguments_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="berth logs", description="Show what the services log.")
    parser.add_argument("-f", "--follow", action="store_true", help="show new lines as they come, until Ctrl-C")
    parser.add_argument("--service", default="", help="only this one, on whichever colour; without it all containers")
    parser.add_argument("--since", default="", help="as journalctl takes it: -1h, today, 2026-11-25 02:30")
    parser.add_argument("--lines", type=int, default=0, help="the last so many; without it and --since, 50")
    if "--since" in argv[:-1]:
        # A time may begin with a dash, which argparse takes for an option.
        at = argv.index("--since")
        argv = [*argv[:at], f"--since={argv[at + 1]}", *argv[at + 2 :]]
    return parser.parse_args(argv)


def containers() -> dict[str, str]:
    """Return container -> service, of all in the journal but those of one command, whose names are random."""
    names = commands.run("journalctl", "--field=CONTAINER_NAME").stdout.splitlines()
    services = {name: service_of(name) for name in names}
    return {name: service for name, service in services.items() if not service.endswith("/run")}


def query(args: argparse.Namespace, names: list[str]) -> list[str]:
    """Return the command that reads the journal."""
    words = [*JOURNALCTL, FIELDS]
    if args.since:
        words.append(f"--since={args.since}")
    if args.lines or not args.since:
        words.append(f"--lines={args.lines or 50}")
    # Without a service, Docker's own lines come along.
    wanted = [f"CONTAINER_NAME={name}" for name in names] if args.service else ["_SYSTEMD_UNIT=docker.service"]
    return [*words, *(["--follow"] if args.follow else []), *wanted]


def shown(rows: Iterable[str], coloured: bool, width: int) -> Iterator[str]:
    for row in rows:
        entry = json.loads(row)
        if name := text_of(entry.get("CONTAINER_NAME")):
            yield line_of(entry, f"{service_of(name):<{width}}", coloured)


def main(arguments: list[str]) -> int:
    args = arguments_of(arguments)
    services = containers()
    chosen = [name for name, service in services.items() if args.service in ("", service.partition("/")[0])]
    if not chosen:
        known = sorted({service.partition("/")[0] for service in services.values()})
        problem = f"No service {args.service} has logged" if args.service else "No service has logged"
        print(f"{problem}; the journal knows {', '.join(known) or 'no container'}.", file=sys.stderr)
        return 1
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = max(len(services[name]) for name in chosen)
    with subprocess.Popen(query(args, chosen), stdout=subprocess.PIPE, text=True, errors="replace") as journal:
        try:
            for line in shown(journal.stdout or (), coloured, width):
                print(line, flush=args.follow)
            sys.stdout.flush()
        except (KeyboardInterrupt, BrokenPipeError):
            # The reader has closed the pipe; Python would complain that it cannot flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            journal.terminate()
            return 0
    return journal.returncode
