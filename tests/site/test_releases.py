"""Releases beside the live one: nobody notices a good one, nobody sees a bad one, and nothing stays half done."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from testinfra.host import Host

import application
from tests.support import PLAIN, ROOT, Visitor, operate, playbook

SERVICES = application.images((ROOT / "docker-compose.prod.yml").read_text())
PREFIX = "localhost/berth"
TOKEN = "the-token-of-the-registry"
# bcrypt, which is all that the registry takes, with the least work that it takes.
HTPASSWD = "ada:$2b$04$0iuNMlwEQ6NJ6EZPpgSlm.iqbpdtRPaKou/mRmWZpisF5q7HyduY.\n"


RELEASE_KEY = "/opt/berth/releases/release-key"


def command(verb: str, **variables: object) -> list[str]:
    return playbook(verb, **{"release_watch_seconds": 5, "stack_drain_seconds": 2, **variables})


def play(verb: str, **variables: object) -> tuple[int, str]:
    return operate(command(verb, **variables))


def live(http: httpx.Client) -> tuple[str, str]:
    release, colour = http.get("/").raise_for_status().headers["x-berth-release"].split()
    return release, colour


def build(name: str, release: str, **changes: str) -> str:
    """Make a release out of another one; the services named here get further lines of Dockerfile."""
    for service in SERVICES:
        lines = f"FROM {PREFIX}/{service}:{release}\nLABEL berth.test={name}\n{changes.get(service, '')}\n"
        tag = ["docker", "build", "--quiet", "--tag", f"{PREFIX}/{service}:{name}", "-"]
        subprocess.run(tag, input=lines, text=True, check=True, capture_output=True)
    return name


@pytest.fixture
def at_first(http: httpx.Client) -> tuple[str, str]:
    """What is live before a test changes it."""
    return live(http)


@contextmanager
def load(testbed: dict[str, str], visitor: Visitor, uploads: int = 2) -> Iterator[dict[str, Any]]:
    """Requests of every kind from the outside host for as long as the block lasts; then the count."""
    account = {"email": visitor.email, "password": visitor.password}
    with requests(testbed, **account, upload=uploads) as counted:
        yield counted


@contextmanager
def requests(testbed: dict[str, str], **kinds: object) -> Iterator[dict[str, Any]]:
    """The same with a plan of one's own (benchmarks/release/load.py)."""
    key = subprocess.check_output(["docker", "exec", testbed["vps_container"], "cat", RELEASE_KEY], text=True)
    plan = {"domain": testbed["site"], "rate": 20, "release_key": key, **kinds}
    program = (ROOT / "benchmarks/release/load.py").read_text()
    run = ["docker", "exec", "--interactive", testbed["outside_container"], "python3", "-c", program]
    process = subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    counted: dict[str, Any] = {}
    assert process.stdin
    process.stdin.write(json.dumps(plan) + "\n")
    process.stdin.flush()
    try:
        yield counted
    finally:
        out, _ = process.communicate("stop\n", timeout=60)
        counted.update(json.loads(out))


@pytest.mark.timeout(600)
def test_a_release_and_a_rollback_fail_no_request(
    http: httpx.Client, visitor: Visitor, testbed: dict[str, str], at_first: tuple[str, str], vps: Host
) -> None:
    release, colour = at_first
    other = build(f"{release}-next", release)
    with load(testbed, visitor) as counted:
        code, said = play("release", release=other, release_force=True)
        assert code == 0, said
        assert live(http) == (other, {"blue": "green", "green": "blue"}[colour])
        code, said = play("rollback")
        assert code == 0, said
        assert live(http) == (release, colour)
    assert counted["failed"] == 0, counted["errors"]
    assert counted["requests"] > 500
    assert set(counted["releases"]) == {f"{release} {colour}", f"{other} {'green' if colour == 'blue' else 'blue'}"}
    assert containers(vps) == {f"berth-{colour}"}

    code, said = play("release", release=other)
    assert code != 0
    assert f"Release {other} was rolled back at" in said


