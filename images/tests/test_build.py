"""What build.py decides; that the images build and run is shown by whoever uses them."""

import os
from pathlib import Path

import pytest

import build

MONITORING = ["prometheus", "alertmanager", "node_exporter", "blackbox_exporter", "redis_exporter"]


def names(targets: list[str], mode: str) -> list[str]:
    return [image.name for image in build.wanted(targets, mode)]


def test_packages_mode_builds_what_an_image_stands_on_first() -> None:
    wanted = names(["platform"], "packages")
    assert wanted.index("debian") < wanted.index("python") < wanted.index("node") < wanted.index("mongo-standin")


def test_every_image_comes_after_what_it_needs() -> None:
    seen: set[str] = set()
    for image in build.THIRD_PARTY:
        assert set(image.needs) <= seen, f"{image.name} is listed before what it stands on"
        seen.add(image.name)


def test_registry_mode_pulls_the_platform_and_builds_none_of_it() -> None:
    assert names(["platform"], "registry") == ["redis", "mongo-standin", "traefik", *MONITORING, "grafana"]
    assert build.reference(build.BY_NAME["mongo-standin"], "registry", "p") == "mongo:8.0"


def test_the_stand_in_is_never_what_registry_mode_names() -> None:
    assert "standin" not in build.environment_lines("registry", "p", "r")
    assert "MONGO_IMAGE=p/mongo-standin:8\n" in build.environment_lines("packages", "p", "r")


def test_packages_mode_leaves_out_what_no_package_holds() -> None:
    assert "grafana" not in names(["platform"], "packages")
    assert "GRAFANA_IMAGE=\n" in build.environment_lines("packages", "p", "r")
    assert names(["platform"], "packages")[-5:] == MONITORING


def test_databases_of_other_applications_are_built_only_when_asked_for() -> None:
    assert "postgres" not in names(["all"], "packages")
    assert names(["postgres"], "packages") == ["debian", "postgres"]
    assert "POSTGRES_IMAGE=postgres:17\n" in build.environment_lines("registry", "p", "r")


def test_an_official_name_in_a_dockerfile_means_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(build, "must", lambda _, *command: given.extend(command))
    folder = "images/redis"
    for mode in ("packages", "registry"):
        # The first is in place of no official image.
        build.build("p/x:1", folder, "Dockerfile", ["pebble", *build.APP_BASES], build.Order(mode, "p", "linux/amd64"))
    assert [one for one in given if one.startswith("--build-context")] == [
        "--build-context=python:3.13-slim-trixie=docker-image://p/python:3.13",
        "--build-context=node:24-trixie-slim=docker-image://p/node:24",
        "--build-context=nginx:1.28-trixie=docker-image://p/nginx:1",
    ]


def test_our_images_bring_their_bases_in_either_mode() -> None:
    assert names(["app"], "registry") == ["python", "node", "nginx"]
    assert names(["app"], "packages") == ["debian", "python", "node", "nginx"]


def test_the_test_bed_is_ours_in_either_mode() -> None:
    for mode in ("registry", "packages"):
        assert build.reference(build.BY_NAME["vps"], mode, "p") == "p/vps:trixie"
    wanted = ["debian", "python", "node", "maildev", "pebble", "registry", "promtool", "vps", "outside"]
    assert names(["testbed"], "registry") == wanted


def test_a_release_depends_on_paths_and_contents_alone() -> None:
    one, two = ("a.py", b"1"), ("b.py", b"2")
    assert build.release_of([one, two]) == build.release_of([two, one])
    assert build.release_of([one, two]) != build.release_of([one, ("b.py", b"3")])
    assert build.release_of([("a", b"bc")]) != build.release_of([("ab", b"c")])


@pytest.mark.parametrize(
    "text",
    [
        "deb http://mirror.example/debian bookworm main\n"
        "# deb http://other.example/debian sid main\n"
        "deb [signed-by=/k.gpg] http://mirror.example/debian-security bookworm-security main\n",
        "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\nComponents: main\n\n"
        "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n",
    ],
    ids=["one-line", "deb822"],
)
def test_the_base_uses_the_mirrors_of_this_machine(text: str) -> None:
    assert build.mirrors(build.apt_sources(text)) == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security trixie-security main",
    ]


