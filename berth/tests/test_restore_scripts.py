"""What a restore has mongosh do, run by node on databases in memory that refuse what MongoDB refuses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from berth.backup import restore_engine as engine
from berth.backup.replay import STAGED
from berth.host import commands
from berth.host.refused import Refused

SHELL = Path(__file__).with_name("mongo_shell.js")
Databases = dict[str, dict[str, dict[str, Any]]]


def collection(*rows: str) -> dict[str, Any]:
    return {"type": "collection", "rows": [{"_id": row, "of": row} for row in rows]}


def view(of: str) -> dict[str, Any]:
    return {"type": "view", "options": {"viewOn": of, "pipeline": []}}


class Server:
    """A MongoDB, reached through docker exec."""

    def __init__(self, state: Path, databases: Databases) -> None:
        self._state, self.cut = state, -1
        self.fill(databases)

    def fill(self, databases: Databases) -> None:
        self._state.write_text(json.dumps(databases))

    @property
    def databases(self) -> Databases:
        found: Databases = json.loads(self._state.read_text())
        return found

    def run(self, *command: str, **_: object) -> subprocess.CompletedProcess[bytes]:
        node = ["node", "--require", str(SHELL), "--eval", command[-1]]
        known = {**os.environ, "STATE": str(self._state), "CUT": str(self.cut)}
        return subprocess.run(node, capture_output=True, env=known, check=False)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A live database, and beside it what a backup has under the same names."""
    live = {
        "users": collection("after"),
        "system.js": collection("after", "kept"),
        "gone": collection("after"),
        # Where the backup has collections.
        "orders": view("users"),
        "heat": {"type": "timeseries", "rows": [{"_id": "after"}]},
        # Where the backup has a view.
        "names": {"type": "timeseries", "rows": []},
        "system.views": collection("orders"),
    }
    backup = {name: collection("before") for name in ("users", "orders", "heat")}
    backup["system.js"] = collection("before", "kept")
    found = Server(tmp_path / "state", {"auth_db": live | {STAGED + name: one for name, one in backup.items()}})
    monkeypatch.setattr(commands, "run_bytes", found.run)
    return found


NAMES = ["auth_db.heat", "auth_db.orders", "auth_db.system.js", "auth_db.users"]
VIEWS = {"auth_db.names": {"viewOn": "users", "pipeline": []}}
RESTORED = {
    "users": collection("before"),
    "orders": collection("before"),
    "heat": collection("before"),
    "system.js": collection("before", "kept"),
    "names": view("users"),
    "system.views": collection("orders"),
}


def by_id(databases: Databases) -> Databases:
    for one in databases["auth_db"].values():
        one.get("rows", []).sort(key=lambda row: row["_id"])
    return databases


@pytest.mark.usefixtures("server")
def test_stored_functions_belong_to_the_owner_and_other_system_collections_to_the_server() -> None:
    assert engine.collections("m") == {"auth_db.users": 1, "auth_db.system.js": 2, "auth_db.gone": 1}
    assert engine.staged("m") == {
        "auth_db.users": 1,
        "auth_db.orders": 1,
        "auth_db.heat": 1,
        "auth_db.system.js": 2,
    }


def test_whatever_has_the_name_of_a_restored_collection_makes_way_for_it(server: Server) -> None:
    engine.swap("m", NAMES, ["auth_db.gone"], VIEWS)
    assert by_id(server.databases) == {"auth_db": RESTORED}


def test_a_swap_that_was_cut_off_at_any_change_is_done_by_the_next_one(server: Server) -> None:
    before = server.databases
    for number in range(100):
        server.fill(before)
        server.cut = number
        try:
            engine.swap("m", NAMES, ["auth_db.gone"], VIEWS)
        except Refused:
            server.cut = -1
            engine.swap("m", NAMES, ["auth_db.gone"], VIEWS)
        else:
            break
        assert by_id(server.databases) == {"auth_db": RESTORED}
    assert number > len(NAMES)


def test_stored_functions_that_the_backup_lacks_are_emptied(server: Server) -> None:
    engine.swap("m", [], ["auth_db.system.js"], {})
    assert server.databases["auth_db"]["system.js"]["rows"] == []
