"""Whether a host's processor runs MongoDB."""

from __future__ import annotations

import re

# What MongoDB's own builds are made for, from this version on.
SINCE = 5
OFFICIAL = re.compile(
    r"(?:^|/)(?:mongo|mongodb-community-server|mongodb-enterprise-server)"
    r"(?::(?P<version>\d+)[\w.-]*|:latest)?(?:@sha256:[0-9a-f]{64})?$"
)


def mongo_cpu_problem(image: str, architecture: str, cpuinfo: str) -> str:
    """Say why an image of MongoDB would not start on this processor, or nothing.

    image: the database's image; only MongoDB's own builds from version 5 on ask for anything.
    architecture: what `uname -m` says.
    cpuinfo: the content of /proc/cpuinfo.
    """
    found = OFFICIAL.search(image)
    # A digest alone does not say which version it is.
    version_unknown = found and not found["version"] and "@" in image
    if not found or version_unknown or int(found["version"] or SINCE) < SINCE:
        return ""
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.M)).split())
    remedy = (
        'Choose a server whose processor has it (at the provider, the CPU type "host" instead of a generic one),'
        " or a managed database (vault_mongo_uri)."
    )
    if architecture == "x86_64" and "avx" not in flags:
        return f"{image} ends at its start with an illegal instruction: this processor shows no AVX. {remedy}"
    # Of ARMv8.2-A: atomics since 8.1, and one of those that came with 8.2.
    if architecture in ("aarch64", "arm64") and not ("atomics" in flags and flags & {"dcpop", "asimdhp", "asimddp"}):
        return (
            f"{image} ends at its start with an illegal instruction: this processor is older than ARMv8.2-A. {remedy}"
        )
    return ""


class FilterModule:
    """Filters of role stack."""

    def filters(self) -> dict[str, object]:
        """Name the filters for Ansible."""
        return {"mongo_cpu_problem": mongo_cpu_problem}
