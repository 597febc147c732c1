"""What a stranger who gets into one container, or an operator who looks, finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

OURS = ("auth_service", "user_service", "celery_worker", "frontend")
WATCHING = {"prometheus", "alertmanager", "node_exporter", "blackbox_exporter", "redis_exporter"}
SITE = {"traefik_a", "mongo", "redis", "auth_service", "user_service", "celery_worker", "beat", "frontend"}
SERVICES = SITE | WATCHING


@pytest.fixture(scope="module")
def containers(vps: Host) -> dict[str, Any]:
    """Every running container of the VPS, by the name of its compose service."""
    found = json.loads(vps.check_output("docker inspect $(docker ps -q)"))
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}


@pytest.fixture(scope="module")
def secret_values(vps: Host) -> dict[str, str]:
    """Every secret of .env, by name."""
    lines = vps.check_output("cat /opt/berth/.env").splitlines()
    pairs = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {
        name: value.strip("'\"")
        for name, value in pairs.items()
        if any(word in name for word in ("PASSWORD", "SECRET", "KEYFILE", "PRIVATE_KEY"))
        and value.strip("'\"")
        # Which service reads which, not what.
        and name != "BERTH_SECRETS"
    }


def test_every_service_runs_and_is_healthy(containers: dict[str, Any]) -> None:
    assert set(containers) == SERVICES
    assert {name: each["State"]["Health"]["Status"] for name, each in containers.items()} == dict.fromkeys(
        SERVICES, "healthy"
    )


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_can_do_no_more_than_its_work(containers: dict[str, Any], name: str) -> None:
    container = containers[name]
    settings = container["HostConfig"]
    assert container["Config"]["User"].split(":")[0] not in {"", "0", "root"}
    assert settings["ReadonlyRootfs"] is True
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert not settings["Privileged"]
    assert "no-new-privileges:true" in settings["SecurityOpt"]
    assert settings["Memory"] > 0
    assert settings["PidsLimit"] > 0
    assert settings["NanoCpus"] > 0
    assert settings["LogConfig"]["Type"] == "journald"
    assert settings["NetworkMode"] != "host"
    assert settings["PidMode"] == settings["UTSMode"] == settings["UsernsMode"] == ""
    assert settings["IpcMode"] == "private"
    assert settings["Devices"] is None or not settings["Devices"]
    assert container["Config"]["Healthcheck"]["Test"][0] in {"CMD", "CMD-SHELL"}
    assert not [mount for mount in container["Mounts"] if mount["Source"].endswith("docker.sock")]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_the_process_itself_is_not_root_and_has_no_capability(vps: Host, containers: dict[str, Any], name: str) -> None:
    status = vps.check_output("cat /proc/%s/status", str(containers[name]["State"]["Pid"]))
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_secrets_are_in_no_inspection_image_or_log(
    vps: Host, containers: dict[str, Any], secret_values: dict[str, str]
) -> None:
    assert len(secret_values) >= 8
    places = {
        "docker inspect": json.dumps(containers),
        "docker image inspect": vps.check_output("docker image inspect $(docker images -q)"),
        "docker image history": vps.check_output("docker images -q | xargs -n1 docker history --no-trunc"),
        "journal": vps.check_output("journalctl --no-pager -o cat"),
        "command lines": vps.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"),
    }
    leaks = {(name, place) for name, value in secret_values.items() for place, text in places.items() if value in text}
    assert not leaks


def test_only_root_reads_the_environment_and_only_its_service_reads_a_secret(vps: Host) -> None:
    env = vps.file("/opt/berth/.env")
    assert (env.user, env.mode) == ("root", 0o600)
    rows = vps.check_output("find /run/berth/secrets -type f -printf '%m %u\\n'").splitlines()
    assert rows
    assert {row.split()[0] for row in rows} == {"400"}


def test_images_hold_no_tests_git_or_build_tools(vps: Host) -> None:
    for service in OURS:
        image = vps.check_output(
            "docker ps --filter label=com.docker.compose.service=%s --format '{{.Image}}'", service
        )
        names = vps.check_output("docker export $(docker create %s) | tar -t", image).splitlines()
        unwanted = [
            name
            for name in names
            if (
                name.startswith(("app/", "usr/share/nginx/", "srv/"))
                and any(part in name.split("/") for part in ("tests", ".git", "node_modules", "pip", "setuptools"))
            )
            or name in {"usr/bin/gcc", "usr/bin/git", "usr/bin/make", "usr/bin/npm"}
        ]
        assert not unwanted, (service, unwanted[:5])
    vps.check_output("docker container prune -f")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_file_of_a_container_lends_the_rights_of_its_owner(vps: Host, containers: dict[str, Any], name: str) -> None:
    root = f"/proc/{containers[name]['State']['Pid']}/root/"
    assert not vps.check_output("find %s -xdev -type f -perm /6000", root)


@pytest.mark.parametrize("service", OURS)
def test_nothing_can_be_installed_into_a_container_of_ours(vps: Host, containers: dict[str, Any], service: str) -> None:
    inside = f"docker exec {containers[service]['Id']} "
    managers = "apt apt-get dpkg pip pip3 npm npx perl"
    assert not vps.run(inside + f"sh -c 'for each in {managers}; do command -v $each; done'").stdout
    for module in ("pip", "ensurepip"):
        assert vps.run(inside + f"python3 -m {module} --version").rc != 0


@pytest.mark.parametrize("service", ["auth_service", "user_service"])
def test_every_worker_has_uvloop_and_httptools_loaded(vps: Host, service: str) -> None:
    processes = vps.check_output(
        "docker top $(docker ps -qf label=com.docker.compose.service=%s) -eo pid,ppid", service
    )
    pairs = [row.split() for row in processes.splitlines()[1:]]
    workers = [pid for pid, parent in pairs if parent in {each for each, _ in pairs}]
    assert workers
    for worker in workers:
        loaded = vps.check_output("cat /proc/%s/maps", worker)
        assert "uvloop" in loaded
        assert "httptools" in loaded
