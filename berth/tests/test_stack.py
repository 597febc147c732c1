"""What the compose file says of the stack, and what is refused before it does harm."""

from __future__ import annotations

import json
import re
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from berth.host import commands
from berth.host.live import ROUTES, Live
from berth.host.refused import Refused
from berth.stack import databases, kept
from berth.stack.description import UNKNOWN, Description, read
from berth.stack.kept import Kept
from berth.tests import compose

PREFIX = "localhost/berth"


def described(text: str = compose.TEXT) -> Description:
    return read(json.loads(compose.resolved(text, RELEASE="1.4", COLOUR="any")))


def service(**labels: str) -> dict[str, Any]:
    named = {f"berth.{name}": value for name, value in labels.items()}
    return {"image": "x/app:1", "profiles": ["release"], "user": "1:1", "labels": named}


def test_the_projects_own_compose_file_describes_it() -> None:
    stack = described()
    # It may have been given more services.
    assert set(stack.names) >= {"auth_service", "user_service", "celery_worker", "beat", "frontend"}
    routes = {"/api/auth/": "auth_service", "/api/users/": "user_service", "/": "frontend"}
    assert routes.items() <= stack.routes.items()
    assert {one.name for one in stack.checks} >= {"auth_service", "celery_worker"}
    assert not stack.get("frontend").writes
    for name in ("auth_service", "user_service", "celery_worker"):
        assert stack.get(name).metrics == (8000, "/metrics")
        assert stack.get(name).writes
    # One image for two services.
    images = set(stack.names) - {"beat"}
    assert stack.images(PREFIX, "1.4") == {f"{PREFIX}/{name}:1.4": name for name in images}
    assert stack.images(PREFIX, "1.3") == stack.images("elsewhere", "1.4") == {}
    assert stack.get("celery_worker").user == "10003:10003"


def test_the_longest_route_says_who_serves_a_path() -> None:
    stack = described()
    paths = {"/api/auth/me": "auth_service", "/api/users/me": "user_service", "/assets/app.js": "frontend", "": ""}
    assert {path: stack.serves(path) for path in paths} == paths
    assert Description().serves("/") == ""


def test_a_release_without_labels_writes_with_all_its_services_and_has_no_check() -> None:
    stack = described(compose.without_labels())
    assert set(stack.names) == set(described().names)
    assert all(one.writes for one in stack.services)
    assert (stack.routes, stack.checks) == ({}, [])
    assert stack.images(PREFIX, "1.4") == described().images(PREFIX, "1.4")
    assert not stack.has("flower")


def test_of_what_cannot_be_read_every_container_is_a_service_that_writes() -> None:
    assert UNKNOWN.has("anything")
    assert UNKNOWN.get("anything").writes


def test_several_routes_and_metrics_on_a_port_of_their_own() -> None:
    [one] = read({"services": {"api": service(route="/a, /b/", port="80", metrics=":9100/figures")}}).services
    assert (one.routes, one.metrics) == (("/a", "/b/"), (9100, "/figures"))


@pytest.mark.parametrize(
    ("services", "says"),
    [
        (
            {"api": service(rute="/")},
            "berth.rute of service api is no label that Berth knows. Did you mean berth.route",
        ),
        ({"api": service(route="/")}, "berth.route of service api needs a port: set berth.port."),
        ({"api": service(route="api", port="80")}, 'berth.route of service api is "api": a path begins with /'),
        ({"api": service(port="http")}, 'berth.port of service api is "http": a port is a number from 1 to 65535.'),
        ({"api": service(port="70000")}, 'berth.port of service api is "70000"'),
        ({"api": service(writes="yes")}, 'berth.writes of service api is "yes": write "true" or "false".'),
        ({"api": service(check="")}, 'berth.check of service api is "": a command is needed.'),
        ({"api": service(check="sh -c 'x")}, "berth.check of service api is"),
        (
            {"api": service(metrics="/metrics")},
            'berth.metrics of service api needs a port: set berth.port, or write ":PORT/',
        ),
        (
            {"api": service(metrics="metrics")},
            'berth.metrics of service api is "metrics": write a path, or :PORT/PATH.',
        ),
        ({"api": service(cookies="no")}, 'berth.cookies of service api is "no": write "true" or "false".'),
        (
            {"api": service(route="/a", port="1", limits="/a 0 1")},
            'berth.limits of service api is "/a 0 1": write PATH AVERAGE BURST',
        ),
        (
            {"api": service(route="/a", port="1", limits="/b 1 1")},
            "berth.limits of service api has /b, which is below none of its routes.",
        ),
        ({"api": service(maintenance="/x")}, "berth.maintenance of service api needs a route"),
        (
            {"api": service(route="/", port="1", maintenance="x.html")},
            'berth.maintenance of service api is "x.html": write the path of a page',
        ),
        (
            {
                "a": service(route="/a", port="1", maintenance="/x"),
                "b": service(route="/b", port="1", maintenance="/x"),
            },
            "berth.maintenance of service b is set although a has the page.",
        ),
        ({"api": service(secrets=" ")}, 'berth.secrets of service api is " ": a value is needed.'),
        (
            {"a": service(route="/x", port="1"), "b": service(route="/x", port="2")},
            "berth.route of service b is /x, which is routed to a already.",
        ),
        (
            {"a": service(), "b": {**service(writes="true"), "image": "x/other:1"}},
            "user of service b is 1, as that of a: each could read the other's secrets.",
        ),
        (
            {"a": {**service(check="true"), "profiles": ["tools"]}},
            "berth.check of service a is for services of profile release.",
        ),
    ],
)
def test_a_label_that_means_nothing_is_refused_with_its_service_and_key(services: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"docker-compose.prod.yml: {says}")):
        read({"services": services})


