"""What an operator reads of a playbook: what changed, what failed, and one sentence at the end."""

from __future__ import annotations

import json
import os
import re
import subprocess
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from berth.release import screen
from tests.support import ROOT
from tests.terminal import Seen, on_terminal

SECONDS = 60
INVENTORY = (
    "berth: {hosts: {here: {ansible_connection: local, ansible_become: false, ansible_python_interpreter: "
    "'{{ ansible_playbook_python }}'}}}\n"
)
WARNS = """\
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({})
module.warn("the disk is old")
module.exit_json(changed=False)
"""
PLAY = """\
- name: Try everything
  hosts: berth
  gather_facts: false
  tasks:
    - name: Stay as it is
      ansible.builtin.command: "true"
      changed_when: false
    - name: Change something
      ansible.builtin.command: "true"
      loop: [first, second]
    - name: Be left out
      ansible.builtin.command: "true"
      when: false
    - name: Warn
      warns:
    - name: Tell on the way
      ansible.builtin.debug: {msg: ["one thing", "another \\e[31mthing\\e[0m"]}
    - name: Come to an end
      ansible.builtin.debug: {msg: "Released 1.4.0 (green)."}
      vars: {outcome: true}
    - name: Have a command
      ansible.builtin.command: sh -c 'echo half a thing; exit 3'
      changed_when: true
      when: how == 'broken'
    - name: There is room
      ansible.builtin.assert: {that: how != 'refused', fail_msg: "The disk is full.\\n  Make room.", quiet: true}
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "library").mkdir()
    (tmp_path / "library/warns.py").write_text(WARNS)
    return ["ansible-playbook", str(tmp_path / "play.yml"), "-i", str(tmp_path / "hosts.yml"), "-e"]


def in_pipe(command: list[str], **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


def at_the_end(seen: Seen) -> list[str]:
    """Return the lines that stand on a terminal when all is over: what was overwritten is gone."""
    return [line.rpartition("\r\x1b[K")[2].rstrip("\r") for line in seen.raw.split("\n")]


def test_a_pipe_gets_what_changed_what_was_said_and_the_outcome(command: list[str]) -> None:
    code, said = in_pipe([*command, "how=well"])
    assert code == 0, said
    lines = [line for line in said.splitlines() if line]
    assert lines[:5] == [
        "PLAY [Try everything]",
        "changed: [here] Change something",
        "[WARNING]: the disk is old",
        "one thing",
        "another thing",
    ]
    assert lines[5].startswith("PLAY RECAP")
    assert re.search(r"here +: ok=\d+ +changed=1 ", lines[6])
    assert lines[7:] == ["here: Released 1.4.0 (green)."]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", said)


def test_a_refusal_is_a_sentence_and_stands_last(command: list[str]) -> None:
    code, said = in_pipe([*command, "how=refused"])
    assert code != 0
    assert "fatal: [here]: FAILED! =>\n    The disk is full.\n      Make room.\n" in said
    assert said.splitlines()[-1] == "here: FAILED: The disk is full."
    assert "Released" not in said, "what came before does not count any more"


def test_a_task_that_fails_is_told_in_full(command: list[str]) -> None:
    code, said = in_pipe([*command, "how=broken"])
    assert code != 0
    for part in ("TASK [Have a command]", "fatal: [here]: FAILED! =>", "rc: 3", "stdout: half a thing"):
        assert part in said
    assert said.splitlines()[-1] == "here: FAILED: Have a command: non-zero return code"


def test_a_program_of_ours_that_refuses_is_told_by_its_sentence(tmp_path: Path, command: list[str]) -> None:
    _program(tmp_path / "refuses", """echo '{"reason": "It is too slow.", "lines": ["took 9 s"]}'; exit 1""")
    task = {"ansible.builtin.command": str(tmp_path / "refuses")}
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "berth", "gather_facts": False, "tasks": [task]}]))
    code, said = in_pipe([*command, "how=well"])
    assert code != 0
    assert "fatal: [here]: FAILED! =>\n    It is too slow.\n    took 9 s\n" in said
    assert "{" not in said
    assert said.splitlines()[-1] == "here: FAILED: It is too slow."


def test_with_v_it_is_all_that_ansible_says_and_the_outcome_too(command: list[str]) -> None:
    code, said = in_pipe([*command, "how=well", "-v"])
    assert code == 0
    for part in ("TASK [Stay as it is] ***", "ok: [here]", "skipping: [here]", "changed: [here] => (item=first)"):
        assert part in said
    assert said.splitlines()[-1] == "here: Released 1.4.0 (green)."


def test_a_terminal_names_the_task_that_runs_on_a_line_that_gives_way(command: list[str]) -> None:
    seen = on_terminal([*command, "how=well"], ROOT, SECONDS)
    assert seen.status == 0, seen.text
    for task in ("Stay as it is", "Change something", "Come to an end"):
        assert f"... {task}" in seen.raw
    assert not [line for line in at_the_end(seen) if "..." in line]
    assert "another \x1b[31mthing\x1b[0m" in seen.raw, "a terminal has colours"


def test_a_terminal_without_colours_is_respected(command: list[str]) -> None:
    seen = on_terminal([*command, "how=well"], ROOT, SECONDS, environment={**os.environ, "NO_COLOR": "1"})
    assert seen.status == 0, seen.text
    assert not re.search(r"\x1b\[[0-9;]*m", seen.raw)


def test_check_mode_says_how_much_would_change(tmp_path: Path, command: list[str]) -> None:
    tasks = "{name: Write, ansible.builtin.copy: {content: x, dest: " + str(tmp_path / "new") + "}}"
    (tmp_path / "play.yml").write_text(f"- {{hosts: berth, gather_facts: false, tasks: [{tasks}]}}\n")
    code, said = in_pipe([*command, "how=well", "--check"])
    assert code == 0, said
    assert said.splitlines()[-1] == "here: Check mode: nothing was changed; 1 task would change something."


def test_preflight_alone_says_what_comes_next_and_is_silent_in_others(tmp_path: Path, command: list[str]) -> None:
    code, said = in_pipe(["ansible-playbook", "ansible/preflight.yml", *command[2:4]])
    assert code == 0, said
    last = said.splitlines()[-1]
    assert last.startswith(f"here: All variables of {tmp_path}/hosts.yml are known")
    assert last.endswith(f"Next: ansible-playbook ansible/doctor.yml -i {tmp_path}/hosts.yml")
    (tmp_path / "play.yml").write_text(f"- import_playbook: {ROOT}/ansible/preflight.yml\n")
    code, said = in_pipe(command[:4])
    assert code == 0, said
    assert "All variables" not in said


def test_a_host_without_the_program_is_told_what_brings_it(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "bin").mkdir()
    _program(tmp_path / "bin/berth", "exit 2")
    code, said = in_pipe(["ansible-playbook", "ansible/status.yml", *command[2:4]], PATH=_path(tmp_path))
    assert code != 0
    assert f"older one: ansible-playbook site.yml -i {tmp_path}/hosts.yml" in said.splitlines()[-1]


def _program(place: Path, body: str) -> None:
    place.write_text(f"#!/bin/sh\n{body}\n")
    place.chmod(0o755)


def _path(tmp_path: Path) -> str:
    return f"{tmp_path / 'bin'}:{os.environ['PATH']}"


@pytest.fixture
def host_with_all(tmp_path: Path) -> str:
    """A stand-in for the host's program, which shows as much as it ever does; return the PATH that finds it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "screen").write_text(
        "\n".join("\x1b[31m" + "x" * screen.WIDTH + "\x1b[0m" for _ in range(screen.LINES))
    )
    _program(tmp_path / "bin/berth", f'echo "$@" > {tmp_path}/asked; cat {tmp_path}/screen')
    return _path(tmp_path)