def containers(vps: Host) -> set[str]:
    listed = vps.check_output(
        "docker ps --all --filter label=com.docker.compose.project --format '{{.Label \"com.docker.compose.project\"}}'"
    )
    return set(listed.split()) & {"berth-blue", "berth-green"}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        pytest.param(
            "crash",
            {"user_service": 'ENTRYPOINT ["python3", "-c", "raise SystemExit(\'this release is broken\')"]'},
            r"berth-\w+-user_service-1 is exited .* this release is broken",
            marks=pytest.mark.long,
        ),
        (
            "wrong",
            {"frontend": "USER 0:0\nRUN rm -r /srv/frontend/assets\nUSER 10004:10004"},
            r"healthy but failed its smoke test: The front page references /assets/\S+, which returned 404",
        ),
    ],
)
def test_a_bad_release_is_refused_before_anybody_sees_it(
    http: httpx.Client, at_first: tuple[str, str], vps: Host, name: str, change: dict[str, str], reason: str
) -> None:
    release, colour = at_first
    bad = build(f"{release}-{name}", release, **change)
    code, said = play("release", release=bad)
    assert code != 0
    assert re.search(reason, said), said[-2000:]
    assert live(http) == (release, colour)
    assert containers(vps) == {f"berth-{colour}"}
    last = json.loads(vps.check_output("tail -n 1 /opt/berth/releases.jsonl"))
    assert (last["to"], last["result"]) == (bad, "failed")
    assert vps.check_output(f"ls /opt/berth/releases/{bad}/*/*.log")


def test_a_closed_site_says_when_to_come_back_and_lets_its_operator_in(
    http: httpx.Client, outside: Host, testbed: dict[str, str]
) -> None:
    ask = f"curl --silent --insecure --dump-header - https://{testbed['site']}"
    try:
        code, said = play("maintenance", maintenance="on")
        assert code == 0, said
        # The controller's own address is let through; the outside host is somebody else.
        assert http.get("/").status_code == 200
        page = outside.check_output(f"{ask}/")
        assert " 503" in page.splitlines()[0]
        assert "retry-after: 120" in page
        assert "Back in a moment" in page
        assert '"code":"maintenance"' in outside.check_output(f"{ask}/api/users/me")
        [(header, key)] = re.findall(r"(X-Berth-Operator): (\S+)", said)
        assert " 200" in outside.check_output(f"{ask}/ --header '{header}: {key.strip(chr(39))}'").splitlines()[0]
    finally:
        code, said = play("maintenance", maintenance="off")
    assert code == 0, said
    assert " 200" in outside.check_output(f"{ask}/").splitlines()[0]


