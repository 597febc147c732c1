#!/bin/sh
# Prints a Python that is new enough: $PYTHON, or the first of this machine's. An old .venv does not answer for the machine.
set -eu
cd "$(dirname "$0")/.."
PATH=:$PATH:
while :; do
  case $PATH in
    *":$PWD/.venv/bin:"*) PATH=${PATH%%":$PWD/.venv/bin:"*}:${PATH#*":$PWD/.venv/bin:"} ;;
    *) break ;;
  esac
done
PATH=${PATH#:}
PATH=${PATH%:}
if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.14 python3.13 python3.12 python3.11; fi
for name in "$@"; do
  if found=$(command -v "$name") && "$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "$found"
    exit 0
  fi
done
if version=$("$1" --version 2>&1); then here="$1 is $version"; else here="there is no $1 here"; fi
echo "Berth needs Python 3.11 or newer, and $here. Install one, or name it: PYTHON=/path/to/python3.12" >&2
exit 1
