"""berth metrics: measure the host every few seconds, and write metrics where node_exporter and Prometheus read them.

usage: berth metrics SETTINGS [--once]
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from berth.host import files
from berth.metrics import dora, engine, expected, host, logs, site
from berth.metrics.exposition import Metrics

# A simulated upgrade costs a second of processor time, and package lists are refreshed once a day.
UPGRADES_SECONDS = 3600


class Collector:
    def __init__(self, settings: dict[str, object]) -> None:
        self._root = Path(str(settings["root"]))
        self._metrics = Path(str(settings["metrics"]))
        self._targets = Path(str(settings["targets"]))
        self._units = [str(unit) for unit in settings["units"]]  # type: ignore[attr-defined]
        scrapes: list[dict[str, Any]] = settings["scrapes"]  # type: ignore[assignment]
        self._scrapes = {one["service"]: engine.Scrape(one["job"], int(one["port"])) for one in scrapes}
        self._networks = [str(network) for network in settings["networks"]]  # type: ignore[attr-defined]
        self._expected = expected.Expected(**settings["expected"])  # type: ignore[arg-type]
        self._upgrades: Counter[tuple[str, str]] | None = None
        self._upgrades_at = -float(UPGRADES_SECONDS)

    def collect(self) -> None:
        metrics = Metrics()
        parts: dict[str, Callable[[Metrics], None]] = {
            "engine": self._engine,
            "file_systems": self._file_systems,
            "boot": host.boot,
            "interfaces": lambda to: host.interfaces(to, Path("/proc/net/dev").read_text()),
            "units": lambda to: host.units(to, self._units),
            "clock": host.clock,
            "reboot": host.reboot,
            "updates": self._apt_upgrades,
            "site": lambda to: site.releases(to, self._root),
            "dora": lambda to: dora.measure(to, self._root / "releases.jsonl"),
            "backups": lambda to: site.backups(to, self._root / "backup/settings.json"),
            "secrets": lambda to: site.secrets(to, self._root / ".env"),
            "logs": logs.refused,
            "networks": lambda to: expected.networks(to, engine.ask("/networks"), self._expected),
            "expected_units": lambda to: expected.units(to, self._expected),
            "tables": lambda to: expected.tables(to, self._expected),
            "folders": lambda to: expected.folders(to, self._expected),
        }
        for name, part in parts.items():
            # A part that fails is reported as failed, and the others are still measured.
            try:
                part(metrics)
                good = 1
            except Exception:
                traceback.print_exc()
                good = 0
            metrics.add("berth_metrics_part_success", "Whether this part was measured.", good, {"part": name})
        files.write(self._metrics / "berth_host.prom", metrics.text())

    def _engine(self, metrics: Metrics) -> None:
        containers = engine.inspected()
        engine.measure(metrics, containers)
        expected.containers(metrics, containers, self._expected, self._root)
        targets = json.dumps(engine.targets(containers, self._scrapes, self._networks), indent=1) + "\n"
        place = self._targets / "containers.json"
        if not place.exists() or place.read_text() != targets:
            files.write(place, targets)

    def _file_systems(self, metrics: Metrics) -> None:
        # The host's mounts, of process 1: the unit's sandbox may hide some of them.
        own = host.places(Path("/proc/self/mounts").read_text())
        host.file_systems(metrics, Path("/proc/1/mounts").read_text(), own)

    def _apt_upgrades(self, metrics: Metrics) -> None:
        if time.monotonic() - self._upgrades_at >= UPGRADES_SECONDS:
            self._upgrades, self._upgrades_at = None, time.monotonic()
            self._upgrades = host.upgrades()
        if self._upgrades is None:
            raise OSError("apt-get did not list the pending upgrades; the next attempt is within the hour")
        for (origin, arch), count in self._upgrades.items():
            labels = {"origin": origin, "arch": arch}
            metrics.add("apt_upgrades_pending", "Pending upgrades of packages, by origin.", count, labels)


def main(arguments: list[str]) -> int:
    if not arguments or arguments[1:] not in ([], ["--once"]):
        print(__doc__, file=sys.stderr)
        return 2
    settings = json.loads(Path(arguments[0]).read_text())
    os.umask(0o022)
    collector = Collector(settings)
    while True:
        began = time.monotonic()
        collector.collect()
        if arguments[1:]:
            return 0
        time.sleep(max(float(settings["seconds"]) - (time.monotonic() - began), 1))
