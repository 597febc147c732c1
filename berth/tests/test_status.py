"""`berth status`: what is missing is red, and a person can read all of it on one screen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from berth.host import commands
from berth.host.live import Live
from berth.host.lock import Lock
from berth.release import expected, screen
from berth.release import status as program
from berth.release.edge import Edge
from berth.release.host import Host as Known
from berth.release.settings import Settings

NOW = datetime(2026, 11, 29, 5, 20, tzinfo=UTC)
LIVE = Live("1.4.0", "green", "f1")
SECRETS = ("mongo", "redis", "auth_service")
EDGE = "docker-compose.edge.yml"
RELEASE = ("auth_service", "user_service", "celery_worker", "beat", "frontend")


def bound(service: str, folder: Path) -> list[dict[str, str]]:
    return [{"type": "bind", "source": str(folder / service)}] if service in SECRETS else []


class Host:
    """A host on which all is well, until a test takes something away; it answers the commands that are asked."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "opt"
        self.secrets = folder / "run"
        self.settings = self._settings()
        self.containers = {f"berth-{name}-1": "Up 3 hours (healthy)" for name in ("traefik_a", "mongo", "redis")}
        self.containers |= {f"berth-green-{name}-1": "Up 3 hours (healthy)" for name in RELEASE}
        self.containers |= {"berth-monitoring-prometheus-1": "Up 3 hours (healthy)"}
        self.networks = ["bridge", "berth_data", "berth_edge", "berth_egress"]
        # Container -> the networks it is in, where that is not all of them.
        self.joined: dict[str, str] = {}
        self.tables = ["ip nat", "inet berth", "inet berth_edge"]
        self.docker = self.compose = True
        self.units = {
            name: {"ActiveState": "active", "Restart": "no", "RemainAfterExit": "no"}
            for name in ("berth-backup.target", "berth-backup.timer", "berth-docker-prune.timer")
        }
        self.units |= {
            name: {"ActiveState": "active", "Restart": "always", "RemainAfterExit": "no"}
            for name in ("docker.service", "ssh.service", "berth-metrics.service", "berth-log-shipping@loki.service")
        }
        self.units |= {
            name: {"ActiveState": "active", "Restart": "no", "RemainAfterExit": "yes"}
            for name in ("nftables.service", "berth-secrets.service")
        }
        # A job that ends by itself.
        self.units["berth-release-settle.service"] = {
            "ActiveState": "inactive",
            "Restart": "on-failure",
            "RemainAfterExit": "no",
        }
        self.units["ssh.service"]["Restart"] = "on-failure"
        self.backups: dict[str, Any] = {}
        self.units["berth-backup.target"]["Wants"] = "berth-backup.timer"
        self._write()

    def _settings(self) -> Settings:
        numbers = dict.fromkeys(Settings.__dataclass_fields__, 1)
        places = {"root": self.root, "edge": self.root / "traefik", "domain": "www.x-shop.net", "address": "127.0.0.1"}
        return Settings(**{**numbers, **places, "managed": []})  # type: ignore[arg-type]  # numbers where none matter

    def _write(self) -> None:
        for folder in (
            "releases/1.4.0",
            "traefik/dynamic",
            "traefik/next",
            "monitoring",
            "units/multi-user.target.wants",
        ):
            (self.root / folder).mkdir(parents=True)
        (self.root / "traefik/edge.nft").write_text(
            "# serving: a\ntable inet berth_edge\ndelete table inet berth_edge\n\ntable inet berth_edge {\n}\n"
        )
        (self.root / EDGE).touch()
        (self.root / "nft").mkdir()
        (self.root / "nft/berth.nft").write_text("table inet berth\ndelete table inet berth\n\ntable inet berth {\n}\n")
        (self.root / "monitoring/compose.yml").write_text("")
        (self.root / "backup").mkdir()
        (self.root / "backup/settings.json").write_text(json.dumps({"max_age_hours": 26}))
        for unit in self.units:
            if unit.startswith("berth-") and unit != "berth-backup.timer":
                (self.root / f"units/multi-user.target.wants/{unit}").touch()
        for service in SECRETS:
            (self.secrets / service).mkdir(parents=True)
            (self.secrets / service / "password").touch()

    def run(self, *command: str, **_: Any) -> subprocess.CompletedProcess[str]:
        code, said = 0, ""
        match command[:2]:
            case ("docker", "ps"):
                code, said = (0, self._listed()) if self.docker else (1, "Cannot connect to the Docker daemon")
            case ("docker", "compose"):
                code, said = (0, self._config(command)) if self.compose else (1, "couldn't find env file: .env")
            case ("docker", "network"):
                said = "\n".join(self.networks)
            case ("nft", _):
                said = "".join(f"table {name}\n" for name in self.tables)
            case ("systemctl", "show"):
                said = "\n\n".join(self._shown(unit) for unit in command[2:] if unit[0] != "-")
            case ("berth", "backup"):
                said = json.dumps(self.backups)
            case ("systemctl", "list-units"):
                said = "".join(f"{name} loaded failed failed x\n" for name in self.units if self._is_failed(name))
        return subprocess.CompletedProcess(command, code, "" if code else said, said if code else "")

    def _is_failed(self, unit: str) -> bool:
        return self.units[unit]["ActiveState"] == "failed"

    def _listed(self) -> str:
        lines = []
        for name, status in self.containers.items():
            project, _, service = name.removesuffix("-1").rpartition("-")
            state = "running" if status.startswith("Up") else "exited"
            networks = self.joined.get(name, "berth_data,berth_edge,berth_egress")
            lines.append("|".join((name, state, status, networks, project, service, "False")))
        return "\n".join(lines)

    def _config(self, command: tuple[str, ...]) -> str:
        text = " ".join(command)
        if "monitoring" in text:
            return json.dumps({"name": "berth-monitoring", "services": {"prometheus": {}}})
        edge = {
            name: {"profiles": ["platform"], "networks": {"edge": {"aliases": ["traefik"]}}}
            for name in ("traefik_a", "traefik_b")
        }
        # Before it had a file of its own, it was in the application's.
        services: dict[str, Any] = edge if EDGE in text or not (self.root / EDGE).exists() else {}
        if EDGE in text:
            return json.dumps(
                {"name": "x", "services": {**edge, "odd": {}}, "networks": {"edge": {"name": "berth_edge"}}}
            )
        services |= {name: {"profiles": ["platform"], "networks": {"data": None}} for name in ("mongo", "redis")}
        services |= {name: {"profiles": ["release"]} for name in RELEASE}
        services["celery_worker"]["networks"] = {"data": None, "egress": {"aliases": ["worker"]}}
        for name, service in services.items():
            service["volumes"] = bound(name, self.secrets)
        # Compose leaves out services of other profiles, and has those that belong to none.
        chosen = {name: one for name, one in services.items() if f"--profile={one['profiles'][0]}" in text}
        # And networks that none of them uses.
        used = {key for one in chosen.values() for key in one.get("networks", {})}
        networks = {key: {"name": f"berth_{key}"} for key in used}
        return json.dumps({"name": "x", "services": {**chosen, "odd": {}}, "networks": networks})

    def _shown(self, unit: str) -> str:
        known = self.units.get(unit)
        state = {"LoadState": "loaded" if known else "not-found", "ActiveState": "inactive", **(known or {})}
        return "\n".join([f"Id={unit}", *(f"{name}={value}" for name, value in state.items())])

    def status(self) -> dict[str, Any]:
        return program.status(Known.of(self.settings))

    def missing(self) -> dict[str, str]:
        return {one["what"]: one["fix"] for one in self.status()["missing"]}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    monkeypatch.setattr(commands, "run", host.run)
    monkeypatch.setattr(expected, "UNITS", host.root / "units")
    monkeypatch.setattr(expected, "TABLES", host.root / "nft")
    monkeypatch.setattr(expected, "RUNTIME", host.secrets)
    monkeypatch.setattr(Edge, "live", lambda _: LIVE)
    certificate = {
        "issuer": "issuer=C = US, O = Let's Encrypt, CN = R3",
        "until": "2027-02-12T00:00:00Z",
        "days_left": 75.0,
    }
    monkeypatch.setattr(program, "_certificate", lambda _: certificate)
    return host


