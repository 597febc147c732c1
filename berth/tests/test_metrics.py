"""The command `berth metrics` as a whole: what it asks is answered by an engine and programs of the test's own."""

from __future__ import annotations

import json
import os
import re
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from berth.host.live import ROUTES, Live
from berth.metrics import command as program
from berth.metrics import engine, expected, host, logs
from berth.metrics.exposition import Metrics

RUNNING = {
    "Name": "/berth-blue-auth_service-1",
    "Config": {
        "Labels": {
            "com.docker.compose.project": "berth-blue",
            "com.docker.compose.service": "auth_service",
            "berth.port": "8000",
            "berth.metrics": "/metrics",
        }
    },
    "State": {
        "Running": True,
        "OOMKilled": False,
        "StartedAt": "2026-11-29T10:00:00.123456789Z",
        "Health": {"Status": "healthy"},
    },
    "RestartCount": 2,
    "HostConfig": {"Memory": 1 << 28},
    "NetworkSettings": {"Networks": {"berth_data": {"IPAddress": "172.20.0.5"}}},
}
STOPPED = {
    **RUNNING,
    "Name": "/berth-mongo-1",
    "State": {**RUNNING["State"], "Running": False, "StartedAt": "0001-01-01T00:00:00Z"},  # type: ignore[dict-item]
}
STATS = {
    "memory_stats": {"usage": 300, "stats": {"inactive_file": 100}},
    "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
}
PROGRAMS = {
    "systemctl": """case "$*" in
  *list-units*) echo "broken.service loaded failed failed";;
  *) printf 'Id=good.service\\nActiveState=active\\nLoadState=loaded\\nConditionResult=yes\\nUnitFileState=enabled\\n'
esac""",
    "timedatectl": "echo yes",
    "apt-get": """cat <<- .
Inst libssl3t64 [1] (2 Debian:13.2/stable, Debian-Security:13/stable-security [amd64]) []
Inst openssl [1] (2 Debian:13.2/stable, Debian-Security:13/stable-security [amd64])
Inst built-here [1] (2 [amd64])
Inst debian-security-support [1] (2 Debian:13.2/stable [all])
Conf openssl (2 Debian-Security:13/stable-security [amd64])
.""",
    "nft": "echo 'table inet berth'",
}


class Engine(socketserver.ThreadingUnixStreamServer):
    """The engine's API on a socket, as far as it is asked."""

    daemon_threads = True
    answers: dict[str, Any]


class Handler(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path)
        body = json.dumps(answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    place = tmp_path / "docker.sock"
    with Engine(str(place), Handler) as server:
        server.answers = {
            "/containers/json?all=1": [{"Id": "a"}, {"Id": "b"}, {"Id": "gone"}],
            "/containers/a/json": RUNNING,
            "/containers/a/stats?stream=false&one-shot=true": STATS,
            "/containers/b/json": STOPPED,
            "/networks": [{"Name": "berth_edge"}],
        }
        for asked in (engine.ask, engine.inspected):
            monkeypatch.setattr(asked, "__defaults__", (place,))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.answers
        server.shutdown()
        thread.join()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    for name in ("metrics", "targets", "secrets"):
        (tmp_path / name).mkdir()
    (tmp_path / "secrets/one").touch()
    place = tmp_path / "settings.json"
    written = {
        "root": str(tmp_path),
        "metrics": str(tmp_path / "metrics"),
        "targets": str(tmp_path / "targets"),
        "units": ["good.service"],
        "scrapes": [{"service": "edge", "job": "edges", "port": 8082}],
        "networks": ["berth_edge", "berth_data"],
        "seconds": 15,
        "expected": {
            "containers": ["berth-mongo-1"],
            "networks": ["berth_edge"],
            "units": ["good.service", "absent.service"],
            "tables": ["inet berth"],
            "folders": [str(tmp_path / "secrets")],
        },
    }
    place.write_text(json.dumps(written))
    return place


def measured(settings: Path) -> dict[str, float]:
    """Measure once; return each sample."""
    mask = os.umask(0o022)
    try:
        assert program.main([str(settings), "--once"]) == 0
    finally:
        os.umask(mask)
    place = settings.parent / "metrics/berth_host.prom"
    assert place.stat().st_mode & 0o777 == 0o644
    samples = [line for line in place.read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in samples)}


