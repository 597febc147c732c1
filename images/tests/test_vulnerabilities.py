"""Known vulnerabilities are found, and what was not examined is never reported as clean."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from vulnerabilities import CLEAN, FOUND, NOT_EXAMINED, compare_debian, compare_semantic, is_affected, main


def sbom(place: Path, *purls: str, version: str = "13") -> str:
    components = [{"type": "library", "purl": purl} for purl in purls]
    system = {"type": "operating-system", "name": "debian", "version": version}
    document = {
        "bomFormat": "CycloneDX",
        "metadata": {"component": {"bom-ref": "x/web:1.0"}},
        "components": [*components, system],
    }
    place.write_text(json.dumps(document))
    return str(place)


def advisory(ecosystem: str, name: str, **affected: Any) -> dict[str, Any]:
    return {
        "id": "CVE-2026-1",
        "summary": "Reads beyond the end.",
        "affected": [{"package": {"ecosystem": ecosystem, "name": name}, **affected}],
    }


def fixed_in(version: str, kind: str = "ECOSYSTEM") -> dict[str, Any]:
    return {"ranges": [{"type": kind, "events": [{"introduced": "0"}, {"fixed": version}]}]}


def export(folder: Path, *advisories: dict[str, Any]) -> str:
    (folder / "osv").mkdir(exist_ok=True)
    for number, one in enumerate(advisories):
        (folder / f"osv/{number}.json").write_text(json.dumps(one))
    return str(folder / "osv")


OPENSSL = "pkg:deb/debian/libssl3t64@3.5.4-1~deb13u1?arch=amd64&distro=debian-13&upstream=openssl%403.5.4-1~deb13u1"


@pytest.mark.parametrize(
    ("purl", "known", "code"),
    [
        (OPENSSL, advisory("Debian:13", "openssl", **fixed_in("3.5.4-1")), FOUND),
        (OPENSSL, advisory("Debian:13", "openssl", **fixed_in("3.5.4-1~deb13u1")), CLEAN),
        ("pkg:pypi/pyyaml@5.3", advisory("PyPI", "PyYAML", **fixed_in("5.4")), FOUND),
        ("pkg:pypi/pyyaml@5.4rc1", advisory("PyPI", "PyYAML", **fixed_in("5.4")), FOUND),
        ("pkg:pypi/pyyaml@5.4", advisory("PyPI", "PyYAML", **fixed_in("5.4")), CLEAN),
        ("pkg:pypi/pyyaml@5.3", advisory("PyPI", "pyyaml", versions=["5.3"]), FOUND),
        ("pkg:npm/%40a/b@1.2.3", advisory("npm", "@a/b", **fixed_in("1.10.0", "SEMVER")), FOUND),
        (
            "pkg:golang/golang.org/x/net@v0.40.0",
            advisory("Go", "golang.org/x/net", **fixed_in("0.41.0", "SEMVER")),
            FOUND,
        ),
        ("pkg:golang/stdlib@1.25.3", advisory("Go", "stdlib", **fixed_in("1.25.3", "SEMVER")), CLEAN),
    ],
)
def test_a_vulnerable_package_is_found(
    tmp_path: Path, purl: str, known: dict[str, Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--osv", export(tmp_path, known), sbom(tmp_path / "a.json", purl)]) == code
    assert ("CVE-2026-1" in capsys.readouterr().out) == (code == FOUND)


def test_each_line_names_advisory_package_and_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "--osv",
            export(tmp_path, advisory("Debian:13", "openssl", **fixed_in("4"))),
            sbom(tmp_path / "a.json", OPENSSL),
        ]
    )
    out, err = capsys.readouterr()
    assert out == "CVE-2026-1  openssl 3.5.4-1~deb13u1 (fixed: 4)  x/web:1.0  Reads beyond the end.\n"
    assert err == "1 found in 1 packages of Debian:13.\n"


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ([], "has no advisory for Debian:13, so nothing was examined"),
        ([advisory("PyPI", "x", versions=["1"])], "has no advisory for Debian:13, so nothing was examined"),
        ([advisory("Debian:12", "openssl", **fixed_in("4"))], "has no advisory for Debian:13, so nothing was examined"),
    ],
)
def test_without_advisories_nothing_is_clean(
    tmp_path: Path, known: list[dict[str, Any]], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--osv", export(tmp_path, *known), sbom(tmp_path / "a.json", OPENSSL)]) == NOT_EXAMINED
    assert sentence in capsys.readouterr().err


def test_a_part_that_was_not_examined_is_not_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = export(tmp_path, advisory("Debian:13", "other", **fixed_in("4")))
    assert main(["--osv", known, sbom(tmp_path / "a.json", OPENSSL, "pkg:pypi/pyyaml@5.3")]) == NOT_EXAMINED
    assert "NOT examined, as there is no advisory for them: 1 packages of PyPI." in capsys.readouterr().err


def test_a_version_that_cannot_be_read_is_not_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = export(tmp_path, advisory("PyPI", "pyyaml", **fixed_in("5.4")))
    assert main(["--osv", known, sbom(tmp_path / "a.json", "pkg:pypi/pyyaml@of-last-week")]) == NOT_EXAMINED
    assert "cannot be read: pyyaml of-last-week" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is no SBOM"),
        ("{}", "is no CycloneDX SBOM"),
        ('{"bomFormat": "CycloneDX", "components": []}', "name no package, so nothing was examined"),
        ('{"release": "1"', "is no SBOM"),
    ],
)
def test_bad_sboms_are_no_clean_ones(
    tmp_path: Path, content: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(content)
    known = export(tmp_path, advisory("Debian:13", "openssl", **fixed_in("4")))
    assert main(["--osv", known, str(tmp_path / "a.json")]) == NOT_EXAMINED
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"{}", "no advisory in the OSV format"),
        ("a.zip", b"PK", "is damaged"),
    ],
)
def test_damaged_exports_are_named(
    tmp_path: Path, name: str, content: bytes, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "osv").mkdir()
    (tmp_path / "osv" / name).write_bytes(content)
    assert main(["--osv", str(tmp_path / "osv"), sbom(tmp_path / "a.json", OPENSSL)]) == NOT_EXAMINED
    assert sentence in capsys.readouterr().err
    assert main(["--osv", str(tmp_path / "none"), sbom(tmp_path / "a.json", OPENSSL)]) == NOT_EXAMINED


def test_exports_are_read_from_their_zip_files(tmp_path: Path) -> None:
    (tmp_path / "osv").mkdir()
    with zipfile.ZipFile(tmp_path / "osv/all.zip", "w") as archive:
        archive.writestr("CVE-2026-1.json", json.dumps(advisory("Debian:13", "openssl", **fixed_in("4"))))
    assert main(["--osv", str(tmp_path / "osv"), sbom(tmp_path / "a.json", OPENSSL)]) == FOUND


def test_withdrawn_advisories_do_not_count(tmp_path: Path) -> None:
    withdrawn = {**advisory("Debian:13", "openssl", **fixed_in("4")), "withdrawn": "2026-01-01T00:00:00Z"}
    other = advisory("Debian:13", "other", **fixed_in("4"))
    assert main(["--osv", export(tmp_path, withdrawn, other), sbom(tmp_path / "a.json", OPENSSL)]) == CLEAN


def test_what_a_host_lists_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sbom(tmp_path / "a.json", OPENSSL)
    document = json.loads((tmp_path / "a.json").read_text())
    line = json.dumps({"release": "1.0", "image": "x/web:1.0", "sbom": document})
    (tmp_path / "host.jsonl").write_text(f"{line}\n{line}\n")
    known = export(tmp_path, advisory("Debian:13", "openssl", **fixed_in("4")))
    assert main(["--osv", known, "--json", str(tmp_path / "host.jsonl")]) == FOUND
    assert json.loads(capsys.readouterr().out)["examined"] == {"Debian:13": 1}


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+b"),
        ("1.9", "1.10"),
        ("9", "1:1"),
        ("1.0-1~deb13u1", "1.0-1"),
        ("1.0-1", "1.0-1+b1"),
        ("1.0", "1.0-1"),
        ("2:0~", "2:0"),
        ("1.2-3-4", "1.2-3-5"),
    ],
)
def test_versions_of_debian_are_in_the_order_of_dpkg(less: str, more: str) -> None:
    assert (compare_debian(less, more), compare_debian(more, less), compare_debian(less, less)) == (-1, 1, 0)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("1.0.0-alpha", "1.0.0-alpha.1"),
        ("1.0.0-alpha.1", "1.0.0-alpha.beta"),
        ("1.0.0-beta.2", "1.0.0-beta.11"),
        ("1.0.0-rc.1", "1.0.0"),
        ("v1.9.0", "1.10.0"),
        ("1.2", "1.2.1"),
    ],
)
def test_semantic_versions_are_in_their_order(less: str, more: str) -> None:
    assert (compare_semantic(less, more), compare_semantic(more, less), compare_semantic(less, less)) == (-1, 1, 0)


def test_a_range_that_is_opened_again_is_open() -> None:
    events = [{"introduced": "1.0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"last_affected": "2.3"}]
    affected = {"ranges": [{"type": "SEMVER", "events": events}]}
    open_ones = [
        version for version in ("0.9", "1.2", "1.5", "2.0", "2.3", "2.4") if is_affected(affected, version, "npm")
    ]
    assert open_ones == ["1.2", "2.0", "2.3"]


def test_a_gate_may_ignore_what_nobody_has_fixed_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfixed = advisory("Debian:13", "openssl", ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}])
    known, bom = export(tmp_path, unfixed), sbom(tmp_path / "a.json", OPENSSL)
    assert main(["--osv", known, bom]) == FOUND
    assert "(fixed: no)" in capsys.readouterr().out
    assert main(["--ignore-unfixed", "--osv", known, bom]) == CLEAN
    assert "0 found in 1 packages of Debian:13. 1 more have no fixed version yet." in capsys.readouterr().err
    fixed = export(tmp_path, advisory("Debian:13", "openssl", **fixed_in("4")))
    assert main(["--ignore-unfixed", "--osv", fixed, bom]) == FOUND
