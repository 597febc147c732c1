#!/usr/bin/env python3
"""A journal that is full, restarts, is stopped or hangs: do containers wait for it, and what is lost?

usage: journal.py [--lines LINES_A_SECOND] [--rate REQUESTS_A_SECOND] [--away SECONDS]

Needs a provisioned test bed (BERTH_TESTBED names its folder). A container writes numbered lines and takes the time of
each write; visitors ask the site from the outside host; meanwhile something happens to the journal. Lines are counted
in the journal and at the log server that speaks Loki's API.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.logs.run import Writers

BEFORE_SECONDS = AFTER_SECONDS = 5
FULL = "/run/systemd/journald.conf.d/zzz-bench.conf"

WRITER = """
import json, sys, time
mark, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
began, number, longest = time.monotonic(), 0, 0.0
while time.monotonic() < began + seconds:
    at = time.monotonic()
    print(mark, number, "a line as services write them, of about a hundred and fifty characters", "x" * 50, flush=True)
    longest = max(longest, time.monotonic() - at)
    number += 1
    time.sleep(max(0, began + number / rate - time.monotonic()))
open("/out/result", "w").write(json.dumps({"lines": number, "longest": longest}))
"""


@contextmanager
def nothing(_bed: Writers) -> Iterator[None]:
    yield


@contextmanager
def full(bed: Writers) -> Iterator[None]:
    """It may keep 16 MB, which it reaches at once."""
    bed.on_vps("sh", "-c", f"mkdir -p {Path(FULL).parent} && printf '[Journal]\\nSystemMaxUse=16M\\n' > {FULL}")
    bed.on_vps("systemctl", "restart", "systemd-journald")
    yield
    bed.on_vps("rm", FULL)
    bed.on_vps("systemctl", "restart", "systemd-journald")


@contextmanager
def restarted(bed: Writers) -> Iterator[None]:
    bed.on_vps("systemctl", "restart", "systemd-journald")
    yield


@contextmanager
def stopped(bed: Writers) -> Iterator[None]:
    """With its sockets, which would start it again."""
    units = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
    bed.on_vps("systemctl", "stop", *units)
    yield
    bed.on_vps("systemctl", "start", *reversed(units))


@contextmanager
def hanging(bed: Writers) -> Iterator[None]:
    """It has the sockets and reads nothing, as with a disk that does not answer."""
    bed.on_vps("systemctl", "kill", "--signal=STOP", "systemd-journald")
    yield
    bed.on_vps("systemctl", "kill", "--signal=CONT", "systemd-journald")


FAULTS = {
    "nothing": nothing,
    "full": full,
    "restarted": restarted,
    "stopped, sockets too": stopped,
    "hanging": hanging,
}


def measure(bed: Writers, title: str, asked: argparse.Namespace, account: dict[str, str]) -> str:
    mark = f"journal-{secrets.token_hex(4)}"
    seconds = BEFORE_SECONDS + asked.away + AFTER_SECONDS
    bed.on_vps("sh", "-c", "rm -rf /run/berth-bench && mkdir /run/berth-bench")
    with bed.visited(account, asked.rate) as visits:
        bed.on_vps(
            *("docker", "run", "--detach", "--name=berth-journal-1", "--user=0:0", "--volume=/run/berth-bench:/out"),
            *("--entrypoint=python3", bed.image(), "-c", WRITER, mark, str(asked.lines), str(seconds)),
        )
        time.sleep(BEFORE_SECONDS)
        with FAULTS[title](bed):
            time.sleep(asked.away)
        bed.on_vps("docker", "wait", "berth-journal-1")
    wrote = json.loads(bed.on_vps("cat", "/run/berth-bench/result"))
    bed.on_vps("docker", "rm", "berth-journal-1")
    bed.on_vps("journalctl", "--sync")
    count = f"journalctl --quiet --output=cat CONTAINER_NAME=berth-journal-1 | grep -c '^{mark} ' || :"
    kept = int(bed.on_vps("sh", "-c", count))
    bed.caught_up(mark, wrote["lines"])
    shipped = bed.counts(mark)["loki"]["lines"]
    lines = f"{wrote['lines']} | {wrote['lines'] - kept} | {wrote['lines'] - shipped} | {wrote['longest'] * 1000:.0f}"
    return f"| {title} | {lines} | {len(visits.times)} | {visits.failed} | {visits.times[-1]:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=float, default=200)
    parser.add_argument("--rate", type=float, default=40)
    parser.add_argument("--away", type=float, default=20)
    parser.add_argument("faults", nargs="*", choices=[[], *FAULTS], default=[])
    asked = parser.parse_args()
    bed = Writers()
    account = bed.account()
    print("| the journal | written | not in it | not shipped | longest write, ms | requests | failed | longest, ms |")
    print("|---|---|---|---|---|---|---|---|")
    for title in asked.faults or FAULTS:
        print(measure(bed, title, asked, account), flush=True)


if __name__ == "__main__":
    main()
