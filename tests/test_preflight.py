"""Nothing dangerous is the default, and nothing that was written is ignored: real command lines, without a host."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

import variable_problems
import which_environment
from berth.host.refused import Refused
from variable_problems import Given, distance, kind_problems, near

ROOT = Path(__file__).parent.parent
PLAYBOOKS = [ROOT / "site.yml", *sorted((ROOT / "ansible").glob("*.yml"))]
DOMAIN = "www.example.com"
OWNER = {
    "berth_domain": DOMAIN,
    "berth_admins": [{"name": "ada", "ssh_keys": ["ssh-ed25519 AAAA ada@laptop"]}],
    "berth_smtp_host": "smtp.example.com",
    "berth_mail_from": "Example <no-reply@example.com>",
    "berth_operator_mail": "",
    "berth_log_servers": [],
    "backup_targets": [],
}
LOCAL = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
}

Environment = Callable[[Mapping[str, Any]], Path]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Make an inventory as its owner would have it; the host is this machine."""

    def make(files: Mapping[str, Any]) -> Path:
        folder = tmp_path / "example"
        folder.mkdir()
        hosts = {"berth": {"hosts": {"production": LOCAL}}}
        for name, content in {"hosts.yml": hosts, "group_vars/all/main.yml": OWNER, **files}.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return folder

    return make


def run(*command: str | Path, **variables: str) -> tuple[int, str]:
    """Run a command; return its status and what an operator reads, on one line."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "false",
            "ANSIBLE_STRATEGY": "linear",
        }
        | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def preflight(folder: Path, *arguments: str) -> tuple[int, str]:
    return run("ansible-playbook", "ansible/preflight.yml", "-i", folder, *arguments)


# --- which environment ---


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_every_playbook_of_an_operator_asks_first(playbook: Path) -> None:
    plays = yaml.safe_load(playbook.read_text())
    # The doctor shows the same sentences as lines of its table.
    asking_themselves = playbook.name in ("preflight.yml", "doctor.yml")
    if asking_themselves or not isinstance(plays, list) or plays[0].get("hosts") == "localhost":
        return
    first = plays[0]["ansible.builtin.import_playbook"]
    # site.yml begins with a playbook that does.
    assert first == "preflight.yml" or playbook.name == "site.yml"


@pytest.mark.parametrize("arguments", [["site.yml"], ["ansible/restore.yml", "--tags", "nothing"]])
def test_without_an_environment_nothing_is_done_and_one_sentence_says_so(arguments: list[str]) -> None:
    code, said = run("ansible-playbook", *arguments)
    assert code != 0
    assert "Name an environment: -i inventories/production (there are: demo, production, staging)." in said
    assert "WARNING" not in said


def test_a_limit_does_not_turn_the_missing_environment_into_success() -> None:
    assert run("ansible-playbook", "ansible/restore.yml", "--limit", "production")[0] != 0


def test_an_environment_that_is_not_there_is_named() -> None:
    code, said = run("ansible-playbook", "ansible/restore.yml", "-i", "inventories/prodution")
    assert code != 0
    assert "inventories/prodution does not exist. Name an environment" in said


@pytest.mark.parametrize(
    ("hosts", "reached", "sentence"),
    [
        ([], ["localhost"], "web.yml has no host in group berth."),
        (["vps"], ["outside"], "--limit leaves no host of group berth, which has: vps."),
        (["vps"], ["localhost", "vps"], ""),
    ],
)
def test_a_run_that_reaches_no_host_is_told_why(
    tmp_path: Path, hosts: list[str], reached: list[str], sentence: str
) -> None:
    (tmp_path / "web.yml").touch()
    told = which_environment.problems([str(tmp_path / "web.yml")], ["none.yml"], hosts, reached, ["production"])
    assert sentence in " ".join(told)
    assert bool(told) == bool(sentence)


def test_the_folder_of_all_environments_is_none() -> None:
    told = which_environment.problems([str(ROOT / "inventories")], [], ["production", "staging"], ["staging"], ["demo"])
    assert "contains several environments. Name an environment" in told[0]


def test_the_file_of_hosts_stands_for_its_folder(environment: Environment) -> None:
    code, said = preflight(environment({}) / "hosts.yml")
    assert code == 0, said


def test_an_environment_of_an_earlier_version_is_told_to_remove_its_link(environment: Environment) -> None:
    folder = environment({})
    (folder / "00-common.yml").symlink_to("../common/all.yml")
    code, said = preflight(folder)
    assert code != 0
    assert f"Remove it: rm {folder}/00-common.yml" in said


# --- an owner's value wins ---


VALUES_READ = """
- hosts: berth
  gather_facts: false
  roles: [berth]
  tasks:
    - name: Load the defaults of a role
      ansible.builtin.import_role: {name: stack, tasks_from: preflight}
      tags: never
    - name: Write the values
      ansible.builtin.copy:
        dest: "{{ written }}"
        mode: "0644"
        content: "{{ {'shared': shared, 'role': role} | to_json }}"
      vars:
        shared: "{{ [berth_traefik_image, berth_grafana_image, berth_mongo_image, berth_redis_image,
          berth_image_prefix, berth_root] }}"
        role: "{{ [stack_traefik_image, stack_mongo_image, stack_root, stack_keep, stack_force] }}"
