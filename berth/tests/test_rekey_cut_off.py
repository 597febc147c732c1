"""Another password for the repositories: at no moment does none open them, and what was cut off is finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from berth.backup import own_unit, rekey
from berth.backup.records import Records
from berth.backup.settings import Settings, Target
from berth.host.refused import Refused
from berth.tests.cut_off import CutOff, Killed
from berth.tests.test_restore_cut_off import settings  # noqa: F401  # a fixture

OLD, NEW = "the old one", "the new one"


class Repositories(CutOff):
    """Which passwords open what. Each command of restic is a step at which it can be cut off."""

    def __init__(self, fails_at: int = -1, fault: Callable[[], BaseException] = Killed, after: bool = False) -> None:
        super().__init__(fails_at, fault, after)
        self.keys = {"store": {OLD}, "bucket": {OLD}}

    def look(self) -> None:
        assert all(self.keys.values()), "no password opens a repository"

    def store(self, _settings: Settings, target: Target) -> Any:
        keys = self.keys[target.name]
        return SimpleNamespace(
            target=target,
            name=target.name,
            opens=lambda password: self.step(lambda: password in keys),
            add_key=lambda password: self.step(lambda: keys.add(password)),
            key=lambda: self.step(lambda: "id"),
            ask=lambda *_: self.step(lambda: keys.discard(OLD)),
        )


@pytest.fixture
def rekeyed(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Repositories], None]:  # noqa: F811
    """Ask for another password, as in the unit that does it."""
    monkeypatch.setattr(own_unit, "FOLDER", tmp_path / "run")
    targets = [Target("store", "/x"), Target("bucket", "/y")]
    asked = replace(settings, targets=targets, password=NEW, previous_password=OLD)

    def ask(repositories: Repositories) -> None:
        monkeypatch.setattr(rekey, "Store", repositories.store)
        rekey.rekey(asked, Records(asked), "one")

    return ask


@pytest.mark.parametrize("after", [False, True], ids=["before a step", "after a step"])
@pytest.mark.parametrize(
    "fault", [Killed, lambda: Refused("The repository does not answer.")], ids=["killed", "failed"]
)
def test_whatever_is_cut_off_is_finished_when_asked_again(
    rekeyed: Callable[[Repositories], None], fault: Callable[[], BaseException], after: bool
) -> None:
    whole = Repositories()
    rekeyed(whole)
    assert whole.keys == {"store": {NEW}, "bucket": {NEW}}
    for number in range(whole.steps):
        repositories = Repositories(number, fault, after)
        with pytest.raises((Killed, Refused)):
            rekeyed(repositories)
        rekeyed(repositories)
        assert repositories.keys == {"store": {NEW}, "bucket": {NEW}}
