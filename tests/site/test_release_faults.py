"""Whatever breaks in the middle of a release: the site answers, one colour serves, and nothing stays half done."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.site.test_releases import build, command, containers, live, load, play
from tests.site.test_restarts import assert_made_up, begin_a_backup
from tests.support import PLAY_SECONDS, Visitor, begin, poll

# Several plays each, on machines that may be busy.
pytestmark = pytest.mark.timeout(600)

Load = Callable[[], AbstractContextManager[dict[str, Any]]]

RUN = "/opt/berth/releases/run.json"
BACK_SECONDS = 180
# A layer that no host has yet.
LARGE = f"USER 0:0\nRUN : {time.time_ns()} && head -c {{megabytes}}000000 /dev/urandom > /srv/large"
# So long beat may be away: its lock (services/celery_worker/schedule.py), a round, and what a busy machine takes.
BEAT_AWAY_SECONDS = 15 + 2 + 10
BEAT_EVERY_SECONDS = 30


@pytest.fixture(scope="module")
def twins(testbed: dict[str, Any]) -> set[str]:
    """Two releases that differ in their name only."""
    source = testbed["images"]["RELEASE"]
    return {source, build(f"{source}-twin", source)}


@pytest.fixture
def before(http: httpx.Client) -> tuple[str, str]:
    """Release and colour that are live when a test begins."""
    return live(http)


@pytest.fixture
def target(twins: set[str], before: tuple[str, str]) -> str:
    """The twin that is not live."""
    return sorted(twins - {before[0]})[0]


@pytest.fixture
def under_load(testbed: dict[str, str], visitor: Visitor) -> Load:
    """Requests from the outside host, without those that take long."""
    return partial(load, testbed, visitor, uploads=0)


def start(release: str, **variables: object) -> subprocess.Popen[str]:
    return begin(command("release", release=release, release_force=True, **variables))


def kill(controller: subprocess.Popen[str]) -> None:
    """End it and all it has started at once; Ansible's workers have groups of their own."""
    children: dict[int, list[int]] = {}
    for line in subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    doomed = [controller.pid]
    for one in doomed:
        doomed += children.get(one, [])
    for one in doomed:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    controller.communicate()


def ended(controller: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = controller.communicate(timeout=PLAY_SECONDS)
    return controller.returncode, re.sub(r"\s+", " ", said)


def phase(vps: Host) -> str | None:
    """Return how far a release is; None where there is none."""
    run = vps.run("cat /opt/berth/releases/run.json")
    return str(json.loads(run.stdout)["phase"]) if run.rc == 0 and run.stdout else None


def reached(vps: Host, sign: str, then: str = "true") -> None:
    """Wait, on the host itself, until something is so, and act at once."""
    vps.check_output(f"timeout {PLAY_SECONDS} sh -c 'until {sign}; do sleep 0.02; done; {then}'")


def in_phase(name: str) -> str:
    return f'grep -qs "phase.: .{name}" {RUN}'


@contextmanager
def held(vps: Host, name: str, controller: subprocess.Popen[str]) -> Iterator[None]:
    """Let the program on the host stand still in a phase for as long as the block lasts."""
    try:
        reached(vps, in_phase(name), "systemctl kill --signal=STOP berth-release.service")
        assert phase(vps) == name
        yield
        assert phase(vps) == name
    except BaseException:
        kill(controller)
        raise
    finally:
        vps.run("systemctl kill --signal=CONT berth-release.service")


def last_attempt(vps: Host) -> dict[str, Any]:
    return dict(json.loads(vps.check_output("tail -n 1 /opt/berth/releases.jsonl")))


def settled(vps: Host, http: httpx.Client, release: str, colour: str) -> None:
    """One colour runs and serves, and whoever comes next finds the way free."""
    assert live(http) == (release, colour), last_attempt(vps)
    assert containers(vps) == {f"berth-{colour}"}
    assert phase(vps) is None


def other(colour: str) -> str:
    return {"blue": "green", "green": "blue"}[colour]


# --- The controller goes away ---


# Each of them in make test-long.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("schema", marks=pytest.mark.long),
        pytest.param("start", marks=pytest.mark.long),
        pytest.param("smoke", marks=pytest.mark.long),
        "switch",
        pytest.param("drain", marks=pytest.mark.long),
    ],
)
def test_a_release_that_lost_its_controller_goes_on_by_itself(
    name: str,
    http: httpx.Client,
    vps: Host,
    under_load: Load,
    before: tuple[str, str],
    target: str,
) -> None:
    with under_load() as counted:
        controller = start(target)
        with held(vps, name, controller):
            if name == "start":
                code, said = play("rollback", to=before[0])
                assert code != 0
                told = rf"\S+@\S+ has been running release {target} since \S+ \(phase: start\), and it is still running"
                assert re.search(told, said), said[-2000:]
            kill(controller)
        poll(lambda: phase(vps) is None or None, PLAY_SECONDS, "the end of the release")
    assert counted["failed"] == 0, counted["errors"]
    assert set(counted["releases"]) == {" ".join(before), f"{target} {other(before[1])}"}
    settled(vps, http, target, other(before[1]))
    attempt = last_attempt(vps)
    assert (attempt["to"], attempt["result"]) == (target, "live")
    # Only the look from outside may be missing, and then the history says so.
    assert attempt["reason"] == (
        "" if name == "drain" else "Not checked from outside: the controller had disconnected."
    )


