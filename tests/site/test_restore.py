"""A backup is worth what comes back: to the second, in place or beside, every night, and never from a damaged one."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.support import ROOT, Mailbox, Visitor, new_account, poll

PLAY_SECONDS = 280
# Where the outside host keeps what the store named bucket was given.
BUCKET = "/srv/backup/s3/berth"


def restore(**variables: object) -> tuple[int, str]:
    """Run ansible/restore.yml; return its status and what an operator reads."""
    extra = json.dumps({f"restore_{name}": value for name, value in variables.items()})
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
    done = vps.run(shlex.join(["berth-backup", *arguments]))
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
    assert http.post("/api/auth/register", json=account).status_code == 201
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


@pytest.mark.timeout(600)
def test_the_nightly_drill_signs_in_on_restored_data_and_leaves_nothing_behind(vps: Host) -> None:
    vps.check_output("systemctl start berth-backup-drill.service")
    seen = json.loads(vps.check_output("cat $(ls -t /var/lib/berth-backup/drills/*.json | head -n 1)"))
    assert (seen["result"], seen["signed_in"]) == ("passed", "release-probe@berth.invalid")
    assert seen["collections"]["auth_db.users"] > 0
    assert set(seen["steps"]) >= {"read", "compare", "restore with changes", "redis", "sign in"}
    for what in ("ps --all", "network ls", "volume ls"):
        assert vps.check_output(f"docker {what} --quiet --filter label=berth.scratch") == ""
    assert vps.check_output("find /run/berth-scratch -mindepth 1 2> /dev/null | wc -l") == "0"
    metrics = vps.check_output("cat /var/lib/berth/metrics/berth_backup_drill.prom")
    assert re.search(r'berth_backup_drill_result{target="\w+"} 1', metrics)


def test_the_drills_unit_is_confined(vps: Host) -> None:
    said = vps.check_output("systemd-analyze security --no-pager berth-backup-drill.service | tail -n 1")
    assert float(re.findall(r"\d+\.\d+", said)[0]) <= 4.0


def test_a_dry_run_says_what_would_happen_and_touches_nothing(vps: Host, http: httpx.Client) -> None:
    def untouched() -> tuple[str, Any]:
        running = vps.check_output("docker ps --no-trunc --format '{{.ID}} {{.CreatedAt}}' | sort")
        return running, mongo(vps, 'admin.getSiblingDB("auth_db").users.countDocuments({})')

    before = untouched()
    code, said = restore(dry_run=True)
    assert code == 0, said
    assert re.search(r"auth_db\.users: \d+ now, \d+ in the dump", said), said[-2000:]
    assert "changed=0" in said
    assert untouched() == before
    assert http.get("/").status_code == 200


@contextmanager
def visitors(http: httpx.Client) -> Iterator[list[tuple[float, str]]]:
    """People who sign up for as long as the block lasts: when each was told that the account exists, and its email."""
    seen: list[tuple[float, str]] = []
    over = threading.Event()

    def sign_up() -> None:
        while not over.wait(0.2):
            account = new_account()
            if http.post("/api/auth/register", json=account).status_code == 201:
                seen.append((time.time(), account["email"]))

    thread = threading.Thread(target=sign_up)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.timeout(900)
def test_a_collection_dropped_under_load_comes_back_to_the_second_before(
    vps: Host, http: httpx.Client, visitor: Visitor
) -> None:
    with visitors(http) as seen:
        poll(lambda: len(seen) >= 5 or None, 60, "people who sign up")
        dropped = mongo(vps, '(admin.getSiblingDB("auth_db").users.drop(), Math.floor(Date.now() / 1000))')
        poll(lambda: seen[-1][0] > dropped + 2 or None, 60, "people who sign up afterwards")
    # In the second of the mistake itself nobody can tell who was first.
    safe = [email for at, email in seen if at < dropped - 1]
    code, said = restore(time=str(dropped - 1), database="auth_db", collection="users")
    assert code == 0, said[-3000:]
    assert "safety_copy" in said
    back = emails(vps)
    assert safe
    assert set(safe) - back == set()
    assert seen[-1][1] not in back
    assert visitor.sign_in()
    indexes = mongo(vps, 'admin.getSiblingDB("auth_db").users.getIndexes().map((one) => one.name)')
    assert "email_1" in indexes
    assert http.get("/").status_code == 200


@pytest.mark.timeout(600)
def test_one_collection_is_put_beside_the_live_one(vps: Host, http: httpx.Client, saved: str) -> None:
    late = register(http)
    code, said = restore(run=saved, database="auth_db", collection="users", beside="_beside")
    assert code == 0, said[-3000:]
    try:
        names = mongo(vps, 'admin.getSiblingDB("auth_db_beside").getCollectionNames()')
        assert names == ["users"]
        in_backup = mongo(vps, 'admin.getSiblingDB("auth_db_beside").users.countDocuments({})')
        assert in_backup > 0
        assert late["email"] in emails(vps)
    finally:
        mongo(vps, 'admin.getSiblingDB("auth_db_beside").dropDatabase()')


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"run": "20010101T000000Z-none"}, "There is no run 20010101T000000Z-none"),
        ({"target": "attic"}, "There is no target attic; backup_targets names: store, bucket"),
        ({"time": "2999-01-01T00:00:00Z"}, "which is yet to come"),
        ({"database": "nowhere_db"}, "has no nowhere_db; it has auth_db"),
    ],
)
def test_what_cannot_be_restored_is_refused_with_a_reason(variables: dict[str, str], sentence: str) -> None:
    code, said = restore(dry_run=True, **variables)
    assert code != 0
    assert sentence in said, said[-2000:]


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


@contextmanager
def damaged_pack(vps: Host, outside: Host, how: str) -> Iterator[None]:
    """Harm the largest pack that a new run brought to the bucket, as a disk or a stranger does."""
    outside.check_output("touch /srv/backup/before")
    vps.check_output("systemctl start berth-backup.service")
    brought = f"find {BUCKET}/data -type f -newer /srv/backup/before -printf '%s %p\\n'"
    pack = outside.check_output(f"{brought} | sort -n | tail -n 1 | cut -d' ' -f2")
    outside.check_output(f"cp {pack} /srv/backup/kept && {how.format(pack=pack)}")
    try:
        yield
    finally:
        outside.check_output(f"cp /srv/backup/kept {pack} && rm /srv/backup/kept")


TRUNCATE = "truncate --size=$(($(stat -c %s {pack}) / 2)) {pack}"
FLIP = (
    "python3 -c \"import sys; f = open(sys.argv[1], 'r+b'); f.seek(200); b = f.read(1); f.seek(200); "
    'f.write(bytes([b[0] ^ 1]))" {pack}'
)


@pytest.mark.parametrize("how", [TRUNCATE, FLIP], ids=["truncated", "bit-flipped"])
def test_damage_in_the_store_is_noticed_by_the_drill(vps: Host, outside: Host, how: str) -> None:
    with damaged_pack(vps, outside, how):
        code, said = berth_backup(vps, "drill", "--target", "bucket")
    assert code == 1
    assert re.search(r"Run \S+ on target bucket is damaged: .*Take another target", said["reason"]), said
    metrics = vps.check_output("cat /var/lib/berth/metrics/berth_backup_drill.prom")
    assert 'berth_backup_drill_result{target="bucket"} 0' in metrics


def test_a_wrong_key_is_noticed_by_the_drill(vps: Host) -> None:
    with other(vps, "secrets.json", "password", "not the one"):
        code, said = berth_backup(vps, "drill", "--target", "bucket")
    assert code == 1
    assert "does not open with backup_password" in said["reason"]


def test_a_backup_that_lacks_a_collection_is_noticed_by_the_drill(vps: Host, saved: str) -> None:
    # A run like the last one, whose manifest promises a collection more.
    forge = f"""
