"""A provisioned test bed, as benchmarks use it: the VPS, the outside host, and visitors who ask from there."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STATE = Path(os.environ.get("BERTH_TESTBED", ROOT / ".demo"))
LOAD = Path(__file__).resolve().parent / "release/load.py"


@dataclass
class Visits:
    """Short requests: how long each took, in milliseconds, in order, and how many of all failed."""

    times: list[float] = field(default_factory=list)
    failed: int = 0

    def percentile(self, part: float) -> float:
        return self.times[min(int(len(self.times) * part), len(self.times) - 1)]


class TestBed:
    """The VPS and the outside host, by their containers; BERTH_TESTBED names the folder that says which."""

    def __init__(self) -> None:
        written_down = (STATE / "connection.yml").read_text()
        names = dict(re.findall(r"^(\w+): (\S.*)$", written_down, re.MULTILINE))
        self.vps, self.outside, self.site = names["vps_container"], names["outside_container"], names["site"]

    def on_vps(self, *command: str, given: str | None = None) -> str:
        return self._run("docker", "exec", "--interactive", self.vps, *command, given=given)

    def on_outside(self, *command: str) -> str:
        return self._run("docker", "exec", self.outside, *command)

    @staticmethod
    def _run(*command: str, given: str | None = None) -> str:
        done = subprocess.run(command, input=given or "", capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"`{' '.join(command)[:300]}` ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def image(self) -> str:
        """Return the image of a program in Python."""
        listed = self.on_vps("docker", "ps", "--filter", "name=auth_service", "--format", "{{.Image}}")
        return listed.splitlines()[0]

    def account(self) -> dict[str, str]:
        """Make somebody who can sign in."""
        made = {"email": f"{secrets.token_hex(4)}@berth.invalid", "password": secrets.token_urlsafe(16)}
        service = self.on_vps("docker", "ps", "--quiet", "--filter", "label=com.docker.compose.service=auth_service")
        self.on_vps("docker", "exec", "-i", service, "python3", "-m", "auth_service.probe", given=json.dumps(made))
        return made

    @contextmanager
    def visited(self, account: dict[str, str], rate: float) -> Iterator[Visits]:
        """Have the site asked from the outside host meanwhile."""
        plan = {"domain": self.site, "rate": rate, **account}
        found = Visits()
        with subprocess.Popen(
            ["docker", "exec", "--interactive", self.outside, "python3", "-c", LOAD.read_text()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as asking:
            if asking.stdin:
                asking.stdin.write(json.dumps(plan) + "\n")
                asking.stdin.flush()
            try:
                yield found
            finally:
                out, _ = asking.communicate("stop\n", timeout=180)
        counted: dict[str, Any] = json.loads(out)
        found.times += sorted(each for second in counted["by_second"].values() for each in second)
        found.failed += counted["failed"]
