"""A backup is worth what comes back: to the second, in place or beside, every night, and never from a damaged one."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.site.test_releases import load
from tests.support import ROOT, Mailbox, Visitor, join, new_account, poll

PLAY_SECONDS = 280
# Where the outside host keeps what the store named bucket was given.
BUCKET = "/srv/backup/s3/berth"


def restore(confirm: str = "", **variables: object) -> tuple[int, str]:
    """Run ansible/restore.yml; return its status and what an operator reads."""
    extra = json.dumps({"confirm": confirm, **{f"restore_{name}": value for name, value in variables.items()}})
    done = subprocess.run(
        ["ansible-playbook", "ansible/restore.yml", "-i", "inventories/demo", "-e", extra],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "false"},
        capture_output=True,
        text=True,
        timeout=PLAY_SECONDS,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def berth_backup(vps: Host, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = vps.run(shlex.join(["berth", "backup", *arguments]))
    return done.rc, json.loads(done.stdout.splitlines()[-1])


def mongo(vps: Host, script: str) -> Any:
    """Run a script against the live database as root; return the JSON it prints."""
    access = """
        const admin = new Mongo("mongodb://127.0.0.1:27017/?directConnection=true").getDB("admin");
        admin.auth("root", require("fs").readFileSync("/run/secrets/mongo_root_password", "utf8").trim());
    """
    said = vps.check_output(
        "docker exec berth-mongo-1 mongosh --quiet --norc --nodb --eval %s", f"{access} print(JSON.stringify({script}))"
    )
    return json.loads(said.splitlines()[-1])


def register(http: httpx.Client) -> dict[str, str]:
    account = new_account()
    assert http.post("/api/auth/register", json=account).status_code == 202
    return account


def emails(vps: Host) -> set[str]:
    return set(mongo(vps, 'admin.getSiblingDB("auth_db").users.find().toArray().map((one) => one.email)'))


@pytest.fixture(scope="module", autouse=True)
def saved(vps: Host) -> str:
    """A run on both stores, as the timer makes one."""
    vps.check_output("systemctl start berth-backup.service")
    code, listed = berth_backup(vps, "status")
    assert code == 0
    return str(listed["targets"]["bucket"]["run"])


@contextmanager
def other(vps: Host, file: str, name: str, value: object) -> Iterator[None]:
    """Another value in one of the program's files for as long as the block lasts."""
    place = f"/opt/berth/backup/{file}"
    text = vps.check_output("cat %s", place)
    changed = json.dumps({**json.loads(text), name: value})
    vps.check_output("printf %%s %s > %s", changed, place)
    try:
        yield
    finally:
        vps.check_output("printf %%s %s > %s", text, place)


def test_a_dry_run_says_what_would_happen_and_touches_nothing(vps: Host, http: httpx.Client) -> None:
    def untouched() -> tuple[str, Any]:
        running = vps.check_output("docker ps --no-trunc --format '{{.ID}} {{.CreatedAt}}' | sort")
        return running, mongo(vps, 'admin.getSiblingDB("auth_db").users.countDocuments({})')

    before = untouched()
    code, said = restore()
    assert code == 0, said
    assert "This was a dry run: nothing was changed." in said
    assert re.search(r"auth_db\.users: \d+ now, \d+ in the dump", said), said[-2000:]
    assert "changed=0" in said
    assert untouched() == before
    assert http.get("/").status_code == 200


@contextmanager
def visitors(http: httpx.Client) -> Iterator[list[tuple[float, str]]]:
    """People who sign up for as long as the block lasts: when each was answered, and the email."""
    seen: list[tuple[float, str]] = []
    over = threading.Event()

    def sign_up() -> None:
        while not over.wait(0.2):
            account = new_account()
            if http.post("/api/auth/register", json=account).status_code == 202:
                seen.append((time.time(), account["email"]))

    thread = threading.Thread(target=sign_up)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


