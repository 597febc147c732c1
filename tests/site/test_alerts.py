"""Faults of a live site reach the operator's mailbox, and so does their end.

The scenario shortens the times in the rules (molecule/default/molecule.yml). The faults are made together, since each
alert waits for its own time.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml
from testinfra.host import Host

from tests.support import Mailbox, poll

ROOT = Path(__file__).resolve().parents[2]
ALERT_SECONDS = 90
RESOLVED_SECONDS = 120
STALE = "berth_backup_last_success_timestamp_seconds"
TEXTFILE = "/var/lib/berth/metrics/test.prom"
PROBES = "/opt/berth/monitoring/targets/probes-test.json"
FAULTS = {"ServiceDown", "WorkerDown", "CertificateExpiresNow", "BackupStale"}


@dataclass
class Monitoring:
    vps: Host
    mailbox: Mailbox

    def prometheus(self, path: str) -> Any:
        return json.loads(self.vps.check_output("curl -fsS -g %s", f"http://127.0.0.1:9090/api/v1/{path}"))["data"]

    def firing(self) -> set[str]:
        alerts = self.prometheus("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def told(self) -> set[str]:
        """Return the alerts that Alertmanager neither inhibits nor silences."""
        alerts = json.loads(
            self.vps.check_output("curl -fsS %s", "http://127.0.0.1:9093/api/v2/alerts?inhibited=false")
        )
        return {each["labels"]["alertname"] for each in alerts}

    def mailed(self, word: str) -> set[str]:
        """Return the alerts about which a mail with this word in its subject came."""
        subjects = [mail["subject"] for mail in httpx.get(f"{self.mailbox.url}/api/email").raise_for_status().json()]
        return {found[2] for each in subjects if (found := re.match(r"\[(\w+)\] (\w+):", each)) and found[1] == word}


@pytest.fixture(scope="module")
def monitoring(vps: Host, mailbox: Mailbox) -> Monitoring:
    watching = Monitoring(vps, mailbox)
    # Tests before this one may have restarted everything.
    poll(lambda: True if not FAULTS & watching.firing() else None, ALERT_SECONDS, "quiet before the faults")
    return watching


class Faults:
    """A service and the worker stopped, a certificate that ends tomorrow, and a backup two days old."""

    def __init__(self, vps: Host, outside: Host, zone: str) -> None:
        self._vps, self._outside, self._zone = vps, outside, zone
        self._stopped: list[str] = []

    def begin(self) -> None:
        for service in ("user_service", "celery_worker"):
            container = self._vps.check_output("docker ps -q -f label=com.docker.compose.service=%s", service)
            self._stopped.append(container)
            self._vps.check_output("docker stop --time 5 %s", container)
        self._outside.check_output(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=%s "
            "-keyout /tmp/soon.key -out /tmp/soon.pem 2>/dev/null",
            f"outside.{self._zone}",
        )
        self._outside.check_output(
            "nohup openssl s_server -quiet -www -accept 443 -cert /tmp/soon.pem -key /tmp/soon.key "
            ">/dev/null 2>&1 & echo $! > /tmp/soon.pid"
        )
        probe = json.dumps([{"targets": [f"https://outside.{self._zone}/"]}])
        # In the words of role backup, whose file may stand beside it: node_exporter takes no two texts of one metric.
        about = f"# HELP {STALE} End of the newest run.\n# TYPE {STALE} gauge"
        old = f'{about}\n{STALE}{{target="test"}} {time.time() - 2 * 86400}'
        for place, text in ((PROBES, probe), (TEXTFILE, old)):
            self._vps.check_output("sh -c %s", f"umask 022; echo {shlex.quote(text)} > {place}")

    def end(self) -> None:
        while self._stopped:
            self._vps.check_output("docker start %s", self._stopped.pop())
        self._vps.check_output("rm -f %s %s", PROBES, TEXTFILE)
        self._outside.run("sh -c 'kill $(cat /tmp/soon.pid); rm -f /tmp/soon.*'")


@pytest.fixture(scope="module")
def faults(monitoring: Monitoring, outside: Host, testbed: dict[str, str]) -> Iterator[Faults]:
    made = Faults(monitoring.vps, outside, testbed["zone"])
    try:
        made.begin()
        yield made
    finally:
        made.end()


@pytest.mark.usefixtures("faults")
def test_each_fault_reaches_the_mailbox(monitoring: Monitoring, http: httpx.Client) -> None:
    def all_told() -> bool | None:
        # Visitors go on coming meanwhile, and are answered with 502 and 503.
        http.get("/api/users/me")
        arrived = monitoring.mailed("critical")
        return True if arrived >= FAULTS else None

    poll(all_told, ALERT_SECONDS, f"mails about {FAULTS}")


@pytest.mark.usefixtures("faults")
def test_what_follows_from_a_fault_fires_and_is_not_told_beside_it(monitoring: Monitoring, http: httpx.Client) -> None:
    def errors() -> bool | None:
        assert http.get("/api/users/me").status_code >= 500
        return True if "ErrorRateHigh" in monitoring.firing() else None

    poll(errors, ALERT_SECONDS, "ErrorRateHigh")
    assert "ServiceDown" in monitoring.told()
    assert "ErrorRateHigh" not in monitoring.told()


def test_every_metric_in_rules_and_dashboards_exists(monitoring: Monitoring) -> None:
    role = ROOT / "roles/monitoring"
    panels = yaml.safe_load((role / "vars/main/dashboards.yml").read_text())["_monitoring_dashboards"]
    asked = [panel["expr"] for dashboard in panels for panel in dashboard["panels"]]
    for file in (role / "files/rules").glob("*.yml"):
        asked += [rule["expr"] for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    plain = " ".join(re.sub(r'"[^"]*"', "", expr) for expr in asked)
    wanted = set(re.findall(r"\b(?:node|berth|redis|traefik|http|probe|prometheus|alertmanager|up)(?:_\w+|\b)", plain))
    there = set(monitoring.prometheus("label/__name__/values"))
    # Those of a fault that is not there, of role backup, and of a kernel of its own.
    elsewhere = {"berth_unit_failed", "berth_reboot_required_since_seconds", "berth_clock_synchronised"}
    elsewhere |= {name for name in wanted if name.startswith(("berth_backup_", "node_pressure_"))}
    assert len(wanted) > 50
    assert wanted - there - elsewhere == set()


@pytest.mark.parametrize("path", ["/metrics", "/api/auth/metrics", "/api/users/metrics", "/api/auth/../../metrics"])
def test_no_figures_leave_through_the_edge(http: httpx.Client, path: str) -> None:
    assert "http_requests_total" not in http.get(path).text


def test_the_end_of_each_fault_reaches_the_mailbox_too(monitoring: Monitoring, faults: Faults) -> None:
    faults.end()
    poll(
        lambda: True if monitoring.mailed("resolved") >= FAULTS else None,
        RESOLVED_SECONDS,
        f"mails that {FAULTS} are over",
    )
