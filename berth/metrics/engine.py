"""Metrics of containers from the Docker API. They are collected on the host, so no container has its socket."""

from __future__ import annotations

import http.client
import json
import re
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from berth.metrics.exposition import Metrics
from berth.stack.description import METRICS

SOCKET = Path("/run/docker.sock")
SECONDS = 10


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Scrape:
    """Where containers of a compose service serve metrics."""

    job: str
    port: int
    path: str = "/metrics"


def ask(path: str, engine: Path = SOCKET) -> Any:
    connection = _Connection(engine)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"the Docker API answered {path} with {answer.status}")
        return json.loads(answer.read())
    finally:
        connection.close()


def inspected(engine: Path = SOCKET) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the details of each container and its current stats (none if it is not running)."""
    found = []
    for each in ask("/containers/json?all=1", engine):
        try:
            detail = ask(f"/containers/{each['Id']}/json", engine)
            running = detail["State"]["Running"]
            usage = ask(f"/containers/{each['Id']}/stats?stream=false&one-shot=true", engine) if running else {}
        except OSError:
            # It was removed since it was listed.
            continue
        found.append((detail, usage))
    return found


def labels_of(detail: dict[str, Any]) -> dict[str, str]:
    compose = detail["Config"]["Labels"] or {}
    project = compose.get("com.docker.compose.project", "")
    colour = project.removeprefix("berth-") if project in {"berth-blue", "berth-green"} else ""
    return {
        "name": detail["Name"].lstrip("/"),
        "service": compose.get("com.docker.compose.service", ""),
        "colour": colour,
    }


def is_for_one_command(detail: dict[str, Any]) -> bool:
    """Tell whether it is there for one command: it does not answer as its service does, and no health check passes."""
    return (detail["Config"]["Labels"] or {}).get("com.docker.compose.oneoff") == "True"


def measure(metrics: Metrics, containers: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for detail, usage in containers:
        labels = labels_of(detail)
        state = detail["State"]
        add = metrics.add
        add("berth_container_running", "Whether the container is running.", int(state["Running"]), labels)
        if "Health" in state and not is_for_one_command(detail):
            healthy = int(state["Running"] and state["Health"]["Status"] == "healthy")
            add("berth_container_healthy", "Whether its health check passes.", healthy, labels)
        add("berth_container_restarts_total", "Restarts by Docker.", detail["RestartCount"], labels)
        add("berth_container_start_time_seconds", "When it was started.", _seconds(state["StartedAt"]), labels)
        add("berth_container_oom_killed", "Whether it was killed for lack of memory.", int(state["OOMKilled"]), labels)
        memory = usage.get("memory_stats", {})
        if "usage" in memory:
            # Without the page cache that can be dropped at any time. The two names are those of cgroup v2 and v1.
            details = memory.get("stats", {})
            cached = details.get("inactive_file", details.get("total_inactive_file", 0))
            used = max(memory["usage"] - cached, 0)
            add("berth_container_memory_bytes", "Memory in use.", used, labels)
            processor = usage["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
            add("berth_container_cpu_seconds_total", "CPU time.", processor, labels)
        if limit := detail["HostConfig"]["Memory"]:
            add("berth_container_memory_limit_bytes", "Memory limit.", limit, labels)


def targets(
    containers: list[tuple[dict[str, Any], dict[str, Any]]], scrapes: dict[str, Scrape], networks: list[str]
) -> list[dict[str, Any]]:
    """Return the scrape targets of running containers, for Prometheus' file_sd_configs.

    Those of services that `scrapes` names, and those with a label berth.metrics, on the first of these networks.
    """
    found = []
    for detail, _ in containers:
        labels = labels_of(detail)
        scrape = scrapes.get(labels["service"]) or labelled(detail)
        on = detail["NetworkSettings"]["Networks"]
        address = next((on[name]["IPAddress"] for name in networks if on.get(name, {}).get("IPAddress")), "")
        if scrape and address and detail["State"]["Running"] and not is_for_one_command(detail):
            own = {"job": scrape.job, "instance": labels["name"], "colour": labels["colour"]}
            path = {} if scrape.path == "/metrics" else {"__metrics_path__": scrape.path}
            found.append({"targets": [f"{address}:{scrape.port}"], "labels": own | path})
    return sorted(found, key=lambda each: each["labels"]["instance"])


def labelled(detail: dict[str, Any]) -> Scrape | None:
    """Return where a container's labels say that it serves metrics; what makes no sense was refused at its release."""
    service = labels_of(detail)["service"]
    labels = detail["Config"]["Labels"] or {}
    found = METRICS.fullmatch(labels.get("berth.metrics", ""))
    port = (found[1] or labels.get("berth.port", "")) if found else ""
    return Scrape(service, int(port), found[2]) if found and port.isdigit() else None


def _seconds(when: str) -> float:
    """Parse the API's time without its nanoseconds, which Python cannot parse."""
    return max(datetime.fromisoformat(re.sub(r"\.\d+", "", when).replace("Z", "+00:00")).timestamp(), 0)
