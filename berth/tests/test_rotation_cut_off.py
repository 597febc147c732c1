"""A rotation that is cut off at any step leaves everything working, and the next run finishes it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import urlsplit

import pytest

from berth import rotation
from berth import secrets as berth_secrets
from berth.host import clock, commands
from berth.host.refused import Refused
from berth.stack.applied import digest
from berth.stack.needs import Holder, Needs
from berth.tests.cut_off import CutOff, Killed

NEEDS = Needs(
    holders={
        "shop": Holder(10001, ("shop_key",), mongo="shop", redis="shop"),
        "mongo": Holder(999, ("mongo_root_password", "mongo_keyfile")),
        "redis": Holder(999, ("redis_admin_password",)),
    },
    databases={"shop": "shop_db"},
    rights={"shop": "resetkeys ~shop:* resetchannels -@all +@read"},
)
PASSWORDS = ("MONGO_ROOT_PASSWORD", "REDIS_ADMIN_PASSWORD", "MONGO_SHOP_PASSWORD", "REDIS_SHOP_PASSWORD", "SHOP_KEY")


class Host(CutOff):
    """Both databases in memory; each command, and each change of a file, is a step."""

    def __init__(self, folder: Path, fails_at: int = -1, after: bool = False) -> None:
        super().__init__(fails_at, Killed, after)
        self.env_file, self.directory = folder / ".env", folder / "secrets"
        self.root = ""
        self.accounts: dict[str, str] = {}
        self.users: dict[str, set[str]] = {}

    # --- what there is ---

    def secret(self, name: str) -> str:
        return (self.directory / name).read_text()

    def configure(self, suffix: str) -> None:
        values = {name: f"{name.lower()}{suffix}" for name in PASSWORDS}
        fixed = {"MONGO_URI": "", "REDIS_URI": "", "SMTP_PASSWORD": "", "MONGO_KEYFILE": "k" * 16}
        lines = {**fixed, **values, "BERTH_SECRETS": NEEDS.line()}
        self.env_file.write_text("".join(f"{name}='{value}'\n" for name, value in lines.items()))

    def boot(self) -> None:
        """As berth-secrets and the databases do."""
        assert berth_secrets.main(["write", str(self.env_file), str(self.directory)]) == 0
        self.load_users()
        self.root = self.root or self.secret("mongo/mongo_root_password")

    def credentials(self) -> tuple[str, str]:
        """What a service reads when it starts."""
        return self.secret("shop/mongo_uri"), self.secret("shop/redis_uri")

    def accepts(self, credentials: tuple[str, str]) -> bool:
        mongo, redis = map(urlsplit, credentials)
        account = self.accounts.get(mongo.username or "") == mongo.password
        return account and digest(redis.password or "") in self.users.get(redis.username or "", set())

    # --- what commands do ---

    def load_users(self) -> None:
        lines = re.findall(r"^user (\S+) on (.*)$", self.secret("redis/users.acl"), re.MULTILINE)
        self.users = {user: set(re.findall(r"#([0-9a-f]{64})", rules)) for user, rules in lines}

    def initialize(self) -> None:
        """As mongo-init.js."""
        try:
            known = json.loads(self.secret("mongo/root_passwords.json"))
        except FileNotFoundError:
            known = {"next": self.secret("mongo/mongo_root_password"), "former": []}
        tried = {known["next"], *known["former"], self.secret("mongo/mongo_root_password")}
        assert self.root in tried, "nobody is root any more"
        for account, (_, file) in json.loads(self.secret("mongo/users.json")).items():
            self.step(lambda account=account, file=file: self.accounts.update({account: self.secret(f"mongo/{file}")}))  # type: ignore[misc]  # bound
        self.step(lambda: setattr(self, "root", known["next"]))

    def redis(self, command: str) -> str:
        assert digest(self.secret("redis/redis_admin_password")) in self.users["admin"], "nobody is admin any more"
        if "client list" in command:
            return "id=3 addr=127.0.0.1:1 age=100 user=shop\n"
        if "acl load" in command:
            self.step(self.load_users)
        return "OK\n"

    def run(self, *command: str, **more: Any) -> CompletedProcess[str]:
        output = ""
        match command:
            case ["docker", "inspect", *_]:
                output = "true\n"
            case ["docker", "exec", *_, "/etc/berth/mongo-init.js"]:
                self.initialize()
            case ["docker", "exec", "--env=BERTH_TRIED", *_]:
                [[_, _, tried]] = json.loads(more["BERTH_TRIED"]).values()
                output = json.dumps({"root": "accepted" if tried == self.root else "refused"})
            case ["docker", "exec", *_, "--eval", script]:
                assert self.root == self.secret("mongo/mongo_root_password"), "a script of root's would be refused"
                current = json.loads(json.loads(re.search(r"JSON\.parse\((.*)\);", script)[1]))[0]  # type: ignore[index]  # there is one
                names = {one.split()[1] for one in current}
                self.step(lambda: setattr(self, "accounts", {n: p for n, p in self.accounts.items() if n in names}))
                output = "[]\n"
            case ["docker", "exec", *_, script]:
                output = self.redis(script)
        return CompletedProcess(command, 0, output, "")


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Host]:
    """Return a host that runs with one generation of secrets, and is cut off at a step of what follows."""
    hosts: list[Host] = []
    monkeypatch.setattr(commands, "run", lambda *command, **more: hosts[-1].run(*command, **more))
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    rename: Callable[..., Any] = Path.rename
    monkeypatch.setattr(Path, "rename", lambda *given: hosts[-1].step(lambda: rename(*given)))

    def at(fails_at: int = -1, after: bool = False) -> Host:
        folder = tmp_path / f"{fails_at} {after}"
        folder.mkdir()
        host = Host(folder)
        hosts.append(host)
        host.configure("-1")
        host.boot()
        rotation.apply(host.env_file, host.directory)
        rotation.retire(host.env_file, host.directory)
        cut = Host(folder, fails_at, after)
        cut.root, cut.accounts, cut.users = host.root, host.accounts, host.users
        hosts.append(cut)
        return cut

    return at


def steps_of(host: Host) -> int:
    host.configure("-2")
    rotation.apply(host.env_file, host.directory)
    rotation.retire(host.env_file, host.directory)
    return host.steps


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("again", ["-2", "-3"], ids=["the same", "another"])
@pytest.mark.parametrize("rebooted", [False, True], ids=["", "rebooted"])
def test_cut_off_at_any_step_everything_works_and_the_next_run_finishes_it(
    begin: Callable[..., Host], after: bool, again: str, rebooted: bool
) -> None:
    total = steps_of(begin())
    assert total > 20
    for number in range(total):
        host = begin(number, after)
        former, retiring = host.credentials(), False
        host.configure("-2")
        try:
            rotation.apply(host.env_file, host.directory)
            former, retiring = host.credentials(), True
            rotation.retire(host.env_file, host.directory)
            pytest.fail("It was not cut off.")
        except Killed:
            pass
        # What runs signs in as before, and what starts now, too.
        assert host.accepts(former), (number, retiring)
        if rebooted:
            host.boot()
        assert host.accepts(host.credentials()), (number, retiring)
        started = host.credentials()

        host.configure(again)
        rotation.apply(host.env_file, host.directory)
        assert host.accepts(started)
        assert host.accepts(host.credentials())
        rotation.retire(host.env_file, host.directory)
        assert host.accepts(host.credentials())
        if again == "-3" or not retiring:
            assert not host.accepts(former)
        assert host.root == f"mongo_root_password{again}"
        assert len(host.accounts) == 1
        assert {user: len(known) for user, known in host.users.items()} == {"shop": 1, "monitoring": 1, "admin": 1}
        assert rotation.apply(host.env_file, host.directory) == {"changed": False, "secrets": []}
        assert not rotation.pending(host.env_file)


def test_what_started_before_the_change_keeps_the_former_passwords(
    begin: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "time", lambda: 1000.0)
    host = begin()
    former = host.credentials()
    host.configure("-2")
    rotation.apply(host.env_file, host.directory)
    assert rotation.retire(host.env_file, host.directory, since=999.0) == {"changed": False}
    assert host.accepts(former)
    assert rotation.retire(host.env_file, host.directory, since=1001.0)["changed"]
    assert not host.accepts(former)


def test_ages_count_from_the_change(begin: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "time", lambda: 1000.0)
    host = begin()
    monkeypatch.setattr(clock, "time", lambda: 5000.0)
    host.configure("-1")
    text = host.env_file.read_text().replace("shop_key-1", "another")
    host.env_file.write_text(text)
    assert rotation.apply(host.env_file, host.directory)["secrets"] == ["shop_key"]
    rotation.note(["backup_password"], host.env_file)
    known = rotation.since(host.env_file)
    assert known.pop("shop_key") == known.pop("backup_password") == clock.moment(5000)
    assert set(known.values()) == {clock.moment(1000)}
    # No account changed, so that nothing waits for a release.
    assert not rotation.pending(host.env_file)


@pytest.mark.parametrize("text", ["{", '{"of": "a later version"}', "[1]"])
def test_a_damaged_record_is_named_and_a_boot_goes_on_without_it(
    begin: Callable[..., Host], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    host = begin()
    (host.env_file.with_name("secrets.json")).write_text(text)
    assert rotation.main(["apply", str(host.env_file), str(host.directory)]) == 1
    assert "secrets.json is damaged" in json.loads(capsys.readouterr().out)["reason"]
    host.boot()
    assert host.accepts(host.credentials())


def test_a_release_after_an_interrupted_change_retires_nothing(begin: Callable[..., Host]) -> None:
    total = steps_of(begin())
    for number in range(total):
        host = begin(number)
        former = host.credentials()
        host.configure("-2")
        with suppress(Killed):
            rotation.apply(host.env_file, host.directory)
        host.fails_at = -1
        started = host.credentials()
        with suppress(Refused):
            rotation.retire(host.env_file, host.directory, since=clock.time() + 1)
            # It was finished.
            continue
        assert host.accepts(former)
        assert host.accepts(started)


def test_what_the_live_release_may_do_in_redis_it_may_until_the_next_one_is_live(begin: Callable[..., Host]) -> None:
    host = begin()
    other = replace(NEEDS, rights={"store": "resetkeys ~store:* resetchannels -@all +@read"}, databases={})
    other = replace(other, holders={**NEEDS.holders, "shop": Holder(10001, ("shop_key",))})
    text = host.env_file.read_text().replace(NEEDS.line(), other.line())
    host.env_file.write_text(text + "REDIS_STORE_PASSWORD='store'\n")
    assert rotation.apply(host.env_file, host.directory)["changed"]
    acl = host.secret("redis/users.acl")
    assert f"user shop on #{digest('redis_shop_password-1')} resetkeys ~shop:*" in acl
    assert "user store on" in acl
    assert rotation.retire(host.env_file, host.directory)["changed"]
    assert "user shop" not in host.secret("redis/users.acl")

    wider = replace(other, rights={"store": "resetkeys ~* resetchannels -@all +@all"})
    host.env_file.write_text(host.env_file.read_text().replace(other.line(), wider.line()))
    assert rotation.apply(host.env_file, host.directory)["changed"]
    assert "+@all (resetkeys ~store:* resetchannels -@all +@read)" in host.secret("redis/users.acl")


def test_a_host_of_an_earlier_version_keeps_its_accounts_until_the_next_release(begin: Callable[..., Host]) -> None:
    host = begin()
    (host.env_file.with_name("secrets.json")).unlink()
    assert rotation.adopt(host.env_file) == {"changed": True}
    assert rotation.adopt(host.env_file) == {"changed": False}
    host.accounts = {"shop": "mongo_shop_password-1"}
    # A reboot before anything else: the bare names.
    host.boot()
    former = host.credentials()
    assert host.accepts(former)
    assert urlsplit(former[0]).username == "shop"
    # The new .env has other passwords at once.
    host.configure("-2")
    assert rotation.apply(host.env_file, host.directory)["changed"]
    assert host.accepts(former)
    assert host.accepts(host.credentials())
    rotation.retire(host.env_file, host.directory)
    assert not host.accepts(former)
    assert host.accepts(host.credentials())


def test_passwords_of_a_database_that_does_not_run_do_not_change(
    begin: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = begin()
    former = host.credentials()
    said = ["Error: No such object: berth-mongo-1"]
    run = commands.run

    def answer(*command: str, **more: Any) -> CompletedProcess[str]:
        if command[:2] == ("docker", "inspect"):
            return CompletedProcess(command, 1, "", said[-1])
        return run(*command, **more)

    monkeypatch.setattr(commands, "run", answer)
    host.configure("-2")
    with pytest.raises(Refused, match=r"berth-(mongo|redis)-1 does not run, so that its passwords cannot change"):
        rotation.apply(host.env_file, host.directory)
    assert host.credentials() == former
    # Other secrets do.
    host.configure("-1")
    host.env_file.write_text(host.env_file.read_text().replace("shop_key-1", "another"))
    assert rotation.apply(host.env_file, host.directory)["secrets"] == ["shop_key"]
    said.append("Cannot connect to the Docker daemon")
    monkeypatch.setattr(rotation, "ENGINE", host.directory)
    host.configure("-2")
    with pytest.raises(Refused, match="Docker does not say"):
        rotation.apply(host.env_file, host.directory)