"""


def test_an_owners_value_wins_in_any_file_and_roles_read_it(environment: Environment, tmp_path: Path) -> None:
    hosts = {
        "berth": {
            "hosts": {"production": {**LOCAL, "berth_traefik_image": "host"}},
            "vars": {"berth_grafana_image": "berth"},
        }
    }
    folder = environment(
        {
            "hosts.yml": hosts,
            "group_vars/all/backup.yml": {"berth_mongo_image": "backup"},
            "group_vars/all/zz.yml": {"berth_redis_image": "zz", "stack_traefik_image": "role"},
            "group_vars/berth.yml": {"berth_image_prefix": "group"},
            "host_vars/production.yml": {"berth_root": "/srv/berth"},
        }
    )
    (tmp_path / "read.yml").write_text(VALUES_READ)
    (tmp_path / "written.json").touch()
    code, said = run(
        "ansible-playbook",
        tmp_path / "read.yml",
        "-i",
        folder,
        *("-e", f"written={tmp_path}/written.json", "-e", "release_force=true"),
    )
    assert code == 0, said
    found = json.loads((tmp_path / "written.json").read_text())
    assert found["shared"] == ["host", "berth", "backup", "zz", "group", "/srv/berth"]
    assert found["role"] == ["role", "backup", "/srv/berth", 5, "true"]


# --- names ---

TYPOS = {
    "restore_dryrun": "restore_dry_run",
    "restor_time": "restore_time",
    "relase": "release",
    "confrim": "confirm",
    "vault_smtp_pasword": "vault_smtp_password",
    "berth_mongo_imgae": "berth_mongo_image",
    "stack_hralthy_timeout": "stack_healthy_timeout",
}


def test_what_is_misspelt_is_refused_with_the_nearest_name_wherever_it_stands(environment: Environment) -> None:
    typed = ["restore_dryrun", "restor_time", "relase", "confrim"]
    written = {name: "x" for name in TYPOS if name not in typed}
    folder = environment(
        {
            "group_vars/all/typos.yml": {**written, "confirm": DOMAIN, "backup_helper": "x", "my_helper": "y"},
            "host_vars/production.yml": {"backups_targets": []},
        }
    )
    code, said = preflight(folder, *(part for name in typed for part in ("-e", f"{name}=x")))
    assert code != 0
    for wrong, right in {**TYPOS, "backups_targets": "backup_targets"}.items():
        assert re.search(rf"{wrong} \([^)]+\) is no variable of Berth. Did you mean {right}\?", said), (wrong, said)
    assert re.search(r"vault_smtp_pasword \(\S+/group_vars/all/typos.yml:\d+\)", said)
    assert "confirm" in said
    assert "belongs on the command line" in said
    assert "it does not begin with backup_, or list it in berth_own_variables" in said
    assert "my_helper" not in said


def test_a_word_for_another_playbook_is_not_ignored(environment: Environment) -> None:
    folder = environment({})
    code, said = run("ansible-playbook", "ansible/rollback.yml", "-i", folder, "-e", "release=1.3.9")
    assert code != 0
    assert "release (-e) is not read by rollback.yml: it is for site.yml, provision.yml, release.yml." in said


def test_a_renamed_variable_names_its_successor() -> None:
    given = Given({"berth_colour": "x"}, specs={"berth_colour": {"renamed_to": "berth_shade"}})
    assert given.name_problems() == ["berth_colour is now called berth_shade: rename it."]


@pytest.mark.parametrize(
    ("one", "other", "letters"),
    [
        ("release", "release", 0),
        ("relase", "release", 1),
        ("confrim", "confirm", 1),
        ("", "abc", 3),
    ],
)
def test_swapped_missing_and_wrong_letters_are_counted(one: str, other: str, letters: int) -> None:
    assert distance(one, other) == letters


@pytest.mark.parametrize(
    "name",
    [
        "vault_backup_store_password",
        "vault_backup_bucket_key",
        "vault_backup_bucket_id",
        "vault_log_token",
        "vault_shop_mongo_password",
        "testbed",
        "testbed_folder",
        "demo_vault_password",
        "demo_logs_keys",
        "region",
        "too",
    ],
)
def test_names_of_an_owners_own_are_near_to_none_of_ours(name: str) -> None:
    assert near(name, variable_problems.declared()) == ""


def test_every_name_that_plays_and_roles_make_up_themselves_stays_out_of_the_way() -> None:
    made: set[str] = set()

    def look(part: Any) -> None:
        if isinstance(part, list):
            for one in part:
                look(one)
        elif isinstance(part, dict):
            made.update([part["register"]] if isinstance(part.get("register"), str) else [])
            made.update(part.get("ansible.builtin.set_fact") or [])
            for one in part.values():
                look(one)

    for file in [*PLAYBOOKS, *ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")]:
        look(yaml.safe_load(file.read_text()))
    made.discard("cacheable")
    assert len(made) > 50
    assert Given(dict.fromkeys(made, "")).name_problems() == []


def test_secrets_of_an_application_elsewhere_are_declared_and_its_faults_are_named(tmp_path: Path) -> None:
    compose = tmp_path / "docker-compose.prod.yml"
    compose.write_text('services: {shop: {image: x, user: "10010", labels: {berth.secrets: stripe_key}}}')
    known = set(variable_problems.declared(tmp_path))
    assert "vault_stripe_key" in known
    assert "vault_jwt_private_key" not in known
    variable_problems.declared.cache_clear()
    for text, says in {
        "services: {shop: {labels: {berth.secrets: stripe_key}}}": "berth.secrets of service shop needs a numeric user",
        "services: {db: {profiles: [platform], labels: {berth.backup: dump}}}": "berth.backup of service db needs",
        "services: [": "is no application (berth_app): docker-compose.prod.yml: ",
        "": "is no application (berth_app): docker-compose.prod.yml: ",
    }.items():
        compose.write_text(text)
        with pytest.raises(Refused, match=re.escape(says)):
            variable_problems.declared(tmp_path)


def test_what_the_environments_set_and_roles_read_is_declared() -> None:
    names: set[str] = set()
    for file in ROOT.glob("inventories/*/group_vars/all/*.yml"):
        names |= set(yaml.safe_load(file.read_text()))
    assert Given(dict.fromkeys(names, "")).name_problems() == []
    read: set[str] = set()
    for file in ROOT.glob("roles/*/defaults/main.yml"):
        for value in yaml.safe_load(file.read_text()).values():
            read |= {name for name in variable_problems.words(value) if name.startswith(("berth_", "vault_"))}
    containers = {"berth_traefik_a", "berth_traefik_b"}
    assert len(read) > 40
    assert read - containers <= set(variable_problems.declared())


@pytest.mark.parametrize(
    ("name", "successor"),
    [("environment_smtp_port", "berth_smtp_port"), ("berth_public_url", "environment_public_url")],
)
def test_a_former_name_is_refused_with_its_successor(name: str, successor: str) -> None:
    assert Given({name: "x"}).name_problems() == [f"{name} is now called {successor}: rename it."]


def test_a_variable_that_is_gone_is_refused_with_what_took_its_place() -> None:
    [said] = Given({"stack_limits": []}).name_problems()
    assert said.startswith("stack_limits is not used any more: the label berth.limits of a service in docker-compose")


# --- kinds ---


@pytest.mark.parametrize(
    ("spec", "value", "sentence"),
    [
        ({"type": "list"}, "a,b", "x is the text 'a,b', but must be a list."),
        ({"type": "list"}, None, "x is empty (null), but must be a list. Write [] for none."),
        ({"type": "list"}, {"a": 1}, "x is a mapping, but must be a list."),
        ({"type": "str"}, 1.1, "x is the number 1.1, but must be text. Put it in quotes"),
        ({"type": "str"}, True, "x is true, but must be text. Put it in quotes"),
        ({"type": "str"}, {"a": 1}, "x is a mapping, but must be text."),
        ({"type": "str"}, ["a"], "x is a list, but must be text."),
        ({"type": "str"}, None, 'x is empty (null), but must be text. Write "" for none.'),
        ({"type": "int"}, "smtp", "x is the text 'smtp', but must be a whole number."),
        ({"type": "int"}, 1.5, "x is the number 1.5, but must be a whole number."),
        ({"type": "int"}, True, "x is true, but must be a whole number."),
        ({"type": "int"}, "", "but must be a whole number."),
        ({"type": "float"}, "a lot", "but must be a number."),
        ({"type": "float"}, "nan", "but must be a number."),
        ({"type": "bool"}, "maybe", "x is the text 'maybe', but must be true or false."),
        ({"type": "bool"}, 2, "but must be true or false."),
        ({"type": "bool"}, [], "but must be true or false."),
        ({"type": "dict"}, "a", "x is the text 'a', but must be a mapping."),
        ({"type": "str", "choices": ["tls", "none"]}, "tsl", "but must be one of: tls, none."),
        (
            {"type": "list", "elements": "int"},
            [80, "https"],
            "x[1] is the text 'https', but must be a whole number.",
        ),
        (
            {"type": "list", "elements": "dict", "options": {"name": {}}},
            [{"nam": "a"}],
            "x[0] has an unknown key nam.",
        ),
        ({"type": "dict", "options": {"name": {"required": True, "description": "Who."}}}, {}, "x lacks name: Who."),
        ({"type": "dict", "options": {"port": {"type": "int"}}}, {"port": "a"}, "x.port is the text 'a'"),
    ],
)
def test_a_value_of_another_kind_is_named_with_what_is_meant(
    spec: dict[str, Any], value: object, sentence: str
) -> None:
    assert sentence in " ".join(kind_problems("x", spec, value))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int", [900, "900", "-1", 0]),
        ("float", [1, 1.5, "0.1", "3"]),
        ("bool", [True, False, "true", "no", "False", "on", 1, 0]),
        ("str", ["", "1.10", "true"]),
        ("list", [[], ["a"]]),
        ("dict", [{}, {"a": 1}]),
        ("raw", [None, 1, True]),
    ],
)
def test_what_is_right_is_never_refused(kind: str, values: list[object]) -> None:
    assert [kind_problems("x", {"type": kind}, value) for value in values] == [[] for _ in values]


def test_a_secret_of_the_wrong_kind_is_not_shown() -> None:
    for name in ("vault_smtp_password", "x.token", "x.environment.AWS_SECRET_ACCESS_KEY"):
        told = kind_problems(name, {"type": "int"}, "hunter2") + kind_problems(name, {"type": "str"}, 123456)
        assert len(told) == 2
        assert not re.search("hunter2|123456", " ".join(told))
    assert "hunter2" not in " ".join(kind_problems("x", {"type": "int", "no_log": True}, "hunter2"))


VALUES = """
berth_admins: ada
berth_smtp_addresses:
berth_smtp_port: smtp
berth_mail_from: {name: Ada}
vault_smtp_password: 12345678901
vault_flower_password: "hunter2{{ % }}"
vault_mongo_root_password: "{{ lookup('ansible.builtin.file', '/nowhere/hunter3') }}"
berth_operator_mail: "{{ operator_mial }}"
berth_root: "{{ berth_root }}"
base_upgrades_reboot_time: 14:30
berth_log_servers:
  - {name: grafana, type: lokki, url: "https://logs.example.com", tokn: hunter4}
