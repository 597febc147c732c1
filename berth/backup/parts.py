"""What is backed up, and how each part is asked for."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from berth.backup.archive import Tally
from berth.backup.bson import Malformed, Timestamp
from berth.backup.restic import PIECE, Lines, Upload
from berth.backup.settings import Settings
from berth.host import commands
from berth.host.live import ROUTES, read_live
from berth.host.refused import Refused
from berth.stack.databases import Database

# Killing `docker exec` does not end what it started: so that ends when its standard input does.
_BOUND = """
asked=$!
{ cat; kill $asked; } <&4 > /dev/null 2>&1 &
wait $asked
"""
# In the container it is in no unit of ours, whose niceness it would have.
_MONGODUMP = f"""
exec 4<&0
nice -n 15 mongodump --config=/dev/fd/3 "$@" 3<<END &
password: '$(cat /run/secrets/mongo_root_password)'
END
{_BOUND}"""
_REDIS = f"""
exec 4<&0
REDISCLI_AUTH="$(cat /run/secrets/redis_admin_password)" redis-cli --user admin --rdb - &
{_BOUND}"""
_COMMAND = f"""
exec 4<&0
nice -n 15 "$@" &
{_BOUND}"""
RDB_MARK, RDB_END = 40, 9
# What `docker exec` ends with when its container is ended.
STOPPED = (128 + 9, 128 + 15)
_AS_ROOT = ["--host=127.0.0.1", "--port=27017", "--username=root", "--authenticationDatabase=admin"]


def mongodump(settings: Settings, *arguments: str) -> list[str]:
    """Return the command; the password is read inside the container and stands on no command line."""
    script = ["docker", "exec", "--interactive", settings.mongo, "sh", "-c", _MONGODUMP]
    return [*script, "mongodump", *_AS_ROOT, "--quiet", *arguments]


def oplog_since(settings: Settings, position: Timestamp) -> list[str]:
    """Return the command for the entries from this one on."""
    query = {"ts": {"$gte": {"$timestamp": {"t": position[0], "i": position[1]}}}}
    asked = json.dumps(query, separators=(",", ":"))
    return mongodump(settings, "--db=local", "--collection=oplog.rs", f"--query={asked}", "--out=-")


class Watch(Protocol):
    """Sees a stream pass and returns what of it is to be kept."""

    def feed(self, piece: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class Archive:
    """MongoDB's dump, kept as it is."""

    def __init__(self) -> None:
        self.tally = Tally()

    def feed(self, piece: bytes) -> bytes:
        self.tally.feed(piece)
        return piece

    def finish(self) -> bytes:
        self.tally.finish()
        return b""


class Rdb:
    """Redis's own dump: knows its version, and its end from half of one.

    Redis sends 40 letters and digits after it, since it does not know its length before; redis-cli leaves them in.
    """

    def __init__(self) -> None:
        self.version = ""
        self._head = b""
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        if len(self._head) < 256:
            self._head += piece[:256]
        data = self._held + piece
        cut = max(0, len(data) - RDB_MARK - RDB_END)
        self._held = data[cut:]
        return data[:cut]

    def finish(self) -> bytes:
        rest = self._held
        if rest[RDB_END:].isalnum() and len(rest) == RDB_END + RDB_MARK:
            rest = rest[:RDB_END]
        # What ends it: one byte, and a checksum of everything.
        if not self._head.startswith(b"REDIS") or rest[-RDB_END : 1 - RDB_END] != b"\xff":
            raise Malformed("not a whole dump of Redis")
        _, found, after = self._head.partition(b"redis-ver")
        if found and after:
            self.version = after[1 : 1 + after[0]].decode(errors="replace")
        return rest


class Dump:
    """The dump of a database that only the application knows: it must not be empty."""

    def __init__(self) -> None:
        self._any = False

    def feed(self, piece: bytes) -> bytes:
        self._any = self._any or bool(piece)
        return piece

    def finish(self) -> bytes:
        if not self._any:
            raise Malformed("its command (berth.backup) wrote nothing to standard output")
        return b""


@dataclass
class Part:
    """Something that comes as a stream."""

    name: str
    file: str
    command: list[str]
    watch: Watch | None = None


