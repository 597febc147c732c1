"""promtool's own judgement of the rules: are they valid, does each fire when it must and only then, and who says so
where what it looks at is gone."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLE, APPLICATION = ROOT / "roles/monitoring", ROOT / "monitoring"
# Berth's rules and those of the application, as paths in promtool's container.
RULE_FILES = [
    *(f"/role/files/rules/{file.name}" for file in sorted((ROLE / "files/rules").glob("*.yml"))),
    "/application/alerts.yml",
]


def promtool(*words: str, volume: str = "") -> subprocess.CompletedProcess[str]:
    image = os.environ.get("PROMTOOL_IMAGE", "localhost/berth/promtool:2")
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--tmpfs=/tmp:mode=1777",
        f"--volume={ROLE}:/role:ro",
        f"--volume={APPLICATION}:/application:ro",
        *([f"--volume={volume}"] if volume else []),
        image,
    ]
    return subprocess.run([*command, *words], capture_output=True, text=True, check=False)


@pytest.mark.integration
def test_the_rules_are_valid() -> None:
    done = promtool("check", "rules", "--lint-fatal", *RULE_FILES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    "tests",
    [*(f"/role/tests/{file.name}" for file in sorted((ROLE / "tests").glob("*.yml"))), "/application/alerts_test.yml"],
)
def test_each_rule_fires_when_it_must_and_only_then(tests: str) -> None:
    done = promtool("test", "rules", tests)
    assert done.returncode == 0, done.stdout + done.stderr


# --- The series of a rule are gone ---

# While the first is there all is well; then it is gone, or says so, for an hour.
GONE_AFTER, GONE = 5, 60


@dataclass(frozen=True)
class Gone:
    """What happens to the series of these rules, which alert then says so, and what that alert sees of it."""

    how: str
    says: str
    sees: dict[str, str]
    rules: str


NODE = 'up{job="node", instance="node_exporter:9100"}'
REDIS = 'up{job="redis", instance="redis_exporter:9121"}'
PROBE = 'up{job="probe", instance="https://www.berth.test/"}'
ITSELF = 'up{job="prometheus", instance="prometheus:9090"}'
MANAGER = 'up{job="alertmanager", instance="alertmanager:9093"}'
EDGE = 'up{job="traefik", instance="berth-traefik_a-1"}'
WEB, WORKER, PAGES = (
    f'berth_release_service{{service="{service}", scraped="{scraped}"}}'
    for service, scraped in (("web", "true"), ("celery_worker", "true"), ("pages", "false"))
)
UP_WEB, UP_WORKER = (f'up{{job="{job}", instance="x", colour="blue"}}' for job in ("web", "celery_worker"))
RUNS_PAGES = 'berth_container_running{name="berth-blue-pages-1", service="pages", colour="blue"}'
HOST = 'node_textfile_mtime_seconds{file="/metrics/berth_host.prom"}'
STOPS, IS_GONE, STAYS = f"1x{GONE_AFTER} 0x{GONE}", f"1x{GONE_AFTER} _x{GONE}", f"1x{GONE_AFTER + GONE}"
STATIC = "Prometheus itself writes `up` for each target of its configuration, which does not vanish: 0"


def missing(kind: str, name: str, **labels: str) -> dict[str, str]:
    more = "".join(f', {key}="{value}"' for key, value in labels.items())
    return {f'berth_present{{kind="{kind}", name="{name}"{more}}}': STOPS}


def never(verb: str) -> dict[str, str]:
    # Ordered long before the rule's limit.
    return {f'berth_backup_expected_since_seconds{{target="store", verb="{verb}"}}': f"_x{GONE_AFTER} -999999x{GONE}"}


CASES = [
    Gone("it has none", "Watchdog", {}, "Watchdog"),
    Gone(
        f"node_exporter does not answer. {STATIC}",
        "TargetDown",
        {NODE: STOPS},
        "MemoryLow MemoryPressure ProcessorBusy ProcessorStolen TargetDown",
    ),
    Gone(
        "one of its collectors fails",
        "HostFiguresIncomplete",
        {'node_scrape_collector_success{collector="meminfo"}': STOPS},
        "MemoryLow MemoryPressure ProcessorBusy ProcessorStolen",
    ),
    Gone(f"redis_exporter does not answer. {STATIC}", "TargetDown", {REDIS: STOPS}, "RedisDown"),
    Gone(
        "Redis does not answer its exporter, which says so and nothing else",
        "RedisDown",
        {"redis_up": STOPS},
        "RedisMemoryHigh RedisNotSaving",
    ),
    Gone(
        f"blackbox_exporter does not answer. {STATIC}",
        "TargetDown",
        {PROBE: STOPS},
        "SiteDown SiteSlow CertificateExpiresSoon CertificateExpiresNow",
    ),
    Gone(
        f"Prometheus does not answer itself (where it is gone, the dead man's switch tells). {STATIC}",
        "TargetDown",
        {ITSELF: STOPS},
        "RulesFail",
    ),
    Gone("it has lost Alertmanager", "AlertmanagerLost", {}, "AlertmanagerLost"),
    Gone(f"Alertmanager does not answer. {STATIC}", "TargetDown", {MANAGER: STOPS}, "AlertsNotSent"),
    Gone(
        "both edges are gone, and with them their entry among the targets",
        "EdgeDown",
        {EDGE: IS_GONE},
        "EdgeDown RequestsLimited",
    ),
    Gone(
        "a service is gone, and with it its entry among the targets",
        "ServiceDown",
        {WEB: STAYS, UP_WEB: IS_GONE, PAGES: STAYS, RUNS_PAGES: STAYS},
        "ServiceDown ErrorRateHigh WorkersLost LatencyHigh SignInsRefused OverloadRefused SignUpsFailing "
        "ErrorBudgetBurnsFast ErrorBudgetBurnsSteadily ErrorBudgetBurnsSlowly",
    ),
    Gone(
        "a service without metrics is gone",
        "ServiceDown",
        {WEB: STAYS, UP_WEB: STAYS, PAGES: STAYS, RUNS_PAGES: IS_GONE},
        "ServiceDown",
    ),
    Gone(
        "what names the live release is gone, so that nobody knows that there should be services",
        "ComponentMissing",
        missing("file", "/opt/berth/traefik/dynamic/release.yml"),
        "ServiceDown",
    ),
    Gone(
        "the worker is gone; it answers with all of its metrics or not at all",
        "ServiceDown",
        {WORKER: STAYS, UP_WORKER: IS_GONE},
        "HeartbeatMissing QueueGrowing QueueStuck TasksFailing TasksRetried",
    ),
    Gone(
        "its container is gone, and the engine with it says nothing of one",
        "DatabaseDown",
        {
            'berth_container_healthy{name="berth-mongo-1", service="mongo"}': IS_GONE,
            'berth_container_running{name="berth-mongo-1", service="mongo"}': IS_GONE,
            **missing("container", "berth-mongo-1", service="mongo"),
        },
        "DatabaseDown",
    ),
    Gone(
        "the container is gone",
        "ComponentMissing",
        missing("container", "berth-blue-clock-1", service="clock"),
        "ContainerUnhealthy ContainerRestarts ContainerMemoryHigh ContainerOutOfMemory ComponentMissing RedisDown",
    ),
    Gone(
        "the unit is uninstalled or disabled; of the others berth-metrics tells always",
        "ComponentMissing",
        missing("unit", "berth-edge.service"),
        "UnitDown",
    ),
    Gone(
        "berth-metrics could not measure that part, and says nothing of it",
        "HostFiguresIncomplete",
        {'berth_metrics_part_success{part="some"}': STOPS},
        "DiskFull DiskNearlyFull DiskFillsUp DiskFilesNearlyUsed DiskReadOnly ClockWrong HostRestarted UnitFailed "
        "UnitDown SecurityUpdatesWait RebootWaits MaintenanceOn MaintenanceForgotten ReleaseRefused ReleaseStuck "
        "ReleaseUnsigned ServiceDown DatabaseDown ContainerUnhealthy ContainerRestarts ContainerMemoryHigh "
        "ContainerOutOfMemory ComponentMissing BackupStale LogLinesRefused SecretOld FormerSecretsAccepted",
    ),
    Gone(
        "berth-metrics writes nothing any more, or its file is gone",
        "HostFiguresStale",
        {HOST: f"0+60x{GONE_AFTER} _x{GONE}"},
        "HostFiguresStale HostFiguresIncomplete DiskFull DiskNearlyFull DiskFillsUp DiskFilesNearlyUsed DiskReadOnly "
        "ClockWrong HostRestarted UnitFailed UnitDown SecurityUpdatesWait RebootWaits MaintenanceOn "
        "MaintenanceForgotten ReleaseRefused ReleaseStuck ReleaseUnsigned LogLinesRefused SecretOld "
        "FormerSecretsAccepted",
    ),
    Gone(
        "no backup was ever made, or what it wrote is gone",
        "BackupStale",
        never("run"),
        "BackupStale BackupFailed BackupShrank",
    ),
    Gone("the same for changes", "BackupChangesStale", never("oplog"), "BackupChangesStale"),
    Gone("the same for a check", "BackupCheckStale", never("check"), "BackupCheckStale BackupCheckFailed"),
    Gone("the same for a drill", "RestoreDrillStale", never("drill"), "RestoreDrillStale RestoreDrillFailed"),
    Gone(
        "a shipper is stopped, and berth-metrics goes on with the number that it left",
        "UnitDown",
        {'berth_unit_active{unit="berth-log-shipping@search.service"}': STOPS},
        "LogLinesRefused",
    ),
    Gone(
        "its timers are gone",
        "ComponentMissing",
        missing("unit", "berth-backup.timer"),
        "BackupFailed BackupCheckFailed BackupShrank RestoreDrillFailed",
    ),
]


def rules() -> dict[str, str]:
    """Return each alert's expression."""
    return {
        rule["alert"]: rule["expr"]
        for file in [*(ROLE / "files/rules").glob("*.yml"), APPLICATION / "alerts.yml"]
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def test_of_every_rule_it_is_known_who_says_that_its_series_are_gone() -> None:
    assert {rule for case in CASES for rule in case.rules.split()} == set(rules())


@pytest.mark.integration
def test_where_the_series_of_a_rule_are_gone_an_alert_says_so(tmp_path: Path) -> None:
    tests: list[dict[str, Any]] = []
    for case in CASES:
        series = case.sees
        if case.says not in ("HostFiguresStale", "Watchdog"):
            series = {HOST: f"0+60x{GONE_AFTER + GONE}", **series}
        firing = f'count by (alertname) (ALERTS{{alertname="{case.says}", alertstate="firing"}})'
        said = {"labels": f'{{alertname="{case.says}"}}', "value": 1}
        # Nothing is wrong before, but where the absence itself is the case.
        quiet = bool(case.sees)
        before: list[dict[str, Any]] = (
            [{"expr": firing, "eval_time": f"{GONE_AFTER - 1}m", "exp_samples": []}] if quiet else []
        )
        after = [{"expr": firing, "eval_time": f"{GONE_AFTER + GONE - 1}m", "exp_samples": [said]}]
        tests.append(
            {
                "name": f"{case.rules}: {case.how}",
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": before + after,
            }
        )
    document = {
        "rule_files": RULE_FILES,
        "evaluation_interval": "1m",
        "tests": tests,
    }
    (tmp_path / "gone.yml").write_text(yaml.safe_dump(document))
    tmp_path.chmod(0o755)
    done = promtool("test", "rules", "/gone/gone.yml", volume=f"{tmp_path}:/gone:ro")
    assert done.returncode == 0, done.stdout + done.stderr