def test_status_is_one_screen_on_which_nothing_is_missing(http: httpx.Client) -> None:
    # As an operator sees it; molecule has Ansible's own lines.
    environment = {name: value for name, value in PLAIN.items() if name != "ANSIBLE_STDOUT_CALLBACK"}
    done = subprocess.run(playbook("status"), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.strip().splitlines()
    assert len(lines) <= 40, done.stdout
    release, colour = live(http)
    assert f"release {release} ({colour}), live since " in done.stdout
    for word in ("lock          free", "maintenance   off", "days left", "GiB free", "security update"):
        assert word in done.stdout, word
    assert "MISSING" not in done.stdout


@pytest.mark.parametrize(
    ("taken", "what", "fix"),
    [
        ("docker rm --force berth-mongo-1", "container mongo: MISSING", "ansible/upgrade_data.yml"),
        (
            "systemctl stop berth-docker-prune.timer",
            "unit berth-docker-prune.timer: inactive",
            "sudo systemctl restart",
        ),
        ("nft delete table inet berth", "nftables table inet berth: MISSING", "sudo systemctl restart nftables"),
    ],
)
@pytest.mark.long
def test_what_is_missing_is_red_and_the_command_named_brings_it_back(
    vps: Host, taken: str, what: str, fix: str
) -> None:
    vps.check_output(taken)
    shown = vps.check_output("berth status --inventory=inventories/demo")
    assert what in shown, shown
    command = next(line.strip() for line in shown.splitlines() if fix in line)
    if command.startswith("sudo "):
        vps.check_output(command)
    else:
        assert operate(command.split())[0] == 0
    missing = json.loads(vps.check_output("berth status --json"))["missing"]
    assert missing == []


@pytest.fixture
def registry(testbed: dict[str, str], vps: Host, tmp_path: Path) -> Iterator[str]:
    """A registry on the outside host, whose certificate the VPS's engine knows, and which nobody may use but ada."""
    name = f"outside.{testbed['zone']}:5000"
    subject = ["-subj", "/CN=registry", "-addext", f"subjectAltName=DNS:outside.{testbed['zone']}"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{tmp_path}/key.pem"]
    made = ["openssl", "req", "-x509", "-days", "2", *key, "-out", f"{tmp_path}/cert.pem", *subject]
    subprocess.run(made, check=True, capture_output=True)
    (tmp_path / "key.pem").chmod(0o644)
    (tmp_path / "users").write_text(HTPASSWD)
    (tmp_path / "users").chmod(0o644)
    tmp_path.chmod(0o755)
    run = ["docker", "run", "--detach", f"--network=container:{testbed['outside_container']}"]
    run += [f"--volume={tmp_path}:/certs:ro", "--env=REGISTRY_HTTP_TLS_CERTIFICATE=/certs/cert.pem"]
    run += ["--env=REGISTRY_HTTP_TLS_KEY=/certs/key.pem", "--env=REGISTRY_AUTH=htpasswd"]
    run += ["--env=REGISTRY_AUTH_HTPASSWD_REALM=test", "--env=REGISTRY_AUTH_HTPASSWD_PATH=/certs/users"]
    run += [f"{PREFIX}/registry:2"]
    container = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    folder = f"/etc/docker/certs.d/{name}"
    certificate = (tmp_path / "cert.pem").read_text()
    vps.check_output(f"mkdir -p {folder} && printf %s '{certificate}' > {folder}/ca.crt")
    try:
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", container], check=True, capture_output=True)
        vps.check_output("rm -r /etc/docker/certs.d")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_host_pulls_a_release_from_a_registry(
    http: httpx.Client, at_first: tuple[str, str], testbed: dict[str, str], vps: Host, registry: str
) -> None:
    release = at_first[0]
    there = f"{registry}/berth"
    pusher = "docker --config /run/pusher"
    # Not through sudo, which writes down what it is asked.
    log_in = f"{pusher} login --username ada --password-stdin {registry}".split()
    run = ["docker", "exec", "--interactive", testbed["vps_container"], *log_in]
    subprocess.run(run, input=TOKEN, text=True, check=True, capture_output=True)
    for service in SERVICES:
        # As a build machine would; then the host has them no more.
        image = f"{there}/{service}:pulled"
        vps.check_output(f"docker tag {PREFIX}/{service}:{release} {image} && {pusher} push --quiet {image}")
        vps.check_output(f"docker image rm {image}")
    vps.check_output("rm -r /run/pusher")
    pulled = {"release": "pulled", "stack_image_transport": "registry", "stack_image_prefix": there}
    login = {"berth_registry_username": "ada", "vault_registry_password": TOKEN}

    code, said = play("release", **pulled, **{**login, "vault_registry_password": "another"})
    assert code != 0
    assert re.search(r"refuses the login of ada: 401 .* vault_registry_password", said), said[-2000:]
    assert "changed=0" in said

    code, said = play("release", **pulled, **login)
    assert code == 0, said
    assert live(http)[0] == "pulled"
    # Of the login nothing is left: no folder, no file of docker's, no line.
    encoded = base64.b64encode(f"ada:{TOKEN}".encode()).decode()
    # The question itself is in the journal as well, and must not find itself.
    found = " ".join(f"-e '{word[:-2]}[{word[-2]}]{word[-1]}'" for word in (TOKEN, encoded))
    assert vps.run("ls -d /run/berth-registry-* /root/.docker/config.json").rc != 0
    assert vps.run(f"journalctl --since -10min | grep {found}").rc == 1
    code, said = play("release", **pulled, **login)
    assert code == 0, said
    assert "changed=0" in said
    # The controller is away.
    assert vps.check_output("berth rollback %s", release).startswith(f"Release {release} is live again after ")
    assert live(http)[0] == release