def streams(settings: Settings) -> list[Part]:
    found = []
    if settings.mongo:
        command = mongodump(settings, "--archive", "--oplog", "--numParallelCollections=1")
        found.append(Part("mongo", "mongo.archive", command, Archive()))
    if settings.redis:
        command = ["docker", "exec", "--interactive", settings.redis, "sh", "-c", _REDIS]
        found.append(Part("redis", "redis.rdb", command, Rdb()))
    for one in settings.databases:
        command = ["docker", "exec", "--interactive", container_of(one), "sh", "-c", _COMMAND, one.name, *one.backup]
        found.append(Part(one.name, f"{one.name}.dump", command, Dump()))
    found += [Part(f"extra-{one['name']}", one["file"], one["command"]) for one in settings.commands]
    return found


def container_of(database: Database) -> str:
    """Return the container that the platform runs it in."""
    return f"berth-{database.name}-1"


def paths(settings: Settings) -> list[str]:
    """Return what is backed up where it lies, as far as it is there."""
    own = ("traefik", "releases", "releases.jsonl", "sbom", "docker-compose.prod.yml")
    return [place for place in [*(str(settings.root / name) for name in own), *settings.paths] if Path(place).exists()]


def release(settings: Settings) -> dict[str, str]:
    """Return what the edge leads to."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        if found := read_live(settings.root / ROUTES):
            return {"release": found.release, "colour": found.colour}
    return {}


def environment(settings: Settings) -> dict[str, str]:
    """Return the lines of .env that are no secret."""
    shown = ("BERTH_DOMAIN", "PUBLIC_URL", "ENVIRONMENT", "IMAGE_PREFIX", "TRAEFIK_IMAGE", "MONGO_IMAGE", "REDIS_IMAGE")
    try:
        lines = (settings.root / ".env").read_text().splitlines()
    except OSError:
        return {}
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return {name: values[name].strip("'") for name in shown if name in values}


@contextlib.contextmanager
def pieces(command: list[str], settings: Settings, who: str) -> Iterator[Iterator[bytes]]:
    """Run a command and yield its output piece by piece; refuse where it ends badly or says nothing for too long."""
    try:
        process = commands.start(*command)
    except OSError as error:
        raise Refused(f"{who} cannot be asked: {command[0]}: {error.strerror}.") from None
    assert process.stdout  # noqa: S101
    said = Lines(process.stderr)
    out = process.stdout.fileno()
    with contextlib.suppress(OSError):
        fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, PIECE)

    def read() -> Iterator[bytes]:
        while True:
            ready, _, _ = select.select([out], [], [], settings.stall_seconds)
            if not ready:
                raise Refused(f"{who} has said nothing for {settings.stall_seconds} s.", lines=said.last())
            piece = os.read(out, PIECE)
            if not piece:
                break
            yield piece
        code = process.wait()
        if code:
            lines = said.last()
            why = "its container was stopped meanwhile" if code in STOPPED else f"it ended with {code}"
            raise Refused(f"{who} could not be dumped: {lines[-1] if lines else why}.", lines=lines)

    try:
        yield read()
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        said.text()


def pump(part: Part, uploads: list[Upload], settings: Settings) -> dict[str, Any]:
    """Lead a part's stream to all stores at once; it fails as a whole only where the part itself does."""
    digest, length = sha256(), 0

    def give(piece: bytes) -> None:
        nonlocal length
        digest.update(piece)
        length += len(piece)
        for upload in uploads:
            upload.give(piece, settings.stall_seconds)

    try:
        with pieces(part.command, settings, part.name) as stream:
            for piece in stream:
                give(part.watch.feed(piece) if part.watch else piece)
                if all(upload.failure for upload in uploads):
                    break
            else:
                if part.watch:
                    give(part.watch.finish())
    except Malformed as error:
        why = Refused(f"{part.name} could not be dumped: {error}.")
        for upload in uploads:
            upload.abort(why)
        raise why from None
    except BaseException as error:
        why = error if isinstance(error, Refused) else Refused("The backup was ended.")
        for upload in uploads:
            upload.abort(why)
        raise
    return {"kind": "stream", "file": part.file, "bytes": length, "sha256": digest.hexdigest()}