@pytest.mark.long
def test_a_release_whose_program_was_killed_too_is_brought_to_its_end_by_another(
    http: httpx.Client, vps: Host, under_load: Load, before: tuple[str, str], target: str
) -> None:
    with under_load() as counted:
        controller = start(target)
        reached(vps, in_phase("watch"), "systemctl kill --signal=KILL berth-release.service")
        kill(controller)
        poll(lambda: phase(vps) is None or None, PLAY_SECONDS, "the end of the release")
    assert counted["failed"] == 0, counted["errors"]
    settled(vps, http, target, other(before[1]))
    attempt = last_attempt(vps)
    assert (attempt["to"], attempt["result"]) == (target, "live")
    assert attempt["reason"] == "It was interrupted (phase: watch), and finished afterwards."


@pytest.mark.long
def test_a_release_that_lost_its_controller_while_images_are_sent_is_undone_by_the_next_run(
    http: httpx.Client, vps: Host, under_load: Load, before: tuple[str, str]
) -> None:
    # Never the same, so that the host does not have it, however often this runs; and large, so that it takes a while.
    unsent = build(f"{before[0]}-unsent", before[0], frontend=LARGE.format(megabytes=150))
    with under_load() as counted:
        controller = start(unsent)
        reached(vps, 'pgrep -f "^docker load" >/dev/null')
        kill(controller)
        assert phase(vps) == "begun"
        # The connection of a process that was killed takes a moment to end, on the host, too.
        poll(lambda: "INTERRUPTED" in vps.check_output("berth status") or None, 180, "the end of the connection")
        code, said = play("rollback", to=before[0])
        assert code == 0, said
    assert counted["failed"] == 0, counted["errors"]
    settled(vps, http, *before)
    attempt = last_attempt(vps)
    assert (attempt["to"], attempt["result"]) == (unsent, "undone")
    assert attempt["reason"] == "It was interrupted (phase: begun)."


def test_a_lock_whose_holder_hangs_is_named_and_can_be_broken(
    http: httpx.Client, vps: Host, way_in: Path, before: tuple[str, str], target: str
) -> None:
    ask = ["ssh", "-F", str(way_in), "-oControlMaster=no", "-oControlPath=none", "server"]
    begin = f"sudo berth release begin --by ada@laptop {target} && sleep 600"
    holder = subprocess.Popen([*ask, begin], stdout=subprocess.DEVNULL)
    try:
        poll(lambda: phase(vps), 20, "the lock")
        # As a laptop does that is shut in the middle: the connection stands, and nobody is there.
        holder.send_signal(signal.SIGSTOP)
        since = json.loads(vps.check_output(f"cat {RUN}"))["since"]
        code, said = play("rollback", to=before[0])
        assert code != 0
        assert (
            f"ada@laptop has been running release {target} since {since} (phase: begun) and is still connected" in said
        )
        assert "-e release_break_lock=true" in said
        code, said = play("rollback", to=before[0], release_break_lock=True)
        assert code == 0, said
    finally:
        holder.kill()
        holder.wait()
    settled(vps, http, *before)
    attempt = last_attempt(vps)
    assert (attempt["by"], attempt["to"], attempt["result"]) == ("ada@laptop", target, "undone")


