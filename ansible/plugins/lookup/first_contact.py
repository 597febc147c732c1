"""Say what keeps Ansible from logging in or becoming root, in the words of the program that refused, and what helps."""

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
short_description: What keeps Ansible from logging in or becoming root, and what helps
description:
  - Maps what ssh or sudo said to the command or the variable that helps.
  - Mitogen does not pass on all that ssh says. Where a message leaves the reason open, ssh itself is asked once more.
options:
  _terms:
    description: The message of the task that failed.
    required: true
  user:
    description: Whom it logged in as, where that is not ansible_user.
  login:
    description: Whether no login came about. Otherwise ssh is not asked.
    type: bool
    default: true
"""

SSH_SECONDS = 30

# What ssh says, and what helps; the first that matches counts.
SSH = {
    r"REMOTE HOST IDENTIFICATION HAS CHANGED": """\
{host} shows another host key than the one that is known here. Either the server was reinstalled, or somebody answers in
its place. Compare the new key, and only if the two are the same, replace the old one by it:
{compare}
  ssh-keygen -f {known_hosts} -R '{known_as}'
  cat host.key >> {known_hosts}""",
    r"Host key verification failed|host key is known for": """\
The host key of {host} is not known here yet. Compare it, and only if the two are the same, accept it:
{compare}
  cat host.key >> {known_hosts}""",
    r"Too many authentication failures": """\
ssh offered one key after the other (ssh-add -l lists those of the agent) until the server hung up. Name the one that is
meant, in hosts.yml:
  ansible_ssh_private_key_file: ~/.ssh/<the key>
  ansible_ssh_common_args: -o IdentitiesOnly=yes""",
    r"UNPROTECTED PRIVATE KEY FILE|bad permissions": """\
ssh leaves a key alone that others can read:
  chmod 600 {key}""",
    r"[Ii]dentity file \S+ not accessible|no such identity": """\
There is no such key on this machine. Set ansible_ssh_private_key_file in hosts.yml to the one that is meant.""",
    r"no matching (key exchange method|host key type|cipher|MAC)": """\
This machine's OpenSSH (ssh -V) shares no algorithm with the server. Take a newer one (8.5 or later), or allow the older
algorithm with hardening_ssh_kex, hardening_ssh_ciphers or hardening_ssh_macs.""",
    r"[Pp]ermission denied": """\
None of the keys offered lets {user} in. See which ones that are:
  {ssh} -v true 2>&1 | grep -E 'Offering|continue'
Name the one that is meant in hosts.yml (ansible_ssh_private_key_file); one with a passphrase has to be in the agent
(ssh-add). If the server only takes a password so far, bring your key there first:
  ssh-copy-id -p {port} {user}@{host}""",
    r"Connection refused": """\
Nothing takes connections on port {port} of {host}. Where sshd listens on another port, name it in hosts.yml:
  ansible_port: <port>
If it answered before, this address may be banned for failed logins: docs/disasters/locked-out-of-ssh.md.""",
    r"timed out|No route to host|Network is unreachable": """\
Nothing answers on port {port} of {host}. Is the address right and the server on? Does the provider's firewall
(security group) let port {port} in from here? Where sshd listens on another port, name it in hosts.yml:
  ansible_port: <port>""",
    r"Could not resolve hostname": """\
DNS does not know {host}. Write the server's address in hosts.yml:
  ansible_host: 203.0.113.7""",
    r"[Cc]onnection (closed|reset) by|kex_exchange_identification": """\
The server hung up before anybody logged in: it may be starting, have too many logins under way, or something else than
sshd may listen on port {port}. Try:
  {ssh}""",
}
# What Ansible, the host's login, shell or sudo say.
OTHERS = {
    r"Please login as the user \W*(?P<other>[a-z_][\w-]*)": """\
The account of a fresh server is {other} here. In hosts.yml:
  berth_first_login: {other}""",
    r"[Pp]assword change required|change your password immediately|[Pp]assword has expired": """\
