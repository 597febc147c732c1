#!/usr/bin/env python3
"""What monitoring costs: its memory, and what visitors notice of it.

usage: run.py [--rounds N] [--seconds S] [--rate R]

Needs a provisioned test bed (BERTH_TESTBED names its folder). The load of release/load.py comes from the outside host,
in turns with everything that watches running and with all of it stopped; each second round begins with the other.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.bed import TestBed, Visits

PROJECT = "label=com.docker.compose.project=berth-monitoring"
SETTLE_SECONDS = 15
MIB = {"B": 2**-20, "KiB": 2**-10, "MiB": 1.0, "GiB": 1024.0}


class Watching:
    """The containers that watch, and the program that measures the host."""

    def __init__(self, bed: TestBed) -> None:
        self._bed = bed
        self._containers = bed.on_vps("docker", "ps", "--all", "--quiet", "--filter", PROJECT).split()

    def turn(self, on: bool) -> None:
        verb = "start" if on else "stop"
        self._bed.on_vps("docker", verb, *self._containers)
        self._bed.on_vps("systemctl", verb, "berth-metrics.service")

    def memory(self) -> dict[str, float]:
        """Return MiB by part; files that were read and can be forgotten at once are not counted."""
        found = {}
        shown = self._bed.on_vps(
            "docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *self._containers
        )
        for name, number, unit in re.findall(r"^berth-monitoring-(\S+)-1 ([\d.]+)(\w+)", shown, re.MULTILINE):
            found[name] = float(number) * MIB[unit]
        process = self._bed.on_vps("systemctl", "show", "--property=MainPID", "--value", "berth-metrics.service")
        (own,) = re.findall(r"^Pss: +(\d+) kB", self._bed.on_vps("cat", f"/proc/{process}/smaps_rollup"), re.MULTILINE)
        return {**found, "berth-metrics (host)": int(own) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=60)
    asked = parser.parse_args()
    bed = TestBed()
    watching, account = Watching(bed), bed.account()
    most: dict[str, float] = {}
    pooled = {True: Visits(), False: Visits()}
    ratios = []
    try:
        for number in range(asked.rounds):
            p99 = {}
            for on in (True, False) if number % 2 == 0 else (False, True):
                watching.turn(on)
                time.sleep(SETTLE_SECONDS)
                with bed.visited(account, asked.rate) as visits:
                    time.sleep(asked.seconds)
                    if on:
                        most = {part: max(size, most.get(part, 0)) for part, size in watching.memory().items()}
                pooled[on].times += visits.times
                pooled[on].failed += visits.failed
                p99[on] = visits.percentile(0.99)
            ratios.append(p99[True] / p99[False])
            loaded = os.getloadavg()[0]
            print(
                f"round {number + 1}: p99 {p99[True]:.0f} ms on, {p99[False]:.0f} ms off; load {loaded:.0f}", flush=True
            )
    finally:
        watching.turn(True)
    print("\n| part | memory, MiB |\n|---|---|")
    for part, size in {**most, "together": sum(most.values())}.items():
        print(f"| {part} | {size:.0f} |")
    print("\n| | short requests | failed | p50 ms | p99 ms |\n|---|---|---|---|---|")
    for on, visits in pooled.items():
        visits.times.sort()
        title = f"monitoring {'on' if on else 'off'}"
        figures = f"{visits.percentile(0.5):.1f} | {visits.percentile(0.99):.1f}"
        print(f"| {title} | {len(visits.times)} | {visits.failed} | {figures} |")
    of_all = pooled[True].percentile(0.99) / pooled[False].percentile(0.99)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"\np99 on / off: {of_all:.2f} of all, {statistics.median(ratios):.2f} median of the rounds ({spread})")


if __name__ == "__main__":
    main()
