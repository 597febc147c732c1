# {{ ansible_managed }}
umask {{ hardening_umask }}
# Only bash knows the timeout; asked twice it would complain of its own constant.
if [ -n "${BASH_VERSION:-}" ] && [ -z "${TMOUT:-}" ]; then
typeset -xr TMOUT={{ hardening_shell_timeout_seconds }}
fi
