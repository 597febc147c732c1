#!/bin/bash
# Damages a store in every way, each time from a good copy; ends at the first damage that is not found or not said.
set -euo pipefail
settings=/opt/berth/backup
check=(berth backup check --target folder)

fail() {
  echo "$1" >&2
  exit 1
}
# usage: found SENTENCE [COMMAND...]: the check fails, and says why.
found() {
  "${@:2}" > /dev/null 2>&1 && fail "not found: $1"
  grep --quiet 'check_result{target="folder"} 0' /var/lib/berth/metrics/berth_backup.prom || fail "no metric: $1"
  berth backup status | grep --quiet --fixed-strings "$1" || fail "not said: $1; but $(berth backup status)"
  rm -rf /srv/backup
  cp -a /srv/good /srv/backup
}
largest() { find /srv/backup/data -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2; }

systemctl start berth-backup berth-backup-check || fail "a good store was found wanting: $(berth backup status)"
cp -a /srv/backup /srv/good
cp -a "$settings" /run/settings

chmod u+w "$(largest)"
truncate --size=-1000 "$(largest)"
found "The repository of target folder is damaged" systemctl start berth-backup-check

pack=$(largest)
chmod u+w "$pack"
printf '\x00\xff\x00' | dd of="$pack" bs=1 seek=5000 conv=notrunc 2> /dev/null
found "The repository of target folder is damaged" "${check[@]}"

rm "$(largest)"
found "The repository of target folder is damaged" "${check[@]}"

sed -i 's/password-of-the-test/password-of-another/' "$settings/secrets.json"
found "does not open with backup_password" "${check[@]}"
cp -a /run/settings/. "$settings"

sed -i 's/"max_age_hours": .*/"max_age_hours": -1,/' "$settings/settings.json"
found "and backup_max_age_hours is -1" "${check[@]}"
cp -a /run/settings/. "$settings"

# A repository that is gone is told and not made anew.
rm -rf /srv/backup
systemctl start berth-backup 2> /dev/null && fail "a new repository was made in silence"
berth backup status | grep --quiet "is missing at /srv/backup" || fail "$(berth backup status)"
cp -a /srv/good /srv/backup
systemctl start berth-backup berth-backup-check || fail "the good copy was found wanting: $(berth backup status)"