"""


def test_kinds_are_compared_in_the_inventory_and_templates_that_fail_are_named(environment: Environment) -> None:
    folder = environment({"group_vars/all/values.yml": VALUES})
    code, said = preflight(folder, "-e", '{"release_keep": "5 or so", "berth_traces_ratio": [1]}')
    assert code != 0
    for sentence in (
        r"berth_admins \(\S+values.yml:2\) is the text 'ada', but must be a list.",
        r"berth_smtp_addresses is empty \(null\), but must be a list. Write \[\] for none.",
        r"berth_smtp_port \(\S+\) is the text 'smtp', but must be a whole number.",
        r"berth_mail_from \(\S+\) is a mapping, but must be text.",
        r"vault_smtp_password \(\S+\) is a number, but must be text. Put it in quotes",
        r"vault_flower_password \(\S+\) cannot be evaluated: AnsibleTemplateSyntaxError, whose",
        r"vault_mongo_root_password \(\S+\) cannot be evaluated",
        r"berth_operator_mail \(\S+\) cannot be evaluated: operator_mial is not defined.",
        r"berth_root \(\S+\) cannot be evaluated",
        r"base_upgrades_reboot_time \(\S+\) is the number 870, but must be text.",
        r"berth_log_servers\[0\].type is the text 'lokki', but must be one of: loki, ",
        r"berth_log_servers\[0\] has an unknown key tokn. Did you mean token\?",
        r"release_keep \(-e\) is the text '5 or so', but must be a whole number.",
        r"berth_traces_ratio \(-e\) is a list, but must be a number.",
    ):
        assert re.search(sentence, said), (sentence, said)
    assert not re.search("hunter[234]|12345678901", said)


RIGHT = """
my_store: backup.example.com
vault_backup_store_password: "a{b}c%d"
vault_smtp_password: !unsafe "{{ not a template"
docker_users: [ada]
berth_own_variables: [docker_users]
backup_targets:
  - name: store
    repository: "rest:https://{{ my_store }}/berth"
    environment: {RESTIC_REST_USERNAME: berth, RESTIC_REST_PASSWORD: "{{ vault_backup_store_password }}"}
