#!/bin/bash
# usage: faults.sh ADDRESS_OF_THE_STORE [long]. Each fault, then a successful run; exits at the first unexpected result.
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
  fail "timed out after 300 s: $*"
}
held() { [ -e /var/lib/berth-backup/held ]; }
ended() { [ "$(systemctl show --property=ActiveState --value berth-backup)" != activating ]; }
# Starts a run that pauses in the middle.
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
  berth backup status | grep --quiet --fixed-strings "$1" || fail "not in the status: $1"
}
well() {
  systemctl start berth-backup || fail "the run after the fault failed"
  for target in folder keeper; do
    [ -z "$(berth backup restic "$target" list locks --no-lock --quiet)" ] || fail "a stale lock is left on $target"
  done
}

# Two runs at once: the second is refused with a reason. No command line of the first shows a secret.
begin
python3 -c 'import json
known = json.load(open("/opt/berth/backup/secrets.json"))
print(known["password"], *(value for one in known["environment"].values() for value in one.values() if len(value) > 8), sep="\n")' > /run/secrets-known
pgrep --full 'restic .*--stdin' > /dev/null || fail "restic is not running"
cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\0' '\n' | grep --fixed-strings --file=/run/secrets-known && fail "a command line shows a secret"
rm /run/secrets-known
answer=$(berth backup run 2> /dev/null) && fail "two runs at once"
[[ $answer == *"has held the run lock since"*"Wait until it is done"* ]] || fail "$answer"
go_on
journalctl --no-pager --unit=watcher | grep --quiet 'GET /ping ' || fail "the ping URL was not called after a successful run"
[ "$(systemctl show --property=Result --value berth-backup)" = success ] || fail "the first of two runs failed"

# Killed in the middle, as by a power cut: an incomplete run does not count, and its stale lock is removed.
before=$(berth backup list | grep -o '"run"' | wc -l)
begin
systemctl kill --signal=KILL berth-backup
go_on
[ "$(berth backup list | grep -o '"run"' | wc -l)" = "$before" ] || fail "an incomplete run counts"
well

# A target becomes unreachable in the middle: it fails and is reported, the others continue. The timeout takes minutes: make test-long.
if [ "${2:-}" = long ]; then
  begin
  nft "table inet away { chain out { type filter hook output priority 0; ip daddr $store tcp dport 8000 drop; }; }"
  failure_pings() { journalctl --no-pager --unit=watcher | awk '/GET \/ping\/fail /{ n++ } END { print n + 0 }'; }
  failures=$(failure_pings)
  go_on
  [ "$(failure_pings)" = $((failures + 1)) ] || fail "the failure URL was not called"
  [ "$(systemctl show --property=Result --value berth-backup)" = exit-code ] || fail "an unreachable target was not reported"
  says "Target store (rest:http://$store:8000/site)"
  grep --quiet 'last_result{target="store"} 0' /var/lib/berth/metrics/berth_backup.prom || fail "no metric for it"
  grep --quiet 'last_result{target="folder"} 1' /var/lib/berth/metrics/berth_backup.prom || fail "it affected another target"
  nft delete table inet away
  well
fi

# No space for restic's cache: the run continues without it.
mount -t tmpfs -o size=16k tmpfs /var/cache/berth-backup
systemctl start berth-backup || fail "a full cache disk stopped the backup"
umount /var/cache/berth-backup

# A repository on a full disk: it is reported, the others continue, and once there is space it works again.
cp -a /srv/backup /run/kept-store
mount -t tmpfs -o "size=$(($(du --summarize --block-size=1K /srv/backup | cut -f1) + 1000))k" tmpfs /srv/backup
cp -a /run/kept-store/. /srv/backup/
systemctl start berth-backup && fail "a full repository disk was not reported"
says "no space left on device"
grep --quiet 'last_result{target="store"} 1' /var/lib/berth/metrics/berth_backup.prom || fail "it affected another target"
mount -o remount,size=1g /srv/backup
well
umount /srv/backup
rm -r /run/kept-store
well

# No space for the state directory: reported in one sentence, and existing state is kept.
cp -a /var/lib/berth-backup /run/kept
mount -t tmpfs -o "size=$(($(du --summarize --block-size=1K /run/kept | cut -f1) + 4))k" tmpfs /var/lib/berth-backup
cp -a /run/kept/. /var/lib/berth-backup/
if dd if=/dev/zero of=/var/lib/berth-backup/filler bs=1k 2> /dev/null; then fail "the disk did not fill"; fi
answer=$(berth backup run 2> /dev/null) && fail "a full disk was not reported"
[[ $answer == *"The disk is full"* ]] || fail "$answer"
umount /var/lib/berth-backup
well
