"""One-off commands and consoles beside the live release, and hooks, on the site itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

RUN = "berth run --service auth_service -- "


def test_a_command_is_one_of_the_service_and_leaves_no_container(vps: Host) -> None:
    done = vps.run(RUN + "sh -c 'id -u; ls /run/secrets; cat /proc/1/status; touch /x; echo oops >&2; exit 7'")
    assert done.rc == 7
    assert done.stdout.splitlines()[0] == "10001"
    assert "mongo_uri" in done.stdout
    assert "CapEff:\t0000000000000000" in done.stdout
    assert "NoNewPrivs:\t1" in done.stdout
    assert "Read-only file system" in done.stderr
    assert "oops" in done.stderr
    assert vps.check_output("docker ps --all --quiet --filter label=com.docker.compose.project=berth-run") == ""
    assert "it ended with 7" in vps.check_output("journalctl -t berth-run -n 1 --output=cat")


def test_a_command_reaches_the_database_with_the_secrets_of_its_service(vps: Host) -> None:
    assert vps.run(RUN + "python3 -m auth_service.schema").rc == 0


def test_a_service_that_is_not_there_is_answered_with_those_that_are(vps: Host) -> None:
    done = vps.run("berth run --service auth -- id")
    assert done.rc == 125
    assert "There is no service auth; release " in done.stderr
    assert "auth_service, beat, celery_worker" in done.stderr


def test_a_command_that_takes_too_long_is_stopped(vps: Host) -> None:
    done = vps.run("berth run --service auth_service --seconds 3 -- sleep 60")
    assert done.rc == 124
    assert "It was stopped: it did not end within 3 s." in done.stderr
    assert vps.check_output("docker ps --all --quiet --filter label=com.docker.compose.project=berth-run") == ""


def typed(way_in: Path, command: str, text: str) -> str:
    """Type something on a terminal of the server."""
    ssh = ["ssh", "-tt", "-F", str(way_in), "server", command]
    return subprocess.run(ssh, input=text, capture_output=True, text=True, timeout=60, check=False).stdout


def test_a_console_is_a_shell_that_ends_with_its_session(vps: Host, way_in: Path) -> None:
    said = typed(way_in, "sudo berth console auth_service", "id -u; echo $((40 + 2)); exit\n")
    assert "10001" in said
    assert "42" in said
    assert vps.check_output("docker ps --all --quiet --filter label=com.docker.compose.project=berth-run") == ""


def test_logs_are_followed_on_a_terminal(way_in: Path) -> None:
    said = typed(way_in, "sudo timeout 10 berth logs -f --service auth_service | head -n 3", "")
    assert "auth_service/" in said


@pytest.mark.parametrize("status", [0, 3])
def test_hooks_of_a_backup_run_although_its_unit_is_sandboxed(vps: Host, status: int) -> None:
    hook, seen = "/opt/berth/hooks/after-backup", "/root/berth-hook-test"
    script = f"#!/bin/sh\necho $BERTH_VERB $BERTH_RESULT >{seen}\necho seen\nexit {status}\n"
    vps.check_output("printf %%s %s > %s; chmod 0755 %s", script, hook, hook)
    try:
        vps.check_output("systemctl start berth-backup.service")
        assert vps.check_output(f"cat {seen}") == "backup done"
        said = vps.check_output("journalctl -t berth-hook-after-backup -n 2 --output=cat").splitlines()
        assert said == ["seen", f"Hook after-backup ended with {status}: seen."]
    finally:
        vps.check_output(f"rm -f {hook} {seen}")
