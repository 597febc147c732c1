"""Every rule is tried, has a page that says what to do, and survives being shortened for a test."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth_metrics.engine import Scrape, labels_of, targets
from berth_metrics.exposition import Metrics
from berth_metrics.host import boot, file_systems, mounts, places

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/monitoring"
RULE_FILES = sorted((ROLE / "files/rules").glob("*.yml"))


def rules() -> dict[str, dict[str, Any]]:
    return {
        rule["alert"]: rule
        for file in RULE_FILES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    }


def scaled_rules(text: str, factor: float) -> str:
    loader = importlib.machinery.SourceFileLoader("monitoring_filters", str(ROLE / "filter_plugins/monitoring.py"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return str(module.scaled_rules(text, factor))


def test_every_rule_has_a_severity_a_summary_and_a_page() -> None:
    assert len(rules()) >= 25
    for name, rule in rules().items():
        assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}, name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"


def test_there_is_a_page_for_each_rule_and_for_nothing_else() -> None:
    pages = {page.stem: page.read_text() for page in (ROOT / "docs/runbooks").glob("*.md")}
    assert set(pages) == set(rules())
    for name, text in pages.items():
        assert text.startswith(f"# {name}\n")
        for part in ("**What it means.**", "**How to look.**", "**How to mend.**"):
            assert part in text, name


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.stem)
def test_every_rule_is_tried_silent_and_firing(file: Path) -> None:
    """Run by promtool in tests/monitoring/test_promtool.py; here: none is forgotten."""
    tried = yaml.safe_load((ROLE / "tests" / file.name).read_text())["tests"]
    cases = [case for test in tried for case in test["alert_rule_test"]]
    names = {rule["alert"] for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    # The one that always fires is never silent.
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names - {"Watchdog"}


def test_a_factor_shortens_how_long_and_over_what_time_and_nothing_else() -> None:
    text = (
        "expr: rate(errors_total[5m]) > 300 and age > 14 * 86400 unless age offset 10m\n"
        "for: 2m\nsummary: For 5m and more."
    )
    assert scaled_rules(text, 1) == text
    shorter = text.replace("[5m]", "[30s]").replace("for: 2m", "for: 12s").replace("offset 10m", "offset 60s")
    assert scaled_rules(text, 0.1) == shorter
    assert "for: 1s" in scaled_rules(text, 0.0001)


def test_inhibitions_and_routes_name_rules_that_exist() -> None:
    text = (ROLE / "templates/config/alertmanager/alertmanager.yml.j2").read_text()
    matchers = re.findall(r"alertname =~? \"([A-Za-z|]+)\"", text)
    assert matchers
    assert {name for matcher in matchers for name in matcher.split("|")} <= set(rules())


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
    scrape = Scrape("auth_service", "auth_service", "berth_edge", 8000)
    found = targets(
        [
            container("berth-green-auth_service-1", "auth_service", "berth-green"),
            container("berth-blue-auth_service-1", "auth_service", "berth-blue"),
            container("berth-blue-auth_service-2", "auth_service", "berth-blue", running=False),
            container("berth-redis-1", "redis", "berth"),
        ],
        [scrape],
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
