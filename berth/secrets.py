"""Write each service's secrets as files that only this service reads.

usage: berth secrets write ENV_FILE DIRECTORY     writes DIRECTORY/<service>/<name>
       berth secrets check ENV_FILE               only checks ENV_FILE and prints what is wrong
       berth secrets adopt ENV_FILE               takes ENV_FILE for what was applied, where nothing is recorded yet
       berth secrets apply ENV_FILE DIRECTORY     brings running databases to ENV_FILE, too; former passwords stay valid
       berth secrets retire [ENV_FILE DIRECTORY]  makes former passwords of accounts invalid
       berth secrets ages                         since when each secret has its value, the oldest first
       berth secrets note NAME...                 a secret outside ENV_FILE has a new value since now
       berth secrets refused                      tries the former values on standard input ({name: value})
       berth secrets monitoring-login ...         generates the password of monitoring

Containers have DIRECTORY/<service> mounted, so directories stay and files are replaced by renaming.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from berth import monitoring_login
from berth.stack import needs as stack_needs
from berth.stack.applied import Applied, DamagedError, digest
from berth.stack.former import NEEDS as FORMER
from berth.stack.needs import MONGO, MONITORING, OWN_UIDS, REDIS, Needs, password_of

# The line of .env that says which service reads which of the others: `Needs.line`.
DESCRIPTION = "BERTH_SECRETS"
# What the databases are administered with. They have the former ones until they have taken over all others.
ADMINS = ("mongo_root_password", "redis_admin_password")
# The users of Redis that are Berth's own. Monitoring reads the metrics of the server, and no key.
REDIS_USERS = {MONITORING: "resetkeys resetchannels -@all +ping +info", "admin": "~* &* +@all"}


class UnreadableError(Exception):
    """The .env file cannot be used; the message says why."""


def read_env(path: Path) -> dict[str, str]:
    """Read NAME='value' lines, the one form that role environment writes."""
    values: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        found = re.fullmatch(r"([A-Z][A-Z0-9_]*)='([^'\\]*)'", line)
        if found is None:
            raise UnreadableError(f"{path}: line {number} is not of the form NAME='value'")
        values[found[1]] = found[2]
    return values


def needs(values: dict[str, str]) -> Needs:
    """Return which service reads which secrets."""
    if DESCRIPTION not in values:
        return FORMER
    try:
        return stack_needs.from_line(values[DESCRIPTION])
    except ValueError as error:
        raise UnreadableError(f"{DESCRIPTION} in .env cannot be read: {error}") from None


def account(values: Mapping[str, str], user: str, *, bare: bool = False) -> str:
    """Return the name of a user's account in MongoDB.

    An account has one password, so that another password is another account: both are valid until the release with
    the new one is live. Before version 0.3 it was the user's bare name.
    """
    if bare:
        return user
    return f"{user}~{digest(values[password_of(MONGO, user).upper()])[:8]}"


def mongo_uri(values: dict[str, str], user: str, database: str, *, bare: bool = False) -> str:
    """Return the address of a user's own database, local or managed."""
    if not values["MONGO_URI"]:
        password = quote(values[password_of(MONGO, user).upper()], safe="")
        # directConnection: connect by the service's name, not by the member's address in the replica set.
        return f"mongodb://{account(values, user, bare=bare)}:{password}@mongo:27017/{database}?directConnection=true"
    parts = urlsplit(values["MONGO_URI"])
    options = dict(parse_qsl(parts.query))
    # An srv record brings its own authSource; otherwise the user is in the database that the URI names, not in
    # ours.
    if parts.scheme == "mongodb":
        options.setdefault("authSource", parts.path.strip("/") or "admin")
    return parts._replace(path=f"/{database}", query=urlencode(options)).geturl()


def redis_uri(values: dict[str, str], user: str) -> str:
    """Return the address of Redis for one of its users."""
    if values["REDIS_URI"]:
        return values["REDIS_URI"]
    password = quote(values[password_of(REDIS, user).upper()], safe="")
    return f"redis://{user}:{password}@redis:6379/0"


def redis_password(values: dict[str, str], user: str) -> str:
    """Return a Redis user's password. Monitoring's, which gives metrics only, is derived from the administrator's."""
    if user == MONITORING:
        return digest(f"monitoring {values['REDIS_ADMIN_PASSWORD']}")
    return values[password_of(REDIS, user).upper()]


def redis_users(rights: Mapping[str, str]) -> dict[str, str]:
    """Return user of Redis -> its rules, Berth's own users included."""
    return {**dict(sorted(rights.items())), **REDIS_USERS}


def users_acl(values: dict[str, str], rights: Mapping[str, str], applied: Applied) -> str:
    """Return the file of Redis users; it holds digests, not passwords."""
    # Nobody can log in as this user. But when Redis loads its append-only file it runs transactions with these rights,
    # and drops what they forbid: everything written in MULTI and EXEC would be lost at a restart.
    lines = ["user default off ~* &* +@all"]
    for user, rules in redis_users(rights).items():
        digests = [digest(redis_password(values, user)), *applied.accepted.get(user, [])]
        lines.append(_acl_line(user, digests, [rules, *applied.rights.get(user, [])]))
    # Of a service that the live release still has.
    for user in sorted(applied.rights.keys() - redis_users(rights).keys()):
        lines.append(_acl_line(user, applied.accepted.get(user, []), applied.rights[user]))
    return "\n".join(lines) + "\n"