base_mail_from: "root <root@{{ ansible_facts['fqdn'] }}>"
base_hostname: "{{ inventory_hostname }}"
environment_service_cpus: 1.5
stack_healthy_timeout: "{{ stack_start_timeout + 60 }}"
hardening_sysctl_settings: {vm.max_map_count: 262144}
"""


def test_what_an_owner_may_write_passes_and_so_do_numbers_and_truth_as_text(environment: Environment) -> None:
    folder = environment({"group_vars/all/right.yml": RIGHT})
    typed = [
        "release_watch_seconds=5",
        "release_force=yes",
        "traefik_replace=true",
        "ansible_user=root",
        "ours=1",
        "base_swap_size_mb=900",
    ]
    code, said = preflight(folder, *(part for one in typed for part in ("-e", one)))
    assert code == 0, said


# --- a restore ---

FAKE = """#!/bin/sh
echo "$@" > "$ASKED"
cat "$ANSWER"
"""
PLAN = {
    "run": "20261124T023112Z-3f9a",
    "target": "store",
    "as_of": "2026-11-24T02:31:12Z",
    "scope": "everything",
    "into": "the live databases",
    "collections": {"auth_db.users": "4 now, 3 in the dump", "auth_db.new": "1 now, not in the dump"},
    "removed": ["auth_db.new"],
    "kept": ["auth_db_before.users"],
    "redis": "stays as it is",
    "files": "stay as they are",
    "documents": 3,
    "seconds": 4.2,
    "safety_copy": f"-e restore_run=20261129T010000Z-77aa -e confirm={DOMAIN}",
    "saved_as": "20261129T010101Z-88bb",
}


@pytest.fixture
def restore(environment: Environment, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Run ansible/restore.yml on this machine; return status, words, and what the host was asked."""
    folder = environment({})
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/berth"
    program.write_text(FAKE)
    program.chmod(0o755)

    def play(*variables: str) -> tuple[int, str, str]:
        asked = tmp_path / "asked"
        asked.unlink(missing_ok=True)
        arguments = [part for one in variables for part in ("-e", one)]
        answer = tmp_path / "answer.json"
        answer.write_text(json.dumps({**PLAN, "changed": f"confirm={DOMAIN}" in variables}))
        where = {"PATH": f"{program.parent}:{os.environ['PATH']}", "ASKED": str(asked), "ANSWER": str(answer)}
        code, said = run("ansible-playbook", "ansible/restore.yml", "-i", folder, *arguments, **where)
        return code, said, asked.read_text() if asked.exists() else ""

    return play