class Belongings:
    """What somebody has here: an account, a profile, two sessions; beside it a value in Redis, and the owner's file."""

    FILE = "/srv/uploads/one.txt"

    def __init__(self, vps: Host, visitor: Visitor) -> None:
        self._vps, self._http = vps, visitor.http
        self.user_id = ""
        self.visitor = visitor
        # One stays as it is; one is renewed, as a browser does every few minutes.
        self.quiet, self.renewed = self._session(), self._session()

    def _session(self) -> str:
        self.visitor.sign_in()
        return str(self._http.cookies["refresh_token"])

    def refresh(self, cookie: str) -> int:
        """Return the status that a refresh with this cookie gets, and keep the one that it was swapped for."""
        self._http.cookies.clear()
        return self._http.post("/api/auth/refresh", headers={"Cookie": f"refresh_token={cookie}"}).status_code

    def renew(self) -> None:
        assert self.refresh(self.renewed) == 200
        self.renewed = str(self._http.cookies["refresh_token"])

    def become(self, word: str) -> None:
        changed = self._http.patch("/api/users/me", headers=self.visitor.sign_in(), json={"bio": word})
        self.user_id = changed.raise_for_status().json()["id"]
        self._redis(f"set restore-test {word}")
        self._vps.check_output("mkdir -p /srv/uploads && echo %s > %s", word, self.FILE)

    def seen(self) -> dict[str, Any]:
        profile = mongo(self._vps, f'admin.getSiblingDB("user_db").profiles.findOne({{_id: "{self.user_id}"}})')
        file = self._vps.check_output("cat %s", self.FILE)
        return {"profile": profile["bio"], "redis": self._redis("get restore-test"), "file": file}

    def _redis(self, command: str) -> str:
        ask = f"REDISCLI_AUTH=$(cat /run/secrets/redis_admin_password) redis-cli --user admin {command}"
        return str(self._vps.check_output("docker exec berth-redis-1 sh -c %s", ask))


def newest(vps: Host, target: str) -> dict[str, Any]:
    """Return the manifest of the newest run on a target."""
    read = "berth backup restic %s -q --no-lock dump --tag part:manifest latest /manifest.json"
    return dict(json.loads(vps.check_output(read, target)))


def drill(vps: Host) -> dict[str, Any]:
    """Have the nightly unit do it; return what it wrote down."""
    vps.check_output("systemctl start berth-backup-drill.service")
    return dict(json.loads(vps.check_output("cat $(ls -t /var/lib/berth-backup/drills/*.json | head -n 1)")))


@pytest.mark.timeout(900)
def test_everything_comes_back_behind_the_page_is_the_newest_backup_at_once_and_can_be_taken_back(
    vps: Host, http: httpx.Client, visitor: Visitor, mailbox: Mailbox, testbed: dict[str, str]
) -> None:
    theirs, passer_by = Belongings(vps, visitor), join(http, mailbox)
    with other(vps, "settings.json", "paths", ["/srv/uploads"]):
        theirs.become("before")
        vps.check_output("systemctl start berth-backup.service")
        wanted = berth_backup(vps, "status")[1]["targets"]["bucket"]["run"]
        theirs.become("after")
        theirs.renew()
        late = register(http)
        with load(testbed, passer_by, uploads=0) as counted:
            code, said = restore(testbed["site"], run=wanted)
    assert code == 0, said[-3000:]
    assert theirs.seen() == {"profile": "before", "redis": "before", "file": "before"}
    assert late["email"] not in emails(vps)
    # A session goes on with the cookie that the backup knows. One swapped since then is not known: sign in again.
    assert theirs.refresh(theirs.quiet) == 200
    assert theirs.refresh(theirs.renewed) == 401
    assert visitor.sign_in()
    assert counted["closed"] > 0
    assert counted["failed"] == 0, counted["errors"]

    # Whoever has to go back from here does not get what was there before.
    for target in ("store", "bucket"):
        made = newest(vps, target)
        assert (made["reason"], made["run"] in said) == ("after a restore of everything", True)
    proof = drill(vps)
    assert (proof["result"], proof["run"]) == ("passed", made["run"])
    assert "signed in as release-probe-" in proof["checks"]["auth_service"]
    assert proof["collections"]["auth_db.users"] > 0
    assert set(proof["steps"]) >= {"read", "compare", "restore with changes", "redis", "check"}
    for what in ("ps --all", "network ls", "volume ls"):
        assert vps.check_output(f"docker {what} --quiet --filter label=berth.scratch") == ""
    assert vps.check_output("find /run/berth-scratch -mindepth 1 2> /dev/null | wc -l") == "0"
    metrics = vps.check_output("cat /var/lib/berth/metrics/berth_backup_drill.prom")
    assert re.search(r'berth_backup_drill_result{target="\w+"} 1', metrics)

    # The way back that the play has named, here for one whole database.
    [(copy, moment)] = set(re.findall(r"-e restore_run=(\S+) -e restore_time=([^\s\"]+)", said))
    code, said = restore(testbed["site"], run=copy, time=moment, database="auth_db")
    assert code == 0, said[-3000:]
    assert late["email"] in emails(vps)
    assert theirs.refresh(theirs.renewed) == 200
    assert theirs.seen() == {"profile": "before", "redis": "before", "file": "before"}
    assert newest(vps, "bucket")["reason"] == "after a restore of auth_db"


