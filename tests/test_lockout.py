"""The roles that could lock everybody out change nothing where no login can be proven."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.support import ROOT

# What else to do, by role. Each preflight ends at its first task: nothing is asked of the host.
WHAT = {"base": "base_admins", "hardening": "hardening_ssh", "firewall": "--skip-tags firewall"}
PLAY = """\
- hosts: all
  gather_facts: false
  vars: {base_admins: [{name: ada, ssh_keys: [key]}]}
  tasks:
    - block:
        - ansible.builtin.include_role: {name: "{{ role }}", tasks_from: preflight}
      rescue:
        - ansible.builtin.copy:
            content: "{{ {'task': ansible_failed_task.name, 'msg': ansible_failed_result.msg} | to_json }}"
            dest: "{{ folder }}/{{ inventory_hostname }}"
            mode: "0600"
          delegate_to: localhost
          vars: {ansible_connection: local}
"""


def test_a_connection_that_is_no_login_is_refused_before_anything_is_asked_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    hosts = {
        f"{role}-{connection}": {"role": role, "ansible_connection": connection}
        for role in WHAT
        for connection in ("local", "community.docker.docker")
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": {"folder": str(tmp_path)}}}))
    done = subprocess.run(
        ["ansible-playbook", "-i", tmp_path / "hosts.yml", tmp_path / "play.yml"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    for name, values in hosts.items():
        assert (tmp_path / name).exists(), done.stdout + done.stderr
        refusal = json.loads((tmp_path / name).read_text())
        assert refusal["task"].endswith("Require an SSH connection")
        assert f"with ansible_connection: {values['ansible_connection']}, not over SSH" in refusal["msg"]
        assert WHAT[values["role"]] in refusal["msg"]
