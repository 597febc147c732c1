"""Explain why Ansible cannot log in or become root: the message of ssh or sudo, and a remedy."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible.plugins.lookup import LookupBase  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: first_contact
short_description: Explain why Ansible cannot log in or become root, with a remedy
description:
  - Maps messages of ssh and sudo to the command or the variable that fixes them.
  - Mitogen does not pass on all messages of ssh. If a message has no reason, ssh is run once more to get it.
options:
  _terms:
    description: The message of the task that failed.
    required: true
  user:
    description: The account that logged in, if it is not ansible_user.
  login:
    description: Whether the login failed. If not, ssh is not run.
    type: bool
    default: true
"""

SSH_SECONDS = 30

# Message of ssh -> remedy; the first match counts.
SSH = {
    r"REMOTE HOST IDENTIFICATION HAS CHANGED": """\
{host} presents another host key than the one in known_hosts. Either the server was reinstalled, or another machine
answers in its place. Compare the new key; only if the fingerprints are the same, replace the old key:
{compare}
  ssh-keygen -f {known_hosts} -R '{known_as}'
  cat host.key >> {known_hosts}""",
    r"Host key verification failed|host key is known for": """\
The host key of {host} is not in known_hosts yet. Compare it; only if the fingerprints are the same, accept it:
{compare}
  cat host.key >> {known_hosts}""",
    r"Too many authentication failures": """\
ssh offered too many keys (ssh-add -l lists those of the agent), so the server closed the connection. Name the right one
in hosts.yml:
  ansible_ssh_private_key_file: ~/.ssh/<the key>
  ansible_ssh_common_args: -o IdentitiesOnly=yes""",
    r"UNPROTECTED PRIVATE KEY FILE|bad permissions": """\
ssh does not use a key that others can read:
  chmod 600 {key}""",
    r"[Ii]dentity file \S+ not accessible|no such identity": """\
There is no such key on this machine. Correct ansible_ssh_private_key_file in hosts.yml.""",
    r"no matching (key exchange method|host key type|cipher|MAC)": """\
This machine's OpenSSH (ssh -V) has no algorithm in common with the server. Use a newer one (8.5 or later), or allow the
older algorithm with hardening_ssh_kex, hardening_ssh_ciphers or hardening_ssh_macs.""",
    r"[Pp]ermission denied": """\
The server accepts none of the offered keys for {user}. List them:
  {ssh} -v true 2>&1 | grep -E 'Offering|continue'
Name the right one in hosts.yml (ansible_ssh_private_key_file); a key with a passphrase must be in the agent (ssh-add).
If the server accepts only a password so far, install your key first:
  ssh-copy-id -p {port} {user}@{host}""",
    r"Connection refused": """\
Nothing listens on port {port} of {host}. If sshd listens on another port, name it in hosts.yml:
  ansible_port: <port>
If it worked before, your address may be banned for failed logins: docs/disasters/locked-out-of-ssh.md.""",
    r"timed out|No route to host|Network is unreachable": """\
No answer on port {port} of {host}. Is the address right, and is the server running? Does the provider's firewall
(security group) allow port {port} from here? If sshd listens on another port, name it in hosts.yml:
  ansible_port: <port>""",
    r"Could not resolve hostname": """\
{host} does not resolve. Write the server's address in hosts.yml:
  ansible_host: 203.0.113.7""",
    r"[Cc]onnection (closed|reset) by|kex_exchange_identification": """\
The server closed the connection before the login: it may be booting or have too many unfinished logins, or port {port}
is not sshd's. Try:
  {ssh}""",
}
# Message of Ansible, or of the host's login, shell or sudo -> remedy.
OTHERS = {
    r"Please login as the user \W*(?P<other>[a-z_][\w-]*)": """\
This server's first account is {other}. In hosts.yml:
  berth_first_login: {other}""",
    r"[Pp]assword change required|change your password immediately|[Pp]assword has expired": """\
The server requires a new password for {user} first. Log in once by hand and set one:
  {ssh}""",
    r"account is currently not available": """\
{user} has no shell on {host} (nologin), so it cannot log in. Use another account.""",
    r"install the sshpass program": """\
Berth logs in with keys, not with passwords. Install your key first:
  ssh-copy-id -p {port} {user}@{host}
and remove ansible_password.""",
    r"sudo password is incorrect|Incorrect sudo password|incorrect password attempt": """\
The sudo password of {user} is wrong: run it again with -K, or correct ansible_become_password.""",
    r"sudo: a password is required|sudo password is required|Missing sudo password": """\
sudo asks {user} for a password. Run it again with -K, which prompts for it, or store it in the vault and name it in
hosts.yml:
  ansible_become_password: "{{{{ vault_become_password }}}}"
Only the first run needs it: the administrators that it creates use sudo without a password.""",
    r"must have a tty|no tty present": """\
sudo requires a terminal (requiretty), and Ansible has none. In a shell on the server, as root:
  echo 'Defaults:{user} !requiretty' > /etc/sudoers.d/{user}-tty && chmod 440 /etc/sudoers.d/{user}-tty && visudo -c""",
    r"not in the sudoers file|not allowed to execute|may not run sudo": """\
{user} may not use sudo. Name an account that may, or root, in hosts.yml:
  berth_first_login: root""",
    r"sudo: (command )?not found|exec: sudo|No such file or directory: '+sudo": """\
The server has no sudo. Log in as root for the first run, which installs it; in hosts.yml:
  berth_first_login: root""",
    r"python[\d.]*:? (command )?(not found|No such file)|python[\d.]*' was not found|No python interpreters found": """\
The server has no Python, which Ansible needs:
  {ssh} 'apt-get update && apt-get install --yes python3'""",
}
# Mitogen's message, if ssh itself could not be run -> remedy.
MITOGEN = {
    r"SSH (authentication|password) is incorrect|SSH password was requested": SSH[r"[Pp]ermission denied"],
    r"Connection timed out": SSH[r"timed out|No route to host|Network is unreachable"],
}
COMPARE = """\
  ssh-keyscan -t ed25519 -p {port} {host} > host.key
  ssh-keygen -lf host.key    # in the provider's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"""


