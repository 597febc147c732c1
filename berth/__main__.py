"""usage: berth COMMAND ...

For people:
  berth status                        what runs, what is wrong, and what to do
  berth rollback [RELEASE]            back to the release before, or to this one
  berth maintenance on|off            close the site for visitors, and open it again
  berth backup run|list|check|status  encrypted backups
  berth restore RUN|latest            databases and files from a backup
  berth drill                         restore the newest backup beside the live data
  berth secrets check ENV_FILE        say what is wrong in it
For Ansible and for units of systemd:
  berth release|upgrade|rebuild|secrets|metrics|logs ...

Each says more after --help.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys

# Word -> the module whose `main` takes what follows, and whether the word is one of its own.
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
    "logs": ("berth.logs.command", False),
}
# They talk to Docker and systemd, and read secrets.
FOR_ROOT = ("berth.release.command", "berth.backup.command")


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status; 2 where there is no such command."""
    if not arguments or arguments[0] not in COMMANDS:
        asked = arguments and arguments[0] in ("-h", "--help", "help")
        print(__doc__, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    module, own = COMMANDS[arguments[0]]
    if os.geteuid() and module in FOR_ROOT and not {"-h", "--help"} & {*arguments}:
        print(f"Only root may do that: sudo berth {shlex.join(arguments)}", file=sys.stderr)
        return 1
    # Only what is asked for is read: the host's shell waits for each call.
    code: int = importlib.import_module(module).main(arguments if own else arguments[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