def test_a_machine_without_a_debian_mirror_is_told_so() -> None:
    with pytest.raises(build.BuildError, match="There is no Debian mirror"):
        build.mirrors(build.apt_sources("deb http://mirror.example/other stable main\n"))


def test_an_unknown_value_of_images_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGES", "docker")
    with pytest.raises(SystemExit):
        build.arguments_of(["bases"])
    assert "choose from auto, registry, packages" in capsys.readouterr().err


def test_a_laptop_gets_what_the_development_containers_run() -> None:
    assert names(["dev"], "registry") == ["python", "node", "redis", "mongo-standin", "maildev"]
    assert names(["dev"], "packages") == ["debian", "python", "node", "redis", "mongo-standin", "maildev"]


def test_images_are_for_the_engine_s_own_platform_unless_another_is_asked_for() -> None:
    own = build.order_for("packages", "as requested", "p", "", "linux/arm64", False)
    assert (own.platform, own.platform_options) == ("linux/arm64", [])
    assert not build.order_for("registry", "", "p", "linux/arm64/v8", "linux/arm64", False).foreign
    other = build.order_for("registry", "", "p", "linux/amd64", "linux/arm64", False)
    assert other.platform_options == ["--platform=linux/amd64"]
    with pytest.raises(build.BuildError, match=r"linux/amd64 need official base images \(IMAGES=registry\)"):
        build.order_for("packages", "as requested", "p", "linux/amd64", "linux/arm64", False)


def test_the_variable_platform_is_read_and_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLATFORM", "linux/amd64")
    assert build.arguments_of(["app"]).platform == "linux/amd64"
    monkeypatch.setenv("PLATFORM", "x86_64")
    with pytest.raises(SystemExit):
        build.arguments_of(["app"])
    assert "such as linux/amd64 or linux/arm64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prefix", "registry"),
    [
        ("localhost/berth", "localhost"),
        ("registry.example.com/team/berth", "registry.example.com"),
        ("registry:5000/berth", "registry:5000"),
        ("ada/berth", "docker.io"),
    ],
)
def test_a_prefix_names_its_registry_as_docker_reads_it(prefix: str, registry: str) -> None:
    assert build.registry_of(prefix) == registry


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["platform", "--prefix=r.example.com/b"], "add the target `app`"),
        (["app"], "--push needs a registry: --prefix"),
        (["app", "--prefix=r.example.com/b", "--images=packages"], "this machine's CA certificates"),
    ],
)
def test_what_must_not_be_pushed_is_not(options: list[str], said: str) -> None:
    arguments = build.arguments_of(["--images=registry", "--push", *options])
    order = build.Order(arguments.images, arguments.prefix, "linux/amd64")
    with pytest.raises(build.BuildError, match=said):
        build.check_push(arguments, order)


def fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a docker of the test's own in front of the machine's."""
    (folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_an_engine_that_does_not_answer_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "permission denied while trying to connect to the Docker daemon socket"
    fake_docker(tmp_path, monkeypatch, f"echo '{words}' >&2; exit 1")
    with pytest.raises(build.BuildError, match=f"The Docker engine does not answer: {words}"):
        build.main(["app"])
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(build.BuildError, match="There is no docker on this machine: install Docker 25"):
        build.main(["app"])


def test_a_refused_login_keeps_the_registry_s_words_and_not_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_docker(
        tmp_path, monkeypatch, 'read given; echo "unauthorized: bad $given" >&2; echo "$@" >> "$0.asked"; exit 1'
    )
    monkeypatch.setenv("REGISTRY_USERNAME", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "the-token")
    with (
        pytest.raises(build.BuildError, match=r"r\.example\.com refuses .* unauthorized: bad \*\*\*$"),
        build.registry_login("r.example.com"),
    ):
        pass
    assert "the-token" not in (tmp_path / "docker.asked").read_text()
    monkeypatch.delenv("REGISTRY_PASSWORD")
    with pytest.raises(build.BuildError, match="or neither"), build.registry_login("r.example.com"):
        pass
