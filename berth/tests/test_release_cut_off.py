"""A release ends in one of two states, live or as before, whatever fails, fills up or is killed at whichever step."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from berth.host import commands
from berth.host.lock import Lock
from berth.host.refused import Refused
from berth.release import unit
from berth.release.command import main
from berth.release.host import Host
from berth.release.probe import ProbeFailed, Visit
from berth.tests import compose
from berth.tests.cut_off import Killed
from berth.tests.release_world import (
    CHANGES,
    COMMAND,
    FAILS,
    FULL,
    KILLED,
    NEW,
    OLD,
    READ,
    REQUEST,
    SERVICES,
    WRITE,
    Container,
    Fault,
    World,
    Worlds,
    ask,
    play,
    settings_of,
)

# The world below replaces it.
RUN = commands.run
IN_MEMORY = Path("/dev/shm")  # noqa: S108  # where it is not, a disk does


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worlds]:
    with TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        yield Worlds(Path(folder), monkeypatch)


@dataclass(frozen=True)
class Case:
    """An attempt on a host: what is tried, and what is there before."""

    bad: str = ""
    verb: str = "release"
    live: bool = True
    closed: bool = False
    opinion: str | None = ""
    jobs: bool = False

    def make(self, worlds: Worlds, fault: Fault | None = None) -> World:
        world = worlds.make(self.bad, self.live, self.closed)
        world.opinion, world.fault = self.opinion, fault or Fault()
        if self.jobs:
            world.scheduled = world.live
            for release in ("0.9", OLD, NEW):
                worlds.keep(release, compose.with_job("03:00"))
        return world

    def attempt(self) -> str:
        """Do it; return what is said of a failure."""
        try:
            play(self.verb, "0.9" if self.verb == "rollback" else NEW)
        except Refused as refused:
            return refused.reason
        except Killed:
            return "The program that the controller had started was killed."
        return ""

    def steps(self, worlds: Worlds, *kinds: str) -> list[str]:
        """Return every step of it where nothing goes wrong."""
        world = self.make(worlds, Fault(kinds=kinds))
        self.attempt()
        self.state_of(world)
        return world.steps

    def state_of(self, world: World) -> str:
        """Return "new" or "old"; fail where it is neither, or where anything of the attempt is left."""
        world.repair()
        # What was started with the host is up by then.
        world.now += 60
        live = world.live
        state = "old" if (live is None and not self.live) or (live and live.release == OLD) else "new"
        colours = {live.colour} if live else set()
        assert {one.colour for one in world.containers.values()} == colours
        if live:
            running = world.of(live.colour).values()
            assert {one.service for one in running} == set(SERVICES)
            assert {(one.release, world.state(one)) for one in running} == {(live.release, "healthy")}
            assert {one.policy for one in running} == {"unless-stopped"}, "it does not come back with the host"
        assert not world.text("trial.yml")
        assert bool(world.text("maintenance.yml")) is self.closed
        if self.closed:
            assert world.led_to({"X-Berth-Operator": "key"}) == live, "operators are led elsewhere"
        if self.jobs:
            assert world.scheduled == live, "jobs of another release have timers"
        assert not (world.root / "releases/run.json").exists()
        with (world.root / "releases/guard").open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if state == "old" and world.tried:
            assert list(world.root.glob("releases/*/*/berth-*.log")), "the logs of the failed colour are gone"
        return state


def lines_of(world: World) -> list[dict[str, Any]]:
    place = world.root / "releases.jsonl"
    return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []


def ended(world: World) -> dict[str, str]:
    """Return run -> how it ended, as the history says and hooks are told."""
    words = {"live": "done", "failed": "failed", "undone": "undone"}
    return {line["run"]: words[line["result"]] for line in lines_of(world) if "run" in line}


def told(world: World) -> list[tuple[str, str]]:
    """Return the run and its result that each hook after it was told."""
    hooks = [facts for facts in world.hooked if facts["BERTH_HOOK"].startswith("after-")]
    return [(facts["BERTH_RUN"], facts["BERTH_RESULT"]) for facts in hooks]


def results(world: World, by: str = "ada@laptop") -> list[str]:
    """Return what the history says of somebody's attempts."""
    return [line["result"] for line in lines_of(world) if line["by"] == by]


GOOD, LATE, CRASH = Case(), Case("late"), Case("crash")
JOBS = Case(jobs=True)
ROLLBACK, FIRST, CLOSED = Case(verb="rollback"), Case(live=False), Case(closed=True)
OBJECTION = Case(opinion="It is not well from outside.")


