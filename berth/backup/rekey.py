"""Another password for every repository, without a moment in which none opens it."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from typing import Any

from berth.backup import own_unit
from berth.backup.records import Records
from berth.backup.restic import Store
from berth.backup.run import say
from berth.backup.settings import Settings
from berth.host.refused import Failed, Refused

OPENS, ADDED, REMOVED = "opens", "opens from now on", "opens no more"


def rekey(settings: Settings, records: Records, run_id: str) -> dict[str, Any]:
    """The verb `rekey`: in a unit of its own, so that it goes on when its caller is gone."""
    if not run_id:
        run_id = uuid.uuid4().hex[:12]
        failure = own_unit.launch("berth-backup-rekey", "rekey", f"--run-id={run_id}")
        return own_unit.told(run_id, failure)
    try:
        answer = _rekey(settings, records)
    except Refused as refused:
        own_unit.tell(run_id, refused)
        raise
    own_unit.tell(run_id, answer)
    return answer


def _rekey(settings: Settings, records: Records) -> dict[str, Any]:
    """Let the new password open each repository, then the previous one none.

    A store that does not take part keeps what it has, and goes on with it; asked again, the rest is done. Whoever is at
    a repository began with the password before, so the end of all of them is waited for.
    """
    reasons, seen = {}, {}
    with ExitStack() as others:
        for kind in ("restore", "check", "run", "oplog"):
            others.enter_context(records.locked(kind, settings.wait_seconds))
        for target in settings.targets:
            try:
                seen[target.name] = _rekey_one(settings, Store(settings, target))
            except Refused as why:
                say(why.reason)
                reasons[target.name] = why.reason
    told = " ".join(reasons.values())
    outcome = {"verb": "rekey", "targets": seen, "reason": told}
    records.remember(**outcome)
    if reasons:
        raise Failed(f"{told} The previous password still opens what was not reached: keep it, and ask again.")
    changed = any(ADDED in one.values() or REMOVED in one.values() for one in seen.values())
    return {**outcome, "changed": changed}


def _rekey_one(settings: Settings, store: Store) -> dict[str, str]:
    old, new = settings.previous_password, settings.password
    said = {"new": OPENS}
    if not store.opens(new):
        if not old or not store.opens(old):
            raise Refused(f"Neither the new password nor the previous one opens the repository of target {store.name}.")
        store.add_key(new)
        if not store.opens(new):
            raise Refused(f"Target {store.name} took the new password, but does not open with it.")
        said["new"] = ADDED
    if old in ("", new) or not store.opens(old):
        return said
    key = store.key()
    store.opens(new)
    if store.target.append_only:
        say(f"{store.name} only takes. On its own machine: restic key remove {key}")
        return {**said, "previous": f"opens until its key is removed there: restic key remove {key}"}
    store.ask("key", "remove", key)
    return {**said, "previous": REMOVED}
