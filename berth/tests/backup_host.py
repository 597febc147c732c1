"""A host in memory for backups: restic's repositories, Docker with MongoDB and Redis, and each command a step."""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import IO, Any

import bson
from bson import Timestamp as Moment
from mongo_standin.archive import Reader, Writer

from berth.backup.replay import STAGED
from berth.tests.cut_off import CutOff, Killed

RDB = b"REDIS0012\xfa\x09redis-ver\x058.0.2" + b"data" * 50 + b"\xff" + b"checksum"
LIVE = {
    "auth_db.users": [{"_id": 1, "name": "Ada"}, {"_id": 2, "name": "Bob"}],
    "user_db.profiles": [{"_id": 1, "town": "Turin"}],
}
Answer = tuple[int, bytes, bytes]
Database = dict[str, list[dict[str, Any]]]


class CommandError(Exception):
    """The command ends badly, having done nothing."""


class Repository:
    """What restic keeps: keys and snapshots."""

    def __init__(self, password: str) -> None:
        self.keys = {"key1": password}
        self.snapshots: list[dict[str, Any]] = []

    def run(self, words: list[str], given: bytes, password: str) -> Answer:
        verb, options = words[0], [word for word in words[1:] if word.startswith("--")]
        rest = [word for word in words[1:] if not word.startswith("--")]
        if password not in self.keys.values():
            return 12, b"", b"Fatal: wrong password or no key found"
        if verb == "backup":
            return self._backup(words, options, given)
        if verb == "snapshots":
            return 0, json.dumps(self._with(options)).encode(), b""
        if verb == "dump" and "--archive=tar" not in options:
            found = next((one for one in self.snapshots if one["id"] == rest[0]), None)
            if not found or rest[1] not in found["files"]:
                return 1, b"", b"Fatal: no matching ID found"
            return 0, found["files"][rest[1]], b""
        if verb == "forget":
            return self._forget(options, rest)
        if verb == "restore":
            return self._restore(options, rest)
        if verb == "key":
            return self._key(rest, given, password)
        return 0, b"", b""

    def _backup(self, words: list[str], options: list[str], given: bytes) -> Answer:
        names = [word.partition("=")[2] for word in options if word.startswith("--stdin-filename=")]
        paths = words[words.index("--") + 1 :] if "--" in words else []
        files = {f"/{names[0]}": given} if names else _contents(paths)
        number = len(self.snapshots) + 1
        identity = sha256(f"{id(self)} {number}".encode()).hexdigest()
        # Restic ends a tag at a comma.
        tags = [tag for word in options if word.startswith("--tag=") for tag in word.removeprefix("--tag=").split(",")]
        counts = {"total_bytes_processed": len(given), "total_files_processed": len(files)}
        one = {"id": identity, "time": Host.clock(), "tags": tags, "files": files, "summary": counts}
        self.snapshots.append(one)
        summary = {"message_type": "summary", "snapshot_id": identity, **counts}
        return 0, json.dumps(summary).encode() + b"\n", b""

    def _with(self, options: list[str]) -> list[dict[str, Any]]:
        wanted = [word.removeprefix("--tag=").split(",") for word in options if word.startswith("--tag=")]
        found = [one for one in self.snapshots if all(tag in one["tags"] for tag in (wanted or [[]])[0])]
        return [{key: value for key, value in one.items() if key != "files"} for one in found]

    def _forget(self, options: list[str], rest: list[str]) -> Answer:
        if "--dry-run" in options:
            return 0, json.dumps([{"keep": self._with(options)[-1:], "remove": []}]).encode(), b""
        self.snapshots = [one for one in self.snapshots if one["id"] not in rest]
        return 0, b"", b""

    def _restore(self, options: list[str], rest: list[str]) -> Answer:
        [target] = [word.removeprefix("--target=") for word in options if word.startswith("--target=")]
        included = [word.removeprefix("--include=") for word in options if word.startswith("--include=")]
        [files] = [one["files"] for one in self.snapshots if one["id"] == rest[0]]
        for path, content in files.items():
            if any(path == one or path.startswith(f"{one}/") for one in included):
                place = Path(f"{target.rstrip('/')}{path}")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
        return 0, b"", b""

    def _key(self, rest: list[str], given: bytes, password: str) -> Answer:
        if rest[0] == "list":
            keys = [{"id": name, "current": known == password} for name, known in self.keys.items()]
            return 0, json.dumps(keys).encode(), b""
        if rest[0] == "add":
            self.keys[f"key{len(self.keys) + 1}"] = given.decode().strip()
        else:
            del self.keys[rest[1]]
        return 0, b"", b""