def test_a_restore_without_arguments_is_a_dry_run_that_says_how_it_is_done(
    restore: Callable[..., tuple[int, str, str]],
) -> None:
    code, said, asked = restore("restore_database=auth_db")
    assert code == 0, said
    assert "--database=auth_db" in asked
    assert asked.strip().endswith("--dry-run")
    assert "This was a dry run: nothing was changed." in said
    wanted = rf"ansible/restore.yml -i \S+ -e restore_run=latest -e restore_database=auth_db -e confirm={DOMAIN}"
    assert re.search(wanted, said)
    assert "REMOVED, since the backup does not have them: auth_db.new" in said
    assert "kept, from an earlier restore_beside: auth_db_before.users" in said


def test_what_stands_behind_a_blank_is_not_lost(restore: Callable[..., tuple[int, str, str]]) -> None:
    code, said, asked = restore("restore_time=2026-11-28 21:00", f"confirm={DOMAIN}")
    assert code != 0
    assert "has the text '21:00' after a blank, which belongs to no variable" in said
    assert asked == ""


def test_a_restore_that_is_confirmed_is_done(restore: Callable[..., tuple[int, str, str]]) -> None:
    code, said, asked = restore("restore_run=20261124T023112Z-3f9a", f"confirm={DOMAIN}")
    assert code == 0, said
    assert asked.startswith("restore 20261124T023112Z-3f9a --by=")
    assert "--dry-run" not in asked
    assert "dry run" not in said
    assert "3 documents in 4 s" in said
    assert re.search(rf"restore.yml -i \S+ -e restore_run=20261129T010000Z-77aa -e confirm={DOMAIN}", said)


