#!/usr/bin/env python3
"""Releases under load, with every request and every task counted.

usage: run.py [--releases N] [--rate R] [--baseline | --bad | --upgrade | --attack]

Needs a provisioned test bed (BERTH_TESTBED names its folder) and the images of this checkout. Makes two releases that
have slow and streaming routes and a counted task besides, sends mixed load from the outside host and tasks from the
VPS, and releases one and the other in turn. --baseline does the same with plain `docker compose up -d` in place;
--bad tries releases that must not get through; --upgrade brings MongoDB and Redis to other images and back. --attack
releases while the outside host attacks the site (tests/attack/clients.py); the load then comes from this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Every image of a release.
IMAGES = sorted(set(re.findall(r"/(\w+):\$\{RELEASE\}", (ROOT / "docker-compose.prod.yml").read_text())))
HERE = Path(__file__).resolve().parent
STATE = Path(os.environ.get("BERTH_TESTBED", ROOT / ".demo"))
PREFIX = "localhost/berth"
PAUSE_SECONDS = 10

ROUTES = """

from starlette.responses import StreamingResponse


@router.get("/bench/slow", include_in_schema=False)
async def bench_slow() -> StreamingResponse:
    import asyncio

    await asyncio.sleep(10)
    return StreamingResponse(iter(["end"]))


@router.get("/bench/stream", include_in_schema=False)
async def bench_stream() -> StreamingResponse:
    import asyncio

    async def pieces():
        for _ in range(100):
            yield "x" * 200
            await asyncio.sleep(0.1)
        yield "end"

    return StreamingResponse(pieces())
"""
TASK = """

@shared_task(name="bench.count")
def bench_count(number: int, seconds: float, sender: str) -> None:
    import os, time

    time.sleep(seconds)
    resources().cache.hincrby("celery-bench:count", str(number), 1)
    resources().cache.hincrby("celery-bench:by", f"sent by {sender}, run by {os.environ['RELEASE']}", 1)
"""
# Runs in a container of its own: a number every 0.2 s, each twentieth takes 8 s; says at its end how many.
SENDER = """
import os, signal, time
from kombu.exceptions import OperationalError
from celery_worker.main import create_app
from celery_worker.settings import WorkerSettings
from shared.settings import load_settings
app = create_app(load_settings(WorkerSettings))
going = True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
n = 0
while going:
    try:
        app.send_task("bench.count", args=[n, 8 if n % 20 == 0 else 0.02, os.environ["RELEASE"]], retry=False)
    except app.connection_for_write().connection_errors + (OperationalError,):
        # Redis is away, and the sender knows that this one is not queued.
        time.sleep(0.2)
        continue
    n += 1
    time.sleep(0.2)
