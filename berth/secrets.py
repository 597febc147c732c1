"""Write each service's secrets as files that only this service reads.

usage: berth secrets write ENV_FILE DIRECTORY     writes DIRECTORY/<service>/<name>
       berth secrets check ENV_FILE               only checks ENV_FILE and prints what is wrong
       berth secrets monitoring-login ...         generates the password of monitoring

Containers have DIRECTORY/<service> mounted, so directories stay and files are replaced by renaming.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from berth import monitoring_login

# The user ids in docker-compose.prod.yml.
UIDS = {
    "auth_service": 10001,
    "user_service": 10002,
    "celery_worker": 10003,
    "flower": 10003,
    "mongo": 999,
    "redis": 999,
    "monitoring": 10005,
}
DATABASES = {"auth_service": "auth_db", "user_service": "user_db", "celery_worker": "celery_db"}

# Who may do what in Redis: auth_service queues tasks and records revoked sessions, user_service reads
# those, the worker owns the queue. Only the administrator may list, flush or configure. The services' own tests run
# under these rights.
REDIS_USERS = {
    "auth_service": (
        "~revoked:* ~ratelimit:* ~celery* ~_kombu.* resetchannels -@all +@connection +@transaction "
        "+@scripting +get +set +incrby +ttl +del +exists +lpush +sadd +llen +smembers +zadd +zrem "
        "+zrangebyscore +time -@dangerous"
    ),
    "user_service": ("%R~revoked:* ~profile:* resetchannels -@all +@connection +mget +set -@dangerous"),
    "celery_worker": (
        "~celery* ~_kombu.* ~unacked* ~heartbeat:* ~*.celery.pidbox* resetchannels &/0.celery.pidbox "
        "&/0.celeryev/* &celery-task-meta-* -@all +@connection +@read +@write +@transaction +@pubsub "
        "+@scripting +time -@dangerous"
    ),
    # Metrics of the server, and no key.
    "monitoring": "resetkeys resetchannels -@all +ping +info",
    "admin": "~* &* +@all",
}


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


def mongo_uri(values: dict[str, str], service: str) -> str:
    """Return the address of the service's own database, local or managed."""
    database = DATABASES[service]
    if not values["MONGO_URI"]:
        password = quote(values[f"MONGO_{service.upper()}_PASSWORD"], safe="")
        # directConnection: connect by the service's name, not by the member's address in the replica set.
        return f"mongodb://{service}:{password}@mongo:27017/{database}?directConnection=true"
    parts = urlsplit(values["MONGO_URI"])
    options = dict(parse_qsl(parts.query))
    # An srv record brings its own authSource; otherwise the user is in the database that the URI names, not in
    # ours.
    if parts.scheme == "mongodb":
        options.setdefault("authSource", parts.path.strip("/") or "admin")
    return parts._replace(path=f"/{database}", query=urlencode(options)).geturl()


def redis_uri(values: dict[str, str], service: str) -> str:
    """Return the address of Redis for one of its users."""
    if values["REDIS_URI"]:
        return values["REDIS_URI"]
    password = quote(values[f"REDIS_{service.upper()}_PASSWORD"], safe="")
    return f"redis://{service}:{password}@redis:6379/0"


def redis_password(values: dict[str, str], user: str) -> str:
    """Return a Redis user's password. Monitoring's, which gives metrics only, is derived from the administrator's."""
    if user == "monitoring":
        return hashlib.sha256(f"monitoring {values['REDIS_ADMIN_PASSWORD']}".encode()).hexdigest()
    return values[f"REDIS_{user.upper()}_PASSWORD"]


def users_acl(values: dict[str, str]) -> str:
    """Return the file of Redis users; it holds digests, not passwords."""
    # Nobody can log in as this user. But when Redis loads its append-only file it runs transactions with these rights,
    # and drops what they forbid: everything written in MULTI and EXEC would be lost at a restart.
    lines = ["user default off ~* &* +@all"]
    for user, rights in REDIS_USERS.items():
        digest = hashlib.sha256(redis_password(values, user).encode()).hexdigest()
        lines.append(f"user {user} on #{digest} {rights}")
    return "\n".join(lines) + "\n"


def secrets(values: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return service -> name -> content."""
    public = {"jwt_public_keys": values["JWT_PUBLIC_KEYS"]}
    secret = {
        "jwt_secret_key": values["JWT_SECRET_KEY"],
        "jwt_previous_secret_keys": values["JWT_PREVIOUS_SECRET_KEYS"],
    }
    # A release from before ES256 does not start without it; later ones do not read it there.
    shared = secret if values["JWT_SECRET_KEY_SHARED"] == "yes" else {}  # noqa: S105  # a setting
    files: dict[str, dict[str, str]] = {
        "auth_service": {"jwt_private_key": values["JWT_PRIVATE_KEY"], **public, **secret},
        "user_service": {**public, **shared},
        "celery_worker": {"smtp_password": values["SMTP_PASSWORD"]},
        "flower": {"flower_basic_auth": f"{values['FLOWER_USER']}:{values['FLOWER_PASSWORD']}"},
    }
    for service, own in files.items():
        account = "celery_worker" if service == "flower" else service
        own["mongo_uri"] = mongo_uri(values, account)
        own["redis_uri"] = redis_uri(values, account)
    if not values["MONGO_URI"]:
        files["mongo"] = {
            "mongo_root_password": values["MONGO_ROOT_PASSWORD"],
            "mongo_keyfile": values["MONGO_KEYFILE"],
            **{f"mongo_{name}_password": values[f"MONGO_{name.upper()}_PASSWORD"] for name in DATABASES},
        }
    files["monitoring"] = {"smtp_password": values["SMTP_PASSWORD"]}
    if not values["REDIS_URI"]:
        # In the form its exporter reads.
        passwords = {"redis://monitoring@redis:6379": redis_password(values, "monitoring")}
        files["monitoring"]["redis_passwords.json"] = json.dumps(passwords)
        files["redis"] = {"users.acl": users_acl(values), "redis_admin_password": values["REDIS_ADMIN_PASSWORD"]}
    return files


def write(directory: Path, files: dict[str, dict[str, str]]) -> None:
    """Bring the directory to this content: nothing missing, nothing left over."""
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    directory.chmod(0o711)
    for service, uid in UIDS.items():
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


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    target: Path | None = None
    match arguments:
        case ["monitoring-login", *rest]:
            return monitoring_login.main(rest)
        case ["write", env_file, directory]:
            source, target = Path(env_file), Path(directory)
        case ["check", env_file]:
            source = Path(env_file)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    try:
        files = secrets(read_env(source))
    except KeyError as missing:
        print(f"{source}: {missing.args[0]} is missing", file=sys.stderr)
        return 1
    except (UnreadableError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if target:
        write(target, files)
    return 0
