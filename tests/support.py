"""What tests of the whole site and of the development stack both need: people, their mailbox, their browser."""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2 as httpx
import pytest
import testinfra
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[1]
MAIL_SECONDS = 60
PLAY_SECONDS = 240
# What an operator reads, without colours.
PLAIN = {**os.environ, "ANSIBLE_FORCE_COLOR": "false"}
Found = TypeVar("Found")

# Debian's Chromium, without the parts that would ask hosts of its maker.
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGUMENTS = [
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]


def copy_of_the_project(path: Path) -> None:
    """Copy the project as it is here, committed or not, to a folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)


def poll(ask: Callable[[], Found | None], seconds: float, what: str) -> Found:
    """Ask until there is an answer; fail with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while (found := ask()) is None:
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.3)
    return found


def playbook(verb: str, **variables: object) -> list[str]:
    """Return an operator's command: one of ansible/, on the test bed."""
    return ["ansible-playbook", f"ansible/{verb}.yml", "-i", "inventories/demo", "-e", json.dumps(variables)]


def operate(command: list[str]) -> tuple[int, str]:
    """Run a playbook; return its status and what an operator reads, without the line breaks of YAML."""
    done = subprocess.run(
        command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, timeout=PLAY_SECONDS, check=False
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def begin(command: list[str]) -> subprocess.Popen[str]:
    """Start a playbook in a session of its own, so that it can be ended alone."""
    out, err = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(command, cwd=ROOT, env=PLAIN, stdout=out, stderr=err, text=True, start_new_session=True)


@functools.cache
def ansible_loader() -> DataLoader:
    """Return what loads files as Ansible does, with its own plugins and every filter of this project at hand."""
    init_plugin_loader()
    for filters in (*ROOT.glob("roles/*/filter_plugins"), ROOT / "ansible/plugins/filter"):
        filter_loader.add_directory(str(filters))
    return DataLoader()


def rendered(role: str, template: str, **values: object) -> str:
    """Return what a role's template becomes with its defaults and these values, by Ansible's own means."""
    folder, loader = ROOT / "roles" / role, ansible_loader()
    variables: dict[str, object] = {"ansible_managed": "Written by a test", "ansible_search_path": [str(folder)]}
    for kind in ("defaults", "vars"):
        variables |= loader.load_from_file(str(folder / kind / "main.yml"), trusted_as_template=True)
    text = trust_as_template((folder / "templates" / template).read_text())
    return str(Templar(loader=loader, variables={**variables, **values}).template(text))


def ssh_config(folder: Path, address: str, key: Path, known_hosts: Path) -> Path:
    """Return settings by which `ssh -F … server` is its administrator, over one connection kept in the folder."""
    config = folder / "config"
    config.write_text(
        f'Host server\n  HostName {address}\n  User admin\n  IdentityFile "{key}"\n  IdentitiesOnly yes\n'
        f'  UserKnownHostsFile "{known_hosts}"\n  ConnectTimeout 20\n'
        f'  ControlMaster auto\n  ControlPersist 300s\n  ControlPath "{folder}/control"\n'
    )
    return config


def administrator(config: Path) -> Host:
    return testinfra.get_host("ssh://server?sudo=true", ssh_config=str(config))


@dataclass(frozen=True)
class Mailbox:
    """The mail server on the outside host."""

    url: str

    def mails(self) -> list[dict[str, Any]]:
        return list(httpx.get(f"{self.url}/api/email").raise_for_status().json())

    def links_for(self, email: str, page: str = "verify") -> list[str]:
        """Return the links to a page in the mails for somebody, the newest first."""
        newest = sorted(self.mails(), key=lambda mail: str(mail["time"]), reverse=True)
        texts = [mail["text"] for mail in newest if any(to["address"] == email for to in mail["to"])]
        return [link for text in texts for link in re.findall(rf"https?://\S+/{page}#token=[\w.~-]+", text)]

    def link_for(self, email: str, page: str = "verify") -> str:
        """Wait for a mail with a link to a page, and return that of the newest."""
        look = lambda: next(iter(self.links_for(email, page)), None)  # noqa: E731
        return poll(look, MAIL_SECONDS, f"a mail for {email} with a link to /{page}")

    def about(self, subject: str) -> list[str]:
        """Return the mails whose subject begins like this, the oldest first, without their line breaks."""
        mails = httpx.get(f"{self.url}/api/email").raise_for_status().json()
        found = sorted((mail["time"], mail["text"]) for mail in mails if mail["subject"].startswith(subject))
        return [" ".join(text.split()) for _, text in found]

    def count_for(self, email: str) -> int:
        return sum(any(to["address"] == email for to in mail["to"]) for mail in self.mails())


@dataclass
class Visitor:
    """Somebody with an account, as a browser would hold it."""

    http: httpx.Client
    email: str
    password: str

    def sign_in(self) -> dict[str, str]:
        """Return the Authorization header of a fresh sign-in."""
        answer = self.http.post("/api/auth/login", json={"email": self.email, "password": self.password})
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def join(http: httpx.Client, mailbox: Mailbox) -> Visitor:
    """Sign up, and follow the link in the mail."""
    account = new_account()
    answer = http.post("/api/auth/register", json=account)
    assert answer.status_code == 202, answer.text
    link = {"token": mailbox.link_for(account["email"]).split("token=")[1], "password": account["password"]}
    assert http.post("/api/auth/verify", json=link).status_code == 200
    return Visitor(http, **account)


def new_account() -> dict[str, str]:
    return {"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_urlsafe(16)}