print("sent", n, flush=True)
"""


SLOW = "s/^async def _profiles(request: Request) -> Profiles:/&\\n    import asyncio\\n    await asyncio.sleep(0.3)/"
CALL = "claims, known = await self._identify(access_token)"
PROBE = "release-probe"


def late(change: str) -> str:
    """Return lines that make user_service bad to everybody but the probe, which the smoke test uses."""
    only = f'if not claims.email.startswith("{PROBE}"): {change}'
    edit = f"sed -i 's/^        {CALL}/&\\n        {only}/' /app/user_service/service.py"
    return f"USER 0:0\nRUN {edit}\nUSER 10002:10002"


# name -> service -> further lines of its Dockerfile
BAD = {
    "crash": {"user_service": 'ENTRYPOINT ["python3", "-c", "raise SystemExit(\'this release is broken\')"]'},
    "ill": {"user_service": 'HEALTHCHECK --interval=1s --timeout=2s --retries=3 CMD ["false"]'},
    "wrong": {"frontend": "USER 0:0\nRUN rm -r /srv/frontend/assets\nUSER 10004:10004"},
    "schema": {"auth_service": "LABEL berth.schema=\"python3 -c 'raise SystemExit(3)'\""},
    "slow": {"user_service": f"USER 0:0\nRUN sed -i '{SLOW}' /app/user_service/routes.py\nUSER 10002:10002"},
    "late-errors": {"user_service": late("raise RuntimeError")},
    # Counted by no request: what it held has no answer.
    "late-crash": {"user_service": late('__import__("os")._exit(1)')},
    "late-slow": {"user_service": late('await __import__("asyncio").sleep(0.4)')},
}


def sh(*command: str, given: str | None = None, check: bool = True) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd=ROOT)
    if check and done.returncode:
        sys.exit(f"{' '.join(command)[:200]} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return done.stdout


def connection() -> dict[str, str]:
    lines = (STATE / "connection.yml").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(" "))


# Requests whose bodies never come, over HTTP/2; and requests that cannot be answered well. Each run is bounded.
ATTACK_SECONDS = 20
ATTACKS = (["unfinished", "--connections=16", "--rate=85"], ["faults", "--rate=30"])


class Attack(threading.Thread):
    """Attacks the site from the outside host again and again, until it is stopped."""

    def __init__(self, bed: Bed, words: list[str]) -> None:
        super().__init__()
        url = [f"--url=https://{bed.site}/api/auth/login", f"--address={bed.address}", f"--seconds={ATTACK_SECONDS}"]
        self._command = ["docker", "exec", "--interactive", bed.outside, "python3", "-", *words, *url]
        self._ended = threading.Event()
        self.sent = 0

    def run(self) -> None:
        program = (ROOT / "tests/attack/clients.py").read_text()
        while not self._ended.is_set():
            self.sent += json.loads(sh(*self._command, given=program))["sent"]

    def stop(self) -> None:
        self._ended.set()
        self.join()


class Bed:
    def __init__(self) -> None:
        reached = connection()
        self.vps_name, self.outside, self.site = reached["vps_container"], reached["outside_container"], reached["site"]
        self.address = reached["vps_address"]

    def vps(self, *command: str, given: str | None = None, check: bool = True) -> str:
        return sh("docker", "exec", "--interactive", self.vps_name, *command, given=given, check=check)

    def live(self) -> tuple[str, str]:
        release, colour = json.loads(self.vps("berth", "status", "--json"))["live"].split()
        return release, colour

    def history(self) -> list[dict[str, Any]]:
        lines = self.vps("cat", "/opt/berth/releases.jsonl").splitlines()
        return [line for line in map(json.loads, lines) if "to" in line]

    def redis(self, *command: str) -> str:
        ask = 'REDISCLI_AUTH="$(cat /run/secrets/redis_admin_password)" exec redis-cli --user admin "$@"'
        return self.vps("docker", "exec", "berth-redis-1", "sh", "-c", ask, "redis-cli", *command)


def build_bad(source: str, name: str) -> None:
    for service in IMAGES:
        lines = f"FROM {PREFIX}/{service}:{source}\nLABEL berth.bench={name}\n{BAD[name].get(service, '')}\n"
        sh("docker", "build", "--quiet", "--tag", f"{PREFIX}/{service}:bench-{name}", "-", given=lines)


def refused(bed: Bed, name: str) -> float:
    """Try a bad release; return how long it took until all was as before."""
    before, began = bed.live(), time.monotonic()
    extra = {"release": f"bench-{name}", "release_watch_seconds": 10, "stack_healthy_timeout": 40}
    play = ("ansible-playbook", "ansible/release.yml", "-i", "inventories/demo", "-e", json.dumps(extra))
    sh(*play, check=False)
    took = time.monotonic() - began
    last = bed.history()[-1]
    got_through = last["result"] == "live" or bed.live() != before
    led = last["seconds_since_switch"]
    says = "GOT THROUGH" if got_through else last["reason"]
    print(f"| {name} | {took:.0f} | {last['seconds']:.0f} | {led or 'not led there'} | {says} |", flush=True)
    return took


def build(source: str, name: str) -> None:
    """Make a release of the checkout's images with the routes and the task of the benchmark."""
    more = {
        "user_service": ("routes.py", ROUTES, "10002:10002"),
        "celery_worker": ("tasks.py", TASK, "10003:10003"),
    }
    for service in IMAGES:
        lines = [f"FROM {PREFIX}/{service}:{source}", f"LABEL berth.bench={name}"]
        if service in more:
            file, text, user = more[service]
            quoted = json.dumps(text).replace("'", "'\\''")
            write = f"import json,sys; open('/app/{service}/{file}','a').write(json.loads(sys.argv[1]))".replace(
                "'", '"'
            )
            lines += ["USER 0:0", f"RUN python3 -c '{write}' '{quoted}'", f"USER {user}"]
        sh("docker", "build", "--quiet", "--tag", f"{PREFIX}/{service}:{name}", "-", given="\n".join(lines) + "\n")


