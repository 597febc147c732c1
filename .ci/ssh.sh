#!/usr/bin/env bash
# Runs a command with an SSH agent that holds the key in $SSH_PRIVATE_KEY, for hosts whose keys are in $SSH_KNOWN_HOSTS:
#   .ci/ssh.sh ansible-playbook ansible/status.yml -i inventories/production
# The key is in the agent's memory only, and the agent ends with the command. A host with another key is refused.
set -euo pipefail
: "${SSH_PRIVATE_KEY:?is empty: the key that logs in to the hosts (docs/pipelines.md)}"
: "${SSH_KNOWN_HOSTS:?is empty: the lines of known_hosts for the hosts (docs/pipelines.md)}"
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

known=$(mktemp)
end() {
  [ -z "${SSH_AGENT_PID:-}" ] || ssh-agent -k >/dev/null
  rm -f "$known"
}
unset SSH_AGENT_PID
trap end EXIT
eval "$(ssh-agent -s)" >/dev/null
# A key that was pasted on Windows has carriage returns, which ssh-add refuses.
printf '%s\n' "$SSH_PRIVATE_KEY" | tr -d '\r' | ssh-add -q -
printf '%s\n' "$SSH_KNOWN_HOSTS" | tr -d '\r' >"$known"
unset SSH_PRIVATE_KEY

export ANSIBLE_SSH_COMMON_ARGS="-o UserKnownHostsFile=$known -o StrictHostKeyChecking=yes"
"$@"
