#!/usr/bin/env bash
# Rolls an environment back to the release before, or to a named one:
#   .ci/rollback.sh production [1.3.9]
# Checks both words first: in a pipeline they come from a form, and must not become other options or variables.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${1:-} to=${2:-}
[[ $environment =~ ^[A-Za-z0-9_-]+$ && -d inventories/$environment ]] || {
  echo "usage: .ci/rollback.sh ENVIRONMENT [RELEASE]; ENVIRONMENT is a folder of inventories/" >&2
  exit 2
}
[[ $to =~ ^[A-Za-z0-9._-]*$ ]] || {
  echo "rollback: that is no name of a release; status.yml lists them" >&2
  exit 2
}
.ci/ssh.sh ansible-playbook ansible/rollback.yml -i "inventories/$environment" ${to:+-e "to=$to"}
