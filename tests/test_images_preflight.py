"""What role stack says about images before anything changes: one play on this machine, with a host for each case."""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import build
import registry_login
from tests.support import PLAIN, ROOT
from tests.test_env_contract import load

images = load(ROOT / "roles/stack/filter_plugins/images.py")

KEY = "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"
PINNED = "redis:8@sha256:" + "0" * 64
# What a controller's docker says; the names that end in :unbuilt are not there.
DOCKER = """#!/bin/sh
[ "$1" != version ] || { echo 28.0; exit 0; }
shift 2; status=0; separator=; printf '['
for name; do
  case $name in *:unbuilt) echo "Error response from daemon: No such image: $name" >&2; status=1; continue ;; esac
  printf '%s{"RepoTags":["%s"],"Architecture":"ARCHITECTURE",' "$separator" "$name"
  printf '"Created":"","RootFS":{"Layers":[]},"Config":{}}'
  separator=,
done
printf ']'; exit $status
"""
STOPPED = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
TOKEN = "the-token-of-the-vault"
WRONG = "a-token-that-was-revoked"


class Registry(BaseHTTPRequestHandler):
    """Asks for a login as registries do: at /v2/ itself, or by a token from another address."""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        login = base64.b64decode(given).decode()
        if login in {f"ada:{TOKEN}", f"tokens:{TOKEN}"}:
            self.answer(200, {"token": "t"})
        elif login:
            self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": f"nobody has {login}"}]})
        elif self.path.startswith("/anybody"):
            self.answer(200, {})
        else:
            self.answer(401, {}, getattr(self.server, "challenge", "Basic"))

    def answer(self, status: int, document: dict[str, Any], challenge: str = "") -> None:
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module", params=[False, True], ids=["basic", "bearer"])
def registry(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from serve(request.param)


@pytest.fixture(scope="module")
def plain_registry() -> Iterator[str]:
    yield from serve(False)


def serve(bearer: bool) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        address = f"127.0.0.1:{server.server_port}"
        if bearer:
            vars(server)["challenge"] = f'Bearer realm="http://{address}/token",service="test"'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield address
        server.shutdown()


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, plain_registry: str) -> dict[str, str]:
    """What each host's operator reads; empty for one that may go on."""
    folder = tmp_path_factory.mktemp("preflight")
    own = images.docker_architecture(platform.machine())
    scripts = {
        "none": "",
        "stopped": f"#!/bin/sh\necho '{STOPPED}' >&2\necho '[]'\nexit 1\n",
        "whole": DOCKER.replace("ARCHITECTURE", own),
        "other": DOCKER.replace("ARCHITECTURE", "riscv64"),
    }
    for name, script in scripts.items():
        (folder / name).mkdir()
        for program in ("cat", "grep", "python3", "sh", "stat", "uname"):
            (folder / name / program).symlink_to(shutil.which(program) or program)
        if script:
            (folder / name / "docker").write_text(script)
            (folder / name / "docker").chmod(0o755)
    (folder / "1.0.intoto.jsonl").touch()
    pulls = {"stack_image_transport": "registry", "stack_registry": plain_registry}
    login = {"stack_registry_username": "ada", "stack_registry_password": TOKEN}
    hosts = {
        "nameless": {"docker": "whole", "stack_domain": ""},
        "no-docker": {"docker": "none"},
        "stopped": {"docker": "stopped"},
        "unbuilt": {"docker": "whole", "stack_release": "unbuilt"},
        "other": {"docker": "other"},
        "whole": {"docker": "whole"},
        "pulls-without-docker": {"docker": "none", **pulls},
        "login": {"docker": "none", **pulls, **login},
        "wrong-login": {"docker": "none", **pulls, **login, "stack_registry_password": WRONG},
        "half-login": {"docker": "none", **pulls, **login, "stack_registry_password": ""},
        "no-key": {"docker": "whole", "stack_signing_keys": ["ssh-ed25519 AAAA"], "stack_unsigned": "a test"},
        "unsigned": {"docker": "whole", "stack_signing_keys": [KEY]},
        "excused": {"docker": "whole", "stack_signing_keys": [KEY], "stack_unsigned": "a test"},
        "signed": {"docker": "whole", "stack_signing_keys": [KEY], "stack_attestations": str(folder)},
        "builds": {"docker": "none", "stack_signing_keys": [KEY], "stack_image_transport": "source"},
        "pinned": {"docker": "whole", "stack_redis_image": PINNED},
    }
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "stack_domain": "www.site.test",
        "stack_release": "1.0",
        "stack_disk_free_gib": 0,
        "stack_attestations": str(folder / "none"),
    }
    inventory = {"all": {"hosts": hosts, "vars": common}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    play = {
        "hosts": "all",
        "gather_facts": False,
        "environment": {"PATH": f"{folder}/{{{{ docker }}}}"},
        "tasks": [{"ansible.builtin.import_role": {"name": "stack", "tasks_from": "preflight"}}],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        ["ansible-playbook", "-vvv", "--inventory", folder / "hosts.yml", folder / "play.yml"],
        cwd=ROOT,
        env={**PLAIN, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    for secret in (TOKEN, WRONG):
        assert secret not in done.stdout + done.stderr
    return {host: told(host, done.stdout) for host in hosts} | {"everything": done.stdout}


def told(host: str, output: str) -> str:
    """Return the failure of a host in a play's output, without the line breaks of YAML."""
    _, _, failure = output.partition(f"fatal: [{host}]")
    return " ".join(failure.partition("\n\n")[0].split("fatal: ")[0].split())


SENTENCES = {
    "nameless": "stack_domain (in this project: berth_domain) is missing.",
    "no-docker": "Docker is not installed there. Install or start Docker there; or set stack_image_transport to source",
    "stopped": f"Its Docker engine does not answer: {STOPPED}",
    "unbuilt": "images of release unbuilt are not built. The controller lacks localhost/berth/auth_service:unbuilt,",
    "other": "built for riscv64. other is",
    "wrong-login": "refuses the login of ada: 401 UNAUTHORIZED: nobody has ada:***. Correct stack_registry_username",
    "half-login": "vault_registry_password) is empty. Set both, or neither",
    "no-key": "berth_signing_keys): entry 1 is no public key",
    "unsigned": "Release 1.0 has no signed statement in",
    "builds": "what the host builds itself was signed by nobody",
    "pinned": f"{PINNED}: an archive carries no digests",
}


@pytest.mark.parametrize("host", SENTENCES)
def test_what_is_wrong_with_images_is_said_in_a_sentence(host: str, said: dict[str, str]) -> None:
    assert SENTENCES[host] in said[host], said["everything"][-6000:]
    assert "Traceback" not in said[host]


@pytest.mark.parametrize("host", ["whole", "pulls-without-docker", "login", "excused", "signed"])
def test_what_is_right_goes_on(host: str, said: dict[str, str]) -> None:
    assert said[host] == ""


def test_an_image_that_was_pulled_by_its_digest_is_there() -> None:
    inspected = json.dumps([{"RepoTags": [], "RepoDigests": [PINNED.replace(":8", "", 1)], "RootFS": {}}])
    assert images.images_absent([PINNED], inspected) == []
    assert images.images_absent([PINNED], "[]") == [PINNED]


def test_the_sentence_about_an_architecture_says_how_to_build_for_the_host(said: dict[str, str]) -> None:
    own = images.docker_architecture(platform.machine())
    assert f"make images IMAGES=registry PLATFORM=linux/{own}" in said["other"]


def test_the_demo_s_release_is_that_of_the_sources_and_not_the_one_it_was_made_with(tmp_path: Path) -> None:
    names = {image.variable: "localhost/nobody/third:1" for image in build.THIRD_PARTY}
    bed = {
        "ansible_host": "127.0.0.1",
        "ansible_ssh_private_key_file": "-",
        "site": "site.test",
        "zone": "test",
        "images": {**names, "IMAGE_PREFIX": "localhost/nobody", "RELEASE": "old"},
    }
    (tmp_path / "connection.json").write_text(json.dumps(bed))
    release = build.current_release()
    (tmp_path / "docker").write_text(DOCKER.replace("*:unbuilt", f"*:{release}"))
    (tmp_path / "docker").chmod(0o755)
    here = {"ansible_connection": "local", "ansible_become": False, "stack_disk_free_gib": 0}
    # The rest of a test bed, which the check of all variables would miss, is not made.
    command = ["ansible-playbook", "ansible/release.yml", "-i", "inventories/demo", "--skip-tags", "always"]
    done = subprocess.run(
        [*command, "-e", json.dumps(here)],
        cwd=ROOT,
        env={
            **PLAIN,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "BERTH_TESTBED": str(tmp_path),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"The images of release {release} are not built." in told("vps", done.stdout), done.stdout
    assert "changed=0" in done.stdout


def test_a_login_is_judged_as_docker_does(registry: str) -> None:
    assert registry_login.refusal(registry, "tokens", TOKEN) == ""
    assert registry_login.refusal(registry, "ada", WRONG) == "401 UNAUTHORIZED: nobody has ada:***"


def test_the_program_says_why_and_never_the_password(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"registry": registry, "username": "ada", "password": WRONG}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(plan)))
    with pytest.raises(SystemExit, match="nobody has") as refused:
        registry_login.main()
    assert WRONG not in str(refused.value)


def test_a_registry_that_cannot_be_asked_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"registry": "127.0.0.1:9", "username": "ada", "password": TOKEN}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(plan)))
    registry_login.main()
    assert "could not be reached" in capsys.readouterr().out