DUMPED = {"berth.backup": "pg_dump --format=custom app", "berth.restore": "sh -c 'pg_restore --dbname=$$PGDATABASE'"}


def database(profile: str = "platform", **changed: str | None) -> dict[str, Any]:
    labels = {**DUMPED, **{f"berth.{key}": value for key, value in changed.items()}}
    return {
        "profiles": [profile],
        "user": "999:999",
        "labels": {key: value for key, value in labels.items() if value is not None},
    }


def test_a_database_says_how_it_is_dumped_and_restored() -> None:
    [one] = databases.read({"services": {"postgres": database(), "mongo": {"profiles": ["platform"]}}})
    assert one.backup == ("pg_dump", "--format=custom", "app")
    assert one.restore == ("sh", "-c", "pg_restore --dbname=$PGDATABASE")


@pytest.mark.parametrize(
    ("name", "service", "says"),
    [
        ("files", database(), "berth.backup of service files needs another name of the service"),
        ("postgres", database(restore=None), "berth.backup of service postgres needs berth.restore, too"),
        ("postgres", database(backup=None), "berth.restore of service postgres needs berth.backup, too"),
        ("web", database("release"), "berth.backup of service web is for services of profile platform."),
        ("mongo", database(), "berth.backup of service mongo is not needed: Berth backs it up by itself."),
        ("postgres", database(backup="pg_dump ${NAME}"), "berth.backup of service postgres has a variable of compose"),
        ("postgres", database(restore="sh -c 'x"), 'berth.restore of service postgres is "sh -c \'x": No closing'),
        ("postgres", database(restore=" "), "berth.restore of service postgres is"),
    ],
)
def test_a_dump_that_could_not_be_made_or_restored_is_refused(name: str, service: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"docker-compose.prod.yml: {says}")):
        read({"services": {name: service}})


def test_two_services_of_one_image_may_have_one_user_and_platform_services_are_not_looked_at() -> None:
    platform = {"profiles": ["platform"], "user": "999:999", "image": "x"}
    both = {"a": service(writes="true"), "b": service(), "m": platform, "r": {**platform, "image": "y"}}
    assert read({"services": both}).names == ["a", "b"]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Answer compose; return with which variables it was asked."""
    seen: list[dict[str, Any]] = []

    def run(*command: str, **environment: Any) -> CompletedProcess[str]:
        seen.append(environment)
        return CompletedProcess(command, *compose.answer(list(command), environment))

    monkeypatch.setattr(commands, "run", run)
    folder = tmp_path / "releases/1.4"
    folder.mkdir(parents=True)
    (folder / "docker-compose.prod.yml").write_text(compose.TEXT)
    (folder / "image_prefix").write_text("registry.test/app\n")
    kept.forget()
    return seen


def test_a_kept_release_is_read_once_with_its_own_prefix(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    release = Kept(tmp_path, "1.4", "localhost/berth")
    assert release.description.images(release.prefix, "1.4")
    assert release.description is Kept(tmp_path, "1.4", "localhost/berth").description
    assert [one["IMAGE_PREFIX"] for one in asked] == ["registry.test/app"]
    assert {"flower", "traefik_a"}.isdisjoint(json.loads(release.started_with))


@pytest.mark.usefixtures("asked")
def test_the_services_are_written_for_programs_that_may_not_read_the_environment(tmp_path: Path) -> None:
    assert kept.services_of(tmp_path, "1.4") == {}
    Kept(tmp_path, "1.4").write_services()
    written = {"auth_service": True, "user_service": True, "celery_worker": True, "beat": False, "frontend": False}
    # The application may have been given more.
    assert kept.services_of(tmp_path, "1.4").items() >= written.items()


def test_a_release_that_is_not_kept_is_refused_and_of_a_live_one_nothing_is_known(
    tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    with pytest.raises(Refused, match=r"so release 9\.9 is not complete"):
        _ = Kept(tmp_path, "9.9").description
    assert kept.live(tmp_path) is UNKNOWN
    (tmp_path / ROUTES).parent.mkdir(parents=True)
    (tmp_path / ROUTES).write_text(Live("9.9", "blue").mark)
    assert kept.live(tmp_path) is UNKNOWN
    (tmp_path / ROUTES).write_text(Live("1.4", "blue").mark)
    assert "auth_service" in kept.live(tmp_path).names
    assert len(asked) == 1