def test_another_sites_domain_confirms_nothing(restore: Callable[..., tuple[int, str, str]]) -> None:
    code, said, asked = restore("restore_run=latest", "confirm=staging.example.com")
    assert code != 0
    assert f"confirm is staging.example.com, but the site of this inventory is {DOMAIN}." in said
    assert asked == ""


@pytest.mark.parametrize(
    ("given", "dry"),
    [
        ({}, True),
        ({"run": "latest"}, True),
        ({"time": "2026-11-25T02:30:00Z"}, True),
        ({"confirm": DOMAIN}, True),
        ({"run": "latest", "confirm": "staging.example.com"}, True),
        ({"run": "latest", "confirm": DOMAIN, "dry_run": "yes"}, True),
        ({"run": "latest", "confirm": DOMAIN}, False),
        ({"time": "2026-11-25T02:30:00Z", "confirm": DOMAIN}, False),
        ({"beside": "_before"}, False),
        ({"beside": "_before", "dry_run": True}, True),
    ],
)
def test_what_is_live_is_replaced_only_by_something_named_and_where_it_is_confirmed(
    given: dict[str, object], dry: bool
) -> None:
    loader = DataLoader()
    role = ROOT / "roles/backup"
    values = loader.load_from_file(str(role / "defaults/main.yml"), trusted_as_template=True)
    values |= loader.load_from_file(str(role / "vars/main.yml"), trusted_as_template=True)
    values |= {f"backup_restore_{name}": value for name, value in given.items()}
    values |= {"backup_site": DOMAIN, "ansible_check_mode": False}
    assert Templar(loader, values).template(values["_backup_restore_dry"]) is dry


