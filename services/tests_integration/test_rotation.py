"""The documented rotation of the key that signs access tokens, on running services."""

import base64
import contextlib
import json
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from shared import keys
from tests_integration.conftest import Mailbox, Program, Site, is_ready, poll
from tests_integration.test_services import PASSWORD, sign_up

pytestmark = pytest.mark.integration


class Pair:
    """auth_service and user_service beside those of the site, on its databases, with secrets in files."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.folder = folder
        self.programs: dict[str, Program] = {}
        self.url: dict[str, str] = {}
        self.jwt_secret_key = secrets.token_hex(32)
        for service in ("auth_service", "user_service"):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            told = {name: value for name, value in site.programs[service].environment.items() if "JWT" not in name}
            told |= {"BIND": f"127.0.0.1:{port}", "SECRETS_DIRECTORY": str(folder / service)}
            self.url[service] = f"http://127.0.0.1:{port}"
            self.programs[service] = Program(folder / f"{service}.log", ["-W", "ignore", "-m", service], told)

    def hand_over(self, private_key: str, *previous: str) -> None:
        """Write the files as `berth secrets` does."""
        public = ",".join([keys.public_key(private_key), *previous])
        files = {
            "auth_service": {
                "jwt_private_key": private_key,
                "jwt_public_keys": public,
                "jwt_secret_key": self.jwt_secret_key,
            },
            "user_service": {"jwt_public_keys": public},
        }
        for service, own in files.items():
            (self.folder / service).mkdir(exist_ok=True)
            for name, content in own.items():
                draft = self.folder / service / f".{name}.new"
                draft.write_text(content)
                draft.rename(self.folder / service / name)

    def take_up(self) -> None:
        """user_service first: it knows the new key before anything is signed with it."""
        for service in ("user_service", "auth_service"):
            self.programs[service].process.send_signal(signal.SIGHUP)

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            for program in self.programs.values():
                program.start()
                stack.callback(program.kill)
            poll(lambda: all(map(is_ready, self.url.values())), 60, "both services")
            yield


class Visitor(threading.Thread):
    """Refreshes and looks at the profile, over and over, and notes what failed."""

    def __init__(self, pair: Pair, client: httpx.Client, first: str) -> None:
        super().__init__()
        self.pair, self.client, self.first = pair, client, first
        self.token = first
        self.requests, self.failed = 0, list[str]()
        self.gone = threading.Event()

    def run(self) -> None:
        while not self.gone.is_set():
            self.ask("POST", "auth_service", "/api/auth/refresh", "")
            for token in (self.token, self.first):
                self.ask("GET", "user_service", "/api/users/me", token)
                self.ask("GET", "auth_service", "/api/auth/me", token)

    def ask(self, method: str, service: str, path: str, token: str) -> None:
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = self.client.request(method, f"{self.pair.url[service]}{path}", headers=bearer)
        except httpx.TransportError:
            # A worker that ends resets a connection it has taken and not read from, whatever its keys. Asked again.
            return
        self.requests += 1
        if answer.status_code != 200:
            self.failed.append(f"{path}: {answer.status_code} {answer.text}")
        elif method == "POST":
            self.token = answer.json()["access_token"]


def kid(token: str) -> str:
    return str(json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))["kid"])


def test_a_new_key_is_taken_up_without_a_refused_token_and_the_old_one_dropped(
    site: Site, mailbox: Mailbox, address: str, tmp_path: Path
) -> None:
    with site.api() as client:
        sign_up(site, mailbox, address, client)
    old, new = keys.new_private_key(), keys.new_private_key()
    pair = Pair(site, tmp_path)
    pair.hand_over(old)
    # No connection is kept: a client that reuses one cannot know that the server is about to close it.
    with pair.running(), httpx.Client(timeout=30, headers={"Connection": "close"}) as client:
        account = {"email": address, "password": PASSWORD}
        first = client.post(f"{pair.url['auth_service']}/api/auth/login", json=account).json()["access_token"]
        visitor = Visitor(pair, client, first)
        visitor.start()
        try:
            poll(lambda: visitor.requests > 50 or visitor.failed, 30, "a visitor")
            pair.hand_over(new, keys.public_key(old))
            pair.take_up()
            poll(lambda: kid(visitor.token) != kid(first) or visitor.failed, 30, "a token of the new key")
            seen = visitor.requests
            poll(lambda: visitor.requests > seen + 50 or visitor.failed, 30, "the visitor after the rotation")
        finally:
            visitor.gone.set()
            visitor.join()
        assert not visitor.failed

        pair.hand_over(new)
        pair.take_up()

        def status(service: str, path: str, token: str) -> int:
            # A worker that ends may reset a connection whose request it has not read.
            with contextlib.suppress(httpx.TransportError):
                return client.get(
                    f"{pair.url[service]}{path}", headers={"Authorization": f"Bearer {token}"}
                ).status_code
            return 0

        poll(lambda: status("user_service", "/api/users/me", first) == 401, 30, "the old key's end in user_service")
        poll(lambda: status("auth_service", "/api/auth/me", first) == 401, 30, "the old key's end in auth_service")
        poll(lambda: status("user_service", "/api/users/me", visitor.token) == 200, 30, "the new key in user_service")
        poll(lambda: status("auth_service", "/api/auth/me", visitor.token) == 200, 30, "the new key in auth_service")
