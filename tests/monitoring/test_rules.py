"""Every rule is tried, has a page that says what to do, and survives being shortened for a test."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.template import Templar, trust_as_template

from berth.host.lock import Lock
from berth.metrics import expected
from berth.metrics.engine import Scrape, labels_of, targets
from berth.metrics.expected import Expected
from berth.metrics.exposition import Metrics
from berth.metrics.host import boot, file_systems, mounts, places, units, upgrades
from berth.metrics.site import backups, releases, secrets
from berth.stack.applied import Applied
from tests.support import ansible_loader

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/monitoring"
# The application's alerts, its runbooks and the test of its alerts.
APPLICATION = ROOT / "monitoring"
# Rules -> the test of each, and where their runbooks are.
RULE_FILES = {
    **{file: (ROLE / "tests" / file.name, "docs/runbooks") for file in sorted((ROLE / "files/rules").glob("*.yml"))},
    APPLICATION / "alerts.yml": (APPLICATION / "alerts_test.yml", "monitoring/runbooks"),
}


def rules(*files: Path) -> dict[str, dict[str, Any]]:
    """Return the alerts; a rule that only records a series is none."""
    return {
        rule["alert"]: rule
        for file in files or RULE_FILES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def filters(name: str = "monitoring") -> Any:
    loader = importlib.machinery.SourceFileLoader(f"{name}_filters", str(ROLE / f"filter_plugins/{name}.py"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def scaled_rules(text: str, factor: float) -> str:
    return str(filters().scaled_rules(text, factor))


def test_every_rule_has_a_severity_a_summary_and_a_page() -> None:
    assert len(rules()) >= 25
    for file, (_, folder) in RULE_FILES.items():
        for name, rule in rules(file).items():
            assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}, name
            assert rule["annotations"]["summary"], name
            assert rule["annotations"]["runbook_url"] == f"{folder}/{name}.md"


@pytest.mark.parametrize("folder", ["docs/runbooks", "monitoring/runbooks"])
def test_there_is_a_page_for_each_rule_and_for_nothing_else(folder: str) -> None:
    pages = {page.stem: page.read_text() for page in (ROOT / folder).glob("*.md")}
    assert set(pages) == set(rules(*(file for file in RULE_FILES if RULE_FILES[file][1] == folder)))
    for name, text in pages.items():
        assert text.startswith(f"# {name}\n")


def test_the_role_says_how_many_rules_it_has() -> None:
    own = rules(*(file for file in RULE_FILES if ROLE in file.parents))
    assert f" {len(own)} alert rules, each with a runbook" in (ROLE / "README.md").read_text()


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.stem)
def test_every_rule_is_tried_silent_and_firing(file: Path) -> None:
    """Run by promtool in tests/monitoring/test_promtool.py; here: none is forgotten."""
    tried = yaml.safe_load(RULE_FILES[file][0].read_text())["tests"]
    cases = [case for test in tried for case in test.get("alert_rule_test", [])]
    names = set(rules(file))
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    # The one that always fires is never silent.
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names - {"Watchdog"}


def test_a_factor_shortens_how_long_and_over_what_time_and_nothing_else() -> None:
    text = (
        "expr: rate(errors_total[5m]) > 300 and age > 14 * 86400 unless age offset 10m\n"
        "for: 2m\ninterval: 1m\nsummary: For 5m and more."
    )
    assert scaled_rules(text, 1) == text
    shorter = text.replace("[5m]", "[30s]").replace("for: 2m", "for: 12s").replace("offset 10m", "offset 60s")
    shorter = shorter.replace("interval: 1m", "interval: 15s")
    assert scaled_rules(text, 0.1) == shorter
    assert "for: 1s" in scaled_rules(text, 0.0001)


@pytest.mark.parametrize(("percent", "ratio"), [(99.9, "0.999"), (99, "0.99"), (99.95, "0.9995"), (97.5, "0.975")])
def test_the_objective_of_the_inventory_is_what_the_rules_compare_with(percent: float, ratio: str) -> None:
    text = (ROLE / "files/rules/slo.yml").read_text()
    written = yaml.safe_load(filters().objective_rules(text, percent))
    [objective] = [
        rule["expr"]
        for group in written["groups"]
        for rule in group["rules"]
        if rule.get("record") == "slo:objective:ratio"
    ]
    assert objective == f"vector({ratio})"
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert filters().objective_rules(text, defaults["monitoring_slo_percent"]) == text


def test_the_days_of_the_inventory_are_the_age_at_which_a_secret_is_old() -> None:
    text = (ROLE / "files/rules/host.yml").read_text()
    before = rules(ROLE / "files/rules/host.yml")

    def written(days: int) -> dict[str, dict[str, Any]]:
        found = yaml.safe_load(filters().secret_rules(text, days))
        return {rule["alert"]: rule for group in found["groups"] for rule in group["rules"]}

    old = before.pop("SecretOld")
    assert written(30) == {**before, "SecretOld": {**old, "expr": old["expr"].replace("365 *", "30 *")}}
    assert written(0) == before
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert filters().secret_rules(text, defaults["monitoring_secret_days"]) == text


@pytest.mark.parametrize("file", sorted((ROLE / "files/rules").glob("*.yml")), ids=lambda file: file.stem)
def test_no_other_rule_depends_on_the_age_of_secrets(file: Path) -> None:
    others = set(rules(file)) - {"SecretOld"}
    for days in (0, 30):
        found = yaml.safe_load(filters().secret_rules(file.read_text(), days))["groups"]
        kept = {rule["alert"]: rule for group in found for rule in group["rules"] if "alert" in rule}
        assert {name: kept[name] for name in others} == {name: rules(file)[name] for name in others}


def test_recorded_series_are_named_by_level_metric_and_operation() -> None:
    groups = yaml.safe_load((ROLE / "files/rules/slo.yml").read_text())["groups"]
    names = [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]
    assert len(names) == len(set(names)) == 10
    assert [name for name in names if not re.fullmatch(r"(job|slo):[a-z_]+:\w+", name)] == []


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.stem)
def test_an_alert_carries_a_link_to_its_runbook_where_an_address_is_set_and_else_its_path(file: Path) -> None:
    text = file.read_text()
    assert filters().linked_rules(text, "") == text
    for url in ("https://git.x.net/ops/docs/runbooks", "https://git.x.net/ops/docs/runbooks/"):
        linked = yaml.safe_load(filters().linked_rules(text, url))
        for rule in (rule for group in linked["groups"] for rule in group["rules"] if "alert" in rule):
            page = f"{RULE_FILES[file][1]}/{rule['alert']}.md"
            assert rule["annotations"]["runbook_url"] == f"https://git.x.net/ops/{page}"


def test_a_link_of_the_applications_own_and_a_path_that_no_address_is_known_of_stay() -> None:
    own = "  runbook_url: https://wiki.x.net/QueueStuck\n  runbook_url: 'http://wiki.x.net/QueueStuck'\n"
    assert filters().linked_rules(own, "https://git.x.net/ops/docs/runbooks") == own
    path = "  runbook_url: monitoring/runbooks/QueueStuck.md\n"
    assert filters().linked_rules(path, "https://git.x.net/ops/pages") == path
    quoted = '  runbook_url: "pages/QueueStuck.md"\n'
    assert '"https://x.net/pages/QueueStuck.md"' in filters().linked_rules(quoted, "https://x.net/docs/runbooks")


# --- What the application adds ---

ALERT = "{alert: Own, expr: up == 0, labels: {severity: warning}, annotations: {summary: Down.}}"
PANEL = "{title: Sold, unit: short, expr: sold, by: shop}"


def application(
    folder: Path, alerts: str = "", dashboards: str = "", named: dict[str, str] | None = None
) -> dict[str, Any]:
    """Read what a compose file names, with these rules and dashboards in their groups."""
    if alerts:
        (folder / "alerts.yml").write_text(f"groups: [{{name: own, rules: [{alerts}]}}]\n")
    if dashboards:
        (folder / "dashboards.yml").write_text(dashboards)
    compose = folder / "compose.yml"
    files = {"alerts": "alerts.yml"} if alerts else {"dashboards": "dashboards.yml"} if dashboards else {}
    compose.write_text(json.dumps({"x-berth": {**files, **(named or {})}, "services": {}}))
    return dict(filters("monitoring_application").application(str(compose)))


def test_the_compose_file_names_the_alerts_and_dashboards_of_the_application() -> None:
    found = filters("monitoring_application").application(str(ROOT / "docker-compose.prod.yml"))
    assert found["problems"] == []
    assert found["rules"] == (APPLICATION / "alerts.yml").read_text()
    assert [one["name"] for one in found["dashboards"]] == ["queue"]


def test_an_application_without_alerts_and_a_monitoring_without_an_application_are_fine(tmp_path: Path) -> None:
    for found in (
        application(tmp_path, named={"secrets": "of role environment"}),
        filters("monitoring_application").application(""),
    ):
        assert found == {"rules_file": "", "rules": "", "dashboards": [], "problems": []}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"alerts": ALERT}, ""),
        ({"alerts": "{record: a, expr: up}"}, ""),
        ({"alerts": ALERT.replace("warning", "info, needs: service databases, service: web")}, ""),
        (
            {"alerts": ALERT.replace("Own", "SiteDown")},
            "alerts.yml: the alert SiteDown is one of Berth's own. Give yours",
        ),
        ({"alerts": f"{ALERT}, {ALERT}"}, "the alert Own needs a name of its own"),
        ({"alerts": ALERT.replace("Own", "My own")}, "the alert My own needs a name of its own, of letters"),
        (
            {"alerts": ALERT.replace("warning", "page")},
            "the alert Own needs a label severity: critical, warning, or info",
        ),
        (
            {"alerts": ALERT.replace("warning", "info, needs: web")},
            "needs of the alert Own may be service, databases, or",
        ),
        ({"alerts": ALERT.replace("summary", "title")}, "the alert Own needs an annotation summary"),
        ({"alerts": "{expr: up}"}, "alerts.yml holds no rules of Prometheus"),
        ({"alerts": "}"}, "alerts.yml is not YAML"),
        ({"dashboards": f"[{{name: own, title: Own, panels: [{PANEL}]}}]"}, ""),
        (
            {"dashboards": f"[{{name: site, title: Own, panels: [{PANEL}]}}]"},
            "the dashboard site is one of Berth's own.",
        ),
        (
            {"dashboards": f"[{{name: ../own, title: Own, panels: [{PANEL}]}}]"},
            "the dashboard ../own needs a name of its",
        ),
        (
            {"dashboards": "[{name: own, title: Own, panels: [{title: Sold}]}]"},
            "each panel of the dashboard Own needs title",
        ),
        (
            {"dashboards": f"[{{name: a, title: A, panels: [{PANEL.replace('short', 'm')}]}}]"},
            "m is no unit of a panel",
        ),
        ({"dashboards": "{own: 1}"}, "dashboards.yml is a list of dashboards"),
        ({"named": {"alert": "alerts.yml"}}, "x-berth has alert. Known keys: alerts, dashboards, secrets."),
        (
            {"named": {"alerts": "nowhere.yml"}},
            "compose.yml: x-berth.alerts is nowhere.yml: name a file, relative to the folder of",
        ),
        ({"named": {"alerts": "../alerts.yml"}}, "compose.yml: x-berth.alerts is ../alerts.yml: name a file"),
    ],
)
def test_what_cannot_be_used_of_an_application_is_refused_with_a_sentence(
    tmp_path: Path, given: dict[str, Any], says: str
) -> None:
    (tmp_path / "alerts.yml").write_text("groups: []\n")
    (tmp_path / "below").mkdir()
    problems = application(tmp_path / "below", **given)["problems"]
    assert len(problems) == (1 if says else 0), problems
    assert all(says in problem for problem in problems)


@pytest.mark.parametrize("text", [None, "]", "x-berth: alerts.yml\n"])
def test_a_compose_file_that_cannot_be_used_is_refused_with_a_sentence(tmp_path: Path, text: str | None) -> None:
    if text:
        (tmp_path / "compose.yml").write_text(text)
    [problem] = filters("monitoring_application").application(str(tmp_path / "compose.yml"))["problems"]
    assert "compose.yml" in problem
    assert "Name the compose file, or leave it empty." in problem or "x-berth holds keys and values" in problem


def test_inhibitions_and_routes_name_rules_that_exist() -> None:
    text = (ROLE / "templates/config/alertmanager/alertmanager.yml.j2").read_text()
    matchers = re.findall(r"alertname =~? \"([A-Za-z|]+)\"", text)
    assert matchers
    assert {name for matcher in matchers for name in matcher.split("|")} <= set(rules())


def test_what_an_alert_of_the_application_may_need_is_what_inhibits_it() -> None:
    text = (ROLE / "templates/config/alertmanager/alertmanager.yml.j2").read_text()
    assert set(re.findall(r"'needs =~ \"\.\*(\w+)\.\*\"'", text)) == set(filters("monitoring_application").NEEDS)


def container(name: str, service: str, project: str, running: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
    detail = {
        "Name": f"/{name}",
        "Config": {"Labels": labels},
        "State": {"Running": running},
        "NetworkSettings": {"Networks": {"berth_edge": {"IPAddress": "172.28.0.5" if running else ""}}},
    }
    return detail, {}


def test_prometheus_is_led_to_running_containers_of_both_colours_and_to_no_other() -> None:
    found = targets(
        [
            container("berth-green-auth_service-1", "auth_service", "berth-green"),
            container("berth-blue-auth_service-1", "auth_service", "berth-blue"),
            container("berth-blue-auth_service-2", "auth_service", "berth-blue", running=False),
            container("berth-redis-1", "redis", "berth"),
        ],
        {"auth_service": Scrape("auth_service", 8000)},
        ["berth_edge"],
    )
    assert [each["labels"]["instance"] for each in found] == ["berth-blue-auth_service-1", "berth-green-auth_service-1"]
    assert found[0]["targets"] == ["172.28.0.5:8000"]
    assert found[0]["labels"]["colour"] == "blue"


def test_a_container_that_compose_did_not_make_is_named_all_the_same() -> None:
    detail = container("by-hand", "", "")[0]
    detail["Config"]["Labels"] = None
    assert labels_of(detail) == {"name": "by-hand", "service": "", "colour": ""}


def test_a_disk_is_measured_once_however_often_it_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    table = (
        f"/dev/vda1 {tmp_path}/deeper ext4 rw,relatime 0 0\n/dev/vda1 {tmp_path} ext4 ro,relatime 0 0\n"
        f"tmpfs /run/user/0 tmpfs rw 0 0\noverlay {tmp_path}/deeper overlay rw 0 0\n"
    )
    metrics = Metrics()
    file_systems(metrics, table, places(table))
    lines = metrics.text().splitlines()
    labels = f'{{device="/dev/vda1",mountpoint="{tmp_path}",fstype="ext4"}}'
    assert f"node_filesystem_readonly{labels} 1" in lines
    assert sum(line.startswith("node_filesystem_size_bytes") for line in lines) == 1


def test_what_is_kept_in_memory_is_measured_too_unless_it_is_somebodys_own(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    table = (
        f"tmpfs {tmp_path} tmpfs rw 0 0\ntmpfs {tmp_path}/full tmpfs rw,size=16k 0 0\ntmpfs /proc tmpfs ro 0 0\n"
        "tmpfs /dev/shm tmpfs rw 0 0\nshm /var/lib/docker tmpfs rw 0 0\noverlay / overlay rw 0 0\n"
    )
    seen = places(table)
    assert {mount.place for mount in mounts(table, seen)} == {str(tmp_path), f"{tmp_path}/full", "/"}
    assert {mount.place for mount in mounts(table, seen - {f"{tmp_path}/full"})} == {str(tmp_path), "/"}


def test_a_container_knows_when_it_was_started_itself(tmp_path: Path) -> None:
    first, kernel = tmp_path / "first", tmp_path / "kernel"
    ticks = 250 * os.sysconf("SC_CLK_TCK")
    first.write_text(f"1 (a) name)) S {'0 ' * 18}{ticks} 0 0\n")
    kernel.write_text("cpu 1 2\nbtime 1000\nprocesses 3\n")
    metrics = Metrics()
    boot(metrics, first, kernel)
    name, value = metrics.text().splitlines()[-1].split(" ")
    assert re.fullmatch(rf'berth_boot_time_seconds\{{boot="[0-9a-f]{{8}}-{ticks}"\}}', name)
    assert float(value) == 1250


def test_a_metric_is_described_once_and_its_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.add("things_total", "Things.", 1, {"name": 'a"b\\c\n'})
    metrics.add("things_total", "Things.", 2)
    assert metrics.text() == (
        "# HELP things_total Things.\n# TYPE things_total counter\n"
        'things_total{name="a\\"b\\\\c\\n"} 1\nthings_total 2\n'
    )


# --- What should be there beside what is there ---


def samples(metrics: Metrics) -> dict[str, str]:
    """Return name -> value of what is present, or is not."""
    found = re.findall(r'^berth_present\{.*?name="([^"]+)".*\} (\S+)$', metrics.text(), re.MULTILINE)
    return dict(found)


def live_site(root: Path) -> None:
    (root / "traefik/dynamic").mkdir(parents=True)
    (root / "traefik/dynamic/release.yml").write_text('# berth-release: {"release": "1.4.0", "colour": "blue"}\n')
    attempt = {"verb": "release", "result": "live", "at": "2026-11-29T02:00:00Z", "seconds": 40, "colour": "blue"}
    (root / "releases.jsonl").write_text(json.dumps(attempt) + "\n")
    (root / "releases/1.4.0").mkdir(parents=True)
    (root / "releases/1.4.0/services.json").write_text('{"services": ["auth_service", "beat", "frontend"]}')


def test_a_container_that_was_removed_or_stopped_is_missing_and_not_left_out(tmp_path: Path) -> None:
    live_site(tmp_path)
    found = [
        container("berth-redis-1", "redis", "berth"),
        container("berth-blue-beat-1", "beat", "berth-blue"),
        container("berth-blue-auth_service-1", "auth_service", "berth-blue", running=False),
    ]
    wanted = Expected(["berth-mongo-1", "berth-redis-1"])
    metrics = Metrics()
    expected.containers(metrics, found, wanted, tmp_path)
    assert samples(metrics) == {
        "berth-mongo-1": "0",
        "berth-redis-1": "1",
        "berth-blue-auth_service-1": "0",
        "berth-blue-beat-1": "1",
        "berth-blue-frontend-1": "0",
        str(tmp_path / "traefik/dynamic/release.yml"): "1",
        str(tmp_path / "releases.jsonl"): "1",
    }
    assert 'berth_present{kind="container",name="berth-mongo-1",service="mongo"} 0' in metrics.text()


@pytest.mark.parametrize("gone", ["traefik/dynamic/release.yml", "releases.jsonl"])
def test_that_a_release_is_live_is_not_forgotten_with_one_file(tmp_path: Path, gone: str) -> None:
    live_site(tmp_path)
    (tmp_path / gone).unlink()
    metrics = Metrics()
    expected.containers(metrics, [], Expected(), tmp_path)
    assert samples(metrics)[str(tmp_path / gone)] == "0"


def test_where_nothing_was_ever_released_no_release_is_missing(tmp_path: Path) -> None:
    (tmp_path / "releases.jsonl").write_text(
        '{"verb": "release", "result": "failed", "at": "2026-11-29T02:00:00Z", "seconds": 4, "colour": "blue"}\n'
    )
    metrics = Metrics()
    expected.containers(metrics, [], Expected(), tmp_path)
    assert samples(metrics) == {}


def test_networks_and_folders_that_are_gone_or_empty_are_missing(tmp_path: Path) -> None:
    metrics, secrets, empty = Metrics(), tmp_path / "secrets", tmp_path / "empty"
    (secrets / "smtp_password").mkdir(parents=True)
    empty.mkdir()
    wanted = Expected(networks=["berth_data", "berth_edge"], folders=[str(secrets), str(empty), "/nowhere/at/all"])
    expected.networks(metrics, [{"Name": "berth_data"}, {"Name": "bridge"}], wanted)
    expected.folders(metrics, wanted)
    assert samples(metrics) == {
        "berth_data": "1",
        "berth_edge": "0",
        str(secrets): "1",
        str(empty): "0",
        "/nowhere/at/all": "0",
    }


SHOWN = """\
Id=docker.service
ActiveState=active
LoadState=loaded
ConditionResult=yes
UnitFileState=enabled

