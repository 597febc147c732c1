#!/bin/sh
# Installs the system packages a word of the Makefile needs, where the user is root on Debian; elsewhere names them.
# usage: system.sh PROGRAM=PACKAGE ...   (a package is installed only when its program is missing)
set -eu
missing=
for pair in "$@"; do
  program=${pair%%=*}
  package=${pair#*=}
  case $program in
    ensurepip) "${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || missing="$missing $package" ;;
    *) command -v "$program" >/dev/null || missing="$missing $package" ;;
  esac
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then
  echo "  installing$missing from Debian's packages"
  apt-get -qq update
  # shellcheck disable=SC2086  # a list of package names
  DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $missing >/dev/null
else
  echo "Missing on this machine:$missing. Install with your package manager, then run this again." >&2
  exit 1
fi