def _contents(paths: list[str]) -> dict[str, bytes]:
    found = [file for path in map(Path, paths) for file in ([path, *path.rglob("*")] if path.is_dir() else [path])]
    return {str(file): file.read_bytes() for file in found if file.is_file()}


class Host(CutOff):
    """Takes the place of berth.backup.commands."""

    _seconds = 0
    # The time of the next snapshot, one second after the one before; set by the test that needs another.
    began = 1_790_000_000.0

    @classmethod
    def clock(cls) -> str:
        cls._seconds += 1
        return datetime.fromtimestamp(cls.began + cls._seconds, UTC).isoformat()

    def __init__(self, fails_at: int = -1, fault: Callable[[], BaseException] = Killed, after: bool = False) -> None:
        super().__init__(fails_at, fault, after)
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.databases: dict[str, Database] = {"m": json.loads(json.dumps(LIVE))}
        self.oplog = [{"ts": Moment(9, 1), "op": "n", "ns": "", "o": {}}]
        self.redis = {"r": RDB}
        # Databases that the application dumps and restores: container -> what it holds.
        self.shops = {"berth-shop-1": b"rows"}
        self.running = {"m", "r"}
        # Containers of a release: name -> service.
        self.release: dict[str, str] = {}
        self.made: set[str] = set()
        self.volumes: dict[str, bytes] = {}
        self.commands: list[tuple[str, ...]] = []
        # What commands were given that a test answers.
        self.given: list[tuple[tuple[str, ...], bytes]] = []
        self.failed: tuple[str, ...] = ()
        # A test's own answers: the first whose pattern is found in a command.
        self.answers: list[tuple[str, Answer]] = []
        # Repositories whose restic takes nothing of what it is given.
        self.stuck: set[str] = set()
        # Where the edge reads its routes.
        self.edge = Path("/nowhere")
        # What systemd runs in a unit of its own, by verb.
        self.units: dict[str, Callable[[tuple[str, ...]], None]] = {}
        self._files: list[IO[bytes]] = []
        self.processes: list[Process] = []

    def again(self, fails_at: int = -1, fault: Callable[[], BaseException] = Killed) -> Host:
        """Begin to count anew, with another fault or none."""
        self.close()
        self.steps, self.fails_at, self.fault = 0, fails_at, fault
        return self

    def opened(self, content: bytes) -> IO[bytes]:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the host: whoever is killed closes nothing
        file.write(content)
        file.seek(0)
        self._files.append(file)
        return file

    def close(self) -> None:
        """End what the program has left open at its own end: restic takes that for the end of its input."""
        for file in self._files:
            file.close()
        for process in self.processes:
            process.left_alone()
        self._files, self.processes = [], []

    # --- what berth.backup.commands offers ---

    def run(
        self, *command: str, seconds: float = 120, given: bytes = b"", env: Mapping[str, str] | None = None
    ) -> CompletedProcess[bytes]:
        assert seconds > 0
        if command[0] == "systemd-run" and self.units:
            self.units[command[command.index("backup") + 1]](command)
            return CompletedProcess(command, 0, b"", b"")
        return CompletedProcess(command, *self.answer(command, given, env or {}))

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> Process:
        return Process(self, command, env or {})

    def answer(self, command: tuple[str, ...], given: bytes, env: Mapping[str, str]) -> Answer:
        with self.lock:
            self.commands.append(command)
            try:
                return tuple(self.step(lambda: self.do(command, given, env)))
            except CommandError as error:
                self.failed = command
                return 1, b"", f"Fatal: {error}".encode()

    def do(self, command: tuple[str, ...], given: bytes, env: Mapping[str, str]) -> Answer:
        for pattern, answer in self.answers:
            if re.search(pattern, " ".join(command)):
                self.given.append((command, given))
                return answer
        if command[0] == "restic":
            return self._restic(command, given, env)
        if command[0] == "docker":
            return self._docker(command[1:], given)
        if command[:2] == ("berth", "secrets"):
            (Path(command[4]) / "redis").mkdir(parents=True, exist_ok=True)
        elif command[0] == "sh":
            pem = "-----BEGIN {0} KEY-----\nMHcC\n-----END {0} KEY-----\n"
            return 0, (pem.format("PRIVATE") + pem.format("PUBLIC")).encode(), b""
        elif command[0] == "berth":
            # `maintenance on`, `maintenance off`, or `settle`.
            page = self.edge / "maintenance.yml"
            if command[2] == "on":
                page.touch()
            elif command[2] == "off":
                page.unlink(missing_ok=True)
        elif command[0] == "cp":
            source, place = map(Path, command[-2:])
            if source.is_dir():
                shutil.copytree(source, place, dirs_exist_ok=True)
            else:
                shutil.copy2(source, place)
        elif command[0] != "systemctl":
            raise AssertionError(command)
        return 0, b"running", b""

    def _restic(self, command: tuple[str, ...], given: bytes, env: Mapping[str, str]) -> Answer:
        words = list(command[1:])
        while words[0].startswith("--"):
            words.pop(0)
        place = env["RESTIC_REPOSITORY"]
        if words[0] == "version":
            return 0, b"restic 0.18.0 compiled with go", b""
        if words[0] == "init":
            self.repositories[place] = Repository(env["RESTIC_PASSWORD"])
            return 0, b"", b""
        if place not in self.repositories:
            return 10, b"", b"Fatal: repository does not exist"
        return self.repositories[place].run(words, given, env["RESTIC_PASSWORD"])

    def _docker(self, words: tuple[str, ...], given: bytes) -> Answer:
        verb, text = words[0], " ".join(words)
        if verb == "inspect":
            return self._inspect(words[1])
        if verb == "ps" and "--format" in words:
            rows = [
                f"{name}|{'running' if name in self.running else 'exited'}|||berth-blue|{service}|"
                for name, service in self.release.items()
            ]
            return 0, "\n".join(rows).encode(), b""
        if words[:2] == ("network", "create") or words[:2] == ("volume", "create"):
            self.made.add(f"{verb} {words[-1]}")
        elif verb == "run" and "--detach" in words:
            self._begin(next(word.removeprefix("--name=") for word in words if word.startswith("--name=")))
        elif verb == "run":
            self._in_volume(words, given)
        elif verb != "exec" and "--quiet" in words:
            kind = "container" if verb == "ps" else verb
            found = [one.partition(" ")[2] for one in sorted(self.made) if one.startswith(kind)]
            return 0, "\n".join(found).encode(), b""
        elif verb in ("rm", "network", "volume"):
            kind = "container" if verb == "rm" else verb
            self.made -= {f"{kind} {word}" for word in words}
        elif verb in ("start", "stop"):
            changed = set(words[1:])
            self.running = self.running | changed if verb == "start" else self.running - changed
        elif verb == "exec" and "dbsize" in text:
            return 0, b"3\n", b""
        elif verb == "exec" and "--interactive" in words:
            return self._tool(words[2], words, given)
        return 0, b"", b""

    def _inspect(self, name: str) -> Answer:
        service = self.release.get(name, "")
        known = {
            "Config": {
                **{"Image": f"{service or name}:1", "Env": ["PATH=/bin", "JWT_SECRET_KEY_FILE=x"]},
                **{"Healthcheck": {"Test": ["CMD", "ready", "--host=127.0.0.1"]}, "User": "999:999"},
                **{"Entrypoint": ["entry", "point"], "Cmd": ["serve"]},
            },
            "HostConfig": {
                **{"Memory": 1 << 28, "ReadonlyRootfs": True, "CapDrop": ["ALL"], "CapAdd": None},
                **{"Tmpfs": {"/run/shop": "size=16m"}, "ShmSize": 1 << 26},
            },
            "Mounts": [
                {"Type": "volume", "Name": f"{name}_data", "Destination": "/data"},
                {"Type": "bind", "Source": "/opt/berth/shop.conf", "Destination": "/etc/shop.conf"},
                {"Type": "bind", "Source": "/run/berth/secrets/shop", "Destination": "/run/secrets"},
            ],
            "State": {"Running": True, "Status": "running", "Health": {"Status": "healthy"}},
            "NetworkSettings": {"Networks": {"berth-drill": {"IPAddress": "127.0.0.1"}}},
        }
        return 0, json.dumps([known]).encode(), b""

    def _begin(self, name: str) -> None:
        self.made.add(f"container {name}")
        self.databases[name] = {}

    def _in_volume(self, words: tuple[str, ...], given: bytes) -> None:
        volume = next(
            word.removeprefix("--volume=").partition(":")[0] for word in words if word.startswith("--volume=")
        )
        if "next.part/appendonly" in words[-1]:
            self.volumes[volume] = given
        elif "mv next appendonlydir" in words[-1] and volume in self.volumes:
            self.redis[volume.removesuffix("_data")] = self.volumes.pop(volume)
        elif "rm -rf next" in words[-1] and "appendonlydir" not in words[-1]:
            self.volumes.pop(volume, None)

    def _tool(self, container: str, words: tuple[str, ...], given: bytes) -> Answer:
        text = " ".join(words)
        if "shop-dump" in words:
            return 0, self.shops[container], b""
        if "shop-restore" in words:
            self.shops[container] = given
            return 0, b"", b""
        if "redis-cli" in text:
            return 0, self.redis[container] + b"7acd" * 10, b""
        if "--eval" in words:
            return 0, self._script(self.databases[container], words[-1]), b""
        if "mongorestore" in words:
            return self._restore(self.databases[container], words, given)
        if "--collection=oplog.rs" in words:
            query = json.loads(next(word for word in words if word.startswith("--query=")).removeprefix("--query="))
            first = query["ts"]["$gte"]["$timestamp"]
            since = Moment(first["t"], first["i"])
            return 0, b"".join(bson.encode(one) for one in self.oplog if one["ts"] >= since), b""
        return 0, self._dump(self.databases[container], words), b""

    def _script(self, database: Database, script: str) -> bytes:
        if 'one.type === "collection"' in script:
            return json.dumps({name: len(rows) for name, rows in database.items()}).encode()
        if "renameCollection" in script:
            names = json.loads(re.findall(r"of (\[.*?\])\) \{", script)[-1])
            removed = json.loads(re.findall(r"of (\[.*?\])\) \{", script)[0])
            for name in removed:
                database.pop(name, None)
            for name in names:
                beside = name.replace(".", f".{STAGED}", 1)
                if beside in database:
                    database[name] = database.pop(beside)
        elif "dropDatabase" in script:
            for name in json.loads(
                script[
                    script.index("[", script.index("for (const name of")) : script.index(
                        "]", script.index("for (const name of")
                    )
                    + 1
                ]
            ):
                for full in [one for one in database if one.partition(".")[0] == name]:
                    del database[full]
        elif f'startsWith("{STAGED}")' in script:
            for full in [one for one in database if f".{STAGED}" in one]:
                del database[full]
        else:
            return b"{}"
        return b"0"

    def _dump(self, database: Database, words: tuple[str, ...]) -> bytes:
        chosen = [word.removeprefix("--db=") for word in words if word.startswith("--db=")]
        out = io.BytesIO()
        writer = Writer(out)
        names = [name for name in database if not chosen or name.partition(".")[0] in chosen]
        about = [
            {
                "db": name.partition(".")[0],
                "collection": name.partition(".")[2],
                "metadata": json.dumps({"indexes": [{"name": "_id_"}]}),
                "size": 0,
                "type": "collection",
            }
            for name in names
        ]
        writer.prelude("8.0.0", "100.0.0", about)
        for name in names:
            owner, _, collection = name.partition(".")
            writer.collection(owner, collection, iter([bson.encode(one) for one in database[name]]))
        if "--oplog" in words:
            writer.collection("", "oplog", iter([bson.encode(self.oplog[-1])]))
        return out.getvalue()

    def _restore(self, database: Database, words: tuple[str, ...], given: bytes) -> Answer:
        beside = STAGED if any(STAGED in word for word in words) else ""
        suffix = next(
            (word.partition("$database$")[2].partition(".")[0] for word in words if "--nsTo=$database$_" in word), ""
        )
        restored: Database = {}
        entries = []
        for owner, name, document in Reader(io.BytesIO(given)):
            if document is None:
                continue
            if (owner, name) == ("", "oplog"):
                entries.append(bson.decode(document))
            else:
                restored.setdefault(f"{owner}{suffix}.{beside}{name}", []).append(bson.decode(document))
        if "--oplogReplay" in words:
            for entry in entries:
                if entry["op"] == "i":
                    rows = restored.setdefault(entry["ns"], [])
                    rows[:] = [*(row for row in rows if row["_id"] != entry["o"]["_id"]), entry["o"]]
        database |= restored
        count = sum(map(len, restored.values()))
        return 0, b"", f"{count} document(s) restored successfully. 0 document(s) failed to restore.\n".encode()


