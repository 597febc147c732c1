#!/bin/sh
# As in the official image, options or a configuration file alone mean redis-server.
set -eu
case "${1:-}" in
  -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "$1" = redis-server ]; then
  echo "Redis from Debian's package, standing in for the official image"
fi
exec "$@"
