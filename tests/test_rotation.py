"""Passwords of databases change while everything signs in: real Redis, and MongoDB or its stand-in."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from berth import rotation
from berth import secrets as berth_secrets
from berth.host.refused import Refused
from berth.stack import needs
from berth.stack.applied import Applied
from tests.support import ROOT, poll

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="Files of secrets belong to their containers' users."),
]

NEEDS = needs.Needs(
    holders={
        "shop": needs.Holder(10001, ("shop_key",), mongo="shop", redis="shop"),
        "mongo": needs.Holder(999, ("mongo_root_password", "mongo_keyfile")),
        "redis": needs.Holder(999, ("redis_admin_password",)),
    },
    databases={"shop": "shop_db"},
    rights={"shop": "resetkeys ~shop:* resetchannels -@all +@read +@write +ping"},
)
NEW = {name: f"new-{name.lower()}" for name in ("MONGO_SHOP_PASSWORD", "REDIS_SHOP_PASSWORD")}
ADMINS = {name: f"new-{name.lower()}" for name in ("MONGO_ROOT_PASSWORD", "REDIS_ADMIN_PASSWORD")}
SIGN_IN = """
const uri = require("fs").readFileSync(0, "utf8").trim().replace("@mongo:", "@127.0.0.1:");
const shop = connect(uri);
shop.orders.insertOne({at: 1});
print("written");
"""


def docker(*arguments: str, given: str | None = None) -> tuple[int, str]:
    done = subprocess.run(["docker", *arguments], input=given, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


class Host:
    """Both databases, with .env and the files of secrets, as on a host."""

    def __init__(self, folder: Path, images: dict[str, str]) -> None:
        self.env_file, self.directory = folder / ".env", folder / "secrets"
        self.values = {
            **{"MONGO_URI": "", "REDIS_URI": "", "SMTP_PASSWORD": "", "BERTH_SECRETS": NEEDS.line()},
            **{"MONGO_ROOT_PASSWORD": "root", "MONGO_KEYFILE": "a" * 64, "REDIS_ADMIN_PASSWORD": "admin"},
            **{"SHOP_KEY": "key", "MONGO_SHOP_PASSWORD": "mongo", "REDIS_SHOP_PASSWORD": "redis"},
        }
        self.names = [f"berth-test-{name}-{secrets.token_hex(4)}" for name in ("mongo", "redis")]
        self._images = images

    def set(self, **changes: str) -> None:
        self.values |= changes
        self.env_file.write_text("".join(f"{name}='{value}'\n" for name, value in self.values.items()))

    def apply(self) -> dict[str, object]:
        return rotation.apply(self.env_file, self.directory)

    def start(self) -> None:
        mongo, redis = self.names
        secret = {name: f"--volume={self.directory}/{name}:/run/secrets:ro" for name in ("mongo", "redis")}
        root = (
            "--env=MONGO_INITDB_ROOT_USERNAME=root",
            ("--env=MONGO_INITDB_ROOT_PASSWORD_FILE=/run/secrets/mongo_root_password"),
        )
        scripts = f"--volume={ROOT}/roles/stack/files/mongo:/etc/berth:ro"
        server = ("mongod", "--replSet", "rs0", "--keyFile", "/run/secrets/mongo_keyfile", "--bind_ip_all")
        common = ("run", "--detach", "--user=999:999", "--env=HOME=/tmp", "--add-host=mongo:127.0.0.1")
        assert (
            docker(*common, f"--name={mongo}", *root, secret["mongo"], scripts, self._images["MONGO_IMAGE"], *server)[0]
            == 0
        )
        listen = ("redis-server", "--dir", "/data", "--aclfile", "/run/secrets/users.acl")
        assert docker(*common, f"--name={redis}", secret["redis"], self._images["REDIS_IMAGE"], *listen)[0] == 0
        poll(lambda: self.initialized() or None, 60, "MongoDB")
        poll(lambda: self.redis("redis") or None, 30, "Redis")

    def initialized(self) -> bool:
        return (
            docker("exec", self.names[0], "mongosh", "--quiet", "--norc", "--nodb", "/etc/berth/mongo-init.js")[0] == 0
        )

    def uri(self) -> str:
        return (self.directory / "shop/mongo_uri").read_text()

    def mongo(self, uri: str) -> bool:
        """Write as the service does."""
        shell = ("mongosh", "--quiet", "--norc", "--nodb", "--eval", SIGN_IN)
        return "written" in docker("exec", "--interactive", self.names[0], *shell, given=uri)[1]

    def redis(self, password: str, user: str = "shop") -> bool:
        command = f"REDISCLI_AUTH={password} redis-cli --no-auth-warning --user {user} ping"
        return "PONG" in docker("exec", self.names[1], "sh", "-c", command)[1]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    lines = (ROOT / ".cache/images.env").read_text().splitlines()
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    one = Host(tmp_path, dict(line.split("=", 1) for line in lines))
    monkeypatch.setattr(rotation, "CONTAINERS", dict(zip(("mongo", "redis"), one.names, strict=True)))
    one.set()
    assert one.apply()["changed"]
    try:
        one.start()
        yield one
    finally:
        docker("rm", "--force", "--volumes", *one.names)


def test_both_passwords_are_valid_until_the_former_ones_are_retired(host: Host) -> None:
    assert host.apply() == {"changed": False, "secrets": []}
    former = host.uri()
    host.set(**NEW)
    assert host.apply() == {"changed": True, "secrets": ["mongo_shop_password", "redis_shop_password"]}
    assert host.mongo(former)
    assert host.mongo(host.uri())
    assert host.redis("redis")
    assert host.redis(NEW["REDIS_SHOP_PASSWORD"])

    values = berth_secrets.read_env(host.env_file)
    old = {"mongo_shop_password": "mongo", "redis_shop_password": "redis"}
    assert set(rotation.refused(values, old, host.directory).values()) == {"accepted"}
    # A container of the live release that is older than the change uses the former ones.
    assert rotation.retire(host.env_file, host.directory, since=Applied.read(host.env_file).changed - 1) == {
        "changed": False
    }
    assert host.mongo(former)
    retired = rotation.retire(host.env_file, host.directory)
    assert retired["redis"] == ["shop"]
    assert len(retired["dropped"]) == 1
    assert set(rotation.refused(values, old, host.directory).values()) == {"refused"}
    assert not host.mongo(former)
    assert host.mongo(host.uri())
    assert host.redis(NEW["REDIS_SHOP_PASSWORD"])
    assert not rotation.pending(host.env_file)


def test_what_the_live_release_may_do_in_redis_it_may_until_the_next_one_is_live(host: Host) -> None:
    def reads(key: str) -> bool:
        command = f"REDISCLI_AUTH=redis redis-cli --no-auth-warning --user shop get {key}"
        return "NOPERM" not in docker("exec", host.names[1], "sh", "-c", command)[1]

    other = replace(NEEDS, rights={"shop": "resetkeys ~store:* resetchannels -@all +@read +ping"})
    host.set(BERTH_SECRETS=other.line())
    assert (reads("shop:1"), reads("store:1")) == (True, False)
    assert host.apply()["changed"]
    assert (reads("shop:1"), reads("store:1")) == (True, True)
    assert rotation.retire(host.env_file, host.directory)["changed"]
    assert (reads("shop:1"), reads("store:1")) == (False, True)


def test_administrators_get_new_passwords_at_once_and_the_former_ones_are_refused(host: Host) -> None:
    host.set(**ADMINS)
    assert host.apply()["secrets"] == ["mongo_root_password", "redis_admin_password"]
    values = berth_secrets.read_env(host.env_file)
    former = {"mongo_root_password": "root", "redis_admin_password": "admin"}
    assert set(rotation.refused(values, former, host.directory).values()) == {"refused"}
    now = {name: values[name.upper()] for name in former}
    assert set(rotation.refused(values, now, host.directory).values()) == {"accepted"}
    assert host.initialized()
    assert (host.directory / "mongo/mongo_root_password").read_text() == ADMINS["MONGO_ROOT_PASSWORD"]
    assert not (host.directory / "mongo/root_passwords.json").exists()
    [password] = json.loads((host.directory / "monitoring/redis_passwords.json").read_text()).values()
    assert host.redis(password, "monitoring")


def test_a_rotation_that_is_cut_off_anywhere_is_finished_by_the_next_run(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = host.uri()
    for number, cut in enumerate(("_write", "_must", "_load_users", "_is_written")):
        host.set(**{name: f"{value}-{number}" for name, value in {**NEW, **ADMINS}.items()})
        real: Callable[..., object] = getattr(rotation, cut)

        def fail(*given: object, real: Callable[..., object] = real, **more: object) -> object:
            # What it did has happened; what follows has not.
            real(*given, **more)
            raise Refused("cut off")

        monkeypatch.setattr(rotation, cut, fail)
        if cut != "_is_written":
            with pytest.raises(Refused, match="cut off"):
                host.apply()
            # Everything that ran goes on.
            assert host.mongo(former)
            assert host.redis("redis")
        monkeypatch.setattr(rotation, cut, real)
        assert host.apply()["changed"]
        assert host.mongo(host.uri())
        assert host.redis(host.values["REDIS_SHOP_PASSWORD"])
        assert host.initialized()
    rotation.retire(host.env_file, host.directory)
    assert not host.mongo(former)
    assert not host.redis("redis")
    lines = (host.directory / "redis/users.acl").read_text()
    assert len(re.findall(r"#[0-9a-f]{64}", lines)) == 3