class Input(io.RawIOBase):
    """What a process is given."""

    def __init__(self, stuck: bool) -> None:
        super().__init__()
        self.content = bytearray()
        self.ended = threading.Event()
        self.gone = threading.Event()
        self._stuck = stuck

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        if self._stuck:
            self.gone.wait(20)
        if self.gone.is_set():
            raise BrokenPipeError
        self.content += piece
        return len(piece)

    def close(self) -> None:
        self.ended.set()
        super().close()


class Output:
    """What a process says; who reads waits until it has ended."""

    def __init__(self, text: bytes | None = None) -> None:
        self._text, self._ended = b"", threading.Event()
        if text is not None:
            self.end(text)

    def end(self, text: bytes) -> None:
        if not self._ended.is_set():
            self._text = text
            self._ended.set()

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        self._ended.wait()
        return iter(self._text.splitlines(keepends=True))

    def close(self) -> None:
        pass


class Process:
    """One that is given a stream, or gives one. It is a step of the host when it ends, or as soon as it gives."""

    def __init__(self, host: Host, command: tuple[str, ...], env: Mapping[str, str]) -> None:
        self._host, self._command, self._env = host, command, env
        self.returncode: int | None = None
        self.stdin = Input(env.get("RESTIC_REPOSITORY", "") in host.stuck)
        self.stdout: Any = Output()
        self.stderr = Output()
        host.processes.append(self)
        self._gives: int | None = None
        if {"dump", "mongodump", "shop-dump"} & set(command) or any("--rdb" in word for word in command):
            self._gives, out, err = host.answer(command, b"", env)
            # The program waits for its descriptor.
            self.stdout = host.opened(out)
            self.stderr.end(err)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and self._gives is not None:
            self.returncode = self._gives
        elif self.returncode is None:
            if not self.stdin.ended.wait(20 if timeout is None else timeout):
                raise TimeoutExpired(self._command, timeout or 0)
            answer = -9, b"", b""
            try:
                answer = self._host.answer(self._command, bytes(self.stdin.content), self._env)
            finally:
                self._end(*answer)
        assert self.returncode is not None
        return self.returncode

    def left_alone(self) -> None:
        if self.returncode is None and self._gives is None:
            self._end(*self._host.do(self._command, bytes(self.stdin.content), self._env))

    def kill(self) -> None:
        if self.returncode is None and self._gives is not None:
            self.returncode = -9
        elif self.returncode is None:
            self._end(-9, b"", b"")

    terminate = kill

    def _end(self, code: int, out: bytes, err: bytes) -> None:
        self.returncode = code
        self.stdin.gone.set()
        self.stdout.end(out)
        self.stderr.end(err)
