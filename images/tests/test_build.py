"""What build.py decides; that the images build and run is shown by whoever uses them."""

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
    with pytest.raises(build.BuildError, match="No Debian mirror"):
        build.mirrors(build.apt_sources("deb http://mirror.example/other stable main\n"))


def test_an_unknown_value_of_images_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGES", "docker")
    with pytest.raises(SystemExit):
        build.arguments_of(["bases"])
    assert "choose from auto, registry, packages" in capsys.readouterr().err
