#!/usr/bin/env python3
"""Backups of so much data, what they cost the site, and the whole server back from nothing.

usage: run.py [--mib N] [--rounds N] [--writes SECONDS] [--database-memory SIZE]
       run.py --schema-step

Needs a provisioned test bed (BERTH_TESTBED names its folder). Fills MongoDB, backs it up twice, compares the site's
p99 with and without a backup under way, in turns; then destroys the VPS while people sign up, builds it anew with
-e restore=latest, and looks what is there: who can sign in, which certificate, how much was lost. Prints JSON.

With --schema-step: a release whose schema step harms profiles, with a backup made before it; then the way back.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import secrets
import shlex
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Every image of a release.
IMAGES = sorted(set(re.findall(r"/(\w+):\$\{RELEASE\}", (ROOT / "docker-compose.prod.yml").read_text())))
STATE = Path(os.environ.get("BERTH_TESTBED", ROOT / ".demo")).resolve()
ROUND_SECONDS = 20
PIECE_MIB = 32
ACCESS = """
const fs = require("fs");
const admin = new Mongo("mongodb://127.0.0.1:27017/?directConnection=true").getDB("admin");
admin.auth("root", fs.readFileSync("/run/secrets/mongo_root_password", "utf8").trim());
"""
FILL = """
const filler = admin.getSiblingDB("filler_db").documents;
const crypto = require("crypto");
for (let mib = 0; mib < MIB; mib++)
  filler.insertMany(Array.from({ length: 512 }, () => ({ text: crypto.randomBytes(975).toString("hex") })));
print(filler.estimatedDocumentCount());
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def connection() -> dict[str, str]:
    lines = (STATE / "connection.yml").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(" "))


