"""Signed statements about images, as the controller has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SUFFIX = ".intoto.jsonl"
BEGIN, END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"


def signed_statements(folder: str, release: str) -> dict[str, str]:
    """Return whose statement -> the signed statement: that of the platform's images, and that of the release's.

    Args:
        folder: on the controller, as images/build.py --sign fills it.
        release: empty for none.
    """
    places = {whose: Path(folder, f"{whose}{SUFFIX}") for whose in ("platform", release) if whose}
    return {whose: place.read_text() for whose, place in places.items() if place.is_file()}


def signing_problems(
    keys: list[Any], transport: str, folder: str, release: str, images: list[str], unsigned: str = ""
) -> list[str]:
    """Return a sentence for each reason why images could not be verified, before anything is transferred.

    Args:
        keys: public keys; empty: nothing is verified.
        transport: how images reach the host: archive, registry or source.
        folder: of the statements, on the controller.
        release: empty for none.
        images: all that the host runs.
        unsigned: why the release may have no signature; empty: it needs one.
    """
    pinned = [name for name in images if "@sha256:" in name]
    if transport == "archive" and pinned:
        return [
            f"{', '.join(pinned)}: an archive carries no digests, so the host would not know these names. Name the tag "
            "alone, which build.py signs; or set stack_image_transport to registry."
        ]
    if not keys:
        return []
    problems = [
        f"stack_signing_keys (in this project: berth_signing_keys): entry {number} is no public key. It begins with "
        f"{BEGIN}; the first lines of new_environment.yml's key, or of cosign.pub."
        for number, key in enumerate(keys, start=1)
        if not (isinstance(key, str) and key.strip().startswith(BEGIN) and key.strip().endswith(END))
    ]
    if transport == "source":
        problems.append(
            "stack_image_transport is source: what the host builds itself was signed by nobody, and berth_signing_keys "
            "asks for signatures. Build elsewhere (archive or registry), or remove the keys."
        )
    elif release and not unsigned and not Path(folder, f"{release}{SUFFIX}").is_file():
        problems.append(
            f"Release {release} has no signed statement in {folder}, and berth_signing_keys asks for one. Build and "
            "sign it: python3 images/build.py app --sign <env>. In an emergency: -e release_unsigned='<reason>', which "
            "is logged and raises an alert."
        )
    return problems


class FilterModule:
    """Filters of role stack."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {"signed_statements": signed_statements, "signing_problems": signing_problems}
