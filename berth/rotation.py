"""Change secrets of a running host: new ones first, former ones refused when nothing uses them any more.

`apply` runs after .env was written. Databases learn the new passwords first; services read theirs when they start, so
that a release follows. `retire` runs at the end of that release. Run again after an interruption, each goes on.

Accounts: a user of Redis has several passwords; a user of MongoDB has one, so that its new password is a new account
(berth.secrets.account).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from berth import secrets
from berth.host import clock, commands
from berth.host.commands import last_lines
from berth.host.mongosh import LOGIN, SHELL
from berth.host.refused import Refused
from berth.stack.applied import Applied, digest
from berth.stack.needs import MONGO, REDIS, Needs, password_of

# Where containers' secrets are.
DIRECTORY = Path("/run/berth/secrets")
ENV_FILE = Path("/opt/berth/.env")
MONGO_CONTAINER, REDIS_CONTAINER = "berth-mongo-1", "berth-redis-1"
# It reads its password when it starts.
EXPORTER = "redis_exporter"
# An index that is being built delays a change of users.
SECONDS = 180
DAY = 86400
# The password is read inside the container, or comes over standard input: it is on no command line.
_REDIS = 'REDISCLI_AUTH="$(cat /run/secrets/redis_admin_password)" redis-cli --no-auth-warning --user admin '
# Accounts that no current password belongs to: those of former passwords, of removed services, and from before accounts
# were named after their password. Other accounts were made by somebody else.
_DROP = """
const [current, users] = JSON.parse(%s);
const dropped = [];
for (const { name } of admin.adminCommand({ listDatabases: 1, nameOnly: true }).databases) {
  if (["admin", "local", "config"].includes(name)) continue;
  const own = admin.getSiblingDB(name);
  for (const { user } of own.getUsers().users ?? own.getUsers()) {
    const ours = users.includes(user) || /~[0-9a-f]{8}$/.test(user);
    if (ours && !current.includes(`${name} ${user}`)) {
      own.dropUser(user);
      dropped.push(user);
    }
  }
}
print(JSON.stringify(dropped));
"""
_SIGN_IN = """
const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
const found = {};
for (const [name, [database, user, password]] of Object.entries(input)) {
  try {
    new Mongo("mongodb://127.0.0.1:27017/?directConnection=true").getDB(database).auth(user, password);
    found[name] = "accepted";
  } catch (error) {
    if (error.codeName !== "AuthenticationFailed" && error.code !== 18) throw error;
    found[name] = "refused";
  }
}
print(JSON.stringify(found));
"""


def apply(env_file: Path, directory: Path) -> dict[str, Any]:
    """Bring the databases and the files of secrets to .env.

    Returns:
        changed: Whether anything was.
        secrets: The names of those that have another value.

    Raises:
        Refused: A database did not take its new passwords; the sentence says what to do. Everything works as before.
    """
    values, applied = secrets.read_env(env_file), Applied.read(env_file)
    before, now = applied.values, clock.moment(clock.time())
    wanted, elsewhere = secrets.needs(values), secrets.managed(values)
    names = [name for name in _names(values) if values[name.upper()]]
    differing = sorted(name for name in names if before.get(name.upper()) != values[name.upper()])
    if values == before and _is_written(values, applied, directory):
        return {"changed": False, "secrets": []}

    # On disk before anything learns of the new ones: what is accepted now, or will be, stays so until it is retired.
    accounts = not before or bool({*differing} & _of_services(wanted))
    for user in secrets.redis_users(wanted.rights) if REDIS not in elsewhere else ():
        _keep_accepted(applied, values, user)
    if MONGO not in elsewhere and "mongo_root_password" in differing and before:
        roots = [*applied.roots, before["MONGO_ROOT_PASSWORD"], values["MONGO_ROOT_PASSWORD"]]
        applied.roots = list(dict.fromkeys(roots))
    applied.changed = clock.time() if accounts else applied.changed
    applied.write(env_file)

    databases = {name for name in (MONGO, REDIS) if name not in elsewhere}
    _write(values, applied, directory, databases)
    if MONGO in databases and _runs(MONGO_CONTAINER):
        _must(
            commands.run("docker", "exec", MONGO_CONTAINER, *SHELL, "/etc/berth/mongo-init.js", seconds=SECONDS),
            "MongoDB did not take its new passwords",
        )
    if REDIS in databases:
        _load_users()
    kept = {name: at for name, at in applied.since.items() if name in names or name.upper() not in before}
    applied.since = {**kept, **{name: now for name in names if name in differing or name not in kept}}
    applied.values, applied.roots = values, []
    applied.write(env_file)
    _write(values, applied, directory)
    if former := {user: applied.accepted.pop(user) for user in secrets.REDIS_USERS if user in applied.accepted}:
        # No service uses them.
        _write(values, applied, directory, {REDIS})
        _load_users()
        _restart_exporter()
        _close_connections(former, None)
        applied.write(env_file)
    return {"changed": True, "secrets": differing}


def retire(env_file: Path, directory: Path, since: float | None = None) -> dict[str, Any]:
    """Make every former password of an account invalid, and close the connections that were opened with one.

    Args:
        env_file: The .env of this host.
        directory: Where its secrets are written.
        since: When the oldest container of the live release started (seconds since the epoch). Where passwords changed
            after it, nothing is retired: it uses former ones. None: retire whatever uses them.

    Raises:
        Refused: A database did not answer; run it again.
    """
    applied = Applied.read(env_file)
    if not applied.changed or (since is not None and since < applied.changed):
        return {"changed": False}
    values = secrets.read_env(env_file)
    wanted, elsewhere = secrets.needs(values), secrets.managed(values)
    dropped: list[str] = []
    if MONGO not in elsewhere and wanted.databases and _runs(MONGO_CONTAINER):
        current = [f"{base} {secrets.account(values, user)}" for user, base in wanted.databases.items()]
        drop = LOGIN + _DROP % json.dumps(json.dumps([current, [*wanted.databases]]))
        done = _must(
            commands.run("docker", "exec", MONGO_CONTAINER, *SHELL, "--eval", drop, seconds=SECONDS),
            "MongoDB did not drop accounts of former passwords",
        )
        dropped = json.loads(done.strip().splitlines()[-1])
    former = applied.accepted
    if REDIS not in elsewhere and former:
        applied.accepted = {}
        _write(values, applied, directory, {REDIS})
        _load_users()
        _close_connections(former, None if since is None else clock.time() - since)
    applied.accepted, applied.changed = {}, 0
    applied.write(env_file)
    return {"changed": True, "dropped": dropped, "redis": sorted(former)}


def refused(values: Mapping[str, str], former: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Sign in with former passwords of accounts; look for other former values in the files of secrets.

    Args:
        values: The lines of .env.
        former: Secret -> its former value.
        directory: Where the secrets of containers are written.

    Returns:
        Secret -> "refused" or "accepted".

    Raises:
        Refused: A database did not answer.
    """
    needed = secrets.needs(dict(values))
    bases = {password_of(MONGO, user): (base, user) for user, base in needed.databases.items()}
    users = {password_of(REDIS, user): user for user in needed.rights} | {"redis_admin_password": "admin"}
    mongo: dict[str, list[str]] = {}
    found = {}
    written = "\n".join(one.read_text() for one in directory.glob("*/*") if one.is_file())
    for name, password in former.items():
        if name in bases:
            base, user = bases[name]
            mongo[name] = [base, secrets.account({name.upper(): password}, user), password]
        elif name == "mongo_root_password":
            mongo[name] = ["admin", "root", password]
        elif name in users:
            found[name] = _redis_sign_in(users[name], password)
        else:
            found[name] = "accepted" if password in written else "refused"
    if mongo:
        done = _must(
            commands.run(
                *("docker", "exec", "--interactive", MONGO_CONTAINER, *SHELL, "--eval", _SIGN_IN),
                given=json.dumps(mongo),
            ),
            "MongoDB does not answer",
        )
        found |= json.loads(done.strip().splitlines()[-1])
    return found