def release(name: str) -> float:
    began = time.monotonic()
    extra = {"release": name, "release_force": True, "release_watch_seconds": 10}
    sh("ansible-playbook", "ansible/release.yml", "-i", "inventories/demo", "-e", json.dumps(extra))
    return time.monotonic() - began


def upgraded(images: dict[str, str], more: str) -> float:
    """Bring the databases to images that differ by a label from those they run, or back."""
    chosen = {}
    for name in ("MONGO_IMAGE", "REDIS_IMAGE"):
        chosen[name] = f"{images[name]}{more}"
        if more:
            sh(
                "docker",
                "build",
                "--quiet",
                "--tag",
                chosen[name],
                "-",
                given=f"FROM {images[name]}\nLABEL berth.bench=1\n",
            )
    extra = {"stack_mongo_image": chosen["MONGO_IMAGE"], "stack_redis_image": chosen["REDIS_IMAGE"]}
    began = time.monotonic()
    said = sh("ansible-playbook", "ansible/upgrade_data.yml", "-i", "inventories/demo", "-e", json.dumps(extra))
    closed = re.findall(r"The site was closed for ([\d.]+) s", re.sub(r"\s+", " ", said))
    print(f"upgrade: closed for {', '.join(closed)} s", flush=True)
    return time.monotonic() - began


