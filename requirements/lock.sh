#!/bin/sh
# Compiles every lock from its .in file again: `requirements/lock.sh [--upgrade]`. Hashes, and no index's address.
# Images of the two HTTP services install theirs with --no-deps, so what is excluded (requirements/excluded.txt) is not in them.
set -eu
cd "$(dirname "$0")/.."
for wish in requirements/controller requirements/mitogen requirements/dev \
    services/auth_service/requirements services/user_service/requirements services/celery_worker/requirements services/celery_worker/requirements-dev; do
  case $wish in services/auth_service/* | services/user_service/*) except="--excludes ../../requirements/excluded.txt" ;; *) except= ;; esac
  # shellcheck disable=SC2086  # one option of two words, or none
  (cd "$(dirname "$wish")" && uv pip compile --quiet --no-config --universal --python-version 3.11 $except \
    --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" "$@" \
    --output-file "$(basename "$wish").txt" "$(basename "$wish").in")
done
