#!/usr/bin/env python3
"""The demo: a disposable VPS on this machine, provisioned by the real playbook.

usage: demo.py up | down | ssh

`up` runs an operator's commands, prints the time of each step, and ends with the
addresses and passwords of the demo. It can be run again. DEMO_HTTP_PORT,
DEMO_HTTPS_PORT and DEMO_MAIL_PORT choose other ports on loopback.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".demo"
IMAGES_ENV = ROOT / ".cache" / "images.env"
SITE = "berth.localhost"
MAIL_SECONDS = 60


class DemoError(Exception):
    """The demo cannot continue; the message says how to fix it."""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the title of a step and, at its end, how long it took."""
    print(f"\n== {title}", flush=True)
    began = time.monotonic()
    yield
    print(f"   done in {time.monotonic() - began:.0f} s", flush=True)


def run(*command: str | Path) -> None:
    environment = {**os.environ, "BERTH_TESTBED": str(STATE), "BERTH_TESTBED_SITE": SITE}
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise DemoError(f"`{' '.join(str(part) for part in command)}` failed with status {done.returncode}; see above.")


def playbook(*arguments: str | Path) -> None:
    # The demo's inventory, so that no other environment's vault has to be opened.
    run("ansible-playbook", "-i", "inventories/demo", *arguments)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            # This user may not bind the port, but the engine can: check whether something listens there.
            return probe.connect_ex(("127.0.0.1", port)) != 0
        except OSError:
            return False
    return True


def demo_containers(column: str, *options: str) -> list[str]:
    """Return a column of `docker ps` for the demo's containers; nothing if Docker is not installed."""
    listed = ["docker", "ps", *options, "--filter", "label=com.docker.compose.project=berth-demo", "--format", column]
    try:
        return subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()
    except FileNotFoundError:
        return []


def is_running() -> bool:
    """Return whether both containers, the VPS and the outside host, are running and so use their ports."""
    return len(demo_containers("{{.ID}}")) == 2


def stop_for_another_checkout() -> None:
    """Stop if another checkout has a demo: there can be one on a machine, because names and ports are the same."""
    for owner in demo_containers('{{.Label "com.docker.compose.project.working_dir"}}', "--all"):
        if owner != str(STATE):
            raise DemoError(f"Another checkout has a demo on this machine: {owner}. Run `make demo-down` there first.")


def choose_port(variable: str, usual: int, other: int) -> int:
    """Return a port on loopback: this demo's current one, the requested one, the default, or the alternative."""
    kept = STATE / variable
    asked = os.environ.get(variable, "")
    if asked and (not asked.isdigit() or not 0 < int(asked) < 65536):
        raise DemoError(f"{variable} is {asked!r}: give a port number between 1 and 65535.")
    if kept.exists() and is_running() and asked in {"", kept.read_text()}:
        return int(kept.read_text())
    candidates = [int(asked)] if asked else [usual, other]
    port = next((candidate for candidate in candidates if is_free(candidate)), None)
    if port is None:
        taken = " and ".join(map(str, candidates))
        raise DemoError(f"In use on 127.0.0.1: port {taken}. Choose a free one with {variable}=<port>.")
    if port != candidates[0]:
        print(f"  Port {candidates[0]} is in use, so the demo uses {port}; choose another with {variable}=<port>.")
    STATE.mkdir(mode=0o700, exist_ok=True)
    kept.write_text(str(port))
    return port


def images() -> dict[str, str]:
    lines = IMAGES_ENV.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def connection() -> dict[str, str]:
    """Read the connection file of the create playbook: a flat mapping, so no YAML library is needed."""
    text = (STATE / "connection.yml").read_text()
    return dict(re.findall(r"^(\w+): (\S.*)$", text, re.MULTILINE))