def run(*command: str, seconds: float = 7200, given: str | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        sys.exit(f"{command[:4]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


class Bed:
    def __init__(self) -> None:
        self.known = connection()

    def vps(self, *command: str) -> str:
        return run("docker", "exec", self.known["vps_container"], *command)

    def mongo(self, script: str) -> str:
        return self.vps("docker", "exec", "berth-mongo-1", "mongosh", "--quiet", "--norc", "--nodb", "--eval", script)

    def store_mib(self) -> float:
        said = run(
            "docker", "exec", self.known["outside_container"], "du", "--bytes", "--summarize", "/srv/backup/rest"
        )
        return round(int(said.split()[0]) / 2**20, 1)

    def open(self) -> http.client.HTTPSConnection:
        trusting = ssl._create_unverified_context()  # noqa: S323  # the demo's own CA
        visit = http.client.HTTPSConnection(self.known["site"], timeout=10, context=trusting)
        plain = socket.create_connection((self.known["vps_address"], 443), timeout=10)
        visit.sock = trusting.wrap_socket(plain, server_hostname=self.known["site"])
        return visit

    def ask(self, method: str, path: str, document: object = None, **headers: str) -> tuple[int, Any, str]:
        """Return status, document and cookie."""
        visit = self.open()
        try:
            body = json.dumps(document) if document is not None else None
            visit.request(method, path, body, {"Content-Type": "application/json", **headers})
            answer = visit.getresponse()
            text = answer.read()
            cookie = (answer.getheader("Set-Cookie") or "").split(";")[0]
            return answer.status, json.loads(text) if text[:1] == b"{" else {}, cookie
        finally:
            visit.close()

    def serial(self) -> str:
        visit = self.open()
        try:
            shown: Any = visit.sock.getpeercert(binary_form=True)
        finally:
            visit.close()
        return run("openssl", "x509", "-noout", "-serial", "-issuer", given=ssl.DER_cert_to_PEM_cert(shown)).strip()


def backup(bed: Bed) -> dict[str, float]:
    before, began = bed.store_mib(), time.monotonic()
    bed.vps("berth", "backup", "run", "--reason", "benchmark", "--target", "store")
    return {"seconds": round(time.monotonic() - began, 1), "added_mib": round(bed.store_mib() - before, 1)}


def p99(bed: Bed) -> float:
    """Ask for one short thing after the other, twenty a second, from here."""
    visit, times = bed.open(), []
    end = time.monotonic() + ROUND_SECONDS
    while time.monotonic() < end:
        began = time.monotonic()
        visit.request("GET", "/api/auth/openapi.json")
        visit.getresponse().read()
        times.append(time.monotonic() - began)
        time.sleep(max(0, 0.05 - times[-1]))
    return round(1000 * sorted(times)[int(len(times) * 0.99)], 1)


def beside_backups(bed: Bed, rounds: int) -> dict[str, Any]:
    """With and without a backup under way, in turns, so that what else the machine does falls on both."""
    with_, without = [], []
    for _ in range(rounds):
        without.append(p99(bed))
        over = threading.Event()

        def again(over: threading.Event = over) -> None:
            while not over.is_set():
                bed.vps("systemctl", "start", "berth-backup.service")

        worker = threading.Thread(target=again)
        worker.start()
        with_.append(p99(bed))
        over.set()
        worker.join()
    ratios = sorted(one / other for one, other in zip(with_, without, strict=True))
    return {"without_ms": without, "with_ms": with_, "ratio": round(ratios[len(ratios) // 2], 2)}


class SignUps(threading.Thread):
    """Accounts made one after the other until the server is gone; each with the time at which it was acknowledged."""

    def __init__(self, bed: Bed) -> None:
        super().__init__(daemon=True)
        self.bed = bed
        self.done: list[tuple[float, dict[str, str]]] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            account = {"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_urlsafe(16)}
            try:
                status = self.bed.ask("POST", "/api/auth/register", account)[0]
            except (OSError, http.client.HTTPException):
                continue
            if status == 202:
                self.done.append((time.time(), account))


def verified(bed: Bed) -> tuple[dict[str, str], str]:
    """Return the account of somebody who is signed in, and the cookie of the session."""
    account = {"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_urlsafe(16)}
    bed.ask("POST", "/api/auth/register", account)
    users = "admin.getSiblingDB('auth_db').users"
    said = f"print({users}.updateOne({{email: '{account['email']}'}}, {{$set: {{verified: true}}}}).matchedCount)"
    # The account is made just after the answer.
    deadline = time.monotonic() + 30
    while bed.mongo(ACCESS + said).split()[-1] != "1":
        if time.monotonic() > deadline:
            sys.exit(f"{account['email']} signed up, and is not there")
    status, _, cookie = bed.ask("POST", "/api/auth/login", account)
    if status != 200:
        sys.exit(f"signing in gave {status}")
    return account, cookie


def rebuild(bed: Bed, seconds_of_writes: int, memory: dict[str, str]) -> dict[str, Any]:
    account, cookie = verified(bed)
    before = bed.serial()
    writers = SignUps(bed)
    writers.start()
    time.sleep(seconds_of_writes)
    run("docker", "rm", "--force", "--volumes", bed.known["vps_container"])
    run("docker", "volume", "rm", f"{bed.known['vps_container'].removesuffix('-vps')}_docker")
    lost_at = time.monotonic()
    writers.over.set()
    writers.join()
    say(f"The VPS is gone; {len(writers.done)} accounts were acknowledged")
    environment = {**os.environ, "BERTH_TESTBED": str(STATE), "BERTH_TESTBED_SITE": bed.known["site"]}
    asked = json.dumps({"restore": "latest", **memory})
    with (STATE / "rebuild.log").open("w") as log:
        for command in (
            ["ansible-playbook", "molecule/shared/create.yml", "-i", "molecule/shared/inventory"],
            ["ansible-playbook", "site.yml", "-i", "inventories/demo", "-e", asked],
        ):
            began = time.monotonic()
            if subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False).returncode:
                sys.exit(f"{command} failed; see {log.name}")
            say(f"{command[1]}: {time.monotonic() - began:.0f} s")
    bare = time.monotonic() - began
    status = bed.ask("POST", "/api/auth/login", account)[0]
    refreshed = bed.ask("POST", "/api/auth/refresh", {}, Cookie=cookie, Origin=f"https://{bed.known['site']}")[0]
    listed = "admin.getSiblingDB('auth_db').users.find().toArray().map((one) => one.email)"
    there = set(json.loads(bed.mongo(f"{ACCESS} print(JSON.stringify({listed}))")))
    back = [at for at, one in writers.done if one["email"] in there]
    last = writers.done[-1][0]
    return {
        "minutes_bare_host_to_sign_in": round(bare / 60, 1),
        "minutes_with_a_new_vps": round((time.monotonic() - lost_at) / 60, 1),
        "signs_in": status == 200,
        "session_goes_on": refreshed == 200,
        "same_certificate": bed.serial() == before,
        "accounts_acknowledged": len(writers.done),
        "accounts_back": len(back),
        "data_loss_seconds": round(last - max(back), 1) if back else None,
    }


def play(playbook: str, **variables: object) -> float:
    """Run a playbook as an operator does; return how many seconds it took."""
    began = time.monotonic()
    run("ansible-playbook", f"ansible/{playbook}.yml", "-i", "inventories/demo", "-e", json.dumps(variables))
    return round(time.monotonic() - began, 1)


def schema_step(bed: Bed) -> dict[str, Any]:
    """A schema step that empties every profile, whose release looks well all the same; then rollback and restore."""
    account, _ = verified(bed)

    def bearer() -> dict[str, str]:
        token = bed.ask("POST", "/api/auth/login", account)[1]["access_token"]
        return {"Authorization": f"Bearer {token}"}

    def profiles() -> Any:
        script = (
            f"{ACCESS} print(JSON.stringify(admin.getSiblingDB('user_db').profiles.find().sort({{_id: 1}}).toArray()))"
        )
        return json.loads(bed.mongo(script))

    bed.ask("PATCH", "/api/users/me", {"bio": "before the step"}, **bearer())
    before = profiles()
    live = json.loads(bed.vps("berth", "status", "--json"))["live"].split()[0]
    # chr(36): a Dockerfile would take the sign for a variable of its own.
    harm = (
        "from pymongo import MongoClient; from shared.settings import load_settings; "
        "from user_service.settings import UserSettings; "
        "database = MongoClient(load_settings(UserSettings).mongo_uri.get_secret_value())['user_db']; "
        "database.profiles.update_many({}, {chr(36) + 'set': {'bio': 'lost'}})"
    )
    for service in IMAGES:
        command = f"python3 -c {shlex.quote(harm)}".replace('"', '\\"')
        label = f'\nLABEL berth.schema="{command}"\n' if service == "user_service" else "\nLABEL harmful=1\n"
        image = f"localhost/berth/{service}"
        run("docker", "build", "--quiet", f"--tag={image}:{live}-harmful", "-", given=f"FROM {image}:{live}{label}")
    steps = {
        "release": play(
            "release", release=f"{live}-harmful", stack_snapshot_before_schema=True, release_watch_seconds=5
        )
    }
    harmed = profiles()
    steps["rollback"] = play("rollback", release_watch_seconds=5)
    harmless = {"restore_run": f"before-release:{live}-harmful", "restore_database": "user_db"}
    steps["restore"] = play("restore", **harmless, confirm=bed.known["site"])
    after = profiles()
    return {
        "seconds": steps,
        "profiles": len(before),
        "harmed": sum(one["bio"] == "lost" for one in harmed),
        "as_before": after == before,
        "signs_in": bed.ask("POST", "/api/auth/login", account)[0] == 200,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schema-step", action="store_true", help="instead: harm done by a release, and the way back")
    parser.add_argument("--mib", type=int, default=1024, help="0: neither fill nor measure a backup")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--writes", type=int, default=420, help="seconds of sign-ups before the host is destroyed")
    # The stand-in for MongoDB reads a whole collection into memory, about three times its size, before it answers.
    parser.add_argument("--database-memory", default="10g", help="most memory of the database's container")
    asked = parser.parse_args()
    bed = Bed()
    if asked.schema_step:
        print(json.dumps(schema_step(bed), indent=2))
        return
    found: dict[str, Any] = {"mib": asked.mib, "load_average": os.getloadavg()[0]}
    memory = {"environment_mongo_memory": asked.database_memory}
    if asked.mib:
        play("../site", **memory)
        began = time.monotonic()
        # In pieces: the shell shares the database's memory.
        for filled in range(0, asked.mib, PIECE_MIB):
            bed.mongo(ACCESS + FILL.replace("MIB", str(min(PIECE_MIB, asked.mib - filled))))
        say(f"Filled in {time.monotonic() - began:.0f} s")
        found["first_backup"] = backup(bed)
        found["second_backup"] = backup(bed)
        say(json.dumps(found))
    if asked.rounds:
        found["p99"] = beside_backups(bed, asked.rounds)
        say(json.dumps(found))
    found["rebuild"] = rebuild(bed, asked.writes, memory)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