@pytest.mark.usefixtures("docker", "programs")
def test_everything_is_measured(settings: Path) -> None:
    seen = measured(settings)
    parts = {name: value for name, value in seen.items() if name.startswith("berth_metrics_part_success")}
    assert set(parts.values()) == {1}
    blue = '{name="berth-blue-auth_service-1",service="auth_service",colour="blue"}'
    assert seen[f"berth_container_running{blue}"] == 1
    assert seen[f"berth_container_healthy{blue}"] == 1
    assert seen[f"berth_container_memory_bytes{blue}"] == 200
    assert seen[f"berth_container_cpu_seconds_total{blue}"] == 2.5
    assert seen[f"berth_container_memory_limit_bytes{blue}"] == 1 << 28
    assert seen[f"berth_container_restarts_total{blue}"] == 2
    assert seen['berth_present{kind="container",name="berth-mongo-1",service="mongo"}'] == 0
    assert seen['berth_present{kind="unit",name="good.service"}'] == 1
    assert seen['berth_present{kind="unit",name="absent.service"}'] == 0
    assert seen['berth_present{kind="table",name="inet berth"}'] == 1
    assert seen['berth_unit_failed{unit="broken.service"}'] == 1
    assert {name: value for name, value in seen.items() if name.startswith("apt_upgrades_pending")} == {
        'apt_upgrades_pending{origin="Debian:13.2/stable,Debian-Security:13/stable-security",arch="amd64"}': 2,
        'apt_upgrades_pending{origin="Debian:13.2/stable",arch="all"}': 1,
        'apt_upgrades_pending{origin="",arch="amd64"}': 1,
    }
    [target] = json.loads((settings.parent / "targets/containers.json").read_text())
    assert target["targets"] == ["172.20.0.5:8000"]


@pytest.mark.parametrize(
    ("broken", "part"),
    [("systemctl", "units"), ("apt-get", "updates"), ("nft", "tables")],
)
@pytest.mark.usefixtures("docker")
def test_a_part_that_cannot_be_measured_says_so_and_leaves_the_others_their_metrics(
    settings: Path, programs: Path, broken: str, part: str
) -> None:
    (programs / broken).write_text("#!/bin/sh\nexit 1\n")
    seen = measured(settings)
    assert seen[f'berth_metrics_part_success{{part="{part}"}}'] == 0
    assert seen['berth_metrics_part_success{part="engine"}'] == 1
    assert "berth_boot_time_seconds" in " ".join(seen)


@pytest.mark.usefixtures("programs")
def test_an_engine_that_does_not_answer_is_not_taken_for_one_without_containers(
    settings: Path, docker: dict[str, Any]
) -> None:
    docker.clear()
    seen = measured(settings)
    assert seen['berth_metrics_part_success{part="engine"}'] == 0
    assert seen['berth_metrics_part_success{part="networks"}'] == 0
    assert not any(name.startswith("berth_container") for name in seen)


def test_traffic_is_that_of_the_hosts_own_interfaces() -> None:
    metrics = Metrics()
    row = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"
    host.interfaces(metrics, f"head\nhead\n  lo: {row}\n eth0: {row}\nveth1: {row}\n")
    assert re.findall(r'^(\w+)\{device="(\w+)"\} (\d+)', metrics.text(), re.MULTILINE) == [
        ("node_network_receive_bytes_total", "eth0", "1"),
        ("node_network_receive_errs_total", "eth0", "3"),
        ("node_network_transmit_bytes_total", "eth0", "9"),
        ("node_network_transmit_errs_total", "eth0", "11"),
    ]


def container(service: str, networks: dict[str, str], **labels: str) -> tuple[dict[str, Any], dict[str, Any]]:
    known = {"com.docker.compose.service": service, **{f"berth.{name}": value for name, value in labels.items()}}
    addresses = {"Networks": {name: {"IPAddress": address} for name, address in networks.items()}}
    detail = {**RUNNING, "Name": f"/{service}", "Config": {"Labels": known}, "NetworkSettings": addresses}
    return detail, {}


BOTH = {"data": "1.1.1.1", "edge": "2.2.2.2"}


