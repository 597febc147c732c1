#!/bin/sh
# Renew every service's requirements.txt from its requirements.in: `services/lock.sh [--upgrade]`. Needs uv in PATH.
set -eu
cd "$(dirname "$0")"
for service in auth_service user_service celery_worker; do
    (cd "$service" && uv pip compile --quiet --no-config --universal --generate-hashes --no-emit-index-url \
        --python-version 3.11 --custom-compile-command "services/lock.sh" "$@" \
        --output-file requirements.txt requirements.in)
done
