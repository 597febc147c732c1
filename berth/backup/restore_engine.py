"""Docker calls of a restore: the databases' own tools in their containers, and the services that write to them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from subprocess import CompletedProcess, Popen
from typing import Any

from berth.backup.bson import Malformed
from berth.backup.replay import STAGED, is_staged
from berth.backup.restic import PIECE, Lines
from berth.backup.restore_stream import compose
from berth.host import commands, system
from berth.host.live import COLOURS
from berth.host.mongosh import LOGIN, SHELL
from berth.host.refused import Refused
from berth.host.system import Container
from berth.stack.databases import Database
from berth.stack.description import Description

# Stored functions are the owner's data. Other system collections are the server's, or come with their views.
FUNCTIONS = "system.js"
HEALTHY_SECONDS = 180
# A worker finishes its tasks, up to the stop timeout of its container.
STOP_SECONDS = 180

# The password comes from the container's secret file and is on no command line.
_TOOL = """exec "$@" --config=/dev/fd/3 3<<END
password: '$(cat /run/secrets/mongo_root_password)'
END
"""
_ACCESS = ("--host=127.0.0.1", "--port=27017", "--username=root", "--authenticationDatabase=admin")
# The snapshot becomes the base of an append-only file, as the manifest declares.
_STAGE_REDIS = """
set -eu; umask 077; cd /data; rm -rf next next.part; mkdir next.part
cat > next.part/appendonly.aof.1.base.rdb
echo 'file appendonly.aof.1.base.rdb seq 1 type b' > next.part/appendonly.aof.manifest
sync; mv next.part next
"""
# May be interrupted anywhere and run again: as long as `next` exists, it is not done.
_SWAP_REDIS = """
set -eu; cd /data
if [ -e next ]; then
  rm -rf before
  if [ -e appendonlydir ]; then mv appendonlydir before; fi
  rm -f dump.rdb; mv next appendonlydir
fi
sync; rm -rf before next.part
"""


def docker(*arguments: str, seconds: float = 120) -> CompletedProcess[bytes]:
    return commands.run_bytes("docker", *arguments, seconds=seconds)


def must(done: CompletedProcess[bytes], what: str) -> str:
    """Return a command's output, or refuse with `what` and its last line."""
    if done.returncode:
        lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-8:]
        raise Refused(f"{what}: {lines[-1] if lines else f'ended with {done.returncode}'}", lines=lines)
    return done.stdout.decode(errors="replace").strip()