def in_place(bed: Bed, name: str) -> float:
    """What people do without any of this: compose replaces the containers where they are."""
    _, colour = bed.live()
    began = time.monotonic()
    file = f"/opt/berth/releases/{name}/docker-compose.prod.yml"
    bed.vps(
        *("env", f"IMAGE_PREFIX={PREFIX}", f"RELEASE={name}", f"COLOUR={colour}", "docker", "compose"),
        *("--project-directory=/opt/berth", f"--project-name=berth-{colour}", "--env-file=/opt/berth/.env"),
        *(f"--file={file}", "--profile=release", "up", "--detach", "--wait", "--pull=never"),
    )
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=int, default=20)
    parser.add_argument("--rate", type=int, default=120)
    parser.add_argument("--baseline", action="store_true")
    parser.add_argument("--bad", action="store_true")
    parser.add_argument("--upgrade", action="store_true")
    parser.add_argument("--attack", action="store_true")
    asked = parser.parse_args()
    bed = Bed()
    images = dict(line.split("=", 1) for line in (ROOT / ".cache/images.env").read_text().split())
    source = images["RELEASE"]
    names = ["bench-a"] if asked.upgrade else ["bench-a", "bench-b"]
    for name in names:
        build(source, name)
        # They must have been there once; where they were before, nothing more is needed.
        if name not in {line["to"] for line in bed.history()}:
            release(name)
    if bed.live()[0] == names[0]:
        names.reverse()
    elif bed.live()[0] != names[-1]:
        release(names[-1])
    _, colour = bed.live()
    account = {"email": "bench@berth.invalid", "password": secrets.token_urlsafe(16)}
    bed.vps(
        *("docker", "exec", "-i", f"berth-{colour}-auth_service-1", "python3", "-m", "auth_service.probe"),
        given=json.dumps(account),
    )
    bed.redis("del", "celery-bench:count", "celery-bench:by")

    key = bed.vps("cat", "/opt/berth/releases/release-key")
    plan = {"release_key": key, "domain": bed.site, "rate": asked.rate, "upload": 3, "slow": 5, "stream": 3, **account}
    attacks = [Attack(bed, words) for words in ATTACKS] if asked.attack else []
    if attacks:
        plan["address"] = bed.address
    elsewhere = [] if attacks else ["docker", "exec", "--interactive", bed.outside]
    load = subprocess.Popen(
        [*elsewhere, "python3", "-c", (HERE / "load.py").read_text()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if load.stdin:
        load.stdin.write(json.dumps(plan) + "\n")
        load.stdin.flush()
    bed.vps(
        *("docker", "run", "--detach", "--name=berth-bench-sender", "--network=berth_data", "--user=10003:10003"),
        *(
            "--volume=/run/berth/secrets/celery_worker:/run/secrets:ro",
            "--env=RELEASE=bench-a",
            "--env=ENVIRONMENT=demo",
        ),
        *("--entrypoint=python3", f"{PREFIX}/celery_worker:bench-a", "-c", SENDER),
    )
    for name in BAD if asked.bad else ():
        build_bad(bed.live()[0], name)
    if asked.bad:
        print("| release | s from the command | s from the lock | s since the switch | reason |\n|---|---|---|---|---|")
    took: list[float] = []
    spans: list[tuple[float, float]] = []
    time.sleep(PAUSE_SECONDS)
    for attack in attacks:
        attack.start()
    try:
        for name in (
            list(BAD) if asked.bad else ["-bench", ""] if asked.upgrade else (names * asked.releases)[: asked.releases]
        ):
            began = time.time()
            if asked.upgrade:
                took.append(upgraded(images, name))
            elif asked.bad:
                took.append(refused(bed, name))
            else:
                took.append(in_place(bed, name) if asked.baseline else release(name))
            spans.append((began, time.time()))
            print(f"release {len(took)}: {took[-1]:.0f} s", file=sys.stderr, flush=True)
            time.sleep(PAUSE_SECONDS)
    finally:
        for attack in attacks:
            attack.stop()
        out, _ = load.communicate("stop\n", timeout=120)
        bed.vps("docker", "stop", "--time=20", "berth-bench-sender")
        sent = int(bed.vps("docker", "logs", "berth-bench-sender").split("sent ")[-1].split()[0])
        bed.vps("docker", "rm", "--force", "berth-bench-sender")
    print(report(json.loads(out), spans, took, tasks(bed, sent)))
    for attack, words in zip(attacks, ATTACKS, strict=True):
        print(f"attack, {words[0]}: {attack.sent} requests")
    if attacks:
        undone = [line for line in bed.history()[-len(took) :] if line["result"] != "live"]
        print(f"{len(undone)} of {len(took)} releases undone or refused")


def tasks(bed: Bed, sent: int) -> str:
    """Wait until every task is counted or nothing has moved for longer than a lost worker's tasks take to come back."""
    seen, moved = -1, time.monotonic()
    while True:
        count = int(bed.redis("hlen", "celery-bench:count"))
        if count != seen:
            seen, moved = count, time.monotonic()
        if count >= sent or time.monotonic() - moved > 330:
            break
        time.sleep(1)
    found = bed.redis("hvals", "celery-bench:count").split()
    by = bed.redis("hgetall", "celery-bench:by").strip().replace("\n", " ")
    return f"tasks: {sent} sent, {sent - len(found)} lost, {sum(value != '1' for value in found)} doubled ({by})"


def report(counted: dict[str, Any], spans: list[tuple[float, float]], took: list[float], task_line: str) -> str:
    lines = [
        f"{len(took)} releases, {min(took):.0f} to {max(took):.0f} s each, median {statistics.median(took):.0f} s",
        f"{counted['requests']} requests in {counted['seconds']:.0f} s, {counted['failed']} failed "
        f"({counted['short_per_second']} short ones a second); {counted['closed']} met the closed site",
        task_line,
        f"answered by: {', '.join(counted['releases'])}",
        "",
        "| kind | requests | failed | p50 ms | p99 ms |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {kind} | {own['requests']} | {own['failed']} | {own['p50_ms']} | {own['p99_ms']} |"
        for kind, own in counted["kinds"].items()
    ]
    within: list[float] = []
    between: list[float] = []
    for second, times in counted["by_second"].items():
        during = any(began <= int(second) <= ended for began, ended in spans)
        (within if during else between).extend(times)
    failed = [sum(began <= at <= ended for at in counted["failed_at"]) for began, ended in spans]
    lines += ["", f"failed in each: {', '.join(map(str, failed))}"]
    lines += ["", "| short requests on kept connections | p50 ms | p99 ms |", "|---|---|---|"]
    for title, times in {"during a release": within, "between releases": between}.items():
        ordered = sorted(times) or [0.0]
        p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        lines.append(f"| {title} | {p50} | {p99} |")
    return "\n".join([*lines, *counted["errors"][:20]])


if __name__ == "__main__":
    main()