@pytest.mark.parametrize("case", [GOOD, ROLLBACK, FIRST, CLOSED], ids=["release", "rollback", "first", "closed site"])
def test_what_is_good_goes_live(worlds: Worlds, case: Case) -> None:
    world = case.make(worlds)
    assert case.attempt() == ""
    assert case.state_of(world) == "new"
    assert results(world) == ["live"]
    assert told(world) == [("run-1", "done")]
    # What nobody goes back to is removed.
    assert (world.root / "releases/0.8").exists() is (not case.live)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (CRASH, "berth-green-user_service-1 is exited"),
        (
            Case("smoke"),
            "healthy but failed its smoke test: The front page references /assets/app.js, which returned 404",
        ),
        (LATE, r"performs worse than 1\.0 did: \d+ of \d+ requests to auth_service failed"),
        (OBJECTION, "It is not well from outside"),
        (Case("crash", live=False), "did not become healthy"),
        (Case("smoke", live=False), "healthy but failed its smoke test"),
    ],
)
def test_what_is_bad_is_undone_and_says_why(worlds: Worlds, case: Case, reason: str) -> None:
    world = case.make(worlds)
    with pytest.raises(Refused, match=reason):
        play()
    assert case.state_of(world) == "old"
    assert results(world) == ["failed"]
    assert told(world) == [("run-1", "failed")]


COMMITTED = "--committed=2027-01-15T09:00:00+01:00"


