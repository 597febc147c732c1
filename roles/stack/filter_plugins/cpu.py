"""Checks whether a CPU can run MongoDB."""

from __future__ import annotations

import re

# MongoDB's official builds need newer CPUs from this version on.
SINCE = 5
OFFICIAL = re.compile(
    r"(?:^|/)(?:mongo|mongodb-community-server|mongodb-enterprise-server)"
    r"(?::(?P<version>\d+)[\w.-]*|:latest)?(?:@sha256:[0-9a-f]{64})?$"
)


def mongo_cpu_problem(image: str, architecture: str, cpuinfo: str) -> str:
    """Return why an image of MongoDB would not start on this CPU; empty if it would.

    image: the database's image; only MongoDB's official builds from version 5 on are checked.
    architecture: the output of `uname -m`.
    cpuinfo: the content of /proc/cpuinfo.
    """
    found = OFFICIAL.search(image)
    # A digest alone does not show the version.
    version_unknown = found and not found["version"] and "@" in image
    if not found or version_unknown or int(found["version"] or SINCE) < SINCE:
        return ""
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.M)).split())
    remedy = (
        'Choose a server whose CPU has it (in the provider\'s console, the CPU type "host" instead of a generic one),'
        " or a managed database (vault_mongo_uri)."
    )
    if architecture == "x86_64" and "avx" not in flags:
        return f"{image} would crash at its start with an illegal instruction: this CPU has no AVX. {remedy}"
    # ARMv8.2-A: `atomics` is part of 8.1; the others came with 8.2.
    if architecture in ("aarch64", "arm64") and not ("atomics" in flags and flags & {"dcpop", "asimdhp", "asimddp"}):
        return (
            f"{image} would crash at its start with an illegal instruction: this CPU is older than ARMv8.2-A. {remedy}"
        )
    return ""


class FilterModule:
    """Filters of role stack."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {"mongo_cpu_problem": mongo_cpu_problem}