def pending(env_file: Path = ENV_FILE) -> bool:
    """Tell whether former passwords are still accepted, or may be."""
    return bool(Applied.read(env_file).changed)


def since(env_file: Path = ENV_FILE) -> dict[str, str]:
    """Return secret -> since when it has its value (ISO 8601), as far as this host knows."""
    return dict(sorted(Applied.read(env_file).since.items(), key=lambda one: one[1]))


def note(names: Iterable[str], env_file: Path = ENV_FILE) -> dict[str, Any]:
    """Record that secrets outside .env have new values since now: the password of the backups, a login."""
    applied = Applied.read(env_file)
    applied.since |= dict.fromkeys(names, clock.moment(clock.time()))
    applied.write(env_file)
    return {"changed": True}


def _of_services(wanted: Needs) -> set[str]:
    """Return the passwords of the services' accounts."""
    return {password_of(MONGO, user) for user in wanted.databases} | {
        password_of(REDIS, user) for user in wanted.rights
    }


def _names(values: dict[str, str]) -> list[str]:
    """Return the secrets of this .env that are not derived from others."""
    wanted = secrets.needs(values)
    names = [name for name in wanted.names if not wanted.sources(name)]
    return list(dict.fromkeys([*names, "smtp_password", "mongo_uri", "redis_uri"]))


