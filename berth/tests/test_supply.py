"""What is signed is what is started, and SBOMs name what is in an image."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from berth.host import commands
from berth.host.refused import Refused
from berth.metrics import site
from berth.metrics.exposition import Metrics
from berth.release import engine
from berth.release.signed import require_signed
from berth.stack.kept import STATEMENT
from berth.supply import sbom
from berth.supply.command import main
from berth.supply.identity import ALGORITHM, identity, in_archive
from berth.supply.packages import Package, from_purl, read
from berth.supply.statement import PAYLOAD_TYPE, Statement, pre_authentication_encoding, require
from berth.supply.statement import STATEMENT as TYPE
from berth.tests import release_world
from berth.tests.release_world import NEW, OLD, Worlds, ask, play, settings_of
from berth.tests.test_once import worlds  # noqa: F401  # fixture

WEB = {
    "Id": "sha256:1",
    "Os": "linux",
    "Architecture": "amd64",
    "RepoTags": ["x/web:1.0"],
    "RootFS": {"Layers": ["sha256:a", "sha256:b"]},
    "Config": {"User": "10001", "Env": ["A=b"], "Cmd": ["run"], "Labels": {"berth.schema": "x"}, "Volumes": None},
}


def key_pair() -> tuple[ec.EllipticCurvePrivateKey, str]:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public.decode()


OURS, OUR_KEY = key_pair()
THEIRS, _ = key_pair()


def signed(images: dict[str, str], by: ec.EllipticCurvePrivateKey = OURS, **more: Any) -> str:
    subjects = [{"name": name, "digest": {ALGORITHM: known}} for name, known in images.items()]
    said = {"_type": TYPE, "subject": subjects, "predicateType": "https://slsa.dev/provenance/v1", **more}
    payload = json.dumps(said).encode()
    seal = by.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256()))
    encoded = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE}
    return json.dumps({**encoded, "signatures": [{"sig": base64.b64encode(seal).decode()}]})


# --- identity ---


def test_an_image_is_the_same_in_an_archive_and_in_each_engine() -> None:
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"diff_ids": ["sha256:a", "sha256:b"]},
        "config": {"User": "10001", "Env": ["A=b"], "Cmd": ["run"], "Labels": {"berth.schema": "x"}, "ArgsEscaped": 1},
        "history": [{"created_by": "RUN true"}],
    }
    newer = {**WEB, "Id": "sha256:2", "Config": {**WEB["Config"], "Hostname": "", "Entrypoint": []}}  # type: ignore[dict-item]
    assert identity(config) == identity(WEB) == identity(newer)


@pytest.mark.parametrize(
    "change",
    [
        {"Architecture": "arm64"},
        {"RootFS": {"Layers": ["sha256:a", "sha256:c"]}},
        {"RootFS": {"Layers": ["sha256:b", "sha256:a"]}},
        *({"Config": {**WEB["Config"], name: value}} for name, value in (("User", "0"), ("Cmd", ["sh"]), ("Env", []))),  # type: ignore[dict-item]
    ],
)
def test_what_decides_what_runs_changes_the_identity(change: dict[str, Any]) -> None:
    assert identity({**WEB, **change}) != identity(WEB)


def archive_of(place: Path, tags: list[str], *more: tuple[str, Any]) -> Path:
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"diff_ids": WEB["RootFS"]["Layers"]},  # type: ignore[index]
        "config": WEB["Config"],
    }
    members = [("c.json", config), ("manifest.json", [{"Config": "c.json", "RepoTags": tags, "Layers": []}]), *more]
    with tarfile.open(place, "w") as archive:
        for name, content in members:
            text = json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return place


def test_an_archive_tells_what_is_in_it(tmp_path: Path) -> None:
    assert in_archive(archive_of(tmp_path / "a.tar", ["x/web:1.0"])) == {"x/web:1.0": identity(WEB)}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([("repositories", {"x/mongo": {"8": "1"}})], "names x/mongo:8 only where some engines look"),
        (
            [("index.json", {"manifests": [{"annotations": {"io.containerd.image.name": "x/mongo:8"}}]})],
            "names x/mongo:8 only where some engines look",
        ),
        ([("c.json", {"os": "linux"})], "holds a file twice"),
    ],
)
def test_an_archive_that_two_engines_read_differently_is_refused(
    tmp_path: Path, more: list[tuple[str, Any]], sentence: str
) -> None:
    with pytest.raises(Refused, match=sentence):
        in_archive(archive_of(tmp_path / "a.tar", ["x/web:1.0"], *more))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar")
    with pytest.raises(Refused, match="is no archive of images"):
        in_archive(tmp_path / "a.tar")


# --- statements ---


def test_a_signed_statement_is_read() -> None:
    assert Statement.read(signed({"x/web:1.0": "1"}), [THEIRS_KEY, OUR_KEY], "release 1.0").images == {"x/web:1.0": "1"}


THEIRS_KEY = key_pair()[1]


def changed(text: str, old: str, new: str) -> str:
    envelope = json.loads(text)
    payload = base64.b64decode(envelope["payload"]).decode().replace(old, new)
    return json.dumps({**envelope, "payload": base64.b64encode(payload.encode()).decode()})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (signed({"x/web:1.0": "1"}, THEIRS), "signed by none of the keys"),
        (changed(signed({"x/web:1.0": "1"}), '"1"', '"2"'), "signed by none of the keys"),
        (json.dumps({**json.loads(signed({})), "payloadType": "text/plain"}), "signed by none of the keys"),
        (json.dumps({**json.loads(signed({})), "signatures": []}), "signed by none of the keys"),
        (json.dumps({**json.loads(signed({})), "signatures": [{"sig": ""}]}), "signed by none of the keys"),
        (signed({"x/web:1.0": "1"}, _type="https://example.test"), "no in-toto statement"),
        (signed({}, subject=[{"name": "a", "digest": {}}, {"name": "a", "digest": {}}]), "names an image twice"),
        ("", "is damaged"),
        ("{}", "is damaged"),
        ("[]", "is damaged"),
        ('{"payload": "ß"}', "is damaged"),
    ],
)
def test_what_is_not_signed_as_it_is_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        Statement.read(text, [OUR_KEY], "release 1.0")


def test_a_key_that_is_none_is_named() -> None:
    with pytest.raises(Refused, match="berth_signing_keys: openssl reads no public key"):
        Statement.read(signed({"x/web:1.0": "1"}), ["ssh-ed25519 AAAA"], "release 1.0")


def test_only_images_that_are_named_with_what_is_in_them_pass() -> None:
    known = [Statement({"x/web:1.0": "1"}), Statement({"mongo:8": "2"})]
    require({"x/web:1.0": "1", "mongo:8": "2"}, known)
    with pytest.raises(Refused, match=r"x/web:1\.0 is not the image that was signed"):
        require({"x/web:1.0": "2"}, known)
    with pytest.raises(Refused, match=r"x/api:1\.0 is named by no signed statement"):
        require({"x/api:1.0": "1"}, known)


def test_a_digest_excuses_from_a_statement_but_not_from_a_wrong_one() -> None:
    require({"mongo@sha256:0": "9"}, [], ["mongo@sha256:0"])
    with pytest.raises(Refused, match="is not the image that was signed"):
        require({"mongo@sha256:0": "9"}, [Statement({"mongo@sha256:0": "1"})], ["mongo@sha256:0"])


def verify(monkeypatch: pytest.MonkeyPatch, given: Any, *arguments: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(given)))
    return main(["images", "verify", *arguments])


def test_the_command_verifies_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(archive_of(tmp_path / "a.tar", ["x/web:1.0"]))
    good = {"keys": [OUR_KEY], "statements": {"1.0": signed({"x/web:1.0": identity(WEB)})}}
    assert verify(monkeypatch, good, "--archive", place) == 0
    assert verify(monkeypatch, {**good, "statements": {}}, "--archive", place) == 1
    assert "x/web:1.0 is named by no signed statement" in capsys.readouterr().err


# --- releases ---


def settings_with(root: Path) -> Any:
    from dataclasses import replace

    return replace(settings_of(root), signing_keys=[OUR_KEY])


@pytest.fixture
def strict(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> Worlds:  # noqa: F811
    """Worlds whose host asks for signatures."""
    worlds.make()
    monkeypatch.setattr(release_world, "settings_of", settings_with)
    return worlds


def sign_kept(worlds: Worlds, release: str, **other: str) -> None:  # noqa: F811
    side = engine.Side(settings_with(worlds.root), release, "blue")
    images = {name: identity(image) for image in side.inspect_images() for name in image["RepoTags"]}
    (worlds.root / "releases" / release / STATEMENT).write_text(signed({**images, **other}))


def live_release(worlds: Worlds) -> str:  # noqa: F811
    return worlds.world.live.release if worlds.world.live else ""


def history(worlds: Worlds) -> list[dict[str, Any]]:  # noqa: F811
    return [json.loads(line) for line in (worlds.root / "releases.jsonl").read_text().splitlines()]


def test_a_signed_release_goes_live(strict: Worlds) -> None:
    sign_kept(strict, NEW)
    play()
    assert live_release(strict) == NEW


def test_an_unsigned_release_is_refused_before_anything_starts(strict: Worlds) -> None:
    with pytest.raises(Refused, match=f"Release {NEW} has no signed statement"):
        play()
    assert (live_release(strict), strict.world.tried) == (OLD, False)


def test_an_image_under_a_signed_name_is_refused(strict: Worlds) -> None:
    sign_kept(strict, NEW, **{f"x/auth_service:{NEW}": "another"})
    with pytest.raises(Refused, match=f"x/auth_service:{NEW} is not the image that was signed"):
        play()
    assert (live_release(strict), strict.world.tried) == (OLD, False)


def test_a_statement_about_another_release_does_not_help(strict: Worlds) -> None:
    sign_kept(strict, OLD)
    text = (strict.root / "releases" / OLD / STATEMENT).read_text()
    (strict.root / "releases" / NEW / STATEMENT).write_text(text)
    with pytest.raises(Refused, match="named by no signed statement"):
        play()


def test_a_rollback_to_an_unsigned_release_is_refused_as_a_request(strict: Worlds) -> None:
    """It changes nothing and is no attempt, which an alert would report."""
    with pytest.raises(Refused, match="has no signed statement"):
        ask("begin", "--by=ada@laptop", "--verb=rollback", "0.9")
    assert all(line["verb"] != "rollback" for line in history(strict))


def test_in_an_emergency_it_is_released_all_the_same_and_recorded(
    strict: Worlds, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ask("begin", "--by=ada@laptop", "--unsigned=the key is lost", NEW)["run"]
    ask("start", run)
    ask("finish", run)
    assert live_release(strict) == NEW
    assert history(strict)[-1]["unsigned"] == "the key is lost"
    assert f"<4>ada@laptop starts release {NEW} without a valid signature: the key is lost" in capsys.readouterr().err
    metrics = Metrics()
    site.releases(metrics, strict.root)
    assert "berth_release_unsigned 1" in metrics.text()


def test_a_signed_release_ends_the_emergency(strict: Worlds) -> None:
    run = ask("begin", "--by=ada@laptop", "--unsigned=the key is lost", NEW)["run"]
    ask("start", run)
    ask("finish", run)
    sign_kept(strict, OLD)
    play("rollback", OLD)
    metrics = Metrics()
    site.releases(metrics, strict.root)
    assert "berth_release_unsigned 0" in metrics.text()


def test_a_host_without_keys_asks_for_no_signature(worlds: Worlds) -> None:  # noqa: F811
    worlds.make()
    require_signed(engine.Side(settings_of(worlds.root), NEW, "green"))


# --- SBOMs ---


def root_of(*entries: tuple[str, bytes, int]) -> tarfile.TarFile:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content, mode in entries:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return tarfile.open(fileobj=stream, mode="r|")


DPKG = b"""Package: libssl3t64
Status: install ok installed
Architecture: amd64
Source: openssl
Version: 3.5.4-1~deb13u1

