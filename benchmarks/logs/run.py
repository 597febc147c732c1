#!/usr/bin/env python3
"""Log servers away under load, with every line counted at both ends.

usage: run.py [--rate LINES_A_SECOND] [--away SECONDS] [--burst LINES]

Needs a provisioned test bed (BERTH_TESTBED names its folder). A container of the site writes numbered lines; the log
servers go away as if they had crashed; meanwhile the shippers are killed, and the VPS restarts. Then a burst, with the
log servers there and away: a container must not notice.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.bed import TestBed

CATCH_UP_SECONDS = 600
ACKNOWLEDGED = ("loki", "elasticsearch", "relp")

WRITER = """
import sys, time
mark, first, count, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
began = time.monotonic()
for number in range(count):
    print(mark, first + number, "a line as services write them, of about a hundred and fifty characters: " + "x" * 50)
    if rate:
        sys.stdout.flush()
        time.sleep(max(0, began + number / rate - time.monotonic()))
sys.stdout.flush()
print(f"{time.monotonic() - began:.2f}", file=sys.stderr)
"""


class Writers(TestBed):
    """Containers that write lines, and what the log servers have of them."""

    def start_writer(self, mark: str, first: int, count: int, rate: float) -> None:
        """Write lines in a container, in the background."""
        name = f"berth-writer-{first + 1}"
        self.on_vps("sh", "-c", f"docker rm --force {name} 2>/dev/null || :")
        arguments = [mark, str(first), str(count), str(rate)]
        program = ["--entrypoint", "python3", self.image(), "-c", WRITER, *arguments]
        self.on_vps("docker", "run", "--detach", "--name", name, *program)

    def finish_writer(self, first: int) -> float:
        """Wait for the end of a writer and return how many seconds it wrote."""
        name = f"berth-writer-{first + 1}"
        self.on_vps("docker", "wait", name)
        self.on_vps("journalctl", "--sync")
        said = self.on_vps("journalctl", "--quiet", "--output=cat", f"CONTAINER_NAME={name}", "PRIORITY=3", "--lines=1")
        self.on_vps("docker", "rm", name)
        return float(said)

    def away(self, gone: bool) -> None:
        self.on_outside(*(("touch", "/srv/logs/away") if gone else ("rm", "--force", "/srv/logs/away")))

    def counts(self, mark: str) -> dict[str, dict[str, int]]:
        return dict(json.loads(self.on_outside("log-lines", "--count", f"^{mark} ")))

    def caught_up(self, mark: str, lines: int) -> float:
        """Wait until the acknowledging servers have all lines, or no more come, and return the seconds."""
        began = time.monotonic()
        before: dict[str, dict[str, int]] = {}
        unchanged = 0
        while time.monotonic() - began < CATCH_UP_SECONDS:
            counts = self.counts(mark)
            if all(counts[server]["lines"] >= lines for server in ACKNOWLEDGED):
                break
            unchanged = unchanged + 1 if counts == before else 0
            if unchanged > 30:
                break
            before = counts
            time.sleep(1)
        return time.monotonic() - began


def outage(bed: Writers, rate: float, seconds: float) -> bool:
    """Measure lines through an outage with a kill and a restart in it; return whether none was lost."""
    mark = f"bench-{secrets.token_hex(4)}"
    half = int(rate * seconds / 2)
    bed.start_writer(mark, 0, half, rate)
    time.sleep(seconds / 12)
    bed.away(True)
    gone_since = time.monotonic()
    try:
        time.sleep(seconds / 6)
        bed.on_vps("systemctl", "kill", "--signal=KILL", "berth-log-shipping@*")
        wrote = bed.finish_writer(0)
        subprocess.run(["docker", "restart", "--time", "60", bed.vps], check=True, capture_output=True)
        while subprocess.run(
            ["docker", "exec", bed.vps, "docker", "info"], capture_output=True, check=False
        ).returncode:
            time.sleep(1)
        bed.start_writer(mark, half, half, rate)
        time.sleep(max(0.0, gone_since + seconds - time.monotonic()))
    finally:
        bed.away(False)
    gone = time.monotonic() - gone_since
    wrote += bed.finish_writer(half)
    caught_up = bed.caught_up(mark, 2 * half)
    counts = bed.counts(mark)
    print(
        f"away {gone:.0f} s; {2 * half} lines written in {wrote:.0f} s; caught up {caught_up:.0f} s after the last line"
    )
    for server, count in counts.items():
        lost = 2 * half - count["lines"]
        print(f"  {server:<14} received {count['lines']:>6}  lost {lost:>4}  doubled {count['doubled']:>4}")
    return all(counts[server]["lines"] == 2 * half for server in ACKNOWLEDGED)


def burst(bed: Writers, lines: int) -> None:
    """Compare how long a container takes for a burst with the log servers there and away."""
    for gone in (False, True, False, True):
        mark = f"burst-{secrets.token_hex(4)}"
        bed.away(gone)
        bed.start_writer(mark, 0, lines, 0)
        seconds = bed.finish_writer(0)
        bed.away(False)
        shipped = bed.caught_up(mark, lines)
        print(
            f"burst of {lines} lines, log servers {'away' if gone else 'there'}: written in {seconds:.1f} s, "
            f"all shipped {shipped:.0f} s later"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Log servers away under load, with every line counted at both ends.")
    parser.add_argument("--rate", type=float, default=100, help="lines a second (default 100)")
    parser.add_argument("--away", type=float, default=60, help="seconds that the log servers are away (default 60)")
    parser.add_argument("--burst", type=int, default=20000, help="lines of the burst (default 20000, 0 for none)")
    asked = parser.parse_args()
    bed = Writers()
    whole = outage(bed, asked.rate, asked.away)
    if asked.burst:
        burst(bed, asked.burst)
    sys.exit(0 if whole else "Lines were lost.")


if __name__ == "__main__":
    main()
