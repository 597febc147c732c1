"""Filters for the files on the host that each backup target needs."""

from __future__ import annotations

import re
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

SHORTEST_PASSWORD = 24
# Variables whose text is written to files, because restic and ssh read files.
FILES = {"ca_certificate": "ca.pem", "ssh_key": "key", "ssh_known_hosts": "known_hosts"}


def files(targets: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return name and content of the targets' files."""
    return [
        {"name": f"{target['name']}.{name}", "content": f"{target[key].rstrip()}\n"}
        for target in targets
        for key, name in FILES.items()
        if target.get(key)
    ]


def settings(targets: list[dict[str, Any]], folder: str) -> list[dict[str, Any]]:
    """Return the targets' settings without secrets."""
    return [
        {
            "name": target["name"],
            "repository": target["repository"],
            "append_only": boolean(target.get("append_only", False)),
            "options": {**ssh(target, folder), **target.get("options", {})},
        }
        for target in targets
    ]


def ssh(target: dict[str, Any], folder: str) -> dict[str, str]:
    """Return restic's option for ssh: no prompts, and only the given known_hosts."""
    if not target.get("ssh_key"):
        return {}
    place = f"{folder}/{target['name']}"
    return {
        "sftp.args": f"-i {place}.key -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile={place}.known_hosts "
        "-o StrictHostKeyChecking=yes -o ServerAliveInterval=20"
    }


def environment(targets: list[dict[str, Any]], folder: str) -> dict[str, dict[str, str]]:
    """Return the credentials of each target."""
    found = {}
    for target in targets:
        values = {name: str(value) for name, value in target.get("environment", {}).items()}
        if target.get("ca_certificate"):
            values["RESTIC_CACERT"] = f"{folder}/{target['name']}.ca.pem"
        found[target["name"]] = values
    return found


def problems(targets: list[dict[str, Any]], password: str, commands: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each problem; none contains a secret."""
    said = []
    names = [one["name"] for one in targets]
    if targets and len(password) < SHORTEST_PASSWORD:
        said.append(
            "backup_password is missing or shorter than 24 characters. In this project it is vault_backup_password: "
            "ansible-vault edit inventories/<env>/group_vars/all/vault.yml, and `openssl rand -base64 36` makes one."
        )
    said += [f"backup_targets: {name} is there twice." for name in sorted(set(names)) if names.count(name) > 1]
    for kind, entries in (("backup_targets", targets), ("backup_extra_commands", commands)):
        said += [
            f"{kind}: {one['name']} is no name; use small letters, digits and dashes."
            for one in entries
            if not re.fullmatch(r"[a-z][a-z0-9-]*", one["name"])
        ]
    for one in targets:
        if re.search(r"://[^/@]*:[^/@]*@", one["repository"]):
            said.append(
                f"backup_targets: the repository of {one['name']} holds a password, which every log would show; "
                "give it in environment (for rest: RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD)."
            )
        if one.get("ssh_key") and not one.get("ssh_known_hosts"):
            said.append(
                f"backup_targets: {one['name']} has an ssh_key and no ssh_known_hosts (ssh-keyscan shows the line)."
            )
    return said


def restore_report(answer: dict[str, Any], command: str, inventories: str) -> str:
    """Format the output of `berth restore` for people.

    `command` is the whole command that does in earnest what was a dry run, `inventories` its options -i.
    """
    back = answer.get("safety_copy", "")
    returns = [f"To what was there before: ansible-playbook ansible/restore.yml{inventories} {back}"] if back else []
    # Of a hook that failed.
    note = [answer["note"]] if answer.get("note") else []
    if "run" not in answer:
        return "\n".join([f"The restore of {answer['about']} was cut off, and finished afterwards.", *returns, *note])
    where = f"run {answer['run']} on target {answer['target']}, as of {answer['as_of']}"
    databases = answer.get("databases", {})
    if answer["changed"]:
        what = [f"{answer['documents']} documents", *databases] if answer["documents"] else [*databases]
        return "\n".join(
            [
                f"Restored {answer['scope']} into {answer['into']} from {where}: {', '.join(what) or 'nothing'} in "
                f"{answer['seconds']:.0f} s.",
                *returns,
                *([f"Saved as run {answer['saved_as']}."] if answer.get("saved_as") else []),
                *note,
            ]
        )
    lines = [f"This was a dry run: nothing was changed. From {where}, {answer['scope']} into {answer['into']}:"]
    lines += [f"  {name}: {said}" for name, said in {**answer["collections"], **databases}.items()]
    if answer["removed"]:
        lines.append(f"  REMOVED, since the backup does not have them: {', '.join(answer['removed'])}")
    if answer["kept"]:
        lines.append(f"  kept, from an earlier restore_beside: {', '.join(answer['kept'])}")
    lines += [f"  Redis {answer['redis']}"] if answer["redis"] else []
    lines += [f"  files {answer['files']}"]
    adds = answer["into"] != "the live databases"
    return "\n".join([*lines, f"To {'add that' if adds else 'replace what is live by that'}: {command}"])


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "backup_targets_files": files,
            "backup_targets_settings": settings,
            "backup_targets_environment": environment,
            "backup_targets_problems": problems,
            "backup_restore_report": restore_report,
        }