# --- The disk is full ---


@contextmanager
def little_room(vps: Host, place: str, mebibytes: int) -> Iterator[None]:
    """Put what is in a folder on a disk of its own, with so much room beside it."""
    used = int(vps.check_output(f"du --summarize --block-size=1M {place}").split()[0])
    vps.check_output(f"cp --archive {place} /run/kept && mount -t tmpfs -o size={used + mebibytes}m full {place}")
    try:
        vps.check_output(f"chmod --reference=/run/kept {place} && cp --archive /run/kept/. {place}")
        yield
    finally:
        vps.check_output(f"rm -r /run/kept && cp --archive {place} /run/kept && umount {place}")
        vps.check_output(f"cp --archive /run/kept/. {place} && rm -r /run/kept")


@pytest.mark.long
@pytest.mark.parametrize("place", ["/var/tmp", "/var/lib/docker/tmp"])  # noqa: S108  # of the VPS
def test_images_that_do_not_fit_are_refused_with_the_disk_s_name(
    place: str, http: httpx.Client, vps: Host, before: tuple[str, str]
) -> None:
    big = build(f"{before[0]}-big", before[0], frontend=LARGE.format(megabytes=20))
    with little_room(vps, place, 4):
        code, said = play("release", release=big)
    assert code != 0
    refusal = rf"The images could not be sent to vps: .*Free space there, in MiB: .*\b\d+ in {place}\b"
    assert re.search(refusal, said), said[-3000:]
    settled(vps, http, *before)
    attempt = last_attempt(vps)
    assert (attempt["to"], attempt["result"]) == (big, "failed")
    assert f" in {place}" in attempt["reason"]


@pytest.mark.long
def test_a_disk_that_fills_up_in_the_middle_is_named_and_the_next_release_goes_through(
    http: httpx.Client, vps: Host, under_load: Load, before: tuple[str, str], target: str
) -> None:
    place = "/opt/berth/releases"
    with under_load() as counted, little_room(vps, place, 1):
        controller = start(target)
        with held(vps, "start", controller):
            assert vps.run(f"head -c 100M /dev/zero > {place}/filler").rc != 0
        code, said = ended(controller)
        assert code != 0
        assert re.search(rf"The disk is full: {place} has room for 0 MiB", said), said[-2000:]
        settled(vps, http, *before)

        # Still full, even the lock cannot be written.
        code, said = play("rollback", to=target, release_force=True)
        assert code != 0
        assert re.search(rf"The disk is full: {place} has room for 0 MiB", said), said[-2000:]
        settled(vps, http, *before)

        vps.check_output(f"rm {place}/filler")
        code, said = play("release", release=target, release_force=True)
        assert code == 0, said
    assert counted["failed"] == 0, counted["errors"]
    settled(vps, http, target, other(before[1]))


# --- A release that turns out bad after the switch ---


