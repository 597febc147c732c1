"""How a release reaches the host: built there, or sent there through the one connection that the operator has."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

from tests.site.test_releases import PREFIX, SERVICES, build, live, play

# A connection that is new and goes where the internet is: the host's own, or one of its containers'.
NEW = 'oifname "eth0" meta l4proto { tcp, udp } ct state new'
MIB = 1024 * 1024


@contextmanager
def rules(vps: Host, text: str) -> Iterator[None]:
    """Have a table of the kernel's as long as the block lasts."""
    vps.check_output(f"printf %s 'table inet test {{\n{text}\n}}\n' | nft --file -")
    try:
        yield
    finally:
        vps.check_output("nft delete table inet test")


def counted(vps: Host, name: str) -> int:
    found = json.loads(vps.check_output(f"nft --json list counter inet test {name}"))
    return int(found["nftables"][1]["counter"]["bytes"])


def tags(vps: Host) -> set[str]:
    """Return the releases whose images are on the host, in whole or in part."""
    listed = vps.check_output("docker image ls --format '{{.Repository}} {{.Tag}}'").splitlines()
    return {line.split()[1] for line in listed if line.split()[0].rpartition("/")[2] in SERVICES}


def built_there(release: str, testbed: dict[str, Any]) -> dict[str, object]:
    names = ("PYTHON_IMAGE", "NODE_IMAGE", "NGINX_IMAGE")
    return {
        "release": release,
        "stack_image_transport": "source",
        "stack_source_bases": {name: testbed["images"][name] for name in names},
        # Those of the test bed come from no registry.
        "stack_source_pull": False,
    }


@pytest.fixture(scope="module")
def bases(testbed: dict[str, Any]) -> None:
    """What a host with a registry within reach pulls: the images that ours are built on."""
    names = [testbed["images"][name] for name in ("PYTHON_IMAGE", "NODE_IMAGE", "NGINX_IMAGE")]
    load = ["docker", "exec", "--interactive", str(testbed["vps_container"]), "docker", "load"]
    with subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE) as save:
        subprocess.run(load, stdin=save.stdout, check=True, capture_output=True)
    assert save.returncode == 0


@pytest.mark.usefixtures("bases")
def test_a_host_that_cannot_build_says_so_before_anything_begins(
    http: httpx.Client, testbed: dict[str, Any], vps: Host
) -> None:
    before, history = live(http), vps.check_output("cat /opt/berth/releases.jsonl")
    closed = 'chain forward { type filter hook forward priority -300; iifname "docker0" reject; }'
    with rules(vps, closed):
        code, said = play("release", **built_there("unbuilt", testbed))
    assert code != 0
    assert "cannot build release unbuilt; nothing was changed" in said, said[-2000:]
    assert "changed=0" in said
    assert live(http) == before
    assert vps.check_output("cat /opt/berth/releases.jsonl") == history
    assert "unbuilt" not in tags(vps)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("bases")
def test_a_release_is_built_on_the_host(http: httpx.Client, testbed: dict[str, Any], vps: Host) -> None:
    release = live(http)[0]
    code, said = play("release", **built_there("built", testbed))
    assert code == 0, said
    assert live(http)[0] == "built"
    assert vps.run("ls -d /var/tmp/berth-source").rc != 0

    code, said = play("release", **built_there("built", testbed))
    assert code == 0, said
    assert "changed=0" in said

    code, said = play("rollback", to=release)
    assert code == 0, said


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_release_needs_no_way_out_brings_only_what_is_new_and_makes_room(http: httpx.Client, vps: Host) -> None:
    release = live(http)[0]
    old = {line["to"] for line in history(vps) if line["result"] == "live" and "to" in line} - {release}
    if not old:
        old = {build(f"{release}-old", release)}
        for name in (*old, release):
            assert play("release", release=name)[0] == 0
    small = build(f"{release}-small", release, frontend='RUN ["nginx", "-v"]')
    cut = f"""
      counter sent {{}}
      set tried {{ type inet_proto . inet_service; flags dynamic; counter; }}
      chain input {{ type filter hook input priority -300; tcp dport 22 counter name sent; }}
      chain output {{ type filter hook output priority -150; {NEW} add @tried {{ meta l4proto . th dport }} drop; }}
      chain forward {{ type filter hook forward priority -300; {NEW} add @tried {{ meta l4proto . th dport }} drop; }}
    """
    with rules(vps, cut):
        # Seen to count and to close: a connection of the host's, and one of a container's.
        assert vps.run("timeout 2 bash -c 'exec 3<>/dev/tcp/192.0.2.1/9'").rc != 0
        assert re.search(r"tcp \. 9 counter packets [1-9]", vps.check_output("nft list set inet test tried"))
        vps.check_output("nft flush set inet test tried")
        began = vps.check_output("date +%s")

        code, said = play("release", release=small, release_keep=2)
        assert code == 0, said
        # Monitoring, log shippers and backups ask for names all the time; the engine would say that it wanted to pull.
        assert set(re.findall(r"(\w+ \. \d+) counter", vps.check_output("nft list set inet test tried"))) <= {
            "udp . 53"
        }
        engine = vps.check_output("journalctl --unit docker --since @%s --output cat", began)
        assert not re.search("registry|pull", engine), engine
        sent = counted(vps, "sent")
    assert live(http)[0] == small
    whole = int(vps.check_output(f"docker image inspect --format '{{{{.Size}}}}' {PREFIX}/frontend:{small}"))
    assert sent < 8 * MIB < whole

    assert {release, small} <= tags(vps)
    assert not old & tags(vps)
    code, said = play("rollback")
    assert code == 0, said


def history(vps: Host) -> list[dict[str, str]]:
    return [json.loads(line) for line in vps.check_output("cat /opt/berth/releases.jsonl").splitlines()]