Package: gone
Status: deinstall ok config-files
Version: 1

Package: libgcc-s1
Status: install ok installed
Architecture: amd64
Source: gcc-14 (14.2.0-19)
Version: 14.2.0-19+b1
"""


def go_program(version: str, modules: str) -> bytes:
    def text(content: bytes) -> bytes:
        length, head = len(content), b""
        while length >= 0x80:
            head, length = head + bytes([length & 0x7F | 0x80]), length >> 7
        return head + bytes([length]) + content

    header = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16)
    return b"\x7fELF" + bytes(64) + header + text(version.encode()) + text(b"s" * 16 + modules.encode() + b"e" * 16)


def test_packages_of_each_kind_are_found() -> None:
    modules = (
        "path\tx\nmod\tgithub.com/traefik/traefik/v3\tv3.7.0\th1:=\ndep\tgolang.org/x/net\tv0.40.0\th1:=\n"
        "dep\tgithub.com/old\tv1.0.0\th1:=\n=>\tgithub.com/new\tv1.1.0\th1:=\ndep\tgithub.com/devel\t(devel)\t\n"
    )
    own = {"components": [{"purl": "pkg:npm/%40vue/reactivity@3.5.0"}, {"purl": ""}, {}]}
    contents = read(
        root_of(
            ("etc/os-release", b'ID=debian\nVERSION_ID="13"\n', 0o644),
            ("var/lib/dpkg/status", DPKG, 0o644),
            ("var/lib/dpkg/status.d/tzdata", b"Package: tzdata\nVersion: 2026a\n", 0o644),
            (
                "opt/venv/lib/python3.13/site-packages/PyYAML-6.0.3.dist-info/METADATA",
                b"Name: PyYAML\nVersion: 6.0.3\n",
                0o644,
            ),
            ("app/node_modules/@scope/a/package.json", b'{"name": "@scope/a", "version": "1.2.3"}', 0o644),
            ("app/node_modules/a/lib/package.json", b'{"type": "module"}', 0o644),
            ("usr/share/sbom/frontend.cdx.json", json.dumps(own).encode(), 0o644),
            ("usr/bin/traefik", go_program("go1.25.3 X:y", modules), 0o755),
            ("usr/bin/true", b"\x7fELF" + bytes(100), 0o755),
            ("usr/bin/script", b"#!/bin/sh\n# 20 bytes and more\n", 0o755),
        )
    )
    assert contents.distribution == "debian-13"
    assert [one.purl(contents.distribution) for one in contents.packages] == [
        "pkg:deb/debian/libgcc-s1@14.2.0-19%2Bb1?arch=amd64&distro=debian-13&upstream=gcc-14%4014.2.0-19",
        "pkg:deb/debian/libssl3t64@3.5.4-1~deb13u1?arch=amd64&distro=debian-13&upstream=openssl%403.5.4-1~deb13u1",
        "pkg:deb/debian/tzdata@2026a?distro=debian-13",
        "pkg:golang/github.com/new@v1.1.0",
        "pkg:golang/github.com/traefik/traefik/v3@v3.7.0",
        "pkg:golang/golang.org/x/net@v0.40.0",
        "pkg:golang/stdlib@1.25.3",
        "pkg:npm/%40scope/a@1.2.3",
        "pkg:npm/%40vue/reactivity@3.5.0",
        "pkg:pypi/pyyaml@6.0.3",
    ]


def test_packages_of_alpine_are_found() -> None:
    installed = b"P:libcrypto3\nV:3.5.4-r0\nA:x86_64\no:openssl\n\nP:musl\nV:1.2.5-r10\nA:x86_64\n"
    contents = read(
        root_of(
            ("lib/apk/db/installed", installed, 0o644), ("etc/os-release", b"ID=alpine\nVERSION_ID=3.22.1\n", 0o644)
        )
    )
    assert [one.purl(contents.distribution) for one in contents.packages] == [
        "pkg:apk/alpine/libcrypto3@3.5.4-r0?arch=x86_64&distro=alpine-3.22.1&upstream=openssl%403.5.4-r0",
        "pkg:apk/alpine/musl@1.2.5-r10?arch=x86_64&distro=alpine-3.22.1",
    ]


@pytest.mark.parametrize(
    "package",
    [
        Package("deb", "g++", "1:2~rc1+b2", "debian", "gcc", "1:2~rc1", "amd64"),
        Package("npm", "a", "1.0.0-beta.1", "@scope"),
        Package("golang", "github.com/a/b/v2", "v2.0.0+incompatible"),
        Package("pypi", "a-b", "1.0"),
    ],
)
def test_a_package_url_is_read_as_it_is_written(package: Package) -> None:
    assert from_purl(package.purl()) == package


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"{", b"[]", b"null", b'{"components": [1]}', b'{"name": 3}'])
def test_damaged_records_of_packages_are_no_reason_to_stop(damage: bytes) -> None:
    names = ("var/lib/dpkg/status", "usr/share/sbom/a.cdx.json", "node_modules/a/package.json", "a.dist-info/METADATA")
    assert read(root_of(*((name, damage, 0o644) for name in names))).packages == ()


def test_a_program_of_go_that_is_cut_short_is_skipped() -> None:
    whole = go_program("go1.25.3", "mod\tx\tv1\n")
    for end in range(68, len(whole)):
        read(root_of(("usr/bin/a", whole[:end], 0o755)))


class Engine:
    """Answers for Docker: images by name, and the same root file system for each."""

    def __init__(self, images: dict[str, dict[str, Any]]) -> None:
        self.images, self.exported, self.left = images, [], set()  # type: ignore[var-annotated]

    def run(self, *command: str, **_: Any) -> CompletedProcess[str]:
        code, out = 0, ""
        match command:
            case ["docker", "create", *_, name, _]:
                self.left.add(out := f"id-{name}")
            case ["docker", "rm", *_, container]:
                self.left.discard(container)
            case ["docker", "image", "inspect", name]:
                code, out = (0, json.dumps([self.images[name]])) if name in self.images else (1, "")
        return CompletedProcess(command, code, out, "")

    def start(self, *command: str, **_: Any) -> Any:
        self.exported.append(command[-1].removeprefix("id-"))
        read_end, write_end = os.pipe()
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            member = tarfile.TarInfo("var/lib/dpkg/status")
            member.size = len(DPKG)
            archive.addfile(member, io.BytesIO(DPKG))
        os.write(write_end, stream.getvalue())
        os.close(write_end)
        out = os.fdopen(read_end, "rb")

        class Export:
            stdout = out

            def __enter__(self) -> Export:
                return self

            def __exit__(self, *_: object) -> None:
                out.close()

            def wait(self) -> int:
                return 0

            def kill(self) -> None: ...

        return Export()


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Engine:
    known = {name: {**WEB, "RepoTags": [name]} for name in ("x/web:1.0", "x/web:1.1", "x/api:1.0")}
    made = Engine(known)
    monkeypatch.setattr(commands, "run", made.run)
    monkeypatch.setattr(commands, "start", made.start)
    return made


def test_sboms_are_written_once_for_each_image(tmp_path: Path, docker: Engine) -> None:
    kept = sbom.Kept(tmp_path)
    images = {name: docker.images[name] for name in ("x/web:1.0", "x/api:1.0")}
    assert kept.record("1.0", images) == ["x/web:1.0", "x/api:1.0"]
    assert kept.record("1.0", images) == []
    assert (docker.exported, docker.left) == (["x/web:1.0", "x/api:1.0"], set())
    bom = json.loads((tmp_path / "releases/1.0/sbom/x_web_1.0.cdx.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"], bom["metadata"]["component"]["bom-ref"]) == (
        "CycloneDX",
        "1.6",
        "x/web:1.0",
    )
    assert [one["name"] for one in bom["components"]] == ["libgcc-s1", "libssl3t64"]


def test_an_sbom_follows_its_image(tmp_path: Path, docker: Engine) -> None:
    kept = sbom.Kept(tmp_path)
    kept.record("", {"x/web:1.0": docker.images["x/web:1.0"]})
    other = {**docker.images["x/web:1.0"], "Architecture": "arm64"}
    assert kept.record("", {"x/web:1.0": other}) == ["x/web:1.0"]
    assert kept.record("", {}) == []
    assert list(kept.all()) == []


def test_an_sbom_that_was_cut_short_is_written_again(tmp_path: Path, docker: Engine) -> None:
    kept, images = sbom.Kept(tmp_path), {"x/web:1.0": docker.images["x/web:1.0"]}
    kept.record("1.0", images)
    (tmp_path / "releases/1.0/sbom/x_web_1.0.cdx.json").write_text('{"bomFormat"')
    assert list(kept.all()) == []
    assert kept.record("1.0", images) == ["x/web:1.0"]


def test_a_package_is_found_by_its_name_and_its_source(tmp_path: Path, docker: Engine) -> None:
    kept = sbom.Kept(tmp_path)
    kept.record("1.0", {"x/web:1.0": docker.images["x/web:1.0"]})
    kept.record("1.1", {"x/web:1.1": docker.images["x/web:1.1"]})
    found = [(one.release, one.image, one.package.version) for one in sbom.find(kept.all(), "OpenSSL")]
    assert found == [("1.0", "x/web:1.0", "3.5.4-1~deb13u1"), ("1.1", "x/web:1.1", "3.5.4-1~deb13u1")]
    assert list(sbom.find(kept.all(), "ssl")) == []


def test_a_host_without_sboms_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("berth.release.settings.Settings.read", lambda: settings_of(tmp_path))
    assert main(["sbom", "find", "openssl"]) == 1
    assert "This host keeps no SBOM yet" in capsys.readouterr().err