@pytest.mark.parametrize(
    ("name", "change", "reason", "alone"),
    [
        ("late-errors", "raise RuntimeError", r"\d+ of \d+ requests( to \w+)? failed since the switch", True),
        pytest.param(
            "late-slow",
            'await __import__("asyncio").sleep(0.4)',
            r"p\d+ latency of requests to \w+ is \d+ ms since",
            False,
            marks=pytest.mark.long,
        ),
    ],
    ids=["errors, its controller gone", "slow"],
)
def test_a_release_that_is_bad_to_everybody_but_the_probe_is_led_back(
    name: str,
    change: str,
    reason: str,
    alone: bool,
    http: httpx.Client,
    vps: Host,
    under_load: Load,
    before: tuple[str, str],
) -> None:
    line = "claims, known = await self._identify(access_token)"
    only = f'if not claims.email.endswith(".invalid"): {change}'
    edit = f"sed -i 's/^        {line}/&\\n        {only}/' /app/user_service/service.py"
    bad = build(f"{before[0]}-{name}", before[0], user_service=f"USER 0:0\nRUN {edit}\nUSER 10002:10002")
    with under_load() as counted:
        controller = start(bad, release_watch_seconds=60)
        reached(vps, in_phase("switch"))
        switched = time.monotonic()
        if alone:
            kill(controller)
            poll(lambda: phase(vps) is None or None, PLAY_SECONDS, "the way back")
        else:
            code, said = ended(controller)
            assert code != 0
            assert re.search(rf"Release {bad} performs worse than {before[0]} did: {reason}", said), said[-2000:]
        took = time.monotonic() - switched
    attempt = last_attempt(vps)
    assert (attempt["to"], attempt["result"]) == (bad, "failed")
    assert re.search(reason, attempt["reason"])
    settled(vps, http, *before)
    # What is broken was broken for that long only, and what is whole never.
    assert counted["failed"] <= (20 * took if "errors" in name else 0), counted["errors"]
    assert counted["kinds"]["page"]["failed"] == 0


@pytest.mark.long
def test_a_release_that_is_not_well_from_outside_is_led_back(
    http: httpx.Client, vps: Host, under_load: Load, before: tuple[str, str], target: str
) -> None:
    with under_load() as counted:
        # The outside host does not trust the CA of the tests, so it cannot verify the certificate.
        code, said = play("release", release=target, release_force=True, stack_outside_verify=True)
    assert code != 0
    refusal = rf"Release {target} failed its check from outside: .*CERTIFICATE_VERIFY_FAILED"
    assert re.search(refusal, said), said[-2000:]
    assert counted["failed"] == 0, counted["errors"]
    assert set(counted["releases"]) == {" ".join(before), f"{target} {other(before[1])}"}
    settled(vps, http, *before)
    assert "failed its check from outside" in last_attempt(vps)["reason"]


# --- Tasks and beat while both colours run ---


@pytest.fixture
def beat_record(testbed: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], list[tuple[float, str]]]]:
    """What the beats tell Redis: of each kind, when, and what."""
    watch = "REDISCLI_AUTH=$(cat /run/secrets/redis_admin_password) redis-cli --user admin monitor"
    inner = (
        f"docker exec -i berth-redis-1 sh -c '{watch} & read _; kill $!' | grep --line-buffered 'lua. .*celery-beat'"
    )
    record = tmp_path / "beats"
    with record.open("w") as file:
        run = ["docker", "exec", "--interactive", testbed["vps_container"], "sh", "-c", inner]
        process = subprocess.Popen(run, stdin=subprocess.PIPE, stdout=file, text=True)

        def read(kind: str) -> list[tuple[float, str]]:
            found = re.findall(
                rf'^(\S+) \[\d+ lua\] "{kind}" "celery-beat:\w+" "([^"]+)"', record.read_text(), re.MULTILINE
            )
            return [(float(at), what) for at, what in found]

        yield read
        process.communicate("\n", timeout=20)


ASK = """
import sys
from celery_worker.main import create_app
from celery_worker.settings import WorkerSettings
from shared.queue import ECHO
from shared.settings import load_settings

app = create_app(load_settings(WorkerSettings))
print(app.send_task(ECHO, args=[sys.argv[1]], queue=sys.argv[2], expires=30).get(timeout=30))
"""


