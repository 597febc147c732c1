#!/bin/sh
# The host's properties that the subjects depend on, as YAML, gathered in one command.
set -u
says() { if "$@" > /dev/null 2>&1; then echo true; else echo false; fi; }

container=$(systemd-detect-virt --container)
echo "container: $container"
echo "kernel_modules: $(says test "$container" = none -a -d "/lib/modules/$(uname -r)")"
echo "apparmor: $(says grep -q Y /sys/module/apparmor/parameters/enabled)"
echo "audit: $(says test "$container" = none -a -e /proc/self/loginuid)"
echo "grub: $(says test "$container" = none -a -e /etc/default/grub)"
echo "apparmor_complaining: [$(find /etc/apparmor.d -maxdepth 1 -type f -exec \
  grep --files-with-matches --extended-regexp '^[^#]*flags=\([^)]*complain' {} + 2> /dev/null | paste -sd,)]"
# Mount points in fstab; whether /tmp is a separate mount.
echo "fstab: [$(awk '$1 !~ /^#/ && $2 ~ "^/" { print $2 }' /etc/fstab 2> /dev/null | paste -sd,)]"
echo "tmp_mounted: $(says mountpoint --quiet /tmp)"
# The interface with router advertisements for IPv6.
echo "ipv6_router_interface: $(ip -6 route show default proto ra 2> /dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)"
echo "privileged_programs: [$(find /usr/bin /usr/sbin /usr/lib /usr/libexec -xdev -perm /6000 -type f | sort | paste -sd,)]"
# World-executable compilers, assemblers and linkers, with symlinks resolved.
echo "compilers: [$(for name in as cc c++ clang clang++ cpp g++ gcc go ld rustc tcc; do readlink -e "/usr/bin/$name"; done \
  | sort -u | while read -r program; do find "$program" -perm /0001; done | paste -sd,)]"
echo "groups: [$(cut -d: -f1 /etc/group | paste -sd,)]"
echo "homes: [$(awk -F: '$3 >= 1000 && $3 < 60000 && $6 ~ "^/.*/" { print $6 }' /etc/passwd | paste -sd,)]"
echo "calendars: [$(echo "$CALENDARS" | while read -r time; do printf '%s, ' "$(says systemd-analyze calendar "$time")"; done)]"
echo "pam_in_force: $(says sh -c "$PAM_IN_FORCE")"
echo "running: [$(for unit in acct sysstat fail2ban berth-aide-check.timer berth-malware-check.timer; do
  systemctl is-active --quiet $unit && systemctl is-enabled --quiet $unit && printf '%s, ' $unit
done)]"
echo "ssh_port: $(sshd -T 2> /dev/null | sed -n 's/^port //p' | head -n 1)"

# Algorithms that this sshd supports, and host keys that are strong enough.
for kind in kex cipher mac key-sig; do
  echo "ssh_$(echo $kind | tr - _): [$(ssh -Q $kind 2> /dev/null | paste -sd,)]"
done
echo "ssh_host_keys:"
for key in /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_rsa_key; do
  if [ -e "$key" ] && [ "$(ssh-keygen -lf "$key" | cut -d' ' -f1)" -ge "$(case $key in *rsa*) echo 3072;; *) echo 256;; esac)" ]; then
    echo "  - $key"
  fi
done
echo "packages:"
# shellcheck disable=SC2016  # dpkg's own variables
dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' | sed -n 's/^installed /  - /p'
