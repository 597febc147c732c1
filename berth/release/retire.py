"""The end of a release that stays: the old colour is drained and stopped, older releases are removed."""

from __future__ import annotations

import shutil
from typing import Any

from berth import rotation
from berth.host import clock, commands
from berth.host.hooks import DONE
from berth.host.live import Live, other
from berth.host.lock import COMMANDS, Run
from berth.host.refused import Refused
from berth.release import engine
from berth.release.engine import Side
from berth.release.host import Host
from berth.release.settings import stuck
from berth.secrets import UnreadableError
from berth.stack.applied import DamagedError

# In the detail of a run.
EMERGENCY = "emergency"


def retire(host: Host, run: Run, note: str) -> dict[str, Any]:
    """End a run whose release is live and stays so. Return the controller's answer.

    Raises Refused where the history cannot be written; the release stays live all the same.
    """
    _drain(host, run)
    with host.lock.step("prune", needed=False):
        prune(host, run.release)
    with host.lock.step("passwords", needed=False):
        kept = retire_passwords(host, Live(run.release, run.colour), at_once=is_emergency(run))
    note = " ".join(filter(None, [note, kept]))
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
        seconds = 0 if is_emergency(run) else host.settings.drain_seconds
        clock.sleep(max(0, run.switched + seconds - clock.time()))
        engine.stop_colour(other(run.colour))


def is_emergency(run: Run) -> bool:
    """Tell whether former secrets have to be refused soon: without the watch, and without draining the old colour."""
    return bool(run.detail.get(EMERGENCY))


def retire_passwords(host: Host, live: Live, *, at_once: bool = False) -> str:
    """Make former passwords of databases invalid, unless a container uses them. Return a note where they are kept.

    Args:
        host: This host.
        live: The live release.
        at_once: Even if containers use them.
    """
    env_file = host.settings.root / ".env"
    again = "to make them invalid: sudo berth secrets retire"
    try:
        if not rotation.pending(env_file):
            return ""
        using = commands.run("docker", "ps", f"--filter=label=com.docker.compose.project={COMMANDS}", "--quiet")
        if using.stdout.strip() and not at_once:
            return f"A command of `berth run` may use former passwords of databases; when it has ended, {again}"
        since = engine.started(one.name for one in Side.on(host.settings, live).containers())
        done = rotation.retire(env_file, rotation.DIRECTORY, None if at_once else since)
    except Refused as refused:
        return f"Former passwords of databases are still valid. {refused.reason}; {again}"
    except (OSError, KeyError, ValueError, UnreadableError, DamagedError) as error:
        return f"Former passwords of databases are still valid: {error}; {again}"
    if not done["changed"]:
        return f"Passwords of databases changed after a container of this release had started; {again}"
    return ""


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