def test_the_status_through_ansible_fits_a_screen(tmp_path: Path, command: list[str], host_with_all: str) -> None:
    code, said = in_pipe(["ansible-playbook", "ansible/status.yml", *command[2:4]], PATH=host_with_all)
    assert code == 0, said
    assert len(said.rstrip("\n").splitlines()) <= 40, said
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", said)
    assert said.count("x" * 100) == 32
    asked = (tmp_path / "asked").read_text()
    assert asked == f"status --colour=always --inventory={tmp_path}/hosts.yml\n"


def filters(file: str) -> dict[str, Any]:
    spec = util.spec_from_file_location(Path(file).stem, ROOT / file)
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.FilterModule().filters())


def test_the_next_command_names_the_inventories_that_were_given() -> None:
    command = filters("ansible/plugins/filter/commands.py")["next_command"]
    sources = [str(ROOT / "inventories/production"), "/srv/my hosts.yml", "a,b"]
    assert command("ansible/release.yml", sources, "-e", "release=1.4.0") == (
        "ansible-playbook ansible/release.yml -i inventories/production -i '/srv/my hosts.yml' -i a,b -e release=1.4.0"
    )


# --- releases ---


DONE = {"changed": True, "seconds": 46.2, "note": ""}
RELEASES = {
    "first": (
        *("release", {"from": "nothing", "to": "1.4.0 blue"}, DONE),
        "Released 1.4.0 (blue) in 46 s: https://www.x-shop.net; "
        "to check everything: ansible-playbook ansible/doctor.yml -i X",
    ),
    "next": (
        *("release", {"from": "1.3.9 blue", "to": "1.4.0 green"}, DONE),
        "Released 1.4.0 (green) in 46 s: https://www.x-shop.net; "
        "to roll back to 1.3.9: ansible-playbook ansible/rollback.yml -i X",
    ),
    "nobody looked": (
        *("release", {"from": "1.4.0 blue", "to": "1.4.0 green"}, DONE | {"note": "Nobody looked from outside."}),
        "Released 1.4.0 (green) in 46 s: https://www.x-shop.net; only its settings changed. "
        "Nobody looked from outside.",
    ),
    "already": (
        *("release", {"already": "1.4.0 green", "settled": ""}, None),
        "1.4.0 (green) is live already: https://www.x-shop.net",
    ),
    "rollback": (
        *("rollback", {"from": "1.4.0 green", "to": "1.3.9 blue"}, DONE),
        "Rolled back to 1.3.9 (blue) in 46 s. 1.4.0 is marked as rolled back; to release it again: "
        "ansible-playbook ansible/release.yml -i X -e release=1.4.0 -e release_force=true",
    ),
}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what each of these ends with, from what the host answered: a host for each."""
    folder = tmp_path_factory.mktemp("releases")
    local = {"ansible_connection": "local", "ansible_become": False}
    local["ansible_python_interpreter"] = "{{ ansible_playbook_python }}"
    hosts = {}
    for name, (verb, started, finished, _) in RELEASES.items():
        hosts[name.replace(" ", "_")] = {
            **local,
            "_stack_verb": verb,
            "_stack_started": {"stdout": json.dumps(started)},
            "_stack_finished": {"stdout": json.dumps(finished)} if finished else {"skipped": True},
        }
    (folder / "hosts.yml").write_text(json.dumps({"berth": {"hosts": hosts}}))
    task = {"ansible.builtin.include_tasks": str(ROOT / "roles/stack/tasks/release_outcome.yml")}
    play = {"hosts": "berth", "gather_facts": False, "vars": {"stack_domain": "www.x-shop.net", "stack_keep": 3}}
    (folder / "play.yml").write_text(json.dumps([{**play, "tasks": [task]}]))
    code, said = in_pipe(["ansible-playbook", str(folder / "play.yml"), "-i", str(folder / "hosts.yml")])
    assert code == 0, said
    lines = said.replace(str(folder / "hosts.yml"), "X").splitlines()[-len(RELEASES) :]
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_ends_with_what_it_did_and_what_goes_back(sentences: dict[str, str], name: str) -> None:
    assert sentences[name.replace(" ", "_")] == RELEASES[name][3]


# --- backups ---


def test_backups_are_a_table_with_the_newest_first_and_stores_that_are_silent_below() -> None:
    run = {"tags": [], "increments": 3, "until": ""}
    old = run | {"run": "20261128T023112Z-aaaa", "time": "2026-11-28T02:31:12.123456789Z", "bytes": 126877696}
    new = run | {
        "run": "20261129T023112Z-3f9a",
        "time": "2026-11-29T02:31:12.123456789Z",
        "tags": ["before-release:1.4.0"],
    }
    listed = {"bucket": [old, new], "store": [new], "far": {"reason": "Target far does not answer."}}
    shown = filters("roles/backup/filter_plugins/backup_screen.py")["backup_table"](
        listed, datetime(2026, 11, 29, 5, 31, tzinfo=UTC)
    )
    assert shown.splitlines() == [
        "RUN                    ENDED                 AGE   SIZE     REASON                TARGETS",
        "20261129T023112Z-3f9a  2026-11-29 02:31 UTC  3 h   -        before-release:1.4.0  bucket, store",
        "20261128T023112Z-aaaa  2026-11-28 02:31 UTC  27 h  121 MiB  -                     bucket",
        "far: Target far does not answer.",
    ]


def test_a_backup_ends_with_its_run_and_where_it_is() -> None:
    newest = filters("roles/backup/filter_plugins/backup_screen.py")["backup_newest"]
    one = {"run": "20261129T023112Z-3f9a", "ended": "2026-11-29T02:31:12Z", "bytes": {"mongo": 51200, "redis": 0}}
    known = {"targets": {"bucket": one, "store": one, "far": {"run": "none yet", "ended": ""}}}
    assert newest(known, datetime(2026, 11, 29, 2, 32, tzinfo=UTC)) == (
        "20261129T023112Z-3f9a (1 min ago, 50 KiB) on bucket, store; none yet on far"
    )


def test_another_password_ends_with_what_may_go() -> None:
    said = filters("roles/backup/filter_plugins/backup_screen.py")["backup_rekeyed"]
    assert said({"bucket": {"new": "opens from now on", "previous": "opens no more"}}).endswith(
        "take vault_backup_previous_password out of the vault."
    )
    kept = {"new": "opens", "previous": "opens until its key is removed there: restic key remove abc"}
    assert said({"store": kept}).endswith("restic key remove abc (on store).")
