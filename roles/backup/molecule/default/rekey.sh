#!/bin/bash
# usage: rekey.sh OLD NEW. Another password, in a first try without one of the stores; ends at the first thing that is not so.
set -euo pipefail
old=$1 new=$2
secrets=/opt/berth/backup/secrets.json
state=/var/lib/berth-backup

fail() {
  echo "$1" >&2
  exit 1
}
# usage: set_to PASSWORD PREVIOUS
set_to() {
  python3 -c 'import json, sys
file, password, previous = sys.argv[1:]
known = json.load(open(file)) | {"password": password, "previous_password": previous}
open(file, "w").write(json.dumps(known, indent=4))' "$secrets" "$@"
}
# Whoever is at a repository began with the old one, so the end of a check or a drill is waited for.
rekey_after() {
  coproc flock "$state/$1.lock" sh -c 'echo mine; sleep 0.5'
  read -r _ <&"${COPROC[0]}"
  answer=$(berth backup rekey 2> /dev/null) || fail "$answer"
  flock --nonblock "$state/$1.lock" true || fail "it did not wait for the $1"
}
runs() { berth backup list --target "$1" | grep --only-matching '"run": "[^"]*"' | wc -l; }

before=$(runs folder)
[ "$before" -gt 0 ] || fail "there is no run from before"
set_to "$new" "$old"
cp "$secrets" /run/secrets-right
sed -i 's/\("RESTIC_REST_PASSWORD": \)"[^"]*"/\1"wrong"/' "$secrets"
answer=$(berth backup rekey 2> /dev/null) && fail "a store that did not take part was not told"
[[ $answer == *"Target store"*"The previous password is still in use on these targets"* ]] || fail "$answer"
cp /run/secrets-right "$secrets" && rm /run/secrets-right

# In the middle: two have the new one, one has not, and backups go on to all.
systemctl start berth-backup || fail "no backup in the middle: $(berth backup status)"
for target in folder keeper store; do
  [ "$(runs "$target")" -gt 0 ] || fail "$target does not open in the middle"
done

rekey_after check
[[ $answer == *'"store": {"new": "opens from now on", "previous": "opens until its key is removed there: restic key remove '* ]] || fail "$answer"
rekey_after restore

# Everything from before opens with the new one; the old one opens what may be changed no more.
set_to "$new" ""
[ "$(runs folder)" -gt "$before" ] || fail "runs from before are gone"
berth backup check > /dev/null || fail "$(berth backup status)"
set_to "$old" ""
for target in folder keeper; do
  answer=$(berth backup check --target "$target" 2> /dev/null) && fail "the old password still opens $target"
  [[ $answer == *"does not open with backup_password"* ]] || fail "$answer"
done
[ "$(runs store)" -gt 0 ] || fail "a store that only takes has lost its key"
