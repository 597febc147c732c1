"""What a release decides without a host: who holds the lock, what is worse than before, which routes there are."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import os
import re
import signal
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO
from pathlib import Path
from subprocess import CompletedProcess
from threading import Thread, Timer

import pytest
import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient

from berth.host import clock, commands, files
from berth.host.live import Live
from berth.host.lock import Lock, Run, is_alive
from berth.host.refused import Refused
from berth.release import counters, probe, unit, watch
from berth.release.account import ProbeAccount
from berth.release.command import answer_of, arguments_of
from berth.release.edge import Edge
from berth.release.engine import Side
from berth.release.history import History
from berth.release.host import Host
from berth.release.probe import Visit
from berth.release.recovery import Recovery
from berth.release.release import Release
from berth.release.retire import retire
from berth.release.settings import Settings, stuck
from shared.app import new_app
from shared.errors import Overloaded
from tests.support import ROOT, poll, rendered

ROLE = ROOT / "roles/stack"


@asynccontextmanager
async def no_lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


BLUE = Live("1.0", "blue", "f1")
GREEN = Live("1.1", "green", "f2")


@cache
def rendered_routes(name: str) -> str:
    """Return a file of routes as role stack writes it."""
    return rendered("stack", f"opt/berth/releases/{name}.j2", stack_domain="site.test")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    written = yaml.safe_load((ROLE / "vars/main.yml").read_text())["_stack_settings"]
    numbers = dict.fromkeys(written, 1)
    place = tmp_path / "settings.json"
    place.write_text(
        json.dumps({**numbers, "root": str(tmp_path), "edge": str(tmp_path / "edge"), "domain": "site.test"})
    )
    settings = Settings.read(place)
    for folder in (settings.releases, settings.edge / "dynamic", settings.edge / "next"):
        folder.mkdir(parents=True)
    for name in ("routes.yml", "maintenance.yml"):
        (settings.releases / name).write_text(rendered_routes(name))
    return settings


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run and its controller talk to each other."""
    monkeypatch.setattr(unit, "FOLDER", tmp_path / "run")