def _keep_accepted(applied: Applied, values: dict[str, str], user: str) -> None:
    """Note what a user of Redis may sign in with, where its password changes."""
    new = digest(secrets.redis_password(values, user))
    former = digest(secrets.redis_password(applied.values, user)) if _has(applied.values, user) else new
    if former != new:
        known = applied.accepted.get(user, [])
        applied.accepted[user] = list(dict.fromkeys([*known, former, new]))


def _has(values: dict[str, str], user: str) -> bool:
    """Tell whether these lines have the password of a user of Redis."""
    name = "redis_admin_password" if user in secrets.REDIS_USERS else password_of(REDIS, user)
    return bool(values.get(name.upper()))


def _write(values: dict[str, str], applied: Applied, directory: Path, only: set[str] | None = None) -> None:
    files, owners = secrets.secrets(values, applied), secrets.uids(secrets.needs(values))
    chosen = {name: uid for name, uid in owners.items() if only is None or name in only}
    secrets.write(directory, files, chosen)


def _is_written(values: dict[str, str], applied: Applied, directory: Path) -> bool:
    """Tell whether the files are as this version of the program writes them."""
    try:
        files = secrets.secrets(values, applied)
        return all((directory / one / name).read_text() == text for one in files for name, text in files[one].items())
    except FileNotFoundError:
        return False


def _runs(container: str) -> bool:
    return commands.run("docker", "inspect", "--format={{.State.Running}}", container).stdout.strip() == "true"


def _must(done: Any, what: str) -> str:
    """Return a command's output. Raises Refused where it failed."""
    if done.returncode:
        lines = last_lines(done)
        raise Refused(f"{what}: {lines[-1] if lines else f'exit status {done.returncode}'}", lines=lines)
    return str(done.stdout)


def _in_redis(command: str) -> Any:
    return commands.run("docker", "exec", REDIS_CONTAINER, "sh", "-c", _REDIS + command)


def _load_users() -> None:
    """Have Redis read its users again; their connections stay open."""
    if _runs(REDIS_CONTAINER):
        said = _must(_in_redis("acl load"), "Redis did not read its users").strip()
        if said != "OK":
            raise Refused(f"Redis did not read its users: {said}")


def _close_connections(users: Mapping[str, list[str]], age: float | None) -> None:
    """Close connections of these users; with an age, only those open for more seconds than that."""
    if not _runs(REDIS_CONTAINER):
        return
    for user in users:
        older = f" maxage {int(age) + 1}" if age is not None else ""
        _must(_in_redis(f"client kill user {user} skipme yes{older}"), "Redis did not close former connections")


def _redis_sign_in(user: str, password: str) -> str:
    script = f"read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli --no-auth-warning --user {user} ping"
    done = commands.run(
        *("docker", "exec", "--interactive", REDIS_CONTAINER, "sh", "-c", script), given=password + "\n"
    )
    said = done.stdout + done.stderr
    if "WRONGPASS" in said:
        return "refused"
    if "PONG" in said or "NOPERM" in said:
        return "accepted"
    raise Refused(f"Redis does not answer: {said.strip()}")


def _restart_exporter() -> None:
    found = commands.run("docker", "ps", "--quiet", f"--filter=label=com.docker.compose.service={EXPORTER}").stdout
    if found.split():
        commands.run("docker", "restart", *found.split())


def _ages() -> str:
    """Return a line for each secret, the oldest first."""
    days = {name: (clock.time() - datetime.fromisoformat(at).timestamp()) / DAY for name, at in since().items()}
    return "\n".join(f"{since()[name]}  {round(age):>5} days  {name}" for name, age in days.items())


def main(arguments: list[str]) -> int:
    """Run apply, retire, refused or note, and print the answer as JSON; ages prints a table."""
    env_file, directory = map(Path, arguments[1:3]) if len(arguments) == 3 else (ENV_FILE, DIRECTORY)
    if arguments == ["ages"]:
        print(_ages() or "Nothing is known yet: site.yml writes it down.")
        return 0
    try:
        match arguments[0]:
            case "apply":
                answer = apply(env_file, directory)
            case "retire":
                answer = retire(env_file, directory)
            case "note":
                answer = note(arguments[1:])
            case _:
                answer = refused(secrets.read_env(env_file), json.load(sys.stdin), directory)
    except KeyError as missing:
        answer = {"reason": f"{env_file}: {missing.args[0]} is missing", "lines": []}
    except (secrets.UnreadableError, OSError) as error:
        answer = {"reason": str(error), "lines": []}
    except Refused as why:
        answer = why.answer
    print(json.dumps(answer))
    return 1 if "reason" in answer else 0
