#!/usr/bin/env bash
# The application's images, from the job that builds them to the jobs that release them:
#   .ci/images.sh build     builds them on the official images, with an SBOM for each in sbom/
#   .ci/images.sh publish   signs them and the platform's; then pushes ours to $IMAGE_PREFIX, or writes all to .cache/images.tar
#   .ci/images.sh fetch     loads .cache/images.tar; with a registry, the hosts pull
#   .ci/images.sh rebuild   builds and pulls all of them for a dry run, which only looks whether they exist
set -euo pipefail
cd "$(dirname "$0")/.."
local_prefix=localhost/berth
prefix=${IMAGE_PREFIX:-$local_prefix}
archive=.cache/images.tar

build() {
  .venv/bin/python images/engine.py
  .venv/bin/python images/build.py "$@" --images registry --prefix "$prefix"
}

hosts_pull() {
  [ "$prefix" != "$local_prefix" ]
}

publish() {
  : "${SIGNING_KEY:?is empty: the private key that signs releases (docs/pipelines.md)}"
  if hosts_pull; then
    build app platform --sign production --push
  else
    build app platform --sign production --save "$archive"
  fi
}

fetch() {
  if hosts_pull; then
    echo "images: the hosts pull from $prefix"
    return
  fi
  [ -f "$archive" ] || { echo "images: there is no $archive, which the job that builds writes" >&2; return 1; }
  .venv/bin/python images/engine.py
  docker load --quiet --input "$archive"
}

case ${1:-} in
  build) build app --sbom sbom/ ;;
  publish) publish ;;
  fetch) fetch ;;
  rebuild) hosts_pull || build app platform ;;
  *)
    echo "usage: .ci/images.sh build|publish|fetch|rebuild" >&2
    exit 2
    ;;
esac
