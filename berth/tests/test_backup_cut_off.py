"""A backup that is cut off at any step counts as none, and is made up for by the next increment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from berth.backup import oplog
from berth.backup import parts as backup_parts
from berth.backup import run as run_module
from berth.backup.oplog import by_itself
from berth.backup.records import Records
from berth.backup.run import run
from berth.backup.settings import Settings, Target
from berth.host.refused import Refused
from berth.tests.cut_off import CutOff, Killed
from berth.tests.test_restore_cut_off import settings  # noqa: F401  # a fixture

PARTS = ("mongo", "redis")


class Repositories(CutOff):
    """What each holds: parts by run, and the runs that a manifest commits. Each upload is a step."""

    def __init__(self, fails_at: int = -1, fault: Callable[[], BaseException] = Killed, after: bool = False) -> None:
        super().__init__(fails_at, fault, after)
        self.parts: dict[str, list[str]] = {"store": [], "bucket": []}
        self.committed: dict[str, list[list[str]]] = {"store": [], "bucket": []}

    def store(self, name: str) -> Any:
        def commit(*_: str) -> None:
            self.step(lambda: self.committed[name].append(list(self.parts[name])))

        return SimpleNamespace(
            name=name,
            ask=lambda *_, **__: "restic 0.18",
            back_up_text=commit,
            back_up_paths=lambda *_: {"snapshot_id": "s", "total_bytes_processed": 1, "total_files_processed": 1},
        )

    def upload(self, store: Any, file: str, _tags: list[str]) -> Any:
        return SimpleNamespace(store=store, end=lambda: self.step(lambda: self.parts[store.name].append(file)))


@pytest.fixture
def back_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[Repositories], Records]:  # noqa: F811
    """Make a backup of MongoDB and Redis to two repositories."""
    targets = [Target("store", "/x"), Target("bucket", "/y")]
    asked = replace(settings, targets=targets)
    parts = [SimpleNamespace(name=name, file=name, watch=None) for name in PARTS]
    monkeypatch.setattr(backup_parts, "streams", lambda _: parts)
    monkeypatch.setattr(backup_parts, "paths", lambda _: [])
    monkeypatch.setattr(backup_parts, "pump", lambda *_: {"kind": "stream", "bytes": 1})
    monkeypatch.setattr(backup_parts, "release", lambda _: {})
    monkeypatch.setattr(backup_parts, "environment", lambda _: {})

    def make(repositories: Repositories, how: str = "run") -> Records:
        records = Records(asked)
        stores = [repositories.store(target.name) for target in targets]
        monkeypatch.setattr(run_module, "prepare", lambda *_: list(stores))
        monkeypatch.setattr(run_module, "Upload", repositories.upload)
        monkeypatch.setattr(oplog, "increment", lambda *_: {})
        if how == "run":
            run(asked, records, "schedule")
        else:
            by_itself(asked, records)
        return records

    return make


@pytest.mark.parametrize("after", [False, True], ids=["before a step", "after a step"])
def test_half_a_run_counts_as_none_and_the_next_increment_makes_it_up(
    back_up: Callable[..., Records], after: bool
) -> None:
    whole = Repositories()
    back_up(whole)
    assert whole.committed == {"store": [list(PARTS)], "bucket": [list(PARTS)]}
    for number in range(whole.steps):
        repositories = Repositories(number, after=after)
        with pytest.raises(Killed):
            back_up(repositories)
        # A manifest is only ever of all parts.
        assert all(one == list(PARTS) for runs in repositories.committed.values() for one in runs)
        for name in repositories.parts:
            repositories.parts[name] = []
        back_up(repositories, "oplog")
        assert all(runs and runs[-1] == list(PARTS) for runs in repositories.committed.values())


def test_a_repository_that_refuses_at_any_step_is_named_and_the_other_has_the_whole(
    back_up: Callable[..., Records],
) -> None:
    whole = Repositories()
    back_up(whole)
    for number in range(whole.steps):
        repositories = Repositories(number, lambda: Refused("The disk of the repository is full."))
        with pytest.raises(Refused, match="The disk of the repository is full"):
            back_up(repositories)
        assert [list(PARTS)] in repositories.committed.values()
        assert all(one == list(PARTS) for runs in repositories.committed.values() for one in runs)