def test_nothing_is_missing_where_all_runs(host: Host) -> None:
    assert host.missing() == {}


def test_a_database_whose_container_is_gone_is_red_with_what_starts_it_again(host: Host) -> None:
    del host.containers["berth-mongo-1"]
    [(what, fix)] = host.missing().items()
    assert what == "container mongo is MISSING"
    assert fix == "ansible-playbook ansible/upgrade_data.yml -i inventories/<env>"
    shown = screen.text(host.status(), False, "inventories/production", NOW)
    upgrade = "ansible-playbook ansible/upgrade_data.yml -i inventories/production"
    assert f"PROBLEMS\n  container mongo: MISSING\n    {upgrade}\n" in shown


def test_a_database_that_runs_elsewhere_is_not_missed(host: Host) -> None:
    del host.containers["berth-mongo-1"]
    host.settings.managed.append("mongo")
    assert host.missing() == {}


@pytest.mark.parametrize(
    ("container", "what", "fix"),
    [
        (
            "berth-traefik_a-1",
            "container traefik_a is MISSING",
            "ansible/provision.yml -i inventories/<env> --tags traefik",
        ),
        (
            "berth-green-beat-1",
            "container beat (green) is MISSING",
            "ansible/release.yml -i inventories/<env> -e release=1.4.0",
        ),
        ("berth-monitoring-prometheus-1", "container prometheus (monitoring) is MISSING", "--tags monitoring"),
    ],
)
def test_any_container_that_is_gone_is_red(host: Host, container: str, what: str, fix: str) -> None:
    del host.containers[container]
    [(said, command)] = host.missing().items()
    assert (said, command.endswith(fix)) == (what, True), command


