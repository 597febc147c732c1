#!/bin/sh
# Compiles every lock from its .in file again: `requirements/lock.sh [--upgrade]`. Hashes, and no index's address.
# Images of HTTP services install theirs with --no-deps, so what is excluded (requirements/excluded.txt) is not in them.
set -eu
cd "$(dirname "$0")/.."
for wish in requirements/controller.in requirements/mitogen.in requirements/secret-managers.in requirements/dev.in services/*/requirements*.in; do
  case $wish in
    services/shared/*) continue ;; # part of the others
    # With the libraries of every service.
    requirements/dev.in) more=$(printf '../%s ' services/*/requirements.in) ;;
    services/*) if grep -q requirements-web "$wish"; then more="--excludes ../../requirements/excluded.txt"; else more=; fi ;;
    *) more= ;;
  esac
  # shellcheck disable=SC2086  # words, or none
  (cd "$(dirname "$wish")" && uv pip compile --quiet --no-config --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" "$@" \
    --output-file "$(basename "$wish" .in).txt" "$(basename "$wish")" $more)
done
