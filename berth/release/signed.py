"""Only signed images are started, where the host has keys (variable berth_signing_keys)."""

from __future__ import annotations

import sys

from berth.host.lock import Run
from berth.host.refused import Refused
from berth.release.engine import Side
from berth.stack.kept import STATEMENT
from berth.supply.identity import identity
from berth.supply.statement import Statement, require

# In the record of a run: why its operator releases it without a valid signature.
UNSIGNED = "unsigned"


def require_signed(side: Side) -> None:
    """Refuse a release whose images are not those in its signed statement.

    Raises:
        Refused: an image is not named by the statement, or is another one; or there is no valid statement.
    """
    keys = side.settings.signing_keys
    if not keys:
        return
    place = side.kept.folder / STATEMENT
    if not place.exists():
        raise Refused(
            f"Release {side.release} has no signed statement, and this host starts only what is signed "
            "(berth_signing_keys). Build and sign it: python3 images/build.py app --sign <env>. In an emergency: "
            "-e release_unsigned='<reason>', or sudo berth rollback --unsigned '<reason>'."
        )
    statement = Statement.read(place.read_text(), keys, f"release {side.release}")
    images = {name: image for image in side.inspect_images() for name in image["RepoTags"] or () if name in side.images}
    require({name: identity(image) for name, image in images.items()}, [statement])


def gate(side: Side, run: Run) -> None:
    """As require_signed, unless the operator has said why it may be unsigned, which the journal keeps."""
    why = run.detail.get(UNSIGNED, "")
    if why and side.settings.signing_keys:
        text = f"{run.by} starts release {side.release} without a valid signature: {why}"
        # A warning, see sd-daemon(3).
        print(f"<4>{text}", file=sys.stderr, flush=True)
        return
    require_signed(side)