@pytest.mark.long
def test_tasks_cross_between_releases_and_one_beat_counts_whatever_becomes_of_it(
    http: httpx.Client,
    vps: Host,
    before: tuple[str, str],
    target: str,
    testbed: dict[str, str],
    beat_record: Callable[[str], list[tuple[float, str]]],
) -> None:
    old, new = before[1], other(before[1])

    def holder() -> str:
        return beat_record("set")[-1][1]

    poll(lambda: beat_record("set") or None, 20, "beat's lock")
    controller = start(target)
    with held(vps, "watch", controller):
        # Only a colour's own worker reads the queue of its name.
        for sender, reader in ((old, new), (new, old)):
            run = ["docker", "exec", "--interactive", testbed["vps_container"]]
            run += ["docker", "exec", f"berth-{sender}-celery_worker-1", "python3", "-c", ASK, f"from {sender}"]
            asked = subprocess.run([*run, f"celery.{reader}"], capture_output=True, text=True, check=False)
            assert asked.stdout.strip() == f"from {sender}", asked.stderr

        first = holder()
        vps.check_output(f"docker kill --signal=KILL berth-{old}-beat-1")
        poll(lambda: holder() != first or None, BEAT_AWAY_SECONDS, "the other beat to take over")
    code, said = ended(controller)
    assert code == 0, said
    settled(vps, http, target, new)

    # Long enough to be due again.
    last = len(beat_record("hset"))
    poll(lambda: len(beat_record("hset")) > last or None, BEAT_EVERY_SECONDS + 5, "beat's next round")
    renewed = [at for at, _ in beat_record("set")]
    assert max(after - at for at, after in pairwise(renewed)) <= BEAT_AWAY_SECONDS
    ticks = [at for at, _ in beat_record("hset")]
    apart = [after - at for at, after in pairwise(ticks)]
    assert apart
    assert min(apart) > BEAT_EVERY_SECONDS - 2, apart
    assert max(apart) <= BEAT_EVERY_SECONDS + BEAT_AWAY_SECONDS, apart


# --- The host goes down ---


@pytest.mark.long
def test_a_host_that_loses_its_power_in_the_middle_comes_back_with_what_was_live_and_undoes_the_rest(
    http: httpx.Client, vps: Host, testbed: dict[str, str], before: tuple[str, str], target: str
) -> None:
    controller = start(target)
    reached(vps, in_phase("smoke"), "systemctl kill --signal=STOP berth-release.service")
    lose_power(http, vps, testbed, controller)
    settled(vps, http, *before)
    attempt = last_attempt(vps)
    assert (attempt["to"], attempt["result"]) == (target, "undone")
    assert attempt["reason"] == "It was interrupted (phase: smoke)."


@pytest.mark.long
def test_a_host_that_loses_its_power_after_the_switch_finishes_the_release_and_makes_up_for_a_backup(
    http: httpx.Client, vps: Host, testbed: dict[str, str], before: tuple[str, str], target: str
) -> None:
    controller = start(target)
    reached(vps, in_phase("watch"), "systemctl kill --signal=STOP berth-release.service")
    begin_a_backup(vps)
    lose_power(http, vps, testbed, controller)
    settled(vps, http, target, other(before[1]))
    attempt = last_attempt(vps)
    assert (attempt["to"], attempt["result"]) == (target, "live")
    assert attempt["reason"] == "It was interrupted (phase: watch), and finished afterwards."
    assert_made_up(vps)


def lose_power(http: httpx.Client, vps: Host, testbed: dict[str, str], controller: subprocess.Popen[str]) -> None:
    """Kill all of the host at once and start it; wait for the site, and for the end of what was cut off."""
    for action in ("kill", "start"):
        subprocess.run(["docker", action, testbed["vps_container"]], check=True, capture_output=True)
    code, _ = ended(controller)
    assert code != 0
    poll(lambda: answers(http), BACK_SECONDS, "the site after the loss of power")
    poll(lambda: phase(vps) is None or None, BACK_SECONDS, "the end of what was cut off")


def answers(http: httpx.Client) -> bool | None:
    """Tell whether every part of the site is back."""
    paths = ("/", "/api/auth/openapi.json", "/api/users/openapi.json")
    try:
        return all(http.get(path).status_code == 200 for path in paths) or None
    except httpx.TransportError:
        return None
