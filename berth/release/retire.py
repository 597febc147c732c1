"""The end of a release that stays: the old colour is drained and stopped, older releases are removed."""

from __future__ import annotations

import shutil
from typing import Any

from berth.host import clock, commands
from berth.host.hooks import DONE
from berth.host.live import other
from berth.host.lock import Run
from berth.host.refused import Refused
from berth.release import engine
from berth.release.host import Host
from berth.release.settings import stuck


def retire(host: Host, run: Run, note: str) -> dict[str, Any]:
    """End a run whose release is live and stays so. Return the controller's answer.

    Raises Refused where the history cannot be written; the release stays live all the same.
    """
    _drain(host, run)
    with host.lock.step("prune", needed=False):
        prune(host, run.release)
    run = host.lock.current() or run
    answer: dict[str, Any] | Refused
    answer = {"changed": True, "steps": run.steps, "seconds": round(clock.time() - run.began, 1), "note": note}
    try:
        host.history.add(run, "live", note)
    except OSError as error:
        reason = stuck(host.settings, error).reason
        answer = Refused(f"Release {run.release} is live, but the history could not be written. {reason}")
        raise answer from error
    finally:
        host.end(run, answer, DONE)
    return answer


def _drain(host: Host, run: Run) -> None:
    """Let the old colour finish its requests, then stop it."""
    with host.lock.step("drain", needed=False):
        # It gets no new requests since the switch.
        clock.sleep(max(0, run.switched + host.settings.drain_seconds - clock.time()))
        engine.stop_colour(other(run.colour))


def prune(host: Host, live: str) -> None:
    """Remove images and folders of releases beyond those to keep.

    Failed ones keep their logs, and their images, until as many others have failed.
    """
    keep = host.settings.keep
    were_live = list(dict.fromkeys([live, *host.history.were_live()]))
    folders = [folder for folder in host.settings.releases.iterdir() if folder.is_dir()]
    failed = sorted(
        (folder for folder in folders if folder.name not in were_live), key=lambda folder: folder.stat().st_mtime
    )
    beyond = set(were_live[keep:])
    for folder in [*failed[:-keep], *(folder for folder in folders if folder.name in beyond)]:
        # A failed removal is no reason to stop: the next release tries again.
        kept = host.settings.kept(folder.name)
        if images := kept.known.images(kept.prefix, kept.release):
            commands.run("docker", "image", "rm", *images)
        shutil.rmtree(folder, ignore_errors=True)