def test_the_history_says_when_the_sources_of_a_release_were_committed(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    play("release", NEW, COMMITTED)
    play("rollback", OLD)
    play("release", NEW, "--force")
    assert [line.get("committed") for line in lines_of(world)[-3:]] == ["2027-01-15T08:00:00Z", None, None]


def test_a_release_that_the_watch_rolls_back_is_a_deployment_that_failed_and_was_restored(worlds: Worlds) -> None:
    world = LATE.make(worlds)
    with pytest.raises(Refused, match="performs worse"):
        play("release", NEW, COMMITTED)
    [failed] = ask("status", "--dora", "--days=1")["failures"]
    assert (failed["release"], failed["how"]) == (NEW, "failed after the switch")
    assert failed["restore_seconds"] == lines_of(world)[-1]["seconds_since_switch"]


def test_a_release_that_a_gate_refuses_is_no_deployment(worlds: Worlds) -> None:
    CRASH.make(worlds)
    with pytest.raises(Refused, match="exited"):
        play()
    assert ask("status", "--dora", "--days=1")["deployments"] == 0


def test_what_is_live_already_is_left_alone(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    play()
    assert play()["already"] == f"{NEW} green"
    assert GOOD.state_of(world) == "new"
    # A colour that was left over, and routes that somebody has edited, are put right.
    world.up("blue", OLD)
    routes = world.root / "edge/dynamic/release.yml"
    routes.write_text(routes.read_text() + "# edited\n")
    assert play()["settled"] == "routes written again, blue stopped"
    assert GOOD.state_of(world) == "new"
    assert results(world) == ["live"]


def test_a_history_that_a_full_disk_left_incomplete_is_completed(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    history = world.root / "releases.jsonl"
    before = history.read_text()
    play()
    history.write_text(before)
    assert play()["settled"] == "history completed"
    assert play()["changed"] is False
    assert results(world) == ["live"]


def test_a_slow_release_is_refused_before_anybody_is_led_to_it(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    world = GOOD.make(worlds)
    monkeypatch.setattr(Visit, "speed", lambda visit: {"/": 90_000.0 if visit.release == f"{NEW} green" else 5.0})
    with pytest.raises(Refused, match=r"failed its smoke test: / takes 90000 ms, and 5 ms on the live release"):
        play()
    assert GOOD.state_of(world) == "old"


def test_a_release_is_slow_where_its_own_check_says_so(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    world = GOOD.make(worlds)
    check = World._check

    def slow(self: World, one: Container, command: list[str], plan: dict[str, Any]) -> tuple[int, str, str]:
        self.speeds = {"/api/users/me": 90_000.0 if one.release == NEW else 5.0}
        return check(self, one, command, plan)

    monkeypatch.setattr(World, "_check", slow)
    with pytest.raises(Refused, match=r"smoke test: /api/users/me takes 90000 ms, and 5 ms on the live release"):
        play()
    assert GOOD.state_of(world) == "old"


@pytest.mark.parametrize(
    ("ended", "reason", "culprit", "line"),
    [
        # A path says whose fault it is.
        ((1, "/api/users/me returned 500.\n", ""), r"/api/users/me returned 500\.", "user_service", "last words"),
        ((1, "Nobody can sign in.\n", ""), r"Nobody can sign in\.", "auth_service", "last words"),
        (
            (1, "", "Traceback\nKeyError: 'x'\n"),
            "the check of auth_service ended with 1: KeyError",
            "auth_service",
            "Traceback",
        ),
        (
            (124, "", "\ntimed out after 19 s"),
            "ended with 124: timed out after 19 s",
            "auth_service",
            "timed out after 19 s",
        ),
    ],
)
def test_a_check_that_fails_is_quoted_and_its_culprit_named(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, ended: tuple[int, str, str], reason: str, culprit: str, line: str
) -> None:
    world = GOOD.make(worlds)
    check = World._check

    def fails(self: World, one: Container, command: list[str], plan: dict[str, Any]) -> tuple[int, str, str]:
        if one.release == NEW and command[-1] == "auth_service.probe":
            return ended
        return check(self, one, command, plan)

    monkeypatch.setattr(World, "_check", fails)
    with pytest.raises(Refused, match=f"Release {NEW} is healthy but failed its smoke test: .*{reason}"):
        play()
    refused = unit.FOLDER / "run-1.ended"
    said = json.loads(refused.read_text())["refused"]
    assert said["guilty"] == f"berth-green-{culprit}-1"
    assert line in said["lines"]
    assert GOOD.state_of(world) == "old"


def test_a_check_that_was_refused_under_load_is_not_held_against_the_release(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = GOOD.make(worlds)
    monkeypatch.setattr(World, "_check", lambda *_: (0, '{"milliseconds": {}, "note": "refused under load"}', ""))
    assert GOOD.attempt() == ""
    assert GOOD.state_of(world) == "new"


def test_each_check_is_run_on_the_candidate_with_what_it_needs(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    world = GOOD.make(worlds)
    check, seen = World._check, []

    def noted(self: World, one: Container, command: list[str], plan: dict[str, Any]) -> tuple[int, str, str]:
        if one.release == NEW:
            seen.append((one.service, " ".join(command), plan))
        return check(self, one, command, plan)

    monkeypatch.setattr(World, "_check", noted)
    play()
    assert [(service, command) for service, command, _ in seen] == [
        ("auth_service", "python3 -m auth_service.probe"),
        ("celery_worker", "python3 -m celery_worker ask"),
    ]
    plan = seen[0][2]
    assert (plan["url"], plan["address"], plan["release"]) == ("https://site.test", "traefik:443", f"{NEW} green")
    assert {"X-Berth-Trial", "X-Berth-Release-Key"} == set(plan["headers"])
    # The same for ever on this host, and nobody can guess it.
    assert plan["secret"] == (world.root / "releases/probe").read_text()
    assert len(plan["secret"]) > 40


# --- Hooks ---


@pytest.mark.parametrize(("case", "verb"), [(GOOD, "release"), (ROLLBACK, "rollback")])
def test_hooks_are_told_what_is_done_before_and_after(worlds: Worlds, case: Case, verb: str) -> None:
    world = case.make(worlds)
    assert case.attempt() == ""
    target = NEW if case is GOOD else "0.9"
    facts = {"BERTH_VERB": verb, "BERTH_RELEASE": target, "BERTH_PREVIOUS": OLD, "BERTH_COLOUR": "green"}
    facts |= {"BERTH_RUN": "run-1", "BERTH_BY": "ada@laptop", "BERTH_DOMAIN": "site.test", "BERTH_REASON": ""}
    assert world.hooked == [
        {"BERTH_HOOK": f"before-{verb}", **facts, "BERTH_RESULT": ""},
        {"BERTH_HOOK": f"after-{verb}", **facts, "BERTH_RESULT": "done"},
    ]
    # What is live already is no release.
    if case is GOOD:
        play()
        assert len(world.hooked) == 2


def test_a_hook_before_that_fails_stops_it_before_anything_is_changed(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    world.up("green", "0.9")
    left = dict(world.containers)
    world.bad_hooks["before-release"] = (3, "looking\n", "The queue is not empty.\n")
    reason = GOOD.attempt()
    assert reason == "Hook before-release ended with 3: The queue is not empty. Nothing was changed."
    assert world.containers == left
    assert world.live
    assert world.live.release == OLD
    assert results(world) == ["failed"]
    assert told(world) == [("run-1", "failed")]
    assert world.hooked[-1]["BERTH_REASON"] == reason


def test_a_hook_after_that_fails_is_reported_and_undoes_nothing(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    world.bad_hooks["after-release"] = (124, "", "")
    assert play()["note"] == "Hook after-release did not end within 300 s."
    assert GOOD.state_of(world) == "new"
    assert results(world) == ["live"]


def test_a_hook_after_that_fails_too_is_said_after_the_reason(worlds: Worlds) -> None:
    world = CRASH.make(worlds)
    world.bad_hooks["after-release"] = (1, "no network", "")
    assert CRASH.attempt().endswith(" s. Hook after-release ended with 1: no network.")
    assert CRASH.state_of(world) == "old"


def test_hooks_that_are_not_there_cost_no_command(worlds: Worlds) -> None:
    world = GOOD.make(worlds, Fault(kinds=(COMMAND,)))
    for hook in (world.root / "hooks").iterdir():
        hook.unlink()
    play()
    assert not [step for step in world.steps if "hook" in step]
    assert world.hooked == []


# --- Jobs ---


@pytest.mark.parametrize("case", [JOBS, Case(verb="rollback", jobs=True)], ids=["release", "rollback"])
def test_jobs_are_those_of_the_live_release(worlds: Worlds, case: Case) -> None:
    world = case.make(worlds)
    assert case.attempt() == ""
    assert case.state_of(world) == "new"


def test_a_schedule_that_systemd_cannot_read_is_refused_before_anything_changes(worlds: Worlds) -> None:
    world = JOBS.make(worlds)
    worlds.keep(NEW, compose.with_job("25:00"))
    assert JOBS.attempt() == (
        'docker-compose.prod.yml: berth.schedule of service report is "25:00": '
        "Failed to parse calendar specification '25:00': Numerical result out of range"
    )
    assert not world.tried
    assert JOBS.state_of(world) == "old"


def test_a_routed_service_that_the_edge_would_not_find_is_refused_before_anything_changes(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    worlds.keep(NEW, compose.TEXT.replace("frontend-${COLOUR}", "frontend"))
    assert GOOD.attempt().startswith(
        "docker-compose.prod.yml: service frontend has a route, and the edge would not find it. Add to its networks: "
        '{edge: {aliases: ["frontend-${COLOUR}"]}}'
    )
    assert not world.tried
    assert GOOD.state_of(world) == "old"


EDITED = compose.TEXT.replace("mem_limit: 64m", "mem_limit: 80m")
BROKEN = compose.TEXT.replace("berth.maintenance:", "berth.maintenence:")


def again(worlds: Worlds, text: str) -> str:
    """Release what is live again, with another compose file, as the role does; return what is said of a failure."""
    run = ask("begin", "--by=ada@laptop", "--verb=release", OLD)["run"]
    worlds.keep(OLD, text)
    try:
        ask("start", run)
        ask("finish", run)
    except Refused as refused:
        ask("undo", run, f"--reason={refused.reason}")
        return refused.reason
    return ""


@pytest.mark.parametrize(
    ("text", "objection", "says"),
    [(BROKEN, "", "Did you mean berth.maintenance?"), (EDITED, "From outside: 502.", "502"), (EDITED, "", "")],
    ids=["refused", "undone after the switch", "released"],
)
def test_what_is_live_keeps_its_compose_file_unless_another_is_released(
    worlds: Worlds, text: str, objection: str, says: str
) -> None:
    world = GOOD.make(worlds)
    world.opinion = objection
    said = again(worlds, text)
    assert says in said
    assert bool(said) == bool(says)
    folder = world.root / "releases" / OLD
    assert (folder / "docker-compose.prod.yml").read_text() == (compose.TEXT if says else text)
    assert not list(folder.glob("*.before"))
    assert world.live
    assert (world.live.release, world.live.colour) == (OLD, "blue" if says else "green")


def test_a_job_whose_folder_is_not_on_the_host_is_refused_before_anything_changes(worlds: Worlds) -> None:
    world = JOBS.make(worlds)
    world.absent = ("/srv/reports",)
    assert JOBS.attempt().startswith(f"Service report of release {NEW} needs /srv/reports, which this host lacks.")
    assert not world.tried
    assert JOBS.state_of(world) == "old"


def test_jobs_that_cannot_be_scheduled_are_reported_and_undo_nothing(worlds: Worlds) -> None:
    world = Case("jobs", jobs=True).make(worlds)
    assert play()["note"] == (
        "The jobs could not be scheduled: Job for berth-jobs.service failed. Try again: sudo systemctl restart "
        "berth-jobs"
    )
    assert JOBS.state_of(world) == "new"


def test_without_jobs_nothing_is_scheduled(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    play()
    assert world.scheduled is None


# --- What the compose file says ---


@pytest.mark.parametrize("case", [ROLLBACK, GOOD], ids=["rollback", "release from it"])
def test_a_release_that_was_kept_before_there_were_labels_works(worlds: Worlds, case: Case) -> None:
    world = case.make(worlds)
    worlds.keep("0.9" if case is ROLLBACK else OLD, compose.without_labels())
    (world.root / "releases/routes.yml").write_text("# @RELEASE@ @COLOUR@ @AND@@NAME@ @SHOWN@ @PRIORITY+1@\n")
    assert case.attempt() == ""
    assert case.state_of(world) == "new"
    assert results(world) == ["live"]


def test_a_release_without_labels_has_to_be_healthy_and_to_answer(worlds: Worlds) -> None:
    case = Case("crash")
    world = case.make(worlds)
    worlds.keep(NEW, compose.without_labels())
    assert "berth-green-user_service-1 is exited" in case.attempt()
    assert case.state_of(world) == "old"


def test_labels_that_contradict_each_other_are_refused_before_anything_changes(worlds: Worlds) -> None:
    world = GOOD.make(worlds, Fault(kinds=(COMMAND, REQUEST)))
    worlds.keep(NEW, compose.TEXT.replace("berth.route: /api/users/", "berth.route: /api/auth/"))
    reason = GOOD.attempt()
    assert reason.endswith(
        "berth.route of service user_service is /api/auth/, which is routed to auth_service already."
    )
    # The program, and the hook after it.
    assert [step.split()[0] for step in world.steps] == ["systemd-run", "systemctl", "systemd-run", "systemd-cat"]
    assert results(world) == ["failed"]
    assert GOOD.state_of(world) == "old"


@pytest.mark.parametrize("lacks", ["/run/berth/secrets/user_service", "/run/berth/secrets/user_service/mongo_uri"])
def test_a_service_whose_secrets_are_not_on_the_host_is_refused_before_anything_changes(
    worlds: Worlds, lacks: str
) -> None:
    world = GOOD.make(worlds, Fault(kinds=(COMMAND, REQUEST)))
    world.absent = (lacks,)
    assert GOOD.attempt().startswith(f"Service user_service of release {NEW} needs {lacks}, which this host lacks.")
    # The program, and the hook after it.
    assert [step.split()[0] for step in world.steps] == ["systemd-run", "systemctl", "systemd-run", "systemd-cat"]
    assert GOOD.state_of(world) == "old"


def test_a_live_release_whose_compose_file_is_damaged_does_not_keep_the_next_one_away(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    (world.root / f"releases/{OLD}/docker-compose.prod.yml").unlink()
    assert GOOD.attempt() == ""
    assert GOOD.state_of(world) == "new"


def test_a_release_that_is_not_wanted_is_removed_at_once_but_for_what_may_hold_a_task(worlds: Worlds) -> None:
    world = Case("smoke").make(worlds, Fault(kinds=(COMMAND,)))
    Case("smoke").attempt()
    removed = next(step for step in world.steps if step.startswith("docker rm"))
    services = {name.split("-")[2] for name in removed.split()[2:]}
    assert services >= {"auth_service", "user_service", "frontend"}
    assert not services & {"celery_worker", "beat"}
    assert Case("smoke").state_of(world) == "old"


def test_what_somebody_started_beside_a_release_is_no_part_of_it(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    beside = Container("flower", "blue", OLD, "no", 0, "exited")
    world.containers["berth-blue-flower-1"] = beside
    ask("maintenance", "on", "--by=ada@laptop")
    assert ask("maintenance", "off")["changed"] is True


def test_a_schema_step_that_hurts_the_live_release_ends_the_attempt(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = GOOD.make(worlds)

    def speed(_: Visit) -> dict[str, float]:
        if any("auth_service.schema" in step for step in world.steps):
            raise ProbeFailed("/ gave 500.")
        return {"/": 5.0}

    world.fault = Fault(kinds=(COMMAND,))
    monkeypatch.setattr(Visit, "speed", speed)
    with pytest.raises(Refused, match=r"Since the schema step of 1\.1 the live release 1\.0 answers with errors"):
        play()
    assert GOOD.state_of(world) == "old"


def each(steps: list[str], check: Callable[[int], None]) -> None:
    """Check every step, and name the one at which it does not hold."""
    assert steps
    for number, step in enumerate(steps):
        try:
            check(number)
        except AssertionError as error:
            raise AssertionError(f"at step {number}, {step}: {error}") from error


@pytest.mark.parametrize("kinds", [(COMMAND, READ), (REQUEST,)], ids=["commands", "requests"])
@pytest.mark.parametrize("case", [GOOD, ROLLBACK, LATE], ids=["release", "rollback", "bad release"])
def test_what_fails_at_any_step_leaves_one_colour_live_and_whole(
    worlds: Worlds, case: Case, kinds: tuple[str, ...]
) -> None:
    steps = case.steps(worlds, *kinds)

    def check(number: int) -> None:
        world = case.make(worlds, Fault(FAILS, number, kinds))
        reason = case.attempt()
        if "down" in steps[number]:
            # Nobody is led to what is left of the other colour; the next release removes it.
            live = world.live
            assert live
            world.containers = world.of(live.colour)
        assert case.state_of(world) == ("old" if reason else "new")
        # Nothing was begun, or it is in the history, once.
        assert results(world) in ([["failed"], ["undone"], []] if reason else [["live"]])

    each(steps, check)


def test_a_docker_that_fails_to_list_containers_once_is_asked_again(worlds: Worlds) -> None:
    steps = GOOD.steps(worlds, READ)

    def check(number: int) -> None:
        world = GOOD.make(worlds, Fault(FAILS, number, (READ,)))
        if steps[number].startswith("docker ps"):
            assert GOOD.attempt() == ""
            assert GOOD.state_of(world) == "new"

    assert sum(step.startswith("docker ps") for step in steps) > 10
    each(steps, check)


@pytest.mark.parametrize(("seconds", "state"), [(5, "new"), (12, "old")])
def test_a_docker_that_is_away_in_the_watch_is_held_against_the_release_once_it_stays_away(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, seconds: float, state: str
) -> None:
    world = GOOD.make(worlds)
    of_the_world, since = World._do, [0.0]

    def away(self: World, words: list[str], *more: Any) -> tuple[int, str, str]:
        if words[:2] == ["docker", "ps"] and self._record().get("phase") == "watch":
            since[0] = since[0] or self.now
            if self.now < since[0] + seconds:
                return 1, "", "Cannot connect to the Docker daemon"
        return of_the_world(self, words, *more)

    monkeypatch.setattr(World, "_do", away)
    reason = GOOD.attempt()
    assert GOOD.state_of(world) == state
    assert reason == ("" if state == "new" else "Docker does not answer: Cannot connect to the Docker daemon")


def test_what_keeps_systemd_from_starting_the_program_is_said(worlds: Worlds) -> None:
    [number] = [at for at, step in enumerate(GOOD.steps(worlds, COMMAND)) if "release run" in step]
    world = GOOD.make(worlds, Fault(FAILS, number, (COMMAND,)))
    assert GOOD.attempt() == "It was interrupted (phase: begun; systemd-run: systemd-run failed)."
    assert GOOD.state_of(world) == "old"
    assert results(world) == ["undone"]


def test_a_docker_that_stays_away_is_settled_once_it_is_back(worlds: Worlds) -> None:
    def check(number: int) -> None:
        world = GOOD.make(worlds, Fault(FAILS, number, (COMMAND, READ), stays=True))
        GOOD.attempt()
        world.repair()
        world.connected = False
        # What is left of the other colour is removed by the next release.
        ask("settle")
        with suppress(Refused):
            play()
        assert GOOD.state_of(world) == "new"

    each(GOOD.steps(worlds, COMMAND, READ), check)


TAKES_OVER = {
    "the unit": {
        "release": GOOD,
        "bad release": LATE,
        "jobs": JOBS,
        "jobs of a bad release": Case("late", jobs=True),
        "rollback": ROLLBACK,
        "first": FIRST,
        "closed site": CLOSED,
    },
    "the next run": {"release": GOOD, "bad release": LATE},
    "the next boot": {"release": GOOD, "jobs": JOBS, "bad release": LATE, "first": FIRST},
}


@pytest.mark.parametrize(
    ("who", "case"),
    [pytest.param(who, case, id=f"{name}, {who}") for who, cases in TAKES_OVER.items() for name, case in cases.items()],
)
def test_killed_at_any_step_it_is_brought_to_its_end_by_who_takes_over(worlds: Worlds, who: str, case: Case) -> None:
    seen = []

    def check(number: int) -> None:
        world = case.make(worlds, Fault(KILLED, number, CHANGES))
        world.takes_over = who == "the unit"
        case.attempt()
        world.repair()
        world.connected = False
        if who == "the next run":
            run = ask("begin", "--by=bob@laptop", "--force", NEW)["run"]
            ask("undo", run, "--reason=enough")
        else:
            if who == "the next boot":
                world.lose_power()
                led_to = world.of(world.live.colour) if world.live else {}
                assert not {one.state for one in led_to.values()} - {""}, "what the edge leads to does not come back"
            ask("settle")
        seen.append(case.state_of(world))
        if world.killed_in in ("watch", "drain", "prune"):
            assert seen[-1] == ("old" if case.bad else "new")
        # The hook after it is told of whatever is in the history; again only where the program was killed before it
        # had recorded that.
        assert dict(told(world)) == ended(world)
        assert len(told(world)) <= len(ended(world)) + world.killed_in.startswith("after-")
        known = results(world)
        # Nothing was begun, or it is in the history, once.
        assert known in ([["live"]] if seen[-1] == "new" else [["failed"], ["undone"], []])

    each(case.steps(worlds, *CHANGES), check)
    # Once it stays it is never undone; and what is bad never stays.
    assert seen == sorted(seen, reverse=True)
    assert ("new" in seen) is (not case.bad)


@pytest.mark.parametrize("case", [GOOD, LATE], ids=["release", "bad release"])
def test_killed_while_it_is_settled_it_is_settled_by_the_next_one(worlds: Worlds, case: Case) -> None:
    for number in range(0, len(case.steps(worlds, *CHANGES)), 5):
        for again in (1, 4, 9, 16, 25):
            world = case.make(worlds, Fault(KILLED, number, CHANGES))
            world.takes_over = False
            case.attempt()
            world.dead, world.connected = False, False
            world.fault = Fault(KILLED, len(world.steps) + again, CHANGES)
            with suppress(Killed):
                ask("settle")
            world.repair()
            ask("settle")
            state = case.state_of(world)
            assert len(results(world)) <= 1
            assert (results(world) == ["live"]) is (state == "new")


# Operators of a closed site follow to where visitors go back to if the disk lets them.
FULL_DISKS = [(GOOD, False), (LATE, False), (CLOSED, False), (GOOD, True), (LATE, True)]


@pytest.mark.parametrize(("case", "stays"), FULL_DISKS)
def test_a_disk_that_is_full_at_any_write_leaves_no_lock_and_is_named(worlds: Worlds, case: Case, stays: bool) -> None:
    steps = case.steps(worlds, WRITE)

    def check(number: int) -> None:
        world = case.make(worlds, Fault(FULL, number, (WRITE,), stays))
        reason = case.attempt()
        # What has no room is not kept.
        world.tried &= not world.fault.stays and "log" not in steps[number]
        state = case.state_of(world)
        if state == "new":
            assert results(world) == (["live"] if not reason else [])
            assert not reason or "is live, but the history could not be written. The disk is full" in reason
        else:
            assert "The disk is full" in reason or case is LATE
            assert len(results(world)) <= 1

    each(steps, check)


def test_a_good_release_that_was_killed_in_its_watch_goes_live_although_a_request_of_the_next_program_is_lost(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = GOOD.make(worlds)
    judgement, answer = unit.judgement, World._answer
    requests: list[str] = []

    def killed(run: str) -> str | None:
        if not world.dead and not requests and world._record().get("phase") == "watch":
            requests.append("killed")
            world.dead = True
            raise Killed
        return judgement(run)

    def lost(self: World, path: str, **more: Any) -> Any:
        if requests and path == "/api/users/":
            requests.append(path)
            # The first of the smoke test, after those that confirm the switch.
            if len(requests) == 5:
                raise ConnectionResetError("reset")
        return answer(self, path, **more)

    monkeypatch.setattr(unit, "judgement", killed)
    monkeypatch.setattr(World, "_answer", lost)
    world.opinion = None
    GOOD.attempt()
    assert len(requests) > 5
    assert GOOD.state_of(world) == "new"
    assert results(world) == ["live"]


def test_a_log_that_is_not_text_stops_nobody(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    world = CRASH.make(worlds)
    of_the_world = World._do

    def binary(self: World, words: list[str], *more: Any) -> tuple[int, str, str]:
        if words[:2] == ["docker", "logs"]:
            printed = RUN("printf", r"last \377 words")
            return printed.returncode, printed.stdout, printed.stderr
        return of_the_world(self, words, *more)

    monkeypatch.setattr(World, "_do", binary)
    assert "berth-green-user_service-1 is exited" in CRASH.attempt()
    assert CRASH.state_of(world) == "old"


def test_a_run_whose_controller_is_connected_is_waited_for_unless_its_lock_is_broken(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    ask("begin", "--by=ada@laptop", NEW)
    with pytest.raises(Refused, match=r"ada@laptop has been running release 1\.1 since .* and is still connected"):
        ask("begin", "--by=bob@laptop", NEW)
    assert ask("settle") == {"changed": False}
    run = ask("begin", "--by=bob@laptop", "--break-lock", NEW)["run"]
    assert results(world) == ["undone"]
    ask("undo", run, "--reason=enough")
    assert GOOD.state_of(world) == "old"


@pytest.mark.parametrize("verb", ["upgrade", "restore"])
def test_a_run_of_another_verb_is_not_undone_as_a_release(worlds: Worlds, verb: str) -> None:
    host = Host.of(settings_of(GOOD.make(worlds).root))
    run = host.lock.begin(verb, "mongo:9", "ada@laptop", {})
    with pytest.raises(Refused, match="Only a release or a rollback is undone so"):
        ask("undo", run.id, "--reason=enough")
    assert host.lock.current() == run
    assert results(worlds.world) == []


@pytest.mark.parametrize("case", [GOOD, LATE], ids=["live", "failed"])
def test_a_run_that_has_ended_is_not_undone_and_that_is_said(worlds: Worlds, case: Case) -> None:
    world = case.make(worlds)
    case.attempt()
    before = world.live, results(world)
    # Others have run since, and what was said in memory is gone.
    ask("undo", ask("begin", "--by=bob@laptop", NEW)["run"], "--reason=enough")
    answer = ask("undo", "run-1", "--reason=It is not well from outside.")
    how = "failed" if case.bad else "live"
    assert answer.pop("note").startswith(f"This run has ended already ({how}, at ")
    assert answer == {"changed": False}
    assert (world.live, results(world)) == before


@pytest.mark.parametrize("case", [GOOD, LATE], ids=["live", "failed"])
def test_a_run_of_which_only_the_lock_is_left_is_not_undone(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    world = case.make(worlds)
    with monkeypatch.context() as killed:
        killed.setattr(Lock, "end", lambda _: None)
        case.attempt()
    before = world.live, results(world)
    answer = ask("undo", "run-1", "--reason=It is not well from outside.")
    assert answer["changed"] is False
    assert "performs worse" in answer["reason"] if case.bad else "stays live" in answer["note"]
    assert (world.live, results(world)) == before
    assert case.state_of(world) == ("old" if case.bad else "new")


def test_a_verb_of_a_newer_program_is_given_up_by_whoever_breaks_its_lock(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    Lock(settings_of(world.root).releases).begin("migrate", "mongo", "eve@laptop", {}, "copying")
    with pytest.raises(Refused, match="does not know that verb"):
        ask("begin", "--by=ada@laptop", NEW)
    begun = ask("begin", "--by=ada@laptop", "--break-lock", NEW)
    assert begun["settled"].startswith("given up: eve@laptop has been running migrate mongo")


# --- Maintenance ---


def test_a_site_is_closed_to_all_but_operators_and_opened_again(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    header = ask("maintenance", "on", "--by=ada@laptop", "--allow=192.0.2.7")["header"]
    assert world.led_to({}) is None
    assert world.led_to(header) == world.live
    assert ask("maintenance", "on", "--by=bob@laptop", "--allow=192.0.2.7")["changed"] is False
    assert ask("maintenance", "off")["changed"] is True
    assert world.led_to({}) == world.live
    assert ask("maintenance", "off")["changed"] is False


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_maintenance_in_which_a_request_or_a_write_fails_is_repeated(worlds: Worlds, on: bool) -> None:
    kinds = (READ, REQUEST, WRITE)

    def attempt(fault: Fault) -> World:
        world = worlds.make(closed=not on)
        world.fault = fault
        ask("maintenance", "on" if on else "off", "--by=ada@laptop")
        return world

    def check(number: int) -> None:
        with suppress(Refused):
            attempt(Fault(FULL, number, kinds))
        worlds.world.repair()
        ask("maintenance", "on" if on else "off", "--by=ada@laptop")
        assert bool(worlds.world.text("maintenance.yml")) is on

    each(attempt(Fault(kinds=kinds)).steps, check)


def test_a_page_that_the_edge_does_not_show_leaves_the_site_open(worlds: Worlds) -> None:
    world = GOOD.make(worlds)
    world.fault = Fault(FAILS, 0, (REQUEST,), stays=True)
    with pytest.raises(Refused, match=r"did not show the maintenance page within 1 s\. Nothing was changed"):
        ask("maintenance", "on", "--by=ada@laptop")
    assert world.led_to({}) == world.live


def test_where_nothing_is_live_nothing_is_closed(worlds: Worlds) -> None:
    FIRST.make(worlds)
    with pytest.raises(Refused, match="No release is live"):
        ask("maintenance", "on", "--by=ada@laptop")


# --- The command ---


def test_the_command_answers_with_one_object_and_with_1_where_it_is_refused(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    GOOD.make(worlds)
    # Those of the test go on hearing.
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def command(*words: str) -> tuple[int, dict[str, Any]]:
        code = main([*words])
        return code, json.loads(capsys.readouterr().out)

    code, begun = command("begin", "--by=ada@laptop", NEW)
    assert (code, begun["release"]) == (0, NEW)
    code, refused = command("start", "another")
    assert code == 1
    assert refused["reason"].startswith("This run no longer holds the lock. ada@laptop has been running release 1.1")
    # As playbooks read it.
    assert set(refused) == {"reason", "guilty", "lines"}


def test_without_a_controller_the_host_rolls_back_and_says_so_in_a_sentence(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = ROLLBACK.make(worlds)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["rollback", "--by=ada", "0.9"]) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(r"Release 0\.9 is live again after \d+ s\. Details: sudo berth status\n", said)
    assert ROLLBACK.state_of(world) == "new"
    assert main(["rollback", "--by=ada", "0.9"]) == 0
    assert capsys.readouterr().out == "Release 0.9 is live already. Details: sudo berth status\n"
    assert main(["rollback", "--by=ada", OLD]) == 1
    assert capsys.readouterr().out.startswith(f"Release {OLD} was rolled back at ")


def test_a_bad_release_to_roll_back_to_is_refused_with_its_last_lines(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case("crash")
    world = case.make(worlds)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["rollback", "--by=ada", "--force", NEW]) == 1
    reason, *lines = capsys.readouterr().out.splitlines()
    assert "did not become healthy" in reason
    assert all(line.startswith("  ") for line in lines)
    assert case.state_of(world) == "old"
