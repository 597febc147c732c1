"""Which MongoDB version may upgrade the data of which, and featureCompatibilityVersion after it.

The rules are those of MongoDB's upgrade documentation: one major version at a time, from data at the old
version's feature level (https://www.mongodb.com/docs/manual/release-notes/8.0-upgrade-replica-set/), and never back
(https://www.mongodb.com/docs/manual/reference/command/setFeatureCompatibilityVersion/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from berth.host import commands
from berth.host.commands import last_lines
from berth.host.mongosh import LOGIN, SHELL
from berth.host.refused import Refused

# On one member it takes seconds; it may have to wait for indexes that are being built.
RAISE_SECONDS = 600
_ASK = """
const found = admin.adminCommand({ getParameter: 1, featureCompatibilityVersion: 1 }).featureCompatibilityVersion;
print(found.targetVersion ? `${found.version} on its way to ${found.targetVersion}` : found.version);
"""


@dataclass(frozen=True, order=True)
class Version:
    """A version of MongoDB, as 8.0.4."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def series(self) -> str:
        """The version as featureCompatibilityVersion has it."""
        return f"{self.major}.{self.minor}"


def version_in(image: str) -> Version:
    """Ask an image's mongod for its version. Raises Refused where it does not say."""
    limits = ("--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    done = commands.run("docker", "run", "--pull=never", *limits, "--entrypoint=mongod", image, "--version")
    found = re.search(r"db version v(\d+)\.(\d+)\.(\d+)", done.stdout)
    if not found:
        raise Refused(
            f"`mongod --version` in {image} does not print its version. Nothing was changed.", image, last_lines(done)
        )
    return Version(*map(int, found.groups()))


def version_of(container: str, image: str) -> Version:
    """Return the version of the running server, whose image may be gone; of the image where it is down."""
    done = commands.run("docker", "exec", container, *SHELL, "--eval", LOGIN + "print(admin.version());")
    found = re.search(r"^(\d+)\.(\d+)\.(\d+)", done.stdout, re.MULTILINE)
    return version_in(image) if done.returncode or not found else Version(*map(int, found.groups()))


def refuse_leap(container: str, old_image: str, new_image: str) -> None:
    """Raise Refused where the new image's MongoDB may not start on the old one's data.

    Changes nothing. Any patch release of the same series is allowed, even an older one.
    """
    old, new = version_of(container, old_image), version_in(new_image)
    if old.series == new.series:
        return
    there = f"mongo runs {old} and {new_image} is {new}"
    if new < old:
        raise Refused(
            f"{there}: MongoDB does not start on data of a later version. Set berth_mongo_image to an image of "
            f"{old.series} or later. Nothing was changed."
        )
    if new.major > old.major + 1:
        raise Refused(
            f"{there}: MongoDB is upgraded one major version at a time. Set berth_mongo_image to an image of "
            f"{old.major + 1}.0 and run ansible/upgrade_data.yml; then go on to {new.series}. Nothing was changed."
        )
    found = _compatibility(container)
    # The last major version's first series is readable as well as its newest.
    if found not in (old.series, f"{old.major}.0"):
        raise Refused(
            f"{there}, but the data has featureCompatibilityVersion {found} and needs {old.series}. Raise it "
            f"first: set berth_mongo_image to an image of {old.series} and run ansible/upgrade_data.yml. "
            "Nothing was changed."
        )


def _compatibility(container: str) -> str:
    done = commands.run("docker", "exec", container, *SHELL, "--eval", LOGIN + _ASK)
    if done.returncode or not done.stdout.strip():
        raise Refused(
            f"{container} does not answer, so its featureCompatibilityVersion could not be checked. "
            "Nothing was changed.",
            container,
            last_lines(done),
        )
    return done.stdout.strip().splitlines()[-1]


def raise_compatibility(container: str) -> Refused | None:
    """Raise featureCompatibilityVersion to the running version; after that, an older one does not start on the data.

    mongo-init.js does it in each play too. Returns a refusal if it failed.
    """
    done = commands.run("docker", "exec", container, *SHELL, "/etc/berth/mongo-init.js", seconds=RAISE_SECONDS)
    if done.returncode == 0:
        return None
    lines = last_lines(done)
    return Refused(
        f"The databases run their new images and the site is open. But featureCompatibilityVersion was not raised: "
        f"{lines[-1] if lines else f'mongosh ended with {done.returncode}'}. Run ansible/upgrade_data.yml again.",
        container,
        lines,
    )
