"""Every number and boolean may be given as text, as `-e name=value` gives it: nothing that is made of it changes."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.template import Templar, trust_as_template
from jinja2 import nodes

from tests.support import ROOT, ansible_loader
from tests.variable_types import Declared, Reader, Source, declared, known_types, parse, sources, uncast
from variable_problems import kind_problems

ROLES = sorted(role.name for role in (ROOT / "roles").iterdir())
# How false and true may be written.
SPELLINGS = [("false", "true"), ("no", "yes")]

# What an owner decides, in structures whose keys have a type.
OWNER = {
    **{f"{name}_domain": "www.site.test" for name in ("berth", "monitoring", "stack", "traefik")},
    "backup_site": "www.site.test",
    "berth_admins": [
        {"name": "ada", "ssh_keys": ["ssh-ed25519 AAAA"], "sudo": True},
        {"name": "bob", "ssh_keys": ["ssh-ed25519 AAAA"], "sudo": False},
    ],
    "backup_targets": [
        {"name": "one", "repository": "/one", "append_only": False},
        {"name": "two", "repository": "/two", "append_only": True},
    ],
    "firewall_extra_ports": [{"port": 5432, "protocol": "tcp"}],
    "log_shipping_destinations": [{"name": "siem", "type": "syslog_tls", "host": "logs.site.test", "port": 6514}],
    "stack_release": "1",
}
# What Ansible, the host, and tasks before say, as far as it stands beside a number or a boolean.
SAID = {
    "_stack_allowed": [],
    "_stack_said": {"from": "1.3.9 blue", "to": "1.4.0 green"},
    "_stack_end": {"seconds": 46.0},
    "_stack_now": "1.4.0 (green) in 46 s",
    "_stack_before": "1.3.9",
    "_stack_way": "1.3.9 is kept",
    "ansible_inventory_sources": ["inventories/production"],
    "ansible_check_mode": False,
    "ansible_facts": {
        "default_ipv4": {"address": "192.0.2.1"},
        "default_ipv6": {},
        "distribution_major_version": "13",
        "memtotal_mb": 2000,
        "processor_nproc": 2,
        "user_id": "root",
        "env": {},
        "fqdn": "www.site.test",
        "all_ipv4_addresses": [],
        "all_ipv6_addresses": [],
    },
    "ansible_managed": "",
    "ansible_user": "root",
    "_backup_times": {"rc": 0},
    "_base_dpkg": {"stdout_lines": []},
    "_base_look": {
        "container": "none",
        "disk_mb": 10000,
        "operator": "ada",
        "root_filesystem": "ext4",
        "root_password": True,
        "swaps": [],
        "swap_file_bytes": 2147483648,
        "provider_accounts": [],
        "stopped": [],
    },
    "_docker_looked": {"stdout": "{disk_mb: 10000, nofile_ceiling: 1048576, schedule: true}"},
    "_docker_dpkg": {"stdout_lines": []},
    "_firewall_looked": {"stdout": "{other: '', resolvers: 192.0.2.53, connection: 192.0.2.9 5000 192.0.2.1 22}"},
    "_hardening_look": {
        "calendars": [True, True],
        "privileged_programs": ["/usr/bin/chfn", "/usr/bin/su"],
        "packages": [],
        "ssh_kex": [],
        "ssh_cipher": [],
        "ssh_mac": [],
        "ssh_key_sig": [],
    },
    "_hardening_baseline": {"stat": {"exists": False}},
    "_monitoring_login_made": {"rc": 0, "stdout": '{"changed": false, "sum": "0"}'},
    "_monitoring_kernel_ipv6": {"stat": {"exists": True}},
    "_stack_host_looked": {"stdout": "{disk_mib: 9000, ipv6: true, max_map_count: 65530, overcommit_memory: 0}"},
    "_traefik_subnets": [],
    "_stack_by": "ada@laptop",
    "_stack_engine": {"stat": {"exists": True}},
    "_stack_networks_present": {"stdout_lines": []},
    "_stack_started": {"stdout": '{"probe": {}}'},
    "_stack_verb": "release",
    "rotate_minutes": 16,
    "rotate_role": "base",
    "_traefik_configuration": {"changed": False},
    "_traefik_container": {"changed": False},
    "_traefik_look": {"serving": "a", "running": ["a"], "certificates": ["/acme-v02.api.letsencrypt.org.json"]},
    "_traefik_to": "a",
}
# What roles go through whose keys have a type.
ITEMS = {"log_shipping": "log_shipping_destinations", "stack": "stack_networks", "traefik": "traefik_networks"}


SMALL = Declared(
    names={"count": "number", "wanted": "boolean"},
    structures={"ports": "number", "admins": "records"},
    keys={"base": {"sudo": "boolean"}},
)


@pytest.mark.parametrize(
    "text",
    [
        "{{ count > 1 }}",
        "{{ 5 in [count] }}",
        "{{ count | default(3) - 1 }}",
        "{{ not wanted }}",
        "{{ 'a' if wanted else 'b' }}",
        "{{ wanted and true }}",
        "{% if wanted %}a{% endif %}",
        "{{ wanted }}.",
        "{{ 'wanted: ' ~ wanted }}",
        "{{ wanted | ternary('a', 'b') }}",
        "{{ wanted | default(true, true) | bool }}",
        "{{ {'wanted': wanted} | to_json }}",
        "{{ [count, 3] | min }}",
        "{{ ports | sort | first + 1 }}",
        "{{ ports | max }}",
        "{{ lines[-count:] }}",
        "{{ admins | selectattr('sudo') }}",
        "{{ admins | to_nice_yaml }}",
        "{% for admin in admins if admin.sudo %}{% endfor %}",
        "{% set other = count %}",
    ],
)
def test_an_uncast_use_is_found(text: str) -> None:
    assert list(Reader(SMALL, "base").uncast(parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "{{ count | int > 1 }}",
        "--count={{ count }}",
        "{{ count ~ ' MB' }}",
        "{{ not wanted | bool }}",
        "{{ wanted | default(true) | bool | ternary('a', 'b') }}",
        "{{ wanted is defined }}",
        "{{ {'wanted': wanted | bool} | to_json }}",
        "{{ [count | int, 3] | min }}",
        "{{ ports | map('int') | max }}",
        "{{ ports | join(', ') }}",
        "{{ admins | selectattr('sudo', 'truthy', convert_bool=true) | map(attribute='name') }}",
        "{% for admin in admins if admin.sudo | bool %}{% endfor %}",
    ],
)
def test_a_use_that_takes_text_as_well_is_left_alone(text: str) -> None:
    assert list(Reader(SMALL, "base").uncast(parse(text))) == []


def test_no_expression_takes_the_text_of_a_number_or_boolean_for_its_value() -> None:
    said = uncast()
    assert said == [], "\n".join(["Cast it (| int, | float, | bool):", *said])


@pytest.mark.parametrize(
    "spelling", ["yes", "No", "true", "False", "on", "off", "1", "0", 1, 0, "y", "n", "t", "F", " true", "2", ""]
)
def test_a_boolean_is_accepted_in_the_spellings_that_the_filter_knows_and_no_others(spelling: str | int) -> None:
    known = str(spelling).lower() in {"yes", "no", "true", "false", "on", "off", "1", "0"}
    assert (kind_problems("release_force", {"type": "bool"}, spelling) == []) == known
    if known:
        meant = str(spelling).lower() in {"yes", "true", "on", "1"}
        assert Templar(ansible_loader(), {"given": spelling}).template(trust_as_template("{{ given | bool }}")) is meant


@cache
def values(role: str) -> dict[str, Any]:
    """Return the variables of a role, or of inventory and playbooks; those with a type as -e would give them."""
    files = sorted(ROOT.glob(f"roles/{role or '*'}/defaults/**/*.yml"))
    files += sorted(ROOT.glob(f"roles/{role}/vars/**/*.yml")) if role else []
    place = str(ROOT / "roles" / (role or "berth"))
    found: dict[str, Any] = {"role_path": place, "ansible_search_path": [place]}
    for file in files:
        found |= ansible_loader().load_from_file(str(file), trusted_as_template=True) or {}
    found |= OWNER | SAID
    templar, known = Templar(ansible_loader(), found), declared()
    typed = (known.names.keys() | {name for name, kind in known.structures.items() if kind == "records"}) & found.keys()
    return found | {name: templar.template(found[name]) for name in typed}


def given(role: str, flipped: bool, spelling: tuple[str, str] | None) -> dict[str, Any]:
    """Return the variables, each boolean the other way round if `flipped`, and as text if there is a spelling."""
    known, found = declared(), dict(values(role))

    def written(value: Any) -> Any:
        if isinstance(value, bool):
            return value if spelling is None else spelling[value]
        return value if spelling is None else str(value)

    def within(value: Any, keys: dict[str, str]) -> Any:
        if isinstance(value, dict):
            return {name: written(part) if name in keys else within(part, keys) for name, part in value.items()}
        return [within(part, keys) for part in value] if isinstance(value, list) else value

    for name, value in found.items():
        kind = known.names.get(name) or known.structures.get(name)
        if kind == "records":
            found[name] = within(value, known.keys_of(role))
        elif kind == "boolean":
            found[name] = written(not value if flipped else value)
        elif kind == "number" and name in known.names:
            found[name] = written(value)
    if role in ITEMS:
        found["item"] = found[ITEMS[role]][0]
    return found


def with_types(role: str) -> list[Source]:
    """Return what of a role, or outside of them all, names a variable with a type, or a key with one.

    What names a variable made of those needs no look: if that one is the same, so is all that is made of it. Sentences
    for people are left out; they speak of everything that a host may have said.
    """
    known = known_types()
    typed, reader = known.names.keys() | known.structures.keys(), Reader(known, role)

    def named(source: Source) -> bool:
        if source.key in ("fail_msg", "msg", "success_msg"):
            return False
        if (
            (source.defines or source.key == "loop")
            and source.value is not None
            and reader.any(source.value, records=True)
        ):
            return False
        return any(name.name in typed for name in source.tree.find_all(nodes.Name)) or any(
            part.attr in known.keys_of(role) for part in source.tree.find_all(nodes.Getattr)
        )

    return [source for source in sources() if source.role == role and named(source)]


def made(source: Source, templar: Templar) -> Any:
    """Template one text as Ansible would."""
    try:
        if source.bare:
            return templar.evaluate_conditional(trust_as_template(source.text))
        return templar.template(trust_as_template(source.text))
    except AnsibleUndefinedVariable as error:
        pytest.fail(f"{source}: {error}; give it a value in SAID or OWNER")
    except AnsibleError as error:
        pytest.fail(f"{source}: {error}")


@pytest.mark.parametrize("flipped", [False, True], ids=["as they are", "the other way round"])
@pytest.mark.parametrize("role", ["", *ROLES], ids=["playbooks and inventories", *ROLES])
def test_text_makes_what_the_value_makes(role: str, flipped: bool) -> None:
    plain = Templar(ansible_loader(), given(role, flipped, None))
    spelled = {spelling: Templar(ansible_loader(), given(role, flipped, spelling)) for spelling in SPELLINGS}
    for source in with_types(role):
        expected = made(source, plain)
        for spelling, text in spelled.items():
            assert made(source, text) == expected, f"{source}, with {' and '.join(spelling)} as text"
