"""MongoDB and Redis on another image: announced, with nothing lost, and undone where the new one does not work."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.site.test_releases import live, load, play
from tests.site.test_restore import mongo
from tests.support import Visitor

# Queued while nobody may have time for them, and asked for later.
SEND = """
import json
from celery_worker.main import create_app
from celery_worker.settings import WorkerSettings
from shared.queue import ECHO
from shared.settings import load_settings
app = create_app(load_settings(WorkerSettings))
print(json.dumps([app.send_task(ECHO, args=[str(number)]).id for number in range(200)]))
"""
RECEIVE = """
import json, sys
from celery_worker.main import create_app
from celery_worker.settings import WorkerSettings
from shared.settings import load_settings
from typing import Any
app = create_app(load_settings(WorkerSettings))
print(json.dumps([app.AsyncResult(task).get(timeout=60) for task in json.loads(sys.argv[1])]))
"""


# What an image says of the MongoDB in it; it is found before its own.
CLAIM = """USER root
RUN echo '#!/bin/sh' > /usr/local/bin/mongod \\
 && echo 'echo db version v{version}' >> /usr/local/bin/mongod \\
 && chmod 0755 /usr/local/bin/mongod"""
# The version of the data, and the one before that it may have, too: 8.0 after 8.2, 7.0 after 8.0.
OWN = "admin.version().split('.').slice(0, 2).join('.')"
BEFORE = "((at) => at[1] > 0 ? `${at[0]}.0` : `${at[0] - 1}.0`)(admin.version().split('.').map(Number))"


def version_of_data(vps: Host) -> tuple[str, str]:
    """Return MongoDB's featureCompatibilityVersion, and the one that goes with what runs."""
    asked = "admin.adminCommand({getParameter: 1, featureCompatibilityVersion: 1}).featureCompatibilityVersion.version"
    found, own = mongo(vps, f"[{asked}, {OWN}]")
    return found, own


def next_image(name: str, line: str, called: str = "") -> str:
    """Make another image out of the one that runs, as the next version would be."""
    tag = f"{name}-{called or line.split()[0].lower()}"
    lines = f"FROM {name}\n{line}\n"
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, "-"], input=lines, text=True, check=True)
    return tag


def running(vps: Host) -> list[str]:
    listed: str = vps.check_output("docker inspect --format '{{.Config.Image}}' berth-mongo-1 berth-redis-1")
    return listed.split()


@pytest.mark.timeout(600)
def test_databases_are_upgraded_behind_the_page_with_nothing_lost(
    http: httpx.Client, visitor: Visitor, testbed: dict[str, Any], vps: Host
) -> None:
    release, colour = live(http)
    database, redis = (testbed["images"][name] for name in ("MONGO_IMAGE", "REDIS_IMAGE"))
    images = {
        "stack_mongo_image": next_image(database, "LABEL next=1"),
        "stack_redis_image": next_image(redis, "LABEL next=1"),
    }
    # As after an upgrade that did not raise it.
    mongo(vps, f"admin.adminCommand({{setFeatureCompatibilityVersion: {BEFORE}, confirm: true}})")
    assert len({*version_of_data(vps)}) == 2
    me = http.get("/api/users/me", headers=visitor.sign_in()).raise_for_status().json()
    worker = f"docker exec berth-{colour}-celery_worker-1 python3 -c"
    tasks = vps.check_output(f"{worker} '{SEND}'").splitlines()[-1]
    with load(testbed, visitor) as counted:
        code, said = play("upgrade_data", **images)
    assert code == 0, said
    assert running(vps) == list(images.values())
    assert len({*version_of_data(vps)}) == 1
    assert counted["failed"] == 0, counted["errors"]
    assert counted["closed"] > 0
    assert http.get("/").headers["x-berth-release"] == f"{release} {colour}"

    # Who was signed in still is, by the cookie alone; nothing was forgotten, and every task has its result.
    token = http.post("/api/auth/refresh").raise_for_status().json()["access_token"]
    again = http.get("/api/users/me", headers={"Authorization": f"Bearer {token}"}).raise_for_status().json()
    assert again["email"] == me["email"]
    results = vps.check_output(f"{worker} '{RECEIVE}' '{tasks}'").splitlines()[-1]
    assert json.loads(results) == [str(number) for number in range(200)]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_image_that_does_not_work_is_taken_back_and_one_that_is_missing_is_refused(
    http: httpx.Client, visitor: Visitor, testbed: dict[str, Any], vps: Host
) -> None:
    before = running(vps)
    code, said = play("upgrade_data", stack_mongo_image=before[0], stack_redis_image="localhost/berth/redis:absent")
    assert code != 0
    assert "The controller lacks localhost/berth/redis:absent" in said
    assert "changed=0" in said

    broken = next_image(
        testbed["images"]["REDIS_IMAGE"], 'ENTRYPOINT ["sh", "-c", "echo this image is broken; exit 1"]'
    )
    header = visitor.sign_in()
    code, said = play("upgrade_data", stack_mongo_image=before[0], stack_redis_image=broken)
    assert code != 0
    assert re.search(
        r"berth-redis-1 did not become healthy on \S+\. Rolled back to the old image and the data before the upgrade",
        said,
    )
    assert "this image is broken" in said
    assert running(vps) == before
    assert http.get("/api/users/me", headers=header).status_code == 200
    assert json.loads(vps.check_output("tail -n 1 /opt/berth/releases.jsonl"))["result"] == "failed"
    assert vps.run("ls -d /var/lib/docker/volumes/*/berth-before-upgrade").rc != 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("99.0.0", r"MongoDB is upgraded one major version at a time\. Set berth_mongo_image to an image of \d+\.0"),
        ("1.0.0", r"MongoDB does not start on data of a later version\. Set berth_mongo_image to an image of \d+\.\d"),
    ],
)
def test_a_mongodb_that_cannot_take_over_the_data_is_refused_while_the_site_stays_open(
    http: httpx.Client, visitor: Visitor, testbed: dict[str, Any], vps: Host, version: str, says: str
) -> None:
    before, history = running(vps), vps.check_output("wc -l /opt/berth/releases.jsonl")
    image = next_image(testbed["images"]["MONGO_IMAGE"], CLAIM.format(version=version), version)
    with load(testbed, visitor) as counted:
        code, said = play("upgrade_data", stack_mongo_image=image, stack_redis_image=before[1])
    assert code != 0
    assert re.search(rf"mongo runs [\d.]+ and {image} is {version}: {says}", " ".join(said.split())), said
    assert (counted["closed"], counted["failed"]) == (0, 0)
    assert running(vps) == before
    assert vps.check_output("wc -l /opt/berth/releases.jsonl") == history
    assert http.get("/").status_code == 200