@pytest.fixture
def edge(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Edge:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    return Edge(settings)


def test_a_rollback_to_what_is_no_release_here_begins_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So nobody is told of it by mail or alert but who typed it."""
    engine = tmp_path / "docker"
    engine.write_text("#!/bin/sh\necho []; echo no such image >&2; exit 1\n")
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = arguments_of(["begin", "--by=ada@laptop", "--verb=rollback", "9.9.9"])
    with pytest.raises(Refused, match=r"release 9\.9\.9 is not complete"):
        answer_of(asked, settings)
    assert (Lock(settings.releases).current(), History(settings).releases()) == (None, [])


def watched(settings: Settings, name: str) -> dict[str, dict[str, dict[str, dict[str, object]]]]:
    return dict(yaml.safe_load((settings.edge / "dynamic" / name).read_text()))


def test_the_edge_says_itself_what_is_live(edge: Edge) -> None:
    assert edge.live() is None
    edge.switch(BLUE)
    assert edge.live() == BLUE
    edge.switch(GREEN)
    assert edge.live() == GREEN
    edge.switch_back(BLUE)
    assert edge.live() == BLUE


def test_the_way_back_needs_no_room_on_the_disk(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.switch(BLUE)
    edge.switch(GREEN)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("berth.release.edge.files.write", full)
    edge.switch_back(BLUE)
    assert edge.live() == BLUE


def test_operators_of_a_closed_site_go_back_with_everybody(edge: Edge, settings: Settings) -> None:
    edge.switch(BLUE)
    edge.close(BLUE, "key", [])
    edge.switch(GREEN)
    edge.switch_back(BLUE)
    routers = watched(settings, "operator.yml")["http"]["routers"]
    assert {str(router["service"]).rpartition("-")[2] for router in routers.values()} == {"blue"}


def test_a_trial_asks_for_a_secret_and_comes_before_everything_else(edge: Edge, settings: Settings) -> None:
    edge.switch(BLUE)
    [(header, secret)] = edge.enable_trial(GREEN).items()
    for router in watched(settings, "trial.yml")["http"]["routers"].values():
        assert str(router["rule"]).startswith(f"(Header(`{header}`, `{secret}`)) && ")
        assert int(str(router["priority"])) >= 30000
        assert str(router["service"]).endswith("-trial-green")
    assert (settings.edge / "dynamic/trial.yml").stat().st_mode & 0o777 == 0o640
    edge.end_trial()
    assert not (settings.edge / "dynamic/trial.yml").exists()
    assert edge.live() == BLUE


def test_a_release_while_the_site_is_closed_takes_operators_along(edge: Edge, settings: Settings) -> None:
    edge.switch(BLUE)
    edge.close(BLUE, "key", ["192.0.2.7"])
    edge.switch(GREEN)
    routers = watched(settings, "operator.yml")["http"]["routers"]
    assert {str(router["service"]).rpartition("-")[2] for router in routers.values()} == {"green"}
    assert edge.pass_header() == {"X-Berth-Operator": "key"}
    assert edge.maintenance_addresses() == ["192.0.2.7"]
    edge.open()
    assert edge.pass_header() == {}


def test_whoever_rolled_a_release_back_says_why_and_not_who_saw_it(settings: Settings) -> None:
    host = Host.of(settings)
    mine = host.lock.begin("release", "1.1", "ada@laptop", {})
    host.end(mine, Refused("It was too slow.", "berth-blue-auth_service-1", ["slow"]))
    assert Release(host, Recovery(host)).undo(mine.id, "Somebody else answers.") == {
        "changed": False,
        "reason": "It was too slow.",
        "guilty": "berth-blue-auth_service-1",
        "lines": ["slow"],
    }


def test_a_second_operator_is_told_who_is_at_it(settings: Settings) -> None:
    mine, theirs = Lock(settings.releases), Lock(settings.releases)
    mine.begin("release", "1.1", "ada@laptop", {})
    with mine.held(), pytest.raises(Refused, match=r"ada@laptop has been running release 1\.1 since"), theirs.held():
        pass


def test_a_lock_is_stale_once_its_connection_or_its_boot_is_gone(settings: Settings) -> None:
    run = Lock(settings.releases).begin("release", "1.1", "ada@laptop", {})
    started = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    assert is_alive(replace(run, session=f"{os.getpid()}:{started}"))
    assert not is_alive(replace(run, session=f"{os.getpid()}:1"))
    assert not is_alive(replace(run, session="", boot="another"))


def test_a_release_that_was_rolled_back_stays_marked_until_it_is_live_again(settings: Settings) -> None:
    lock, history = Lock(settings.releases), History(settings)

    def did(verb: str, before: str, after: str, result: str = "live") -> None:
        history.add(lock.begin(verb, after, "ada", {"release": before}), result)

    did("release", "", "1.0")
    did("release", "1.0", "1.1")
    did("rollback", "1.1", "1.0")
    assert set(history.rolled_back()) == {"1.1"}
    did("release", "1.0", "1.1", "failed")
    assert set(history.rolled_back()) == {"1.1"}
    did("release", "1.0", "1.1")
    assert history.rolled_back() == {}
    assert history.were_live() == ["1.1", "1.0"]


def test_a_line_that_a_full_disk_cut_short_hides_no_other(settings: Settings) -> None:
    lock, history = Lock(settings.releases), History(settings)
    history.add(lock.begin("release", "1.0", "ada", {}), "live")
    whole = settings.history.read_text()
    settings.history.write_text(whole + whole[:40])
    history.add(lock.begin("release", "1.1", "ada", {}), "live")
    assert history.were_live() == ["1.1", "1.0"]


def test_a_full_disk_is_named_with_the_room_there_is(settings: Settings) -> None:
    said = stuck(settings, OSError(errno.ENOSPC, "No space left on device")).reason
    assert re.fullmatch(rf"The disk is full: {settings.root}\S* has room for \d+ MiB and \d+ files\.", said)
    assert stuck(settings, OSError(errno.EIO, "broken")).reason == "This host cannot go on: [Errno 5] broken."


def test_a_release_that_is_live_stays_live_though_the_history_cannot_be_written(
    edge: Edge, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host.of(settings)
    edge.switch(GREEN)
    run = host.lock.begin("release", GREEN.release, "ada", vars(BLUE))
    run = host.lock.save(run, colour=GREEN.colour)
    monkeypatch.setattr(commands, "run", lambda *command, **_: CompletedProcess(command, 0, "", ""))

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "append", full)
    why = rf"Release {GREEN.release} is live, but the history could not be written"
    with pytest.raises(Refused, match=why):
        retire(host, run, "")
    with pytest.raises(Refused, match=why):
        Release(host, Recovery(host)).finish(run.id)
    assert host.lock.current() is None
    assert edge.live() == GREEN


@pytest.fixture
def watched_run(edge: Edge, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[Host, Run]:
    """A release that is live, after its watch, with nobody to hear from."""
    host = Host.of(replace(settings, watch_seconds=0, smoke_seconds=60))
    edge.switch(GREEN)
    run = host.lock.begin("release", GREEN.release, "ada", vars(BLUE))
    monkeypatch.setattr(watch, "compare", lambda *_: None)
    return host, host.lock.save(run, colour=GREEN.colour, phase="watch", session="1:1")


def test_a_watched_release_stays_though_its_controller_is_gone_and_the_history_says_so(
    watched_run: tuple[Host, Run],
) -> None:
    assert watch.watch_release(*watched_run) == "Not checked from outside: the controller had disconnected."


def test_a_watched_release_waits_for_its_controller_who_may_be_of_another_opinion(
    watched_run: tuple[Host, Run],
) -> None:
    host, run = watched_run
    there = replace(run, session="")
    Timer(1, unit.judge, (run.id, "It is not well from outside.")).start()
    with pytest.raises(Refused, match="not well from outside"):
        watch.watch_release(host, there)
    unit.judge(run.id, "")
    assert watch.watch_release(host, there) == ""


def test_a_release_whose_program_was_killed_is_nobody_elses_turn_though_its_controller_is_there(
    watched_run: tuple[Host, Run],
) -> None:
    host, run = watched_run
    recovery = Recovery(host)
    assert not recovery.is_waited_for(replace(run, session=""))
    assert recovery.is_waited_for(replace(run, session="", phase="begun"))


def test_whoever_follows_a_run_reads_how_it_ended(settings: Settings) -> None:
    host = Host.of(settings)
    release = Release(host, Recovery(host))
    unit.tell_ended("good", {"changed": True})
    assert release.finish("good") == {"changed": True}
    assert unit.judgement("good") == ""
    unit.tell_ended("bad", Refused("It does worse.", "berth-green-beat-1", ["last words"]))
    with pytest.raises(Refused, match="It does worse") as refused:
        release.finish("bad")
    assert (refused.value.culprit, refused.value.lines) == ("berth-green-beat-1", ["last words"])
    with pytest.raises(Refused, match="This run no longer holds the lock"):
        release.finish("unknown")


def test_an_objection_that_comes_too_late_says_so(watched_run: tuple[Host, Run]) -> None:
    host, run = watched_run
    release = Release(host, Recovery(host))
    # The program is at work, and ends well without having heard.
    with host.lock.held():
        objecting = ThreadPoolExecutor().submit(release.undo, run.id, "It is not well from outside.")
        poll(lambda: unit.judgement(run.id), 10, "the objection")
        host.end(run, {"changed": True})
    assert "stays live" in objecting.result(timeout=10)["note"]


# --- Commands ---


def test_a_command_that_takes_too_long_has_failed_and_says_so() -> None:
    done = commands.run("sh", "-c", "echo begun >&2; exec sleep 60", seconds=1)
    assert done.returncode != 0
    assert commands.last_lines(done) == ["begun", "", "timed out after 1 s"]


def test_a_command_is_given_its_input_and_environment() -> None:
    assert commands.run("sh", "-c", 'cat; echo "$COLOUR"', given="in ", COLOUR="blue").stdout == "in blue\n"


def test_a_command_in_the_background_shows_its_output_and_ends_with_its_block() -> None:
    with commands.Background(["sh", "-c", "echo $COLOUR; exec sleep 60"], {"COLOUR": "blue"}) as command:
        poll(lambda: command.lines() or None, 10, "its output")
        assert (command.returncode(), command.lines()) == (None, ["blue"])
    assert command.returncode() == -signal.SIGKILL


# --- Whose fault it is ---

ENDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, float("inf"))
ME, LOGIN = "GET /api/users/me", "POST /api/auth/login"


def kind(requests: int, ms: float = 3, failed: int = 0, refused: int = 0) -> counters.Counted:
    """So many requests of one kind, each so slow."""
    buckets = {end: float(requests if ms / 1000 <= end else 0) for end in ENDS}
    return counters.Counted(requests, failed, refused, requests * ms / 1000, buckets)


def during(seconds: float, lost: float = 0, **services: dict[str, counters.Counted]) -> counters.Seen:
    """What services counted in so many seconds."""
    return counters.Seen(seconds, {name: counters.Service(routes, lost) for name, routes in services.items()})


def late(seen: counters.Seen, accepted: float, failed: float) -> counters.Seen:
    """So many of auth_service's requests had their work done after the answer, which failed so often."""
    seen.services["auth_service"].accepted, seen.services["auth_service"].late_failures = accepted, failed
    return seen


BEFORE = during(40, user_service={ME: kind(2400)}, auth_service={"GET /api/auth/me": kind(2400), LOGIN: kind(4, 40)})
late(BEFORE, accepted=40, failed=0)
# As much as it serves takes a tenth of a processor.
BEFORE.edge = 4
FINE = kind(600)


@pytest.mark.parametrize(
    ("after", "worse"),
    {
        "nothing": (during(10, user_service={ME: FINE}), ""),
        "few errors": (during(10, user_service={ME: kind(1000, failed=5)}), ""),
        "late-errors of the benchmark": (
            during(2, user_service={ME: kind(120, failed=110)}),
            "110 of 120 requests to user_service failed since the switch (91.7 %, before 0.0 %).",
        ),
        "late-slow of the benchmark": (
            # Who waits for one answer asks less.
            during(3, user_service={ME: kind(30, ms=404)}),
            "p50 latency of requests to user_service is",
        ),
        "errors of the service that is asked less": (
            during(10, user_service={ME: kind(30, failed=10)}, auth_service={"GET /api/auth/me": kind(3000)}),
            "10 of 30 requests to user_service failed",
        ),
        "errors of services that are asked little": (
            during(10, user_service={ME: kind(15, failed=10)}, auth_service={"GET /api/auth/me": kind(15, failed=10)}),
            "20 of 30 requests failed",
        ),
        "too few requests": (during(10, user_service={ME: kind(5, failed=5)}), ""),
        "sign-ups that all fail after their answer": (
            late(during(10, user_service={ME: FINE}, auth_service={LOGIN: kind(5000)}), accepted=3, failed=3),
            "auth_service answered 3 requests since the switch whose work was still to be done, and 3 times that work",
        ),
        "mails about changed passwords that all fail": (
            late(during(10, auth_service={LOGIN: kind(30)}), accepted=0, failed=4),
            "auth_service answered 0 requests",
        ),
        "one sign-up of many that fails after its answer": (
            late(during(10, auth_service={LOGIN: kind(600)}), accepted=400, failed=4),
            "",
        ),
        "too few failures after an answer": (late(during(10, auth_service={LOGIN: kind(600)}), 2, 2), ""),
        "a crashing worker": (during(10, lost=1, user_service={ME: FINE}), "user_service has lost 1 worker processes"),
        # What one client can do alone: bodies that never come, resets and bad chunks are 4xx of no length.
        "a flood of broken requests": (
            during(10, user_service={ME: FINE}, auth_service={LOGIN: kind(5000, ms=0.3)}),
            "",
        ),
        "a flood of sign-ins that is refused": (
            during(10, auth_service={"GET /api/auth/me": kind(600, 250), LOGIN: kind(900, 400, refused=400)}),
            "",
        ),
        "a flood of sign-ins that makes everything slow": (
            during(10, auth_service={"GET /api/auth/me": kind(600, 250), LOGIN: kind(400, 400)}),
            "",
        ),
        "a flood of sign-ins that takes the processor from others": (
            during(10, user_service={ME: kind(300, 250)}, auth_service={LOGIN: kind(400, 200)}),
            "",
        ),
        "one that is refused and takes the processor from others": (
            during(10, user_service={ME: kind(300, 250)}, auth_service={LOGIN: kind(10, 200, refused=9)}),
            "",
        ),
        "a flood that ends at the edge": (
            replace(during(10, user_service={ME: kind(300, 250)}), edge=9),
            "",
        ),
        "a flood of what was never asked before": (
            during(10, user_service={ME: kind(600, 250), "PATCH /api/users/me": kind(600, 250)}),
            "",
        ),
    }.values(),
)
def test_a_release_is_judged_by_what_its_services_count_and_not_by_what_a_client_can_cause(
    settings: Settings, after: counters.Seen, worse: str
) -> None:
    limits = replace(settings, watch_requests=20, watch_errors_percent=1.0, slower_factor=3.0, slower_ms=100)
    said = watch.verdict(BEFORE, after, limits)
    assert said.startswith(worse) if worse else said == ""


def test_what_services_serve_is_what_is_read() -> None:
    app = new_app("test", "/api", "1", no_lifespan)

    @app.get("/{outcome}")
    async def end(outcome: str) -> None:
        match outcome:
            case "broken":
                raise RuntimeError("broken")
            case "full":
                raise Overloaded("Too many at once.")
            case "slow":
                await asyncio.sleep(0.3)

    client = TestClient(app, raise_server_exceptions=False)
    before = counters.Seen(1, {"user_service": counters.parse(client.get("/metrics").text)})
    for outcome in ("fine", "fine", "broken", "full", "slow"):
        client.get(f"/{outcome}")
    for unjudged in ("/healthz", "/api/openapi.json", "/metrics"):
        client.get(unjudged)
    after = counters.Seen(2, {"user_service": counters.parse(client.get("/metrics").text)})
    # The process may have counted for other tests.
    routes = after.since(before).services["user_service"].routes
    [(route, found)] = [(name, counted) for name, counted in routes.items() if counted.requests]
    assert route == "GET /{outcome}"
    assert (found.requests, found.failed, found.refused) == (5, 1, 1)
    assert 0.3 <= found.seconds < 1
    assert found.buckets[float("inf")] - found.buckets[0.25] == 1
    lost = "# TYPE worker_processes_lost_total counter\nworker_processes_lost_total 2.0\n"
    assert counters.parse(lost).lost == 2


def test_what_was_counted_survives_the_record_and_what_the_edge_counted_is_not_taken_for_it() -> None:
    written = json.loads(json.dumps(BEFORE.plain()))
    assert counters.Seen.read(written) == BEFORE
    edge = {"requests": 9, "failed": 9, "buckets": {"0.1": 3, "Infinity": 9}}
    assert counters.Seen.read(edge) == counters.Seen.read({}) == counters.Seen()
    for service in written["services"].values():
        del service["accepted"], service["late_failures"]
    assert counters.Seen.read(written).services["auth_service"].late_failed_percent == 0
    # The program before this one would take these for its own.
    assert not {"requests", "failed", "buckets"} & set(written)


@dataclass
class Colour:
    """A colour as the program meets it: docker by its answers, services by their sockets."""

    host: Host
    run: Run
    folder: Path
    servers: dict[str, ThreadingHTTPServer]
    serves: dict[str, str]
    silence: watch.Silence = field(default_factory=watch.Silence)

    def runs(self, *services: str, state: str = "Up 2 minutes (healthy)", began: str = "09:00") -> None:
        lines = [f"berth-green-{service}-1|running|{state}||berth-green|{service}|" for service in services]
        network = {"berth_edge": {"IPAddress": "127.0.0.1"}}
        described = [
            {
                "Name": f"/berth-green-{service}-1",
                "State": {"StartedAt": began, "Running": True},
                "RestartCount": 0,
                "NetworkSettings": {"Networks": network},
            }
            for service in services
        ]
        (self.folder / "listed").write_text("\n".join(lines) + "\n")
        (self.folder / "described").write_text(json.dumps(described))

    def compare(self) -> str:
        try:
            watch.compare(self.host, self.run, self.silence)
        except Refused as refused:
            return refused.reason
        return ""


COUNTS = 'http_requests_total{{method="GET",route="/api/users/me",status="200"}} {}\n'


@pytest.fixture
def colour(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Colour]:
    engine = tmp_path / "docker"
    engine.write_text(f"#!/bin/sh\ncase $1 in ps) cat {tmp_path}/listed;; inspect) cat {tmp_path}/described;; esac\n")
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    serves = {"auth_service": COUNTS.format(10), "user_service": COUNTS.format(10), "frontend": ""}
    servers = {}
    routes = settings.releases / "routes.yml"
    for service in serves:

        class Answers(BaseHTTPRequestHandler):
            name = service

            def do_GET(self) -> None:
                text = serves[self.name]
                counts = self.path == "/metrics" and text
                # Of nginx, a page for whatever is asked.
                self.send_response(int(text[:3]) if text[:3].isdigit() else 200)
                self.end_headers()
                self.wfile.write(text.encode() if counts else b"<html></html>")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        servers[service] = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        Thread(target=servers[service].serve_forever, daemon=True).start()
        port = servers[service].server_port
        text = re.sub(rf"(http://{service}-@COLOUR@:)\d+", rf"\g<1>{port}", routes.read_text())
        routes.write_text(text)
    host = Host.of(replace(settings, watch_requests=20, watch_errors_percent=1.0))
    made = Colour(host, host.lock.begin("release", GREEN.release, "ada", vars(BLUE)), tmp_path, servers, serves)
    made.runs(*serves)
    start = watch.counts(host, "green").plain()
    made.run = host.lock.save(made.run, colour="green", start=start, counted=start)
    yield made
    for server in servers.values():
        server.shutdown()
        server.server_close()


def test_a_colour_that_is_well_is_left_alone(colour: Colour) -> None:
    assert set(colour.run.start["services"]) == {"auth_service", "user_service"}
    assert colour.compare() == ""


def test_a_service_where_nobody_listens_is_at_fault_at_once(colour: Colour) -> None:
    colour.servers["frontend"].shutdown()
    colour.servers["frontend"].server_close()
    assert "frontend does not listen on port" in colour.compare()


@pytest.mark.parametrize(
    ("service", "serves", "how"),
    [("user_service", "", "serves no metrics"), ("frontend", "502", "answers / with 502")],
)
def test_a_service_that_stays_silent_is_at_fault_and_one_that_is_slow_once_is_not(
    colour: Colour, monkeypatch: pytest.MonkeyPatch, service: str, serves: str, how: str
) -> None:
    fine, colour.serves[service] = colour.serves[service], serves
    assert colour.compare() == ""
    later = time.time() + watch.SILENT_SECONDS
    with monkeypatch.context() as patch:
        patch.setattr(clock, "time", lambda: later)
        assert f"{service} {how}" in colour.compare()
    colour.serves[service] = fine
    assert colour.compare() == ""
    assert not colour.silence.since


def test_a_service_that_was_started_again_or_is_gone_is_at_fault(colour: Colour) -> None:
    colour.runs(*colour.serves, began="09:01")
    assert "exited and was restarted" in colour.compare()
    colour.runs("auth_service", "user_service")
    assert "berth-green-frontend-1 is gone" in colour.compare()
    colour.runs(*colour.serves, state="Up 1 minute (unhealthy)")
    assert "is unhealthy" in colour.compare()


def test_what_services_count_since_the_switch_is_held_against_the_release(colour: Colour) -> None:
    colour.serves["user_service"] = COUNTS.format(100) + COUNTS.format(50).replace("200", "499")
    assert colour.compare() == ""
    colour.serves["user_service"] += COUNTS.format(50).replace("200", "500")
    assert "50 of 190 requests to user_service failed since the switch" in colour.compare()


def test_a_release_whose_sign_ups_all_fail_after_the_answer_is_rolled_back(colour: Colour) -> None:
    signed_up = 'http_requests_total{method="POST",route="/api/auth/register",status="202"} '
    failures = "auth_work_after_answer_failures_total "
    colour.serves["auth_service"] = f"{COUNTS.format(10)}{signed_up}3.0\n{failures}0.0\n"
    assert colour.compare() == ""
    colour.serves["auth_service"] = f"{COUNTS.format(10)}{signed_up}3.0\n{failures}3.0\n"
    assert "auth_service answered 3 requests since the switch whose work was still to be done" in colour.compare()


# --- The probe ---


@dataclass
class Answers:
    """A site that answers in this order, and with the last one from then on."""

    answers: list[tuple[int, str]]
    asked: int = 0
    port: int = 0


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    made = Answers([])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = made.answers[min(made.asked, len(made.answers) - 1)]
            made.asked += 1
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815  # http.server's name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    def connect(_: Visit, seconds: float) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", made.port, timeout=seconds)
        connection.connect()
        return connection

    # Without TLS, which is not what is tried here.
    monkeypatch.setattr(Visit, "_connect", connect)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_port
        Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


OVERLOADED = (503, '{"code": "overloaded"}')


def test_a_probe_that_is_refused_by_load_comes_back(site: Answers) -> None:
    site.answers = [OVERLOADED, (429, "{}"), OVERLOADED, (200, "fine")]
    assert Visit("site.test").ask("GET", "/") == (200, b"fine")
    assert site.asked == 4


def test_a_dependency_that_is_away_is_no_refusal_by_load(site: Answers) -> None:
    site.answers = [(503, '{"code": "unavailable"}')]
    assert Visit("site.test").ask("GET", "/")[0] == 503
    assert site.asked == 1


@pytest.mark.parametrize(
    ("answers", "seconds", "code", "says"),
    [
        ([(500, "broken")], 30, 1, "Signing in returned 500"),
        # Somebody floods the site from before the visit until after it.
        ([OVERLOADED], 2, 0, "was refused under load until the time limit"),
    ],
)
def test_the_look_from_outside_blames_a_release_for_what_shows_thrice_and_never_for_load(
    site: Answers,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: list[tuple[int, str]],
    seconds: float,
    code: int,
    says: str,
) -> None:
    site.answers = answers
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps({"domain": "site.test", "seconds": seconds})))
    assert probe.main() == code
    assert says in capsys.readouterr().out
    assert site.asked >= probe.TRIES


