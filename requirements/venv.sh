#!/bin/sh
# Makes the virtual environment .venv, or completes it: venv.sh controller|dev
#   controller   what runs the playbooks
#   dev          the tests' and linters' tools as well
set -eu
cd "$(dirname "$0")/.."
python=$(requirements/python.sh)

# Not so after an interrupted installation, when the folder has moved, or when the machine's Python was upgraded.
is_sound() {
  [ -f .venv/controller ] && .venv/bin/python - 2>/dev/null <<'END'
import os, sys
import ansible
with open(".venv/bin/ansible-playbook") as script:
    sys.exit(sys.version_info < (3, 11) or os.path.realpath(".venv") + "/bin/python" not in script.read())
END
}

# The lock, copied when all of it is installed, says what is.
install() {
  cmp -s "requirements/$1.txt" ".venv/$1" && return
  echo "Python packages for the $2 (.venv)"
  rm -f ".venv/$1"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "requirements/$1.txt"
  cp "requirements/$1.txt" ".venv/$1"
}

PYTHON=$python requirements/system.sh ensurepip=python3-venv ssh=openssh-client
if ! is_sound; then
  [ ! -e .venv ] || echo "Making .venv anew, since it is unfinished, was moved, or its Python has changed"
  rm -rf .venv
  "$python" -m venv .venv
fi
install controller controller
if [ "$1" = dev ]; then
  requirements/system.sh chromium=chromium certutil=libnss3-tools shellcheck=shellcheck age-keygen=age
  install dev tests
fi
if [ -n "$(find . -prune -perm -0002)" ]; then
  echo "Everybody may write to this folder, so Ansible ignores its ansible.cfg and finds no roles: chmod o-w '$PWD'" >&2
fi
