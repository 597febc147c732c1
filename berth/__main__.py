"""usage: berth COMMAND ...

For people:
  berth status                        what is running, what is wrong, and how to fix it
  berth logs [-f] [--service NAME]    what the services log, readable by eye
  berth run --service NAME -- COMMAND a command in a new container of a service of the live release
  berth console SERVICE               a shell there
  berth rollback [RELEASE]            switch traffic back to the previous release, or to RELEASE
  berth maintenance on|off            close the site to visitors, or open it again
  berth backup run|list|check|status  encrypted backups
  berth restore RUN|latest            restore databases and files from a backup
  berth drill                         restore drill: the newest backup, into throwaway containers
  berth sbom find PACKAGE             which releases contain a package
  berth secrets check ENV_FILE        check a .env file
For Ansible and systemd units:
  berth release|upgrade|rebuild|images|sbom|secrets|metrics|ship|job|jobs ...

Run any of them with --help for more. berth --version prints the version.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys

from berth import __version__

# Command -> the module whose `main` runs it, and whether it needs the command itself as its first argument.
COMMANDS = {
    "release": ("berth.release.command", False),
    "status": ("berth.release.command", True),
    "rollback": ("berth.release.command", True),
    "maintenance": ("berth.release.command", True),
    "upgrade": ("berth.release.command", True),
    "backup": ("berth.backup.command", False),
    "restore": ("berth.backup.command", True),
    "rebuild": ("berth.backup.command", True),
    "drill": ("berth.backup.command", True),
    "secrets": ("berth.secrets", False),
    "metrics": ("berth.metrics.command", False),
    "run": ("berth.once.command", True),
    "console": ("berth.once.command", True),
    "job": ("berth.once.command", True),
    "jobs": ("berth.once.command", True),
    "images": ("berth.supply.command", True),
    "sbom": ("berth.supply.command", True),
    "logs": ("berth.logs.show", False),
    "ship": ("berth.logs.command", False),
}
# They talk to Docker and systemd, and read secrets.
FOR_ROOT = (
    "berth.release.command",
    "berth.backup.command",
    "berth.once.command",
    "berth.logs.show",
    "berth.supply.command",
)


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status; 2 where there is no such command."""
    if arguments == ["--version"]:
        print(f"berth {__version__}")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        wants_help = arguments and arguments[0] in ("-h", "--help", "help")
        print(__doc__, file=sys.stdout if wants_help else sys.stderr)
        return 0 if wants_help else 2
    module, own = COMMANDS[arguments[0]]
    if os.geteuid() and module in FOR_ROOT and not {"-h", "--help"} & {*arguments}:
        print(f"This command needs root: sudo berth {shlex.join(arguments)}", file=sys.stderr)
        return 1
    # Import only the module that is needed: every call pays for the others.
    code: int = importlib.import_module(module).main(arguments if own else arguments[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