def test_nobody_knows_the_probe_accounts_address_once_it_is_made(
    edge: Edge, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong guesses at its password would have it refused, and with it every release."""
    account = ProbeAccount(settings, edge)
    # Until then it is the one that programs before this one made.
    assert account.email == "release-probe@berth.invalid"
    given: list[dict[str, str]] = []

    def execute(*_: object, given_to: list[dict[str, str]] = given, **more: str) -> CompletedProcess[str]:
        given_to.append(json.loads(more["given"]))
        return CompletedProcess([], 0, "", "")

    monkeypatch.setattr(Side, "execute", execute)
    side = Side(settings, "1.1", "green")
    email = account.make(side)
    assert re.fullmatch(r"release-probe-[0-9a-f]{16}@berth\.invalid", email)
    assert account.email == email == account.make(side)
    assert given == [{"email": email, "password": account.password}] * 2


def test_layers_that_the_host_has_do_not_travel(tmp_path: Path) -> None:
    namespace: dict[str, object] = {"__name__": "lean_archive"}
    exec((ROLE / "files/lean_archive.py").read_text(), namespace)  # noqa: S102  # it is a program, not a package
    archive = tmp_path / "images.tar"
    members = {
        "manifest.json": json.dumps([{"Config": "config", "Layers": ["one", "two"]}]),
        "config": json.dumps({"rootfs": {"diff_ids": ["sha256:1", "sha256:2"]}}),
        "one": "x" * 5000,
        "two": "y",
    }
    with tarfile.open(archive, "w") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, BytesIO(text.encode()))
    namespace["main"](archive, '["sha256:1", "sha256:9"]\n["sha256:2"]\n')  # type: ignore[operator]
    with tarfile.open(archive) as tar:
        assert set(tar.getnames()) == {"manifest.json", "config", "two"}


def test_only_who_sends_this_hosts_key_is_shown_which_release_answers(edge: Edge, settings: Settings) -> None:
    edge.switch(BLUE)
    edge.enable_trial(GREEN)
    edge.close(BLUE, "key", ["203.0.113.9"])
    [(header, key)] = edge.release_header().items()
    for name in ("release.yml", "trial.yml", "operator.yml"):
        routers = watched(settings, name)["http"]["routers"].values()
        shows = [any(str(each).startswith("release") for each in router["middlewares"]) for router in routers]  # type: ignore[attr-defined]
        asks = [str(router["rule"]).endswith(f" && Header(`{header}`, `{key}`)") for router in routers]
        assert shows == asks
        assert shows.count(True) == len(shows) / 2
    assert (settings.releases / "release-key").stat().st_mode & 0o077 == 0
