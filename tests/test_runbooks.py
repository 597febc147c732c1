"""A runbook has impact, first look and fix, and its commands do what it says, on the real component."""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import commands_of
from tests.support import ROOT, poll

# Those of Berth's alerts, and of the application's.
RUNBOOKS = sorted([*(ROOT / "docs/runbooks").glob("*.md"), *(ROOT / "monitoring/runbooks").glob("*.md")])
# Two screens of a terminal.
MOST_LINES = 50
REDIS = ["redis-server", "--dir", "/data", "--appendonly", "yes", "--appendfsync", "always"]


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_has_impact_first_look_and_fix_with_the_commands(page: Path) -> None:
    text = page.read_text()
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert parts[0] == f"# {page.stem}\n\n"
    assert parts[1::2] == ["Impact", "First look", "Fix"]
    impact, look, fix = parts[2::2]
    assert impact.strip()
    assert "```" not in impact
    # More than a variable for the next command.
    for part in (look, fix):
        assert re.search(r"^ *(host|controller)\$ (?!\w+=)", part, re.MULTILINE)
    assert len(text.splitlines()) <= MOST_LINES


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check)
    return done.stdout + done.stderr


@pytest.fixture
def redis() -> Iterator[str]:
    """Redis as production starts it, with a name and a volume of its own."""
    lines = (ROOT / ".cache/images.env").read_text().splitlines()
    image = dict(line.split("=", 1) for line in lines)["REDIS_IMAGE"]
    name = f"berth-test-{secrets.token_hex(4)}"
    docker("run", "--detach", "--name", name, "--user", "999:999", "--volume", f"{name}:/data", image, *REDIS)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)
        docker("volume", "rm", "--force", name)


@pytest.mark.integration
def test_redis_whose_append_only_file_is_damaged_is_started_by_the_commands_of_its_runbook(redis: str) -> None:
    def pong() -> bool | None:
        return True if "PONG" in docker("exec", redis, "redis-cli", "ping", check=False) else None

    poll(pong, 30, "Redis")
    for number in range(20):
        docker("exec", redis, "redis-cli", "set", f"key{number}", "kept")
    docker("stop", redis)
    before_the_end = "bs=1 seek=$(($(wc -c < $f) - 60)) conv=notrunc"
    damage = f"f=$(ls /data/appendonlydir/*.incr.aof); printf XXXXXXXX | dd of=$f {before_the_end}"
    image = docker("inspect", "--format", "{{.Image}}", redis).strip()
    docker("run", "--rm", "--user", "999:999", "--volume", f"{redis}:/data", image, "sh", "-c", damage)
    docker("start", redis)
    poll(lambda: True if "Bad file format" in docker("logs", redis) else None, 30, "Redis to refuse the file")

    page = [command.text for command in commands_of(ROOT / "docs/runbooks/RedisDown.md") if command.where == "host"]
    first = page.index("sudo docker stop berth-redis-1")
    for command in page[first : first + 3]:
        mine = command.replace("sudo ", "").replace("berth-redis-1", redis).replace("redis_data", redis)
        done = subprocess.run(["bash", "-euc", mine], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{mine}\n{done.stdout}{done.stderr}"
    poll(pong, 30, "Redis after the commands of the runbook")
    assert docker("exec", redis, "redis-cli", "get", "key10").strip() == "kept"
