"""Change secrets of a running host: new ones first, former ones refused when nothing uses them any more.

`apply` runs after .env was written. Databases learn the new passwords first; services read theirs when they start, so
that a release follows. `retire` runs at the end of that release. Run again after an interruption, each goes on.

Accounts: a user of Redis has several passwords; a user of MongoDB has one, so that its new password is a new account
(berth.secrets.account).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from berth import secrets
from berth.backup.records import Records
from berth.backup.settings import Settings
from berth.host import clock, commands
from berth.host.commands import last_lines
from berth.host.lock import Lock
from berth.host.mongosh import LOGIN, SHELL
from berth.host.refused import Refused
from berth.stack.applied import FILE, Applied, DamagedError, digest
from berth.stack.needs import MONGO, REDIS, password_of

# Where containers' secrets are.
DIRECTORY = Path("/run/berth/secrets")
ENV_FILE = Path("/opt/berth/.env")
CONTAINERS = {MONGO: "berth-mongo-1", REDIS: "berth-redis-1"}
# It reads its password when it starts.
EXPORTER = "redis_exporter"
# An index that is being built delays a change of users.
SECONDS = 180
ACCEPTED, REFUSED = "accepted", "refused"
# The engine has run where this is.
ENGINE = Path("/var/lib/docker/containers")
DAY = 86400
# The password is read inside the container, or comes over standard input: it is on no command line.
_REDIS = 'REDISCLI_AUTH="$(cat /run/secrets/redis_admin_password)" redis-cli --no-auth-warning --user admin '
# Accounts that no current password belongs to: those of former passwords, of removed services, and from before accounts
# were named after their password. Other accounts were made by somebody else.
_DROP = """
const [current, users] = JSON.parse(%s);
const dropped = [];
const listed = admin.adminCommand({ listDatabases: 1, nameOnly: true }).databases.map((one) => one.name);
// A database without a collection is not listed, and may have accounts.
for (const name of new Set([...listed, ...current.map((one) => one.split(" ")[0])])) {
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
const input = JSON.parse(process.env.BERTH_TRIED);
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
    before = applied.values
    elsewhere = secrets.managed(values)
    names = [name for name in _names(values) if values[name.upper()]]
    differing = sorted(name for name in names if before.get(name.upper()) != values[name.upper()])
    unfinished = _is_unfinished(applied)
    if not needs_applying(env_file, directory):
        return {"changed": False, "secrets": []}

    local = {name for name in (MONGO, REDIS) if name not in elsewhere}
    running = {name for name in local if _runs(CONTAINERS[name])}
    for name in local - running if before else ():
        if any(one.startswith(f"{name}_") for one in differing):
            raise Refused(f"{CONTAINERS[name]} does not run, so that its passwords cannot change. Start it first")

    # On disk before anything learns of the new ones: what is accepted now, or will be, stays so until it is retired.
    was_bare, applied.bare = applied.bare, False
    services = _accounts(values) != _accounts(before) or not before
    if REDIS in local:
        _keep_redis(applied, values)
    if MONGO in local and before and "mongo_root_password" in differing:
        roots = [*applied.roots, before["MONGO_ROOT_PASSWORD"], values["MONGO_ROOT_PASSWORD"]]
        applied.roots = list(dict.fromkeys(roots))
    applied.changed = clock.time() if services or unfinished else applied.changed
    replace(applied, bare=was_bare).write(env_file)

    _write(values, applied, directory, local)
    if MONGO in running:
        _initialize(values, applied)
    if REDIS in running:
        _load_users()
    now = clock.moment(clock.time())
    kept = {name: at for name, at in applied.since.items() if name in names or name.upper() not in before}
    applied.since = {**kept, **{name: now for name in names if name in differing or name not in kept}}
    applied.values, applied.roots = values, []
    applied.write(env_file)
    _write(values, applied, directory)
    if former := {user: applied.accepted[user] for user in secrets.REDIS_USERS if user in applied.accepted}:
        # No service uses them.
        applied.accepted = {user: known for user, known in applied.accepted.items() if user not in former}
        _write(values, applied, directory, {REDIS})
        if REDIS in running:
            _load_users()
            _restart_exporter()
            _close_connections(former, None)
    # Who started before this has former ones.
    applied.changed = clock.time() if applied.changed else 0
    applied.write(env_file)
    return {"changed": True, "secrets": differing}


def needs_applying(env_file: Path, directory: Path) -> bool:
    """Tell whether `apply` has something to do."""
    values, applied = secrets.read_env(env_file), Applied.read(env_file)
    return values != applied.values or _is_unfinished(applied) or not _is_written(values, applied, directory)


def retire(env_file: Path, directory: Path, since: float | None = None) -> dict[str, Any]:
    """Make every former password of an account invalid, and close the connections that were opened with one.

    Args:
        env_file: The .env of this host.
        directory: Where its secrets are written.
        since: When the oldest container of the live release started (seconds since the epoch). Where passwords changed
            after it, nothing is retired: it uses former ones. None: retire whatever uses them.

    Raises:
        Refused: A database did not answer, or the change before is not finished; the sentence says what to do.
    """
    applied = Applied.read(env_file)
    if not applied.changed or (since is not None and since < applied.changed):
        return {"changed": False}
    values = secrets.read_env(env_file)
    if needs_applying(env_file, directory):
        raise Refused("The last change of secrets was interrupted, and services use the former ones: run site.yml")
    wanted, elsewhere = secrets.needs(values), secrets.managed(values)
    for name in {MONGO, REDIS} - elsewhere:
        if not _runs(CONTAINERS[name]):
            raise Refused(f"{CONTAINERS[name]} does not run, so that it cannot refuse former passwords")
    dropped: list[str] = []
    if MONGO not in elsewhere and wanted.databases:
        current = [f"{base} {secrets.account(values, user)}" for user, base in wanted.databases.items()]
        drop = LOGIN + _DROP % json.dumps(json.dumps([current, [*wanted.databases]]))
        done = _must(
            commands.run("docker", "exec", CONTAINERS[MONGO], *SHELL, "--eval", drop, seconds=SECONDS),
            "MongoDB did not drop accounts of former passwords",
        )
        dropped = json.loads(done.strip().splitlines()[-1])
    former = dict(applied.accepted)
    if REDIS not in elsewhere and (former or applied.rights):
        applied.accepted, applied.rights = {}, {}
        _write(values, applied, directory, {REDIS})
        _load_users()
        _close_connections(former, since)
    applied.accepted, applied.rights, applied.changed = {}, {}, 0
    applied.write(env_file)
    return {"changed": True, "dropped": dropped, "redis": sorted(former)}


def adopt(env_file: Path) -> dict[str, Any]:
    """Take this .env for what was applied, where nothing is recorded yet: on a host of a version before 0.3.

    Runs before another .env is written, so that what the live release uses stays valid.
    """
    if env_file.with_name(FILE).exists() or not env_file.exists():
        return {"changed": False}
    Applied(values=secrets.read_env(env_file), bare=True).write(env_file)
    return {"changed": True}


def refused(values: Mapping[str, str], former: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Sign in with former passwords of accounts; look for other former values in the files of secrets.

    Args:
        values: The lines of .env.
        former: Secret -> its former value.
        directory: Where the secrets of containers are written.

    Returns:
        Secret -> "refused" or "accepted"; nothing for accounts of a database that runs elsewhere.

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
        if name.startswith(("mongo_", "redis_")) and name.split("_")[0] in secrets.managed(values):
            continue
        if name in bases:
            base, user = bases[name]
            mongo[name] = [base, secrets.account({name.upper(): password}, user), password]
        elif name == "mongo_root_password":
            mongo[name] = ["admin", "root", password]
        elif name in users:
            found[name] = _redis_sign_in(users[name], password)
        else:
            found[name] = ACCEPTED if password in written else REFUSED
    return found | (_mongo_sign_in(mongo) if mongo else {})


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


def _accounts(values: dict[str, str]) -> dict[str, str]:
    """Return what services sign in with, and what they may do: another one makes former accounts."""
    if not values:
        return {}
    wanted = secrets.needs(values)
    mongo = {f"{base} {user}": values[password_of(MONGO, user).upper()] for user, base in wanted.databases.items()}
    redis = {f"{user} {rules}": values[password_of(REDIS, user).upper()] for user, rules in wanted.rights.items()}
    return {**mongo, **redis}


def _names(values: dict[str, str]) -> list[str]:
    """Return the secrets of this .env that are not derived from others."""
    wanted = secrets.needs(values)
    names = [name for name in wanted.names if not wanted.sources(name)]
    return list(dict.fromkeys([*names, "smtp_password", "mongo_uri", "redis_uri"]))


def _keep_redis(applied: Applied, values: dict[str, str]) -> None:
    """Note what users of Redis may sign in with, and may do, besides what these lines say."""
    before = applied.values
    if not before or secrets.managed(before) & {REDIS}:
        return
    former, wanted = (secrets.redis_users(secrets.needs(lines).rights) for lines in (before, values))
    for user, rules in former.items():
        old = digest(secrets.redis_password(before, user))
        new = digest(secrets.redis_password(values, user)) if user in wanted else ""
        if old != new:
            known = [*applied.accepted.get(user, []), old, new]
            applied.accepted[user] = [one for one in dict.fromkeys(known) if one]
        if rules != wanted.get(user):
            applied.rights[user] = list(dict.fromkeys([*applied.rights.get(user, []), rules]))


def _initialize(values: dict[str, str], applied: Applied) -> None:
    """Have MongoDB make the accounts, and change root's password where it is to change."""
    done = commands.run("docker", "exec", CONTAINERS[MONGO], *SHELL, "/etc/berth/mongo-init.js", seconds=SECONDS)
    _must(done, "MongoDB did not take its new passwords")
    if applied.roots and _mongo_sign_in({"root": ["admin", "root", values["MONGO_ROOT_PASSWORD"]]})["root"] != ACCEPTED:
        raise Refused("MongoDB's root did not get its new password: mongo-init.js on the host is of an earlier version")


def _write(values: dict[str, str], applied: Applied, directory: Path, only: set[str] | None = None) -> None:
    files, owners = secrets.secrets(values, applied), secrets.uids(secrets.needs(values))
    chosen = {name: uid for name, uid in owners.items() if only is None or name in only}
    secrets.write(directory, files, chosen)


def _is_unfinished(applied: Applied) -> bool:
    """Tell whether a change was interrupted, or accounts still have the names of an earlier version."""
    return applied.bare or bool(applied.roots) or bool(secrets.REDIS_USERS.keys() & applied.accepted.keys())


def _is_written(values: dict[str, str], applied: Applied, directory: Path) -> bool:
    """Tell whether the files are as this version of the program writes them."""
    try:
        files = secrets.secrets(values, applied)
        return all((directory / one / name).read_text() == text for one in files for name, text in files[one].items())
    except FileNotFoundError:
        return False


def _runs(container: str) -> bool:
    """Tell whether a container runs. Raises Refused where Docker does not say."""
    if not shutil.which("docker"):
        return False
    done = commands.run("docker", "inspect", "--format={{.State.Running}}", container)
    if done.returncode and "no such" not in done.stderr.lower():
        # Before the first start of the engine there are no databases.
        if "cannot connect" in done.stderr.lower() and not ENGINE.exists():
            return False
        raise Refused(f"Docker does not say whether {container} runs: {done.stderr.strip()}")
    return done.stdout.strip() == "true"


def _must(done: Any, what: str) -> str:
    """Return a command's output. Raises Refused where it failed."""
    if done.returncode:
        lines = last_lines(done)
        raise Refused(f"{what}: {lines[-1] if lines else f'exit status {done.returncode}'}", lines=lines)
    return str(done.stdout)


def _in_redis(command: str) -> Any:
    return commands.run("docker", "exec", CONTAINERS[REDIS], "sh", "-c", _REDIS + command)


def _load_users() -> None:
    """Have Redis read its users again; their connections stay open."""
    if _runs(CONTAINERS[REDIS]):
        said = _must(_in_redis("acl load"), "Redis did not read its users").strip()
        if said != "OK":
            raise Refused(f"Redis did not read its users: {said}")


def _close_connections(users: Mapping[str, list[str]], since: float | None) -> None:
    """Close connections of these users: those that were opened before a moment (seconds since the epoch), or all."""
    closed = []
    for line in _must(_in_redis("client list"), "Redis did not list its connections").splitlines():
        known = dict(word.split("=", 1) for word in line.split() if "=" in word)
        opened = clock.time() - float(known.get("age", 0))
        if known.get("user") in users and (since is None or opened < since):
            closed.append(known["id"])
    if closed:
        each = " && ".join(f"{_REDIS}client kill id {one}" for one in closed)
        _must(commands.run("docker", "exec", CONTAINERS[REDIS], "sh", "-c", each), "Redis did not close connections")


def _mongo_sign_in(known: Mapping[str, list[str]]) -> dict[str, str]:
    """Sign in to MongoDB: name -> database, user and password. Return name -> "accepted" or "refused"."""
    command = ("docker", "exec", "--env=BERTH_TRIED", CONTAINERS[MONGO], *SHELL, "--eval", _SIGN_IN)
    # Not on a command line, which every process can read.
    done = _must(commands.run(*command, BERTH_TRIED=json.dumps(known)), "MongoDB does not answer")
    return dict(json.loads(done.strip().splitlines()[-1]))


def _redis_sign_in(user: str, password: str) -> str:
    script = f"read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli --no-auth-warning --user {user} ping"
    done = commands.run(
        *("docker", "exec", "--interactive", CONTAINERS[REDIS], "sh", "-c", script), given=password + "\n"
    )
    said = done.stdout + done.stderr
    if "WRONGPASS" in said:
        return REFUSED
    if "PONG" in said or "NOPERM" in said:
        return ACCEPTED
    raise Refused(f"Redis does not answer: {said.strip()}")


def _restart_exporter() -> None:
    found = commands.run("docker", "ps", "--quiet", f"--filter=label=com.docker.compose.service={EXPORTER}").stdout
    if found.split():
        commands.run("docker", "restart", *found.split())


def _ages() -> str:
    """Return a line for each secret, the oldest first."""
    days = {name: (clock.time() - datetime.fromisoformat(at).timestamp()) / DAY for name, at in since().items()}
    return "\n".join(f"{since()[name]}  {round(age):>5} days  {name}" for name, age in days.items())


def _changes_root(env_file: Path) -> bool:
    """Tell whether MongoDB's root gets another password."""
    name, before = "MONGO_ROOT_PASSWORD", Applied.read(env_file).values
    return bool(before) and secrets.read_env(env_file).get(name) != before.get(name)


@contextmanager
def _alone(env_file: Path) -> Iterator[None]:
    """Keep out releases for the block, and backups where they would be signed out. Raises Refused where one runs."""
    with ExitStack() as stack:
        if (releases := env_file.with_name("releases")).is_dir():
            stack.enter_context(Lock(releases).held())
        if _changes_root(env_file) and (env_file.with_name("backup") / "settings.json").exists():
            settings = Settings.read(env_file.with_name("backup"))
            for kind in ("restore", "run", "oplog"):
                # They sign in as root more than once.
                stack.enter_context(Records(settings).locked(kind, settings.wait_seconds))
        yield


def main(arguments: list[str]) -> int:
    """Run a verb and print the answer as JSON; ages prints a table."""
    verb, *words = arguments
    env_file, directory = map(Path, words) if len(words) == 2 else (ENV_FILE, DIRECTORY)
    try:
        match verb:
            case "ages":
                print(_ages() or "Nothing is known yet: site.yml writes it down.")
                return 0
            case "adopt":
                answer = adopt(Path(words[0]))
            case "apply" if not needs_applying(env_file, directory):
                answer = {"changed": False, "secrets": []}
            case "apply":
                with _alone(env_file):
                    answer = apply(env_file, directory)
            case "retire":
                with _alone(env_file):
                    answer = retire(env_file, directory)
            case "note":
                answer = note(words)
            case _:
                answer = refused(secrets.read_env(env_file), json.load(sys.stdin), directory)
    except KeyError as missing:
        answer = {"reason": f"{env_file}: {missing.args[0]} is missing", "lines": []}
    except (secrets.UnreadableError, DamagedError, OSError) as error:
        answer = {"reason": str(error), "lines": []}
    except Refused as why:
        answer = why.answer
    print(json.dumps(answer))
    return 1 if "reason" in answer else 0
