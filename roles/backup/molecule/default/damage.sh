#!/bin/bash
# Damages a repository in several ways, each time from an intact copy; exits at the first damage that is not detected and reported.
set -euo pipefail
settings=/opt/berth/backup
check=(berth backup check --target folder)

fail() {
  echo "$1" >&2
  exit 1
}
# usage: found MESSAGE [COMMAND...]: the check fails and reports the reason.
found() {
  "${@:2}" > /dev/null 2>&1 && fail "not detected: $1"
  grep --quiet 'check_result{target="folder"} 0' /var/lib/berth/metrics/berth_backup.prom || fail "no metric: $1"
  berth backup status | grep --quiet --fixed-strings "$1" || fail "not reported: $1; instead: $(berth backup status)"
  rm -rf /srv/backup
  cp -a /srv/good /srv/backup
}
largest() { find /srv/backup/data -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2; }

systemctl start berth-backup berth-backup-check || fail "the check failed on an intact repository: $(berth backup status)"
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

# A missing repository is reported, and no new one is created.
rm -rf /srv/backup
systemctl start berth-backup 2> /dev/null && fail "a new repository was created silently"
berth backup status | grep --quiet "is missing at /srv/backup" || fail "$(berth backup status)"
cp -a /srv/good /srv/backup
systemctl start berth-backup berth-backup-check || fail "the check failed on the intact copy: $(berth backup status)"
