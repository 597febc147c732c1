#!/bin/sh
# As in the official image: an empty volume becomes a cluster with POSTGRES_USER, its password from POSTGRES_PASSWORD_FILE (or
# POSTGRES_PASSWORD), and POSTGRES_DB. The local socket needs no password, everything else does.
set -eu
case "${1:-}" in
  -*) set -- postgres "$@" ;;
esac
[ "$1" = postgres ] || exec "$@"
echo "PostgreSQL from Debian's package, standing in for the official image"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); fi
  if [ -z "${POSTGRES_PASSWORD:-}" ]; then
    echo "Set POSTGRES_PASSWORD_FILE: the database is empty, and its superuser needs a password." >&2
    exit 1
  fi
  file=$(mktemp)
  trap 'rm -f "$file"' EXIT
  printf '%s\n' "$POSTGRES_PASSWORD" > "$file"
  initdb --username="$user" --pwfile="$file" --auth-local=trust --auth-host=scram-sha-256
  printf '\nhost all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
  printf "listen_addresses = '*'\n" >> "$PGDATA/postgresql.conf"
  if [ "$database" != postgres ]; then
    printf 'CREATE DATABASE "%s"\n' "$database" | postgres --single -D "$PGDATA" postgres
  fi
  rm -f "$file"
fi
unset POSTGRES_PASSWORD
exec "$@"