@dataclass(frozen=True)
class Login:
    """Ansible's connection variables of one host."""

    host: str
    user: str
    port: str = "22"
    key: str = ""
    arguments: tuple[str, ...] = ()

    def command(self, *options: str) -> list[str]:
        """Return the ssh command for this login, with further options before those of the inventory."""
        key = ["-i", self.key, "-o", "IdentitiesOnly=yes"] if self.key else []
        return ["ssh", *options, "-p", self.port, "-l", self.user, *key, *self.arguments, self.host]

    def values(self) -> dict[str, str]:
        """Return the values for the placeholders in remedies."""
        named = re.search(r"UserKnownHostsFile=(\S+)", " ".join(self.arguments))
        values = {
            "host": self.host,
            "user": self.user,
            "port": self.port,
            "key": self.key or "~/.ssh/<the key>",
            "known_hosts": named[1] if named else "~/.ssh/known_hosts",
            "known_as": self.host if self.port == "22" else f"[{self.host}]:{self.port}",
            "ssh": shlex.join(self.command()),
        }
        return {**values, "compare": COMPARE.format(**values)}


def remedy(words: str, login: Login, table: Mapping[str, str]) -> str:
    """Return the remedy for a message; empty if the table has none."""
    flat = re.sub(r"\s+", " ", words)
    for pattern, text in table.items():
        if found := re.search(pattern, flat):
            return text.format(**login.values(), **found.groupdict())
    return ""


def ask_ssh(login: Login) -> str:
    """Run ssh for the same login and return its error; empty if it succeeds or ssh is missing."""
    options = ["ControlPath=none", "BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=yes", "LogLevel=INFO"]
    command = login.command(*(part for option in options for part in ("-o", option)))
    try:
        asked = subprocess.run(
            [*command, "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SSH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode else ""


def explain(message: str, login: Login) -> str:
    """Return the remedy for a failed login, after ssh's own message if `message` lacks it."""
    if known := remedy(message, login, OTHERS) or remedy(message, login, SSH):
        return known
    said = ask_ssh(login)
    helps = remedy(said, login, SSH) or remedy(message, login, MITOGEN)
    return "\n".join(part for part in (said, helps) if part)


class LookupModule(LookupBase):  # type: ignore[misc]
    """Returns a remedy for each message."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        """Return one text for each message; empty if no remedy is known."""
        known = variables or {}

        def value(name: str) -> str:
            found = self._templar.template(known[name]) if name in known else None
            return "" if found is None else str(found)

        arguments = [value(f"ansible_ssh_{kind}args") for kind in ("", "common_", "extra_")]
        login = Login(
            host=value("ansible_host") or value("inventory_hostname"),
            user=options.get("user") or value("ansible_user") or "root",
            port=value("ansible_port") or "22",
            key=value("ansible_ssh_private_key_file"),
            arguments=tuple(shlex.split(" ".join(arguments))),
        )
        if options.get("login", True):
            return [explain(message, login) for message in terms]
        return [remedy(message, login, OTHERS) for message in terms]