def trust_the_demo_authority(outside: str) -> Path:
    """Store the root certificates of the demo's CA, which creates a new one at each start."""
    bundle = STATE / "site-ca.pem"
    done = subprocess.run(
        [
            *["docker", "exec", outside],
            *["curl", "-fsS", "--cacert", "/srv/outside/ca.pem", "https://acme.berth.test:15000/roots/0"],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"The demo's CA does not answer: {done.stderr.strip()}")
    known = bundle.read_text() if bundle.exists() else ""
    if done.stdout not in known:
        bundle.write_text(known + done.stdout)
    return bundle


class Site:
    """An HTTP client for the demo: names under .localhost are this machine (RFC 6761)."""

    def __init__(self, port: int, authority: Path) -> None:
        self.port = port
        self.context = ssl.create_default_context(cafile=str(authority))

    def post(self, path: str, document: dict[str, str]) -> tuple[int, dict[str, object]]:
        visit = http.client.HTTPSConnection(SITE, self.port, timeout=30)
        # Most system resolvers do not resolve .localhost.
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        visit.sock = self.context.wrap_socket(plain, server_hostname=SITE)
        with closing(visit):
            visit.request("POST", path, json.dumps(document), {"Content-Type": "application/json"})
            answer = visit.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")


def verification_token(mailbox: str, email: str) -> str:
    """Wait for the mail of the Celery worker, and return the token in its link."""
    deadline = time.monotonic() + MAIL_SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{mailbox}/api/email", timeout=10) as answer:  # noqa: S310  # the demo's own mailbox
            for mail in json.load(answer):
                if any(to["address"] == email for to in mail["to"]):
                    link = re.search(r"/verify#token=([\w.~-]+)", mail["text"])
                    if link:
                        return link[1]
        time.sleep(0.5)
    raise DemoError(f"No verification mail for {email} arrived within {MAIL_SECONDS} s; see {mailbox}.")


def demo_account(site: Site, mailbox: str) -> tuple[str, str]:
    """Return email and password of a verified account, created through the public API."""
    kept = STATE / "account.json"
    if kept.exists():
        account = json.loads(kept.read_text())
    else:
        account = {"email": "demo@example.com", "password": secrets.token_urlsafe(12)}
        status, answer = site.post("/api/auth/register", {**account, "name": "Demo Skipper"})
        if status != 202:
            raise DemoError(f"Sign-up of {account['email']} failed with status {status}: {answer}")
        link = {"token": verification_token(mailbox, account["email"]), "password": account["password"]}
        status, answer = site.post("/api/auth/verify", link)
        if status != 200:
            raise DemoError(f"Verification failed with status {status}: {answer}")
        kept.touch(mode=0o600)
        kept.write_text(json.dumps(account))
    status, answer = site.post("/api/auth/login", account)
    if status != 200:
        raise DemoError(f"Sign-in as {account['email']} failed with status {status}: {answer}")
    return account["email"], account["password"]


def up() -> None:
    began = time.monotonic()
    stop_for_another_checkout()
    redirect = choose_port("DEMO_HTTP_PORT", 80, 8080)
    https = choose_port("DEMO_HTTPS_PORT", 443, 8443)
    mailbox_port = choose_port("DEMO_MAIL_PORT", 8025, 18025)
    url = f"https://{SITE}" + ("" if https == 443 else f":{https}")
    mailbox = f"http://127.0.0.1:{mailbox_port}"
    published = [f"127.0.0.1:{redirect}:80", f"127.0.0.1:{https}:443", f"127.0.0.1:{https}:443/udp"]
    with step("Docker engine"):
        run(sys.executable, "images/engine.py")
    with step("Images (the first time takes some minutes)"):
        run(sys.executable, "images/build.py", "--env-out", IMAGES_ENV, "all")
    with step("Disposable VPS and outside host"):
        stage = {"testbed_publish": published, "testbed_publish_mailbox": f"127.0.0.1:{mailbox_port}"}
        playbook("molecule/shared/create.yml", "-e", json.dumps({**stage, "testbed_public_url": url}))
    with step("Secrets of this environment"):
        vault = {"env": "demo", "vault_file": f"{STATE}/vault.yml", "vault_password_file": f"{STATE}/vault-password"}
        playbook("ansible/new_environment.yml", "-e", json.dumps(vault))
    with step("ansible-playbook site.yml -i inventories/demo"):
        run("ansible-playbook", "site.yml", "-i", "inventories/demo")
    with step("A first visitor signs up, and follows the link in the mail"):
        reached = connection()
        authority = trust_the_demo_authority(reached["outside_container"])
        email, password = demo_account(Site(https, authority), mailbox)
    chosen = images()
    folder = STATE.relative_to(ROOT)
    tunnel = (
        f"{folder}/id_ed25519 -o UserKnownHostsFile={folder}/known_hosts "
        f"-L 9090:127.0.0.1:9090 admin@{reached['ansible_host']}"
    )
    stand_in = (
        ""
        if chosen["IMAGES_MODE"] == "registry"
        else "\n  Database   SecantusDB, a stand-in for MongoDB: in the demo and in tests only"
    )
    print(f"""
The site is up after {time.monotonic() - began:.0f} s.

  Site       {url}
  Sign in    {email}
  Password   {password}
  Mailbox    {mailbox} (alerts come here, too)
  Logs       docker exec {reached["outside_container"]} log-lines .
  Traces     docker exec {reached["outside_container"]} spans (of one request in ten)
  Metrics    http://127.0.0.1:9090/consoles/site.html, through this tunnel:
             ssh -N -i {tunnel}
             user operator, password: make demo-ssh, then sudo cat /opt/berth/monitoring/login/password
  VPS        make demo-ssh
  Images     {chosen["IMAGES_MODE"]}{stand_in}
  Remove     make demo-down

The certificate is from the demo's own CA, which your browser does not trust. Accept the
warning, or import {authority.relative_to(ROOT)}. With curl:
  curl --cacert {authority.relative_to(ROOT)} {url}/
""")


def down() -> None:
    playbook("molecule/shared/destroy.yml")
    print("The demo is removed: containers, volumes, network, secrets. Images and Docker engine are kept.")


def ssh() -> None:
    if not (STATE / "connection.yml").exists():
        raise DemoError("There is no demo: start it with make demo.")
    reached = connection()
    options = ["-i", str(STATE / "id_ed25519"), "-o", f'UserKnownHostsFile="{STATE}/known_hosts"']
    os.execvp("ssh", ["ssh", *options, f"admin@{reached['ansible_host']}"])  # noqa: S606


if __name__ == "__main__":
    verbs = {"up": up, "down": down, "ssh": ssh}
    if len(sys.argv) != 2 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    try:
        verbs[sys.argv[1]]()
    except DemoError as error:
        sys.exit(f"\ndemo: {error}")
