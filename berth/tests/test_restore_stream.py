"""What mongorestore is given: read with the stand-in's own reader of the archive format, which checks its checksums."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from bson import Timestamp as Moment
from mongo_standin.archive import Reader, Writer

from berth.backup.archive import tally
from berth.backup.bson import Malformed, Timestamp
from berth.backup.check import Kept
from berth.backup.restic import Store
from berth.backup.restore_choice import Run, choose_among, moment
from berth.backup.restore_stream import compose
from berth.backup.settings import Target
from berth.host.refused import Refused

ACCOUNTS = ("admin", "system.users")
USERS = ("auth_db", "users")


def entry(at: int, namespace: str, **more: Any) -> bytes:
    return bson.encode({"ts": Moment(at, 1), "ns": namespace, "op": "i", "o": {"_id": at}, **more})


def archive(*oplog: bytes) -> bytes:
    out = io.BytesIO()
    writer = Writer(out)
    names = [USERS, ACCOUNTS, ("", "oplog")]
    about = [{"db": one, "collection": name, "metadata": "{}", "size": 0, "type": "collection"} for one, name in names]
    writer.prelude("8.0.0", "100.0.0", about)
    writer.collection(*USERS, iter([bson.encode({"_id": one, "name": "x" * 1000}) for one in range(3000)]))
    writer.collection(*ACCOUNTS, iter([bson.encode({"_id": "admin.root"})]))
    writer.collection("", "oplog", iter(oplog))
    return out.getvalue()


def pieces(whole: bytes, size: int) -> Iterator[bytes]:
    return (whole[at : at + size] for at in range(0, len(whole), size))


def read(stream: Iterator[bytes]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for database, name, document in Reader(io.BytesIO(b"".join(stream))):
        found.setdefault(f"{database}.{name}", []).extend([bson.decode(document)] if document else [])
    return found


@pytest.mark.parametrize("size", [7, 65536, 10_000_000])
def test_the_owners_documents_pass_and_the_servers_accounts_stay_behind(size: int) -> None:
    found = read(compose(pieces(archive(entry(1, "auth_db.users")), size)))
    assert [len(found[name]) for name in ("auth_db.users", ".oplog")] == [3000, 1]
    assert "admin.system.users" not in found


def test_what_was_saved_later_follows_the_oplog_of_the_dump() -> None:
    many = {"applyOps": [{"op": "i", "ns": "auth_db.users", "o": {"_id": 3}}]}
    later = [entry(2, "auth_db.users"), entry(3, "admin.$cmd", op="c", o=many), entry(4, "admin.system.users")]
    found = read(compose([archive(entry(1, "auth_db.users"), entry(1, "admin.system.users"))], later))
    assert [one["ts"].time for one in found[".oplog"]] == [1, 2, 3]


def test_changes_continue_a_dump_during_which_nothing_changed() -> None:
    assert len(read(compose([archive()], [entry(2, "auth_db.users")]))[".oplog"]) == 1


@pytest.mark.parametrize("cut", [3, 100, 200_000, -1])
def test_an_archive_that_was_cut_is_not_taken_for_a_whole_one(cut: int) -> None:
    with pytest.raises(Malformed):
        list(compose([archive(entry(1, "auth_db.users"))[:cut]]))


def small(series: str = "system.buckets.heat") -> bytes:
    """An archive with one of each kind: a collection, a view, a time series, the server's accounts, the oplog."""
    out = io.BytesIO()
    writer = Writer(out)
    kinds = {USERS: "collection", ("auth_db", "names"): "view", ("auth_db", "heat"): "timeseries"}
    kinds |= {ACCOUNTS: "collection", ("", "oplog"): ""}
    about = [{"db": one, "collection": name, "metadata": "{}", "type": kind} for (one, name), kind in kinds.items()]
    writer.prelude("8.0.0", "100.0.0", about)
    writer.collection("", "oplog", iter([entry(1, "auth_db.users")]))
    for one in (USERS, ACCOUNTS, ("auth_db", series)):
        writer.collection(*one, iter([bson.encode({"_id": number}) for number in range(2)]))
    return out.getvalue()


