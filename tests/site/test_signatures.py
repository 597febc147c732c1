"""Where an environment has keys, only what was signed is loaded and started; and SBOMs tell what is in a release."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from testinfra.host import Host

import attest
import build as images_build
from tests.site.test_releases import PREFIX, SERVICES, build, live, play
from tests.support import operate, playbook, poll

# Several releases, and the one that tidies up.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Signer:
    """A key, and the folder of what it signed."""

    key: ec.EllipticCurvePrivateKey
    folder: Path

    def sign(self, release: str) -> str:
        names = [f"{PREFIX}/{service}:{release}" for service in SERVICES]
        attest.write_statement(release, images_build.inspected(names), {"release": release}, {}, self.key, self.folder)
        return release

    def play(self, verb: str, **variables: object) -> tuple[int, str]:
        keys = [attest.public_key(self.key)]
        return play(verb, berth_signing_keys=keys, berth_attestations=str(self.folder), **variables)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory, vps: Host) -> Iterator[Signer]:
    """Afterwards the release of before is live again, on a host that asks for no signatures."""
    before = json.loads(vps.check_output("berth status --json"))["live"].split()[0]
    yield Signer(ec.generate_private_key(ec.SECP256R1()), tmp_path_factory.mktemp("attestations"))
    code, output = play("release", release=before, release_force=True)
    assert code == 0, output


@pytest.fixture
def base(http: httpx.Client) -> str:
    return live(http)[0]


def test_a_signed_release_goes_live_and_an_unsigned_one_does_not(
    signer: Signer, http: httpx.Client, vps: Host, base: str
) -> None:
    """The archive of a re-tagged one is refused before it is loaded; the live site is not touched."""
    good = signer.sign(build("signed-good", base))
    code, output = signer.play("release", release=good)
    assert code == 0, output
    assert live(http)[0] == good

    unsigned = build("signed-none", base)
    code, output = signer.play("release", release=unsigned)
    assert code != 0
    assert f"Release {unsigned} has no signed statement" in output

    signer.sign(unsigned)
    # Another image takes the name that was signed.
    build(unsigned, base, frontend="LABEL berth.evil=yes")
    code, output = signer.play("release", release=unsigned)
    assert code != 0
    assert f"{PREFIX}/frontend:{unsigned} is not the image that was signed" in output
    assert live(http)[0] == good
    assert unsigned not in vps.check_output("sudo docker image ls --format '{{.Tag}}'").split()
    assert not vps.file(f"/opt/berth/releases/{unsigned}/services.json").exists


def test_a_statement_that_was_changed_or_signed_by_somebody_else_is_refused(
    signer: Signer, http: httpx.Client, base: str, tmp_path: Path
) -> None:
    other = Signer(ec.generate_private_key(ec.SECP256R1()), tmp_path)
    release = build("signed-by-others", base)
    other.sign(release)
    (signer.folder / f"{release}.intoto.jsonl").write_bytes((tmp_path / f"{release}.intoto.jsonl").read_bytes())
    code, output = signer.play("release", release=release)
    assert code != 0
    assert "is signed by none of the keys in berth_signing_keys, or was changed since" in output
    assert live(http)[0] == base


def test_a_name_that_was_moved_on_the_host_is_not_rolled_back_to(
    signer: Signer, http: httpx.Client, vps: Host, base: str
) -> None:
    first, second = (signer.sign(build(name, base)) for name in ("signed-first", "signed-second"))
    for release in (first, second):
        code, output = signer.play("release", release=release)
        assert code == 0, output
    name = f"{PREFIX}/frontend:{first}"
    with vps.sudo():
        true = vps.check_output("docker image inspect --format '{{.Id}}' %s", name)
        vps.check_output("docker tag %s %s", f"{PREFIX}/frontend:{second}", name)
    code, output = signer.play("rollback")
    assert code != 0
    assert f"{name} is not the image that was signed" in output
    assert live(http)[0] == second
    with vps.sudo():
        vps.check_output("docker tag %s %s", true, name)
    code, output = signer.play("rollback")
    assert code == 0, output
    assert live(http)[0] == first


def test_in_an_emergency_a_reason_is_enough_and_is_recorded(
    signer: Signer, http: httpx.Client, vps: Host, base: str
) -> None:
    release = build("signed-not", base)
    code, output = signer.play("release", release=release, release_unsigned="the key is lost")
    assert code == 0, output
    assert live(http)[0] == release
    with vps.sudo():
        last = json.loads(vps.check_output("tail -n 1 /opt/berth/releases.jsonl"))
        assert (last["to"], last["unsigned"]) == (release, "the key is lost")
        journal = vps.check_output("journalctl --unit=berth-release --lines=100 --no-pager --priority=warning")
        assert f"starts release {release} without a valid signature: the key is lost" in journal

        def is_measured() -> bool | None:
            return "berth_release_unsigned 1" in vps.check_output("cat /var/lib/berth/metrics/berth_host.prom") or None

        poll(is_measured, 60, "the metric for the alert")


def await_sboms(vps: Host, release: str) -> None:
    def are_there() -> bool | None:
        with vps.sudo():
            listed: str = vps.run(f"ls /opt/berth/releases/{release}/sbom").stdout
        return len(listed.split()) == len(SERVICES) or None

    poll(are_there, 180, f"the SBOMs of {release}")


def test_status_names_the_releases_that_contain_a_package(signer: Signer, vps: Host, base: str) -> None:
    newer = signer.sign(build("signed-newer", base))
    code, output = signer.play("release", release=newer)
    assert code == 0, output
    await_sboms(vps, newer)
    code, output = operate(playbook("status", package="openssl"))
    assert code == 0, output
    for release in (base, newer):
        assert f"in {PREFIX}/auth_service:{release} ({release})" in output
    code, output = operate(playbook("status", package="no-such-package"))
    assert code == 0, output
    assert "no image contains no-such-package" in output


def test_status_checks_the_sboms_against_an_export_of_osv(vps: Host, base: str, tmp_path: Path) -> None:
    await_sboms(vps, base)
    code, output = operate(playbook("status", vulnerabilities=str(tmp_path)))
    assert code != 0
    assert "so nothing was examined" in output
    names = {"Debian:13": "openssl", "PyPI": "fastapi", "npm": "react", "Go": "stdlib"}
    for number, (ecosystem, name) in enumerate(names.items()):
        known = {"id": f"TEST-{number}", "affected": [{"package": {"ecosystem": ecosystem, "name": name}}]}
        known["affected"][0]["ranges"] = [  # type: ignore[index]
            {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, *([] if name == "fastapi" else [{"fixed": "0.0.1"}])]}
        ]
        (tmp_path / f"{number}.json").write_text(json.dumps(known))
    code, output = operate(playbook("status", vulnerabilities=str(tmp_path)))
    assert code != 0
    assert "TEST-1 fastapi" in output
    assert "TEST-0" not in output
    folder = tmp_path / "sbom"
    build_sboms = ["python3", "images/build.py", "app", "--sbom", str(folder)]
    subprocess.run(build_sboms, check=True, capture_output=True)
    assert {place.name for place in folder.iterdir()} == {f"{service}.cdx.json" for service in SERVICES}