import json
from berth_backup import check
from berth_backup.restic import Store
from berth_backup.settings import Settings
settings = Settings.read()
store = Store(settings, settings.target("bucket"))
kept = next(one for one in check.kept(store) if one.id == "{saved}")
manifest = check.manifest(store, kept)
manifest["run"] = "{saved}-less"
manifest["mongo"]["collections"]["auth_db.gone"] = {{"documents": 3, "bytes": 9, "checksum": "0", "indexes": []}}
store.back_up_text(json.dumps(manifest), "manifest.json", ["run:{saved}-less", "part:manifest"])
"""
    vps.check_output("cd / && PYTHONPATH=/usr/local/lib/berth python3 -c %s", forge)
    code, said = berth_backup(vps, "drill", f"{saved}-less", "--target", "bucket")
    assert code == 1
    assert "auth_db.gone is missing (3 documents)" in said["reason"]


def test_a_stale_backup_fails_the_nightly_unit_and_the_operator_gets_a_mail(
    vps: Host, mailbox: Mailbox, testbed: dict[str, str]
) -> None:
    operator = f"operator@{testbed['site']}"
    before = mailbox.count_for(operator)
    # Other tests may have used up this hour's mails about the unit.
    vps.check_output("systemctl reset-failed 'berth-failure-mail@berth-backup*'")
    with other(vps, "settings.json", "max_age_hours", 0):
        assert vps.run("systemctl start berth-backup-drill.service").rc != 0
    log = vps.check_output("journalctl --unit berth-backup-drill.service --lines 20 --output cat")
    assert re.search(r"The newest run on target \w+, \S+, is \d+ hours old, and backup_max_age_hours allows 0", log)
    poll(lambda: mailbox.count_for(operator) > before or None, 60, "a mail to the operator")
    vps.check_output("systemctl reset-failed berth-backup-drill.service")
