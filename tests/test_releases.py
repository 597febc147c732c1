"""What berth-release decides without a host: who holds the lock, what is worse than before, which routes there are."""

from __future__ import annotations

import errno
import json
import os
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Timer

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader

from berth_release import unit, watch
from berth_release.deploy import Deploy
from berth_release.edge import Edge, Live
from berth_release.records import Records, Run, is_alive
from berth_release.settings import Refused, Settings, stuck
from tests.support import ROOT, poll

ROLE = ROOT / "roles/stack"
BLUE = Live("1.0", "blue", "f1")
GREEN = Live("1.1", "green", "f2")


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
    jinja = Environment(loader=FileSystemLoader(ROLE / "templates"), autoescape=False)  # noqa: S701  # YAML, not HTML
    jinja.filters["to_json"] = json.dumps
    values = {"stack_domain": "site.test", "stack_api_middlewares": [], "stack_maintenance_retry_after": 120}
    for name in ("routes.yml", "maintenance.yml"):
        (settings.releases / name).write_text(jinja.get_template(f"opt/berth/releases/{name}.j2").render(values))
    return settings


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run and its controller talk to each other."""
    monkeypatch.setattr(unit, "FOLDER", tmp_path / "run")


@pytest.fixture
def edge(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Edge:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    return Edge(settings)


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

    monkeypatch.setattr("berth_release.edge.write", full)
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
    [(header, secret)] = edge.try_out(GREEN).items()
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


def test_who_led_a_release_back_says_why_not_who_saw_it_being_led_back(edge: Edge, settings: Settings) -> None:
    records = Records(settings)
    mine = records.begin("release", "1.1", "ada@laptop", {})
    unit.tell_ended(mine.id, Refused("It was too slow.", "berth-blue-auth_service-1", ["slow"]))
    records.end()
    assert Deploy(settings, edge, records).undo(mine.id, "Somebody else answers.") == {
        "changed": False,
        "reason": "It was too slow.",
        "guilty": "berth-blue-auth_service-1",
        "lines": ["slow"],
    }


def test_a_second_operator_is_told_who_is_at_it(settings: Settings) -> None:
    mine, theirs = Records(settings), Records(settings)
    mine.begin("release", "1.1", "ada@laptop", {})
    with mine.guarded(), pytest.raises(Refused, match=r"ada@laptop has been at release 1\.1 since"), theirs.guarded():
        pass


def test_a_lock_is_stale_once_its_connection_or_its_boot_is_gone(settings: Settings) -> None:
    who = Records(settings).begin("release", "1.1", "ada@laptop", {})
    started = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    assert is_alive(replace(who, session=f"{os.getpid()}:{started}"))
    assert not is_alive(replace(who, session=f"{os.getpid()}:1"))
    assert not is_alive(replace(who, session="", boot="another"))


def test_a_release_that_was_rolled_back_stays_marked_until_it_is_live_again(settings: Settings) -> None:
    records = Records(settings)

    def did(verb: str, before: str, after: str, result: str = "live") -> None:
        records.remember(records.begin(verb, after, "ada", {"release": before}), result)

    did("release", "", "1.0")
    did("release", "1.0", "1.1")
    did("rollback", "1.1", "1.0")
    assert set(records.rolled_back()) == {"1.1"}
    did("release", "1.0", "1.1", "failed")
    assert set(records.rolled_back()) == {"1.1"}
    did("release", "1.0", "1.1")
    assert records.rolled_back() == {}
    assert records.were_live() == ["1.1", "1.0"]


def test_a_line_that_a_full_disk_cut_short_hides_no_other(settings: Settings) -> None:
    records = Records(settings)
    records.remember(records.begin("release", "1.0", "ada", {}), "live")
    whole = settings.history.read_text()
    settings.history.write_text(whole + whole[:40])
    records.remember(records.begin("release", "1.1", "ada", {}), "live")
    assert records.were_live() == ["1.1", "1.0"]


def test_a_full_disk_is_named_with_the_room_there_is(settings: Settings) -> None:
    said = stuck(settings, OSError(errno.ENOSPC, "No space left on device")).reason
    assert re.fullmatch(rf"The disk is full: {settings.root}\S* has room for \d+ MiB and \d+ files\.", said)
    assert stuck(settings, OSError(errno.EIO, "broken")).reason == "This host cannot go on: [Errno 5] broken."


def test_a_release_that_is_live_stays_live_though_the_history_cannot_be_written(
    edge: Edge, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(settings)
    deploy = Deploy(settings, edge, records)
    edge.switch(GREEN)
    who = records.save(records.begin("release", GREEN.release, "ada", vars(BLUE)), colour=GREEN.colour)
    monkeypatch.setattr(deploy, "_retire", lambda _: None)
    # A folder in its place, as no disk can be filled for a test of this size.
    settings.history.mkdir()
    why = rf"Release {GREEN.release} is live, but the history does not say so"
    with pytest.raises(Refused, match=why):
        deploy._end(who, "")
    with pytest.raises(Refused, match=why):
        deploy.finish(who.id)
    assert records.current() is None
    assert edge.live() == GREEN

    settings.history.rmdir()
    monkeypatch.setattr("berth_release.deploy.containers", lambda _: [])
    assert deploy._nothing_to_do(who, GREEN)["changed"]
    assert records.were_live() == [GREEN.release]
    assert not deploy._nothing_to_do(who, GREEN)["changed"]


@pytest.fixture
def watched_run(edge: Edge, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[Deploy, Run]:
    """A release that everybody has been led to, after its watch, with nobody to hear from."""
    records = Records(settings)
    edge.switch(GREEN)
    who = records.begin("release", GREEN.release, "ada", vars(BLUE))
    who = records.save(who, colour=GREEN.colour, phase="watch", session="1:1")
    monkeypatch.setattr("berth_release.deploy.edge_addresses", list)
    monkeypatch.setattr(Deploy, "_compare", lambda *_: None)
    return Deploy(replace(settings, watch_seconds=0, smoke_seconds=60), edge, records), who


def test_a_watched_release_stays_though_its_controller_is_gone_and_the_history_says_so(
    watched_run: tuple[Deploy, Run],
) -> None:
    deploy, who = watched_run
    assert deploy._watch(who) == "Nobody looked from outside: its controller was gone."


def test_a_watched_release_waits_for_its_controller_who_may_be_of_another_opinion(
    watched_run: tuple[Deploy, Run],
) -> None:
    deploy, who = watched_run
    there = replace(who, session="")
    Timer(1, unit.judge, (who.id, "It is not well from outside.")).start()
    with pytest.raises(Refused, match="not well from outside"):
        deploy._watch(there)
    unit.judge(who.id, "")
    assert deploy._watch(there) == ""


def test_a_release_whose_program_was_killed_is_nobody_elses_turn_though_its_controller_is_there(
    watched_run: tuple[Deploy, Run],
) -> None:
    deploy, who = watched_run
    assert not deploy._is_waited_for(replace(who, session=""))
    assert deploy._is_waited_for(replace(who, session="", phase="begun"))


def test_whoever_follows_a_run_reads_how_it_ended(settings: Settings, edge: Edge) -> None:
    deploy = Deploy(settings, edge, Records(settings))
    unit.tell_ended("good", {"changed": True})
    assert deploy.finish("good") == {"changed": True}
    assert unit.judgement("good") == ""
    unit.tell_ended("bad", Refused("It does worse.", "berth-green-beat-1", ["last words"]))
    with pytest.raises(Refused, match="It does worse") as refused:
        deploy.finish("bad")
    assert (refused.value.guilty, refused.value.lines) == ("berth-green-beat-1", ["last words"])
    with pytest.raises(Refused, match="This run has lost its lock"):
        deploy.finish("unknown")


def test_an_objection_that_comes_too_late_says_so(watched_run: tuple[Deploy, Run]) -> None:
    deploy, who = watched_run
    # The program is at work, and ends well without having heard.
    with deploy.records.guarded():
        objecting = ThreadPoolExecutor().submit(deploy.undo, who.id, "It is not well from outside.")
        poll(lambda: unit.judgement(who.id), 10, "the objection")
        unit.tell_ended(who.id, {"changed": True})
        deploy.records.end()
    assert "stayed live" in objecting.result(timeout=10)["note"]


def metrics(colour: str, fine: int, failed: int, slow: int) -> str:
    labels = f'service="auth_service-{colour}@file"'
    return (
        f'traefik_service_requests_total{{code="200",method="GET",protocol="http",{labels}}} {fine}\n'
        f'traefik_service_requests_total{{code="502",method="GET",protocol="http",{labels}}} {failed}\n'
        f'traefik_service_request_duration_seconds_bucket{{code="200",{labels},le="0.1"}} {fine - slow}\n'
        f'traefik_service_request_duration_seconds_bucket{{code="200",{labels},le="1.2"}} {fine}\n'
        f'traefik_service_request_duration_seconds_bucket{{code="200",{labels},le="+Inf"}} {fine}\n'
    )


@pytest.mark.parametrize(
    ("fine", "failed", "slow", "worse"),
    [
        (1000, 0, 0, ""),
        (1000, 5, 0, ""),
        (900, 100, 0, "100 of 1000 requests failed"),
        (1000, 0, 900, "50% of the requests take up to"),
        (5, 5, 5, ""),
    ],
)
def test_only_what_got_worse_is_held_against_a_release(
    settings: Settings, fine: int, failed: int, slow: int, worse: str
) -> None:
    limits = replace(settings, watch_requests=20, watch_errors_percent=1.0, slower_factor=3.0, slower_ms=100)
    before = watch.parse(metrics("blue", 1000, 0, 0), "blue")
    after = watch.parse(metrics("blue", 1, 1, 1) + metrics("green", fine, failed, slow), "green")
    said = watch.verdict(before, after, limits)
    assert said.startswith(worse) if worse else said == ""


def test_what_is_counted_of_a_trial_is_left_out() -> None:
    trial = metrics("green", 50, 0, 0).replace("auth_service-green", "auth_service-trial-green")
    assert watch.parse(trial + metrics("green", 7, 1, 0), "green").requests == 8


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
