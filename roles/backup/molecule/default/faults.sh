#!/bin/bash
# usage: faults.sh ADDRESS_OF_THE_STORE [long]. Each fault, then a run that succeeds; ends at the first that does not go as it should.
set -euo pipefail
store=$1

fail() {
  echo "$1" >&2
  journalctl --no-pager --lines=20 --unit=berth-backup >&2
  exit 1
}
until_true() {
  for _ in $(seq 3000); do
    "$@" && return
    sleep 0.1
  done
  fail "$* has not become true within 300 s"
}
held() { [ -e /var/lib/berth-backup/held ]; }
ended() { [ "$(systemctl show --property=ActiveState --value berth-backup)" != activating ]; }
# A run that waits in the middle.
begin() {
  rm -f /var/lib/berth-backup/held
  touch /run/hold
  systemctl start --no-block berth-backup
  until_true held
}
go_on() {
  rm /run/hold
  until_true ended
}
says() {
  berth backup status | grep --quiet --fixed-strings "$1" || fail "status does not say: $1"
}
well() {
  systemctl start berth-backup || fail "the run after it failed"
  for target in folder keeper; do
    [ -z "$(berth backup restic "$target" list locks --no-lock --quiet)" ] || fail "a lock was left on $target"
  done
}

# Two at once: the second ends with a sentence. While the first is at it, no command line shows a secret.
begin
python3 -c 'import json
known = json.load(open("/opt/berth/backup/secrets.json"))
print(known["password"], *(value for one in known["environment"].values() for value in one.values() if len(value) > 8), sep="\n")' > /run/secrets-known
pgrep --full 'restic .*--stdin' > /dev/null || fail "restic is not at it"
cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\0' '\n' | grep --fixed-strings --file=/run/secrets-known && fail "a command line shows a secret"
rm /run/secrets-known
answer=$(berth backup run 2> /dev/null) && fail "two ran at once"
[[ $answer == *"has held the run lock since"*"Wait until it is done"* ]] || fail "$answer"
go_on
journalctl --no-pager --unit=watcher | grep --quiet 'GET /ping ' || fail "the watcher did not hear of a good run"
[ "$(systemctl show --property=Result --value berth-backup)" = success ] || fail "the first of two did not end well"

# Killed in the middle, as by a power cut: no half run counts, and the lock of the dead goes.
before=$(berth backup list | grep -o '"run"' | wc -l)
begin
systemctl kill --signal=KILL berth-backup
go_on
[ "$(berth backup list | grep -o '"run"' | wc -l)" = "$before" ] || fail "half a run counts"
well

# A store goes away in the middle: it is given up and told, the others go on. Giving up can take minutes: make test-long.
if [ "${2:-}" = long ]; then
  begin
  nft "table inet away { chain out { type filter hook output priority 0; ip daddr $store tcp dport 8000 drop; }; }"
  told() { journalctl --no-pager --unit=watcher | awk '/GET \/ping\/fail /{ n++ } END { print n + 0 }'; }
  failures=$(told)
  go_on
  [ "$(told)" = $((failures + 1)) ] || fail "the watcher was not told"
  [ "$(systemctl show --property=Result --value berth-backup)" = exit-code ] || fail "a store that is away was not told"
  says "Target store (rest:http://$store:8000/site)"
  grep --quiet 'last_result{target="store"} 0' /var/lib/berth/metrics/berth_backup.prom || fail "no metric of it"
  grep --quiet 'last_result{target="folder"} 1' /var/lib/berth/metrics/berth_backup.prom || fail "it held up another store"
  nft delete table inet away
  well
fi

# No room for restic's cache: it goes on without.
mount -t tmpfs -o size=16k tmpfs /var/cache/berth-backup
systemctl start berth-backup || fail "a full cache stopped the backup"
umount /var/cache/berth-backup

# No room in a store: it is told, the others go on, and with room again so does this one.
cp -a /srv/backup /run/kept-store
mount -t tmpfs -o "size=$(($(du --summarize --block-size=1K /srv/backup | cut -f1) + 1000))k" tmpfs /srv/backup
cp -a /run/kept-store/. /srv/backup/
systemctl start berth-backup && fail "a full store was not told"
says "no space left on device"
grep --quiet 'last_result{target="store"} 1' /var/lib/berth/metrics/berth_backup.prom || fail "it held up another store"
mount -o remount,size=1g /srv/backup
well
umount /srv/backup
rm -r /run/kept-store
well

# No room for what is remembered: told in one sentence, and nothing of the old is lost.
cp -a /var/lib/berth-backup /run/kept
mount -t tmpfs -o "size=$(($(du --summarize --block-size=1K /run/kept | cut -f1) + 4))k" tmpfs /var/lib/berth-backup
cp -a /run/kept/. /var/lib/berth-backup/
if dd if=/dev/zero of=/var/lib/berth-backup/filler bs=1k 2> /dev/null; then fail "the disk did not fill"; fi
answer=$(berth backup run 2> /dev/null) && fail "a full disk was not told"
[[ $answer == *"The disk is full"* ]] || fail "$answer"
umount /var/lib/berth-backup
well
