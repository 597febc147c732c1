#!/usr/bin/env bash
# Compares hosts with this checkout, and changes nothing: a dry run of site.yml that fails where something would change.
#   .ci/drift.sh -i inventories/production        (or: make drift ENV=production)
# Exit status 0: no difference. 1: a host differs, and the last line names it. 2: the dry run failed, so nothing is known.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "usage: .ci/drift.sh -i inventories/<env>" >&2; exit 2; }
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_FORCE_COLOR=false

said=$(mktemp)
trap 'rm -f "$said"' EXIT
ansible-playbook site.yml --check --diff "$@" | tee "$said" || {
  echo "Drift: the dry run failed, so it is not known whether a host differs from the repository." >&2
  exit 2
}
# Lines of the recap: "production : ok=12 changed=3 ...".
recap=$(sed -n '/^PLAY RECAP/,$p' "$said" | sed -nE 's/^(\S+) +: ok=[0-9]+ +changed=([0-9]+) .*/\1 \2/p' | grep -v '^localhost ') || {
  echo "Drift: no host was compared." >&2
  exit 2
}
differ=$(awk '$2 > 0 {printf "%s%s (%s)", sep, $1, $2; sep = ", "}' <<<"$recap")
if [ -n "$differ" ]; then
  echo "Drift: tasks that would change something, which are above: $differ. To make it equal: ansible-playbook site.yml $*" >&2
  exit 1
fi
echo "No drift: $(awk '{printf "%s%s", sep, $1; sep = ", "}' <<<"$recap") as the repository says."