@pytest.mark.parametrize("series", ["system.buckets.heat", "heat"])
@pytest.mark.parametrize("reads", [tally, lambda found: list(compose(found))], ids=["a backup", "a restore"])
def test_no_beginning_of_an_archive_is_taken_for_the_whole(reads: Callable[[Any], object], series: str) -> None:
    whole = small(series)
    reads([whole])
    for at in range(len(whole)):
        try:
            reads([whole[:at]])
        except Malformed:
            continue
        pytest.fail(f"{at} bytes of {len(whole)} pass for the whole")


def test_a_collection_that_ends_without_its_checksum_is_malformed() -> None:
    whole = small()
    with pytest.raises(Malformed, match=r"\S+ has another checksum than it was written with"):
        tally([whole.replace(b"CRC\0", b"CRB\0")])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-02T03:04:05Z", 1767323045),
        ("2026-01-02T03:04:05", 1767323045),
        ("2026-01-02T04:04:05+01:00", 1767323045),
        ("1767323045", 1767323045),
    ],
)
def test_a_moment_is_written_as_people_or_programs_do(text: str, seconds: int) -> None:
    assert moment(text) == Timestamp(seconds, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("yesterday", "Write date, time and zone"),
        ("2026-01-02", "Write date, time and zone"),
        ("20260102", "Write date, time and zone"),
        ("2999-01-01T00:00:00Z", "in the future"),
    ],
)
def test_a_moment_that_cannot_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        moment(text)


# Only its name is asked for.
STORE = Store(SimpleNamespace(password=""), Target("bucket", "/nowhere"))  # type: ignore[arg-type]


def run(name: str, dumped: int, *until: int, tags: tuple[str, ...] = ()) -> Run:
    """A run whose dump ends then, and whose increments lead to these moments."""
    ends = [f"{one}.1" for one in (dumped, *until)]
    increments = [{"snapshot": "s", "from": one, "to": two} for one, two in pairwise(ends)]
    return Run(Kept(name, "", "m", list(tags), increments), STORE, {"mongo": {"oplog": {"last": f"{dumped}.1"}}})


def chosen(runs: list[Run], wanted: str, at: int | None = None) -> tuple[str, int]:
    meant = [one for one in reversed(runs) if wanted == "latest" or one.kept.is_called(wanted)]
    found = choose_among(meant, wanted, Timestamp(at, 0) if at else None)
    assert found
    return found.id, len(found.increments)


def test_a_moment_comes_from_the_run_before_it_with_the_changes_until_then() -> None:
    runs = [run("one", 100, 150, 200), run("two", 200, 250, 300)]
    assert chosen(runs, "latest") == ("two", 2)
    assert chosen(runs, "latest", 240) == ("two", 1)
    assert chosen(runs, "latest", 199) == ("one", 2)
    assert chosen(runs, "latest", 120) == ("one", 1)
    assert choose_among(reversed(runs), "latest", Timestamp(99, 0)) is None
    assert chosen(runs, "one") == ("one", 0)


def test_a_moment_between_two_runs_of_which_nobody_knows_the_changes_is_refused() -> None:
    runs = [run("one", 100, 150), run("two", 200, 250)]
    with pytest.raises(Refused, match=r"Target bucket has no increments between \S+ and \S+: .*restore_run=two"):
        chosen(runs, "latest", 199)
    assert chosen(runs, "latest", 150) == ("one", 1)
    # The way back after a restore: whoever names the run means it.
    assert chosen(runs, "one", 199) == ("one", 1)


def test_a_run_is_found_by_what_it_was_made_for() -> None:
    runs = [run("one", 100), run("two", 200, 210, tags=("before-release:1.4.0",)), run("three", 300)]
    assert chosen(runs, "before-release:1.4.0") == ("two", 0)