def test_only_images_for_another_architecture_are_named() -> None:
    inspected = json.dumps(
        [
            {"RepoTags": ["a:1"], "Architecture": "arm64"},
            {"RepoTags": ["b:1"], "Architecture": "amd64"},
        ]
    )
    assert images.images_of_another_architecture(inspected, "x86_64") == {"arm64": ["a:1"]}
    assert images.images_of_another_architecture(inspected, "aarch64") == {"amd64": ["b:1"]}


@pytest.mark.parametrize(
    ("words", "helps"),
    [
        ("no matching manifest for linux/amd64 in the manifest list entries", "PLATFORM=linux/amd64"),
        ("Error response from daemon: Head ...: no basic auth credentials", "berth_registry_username"),
        ("Error response from daemon: manifest for r/a:1 not found: manifest unknown", "build.py app --push"),
        ("x509: certificate signed by unknown authority", "/etc/docker/certs.d"),
    ],
)
def test_a_pull_that_failed_says_what_helps(words: str, helps: str) -> None:
    assert helps in images.pull_advice(words, "x86_64")


def test_only_mongodb_and_redis_are_upgraded_behind_the_maintenance_page() -> None:
    wanted = {"mongo": "mongo:8.0", "postgres": "postgres:18"}
    running = ["berth-mongo-1 mongo:8.0", "berth-postgres-1 postgres:17"]
    assert images.databases_upgraded(wanted) == {"mongo": "mongo:8.0"}
    assert not images.databases_to_upgrade(running, wanted)
    assert images.databases_to_upgrade(["berth-mongo-1 mongo:7.0"], wanted)