@pytest.mark.timeout(900)
def test_a_collection_dropped_under_load_comes_back_to_the_second_before(
    vps: Host, http: httpx.Client, visitor: Visitor, testbed: dict[str, str]
) -> None:
    with visitors(http) as seen:
        # An account is made some time after its answer: what counts is what is there.
        safe = poll(lambda: emails(vps) & {email for _, email in seen} or None, 60, "accounts of people who sign up")
        known = time.time()
        # In the second of the mistake itself nobody can tell what was first.
        poll(lambda: seen[-1][0] > known + 3 or None, 60, "people who go on signing up")
        dropped = mongo(vps, '(admin.getSiblingDB("auth_db").users.drop(), Math.floor(Date.now() / 1000))')
        poll(lambda: seen[-1][0] > dropped + 2 or None, 60, "people who sign up afterwards")
    code, said = restore(testbed["site"], time=str(dropped - 1), database="auth_db", collection="users")
    assert code == 0, said[-3000:]
    assert "To what was there before: ansible-playbook ansible/restore.yml -i inventories/demo -e restore_run=" in said
    back = emails(vps)
    assert safe - back == set()
    assert seen[-1][1] not in back
    assert visitor.sign_in()
    indexes = mongo(vps, 'admin.getSiblingDB("auth_db").users.getIndexes().map((one) => one.name)')
    assert "email_1" in indexes
    assert http.get("/").status_code == 200
    kept = newest(vps, "store")["mongo"]["collections"]["auth_db.users"]
    assert kept["documents"] >= len(back)


@pytest.mark.timeout(600)
def test_one_collection_is_put_beside_the_live_one(vps: Host, http: httpx.Client, saved: str) -> None:
    late = register(http)
    where = ("--database=auth_db", "--collection=users", "--beside=_beside")
    code, said = berth_backup(vps, "restore", saved, *where)
    assert code == 0, said
    try:
        names = mongo(vps, 'admin.getSiblingDB("auth_db_beside").getCollectionNames()')
        assert names == ["users"]
        in_backup = mongo(vps, 'admin.getSiblingDB("auth_db_beside").users.countDocuments({})')
        assert in_backup > 0
        assert late["email"] in emails(vps)
    finally:
        mongo(vps, 'admin.getSiblingDB("auth_db_beside").dropDatabase()')


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["20010101T000000Z-none"], "There is no run 20010101T000000Z-none"),
        (["--target=attic"], "There is no target attic; backup_targets names: store, bucket"),
        (["--time=2999-01-01T00:00:00Z"], "which is in the future"),
    ],
)
def test_what_cannot_be_restored_is_refused_with_a_reason(vps: Host, arguments: list[str], sentence: str) -> None:
    code, said = berth_backup(vps, "restore", "--dry-run", *arguments)
    assert code == 1
    assert sentence in said["reason"]


def test_what_is_refused_is_told_by_the_play() -> None:
    code, said = restore(dry_run=True, database="nowhere_db")
    assert code != 0
    assert "has no nowhere_db; it has auth_db" in said, said[-2000:]


