"""Components that should exist: a missing one has the metric 0, where its own metrics would only be absent."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berth.host import system
from berth.host.live import ROUTES, read_live
from berth.metrics.engine import labelled, labels_of
from berth.metrics.exposition import Metrics
from berth.metrics.host import run
from berth.metrics.site import ever_live
from berth.stack.kept import services_of

# A unit in one of these states is never started.
OFF = {"", "disabled", "masked", "masked-runtime"}


@dataclass(frozen=True)
class Expected:
    """One field for each variable of the role."""

    # That outlive releases.
    containers: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    # As nftables writes them: inet berth.
    tables: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def _add(metrics: Metrics, kind: str, name: str, there: bool, **labels: str) -> None:
    meaning = "Whether an expected component exists; for a container, whether it is running."
    metrics.add("berth_present", meaning, int(there), {"kind": kind, "name": name, **labels})


def containers(
    metrics: Metrics, found: list[tuple[dict[str, Any], dict[str, Any]]], expected: Expected, root: Path
) -> None:
    running = {labels_of(detail)["name"] for detail, _ in found if detail["State"]["Running"]}
    for name in expected.containers:
        _add(metrics, "container", name, name in running, service=name.removeprefix("berth-").rpartition("-")[0])
    routes, history = read_live(root / ROUTES), ever_live(root / "releases.jsonl")
    if routes or history:
        # If one of the two exists, the other should.
        _add(metrics, "file", str(root / ROUTES), bool(routes))
        _add(metrics, "file", str(root / "releases.jsonl"), history)
    if routes:
        of_colour = {
            known["service"]: bool(labelled(detail))
            for known, detail in ((labels_of(detail), detail) for detail, _ in found)
            if known["colour"] == routes.colour
        }
        for service, written in (services_of(root, routes.release) or dict(sorted(of_colour.items()))).items():
            name = f"berth-{routes.colour}-{service}-1"
            _add(metrics, "container", name, name in running, service=service)
            # An earlier version did not write it; then it is what its container says.
            scraped = of_colour.get(service, False) if written is None else written
            labels = {"service": service, "scraped": str(scraped).lower()}
            metrics.add("berth_release_service", "A service of the live release; whether it is scraped.", 1, labels)


def networks(metrics: Metrics, found: list[dict[str, Any]], expected: Expected) -> None:
    names = {network["Name"] for network in found}
    for name in expected.networks:
        _add(metrics, "network", name, name in names)


def units(metrics: Metrics, expected: Expected) -> None:
    found = system.units(run(*system.SHOW_UNITS, *expected.units)) if expected.units else {}
    for name in expected.units:
        state = found.get(name, {})
        _add(metrics, "unit", name, state.get("LoadState") == "loaded" and state["UnitFileState"] not in OFF)


def tables(metrics: Metrics, expected: Expected) -> None:
    if expected.tables:
        # Without nft no table survives the next boot.
        found = system.tables(run(*system.LIST_TABLES)) if shutil.which("nft") else set()
        for name in expected.tables:
            _add(metrics, "table", name, name in found)


def folders(metrics: Metrics, expected: Expected) -> None:
    for name in expected.folders:
        _add(metrics, "folder", name, system.is_filled(Path(name)))
