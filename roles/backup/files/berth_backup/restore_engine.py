"""What a restore asks of Docker: the databases' own tools in their containers, and who writes to them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from berth_backup.restic import PIECE, Lines
from berth_backup.settings import Refused

# Services that write to the databases; the front end does not.
WRITERS = ("auth_service", "user_service", "celery_worker", "beat")
HEALTHY_SECONDS = 180
# A worker ends what it holds, for as long as its container was given.
STOP_SECONDS = 180

# The password comes from the container's secret file and is on no command line.
_TOOL = """exec "$@" --config=/dev/fd/3 3<<END
password: '$(cat /run/secrets/mongo_root_password)'
END
"""
_ACCESS = ("--host=127.0.0.1", "--port=27017", "--username=root", "--authenticationDatabase=admin")
# A snapshot is a base to go on from; the manifest says so.
_BASE = """
set -eu; umask 077; cd /data; rm -rf next before; mkdir next
cat > next/appendonly.aof.1.base.rdb
echo 'file appendonly.aof.1.base.rdb seq 1 type b' > next/appendonly.aof.manifest
if [ -e appendonlydir ]; then mv appendonlydir before; fi
mv next appendonlydir; rm -rf before dump.rdb
"""
_SHELL = """
const admin = new Mongo("mongodb://127.0.0.1:27017/?directConnection=true").getDB("admin");
admin.auth("root", require("fs").readFileSync("/run/secrets/mongo_root_password", "utf8").trim());
"""


def run(*command: str, seconds: float = 120) -> subprocess.CompletedProcess[bytes]:
    """Run a command; a time-out counts as a failure like any other."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, b"", f"not done within {seconds:.0f} s".encode())


def docker(*arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[bytes]:
    return run("docker", *arguments, seconds=seconds)


def must(done: subprocess.CompletedProcess[bytes], what: str) -> str:
    """Return what a command said, or refuse: this could not be done."""
    if done.returncode:
        lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-8:]
        raise Refused(f"{what}: {lines[-1] if lines else f'ended with {done.returncode}'}", lines)
    return done.stdout.decode(errors="replace").strip()


def inspect(container: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(must(docker("inspect", container), f"There is no container {container}"))
    return found[0]


def mongo_shell(container: str, script: str) -> Any:
    """Run a script in mongosh as root and return the JSON it printed last."""
    given = ("exec", "--interactive", container, "mongosh", "--quiet", "--norc", "--nodb", "--eval", _SHELL + script)
    said = must(docker(*given), f"The database in {container} does not answer")
    return json.loads(said.splitlines()[-1]) if said else None


def collections(container: str) -> dict[str, int]:
    """Return database.collection -> documents, of what belongs to the owner."""
    found: dict[str, int] = mongo_shell(
        container,
        """
        const found = {};
        for (const { name } of admin.adminCommand({ listDatabases: 1, nameOnly: true }).databases) {
          if (["admin", "config", "local"].includes(name)) continue;
          const database = admin.getSiblingDB(name);
          for (const one of database.getCollectionInfos())
            if (one.type === "collection" && !one.name.startsWith("system."))
              found[`${name}.${one.name}`] = database.getCollection(one.name).countDocuments({});
        }
        print(JSON.stringify(found));
        """,
    )
    return found


def drop(container: str, databases: Iterable[str]) -> None:
    """Remove databases, so that nothing stays in them that the backup does not know."""
    names = json.dumps(sorted(databases))
    mongo_shell(container, f"for (const name of {names}) admin.getSiblingDB(name).dropDatabase(); print('0');")


def dump(container: str, *options: str) -> Iterator[bytes]:
    """Yield what mongodump writes; refuse at the end where it failed."""
    process = _tool(container, "mongodump", *options)
    assert process.stdout  # noqa: S101
    said = Lines(process.stderr)
    try:
        while piece := process.stdout.read(PIECE):
            yield piece
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.wait():
        raise Refused(f"mongodump in {container} failed: {_end(said)}", said.last())


def restore(container: str, archive: Iterable[bytes], *options: str) -> int:
    """Give an archive to mongorestore; return how many documents it restored, or refuse where one failed."""
    process = _tool(container, "mongorestore", "--archive", *options)
    assert process.stdin  # noqa: S101
    said = Lines(process.stderr)
    try:
        with suppress(BrokenPipeError):
            for piece in archive:
                process.stdin.write(piece)
        with suppress(BrokenPipeError):
            process.stdin.close()
    except BaseException:
        process.kill()
        process.wait()
        raise
    code = process.wait()
    text = said.text()
    counted = re.search(r"(\d+) document\(s\) restored successfully\. (\d+) document\(s\) failed", text)
    if code or counted is None or int(counted[2]):
        telling = [line for line in text.splitlines() if "Failed:" in line] or text.splitlines()[-1:]
        reason = telling[-1].partition("\t")[2] if telling else f"it ended with {code}"
        raise Refused(f"mongorestore in {container}: {reason}", text.splitlines()[-8:])
    return int(counted[1])


def _tool(container: str, name: str, *options: str) -> subprocess.Popen[bytes]:
    command = ("docker", "exec", "--interactive", container, "sh", "-c", _TOOL, name, name, *_ACCESS, *options)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def writers() -> list[str]:
    """Return the running containers of a release that write to the databases."""
    form = '{{.Names}}|{{.Label "com.docker.compose.project"}}|{{.Label "com.docker.compose.service"}}'
    listed = must(docker("ps", "--format", form), "Docker does not answer")
    rows = [line.split("|") for line in listed.splitlines()]
    return [name for name, project, service in rows if project.startswith("berth-") and service in WRITERS]


def stop(names: list[str]) -> None:
    if names:
        must(docker("stop", *names, seconds=STOP_SECONDS), "The release's services could not be stopped")


def start(names: list[str]) -> None:
    """Start them again and wait until they are well."""
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
            said = (lines.stdout + lines.stderr).decode(errors="replace").splitlines()
            raise Refused(f"{name} did not become healthy: {said[-1] if said else state['Status']}", said)
        time.sleep(0.5)


def replace_redis(container: str, snapshot: Iterable[bytes]) -> None:
    """Begin its append-only file anew with this snapshot as the base, which is how Redis itself rewrites it."""
    about = inspect(container)
    volume = next(mount["Name"] for mount in about["Mounts"] if mount["Destination"] == "/data")
    stop([container])
    try:
        fill_redis(about["Config"]["Image"], volume, snapshot)
    finally:
        start([container])


def fill_redis(image: str, volume: str, snapshot: Iterable[bytes]) -> None:
    """Write an append-only file into a volume, as its user, in a container that sees nothing else."""
    limits = ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=999:999")
    command = (
        "run",
        "--rm",
        "--interactive",
        *limits,
        f"--volume={volume}:/data",
        "--entrypoint=sh",
        image,
        "-c",
        _BASE,
    )
    process = subprocess.Popen(
        ("docker", *command), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stdin  # noqa: S101
    said = Lines(process.stderr)
    with suppress(BrokenPipeError):
        for piece in snapshot:
            process.stdin.write(piece)
        process.stdin.close()
    if process.wait():
        raise Refused(f"Volume {volume} could not be filled: {_end(said)}", said.last())


def _end(said: Lines) -> str:
    return (said.last() or ["it said nothing"])[-1]
