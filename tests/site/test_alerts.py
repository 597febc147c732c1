"""Faults of a live site reach the operator's mailbox, and so does their end.

The scenario shortens the times in the rules (molecule/default/molecule.yml). The faults are made together, since each
alert waits for its own time. A fault that hides another (no service, no worker) comes first and is over before those
that it would hide. That the host was restarted is told in test_restarts.py.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx2 as httpx
import pytest
import yaml
from testinfra.host import Host

from tests.support import Mailbox, Visitor, join, poll

# The first waits for a backup, which others begin.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
ALERT_SECONDS = 120
# The timer that makes it goes off every four minutes.
FIRST_BACKUP_SECONDS = 300
RESOLVED_SECONDS = 120
TWO_DAYS = 2 * 86400
HOG, SMALL_DISK = "berth-test-hog", "/mnt/berth-test"
PROBES = "/opt/berth/monitoring/targets/probes-test.json"
ASK = "curl -fsS -K /opt/berth/monitoring/login/curl"
SHIPPER = "berth-log-shipping@loki.service"


@dataclass
class Monitoring:
    vps: Host
    mailbox: Mailbox
    # Mails of an earlier run.
    old: set[str] = field(default_factory=set)

    def prometheus(self, path: str) -> Any:
        return json.loads(self.vps.check_output(f"{ASK} -g %s", f"http://127.0.0.1:9090/api/v1/{path}"))["data"]

    def firing(self) -> set[str]:
        alerts = self.prometheus("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def told(self) -> set[str]:
        """Return the alerts that Alertmanager neither inhibits nor silences."""
        alerts = json.loads(self.vps.check_output(f"{ASK} %s", "http://127.0.0.1:9093/api/v2/alerts?inhibited=false"))
        return {each["labels"]["alertname"] for each in alerts}

    def mailed(self, over: bool = False) -> dict[str, str]:
        """Return the alerts about which a mail came, or one that they are over, each with all that was said of it."""
        said: dict[str, str] = {}
        for mail in self.mailbox.mails():
            found = re.match(r"\[(\w+)\] (\w+):", mail["subject"])
            if found and mail["id"] not in self.old and (found[1] == "resolved") == over:
                said[found[2]] = said.get(found[2], "") + mail["text"]
        return said


class Site:
    """What the faults are made with."""

    def __init__(self, vps: Host, outside: Host, zone: str, visitor: Visitor) -> None:
        self.vps, self.outside, self.zone, self.visitor = vps, outside, zone, visitor
        self.bearer = visitor.sign_in()

    def container(self, service: str) -> str:
        return str(self.vps.check_output("docker ps -q -f label=com.docker.compose.service=%s", service))

    def process(self, container: str) -> str:
        return str(self.vps.check_output("docker inspect --format '{{.State.Pid}}' %s", container))

    def write(self, place: str, text: str) -> None:
        self.vps.check_output("sh -c %s", f"umask 022; echo {shlex.quote(text)} > {place}")


@contextmanager
def visits(ask: Callable[[], object], seconds: float) -> Iterator[None]:
    """Somebody asks again and again, whatever the answer."""
    enough = Event()

    def go() -> None:
        while not enough.wait(seconds):
            with suppress(httpx.TransportError):
                ask()

    visitor = Thread(target=go)
    visitor.start()
    try:
        yield
    finally:
        enough.set()
        visitor.join()


@contextmanager
def stopped(site: Site, service: str) -> Iterator[None]:
    container = site.container(service)
    site.vps.check_output("docker stop --time 5 %s", container)
    try:
        yield
    finally:
        site.vps.check_output("docker start %s", container)


@contextmanager
def certificate_of_a_day(site: Site) -> Iterator[None]:
    """A server beside the site, watched as the site is, whose certificate ends tomorrow."""
    site.outside.check_output(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=%s "
        "-keyout /tmp/soon.key -out /tmp/soon.pem 2>/dev/null",
        f"outside.{site.zone}",
    )
    site.outside.check_output(
        "nohup openssl s_server -quiet -www -accept 443 -cert /tmp/soon.pem -key /tmp/soon.key "
        ">/dev/null 2>&1 & echo $! > /tmp/soon.pid"
    )
    site.write(PROBES, json.dumps([{"targets": [f"https://outside.{site.zone}/"]}]))
    try:
        yield
    finally:
        site.vps.check_output("rm -f %s", PROBES)
        site.outside.run("sh -c 'kill $(cat /tmp/soon.pid); rm -f /tmp/soon.*'")


@contextmanager
def no_backup_for_two_days(site: Site) -> Iterator[None]:
    """What the program of the backups remembers is older than it is, since nobody can wait; a backup mends it."""
    older = (
        "from berth.backup import metrics, records, settings\n"
        "read = settings.Settings.read()\n"
        "kept = records.Records(read)\n"
        "with kept.changing() as state:\n"
        "    for target in state['targets'].values():\n"
        f"        target['success_at'] -= {TWO_DAYS}\n"
        "metrics.publish(read, kept)\n"
    )
    # Without a backup under way, and after the first, which comes by itself.
    at_rest = (
        "systemctl show --property=ActiveState --value berth-backup.service | grep -qx 'inactive\\|failed' "
        "&& env PYTHONPATH=/usr/local/sbin/berth python3 -B -c %s"
    )
    poll(lambda: True if site.vps.run(at_rest, older).rc == 0 else None, FIRST_BACKUP_SECONDS, "a first backup")
    try:
        yield
    finally:
        site.vps.check_output("systemctl start --no-block berth-backup.service")


@contextmanager
def disk_of_16_mib_with_two_free(site: Site) -> Iterator[None]:
    site.vps.check_output("mkdir -p %s && mount -t tmpfs -o size=16m none %s", SMALL_DISK, SMALL_DISK)
    try:
        site.vps.check_output("head -c 14500000 /dev/zero > %s/file", SMALL_DISK)
        # On a machine of its own systemd shows it every mount; in a container, which this host is, those of its start.
        site.vps.check_output("systemctl restart berth-metrics.service")
        yield
    finally:
        site.vps.check_output("umount %s && rmdir %s", SMALL_DISK, SMALL_DISK)


@contextmanager
def container_that_fills_its_memory(site: Site) -> Iterator[None]:
    image = site.vps.check_output("docker inspect --format '{{.Config.Image}}' %s", site.container("auth_service"))
    hold = "import time; held = bytearray(b'x') * (115 << 20); time.sleep(600)"
    site.vps.check_output(
        "docker run --detach --rm --name %s --network none --memory 128m --memory-swap 128m "
        "--entrypoint python3 %s -c %s",
        HOG,
        image,
        hold,
    )
    try:
        yield
    finally:
        site.vps.check_output("docker rm --force %s", HOG)


@contextmanager
def shipper_stopped(site: Site) -> Iterator[None]:
    site.vps.check_output("systemctl stop %s", SHIPPER)
    try:
        yield
    finally:
        site.vps.check_output("systemctl start %s", SHIPPER)


@contextmanager
def somebody_guesses_at_passwords(site: Site) -> Iterator[None]:
    """Twice a second: far below what has an address banned."""

    def guess() -> None:
        unknown = {"email": f"{secrets.token_hex(6)}@example.com", "password": "not the password"}
        site.visitor.http.post("/api/auth/login", json=unknown)

    with visits(guess, 0.5):
        yield


@contextmanager
def service_that_cannot_reach_its_database(site: Site) -> Iterator[None]:
    """Everybody else can."""
    database = site.vps.check_output(
        "docker inspect --format '{{.NetworkSettings.Networks.berth_data.IPAddress}}' %s", site.container("mongo")
    )
    inside = f"nsenter -t {site.process(site.container('user_service'))} -n"
    site.vps.check_output(f"{inside} ip route add unreachable {database}")
    try:
        yield
    finally:
        site.vps.check_output(f"{inside} ip route del unreachable {database}")


@contextmanager
def database_that_answers_late(site: Site) -> Iterator[None]:
    """It stands still for most of the time, and never long enough to count as down."""
    process = site.process(site.container("mongo"))
    tick = f"kill -STOP {process} && sleep 1.6 && kill -CONT {process} && sleep 0.1"
    site.vps.check_output("systemd-run --quiet --unit=berth-test-late sh -c %s", f"while {tick}; do :; done")
    try:
        yield
    finally:
        site.vps.check_output("systemctl stop berth-test-late.service && kill -CONT %s", process)


@contextmanager
def worker_that_hangs_while_tasks_come(site: Site) -> Iterator[None]:
    """Its main process lives on; those that do the work do not move."""
    worker = site.container("celery_worker")
    # Docker's init, the main process below it, and its pool below that.
    pool = f"-P $(pgrep -P {site.process(worker)})"
    send = (
        "import pathlib, time\n"
        "from celery_worker.main import create_app\n"
        "from celery_worker.settings import WorkerSettings\n"
        "from shared.queue import HEARTBEAT\n"
        "from shared.settings import load_settings\n"
        "app, going = create_app(load_settings(WorkerSettings)), pathlib.Path('/dev/shm/berth-test')\n"
        "going.touch()\n"
        "for number in range(1000):\n"
        "    if going.exists():\n"
        "        app.send_task(HEARTBEAT)\n"
        "        time.sleep(0 if number < 120 else 0.2)\n"
    )
    site.vps.check_output(f"pkill -STOP {pool}")
    try:
        site.vps.check_output("docker exec --detach %s python3 -c %s", worker, send)
        yield
    finally:
        site.vps.check_output("docker exec %s rm -f /dev/shm/berth-test", worker)
        site.vps.check_output(f"pkill -CONT {pool}")


Fault = Callable[[Site], Any]
# The alert, and a word of its mail that tells this fault from another: how to make it.
FIRST: dict[tuple[str, str], Fault] = {
    ("ServiceDown", "user_service"): lambda site: stopped(site, "user_service"),
    ("ServiceDown", "celery_worker"): lambda site: stopped(site, "celery_worker"),
}
BESIDE: dict[tuple[str, str], Fault] = {
    ("CertificateExpiresNow", "https://outside."): certificate_of_a_day,
    ("BackupStale", "bucket"): no_backup_for_two_days,
    ("DiskNearlyFull", SMALL_DISK): disk_of_16_mib_with_two_free,
    ("ContainerMemoryHigh", HOG): container_that_fills_its_memory,
    ("UnitDown", SHIPPER): shipper_stopped,
}
# What anybody can cause is shown, and mailed to nobody.
SHOWN: dict[str, Fault] = {"SignInsRefused": somebody_guesses_at_passwords}
AFTERWARDS: dict[tuple[str, str], Fault] = {
    ("ErrorRateHigh", "user_service"): service_that_cannot_reach_its_database,
    ("LatencyHigh", "auth_service"): database_that_answers_late,
    ("QueueGrowing", "celery"): worker_that_hangs_while_tasks_come,
}
NAMES = {*(name for name, _ in {**FIRST, **BESIDE, **AFTERWARDS}), *SHOWN}


class Faults:
    """Those under way."""

    def __init__(self, site: Site, monitoring: Monitoring) -> None:
        self._site, self._monitoring = site, monitoring
        self._first, self._others = ExitStack(), ExitStack()

    def begin(self) -> None:
        for stack, faults in ((self._first, FIRST), (self._others, BESIDE)):
            for fault in faults.values():
                stack.enter_context(fault(self._site))
        for shown in SHOWN.values():
            self._others.enter_context(shown(self._site))
        # People go on coming, whether they are answered or not.
        http, bearer = self._site.visitor.http, self._site.bearer
        change = {"bio": "was here"}
        self._others.enter_context(visits(lambda: http.patch("/api/users/me", headers=bearer, json=change), 0.5))

    def go_on(self) -> None:
        self._first.close()
        first = {name for name, _ in FIRST}
        poll(lambda: True if not first & self._monitoring.told() else None, ALERT_SECONDS, f"the end of {first}")
        for fault in AFTERWARDS.values():
            self._others.enter_context(fault(self._site))

    def end(self) -> None:
        self._first.close()
        self._others.close()


@pytest.fixture(scope="module")
def monitoring(vps: Host, mailbox: Mailbox) -> Monitoring:
    watching = Monitoring(vps, mailbox)
    # Tests before this one may have restarted everything.
    poll(lambda: True if not NAMES & watching.firing() else None, ALERT_SECONDS, "quiet before the faults")
    watching.old = {mail["id"] for mail in mailbox.mails()}
    return watching


@pytest.fixture(scope="module")
def faults(
    monitoring: Monitoring, outside: Host, testbed: dict[str, str], client: Callable[[], httpx.Client]
) -> Iterator[Faults]:
    with client() as http:
        visitor = join(http, monitoring.mailbox)
        made = Faults(Site(monitoring.vps, outside, testbed["zone"], visitor), monitoring)
        try:
            made.begin()
            yield made
        finally:
            made.end()


def all_mailed(monitoring: Monitoring, wanted: Any, over: bool = False) -> None:
    missing: list[tuple[str, str]] = []

    def look() -> bool | None:
        mails = monitoring.mailed(over)
        missing[:] = [(name, whom) for name, whom in wanted if whom not in mails.get(name, "")]
        return True if not missing else None

    try:
        poll(look, RESOLVED_SECONDS if over else ALERT_SECONDS, "mails")
    except pytest.fail.Exception as failure:
        pytest.fail(f"{failure}; missing: {missing}, firing: {monitoring.firing()}, told: {monitoring.told()}")


@pytest.mark.usefixtures("faults")
def test_what_follows_from_a_fault_fires_and_is_not_told_beside_it(monitoring: Monitoring) -> None:
    all_mailed(monitoring, FIRST)
    poll(lambda: True if "ComponentMissing" in monitoring.firing() else None, ALERT_SECONDS, "ComponentMissing")
    assert "ServiceDown" in monitoring.told()
    assert "ComponentMissing" not in monitoring.told()


def test_each_fault_reaches_the_mailbox(monitoring: Monitoring, faults: Faults) -> None:
    faults.go_on()
    all_mailed(monitoring, {**BESIDE, **AFTERWARDS})


def test_what_anybody_can_cause_is_shown_and_mailed_to_nobody(monitoring: Monitoring) -> None:
    poll(lambda: True if set(SHOWN) <= monitoring.firing() else None, ALERT_SECONDS, f"{set(SHOWN)}")
    assert not set(SHOWN) & set(monitoring.mailed())


def test_every_metric_in_rules_and_dashboards_exists(monitoring: Monitoring) -> None:
    role = ROOT / "roles/monitoring"
    own = yaml.safe_load((role / "vars/main/dashboards.yml").read_text())["_monitoring_own_dashboards"]
    panels = own + yaml.safe_load((ROOT / "monitoring/dashboards.yml").read_text())
    asked = [panel["expr"] for dashboard in panels for panel in dashboard["panels"]]
    for file in [*(role / "files/rules").glob("*.yml"), ROOT / "monitoring/alerts.yml"]:
        asked += [rule["expr"] for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    plain = " ".join(re.sub(r'"[^"]*"', "", expr) for expr in asked)
    wanted = set(
        re.findall(r"\b(?:node|apt|berth|redis|traefik|http|probe|prometheus|alertmanager|up)(?:_\w+|\b)", plain)
    )
    there = set(monitoring.prometheus("label/__name__/values"))
    # Those of a fault that is not there, of role backup, and of a kernel of its own.
    elsewhere = {"berth_unit_failed", "berth_reboot_required_since_seconds", "node_timex_sync_status"}
    elsewhere |= {name for name in wanted if name.startswith(("berth_backup_", "node_pressure_"))}
    # Of sources with commits, and of releases that failed.
    elsewhere |= {"berth_dora_lead_time_seconds", "berth_dora_time_to_restore_seconds"}
    assert len(wanted) > 50
    assert wanted - there - elsewhere == set()


@pytest.mark.parametrize("path", ["/metrics", "/api/auth/metrics", "/api/users/metrics", "/api/auth/../../metrics"])
def test_no_figures_leave_through_the_edge(http: httpx.Client, path: str) -> None:
    assert "http_requests_total" not in http.get(path).text


def test_the_end_of_each_fault_reaches_the_mailbox_too(monitoring: Monitoring, faults: Faults) -> None:
    faults.end()
    all_mailed(monitoring, {**FIRST, **BESIDE, **AFTERWARDS}, over=True)