def inspect(container: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(must(docker("inspect", container), f"There is no container {container}"))
    return found[0]


def mongo_shell(container: str, script: str) -> Any:
    """Run a script in mongosh as root and return the JSON it printed last."""
    call = ("exec", "--interactive", container, *SHELL, "--eval", LOGIN + script)
    output = must(docker(*call), f"The database in {container} does not answer")
    return json.loads(output.splitlines()[-1]) if output else None


def collections(container: str) -> dict[str, int]:
    """Return database.collection -> documents, of the owner's data."""
    found = _list(container, "collection", "database.getCollection(one.name).countDocuments({})")
    return {name: count for name, count in found.items() if not is_staged(name)}


def staged(container: str) -> dict[str, int]:
    """Return the same of the staged collections, under the names that they will have."""
    found = _list(container, "collection", "database.getCollection(one.name).countDocuments({})")
    return {name.replace(STAGED, "", 1): count for name, count in found.items() if is_staged(name)}


def views(container: str) -> dict[str, Any]:
    """Return database.view -> its options (viewOn, pipeline, collation)."""
    # Plain JSON has no dates, regular expressions and object ids.
    return _list(container, "view", "JSON.parse(EJSON.stringify(one.options, { relaxed: false }))")


def time_series(container: str) -> list[str]:
    """Return the collections that MongoDB cannot rename."""
    return sorted(_list(container, "timeseries", "1"))


def _list(container: str, kind: str, value: str) -> dict[str, Any]:
    found: dict[str, Any] = mongo_shell(
        container,
        f"""
        const found = {{}};
        for (const {{ name }} of admin.adminCommand({{ listDatabases: 1, nameOnly: true }}).databases) {{
          if (["admin", "config", "local"].includes(name)) continue;
          const database = admin.getSiblingDB(name);
          for (const one of database.getCollectionInfos())
            if (one.type === "{kind}" && (one.name === "{FUNCTIONS}" || !one.name.startsWith("system.")))
              found[`${{name}}.${{one.name}}`] = {value};
        }}
        print(JSON.stringify(found));
        """,
    )
    return found


def drop_staged(container: str) -> None:
    """Drop the staged collections."""
    mongo_shell(
        container,
        f"""
        for (const {{ name }} of admin.adminCommand({{ listDatabases: 1, nameOnly: true }}).databases) {{
          if (["admin", "config", "local"].includes(name)) continue;
          const database = admin.getSiblingDB(name);
          for (const one of database.getCollectionInfos())
            if (one.name.startsWith("{STAGED}")) database.getCollection(one.name).drop();
        }}
        print("0");
        """,
    )


def swap(container: str, names: Iterable[str], removed: Iterable[str], views: dict[str, Any]) -> None:
    """Drop what was not in the backup; rename the staged collections to their live names.

    Each rename is atomic. May be interrupted anywhere and run again: a collection that is no longer staged has been
    renamed. A view or a time series of that name, which MongoDB does not replace by a rename, is dropped first. It
    neither renames to stored functions nor drops them: these are replaced one by one.
    """
    mongo_shell(
        container,
        f"""
        const split = (full) => [full.slice(0, full.indexOf(".")), full.slice(full.indexOf(".") + 1)];
        const infos = (database, name) => database.getCollectionInfos().filter((one) => one.name === name);
        const type = (database, name) => infos(database, name).map((one) => one.type)[0];
        const replace = (target, source) => {{
          const found = source.find({{}}, {{}}, {{ promoteValues: false }}).toArray();
          for (const one of found) target.replaceOne({{ _id: one._id }}, one, {{ upsert: true }});
          target.deleteMany({{ _id: {{ $nin: found.map((one) => one._id) }} }});
          source.drop();
        }};
        for (const full of {json.dumps(sorted(removed))}) {{
          const [name, collection] = split(full), gone = admin.getSiblingDB(name).getCollection(collection);
          if (collection === "{FUNCTIONS}") gone.deleteMany({{}});
          else gone.drop();
        }}
        for (const [full, options] of Object.entries({json.dumps(views)})) {{
          const [name, view] = split(full), database = admin.getSiblingDB(name);
          database.getCollection(view).drop();
          const exact = EJSON.parse(JSON.stringify(options), {{ relaxed: false }});
          const result = database.runCommand({{ create: view, ...exact }});
          if (!result.ok) throw new Error(`${{full}}: ${{result.errmsg}}`);
        }}
        for (const full of {json.dumps(sorted(names))}) {{
          const [name, collection] = split(full), beside = "{STAGED}" + collection;
          const database = admin.getSiblingDB(name), target = database.getCollection(collection);
          if (!type(database, beside)) continue;
          if (collection === "{FUNCTIONS}") {{
            replace(target, database.getCollection(beside));
            continue;
          }}
          if (!["collection", undefined].includes(type(database, collection))) target.drop();
          const command = {{ renameCollection: `${{name}}.${{beside}}`, to: full, dropTarget: true }};
          const result = admin.adminCommand(command);
          if (!result.ok) throw new Error(`${{full}}: ${{result.errmsg}}`);
        }}
        // mongodump --oplog begins with the newest entry, and refuses one that renames.
        admin.adminCommand({{ appendOplogNote: 1, data: {{ msg: "restored" }} }});
        print("0");
        """,
    )


def drop(container: str, databases: Iterable[str]) -> None:
    """Drop databases, so that nothing stays in them that is not in the backup."""
    names = json.dumps(sorted(databases))
    mongo_shell(container, f"for (const name of {names}) admin.getSiblingDB(name).dropDatabase(); print('0');")


def dump(container: str, *options: str) -> Iterator[bytes]:
    """Yield an archive of the owner's data; refuse where mongodump fails or writes something else."""
    try:
        yield from compose(_dumped(container, *options))
    except Malformed as error:
        raise Refused(f"What mongodump in {container} wrote cannot be read: {error}.") from None


def _dumped(container: str, *options: str) -> Iterator[bytes]:
    process = _tool(container, "mongodump", "--archive", "--numParallelCollections=1", *options)
    assert process.stdout  # noqa: S101
    errors = Lines(process.stderr)
    with commands.killed_on_error(process):
        while piece := process.stdout.read(PIECE):
            yield piece
    if process.wait():
        raise Refused(f"mongodump in {container} failed: {_end(errors)}", lines=errors.last())


def restore(container: str, archive: Iterable[bytes], *options: str) -> int:
    """Pipe an archive to mongorestore; return how many documents it restored, or refuse where one failed."""
    process = _tool(container, "mongorestore", "--archive", *options)
    text = _fed(process, archive).text()
    code = process.returncode
    counted = re.search(r"(\d+) document\(s\) restored successfully\. (\d+) document\(s\) failed", text)
    if code or counted is None or int(counted[2]):
        telling = [line for line in text.splitlines() if "Failed:" in line] or text.splitlines()[-1:]
        reason = telling[-1].partition("\t")[2] if telling else f"it ended with {code}"
        raise Refused(f"mongorestore in {container}: {reason}", lines=text.splitlines()[-8:])
    return int(counted[1])


def _fed(process: Popen[bytes], pieces: Iterable[bytes]) -> Lines:
    """Write all pieces to its input, wait for its end, and return its output."""
    assert process.stdin  # noqa: S101
    output = Lines(process.stderr)
    with commands.killed_on_error(process):
        with suppress(BrokenPipeError):
            for piece in pieces:
                process.stdin.write(piece)
        with suppress(BrokenPipeError):
            process.stdin.close()
    process.wait()
    return output


def _tool(container: str, name: str, *options: str) -> Popen[bytes]:
    shell = ("docker", "exec", "--interactive", container, "sh", "-c", _TOOL)
    return commands.start(*shell, name, name, *_ACCESS, *options)


def restore_database(container: str, database: Database, dump: Iterable[bytes]) -> None:
    """Run the application's own command on a dump in the database's container; refuse where it fails."""
    process = commands.start("docker", "exec", "--interactive", container, *database.restore)
    output = _fed(process, dump)
    if process.returncode:
        lines = output.last()
        raise Refused(
            f"berth.restore of service {database.name} ended with {process.returncode}: {_end(output)}", lines=lines
        )


def members(stack: Description) -> list[Container]:
    """Return the containers of each colour's services, running or not."""
    listed = must(commands.run_bytes(*system.LIST_CONTAINERS), "Docker does not answer")
    projects = [f"berth-{colour}" for colour in COLOURS]
    return [one for one in system.containers(listed) if one.project in projects and stack.has(one.service)]


def writers(stack: Description) -> list[str]:
    """Return the running containers of a release that write to the databases."""
    return [one.name for one in members(stack) if stack.get(one.service).writes and one.state == "running"]


def stop(names: list[str]) -> None:
    if names:
        must(docker("stop", *names, seconds=STOP_SECONDS), "The release's services could not be stopped")


def start(names: list[str]) -> None:
    """Start them again and wait until they are healthy."""
    if names:
        must(docker("start", *names), "The release's services could not be started")
    for name in names:
        await_healthy(name)


def await_healthy(name: str) -> None:
    deadline = time.monotonic() + HEALTHY_SECONDS
    while True:
        state = inspect(name)["State"]
        if state.get("Health", {}).get("Status") == "healthy":
            return
        if not state["Running"] or time.monotonic() > deadline:
            lines = docker("logs", "--tail=8", name)
            output = (lines.stdout + lines.stderr).decode(errors="replace").splitlines()
            raise Refused(f"{name} did not become healthy: {output[-1] if output else state['Status']}", lines=output)
        time.sleep(0.5)


def replace_redis(container: str, snapshot: Iterable[bytes]) -> None:
    """Replace its append-only file by one with this snapshot as the base, as Redis itself rewrites it."""
    stage_redis(container, snapshot)
    swap_redis(container)


def stage_redis(container: str, snapshot: Iterable[bytes]) -> None:
    """Stage an append-only file next to the live one, in the same volume."""
    image, volume = _redis_data(container)
    _in_volume(image, volume, _STAGE_REDIS, snapshot)


def swap_redis(container: str) -> None:
    """Restart Redis on the staged file, if there is one."""
    image, volume = _redis_data(container)
    stop([container])
    try:
        _in_volume(image, volume, _SWAP_REDIS)
    finally:
        start([container])


def drop_staged_redis(container: str) -> None:
    image, volume = _redis_data(container)
    _in_volume(image, volume, "cd /data; rm -rf next next.part")


def _redis_data(container: str) -> tuple[str, str]:
    about = inspect(container)
    return about["Config"]["Image"], next(one["Name"] for one in about["Mounts"] if one["Destination"] == "/data")


def fill_redis(image: str, volume: str, snapshot: Iterable[bytes]) -> None:
    """Write an append-only file into a volume that no Redis uses."""
    _in_volume(image, volume, _STAGE_REDIS, snapshot)
    _in_volume(image, volume, _SWAP_REDIS)


def _in_volume(image: str, volume: str, script: str, stdin: Iterable[bytes] = ()) -> None:
    """Run a script as Redis's user in a container that has only the volume."""
    limits = ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=999:999")
    mount = (f"--volume={volume}:/data", "--entrypoint=sh")
    command = ("docker", "run", "--rm", "--interactive", *limits, *mount, image, "-c", script)
    process = commands.start(*command)
    errors = _fed(process, stdin)
    if process.returncode:
        raise Refused(f"Volume {volume} could not be filled: {_end(errors)}", lines=errors.last())


def _end(errors: Lines) -> str:
    return (errors.last() or ["no output"])[-1]