@pytest.mark.parametrize(
    ("one", "target"),
    [
        (
            container("api", {"data": "1.1.1.1", "edge": "2.2.2.2"}, port="80", metrics="/metrics"),
            ("api", "2.2.2.2:80"),
        ),
        (
            container("api", {"data": "1.1.1.1"}, port="80", metrics=":9100/figures"),
            ("api", "1.1.1.1:9100", "/figures"),
        ),
        (container("edge_a", {"edge": "3.3.3.3"}), ("edges", "3.3.3.3:8082")),
        (container("api", {"edge": "2.2.2.2"}, port="80"), None),
        (container("api", {"edge": "2.2.2.2"}, metrics="/metrics"), None),
        (container("api", {"other": "2.2.2.2"}, port="80", metrics="/metrics"), None),
        ((STOPPED, {}), None),
    ],
)
def test_prometheus_scrapes_what_labels_and_settings_name(
    one: tuple[dict[str, Any], dict[str, Any]], target: tuple[str, ...] | None
) -> None:
    found = engine.targets([one], {"edge_a": engine.Scrape("edges", 8082)}, ["edge", "data"])
    said = [
        (each["labels"]["job"], *each["targets"], *filter(None, [each["labels"].get("__metrics_path__")]))
        for each in found
    ]
    assert said == ([target] if target else [])


def test_a_container_for_one_command_is_no_service_that_is_unwell_or_scraped() -> None:
    detail, _ = container("api", BOTH, port="80", metrics="/metrics")
    assert engine.targets([(detail, STATS)], {}, ["edge"])
    detail["Config"]["Labels"]["com.docker.compose.oneoff"] = "True"
    assert engine.targets([(detail, STATS)], {}, ["edge"]) == []
    metrics = Metrics()
    engine.measure(metrics, [(detail, STATS)])
    assert "berth_container_healthy" not in metrics.text()
    assert "berth_container_memory_bytes" in metrics.text()


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        (
            '{"services": ["auth_service", "pages", "worker"], "metrics": ["worker"]}',
            {"auth_service": "1 false", "pages": "0 false", "worker": "0 true"},
        ),
        # Earlier versions wrote names alone, or nothing: then what is there is all that is known.
        ('{"services": ["auth_service", "worker"]}', {"auth_service": "1 true", "worker": "0 false"}),
        ("", {"auth_service": "1 true"}),
    ],
)
def test_a_service_of_the_live_release_that_has_no_container_is_missing(
    tmp_path: Path, written: str, seen: dict[str, str]
) -> None:
    live = tmp_path / ROUTES
    live.parent.mkdir(parents=True)
    live.write_text(Live("1.4", "blue", "f").mark)
    if written:
        place = tmp_path / "releases/1.4/services.json"
        place.parent.mkdir(parents=True)
        place.write_text(written)
    metrics = Metrics()
    expected.containers(metrics, [(RUNNING, {})], expected.Expected(), tmp_path)
    text = metrics.text()
    there = dict(re.findall(r'^berth_present\{kind="container".*service="(\w+)"\} (\d)', text, re.MULTILINE))
    scraped = dict(re.findall(r'^berth_release_service\{service="(\w+)",scraped="(\w+)"\} 1', text, re.MULTILINE))
    assert {name: f"{there[name]} {scraped[name]}" for name in there} == seen


def test_an_update_that_waits_for_a_restart_is_told_with_its_time(tmp_path: Path) -> None:
    flag = tmp_path / "reboot-required"
    for there, words in ((False, "node_reboot_required 0"), (True, "berth_reboot_required_since_seconds")):
        if there:
            flag.touch()
        metrics = Metrics()
        host.reboot(metrics, flag)
        assert words in metrics.text()


def test_lines_that_a_log_server_refused_are_counted_for_each_of_them(tmp_path: Path) -> None:
    for name, text in (("loki", "s=1;i=2\n7\n"), ("search", "s=1;i=2"), ("starting", "")):
        (tmp_path / name).mkdir()
        if text:
            (tmp_path / name / name).write_text(text)
    metrics = Metrics()
    logs.refused(metrics, tmp_path)
    assert metrics.text().splitlines()[2:] == [
        'berth_log_lines_refused_total{destination="loki"} 7',
        'berth_log_lines_refused_total{destination="search"} 0',
    ]


def test_without_settings_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([]) == 2
    assert "usage: berth metrics SETTINGS" in capsys.readouterr().err
