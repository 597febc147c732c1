#!/bin/bash
# usage: rekey.sh OLD NEW. Changes the password; the first attempt fails on one target. Exits at the first unexpected result.
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
# A running check or drill uses the old password, so rekey waits for its end.
rekey_after() {
  coproc flock "$state/$1.lock" sh -c 'echo locked; sleep 0.5'
  read -r _ <&"${COPROC[0]}"
  answer=$(berth backup rekey 2> /dev/null) || fail "$answer"
  flock --nonblock "$state/$1.lock" true || fail "it did not wait for the $1"
}
runs() { berth backup list --target "$1" | grep --only-matching '"run": "[^"]*"' | wc -l; }

before=$(runs folder)
[ "$before" -gt 0 ] || fail "there is no earlier run"
set_to "$new" "$old"
cp "$secrets" /run/secrets-right
sed -i 's/\("RESTIC_REST_PASSWORD": \)"[^"]*"/\1"wrong"/' "$secrets"
answer=$(berth backup rekey 2> /dev/null) && fail "a failed target was not reported"
[[ $answer == *"Target store"*"The previous password is still in use on these targets"* ]] || fail "$answer"
cp /run/secrets-right "$secrets" && rm /run/secrets-right

# In between: two targets have the new password, one has not, and backups to all of them work.
systemctl start berth-backup || fail "the backup in between failed: $(berth backup status)"
for target in folder keeper store; do
  [ "$(runs "$target")" -gt 0 ] || fail "$target does not open in between"
done

rekey_after check
[[ $answer == *'"store": {"new": "opens from now on", "previous": "opens until its key is removed there: restic key remove '* ]] || fail "$answer"
rekey_after restore

# The new password opens all earlier runs; the old one opens only the append-only repository.
set_to "$new" ""
[ "$(runs folder)" -gt "$before" ] || fail "earlier runs are gone"
berth backup check > /dev/null || fail "$(berth backup status)"
set_to "$old" ""
for target in folder keeper; do
  answer=$(berth backup check --target "$target" 2> /dev/null) && fail "the old password still opens $target"
  [[ $answer == *"does not open with backup_password"* ]] || fail "$answer"
done
[ "$(runs store)" -gt 0 ] || fail "the append-only repository lost its old key"
