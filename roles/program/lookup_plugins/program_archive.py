"""Pack a Python package into one executable file (zipapp), the same one for the same sources."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import ansible.constants as ansible_constants

from ansible.plugins.lookup import LookupBase  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: program_archive
short_description: Pack a Python package into one executable file
description: Returns the path of the file on the controller, which is removed when Ansible ends.
options:
  _terms:
    description: The folder of a package with a __main__.py.
    required: true
"""

# -I: neither the caller's folder nor his environment adds modules.
SHEBANG = b"#!/usr/bin/python3 -I\n"
# The oldest that a zip file can say, so that a clone's own times do not count.
MOMENT = (1980, 1, 1, 0, 0, 0)


def pack(package: Path, place: Path) -> None:
    """Write the package, without its tests, to `place`."""
    sources = sorted(one for one in package.rglob("*.py") if "tests" not in one.relative_to(package).parts)
    start = f"import sys\n\nfrom {package.name}.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
    with place.open("wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w") as archive:
            for one in sources:
                _add(archive, f"{package.name}/{one.relative_to(package)}", one.read_text())
            _add(archive, "__main__.py", start)


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, MOMENT)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, text)


class LookupModule(LookupBase):  # type: ignore[misc]
    """Ask from a task with lookup('program_archive', folder)."""

    def run(self, terms: list[str], variables: Any = None, **_kwargs: Any) -> list[str]:  # noqa: ARG002  # as Ansible calls it
        """Return the path of each package's file.

        Args:
            terms: Folders of packages.
            variables: What Ansible knows; not used.
        """
        packed = []
        for term in terms:
            package = Path(term).resolve()
            place = Path(ansible_constants.DEFAULT_LOCAL_TMP, package.name)
            pack(package, place)
            packed.append(str(place))
        return packed