def _acl_line(user: str, digests: list[str], rules: list[str]) -> str:
    """Return a user's line: the first rules are its own, each further ones a selector of Redis 7."""
    own, *others = dict.fromkeys(rules)
    passwords = " ".join(f"#{one}" for one in dict.fromkeys(digests))
    return " ".join([f"user {user} on {passwords} {own}", *(f"({one})" for one in others)])


def managed(values: Mapping[str, str]) -> set[str]:
    """Return the databases that run elsewhere."""
    return {name for name, uri in ((MONGO, values["MONGO_URI"]), (REDIS, values["REDIS_URI"])) if uri}


def secrets(values: dict[str, str], applied: Applied | None = None) -> dict[str, dict[str, str]]:
    """Return service -> name -> content.

    Args:
        values: The lines of .env.
        applied: What the databases have; None: what .env says.

    Raises:
        KeyError: a value is missing in .env; its name.
        UnreadableError: .env does not say which service reads which secret.
    """
    wanted, applied = needs(values), applied or Applied()
    elsewhere = managed(values)
    files: dict[str, dict[str, str]] = {}
    for service, holder in wanted.holders.items():
        if service in elsewhere:
            continue
        own = {name: values[name.upper()] for name in holder.secrets}
        own |= {name: applied.value(name.upper(), values) for name in ADMINS if name in own}
        if holder.mongo:
            own["mongo_uri"] = mongo_uri(values, holder.mongo, wanted.databases[holder.mongo], bare=applied.bare)
        if holder.redis:
            own["redis_uri"] = redis_uri(values, holder.redis)
        files[service] = own
    if MONGO in files:
        passwords = [password_of(MONGO, user) for user in wanted.databases]
        files[MONGO] |= {name: values[name.upper()] for name in passwords}
        # For mongo-init.js.
        files[MONGO]["users.json"] = json.dumps(
            {
                account(values, user, bare=applied.bare): [base, password_of(MONGO, user)]
                for user, base in sorted(wanted.databases.items())
            }
        )
        # Which root gets, while it may have another.
        if applied.roots:
            roots = {"next": values["MONGO_ROOT_PASSWORD"], "former": applied.roots}
            files[MONGO]["root_passwords.json"] = json.dumps(roots)
    files[MONITORING] = {"smtp_password": values["SMTP_PASSWORD"]}
    if REDIS in files:
        files[REDIS]["users.acl"] = users_acl(values, wanted.rights, applied)
        # In the form its exporter reads.
        passwords_file = {f"redis://{MONITORING}@redis:6379": redis_password(values, MONITORING)}
        files[MONITORING]["redis_passwords.json"] = json.dumps(passwords_file)
    return files


def uids(wanted: Needs) -> dict[str, int]:
    """Return service -> user id of its containers, for each that has a directory of secrets."""
    own = {name: uid for uid, name in OWN_UIDS.items() if name == MONITORING}
    return {service: holder.uid for service, holder in wanted.holders.items()} | own


def write(directory: Path, files: dict[str, dict[str, str]], owners: dict[str, int]) -> None:
    """Bring the directory to this content: nothing missing, nothing left over."""
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    directory.chmod(0o711)
    for service, uid in owners.items():
        own = files.get(service, {})
        folder = directory / service
        folder.mkdir(mode=0o500, exist_ok=True)
        for name, content in own.items():
            draft = folder / f".{name}.new"
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
            os.chown(draft, uid, uid)
            draft.rename(folder / name)
        for file_left in set(folder.iterdir()) - {folder / name for name in own}:
            file_left.unlink()
        folder.chmod(0o500)
        os.chown(folder, uid, uid)


def _applied(source: Path) -> Applied:
    """Return the record. Where it is damaged, a boot is better served by .env than by nothing."""
    try:
        return Applied.read(source)
    except DamagedError as error:
        print(error, file=sys.stderr)
        return Applied()


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    target: Path | None = None
    match arguments:
        case ["monitoring-login", *rest]:
            return monitoring_login.main(rest)
        case [("apply" | "adopt" | "retire" | "refused" | "ages" | "note"), *_]:
            # It runs commands, which writing files at boot does not.
            from berth import rotation

            return rotation.main(arguments)
        case ["write", env_file, directory]:
            source, target = Path(env_file), Path(directory)
        case ["check", env_file]:
            source = Path(env_file)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    try:
        values, applied = read_env(source), Applied()
        if target:
            applied = _applied(source)
            # At boot, after a change that was interrupted.
            values = applied.values or values
        files = secrets(values, applied)
    except KeyError as missing:
        print(f"{source}: {missing.args[0]} is missing", file=sys.stderr)
        return 1
    except (UnreadableError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if target:
        write(target, files, uids(needs(values)))
    return 0