The server wants another password for {user} before anything else. Log in once by hand and give it one:
  {ssh}""",
    r"account is currently not available": """\
{user} has no shell on {host} (nologin), so this account is closed. Log in with another one.""",
    r"install the sshpass program": """\
Nothing here types passwords to ssh: accounts log in by key. Bring your key there first:
  ssh-copy-id -p {port} {user}@{host}
and leave ansible_password out.""",
    r"sudo password is incorrect|Incorrect sudo password|incorrect password attempt": """\
sudo takes another password for {user}: run it again with -K, or correct ansible_become_password.""",
    r"sudo: a password is required|sudo password is required|Missing sudo password": """\
sudo asks {user} for a password. Run it again with -K, which asks you for it, or keep it in the vault and name it in
hosts.yml:
  ansible_become_password: "{{{{ vault_become_password }}}}"
Only the first run needs it: the admins whom it makes become root without one.""",
    r"must have a tty|no tty present": """\
sudo wants a terminal (requiretty), and Ansible has none. In a shell on the server, as root:
  echo 'Defaults:{user} !requiretty' > /etc/sudoers.d/{user}-tty && chmod 440 /etc/sudoers.d/{user}-tty && visudo -c""",
    r"not in the sudoers file|not allowed to execute|may not run sudo": """\
{user} may not become root by sudo. Name an account that may, or root, in hosts.yml:
  berth_first_login: root""",
    r"sudo: (command )?not found|exec: sudo|No such file or directory: '+sudo": """\
The server has no sudo. Log in as root for the first run, which installs it; in hosts.yml:
  berth_first_login: root""",
    r"python[\d.]*:? (command )?(not found|No such file)|python[\d.]*' was not found|No python interpreters found": """\
The server has no Python, which Ansible needs there:
  {ssh} 'apt-get update && apt-get install --yes python3'""",
}
# What Mitogen says of ssh's refusals, where ssh itself could not be asked.
MITOGEN = {
    r"SSH (authentication|password) is incorrect|SSH password was requested": SSH[r"[Pp]ermission denied"],
    r"Connection timed out": SSH[r"timed out|No route to host|Network is unreachable"],
}
COMPARE = """\
  ssh-keyscan -t ed25519 -p {port} {host} > host.key
  ssh-keygen -lf host.key    # in the provider's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"""


@dataclass(frozen=True)
class Login:
    """How Ansible logs in: its variables for one host."""

    host: str
    user: str
    port: str = "22"
    key: str = ""
    arguments: tuple[str, ...] = ()

    def command(self, *options: str) -> list[str]:
        """Return ssh's command line for the same login, with further options before those of the inventory."""
        key = ["-i", self.key, "-o", "IdentitiesOnly=yes"] if self.key else []
        return ["ssh", *options, "-p", self.port, "-l", self.user, *key, *self.arguments, self.host]

    def values(self) -> dict[str, str]:
        """Return what a remedy may name."""
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
    """Return what helps against what a program said; empty where the table knows nothing."""
    flat = re.sub(r"\s+", " ", words)
    for pattern, text in table.items():
        if found := re.search(pattern, flat):
            return text.format(**login.values(), **found.groupdict())
    return ""


def ask_ssh(login: Login) -> str:
    """Return what ssh itself says when it logs in the same way; empty where it gets in, or is not there."""
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
    """Return what helps against a login that failed; first ssh's own words, where the message lacks them."""
    if known := remedy(message, login, OTHERS) or remedy(message, login, SSH):
        return known
    said = ask_ssh(login)
    helps = remedy(said, login, SSH) or remedy(message, login, MITOGEN)
    return "\n".join(part for part in (said, helps) if part)


class LookupModule(LookupBase):  # type: ignore[misc]
    """What helps against each message."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        """Return one text for each message, empty where nothing is known that helps."""
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