Id=berth-edge.service
ActiveState=inactive
LoadState=not-found
ConditionResult=no
UnitFileState=

Id=berth-secrets.service
ActiveState=active
LoadState=loaded
ConditionResult=yes
UnitFileState=disabled

Id=berth-backup.timer
ActiveState=active
LoadState=loaded
ConditionResult=no
UnitFileState=static
"""


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **does: str) -> None:
    """Put programs of these names first in PATH, each a line of shell."""
    for name, line in does.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_units_that_are_not_installed_or_not_enabled_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shown").write_text(SHOWN)
    programs(tmp_path, monkeypatch, systemctl=f"cat {tmp_path}/shown", nft="echo table inet berth")
    names = ["docker.service", "berth-edge.service", "berth-secrets.service", "berth-backup.timer"]
    wanted, metrics = Expected(units=names, tables=["inet berth", "inet berth_edge"]), Metrics()
    expected.units(metrics, wanted)
    expected.tables(metrics, wanted)
    assert samples(metrics) == {
        "docker.service": "1",
        "berth-edge.service": "0",
        "berth-secrets.service": "0",
        "berth-backup.timer": "1",
        "inet berth": "1",
        "inet berth_edge": "0",
    }


def test_without_nftables_its_tables_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    metrics = Metrics()
    expected.tables(metrics, Expected(tables=["inet berth"]))
    assert samples(metrics) == {"inet berth": "0"}


def test_a_program_that_does_not_answer_is_not_taken_for_nothing_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, systemctl="echo no bus >&2; exit 1", **{"apt-get": "exit 100"})
    with pytest.raises(OSError, match="no bus"):
        units(Metrics(), [])
    with pytest.raises(OSError, match="apt-get"):
        upgrades()


def test_the_containers_that_are_expected_are_the_platform_of_the_compose_file() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    services = yaml.safe_load((ROOT / "docker-compose.prod.yml").read_text())["services"]
    platform = {name for name, service in services.items() if "platform" in service["profiles"]}
    stay = {f"berth-{name}-1" for name in platform}
    expected = Templar(ansible_loader()).template(trust_as_template(defaults["monitoring_expected_containers"]))
    assert set(expected) == stay


def test_backups_are_expected_since_they_were_ordered_of_each_target_and_verb(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    metrics = Metrics()
    backups(metrics, settings)
    assert metrics.text() == ""
    name = "berth_backup_expected_since_seconds"
    for databases, verbs in (
        ({"mongo": ""}, ("run", "check")),
        ({"mongo": "", "databases": [{"name": "postgres"}]}, ("run", "check", "drill")),
        ({"mongo": "berth-mongo-1"}, ("run", "check", "oplog", "drill")),
    ):
        settings.write_text(json.dumps({**databases, "targets": [{"name": "store"}]}))
        os.utime(settings, (1000, 1000))
        metrics = Metrics()
        backups(metrics, settings)
        lines = [line for line in metrics.text().splitlines() if not line.startswith("#")]
        assert lines == [f'{name}{{target="store",verb="{verb}"}} 1000.0' for verb in verbs]


def test_it_is_measured_since_when_secrets_have_their_values_and_former_passwords_are_accepted(tmp_path: Path) -> None:
    metrics = Metrics()
    secrets(metrics, tmp_path / ".env")
    assert metrics.text().splitlines()[2:] == ["berth_secrets_former_since_seconds 0"]
    since = {"redis_shop_password": "2026-11-29T02:00:00Z", "mongo_shop_password": "1970-01-01T01:00:00Z"}
    Applied(since=since, changed=1764381600.5).write(tmp_path / ".env")
    metrics = Metrics()
    secrets(metrics, tmp_path / ".env")
    assert [line for line in metrics.text().splitlines() if not line.startswith("#")] == [
        'berth_secret_since_seconds{secret="mongo_shop_password"} 3600.0',
        'berth_secret_since_seconds{secret="redis_shop_password"} 1795917600.0',
        "berth_secrets_former_since_seconds 1764381600.5",
    ]


# --- A request that was refused is no release that was refused ---


@pytest.mark.parametrize(
    ("last", "went_live"),
    [
        # An unknown release, images that did not come, a controller that went away at once: nothing was begun.
        ({"verb": "rollback", "result": "failed", "colour": ""}, "1"),
        ({"verb": "release", "result": "undone", "colour": ""}, "1"),
        # A gate said no, or the watch did.
        ({"verb": "release", "result": "failed", "colour": "green"}, "0"),
        ({"verb": "release", "result": "undone", "colour": "green"}, "0"),
        ({"verb": "upgrade", "result": "failed"}, "0"),
        ({"verb": "restore", "result": "failed"}, "1"),
    ],
)
def test_only_what_gates_refused_counts_as_refused(tmp_path: Path, last: dict[str, str], went_live: str) -> None:
    live_site(tmp_path)
    with (tmp_path / "releases.jsonl").open("a") as history:
        history.write(json.dumps({"at": "2026-11-29T03:00:00Z", "seconds": 1, **last}) + "\n")
    metrics = Metrics()
    releases(metrics, tmp_path)
    assert f"\nberth_release_last_attempt_success {went_live}\n" in metrics.text()


def test_what_is_under_way_is_measured_from_the_locks_own_record(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    run = Lock(tmp_path / "releases").begin("release", "1.5.0", "ada")
    metrics = Metrics()
    releases(metrics, tmp_path)
    assert f"\nberth_release_running_since_seconds {run.began!r}\n" in metrics.text()


def test_an_attempt_whose_line_a_full_disk_cut_short_is_not_counted(tmp_path: Path) -> None:
    live_site(tmp_path)
    with (tmp_path / "releases.jsonl").open("a") as history:
        history.write('{"verb": "release", "result": "failed", "steps": {}')
    metrics = Metrics()
    releases(metrics, tmp_path)
    assert re.findall("^berth_release_attempts_total.*", metrics.text(), re.MULTILINE) == [
        'berth_release_attempts_total{verb="release",result="live"} 1'
    ]
