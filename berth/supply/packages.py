"""Which packages are in an image: read from the package databases and the files in it, without running anything of it.

Formats: deb-control(5) and dpkg's status file, apk's installed database, PyPA's core metadata, npm's package.json, and
the build information that Go links into its programs (https://pkg.go.dev/debug/buildinfo).
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.parser import HeaderParser
from urllib.parse import parse_qs, quote, unquote

# A longer file of a package database is not one.
LONGEST_RECORD = 64 * 2**20
# Programs that are larger are not searched for Go's build information.
LARGEST_PROGRAM = 2**28
GO_MAGIC = b"\xff Go buildinf:"
# 16 bytes before and after the module information.
GO_SENTINEL = 16
# Part of the image, for packages that leave no trace in it, such as those of a bundled front end.
OWN_SBOM = re.compile(r"usr/share/sbom/[^/]+\.cdx\.json$")
DPKG = re.compile(r"var/lib/dpkg/(status|status\.d/[^/]+)$")
APK = re.compile(r"(usr/)?lib/apk/db/installed$")
RELEASE = re.compile(r"(etc|usr/lib)/os-release$")
PYTHON = re.compile(r"[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO|egg-info)$")
NODE = re.compile(r"(^|/)node_modules/(@[^/]+/)?[^/]+/package\.json$")


@dataclass(frozen=True, order=True)
class Package:
    """One package, by the fields of a package URL (https://github.com/package-url/purl-spec)."""

    kind: str
    name: str
    version: str
    namespace: str = ""
    # The source package, which vulnerability databases of Debian and Alpine name.
    source: str = ""
    source_version: str = ""
    architecture: str = ""

    def purl(self, distribution: str = "") -> str:
        space = "/".join(quote(part, safe="") for part in self.namespace.split("/") if part)
        path = "/".join(part for part in (space, "/".join(quote(one, safe="") for one in self.name.split("/"))) if part)
        known = {"arch": self.architecture, "distro": distribution if self.kind in ("deb", "apk") else ""}
        if (self.source, self.source_version) not in (("", ""), (self.name, self.version)):
            known["upstream"] = f"{self.source}@{self.source_version}"
        qualifiers = "&".join(f"{key}={quote(value, safe='')}" for key, value in sorted(known.items()) if value)
        return f"pkg:{self.kind}/{path}@{quote(self.version, safe='')}{'?' if qualifiers else ''}{qualifiers}"


@dataclass(frozen=True)
class Contents:
    packages: tuple[Package, ...]
    # As in purls: debian-13; empty where the image has no os-release.
    distribution: str


def read(exported: tarfile.TarFile) -> Contents:
    """Return the packages in a root file system, such as `docker export` writes.

    Args:
        exported: Opened as a stream or as a file.

    Raises:
        tarfile.TarError: the stream is cut short.
    """
    found: set[Package] = set()
    system: dict[str, str] = {}
    for member in exported:
        if not member.isreg():
            continue
        name = member.name.removeprefix("./").lstrip("/")
        if RELEASE.match(name):
            system = _variables(_text(exported, member)) or system
        elif reader := next((reader for pattern, reader in _READERS if pattern.search(name)), None):
            if member.size <= LONGEST_RECORD:
                found |= set(reader(_text(exported, member)))
        elif member.mode & 0o111 and GO_SENTINEL < member.size <= LARGEST_PROGRAM:
            found |= set(_go(exported, member))
    identifier = system.get("ID", "")
    distribution = f"{identifier}-{system['VERSION_ID']}" if identifier and "VERSION_ID" in system else identifier
    # Debian's derivatives have packages of their own.
    named = {_of_distribution(one, identifier) for one in found}
    return Contents(tuple(sorted(named)), distribution)


def _of_distribution(package: Package, identifier: str) -> Package:
    if package.kind not in ("deb", "apk"):
        return package
    return Package(**{**vars(package), "namespace": identifier or {"deb": "debian", "apk": "alpine"}[package.kind]})


def _text(exported: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = exported.extractfile(member)
    return file.read().decode(errors="replace") if file else ""


def _variables(text: str) -> dict[str, str]:
    """Parse os-release(5)."""
    return {key: value.strip("\"'") for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)}


def _dpkg(text: str) -> Iterator[Package]:
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = dict(re.findall(r"^([\w-]+): *(.*)$", stanza, re.MULTILINE))
        # Files in status.d, of images without dpkg, have no status.
        if not {"Package", "Version"} <= set(fields) or not fields.get("Status", "installed").endswith("installed"):
            continue
        if fields.get("Status", "").endswith("not-installed"):
            continue
        name, version = fields["Package"], fields["Version"]
        # Source: gcc-14 (14.2.0-19)
        source, _, other = fields.get("Source", name).partition(" ")
        yield Package("deb", name, version, "", source, other.strip("()") or version, fields.get("Architecture", ""))


def _apk(text: str) -> Iterator[Package]:
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = dict(re.findall(r"^([A-Za-z]):(.*)$", stanza, re.MULTILINE))
        if {"P", "V"} <= set(fields):
            source = fields.get("o", fields["P"])
            yield Package("apk", fields["P"], fields["V"], "", source, fields["V"], fields.get("A", ""))


def _python(text: str) -> Iterator[Package]:
    headers = HeaderParser().parsestr(text)
    if headers["Name"] and headers["Version"]:
        # PEP 503, which purls and vulnerability databases follow.
        yield Package("pypi", re.sub(r"[-_.]+", "-", headers["Name"]).lower(), headers["Version"])


def _node(text: str) -> Iterator[Package]:
    with suppress(ValueError, AttributeError):
        known = json.loads(text)
        name, version = known.get("name"), known.get("version")
        if isinstance(name, str) and isinstance(version, str):
            space, _, short = name.rpartition("/")
            yield Package("npm", short, version, space)


def _own(text: str) -> Iterator[Package]:
    """Read the components of a CycloneDX document that is part of the image."""
    with suppress(ValueError, AttributeError, TypeError):
        for component in json.loads(text).get("components", ()):
            if package := from_purl(component.get("purl", "")):
                yield package


def from_purl(purl: str) -> Package | None:
    """Parse a package URL as `Package.purl` writes it; None for anything else."""
    found = re.fullmatch(r"pkg:([a-z]+)/(.+?)@([^?#@]+)(?:\?([^#]*))?(?:#.*)?", purl)
    if not found:
        return None
    kind, path, version, query = found.groups()
    space, _, name = path.rpartition("/")
    if kind == "golang":
        space, name = "", path
    qualifiers = {key: values[0] for key, values in parse_qs(query or "").items()}
    source, _, source_version = qualifiers.get("upstream", "").partition("@")
    return Package(
        kind, unquote(name), unquote(version), unquote(space), source, source_version, qualifiers.get("arch", "")
    )


def _go(exported: tarfile.TarFile, member: tarfile.TarInfo) -> Iterable[Package]:
    """Return Go's standard library and the modules of a program; none where it is not Go's."""
    file = exported.extractfile(member)
    if file is None or file.read(4) != b"\x7fELF":
        return []
    # A program that is cut short is none.
    with suppress(IndexError):
        program = file.read()
        at = program.find(GO_MAGIC)
        # Written so since Go 1.18: both strings stand behind a header of 32 bytes.
        if at >= 0 and program[at + 15] & 2:
            version, at = _go_string(program, at + 32)
            modules, _ = _go_string(program, at)
            text = modules[GO_SENTINEL:-GO_SENTINEL].decode(errors="replace")
            return [*_go_standard(version.decode(errors="replace")), *_go_modules(text)]
    return []


def _go_string(program: bytes, at: int) -> tuple[bytes, int]:
    """Return a string with its length before it, as an unsigned varint, and where it ends."""
    length = shift = 0
    while True:
        byte = program[at]
        at, length, shift = at + 1, length | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return program[at : at + length], at + length


def _go_standard(version: str) -> Iterator[Package]:
    if found := re.match(r"go(\d+\.\d+(\.\d+)?)", version):
        yield Package("golang", "stdlib", found[1])


def _go_modules(text: str) -> Iterator[Package]:
    last: list[str] = []
    for line in [*text.splitlines(), "end"]:
        words = line.split("\t")
        # A line that replaces the module before it.
        if words[0] == "=>":
            last = words
            continue
        if last[2:] and last[2] not in ("", "(devel)"):
            yield Package("golang", last[1], last[2])
        last = words if words[0] in ("mod", "dep") else []


_READERS = ((DPKG, _dpkg), (APK, _apk), (PYTHON, _python), (NODE, _node), (OWN_SBOM, _own))
