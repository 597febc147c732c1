#!/bin/sh
# Compiles every lock from its .in file again: `requirements/lock.sh [--upgrade]`. Hashes, and no index's address.
set -eu
cd "$(dirname "$0")/.."
for wish in requirements/controller requirements/dev \
    services/auth_service/requirements services/user_service/requirements services/celery_worker/requirements services/celery_worker/requirements-dev; do
  (cd "$(dirname "$wish")" && uv pip compile --quiet --no-config --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" "$@" \
    --output-file "$(basename "$wish").txt" "$(basename "$wish").in")
done
