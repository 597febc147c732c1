#!/bin/sh
# As in the official image: on an empty data directory, make the root user first; then become mongod.
set -eu

data=/data/db
mark=$data/.root-user-created
# Not the usual port, so that a health check cannot take this first server for the real one.
port=27018

case "${1:-mongod}" in
  -*) set -- mongod "$@" ;;
esac

if [ "$1" = mongod ] && [ -n "${MONGO_INITDB_ROOT_USERNAME:-}" ] && [ ! -e "$mark" ]; then
  echo "Creating the root user $MONGO_INITDB_ROOT_USERNAME"
  mongod --dbpath "$data" --port "$port" &
  first=$!
  # Only now: a shell that is process 1 would otherwise ignore a stop during these seconds.
  trap 'kill "$first"; wait "$first"; exit 143' TERM INT
  create-root-user "$port" "$MONGO_INITDB_ROOT_USERNAME" "${MONGO_INITDB_ROOT_PASSWORD_FILE:-}" || {
    kill "$first"
    exit 1
  }
  kill "$first"
  wait "$first"
  trap - TERM INT
  touch "$mark"
fi

exec "$@"