@pytest.fixture
def alarm(vps: Host, mailbox: Mailbox) -> Iterator[Callable[[], str]]:
    """Have the nightly unit look at the bucket, and fail; return the mail that the operator gets."""
    unit = "berth-backup-drill.service"

    def ring() -> str:
        told = len(mailbox.about(f"{unit} failed"))
        # Other tests may have used up this hour's mails about the unit.
        vps.check_output("systemctl reset-failed 'berth-failure-mail@berth-backup*'")
        targets = json.loads(vps.check_output("cat /opt/berth/backup/settings.json"))["targets"]
        # Each night it is another one's turn.
        with other(vps, "settings.json", "targets", [one for one in targets if one["name"] == "bucket"]):
            assert vps.run(f"systemctl start {unit}").rc != 0
        metrics = vps.check_output("cat /var/lib/berth/metrics/berth_backup_drill.prom")
        assert 'berth_backup_drill_result{target="bucket"} 0' in metrics
        return poll(lambda: mailbox.about(f"{unit} failed")[told:] or None, 60, "a mail to the operator")[0]

    yield ring
    vps.check_output(f"systemctl reset-failed {unit}")


@pytest.fixture(scope="module")
def pack(vps: Host, outside: Host) -> str:
    """The largest pack that a new run brought to the bucket."""
    outside.check_output("touch /srv/backup/before")
    vps.check_output("systemctl start berth-backup.service")
    brought = f"find {BUCKET}/data -type f -newer /srv/backup/before -printf '%s %p\\n'"
    return str(outside.check_output(f"{brought} | sort -n | tail -n 1 | cut -d' ' -f2"))


TRUNCATE = "truncate --size=$(($(stat -c %s {pack}) / 2)) {pack}"
FLIP = (
    "python3 -c \"import sys; f = open(sys.argv[1], 'r+b'); f.seek(200); b = f.read(1); f.seek(200); "
    'f.write(bytes([b[0] ^ 1]))" {pack}'
)


@pytest.mark.long
@pytest.mark.parametrize("how", [pytest.param(TRUNCATE, id="truncated"), pytest.param(FLIP, id="bit-flipped")])
def test_damage_in_the_store_is_told_by_mail(outside: Host, pack: str, how: str, alarm: Callable[[], str]) -> None:
    outside.check_output(f"cp {pack} /srv/backup/kept && {how.format(pack=pack)}")
    try:
        mail = alarm()
    finally:
        outside.check_output(f"cp /srv/backup/kept {pack} && rm /srv/backup/kept")
    assert re.search(r"Run \S+ on target bucket is damaged: .*Use another target", mail), mail


@pytest.mark.long
def test_a_wrong_key_is_told_by_mail(vps: Host, alarm: Callable[[], str]) -> None:
    with other(vps, "secrets.json", "password", "not the one"):
        mail = alarm()
    assert "The repository of target bucket does not open with backup_password" in mail


@pytest.mark.long
def test_a_backup_that_lacks_a_collection_is_told_by_mail(vps: Host, alarm: Callable[[], str]) -> None:
    # A run like the last one, whose manifest promises a collection more.
    forge = """
import json
from berth.backup import check
from berth.backup.restic import Store
from berth.backup.settings import Settings
settings = Settings.read()
store = Store(settings, settings.target("bucket"))
kept = check.kept(store)[-1]
manifest = check.manifest(store, kept)
manifest["mongo"]["collections"]["auth_db.gone"] = {"documents": 3, "bytes": 9, "checksum": "0", "indexes": []}
print(store.back_up_text(json.dumps(manifest), "manifest.json", [f"run:{kept.id}-less", "part:manifest"]))
"""
    forged = vps.check_output("cd / && PYTHONPATH=/usr/local/sbin/berth python3 -c %s", forge)
    try:
        mail = alarm()
    finally:
        vps.check_output("berth backup restic bucket -q forget %s", forged)
    assert "auth_db.gone is missing (3 documents)" in mail


@pytest.mark.long
def test_a_stale_backup_is_told_by_mail(vps: Host, alarm: Callable[[], str]) -> None:
    with other(vps, "settings.json", "max_age_hours", 0):
        mail = alarm()
    assert re.search(r"The newest run on target bucket, \S+, is \d+ hours old, and backup_max_age_hours allows 0", mail)
