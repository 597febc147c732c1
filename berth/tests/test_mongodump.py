"""Archives and oplogs that MongoDB's own tools wrote, from servers 3.4 to 8.0; the folder's README says what is right.

The folder is found through BERTH_MONGODUMP, or beside the project as ../shared/mongodump.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from mongo_standin.archive import Reader

from berth.backup import check, parts, restore_engine
from berth.backup.archive import MARK, Tally, tally
from berth.backup.bson import Malformed, Splitter, Timestamp
from berth.backup.check import Kept
from berth.backup.replay import Replay, Unreplayable
from berth.backup.restic import Store
from berth.backup.restore_choice import Run, verify
from berth.backup.restore_stream import compose
from berth.backup.settings import Settings, Target
from berth.host.refused import Refused
from tests.support import ROOT

FOLDER = Path(os.environ.get("BERTH_MONGODUMP", ROOT.parent / "shared/mongodump"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there (BERTH_MONGODUMP)")

SIZES = [1, 7, 131, 4099, 65536, 10_000_000]
GOOD = ["w-oplog.archive", "test.bar.archive", "ts.archive", "parser.archive"]


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def content_of(name: str) -> bytes:
    found = (FOLDER / name).read_bytes()
    return gzip.decompress(found) if name.endswith(".gz") else found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "server", "documents", "entries"),
    [
        ("w-oplog.archive", "4.0.2", {"test.foo": 25}, 18),
        ("test.bar.archive", "3.4.3", {"test.bar": 1}, 0),
        ("ts.archive", "5.0.0-rc0", {"timeseries_test.system.buckets.foo_ts": 10}, 0),
        ("parser.archive", "8.0.3-120-gbc35ab4", {"testDB.testColl": 1500}, 0),
    ],
)
def test_an_archive_of_mongodump_is_read_with_its_checksums_whatever_the_pieces(
    name: str, server: str, documents: dict[str, int], entries: int, size: int
) -> None:
    found = tally(pieces(content_of(name), size))
    assert found.versions["mongo"] == server
    counted = {one: about.documents for one, about in found.collections.items()}
    assert {one: counted[one] for one in documents} == documents
    assert found.oplog_entries == entries


def test_an_archive_that_ends_before_its_oplog_is_cut_off() -> None:
    whole = content_of("w-oplog.archive")
    found = 0
    for at in range(len(whole)):
        try:
            tally([whole[:at]])
        except Malformed as error:
            found += str(error).endswith("it ends in the middle of the oplog")
        else:
            pytest.fail(f"{at} bytes pass for the whole")
    assert found


@pytest.mark.parametrize("name", GOOD)
def test_no_beginning_of_an_archive_is_taken_for_the_whole(name: str) -> None:
    whole, read = content_of(name), Tally()
    for at in range(len(whole)):
        with pytest.raises(Malformed):
            read.finish()
        read.feed(whole[at : at + 1])
    read.finish()
    # Between two blocks is where nothing but what is missing tells.
    for found in re.finditer(re.escape(MARK), whole[:-1]):
        if found.end() < len(whole):
            with pytest.raises(Malformed):
                list(compose([whole[: found.end()]]))


@pytest.mark.parametrize("name", GOOD)
def test_one_flipped_bit_in_a_document_is_found(name: str) -> None:
    """Its length is right still, so the checksum at the collection's end is all that tells."""
    whole = content_of(name)
    documents = [one for found in read(whole).values() for one in found]
    assert documents
    for document in documents[:: max(1, len(documents) // 20)]:
        at = whole.index(document) + len(document) - 2
        with pytest.raises(Malformed, match=r"^malformed archive: \S+ has another checksum than it was written with$"):
            tally([whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", GOOD)
def test_what_is_restored_lacks_exactly_what_is_the_servers(name: str, size: int) -> None:
    before, after = read(content_of(name)), read(b"".join(compose(pieces(content_of(name), size))))
    left_out = {one for one in before if one not in after}
    assert left_out == {one for one in before if one.startswith("admin.")}
    assert all(after[one] == before[one] for one in after if one != ".oplog")
    # The reader that is not ours has compared their checksums.
    kept = [entry for entry in before.get(".oplog", []) if not bson.decode(entry)["ns"].startswith("config.")]
    assert after.get(".oplog", []) == kept


def read(archive: bytes) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    reader = Reader(io.BytesIO(archive))
    for one in reader.collections:
        found[f"{one['db']}.{one['collection']}"] = []
    for database, name, document in reader:
        found.setdefault(f"{database}.{name}", []).extend([document] if document else [])
    return found


OPLOGS = {"rs.bson": 100, "vec.bson": 2, "ts.oplog.bson.gz": 872}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPLOGS)
def test_an_oplog_is_split_without_loss_whatever_the_pieces(name: str, size: int) -> None:
    whole, splitter = content_of(name), Splitter()
    entries = [entry for piece in pieces(whole, size) for entry in splitter.feed(piece)]
    splitter.finish()
    assert len(entries) == OPLOGS[name]
    assert b"".join(entries) == whole
    assert entries == [one.raw for one in bson.decode_all(whole, RAW)]


RAW = CodecOptions(document_class=RawBSONDocument)


@pytest.mark.parametrize("name", OPLOGS)
def test_every_entry_of_an_oplog_is_replayed_as_it_is(name: str) -> None:
    """All are the owner's; the vectored inserts among them are no transactions whose beginning would be missing."""
    replay = Replay()
    for raw in bson.decode_all(content_of(name), RAW):
        assert replay.saved(bytes(raw.raw)) == [raw.raw]


# --- the damaged one, on every path that reads an archive ---

BROKEN = "malformed archive: the metadata of test.ixtest cannot be read"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reads", [tally, lambda found: list(compose(found))])
def test_a_damaged_archive_is_malformed_whatever_the_pieces(reads: Callable[[Any], object], size: int) -> None:
    with pytest.raises(Malformed, match=BROKEN):
        reads(pieces(content_of("bad.archive"), size))


@pytest.mark.parametrize("name", ["bad.archive", "w-oplog.archive", "parser.archive", "rs.bson"])
def test_whatever_is_wrong_with_an_archive_is_said_and_no_other_error(name: str) -> None:
    whole = content_of(name)
    for at in range(0, min(len(whole), 2500), 3):
        for changed in (whole[:at], whole[:at] + b"\x81" + whole[at + 1 :], whole[:at] + whole[at + 4 :]):
            for reads in (lambda found: Tally().feed(found), lambda found: list(compose([found]))):
                said = refusal(reads, changed)
                assert said.startswith(("malformed archive: ", "an operation of kind", "the command")) or not said


def refusal(reads: Callable[[Any], object], content: bytes) -> str:
    try:
        reads(content)
    except (Malformed, Unreplayable) as error:
        return str(error)
    return ""


def test_a_backup_of_a_damaged_archive_is_refused_with_a_sentence() -> None:
    settings: Any = SimpleNamespace(stall_seconds=10)
    part = parts.Part("mongo", "mongo.archive", ["cat", str(FOLDER / "bad.archive")], parts.Archive())
    with pytest.raises(Refused, match=rf"^mongo could not be dumped: {BROKEN}\.$"):
        parts.pump(part, [], settings)


def test_a_check_a_restore_a_rebuild_and_a_drill_refuse_a_damaged_archive_with_a_sentence() -> None:
    run = run_of("bad.archive")
    sentence = rf"^Run one on target bucket is damaged: mongo cannot be read \({BROKEN}\)\."
    with pytest.raises(Refused, match=sentence + "$"):
        check.verify(run.store, run.kept)
    # The other three begin with this.
    with pytest.raises(Refused, match=sentence + r" Use another target"):
        verify(run)
    # And read it a second time, which may go otherwise.
    with pytest.raises(Refused, match=rf"^Run one on target bucket is damaged: {BROKEN}\. Use another target"):
        list(run.archive())


def test_a_throwaway_database_that_writes_a_damaged_archive_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restore_engine, "_dumped", lambda *_: pieces(content_of("bad.archive"), 7))
    with pytest.raises(Refused, match=rf"^What mongodump in scratch wrote cannot be read: {BROKEN}\.$"):
        list(restore_engine.dump("scratch"))


@pytest.mark.parametrize("name", GOOD)
def test_a_run_with_a_good_archive_is_found_whole(name: str) -> None:
    verify(run_of(name))


class Repository(Store):
    """A repository with one run, whose archive is a file of the folder."""

    def __init__(self, name: str) -> None:
        super().__init__(SETTINGS, Target("bucket", "/nowhere"))
        self._file = FOLDER / name

    def read(self, *_: str) -> Any:
        return self._file.open("rb")

    def read_text(self, *_: str) -> str:
        return json.dumps(manifest_of(self._file))


SETTINGS: Settings = SimpleNamespace(password="")  # type: ignore[assignment]


def manifest_of(file: Path) -> dict[str, Any]:
    whole = file.read_bytes()
    part = {"kind": "stream", "snapshot": "s", "file": "mongo.archive", "bytes": len(whole)}
    try:
        mongo = tally([whole]).summary()
    except Malformed:
        mongo = {"collections": {}, "oplog": {"first": "", "last": ""}}
    return {"format": 1, "parts": {"mongo": part | {"sha256": sha256(whole).hexdigest()}}, "mongo": mongo}


def run_of(name: str) -> Run:
    return Run(Kept("one", "", "m"), Repository(name), manifest_of(FOLDER / name), Timestamp(2**31, 0))