# --- a command ---

ECHO = """#!/bin/sh
for word; do printf '<%s>' "$word"; done > "$ASKED"
echo said
echo "no such thing" >&2
exit $STATUS
"""


@pytest.fixture
def command(environment: Environment, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Run ansible/run.yml on this machine; return status, words, and the words that the host was asked."""
    folder = environment({})
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/berth"
    program.write_text(ECHO)
    program.chmod(0o755)

    def play(*variables: str, status: int = 0) -> tuple[int, str, str]:
        asked = tmp_path / "asked"
        asked.unlink(missing_ok=True)
        arguments = [part for one in variables for part in ("-e", one)]
        where = {"PATH": f"{program.parent}:{os.environ['PATH']}", "ASKED": str(asked), "STATUS": str(status)}
        code, said = run("ansible-playbook", "ansible/run.yml", "-i", folder, *arguments, **where)
        return code, said, asked.read_text() if asked.exists() else ""

    return play


@pytest.mark.parametrize(
    "typed",
    [
        # As a shell hands it over: without quotes of its own, and Ansible reads a=b as a variable.
        'command=python3 -m x --flag --name=b "two words"',
        "command='python3 -m x --flag --name=b \"two words\"'",
        '{"command": "python3 -m x --flag --name=b \\"two words\\""}',
    ],
)
def test_a_command_is_run_with_all_its_words(command: Callable[..., tuple[int, str, str]], typed: str) -> None:
    code, said, asked = command("service=auth_service", typed)
    assert code == 0, said
    assert asked.endswith("<--service><auth_service><--><python3><-m><x><--flag><--name=b><two words>")
    assert "said no such thing" in said
    assert re.search(r"production: python3 -m x .* ended with 0 after", said)


def test_a_command_that_fails_or_is_not_run_says_so(command: Callable[..., tuple[int, str, str]]) -> None:
    code, said, _ = command("command=id", status=7)
    assert code != 0
    assert "production: FAILED: id ended with 7 after" in said
    code, said, _ = command("command=id", status=125)
    assert code != 0
    assert "production: FAILED: no such thing" in said


def test_without_a_command_nothing_is_run(command: Callable[..., tuple[int, str, str]]) -> None:
    code, said, asked = command("service=auth_service")
    assert code != 0
    assert "Give the command in quotes, and the service that it runs as" in said
    assert asked == ""