@pytest.mark.parametrize("state", ["Exited (137) 2 minutes ago", "Up 3 hours (unhealthy)"])
def test_a_container_that_is_not_well_is_red_with_what_starts_it(host: Host, state: str) -> None:
    host.containers["berth-redis-1"] = state
    [(what, fix)] = host.missing().items()
    assert what == f"container redis is {'unhealthy' if 'un' in state else state}"
    assert fix == "sudo docker restart berth-redis-1"


def test_what_ran_for_one_command_is_no_service(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    step = "berth-green-auth_service-schema|exited|Exited (1) now|berth_data|berth-green|auth_service|True"
    listed = f"{host._listed()}\n{step}"
    monkeypatch.setattr(host, "_listed", lambda: listed)
    assert "berth-green-auth_service-schema" not in host.status()["services"]
    assert host.missing() == {}


def test_the_edge_that_serves_is_the_one_that_is_needed(host: Host) -> None:
    host.containers["berth-traefik_b-1"] = host.containers.pop("berth-traefik_a-1")
    assert list(host.missing()) == ["container traefik_a is MISSING"], "new connections are led to a"


def test_the_edge_is_needed_too_where_it_is_in_the_applications_compose_file(host: Host) -> None:
    (host.root / EDGE).unlink()
    assert host.missing() == {}
    del host.containers["berth-traefik_a-1"]
    assert list(host.missing()) == ["container traefik_a is MISSING"]


def test_what_is_only_an_engine_away_is_said_once(host: Host) -> None:
    host.docker = False
    host.units["docker.service"]["ActiveState"] = "failed"
    assert host.missing() == {"unit docker.service is failed": "sudo systemctl restart docker.service"}


def test_an_engine_that_hangs_is_red(host: Host) -> None:
    host.docker = False
    assert host.missing() == {"Docker does not answer": "sudo systemctl restart docker.service"}


def test_settings_that_compose_cannot_read_are_red(host: Host) -> None:
    host.compose = False
    [(what, fix)] = host.missing().items()
    assert what.endswith("docker-compose.prod.yml cannot be read: couldn't find env file: .env")
    assert fix == "ansible-playbook ansible/provision.yml -i inventories/<env>"


@pytest.mark.parametrize(
    "unit",
    [
        "berth-backup.timer",
        "berth-metrics.service",
        "berth-log-shipping@loki.service",
        "nftables.service",
        "ssh.service",
    ],
)
def test_a_unit_that_does_not_run_is_red(host: Host, unit: str) -> None:
    host.units[unit]["ActiveState"] = "inactive"
    assert host.missing() == {f"unit {unit} is inactive": f"sudo systemctl restart {unit}"}


def test_a_unit_that_is_gone_is_red(host: Host) -> None:
    del host.units["berth-docker-prune.timer"]
    assert host.missing() == {
        "unit berth-docker-prune.timer is MISSING": "ansible-playbook ansible/provision.yml -i inventories/<env>"
    }


def test_a_job_that_failed_is_red_and_one_that_ended_well_is_not(host: Host) -> None:
    host.units["berth-backup.service"] = {"ActiveState": "failed", "Restart": "no", "RemainAfterExit": "no"}
    known = host.status()
    assert known["missing"] == []
    assert [one["what"] for one in known["red"] if one["what"].startswith("unit")] == [
        "unit berth-backup.service failed"
    ]


@pytest.mark.parametrize(
    ("age", "problems", "days", "red"),
    [
        (3.0, [], 30, []),
        (27.0, [], 30, ["backup to bucket: the newest is 27 h old, more than 26"]),
        (3.0, ["It does not answer."], 30, ["backup to bucket: It does not answer."]),
        (None, [], 0, []),
        (None, [], 2, ["backup to bucket: there is none yet"]),
    ],
    ids=["young", "old", "failed", "none yet on a new host", "none yet"],
)
def test_backups_are_red_when_they_fail_or_get_old(
    host: Host, age: float | None, problems: list[str], days: int, red: list[str]
) -> None:
    ended = "2026-11-29T02:31:12Z" if age else ""
    known: dict[str, Any] = {
        "age_hours": age,
        "problems": problems,
        "ended": ended,
        "changes_until": "",
        "bytes": {},
        "run": "",
    }
    host.backups = {"targets": {"bucket": known}}
    made = time.time() - days * 86400
    os.utime(host.root / "backup/settings.json", (made, made))
    assert [one["what"] for one in host.status()["red"] if one["what"].startswith("backup")] == red


@pytest.mark.parametrize("network", ["berth_data", "berth_egress"])
def test_a_network_that_is_gone_is_red(host: Host, network: str) -> None:
    host.networks.remove(network)
    assert host.missing() == {
        f"network {network} is MISSING": "ansible-playbook ansible/provision.yml -i inventories/<env> --tags stack"
    }


def test_a_container_that_lost_its_network_is_red_with_what_connects_it(host: Host) -> None:
    host.joined["berth-green-celery_worker-1"] = "berth_data"
    [(what, fix)] = host.missing().items()
    assert what == "container celery_worker is not in network berth_egress"
    wanted = "--alias celery_worker --alias worker berth_egress berth-green-celery_worker-1"
    assert fix == f"sudo docker network connect {wanted}"


@pytest.mark.parametrize(("table", "unit"), [("inet berth", "nftables"), ("inet berth_edge", "berth-edge")])
def test_a_table_of_the_firewall_that_is_gone_is_red(host: Host, table: str, unit: str) -> None:
    host.tables.remove(table)
    assert host.missing() == {f"nftables table {table} is MISSING": f"sudo systemctl restart {unit}"}


def test_secrets_that_are_gone_are_red_with_whom_to_restart(host: Host) -> None:
    (host.secrets / "mongo/password").unlink()
    [(what, fix)] = host.missing().items()
    assert what == f"secrets in {host.secrets}/mongo are MISSING"
    assert fix == "sudo systemctl restart berth-secrets && sudo docker restart berth-mongo-1"


# --- the screen ---


def history(count: int) -> list[dict[str, Any]]:
    line = {"at": "2026-11-29T02:14:00Z", "by": "ada@laptop", "verb": "release", "from": "1.3.9", "to": "1.4.0"}
    return [{**line, "result": "live", "seconds": 46.2, "reason": ""} for _ in range(count)]


def full(host: Host) -> dict[str, Any]:
    """A host with everything that the screen shows."""
    names = ("backup", "backup-oplog", "backup-check", "backup-forget", "backup-drill", "docker-prune", "aide-check")
    target = {"run": "20261129T023112Z-3f9a", "ended": "2026-11-29T02:31:12Z", "age_hours": 2.8, "problems": []}
    target |= {"changes_until": "1764393540.3", "bytes": {"mongo": 120 * 2**20, "redis": 2**20}}
    return host.status() | {
        "since": "2026-11-29T02:14:00Z",
        "timers": {f"berth-{name}.service": {"result": "success", "at": "2026-11-29T02:31:00Z"} for name in names},
        "backups": {"targets": {"bucket": target, "store": target}, "max_age_hours": 26},
        "disk_free_percent": 71,
        "red": [],
        "rolled_back": {"1.5.0": "2026-11-28T02:14:00Z by ada@laptop"},
        "history": history(5),
    }


def fits(shown: str) -> bool:
    lines = shown.splitlines()
    return len(lines) <= screen.LINES and max(map(len, lines)) <= screen.WIDTH


def test_a_host_with_everything_fits_and_says_when_in_words(host: Host) -> None:
    shown = screen.text(full(host), False, now=NOW)
    assert fits(shown), shown
    lines = shown.splitlines()
    assert lines[0] == "www.x-shop.net: release 1.4.0 (green), live since 2026-11-29 02:14 UTC, 3 h ago"
    assert lines[1].split() == ["lock", "free"]
    assert lines[2].split() == ["maintenance", "off"]
    assert "healthy" in lines[3]
    assert "bucket: 2026-11-29 02:31 UTC, 3 h ago, 121 MiB, changes until 2025-11-29 05:19 UTC" in shown
    assert "2026-11-29 02:14 UTC release 1.3.9 -> 1.4.0 live, 46 s, ada@laptop" in shown
    assert not re.search(r"\d{9,}", shown), "no Unix numbers"
    assert "{" not in shown


def test_a_job_that_runs_or_failed_is_told_from_one_that_ended_well(host: Host) -> None:
    at = "2026-11-29T02:31:00Z"
    jobs = {"backup": ("success", at), "drill": ("exit-code", at), "check": ("running", ""), "forget": ("success", "")}
    timers = {f"berth-{name}.service": {"result": result, "at": at} for name, (result, at) in jobs.items()}
    shown = screen.text(full(host) | {"timers": timers}, False, now=NOW)
    assert "backup 3 h ago, drill FAILED 3 h ago, check running, forget never ran" in shown


def test_why_the_last_attempt_failed_is_not_cut_short(host: Host) -> None:
    why = "Release 1.5.0 did not become healthy: berth-blue-auth_service-1 is unhealthy after 61 s. And so on."
    last = history(1)[0] | {"to": "1.5.0", "result": "failed", "reason": why}
    shown = screen.text(full(host) | {"history": [*history(4), last]}, False, now=NOW)
    assert why in " ".join(shown.split())
    assert fits(shown)


def test_a_host_on_which_all_is_red_fits_too_and_says_so_first(host: Host) -> None:
    well = full(host)
    host.containers.clear()
    host.networks.clear()
    host.tables.clear()
    for unit in list(host.units):
        host.units[unit]["ActiveState"] = "failed"
    for service in SECRETS:
        (host.secrets / service / "password").unlink()
    (host.settings.history).write_text("".join(json.dumps(line) + "\n" for line in history(5)))
    Lock(host.settings.releases).begin("restore", "20261129T023112Z-3f9a", "ada@laptop", {})
    bad = host.status() | {"timers": well["timers"], "backups": well["backups"], "maintenance": True}
    bad["certificate"] = {"problem": "[Errno 111] Connection refused"}
    shown = screen.text(bad, False, now=NOW)
    assert fits(shown), shown
    assert shown.index("\nPROBLEMS\n") < shown.index("container traefik_a: MISSING") < shown.index("\nservices")
    assert "2026-11-29 02:14 UTC release" in shown, "the last attempt is still there"


def test_more_red_than_fits_names_where_the_rest_is(host: Host) -> None:
    bad = full(host) | {"red": [{"what": f"thing {number} is MISSING", "fix": f"do {number}"} for number in range(20)]}
    shown = screen.text(bad, False, now=NOW)
    assert fits(shown), shown
    assert "... and more: sudo berth status --json" in shown
    assert "thing 0 is MISSING" in shown


@pytest.mark.parametrize(
    ("verb", "phase", "alive", "state"),
    [
        ("release", "begun", True, "running"),
        ("release", "begun", False, "INTERRUPTED"),
        ("release", "smoke", True, "INTERRUPTED"),
        ("restore", "filling", False, "INTERRUPTED"),
    ],
)
def test_a_run_is_named_with_owner_phase_start_and_what_settles_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, verb: str, phase: str, alive: bool, state: str
) -> None:
    monkeypatch.setattr(program, "is_alive", lambda _: alive)
    run = Lock(host.settings.releases).begin(verb, "1.5.0", "ada@laptop", {}, phase)
    known = host.status()
    shown = screen.text(known, False, now=datetime.fromisoformat(run.since))
    said = f"{verb} 1.5.0 of ada@laptop: {state}, phase {phase}, since {screen.at(run.since)}, just now"
    assert said in " ".join(shown.split())
    settle = f"    sudo berth {'backup' if verb == 'restore' else 'release'} settle\n"
    assert (settle in shown) is (state == "INTERRUPTED")


def test_a_run_at_work_is_no_stale_one(host: Host) -> None:
    lock = Lock(host.settings.releases)
    lock.begin("upgrade", "mongo", "ada@laptop", {}, "replacing")
    with lock.held():
        assert host.status()["run"]["running"]


def test_a_closed_site_says_who_closed_it_and_what_opens_it(host: Host) -> None:
    closed = {"maintenance": True, "maintenance_since": {"by": "ada@laptop", "since": "2026-11-29T02:14:00Z"}}
    shown = screen.text(full(host) | closed, False, "inventories/production", NOW)
    assert "ON, by ada@laptop, since 2026-11-29 02:14 UTC, 3 h ago. Open it:" in shown
    assert "  ansible-playbook ansible/maintenance.yml -i inventories/production -e maintenance=off\n" in shown


def test_colours_are_for_terminals(host: Host) -> None:
    known = full(host)
    assert "\x1b" not in screen.text(known, False, now=NOW)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen.text(known, True, now=NOW))
    assert plain == screen.text(known, False, now=NOW)
